"""Everything that token embeddings are read from."""

import json
import pickle
import shutil
import sys
import warnings

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import CollectionNotFound, InvalidInput, MissingExtra, MuveraError, WrongUsage
from muvera_adapters.plaid import IndexWarning
from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.sources import SourceWarning, open_queries, open_source
from muvera_core import FDEConfig, FDEEncoder, TokenBatch
from tests.plaid.files import INDEXES, Evil, tensor_opcodes, write_archive

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
        tmp_path / "x.npz",
        doc_tokens=values,
        **{parting: parts},
        doc_ids=np.array(ids),
        scores=np.ones((3, 4, 5), "i4"),
        **queries,
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
    with pytest.raises(InvalidInput, match="name one with --tokens"):
        open_source(write(a=vectors, b=vectors))
    assert open_source(write(a=vectors, b=vectors), tokens="b").dim == 2
    with pytest.raises(InvalidInput, match="'same' twice"):
        open_source(write(id=["same", "same"], a=vectors))
    with pytest.raises(InvalidInput, match="no column 'key'"):
        open_source(write(a=vectors), ids="key")
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
        (
            {"tokens": np.ones((5, 4), "f4"), "offsets": np.array([0, 3])},
            "'offsets' is a int64 array of shape (2,) that adds up to 3: it does not part the 5 rows of 'tokens'",
        ),
        ({"tokens": np.ones((5, 4), "f4"), "b": np.array([0, 3])}, "no array of integers parts the 5 rows"),
        ({"tokens": np.ones((5, 4), "f4"), "a": np.array([0, 5]), "b": np.array([2, 3])}, "more than one array"),
        ({"tokens": np.ones((5, 4), "i4"), "a": np.array([0, 5])}, "expected one"),
        ({"a": np.ones((5, 4), "f4"), "b": np.ones((5, 3), "f4")}, "different widths"),
        ({"tokens": np.ones((2, 4), "f4"), "lengths": np.array([1, 1]), "ids": np.array(["x", "x"])}, "'x' twice"),
        ({"tokens": np.array([object()])}, "refused: the pickle has a"),
    ],
)
def test_arrays_that_are_wrong(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays)
    with pytest.raises(MuveraError) as caught:
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
    with pytest.raises(InvalidInput, match="expected one"):
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


