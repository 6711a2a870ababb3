"""Layouts of token arrays in ``.npz``, ``.npy`` and ``.safetensors`` files, and arrays that do not fit together."""

import json

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.sources import SourceWarning, open_queries, open_source
from muvera_core import TokenBatch
from tests.plaid.files import Evil
from tests.sources.conftest import DIM, check, save_arrays


def joined(matrices):
    batch = TokenBatch.from_list(matrices)
    return batch.values, batch.offsets


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


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"tokens": np.ones((5, 4), "f4"), "offsets": np.array([0, 3])},
            "'offsets' is a int64 array of shape (2,) that adds up to 3: it does not divide the 5 rows of 'tokens'",
        ),
        ({"tokens": np.ones((5, 4), "f4"), "b": np.array([0, 3])}, "no array of integers divides the 5 rows"),
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
    with pytest.raises(InvalidInput, match=r"not a \.npz file"):
        open_source(tmp_path / "x.npz")


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
        path = save_arrays(tmp_path, form, embeddings=values, **{mask: part})
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
