"""Everything that token embeddings are read from."""

import sys

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import CollectionNotFound, InvalidInput, MissingExtra, MuveraError, WrongUsage
from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.sources import open_queries, open_source
from muvera_core import FDEConfig, FDEEncoder, TokenBatch
from tests.plaid.files import INDEXES

DIM = 16


@pytest.fixture
def matrices(rng):
    return [rng.normal(size=(int(n), DIM)).astype("f2") for n in rng.integers(1, 9, 700)]


def joined(matrices):
    batch = TokenBatch.from_list(matrices)
    return batch.values, batch.offsets


def check(source, matrices, ids=None):
    assert source.dim == DIM
    assert len(source) == source.n_positions == len(matrices)
    for start in (0, 1, 350, len(matrices) - 1, len(matrices)):
        found = list(source.documents(start))
        assert [d.position for d in found] == list(range(start, len(matrices)))
        assert [d.id for d in found] == list(ids or range(len(matrices)))[start:]
        for document, matrix in zip(found, matrices[start:], strict=True):
            assert document.tokens.dtype == np.float32
            np.testing.assert_array_equal(document.tokens, matrix.astype("f4"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("parting", ["offsets", "doclens"])
def test_npz_joined(tmp_path, matrices, save, parting, monkeypatch):
    monkeypatch.setattr("muvera_adapters.sources.arrays._SLICE_TOKENS", 50)
    values, offsets = joined(matrices)
    ids = [f"d{i}" for i in range(len(matrices))]
    parts = offsets if parting == "offsets" else np.diff(offsets).astype("i4")
    queries = {"query_tokens": values[:6], "query_offsets": np.array([0, 2, 6])}
    save(
        tmp_path / "x.npz", doc_tokens=values, parts=parts, doc_ids=np.array(ids), scores=np.ones((3, 4, 5)), **queries
    )
    source = open_source(tmp_path / "x.npz")
    check(source, matrices, ids)
    assert source.n_tokens == len(values)
    found = open_queries(tmp_path / "x.npz")
    assert found.lengths.tolist() == [2, 4]
    np.testing.assert_array_equal(found.values, values[:6].astype("f4"))


def test_npz_one_for_each(tmp_path, matrices):
    np.savez(tmp_path / "numbered.npz", *matrices)
    check(open_source(tmp_path / "numbered.npz"), matrices)
    np.savez(tmp_path / "named.npz", **{f"doc/{i}": m for i, m in enumerate(matrices)})
    check(open_source(tmp_path / "named.npz"), matrices, [f"doc/{i}" for i in range(len(matrices))])


def test_safetensors(tmp_path, matrices, monkeypatch):
    from safetensors.numpy import save_file

    monkeypatch.setattr("muvera_adapters.sources.arrays._SLICE_TOKENS", 50)
    values, offsets = joined(matrices)
    save_file({"tokens": values, "offsets": offsets}, tmp_path / "x.safetensors")
    check(open_source(tmp_path / "x.safetensors"), matrices)
    # the library sorts names; numbers in them are put in order
    save_file({f"d{i}": m for i, m in enumerate(matrices)}, tmp_path / "y.safetensors")
    check(open_source(tmp_path / "y.safetensors"), matrices, [f"d{i}" for i in range(len(matrices))])


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("files", [1, 3])
def test_parquet(tmp_path, matrices, kind, files):
    import pyarrow as pa
    from pyarrow import parquet

    inner = pa.list_(pa.float16() if kind == "list" else pa.float32(), DIM if kind == "fixed" else -1)
    column = pa.large_list(inner) if kind == "large_list" else pa.list_(inner)
    tokens = pa.array([list(m.astype("f2" if kind == "list" else "f4")) for m in matrices], column)
    n = len(matrices)
    table = pa.table({"doc_id": [f"p{i}" for i in range(n)], "colbert": tokens, "title": ["t", None] * (n // 2)})
    for k in range(files):
        part = table.slice(k * n // files, (k + 1) * n // files - k * n // files)
        parquet.write_table(part, tmp_path / f"{k}.parquet", row_group_size=70)
    source = open_source(tmp_path if files > 1 else tmp_path / "0.parquet")
    check(source, matrices, [f"p{i}" for i in range(n)])
    assert [d.payload for d in source.documents(n - 2)] == [{"title": "t"}, {}]


def test_parquet_that_is_wrong(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    def write(**columns):
        parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    vectors = [[[1.0, 2.0]], [[3.0, 4.0]]]
    with pytest.raises(InvalidInput, match="no column is a list of vectors; it has text"):
        open_source(write(text=["a", "b"]))
    with pytest.raises(InvalidInput, match="--tokens-column"):
        open_source(write(a=vectors, b=vectors))
    assert open_source(write(a=vectors, b=vectors), tokens_column="b").dim == 2
    with pytest.raises(InvalidInput, match="'same' twice"):
        open_source(write(id=["same", "same"], a=vectors))
    with pytest.raises(InvalidInput, match="no column 'key'"):
        open_source(write(a=vectors), id_column="key")
    with pytest.raises(InvalidInput, match="different widths"):
        open_source(write(a=[[[1.0, 2.0], [1.0]]]))
    found = list(open_source(write(a=[[[1.0, 2.0]], None])).documents())
    assert found[1].tokens.shape == (0, 2)
    (tmp_path / "y.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InvalidInput, match="no Parquet file"):
        open_source(tmp_path / "y.parquet")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"tokens": np.ones((5, 4), "f4")}, None),
        ({"tokens": np.ones((5, 4), "f4"), "offsets": np.array([0, 3])}, "no array of integers parts the 5 rows"),
        ({"tokens": np.ones((5, 4), "f4"), "a": np.array([0, 5]), "b": np.array([2, 3])}, "more than one array"),
        ({"tokens": np.ones((5, 4), "i4"), "a": np.array([0, 5])}, "expected one"),
        ({"a": np.ones((5, 4), "f4"), "b": np.ones((5, 3), "f4")}, "different widths"),
        ({"tokens": np.ones((2, 4), "f4"), "n": np.array([1, 1]), "ids": np.array(["x", "x"])}, "'x' twice"),
        ({"tokens": np.array([object()])}, "Python objects"),
    ],
)
def test_arrays_that_are_wrong(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays)
    if says is None:
        assert len(open_source(tmp_path / "x.npz")) == 1
        return
    with pytest.raises(InvalidInput) as caught:
        open_source(tmp_path / "x.npz")
    assert says in str(caught.value)


def test_a_truncated_archive(tmp_path, matrices):
    values, offsets = joined(matrices)
    np.savez(tmp_path / "x.npz", tokens=values, offsets=offsets)
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-200])
    with pytest.raises(InvalidInput, match=r"no \.npz file"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize("name", sorted(p.name for p in INDEXES.iterdir()))
@pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
def test_an_index_from_any_position(name):
    source = open_source(INDEXES / name / "index" / ("colbert" if name.startswith("pylate") else ""))
    everything = list(source.documents())
    assert len(everything) == len(source)
    assert sum(len(d.tokens) for d in everything) == source.n_tokens
    for start in (1, everything[-1].position // 2, everything[-1].position, source.n_positions):
        found = list(source.documents(start))
        expected = [d for d in everything if d.position >= start]
        assert [(d.position, d.id, d.payload) for d in found] == [(d.position, d.id, d.payload) for d in expected]
        assert all(np.allclose(a.tokens, b.tokens, atol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("foreign", [False, True])
def test_a_collection(tmp_path, matrices, foreign):
    target, n = f"qdrant:{tmp_path}", 40
    client = QdrantClient(path=str(tmp_path))
    if foreign:
        multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vector = models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi)
        client.create_collection("theirs", vectors_config={"colbert": vector})
        points = [models.PointStruct(id=i, vector={"colbert": m.tolist()}) for i, m in enumerate(matrices[:n])]
        client.upsert("theirs", points)
    else:
        store = QdrantMuvera.create(client, "theirs", FDEEncoder(FDEConfig(DIM, r_reps=2, k_sim=2, d_proj=4)))
        store.upsert([f"d{i}" for i in range(n)], matrices[:n], [{"n": i} for i in range(n)])
    before = client.get_collection("theirs").model_dump()
    client.close()
    with pytest.raises(CollectionNotFound):
        open_source(target, collection="other", tokens_vector="colbert")
    with pytest.raises(WrongUsage, match="--from-collection"):
        open_source(target)
    if foreign:
        with pytest.raises(CollectionNotFound, match="--tokens-vector"):
            open_source(target, collection="theirs")
    source = open_source(target, collection="theirs", tokens_vector="colbert" if foreign else None)
    assert (source.dim, len(source)) == (DIM, n)
    found = {d.id: d for d in source.documents()}
    for i in range(n):
        document = found[i if foreign else f"d{i}"]
        np.testing.assert_array_equal(document.tokens, matrices[i].astype("f4"))
        assert document.payload == ({} if foreign else {"n": i})
    assert [d.id for d in source.documents(30)] == list(found)[30:]
    source.close()
    client = QdrantClient(path=str(tmp_path))
    assert client.get_collection("theirs").model_dump() == before
    client.close()


def test_queries(tmp_path, rng):
    matrix = rng.normal(size=(3, 5, DIM))
    np.save(tmp_path / "three.npy", matrix)
    np.save(tmp_path / "one.npy", matrix[1])
    np.save(tmp_path / "none.npy", matrix[0, 0])
    assert open_queries(tmp_path / "three.npy").lengths.tolist() == [5, 5, 5]
    np.testing.assert_array_equal(open_queries(tmp_path / "one.npy")[0], matrix[1].astype("f4"))
    with pytest.raises(InvalidInput, match="expected one query"):
        open_queries(tmp_path / "none.npy")
    with pytest.raises(InvalidInput, match="no such file"):
        open_queries(tmp_path / "absent.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(InvalidInput, match=r"no \.npy"):
        open_queries(tmp_path / "text.npy")


def test_what_is_no_source(tmp_path):
    with pytest.raises(MuveraError, match="no such file or directory"):
        open_source(tmp_path / "absent")
    with pytest.raises(MuveraError, match="no such file"):
        open_source(tmp_path / "absent.npz")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(MuveraError, match="no directory of an index"):
        open_source(tmp_path / "x.csv")
    with pytest.raises(WrongUsage, match="--texts does not apply"):
        open_source(tmp_path / "x.npz", texts="texts.tsv")
    with pytest.raises(WrongUsage, match="--from-collection does not apply"):
        open_source(tmp_path, collection="x")


@pytest.mark.parametrize(("module", "suffix"), [("safetensors", "safetensors"), ("pyarrow", "parquet")])
def test_missing_extras(tmp_path, monkeypatch, module, suffix):
    (tmp_path / f"x.{suffix}").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"muvera-adapters\[{suffix}\]"):
        open_source(tmp_path / f"x.{suffix}")