class TestNamesOfArrays:
    """Roles of arrays: exact names first, options always, guesses are told, and nothing is left out by its name."""

    TOKENS = np.random.default_rng(0).normal(size=(24, DIM)).astype("f4")
    LENGTHS = np.array([3, 7, 5, 9])
    PAGES = ("p0", "p1", "p2", "p3")

    def save(self, tmp_path, form, **arrays):
        if form == "npz":
            np.savez(tmp_path / "x.npz", **arrays)
        else:
            from safetensors.numpy import save_file

            save_file(arrays, tmp_path / "x.safetensors")
        return tmp_path / f"x.{form}"

    @pytest.mark.parametrize("other", ["width", "valid", "grid", "video", "considered", "input_ids"])
    def test_letters_of_id_are_not_ids(self, tmp_path, other):
        arrays = {"embeddings": self.TOKENS, "lengths": self.LENGTHS, other: np.array([640, 800, 1024, 512])}
        np.savez(tmp_path / "a.npz", **arrays)
        source = open_source(tmp_path / "a.npz")
        assert [d.id for d in source.documents()] == [0, 1, 2, 3]
        assert "ids are positions" in source.format
        assert f"not read: '{other}'" in source.format
        np.savez(tmp_path / "b.npz", **arrays, page_ids=np.array(self.PAGES))
        with pytest.warns(SourceWarning, match="ids are taken from the array 'page_ids'"):
            source = open_source(tmp_path / "b.npz")
        assert [d.id for d in source.documents()] == [*self.PAGES]
        assert "tokens in 'embeddings', lengths in 'lengths', ids in 'page_ids'" in source.format
        assert [d.id for d in open_source(tmp_path / "b.npz", ids="none").documents()] == [0, 1, 2, 3]

    @pytest.mark.filterwarnings("ignore::muvera_adapters.sources.SourceWarning")
    @pytest.mark.parametrize(
        ("ids", "says"),
        [
            (np.array([11.0, 12.0, 13.0, 14.0]), r"ids has 11.0 \(float64\); ids are integers and strings"),
            (np.array([True] * 4), r"ids has True \(bool\)"),
            (np.array(["a", "b", "c", "d", "e"]), r"ids has shape \(5,\), expected 4 ids"),
            (np.array([[11], [12], [13], [14]]), r"ids has shape \(4, 1\)"),
            (np.array([1, 2, 2, 3]), "the id 2 twice"),
            (np.array([b"\xff"] * 4), "not UTF-8"),
        ],
    )
    def test_ids_that_cannot_be_used_are_refused(self, tmp_path, ids, says):
        for name in ("ids", "doc_ids", "page_id"):
            np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, **{name: ids})
            with pytest.raises(InvalidInput, match=says.replace("ids has", f"{name} has")):
                open_source(tmp_path / "x.npz")
            assert [d.id for d in open_source(tmp_path / "x.npz", ids="none").documents()] == [0, 1, 2, 3]

    def test_several_that_may_be_ids(self, tmp_path):
        arrays = {"user_id": np.arange(4), "page_id": np.array(self.PAGES)}
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, **arrays)
        with pytest.raises(
            InvalidInput, match="several arrays may hold the ids: user_id, page_id; name one with --ids"
        ):
            open_source(tmp_path / "x.npz")
        assert [d.id for d in open_source(tmp_path / "x.npz", ids="page_id").documents()] == [*self.PAGES]
        with pytest.raises(InvalidInput, match="there is no array and no file of this name"):
            open_source(tmp_path / "x.npz", ids="pages")

    def test_ids_of_a_file(self, tmp_path):
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS)
        (tmp_path / "ids.txt").write_text("\n".join(self.PAGES))
        np.save(tmp_path / "ids.npy", np.array(self.PAGES, object))
        for name in ("ids.txt", "ids.npy"):
            source = open_source(tmp_path / "x.npz", ids=str(tmp_path / name))
            assert [d.id for d in source.documents()] == [*self.PAGES]
            assert tmp_path / name in source.files

    def test_ids_as_objects(self, tmp_path):
        np.savez(
            tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, ids=np.array(["a", 2, "c", "d"], object)
        )
        assert [d.id for d in open_source(tmp_path / "x.npz").documents()] == ["a", 2, "c", "d"]
        arrays = {"embeddings": self.TOKENS, "lengths": self.LENGTHS}
        # objects that nobody asks for do no harm
        np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays, about=np.array([{"a": 1}], object))
        assert "not read: 'about'" in open_source(tmp_path / "x.npz").format
        for wrong, says in (
            (None, "ids has None"),
            (float("nan"), "ids has nan"),
            ({"a": 1}, "ids: cut short, or refused"),
        ):
            np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays, ids=np.array(["a", wrong, "c", "d"], object))
            with pytest.raises(MuveraError, match=says):
                open_source(tmp_path / "x.npz")

    @pytest.mark.parametrize("form", ["npz", "safetensors"])
    def test_no_document_is_left_out_by_its_name(self, tmp_path, form):
        names = ["annual.pdf", "quarterly.pdf", "Q3-report.pdf", "query", "queries_2", "Q42", "ids"]
        path = self.save(tmp_path, form, **dict.fromkeys(names, self.TOKENS[:5]))
        assert sorted(d.id for d in open_source(path).documents()) == sorted(names)
        assert len(open_queries(path)) == len(names)

    def test_queries_beside_documents(self, tmp_path):
        queries = {"query_tokens": self.TOKENS[:6], "query_lengths": np.array([2, 4])}
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, **queries)
        assert open_source(tmp_path / "x.npz").lengths.tolist() == [3, 7, 5, 9]
        assert open_queries(tmp_path / "x.npz").lengths.tolist() == [2, 4]
        assert open_queries(tmp_path / "x.npz", tokens="embeddings", lengths="lengths").lengths.tolist() == [3, 7, 5, 9]
        # names that are not exact
        np.savez(tmp_path / "y.npz", d=self.TOKENS, d_len=self.LENGTHS, q=self.TOKENS[:6], q_len=np.array([2, 4]))
        with pytest.raises(InvalidInput, match="name the tokens with --tokens"):
            open_source(tmp_path / "y.npz")
        assert open_source(tmp_path / "y.npz", tokens="q", lengths="q_len").lengths.tolist() == [2, 4]

    def test_guesses_are_told(self, tmp_path):
        np.savez(tmp_path / "x.npz", a=self.TOKENS, b=self.LENGTHS)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            source = open_source(tmp_path / "x.npz")
        assert "tokens are taken from the array 'a'" in str(told[0].message)
        assert "'b' says which tokens belong to which document" in str(told[1].message)
        assert source.lengths.tolist() == [3, 7, 5, 9]
        np.savez(tmp_path / "y.npz", embeddings=self.TOKENS)
        with pytest.warns(SourceWarning, match="every array is one document, 'embeddings' too"):
            assert len(open_source(tmp_path / "y.npz")) == 1

    def test_options_that_do_not_fit(self, tmp_path):
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, pages=np.array([1, 2, 3]))
        for options, says in [
            ({"tokens": "lengths"}, "'lengths' is not a"),
            ({"tokens": "absent"}, "'absent' is not there"),
            ({"lengths": "pages"}, "'pages' is a int64 array of shape (3,) that adds up to 6: it does not part the 24"),
            ({"lengths": "absent"}, "there is no array of this name"),
        ]:
            with pytest.raises(InvalidInput) as caught:
                open_source(tmp_path / "x.npz", **options)
            assert says in str(caught.value)


class TestFormsOfArrays:
    """The layouts that people save, in every file that can hold them."""

    LENGTHS = (3, 0, 5, 2)

    @pytest.fixture
    def matrices(self, rng):
        return [rng.normal(size=(n, DIM)).astype("f4") for n in self.LENGTHS]

    @pytest.fixture
    def padded(self, matrices):
        found = np.zeros((4, 5, DIM), "f4")
        for i, m in enumerate(matrices):
            found[i, : len(m)] = m
        return found, np.arange(5) < np.array(self.LENGTHS)[:, None]

    def same(self, source, matrices, ids=(0, 1, 2, 3)):
        found = list(source.documents())
        assert [d.id for d in found] == list(ids)
        for d, m in zip(found, matrices, strict=True):
            np.testing.assert_allclose(d.tokens, m, rtol=0.01 if "pt" in source.format else 0)
            assert d.tokens.shape == (len(m), DIM)
            assert d.tokens.dtype == np.float32
        assert [d.id for d in source.documents(2)] == list(ids)[2:]
        assert source.n_tokens == sum(map(len, matrices))
        assert source.dim == DIM

    @pytest.mark.parametrize("mask", ["mask", "attention_mask", "lengths"])
    @pytest.mark.parametrize("kind", ["?", "i8"])
    @pytest.mark.parametrize("form", ["npz", "safetensors"])
    def test_padded(self, tmp_path, matrices, padded, mask, kind, form, monkeypatch):
        monkeypatch.setattr("muvera_adapters.sources.arrays._SLICE_TOKENS", 10)
        values, real = padded
        part = real.sum(axis=1) if mask == "lengths" else real.astype(kind)
        path = TestNamesOfArrays().save(tmp_path, form, embeddings=values, **{mask: part})
        self.same(open_source(path), matrices)
        np.save(tmp_path / "x.npy", values)
        np.save(tmp_path / "mask.npy", part)
        self.same(open_source(tmp_path / "x.npy", lengths=tmp_path / "mask.npy"), matrices)

    def test_masks_that_do_not_fit_are_refused(self, tmp_path, padded):
        values, real = padded
        np.savez(tmp_path / "x.npz", embeddings=values, mask=real.astype("f4"))
        assert open_source(tmp_path / "x.npz").lengths.tolist() == list(self.LENGTHS)
        wrong = {
            "mask": np.ones((4, 6), bool), "attention_mask": real[:3], "lengths": np.array([3, 0, 6, 2]),
            "masks": real * 2,
        }  # fmt: skip
        for name, part in wrong.items():
            np.savez(tmp_path / "x.npz", embeddings=values, **{name: part})
            with pytest.raises(
                InvalidInput, match=rf"'{name}' is a .* mask of 0 and 1, or \(4,\) lengths of at most 5"
            ):
                open_source(tmp_path / "x.npz")

    def test_lists_beside_lengths(self, tmp_path, matrices, padded):
        objects = np.empty(4, object)
        objects[:] = matrices
        np.savez(tmp_path / "x.npz", allow_pickle=True, embeddings=objects, lengths=self.LENGTHS)
        self.same(open_source(tmp_path / "x.npz"), matrices)
        objects = np.empty(4, object)
        objects[:] = list(padded[0])
        for part in ({"lengths": self.LENGTHS}, {"mask": padded[1]}):
            np.savez(tmp_path / "x.npz", allow_pickle=True, embeddings=objects, **part)
            with pytest.raises(InvalidInput, match="if they are padded, save them without padding"):
                open_source(tmp_path / "x.npz")

    def test_equal_lengths(self, tmp_path, rng):
        values = rng.normal(size=(4, 5, DIM)).astype("f4")
        np.savez(tmp_path / "x.npz", embeddings=values, ids=np.array(["a", "b", "c", "d"]))
        source = open_source(tmp_path / "x.npz")
        self.same(source, list(values), "abcd")
        assert "without a mask" in source.format
        np.save(tmp_path / "x.npy", values)
        self.same(open_source(tmp_path / "x.npy"), list(values))

    def test_npy_with_lengths(self, tmp_path, matrices):
        values = np.concatenate(matrices)
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(InvalidInput, match="--lengths"):
            open_source(tmp_path / "x.npy")
        for name, part in {"lengths": self.LENGTHS, "offsets": np.cumsum([0, *self.LENGTHS])}.items():
            np.save(tmp_path / f"{name}.npy", part)
            self.same(open_source(tmp_path / "x.npy", lengths=tmp_path / f"{name}.npy"), matrices)
        np.save(tmp_path / "fortran.npy", np.asfortranarray(values))
        self.same(open_source(tmp_path / "fortran.npy", lengths=tmp_path / "lengths.npy"), matrices)

    def test_the_document_of_each_token(self, tmp_path, matrices):
        values = np.concatenate(matrices)
        full = [m for m in matrices if len(m)]
        np.save(tmp_path / "x.npy", values)
        np.save(tmp_path / "of.npy", np.repeat(["a", "c", "d"], [3, 5, 2]))
        self.same_ids(open_source(tmp_path / "x.npy", lengths=tmp_path / "of.npy"), full, ["a", "c", "d"])
        numbers = np.repeat(np.arange(4), self.LENGTHS)
        np.savez(tmp_path / "x.npz", embeddings=values, doc_index=numbers)
        self.same_ids(open_source(tmp_path / "x.npz"), full, [0, 2, 3])
        # with ids of all documents, those without tokens are there too
        np.savez(tmp_path / "y.npz", embeddings=values, doc_index=numbers, ids=np.array(["a", "b", "c", "d"]))
        self.same(open_source(tmp_path / "y.npz"), matrices, "abcd")
        np.savez(tmp_path / "z.npz", embeddings=values, doc_ids=numbers)
        with pytest.warns(SourceWarning, match="'doc_ids' has the document of each token"):
            self.same_ids(open_source(tmp_path / "z.npz"), full, [0, 2, 3])
        np.savez(tmp_path / "u.npz", embeddings=values, doc_index=np.arange(10) % 3)
        with pytest.raises(InvalidInput, match="not next to one another: sort"):
            open_source(tmp_path / "u.npz")

    def same_ids(self, source, matrices, ids):
        assert [d.id for d in source.documents()] == ids
        for d, m in zip(source.documents(), matrices, strict=True):
            np.testing.assert_array_equal(d.tokens, m)

    def test_object_arrays(self, tmp_path, matrices):
        objects = np.empty(4, object)
        objects[:] = matrices
        np.save(tmp_path / "x.npy", objects, allow_pickle=True)
        self.same(open_source(tmp_path / "x.npy"), matrices)
        np.savez(tmp_path / "x.npz", allow_pickle=True, embeddings=objects, ids=np.array(list("abcd"), object))
        self.same(open_source(tmp_path / "x.npz"), matrices, "abcd")
        np.save(tmp_path / "evil.npy", np.array([Evil(tmp_path / "made")], object), allow_pickle=True)
        with pytest.raises(MuveraError, match="refused"):
            open_source(tmp_path / "evil.npy")
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("first", [(0, DIM), (0,), (0, 0)])
    def test_one_for_each_with_an_empty_first(self, tmp_path, matrices, first):
        arrays = {"arr_0": np.zeros(first, "f4"), **{f"arr_{i}": m for i, m in enumerate(matrices) if i}}
        np.savez(tmp_path / "x.npz", **arrays)
        self.same(open_source(tmp_path / "x.npz"), [matrices[0][:0], *matrices[1:]])
        np.savez(tmp_path / "x.npz", **arrays, ids=np.array(list("abcd")))
        assert [d.id for d in open_source(tmp_path / "x.npz").documents()] == list("abcd")

    def test_bfloat16_safetensors(self, tmp_path, rng):
        values = rng.normal(size=(10, DIM)).astype("f4")
        halves = (values.view("u4") >> 16).astype("<u2")
        lengths = np.array([4, 6])
        header = {
            "embeddings": {"dtype": "BF16", "shape": [10, DIM], "data_offsets": [0, halves.nbytes]},
            "lengths": {"dtype": "I64", "shape": [2], "data_offsets": [halves.nbytes, halves.nbytes + 16]},
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (tmp_path / "x.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text + halves.tobytes() + lengths.tobytes()
        )
        source = open_source(tmp_path / "x.safetensors")
        found = np.concatenate([d.tokens for d in source.documents()])
        np.testing.assert_array_equal(found, (halves.astype("u4") << 16).view("f4"))
        assert source.lengths.tolist() == [4, 6]


class TestTorchFiles:
    """What torch.save writes, by hand, as torch is not needed."""

    def opcodes(self, arrays, *, bfloat16=False):
        """Of each array as a tensor with a storage of its own, and the members of the archive."""
        found, members = [], {}
        for key, array in enumerate(arrays):
            body = tensor_opcodes(array, key=str(key))
            found.append(body.replace(b"ShortStorage", b"BFloat16Storage") if bfloat16 else body)
            members[f"x/data/{key}"] = array.tobytes()
        return found, members

    def write(self, path, body, members):
        write_archive(path, b"\x80\x02" + body + b".", members)
        return path

    def text(self, value):
        return pickle.dumps(value, 2)[2:-1]

    def test_a_list(self, tmp_path, rng):
        matrices = [rng.normal(size=(n, DIM)).astype("f4") for n in (3, 5, 2)]
        found, members = self.opcodes(matrices)
        source = open_source(self.write(tmp_path / "x.pt", b"](" + b"".join(found) + b"e", members))
        assert [d.id for d in source.documents()] == [0, 1, 2]
        for d, m in zip(source.documents(), matrices, strict=True):
            np.testing.assert_array_equal(d.tokens, m)

    def test_a_list_of_batches_of_one_in_bfloat16(self, tmp_path, rng):
        matrices = [rng.normal(size=(1, n, DIM)).astype("f4") for n in (3, 5, 2)]
        halves = [(m.view("u4") >> 16).astype("i2") for m in matrices]
        found, members = self.opcodes(halves, bfloat16=True)
        source = open_source(self.write(tmp_path / "x.pt", b"](" + b"".join(found) + b"e", members))
        for d, m in zip(source.documents(), matrices, strict=True):
            np.testing.assert_allclose(d.tokens, m[0], rtol=0.01)

    def test_a_dictionary(self, tmp_path, rng):
        values = rng.normal(size=(3, 5, DIM)).astype("f4")
        found, members = self.opcodes([values, (np.arange(5) < np.array([[3], [5], [2]])).astype("u1")])
        body = b"}(" + self.text("embeddings") + found[0] + self.text("attention_mask") + found[1]
        body += self.text("ids") + self.text(["a", "b", "c"]) + self.text("model") + self.text("colpali") + b"u"
        source = open_source(self.write(tmp_path / "x.pt", body, members))
        assert [(d.id, len(d.tokens)) for d in source.documents()] == [("a", 3), ("b", 5), ("c", 2)]

    def test_an_ordered_dictionary(self, tmp_path, rng):
        found, members = self.opcodes([rng.normal(size=(n, DIM)).astype("f4") for n in (3, 5)])
        body = b"ccollections\nOrderedDict\n)R(" + self.text("a") + found[0] + self.text("b") + found[1] + b"u"
        source = open_source(self.write(tmp_path / "x.pt", body, members))
        assert [(d.id, len(d.tokens)) for d in source.documents()] == [("a", 3), ("b", 5)]

    def test_queries(self, tmp_path, rng):
        found, members = self.opcodes([rng.normal(size=(4, DIM)).astype("f4")])
        assert open_queries(self.write(tmp_path / "x.pt", found[0], members)).lengths.tolist() == [4]

    def test_other_things_are_refused(self, tmp_path):
        write_archive(tmp_path / "evil.pt", pickle.dumps([Evil(tmp_path / "made")], 2), {})
        with pytest.raises(MuveraError, match="refused"):
            open_source(tmp_path / "evil.pt")
        assert not (tmp_path / "made").exists()
        write_archive(tmp_path / "keys.pt", pickle.dumps({(1,): 2}, 2), {})
        with pytest.raises(MuveraError, match="other keys"):
            open_source(tmp_path / "keys.pt")
        write_archive(tmp_path / "text.pt", pickle.dumps(["a"], 2), {})
        with pytest.raises(InvalidInput, match="expected one"):
            open_source(tmp_path / "text.pt")


class TestTables:
    @pytest.fixture
    def pa(self):
        return pytest.importorskip("pyarrow")

    def tokens(self, pa, cells):
        return pa.array(cells, pa.list_(pa.list_(pa.float32())))

    def write(self, pa, path, **columns):
        from pyarrow import parquet

        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns), path)
        return path

    VECTORS = ([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]])

    @pytest.mark.parametrize("first", [[], None])
    def test_an_empty_first_document(self, pa, tmp_path, first):
        path = self.write(pa, tmp_path / "x.parquet", id=list("abc"), emb=self.tokens(pa, [first, *self.VECTORS]))
        source = open_source(path)
        assert source.dim == 2
        assert [d.tokens.shape for d in source.documents()] == [(0, 2), (1, 2), (2, 2)]
        path = self.write(pa, tmp_path / "y.parquet", emb=self.tokens(pa, [first, first]))
        with pytest.raises(InvalidInput, match="no document has tokens in the column 'emb'"):
            open_source(path)

    def test_ids(self, pa, tmp_path):
        emb = self.tokens(pa, self.VECTORS)
        path = self.write(pa, tmp_path / "x.parquet", page_id=["a", "b"], width=[1, 2], emb=emb)
        with pytest.warns(SourceWarning, match="ids are taken from the column 'page_id'"):
            assert [d.id for d in open_source(path).documents()] == ["a", "b"]
        found = list(open_source(path, ids="none").documents())
        assert [(d.id, d.payload) for d in found] == [
            (0, {"page_id": "a", "width": 1}), (1, {"page_id": "b", "width": 2}),
        ]  # fmt: skip
        assert [d.id for d in open_source(path, ids="width").documents()] == [1, 2]
        (tmp_path / "ids.txt").write_text("x\ny\n")
        source = open_source(path, ids=tmp_path / "ids.txt")
        assert [d.id for d in source.documents()] == ["x", "y"]
        assert [d.id for d in source.documents(1)] == ["y"]
        for column in ([1.0, 2.0], [True, False], [[1], [2]]):
            path = self.write(pa, tmp_path / "y.parquet", id=column, emb=emb)
            with pytest.raises(InvalidInput, match=r"column 'id' is of type .*; ids are strings and integers"):
                open_source(path)
        path = self.write(pa, tmp_path / "z.parquet", user_id=[1, 2], page_id=[1, 2], emb=emb)
        with pytest.raises(InvalidInput, match="several columns may hold the ids: user_id, page_id"):
            open_source(path)
        path = self.write(pa, tmp_path / "n.parquet", id=["a", None], emb=emb)
        with pytest.raises(InvalidInput, match="row 1: no id in the column 'id'"):
            open_source(path)

    def test_exact_names_of_the_tokens(self, pa, tmp_path):
        emb, boxes = self.tokens(pa, self.VECTORS), self.tokens(pa, [[[0.0, 1.0]]] * 2)
        path = self.write(pa, tmp_path / "x.parquet", boxes=boxes, embeddings=emb)
        with pytest.warns(SourceWarning, match="from the column 'embeddings' of 2 .*boxes.* go into the payload"):
            source = open_source(path)
        assert [d.payload for d in source.documents()] == [{"boxes": [[0.0, 1.0]]}] * 2
        assert [d.payload for d in open_source(path, drop=["boxes"]).documents()] == [{}, {}]

    def test_columns_that_are_not_json(self, pa, tmp_path):
        image = pa.array([{"bytes": b"x", "path": "p"}] * 2)
        columns = {"raw": [b"a", b"b"], "image": image, "title": ["t", "u"], "emb": self.tokens(pa, self.VECTORS)}
        path = self.write(pa, tmp_path / "x.parquet", **columns)
        with pytest.raises(InvalidInput, match=r"column 'raw' \(binary\), column 'image' .*--drop raw --drop image"):
            open_source(path)
        found = open_source(path, drop=["raw", "image"])
        assert [d.payload for d in found.documents()] == [{"title": "t"}, {"title": "u"}]
        assert [d.payload for d in open_source(path, payload=()).documents()] == [{}, {}]
        with pytest.raises(InvalidInput, match="--drop picture: no such column"):
            open_source(path, drop=["picture"])

    def test_subdirectories(self, pa, tmp_path):
        for k, directory in enumerate(("train", "year=2024/lang=de", ".cache", "_temporary")):
            self.write(pa, tmp_path / directory / "0.parquet", id=[2 * k, 2 * k + 1], emb=self.tokens(pa, self.VECTORS))
        source = open_source(tmp_path)
        assert "of 2 files" in source.format
        assert [(d.id, d.payload) for d in source.documents()] == [
            (0, {}), (1, {}), (2, {"year": 2024, "lang": "de"}), (3, {"year": 2024, "lang": "de"}),
        ]  # fmt: skip
        assert [d.id for d in source.documents(3)] == [3]

    def test_a_directory_named_like_a_file(self, pa, tmp_path):
        path = tmp_path / "docs.parquet"
        self.write(pa, path / "part-0.snappy.parquet", emb=self.tokens(pa, self.VECTORS))
        assert len(open_source(path)) == 2

    @pytest.mark.parametrize("splits", [False, True])
    @pytest.mark.parametrize("form", ["stream", "file"])
    def test_save_to_disk(self, pa, tmp_path, splits, form):
        """The layout of Hugging Face datasets: Arrow streams, which state.json lists."""
        from pyarrow import ipc

        def save(directory, first):
            directory.mkdir(exist_ok=True)
            names = [f"data-0000{k}-of-00002.arrow" for k in range(2)]
            for k, name in enumerate(names):
                ids = [str(first + 2 * k), str(first + 2 * k + 1)]
                table = pa.table({"id": ids, "embeddings": self.tokens(pa, self.VECTORS)})
                new = ipc.new_stream if form == "stream" else ipc.new_file
                with new(str(directory / name), table.schema) as writer:
                    writer.write_table(table, max_chunksize=1)
            (directory / "state.json").write_text(json.dumps({"_data_files": [{"filename": f} for f in names]}))
            (directory / "dataset_info.json").write_text("{}")

        if splits:
            (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
            save(tmp_path / "train", 0)
            save(tmp_path / "test", 4)
        else:
            save(tmp_path, 0)
        source = open_source(tmp_path)
        n = 8 if splits else 4
        assert [d.id for d in source.documents()] == [str(i) for i in range(n)]
        assert [d.id for d in source.documents(3)] == [str(i) for i in range(3, n)]
        np.testing.assert_array_equal(next(source.documents(1)).tokens, self.VECTORS[1])
        assert open_source(source.files[0]).n_positions == 2
        source.files[0].unlink()
        with pytest.raises(InvalidInput, match=r"the file is missing, which .*state.json names"):
            open_source(tmp_path)


def test_files_of_an_index_are_its_own(tmp_path):
    """Not what a user, a migration or a library's lock puts beside them."""
    for name in sorted(p.name for p in INDEXES.iterdir()):
        path = shutil.copytree(INDEXES / name / "index", tmp_path / name)
        path = path / "colbert" if name.startswith("pylate") else path
        everything = sorted(p for p in path.rglob("*") if p.is_file())
        (path / "data" / "docs").mkdir(parents=True)
        for other in (
            "merged_codes.lock", "docs.migration.sqlite", "my.journal", "docs.muvera.json", "queries.npy", "ids.json",
            "ids.txt", "meta.json", "data/docs/centroids.npy", "data.db",
        ):  # fmt: skip
            (path / other).write_text("x")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IndexWarning)
            assert sorted(open_source(path).files) == everything, name


@pytest.mark.parametrize("suffix", ["npz", "npy", "safetensors", "pt", "parquet", "arrow"])
def test_files_that_cannot_be_read(tmp_path, suffix):
    pytest.importorskip("pyarrow")
    path = tmp_path / f"x.{suffix}"
    for content in (b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"ARROW1\0\0", b"PAR1", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(MuveraError):
            open_source(path)
