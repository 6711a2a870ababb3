"""Indexes of ColBERT v1, written here as its source describes them."""

import gzip
import pickle

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, open_index
from tests.plaid.conftest import read
from tests.plaid.files import save, tensor_opcodes, write_archive


class TestColbertV1:
    """Written here as its source describes it; no real one was met."""

    @pytest.fixture
    def matrices(self, rng):
        return [rng.normal(size=(n, 16)).astype("f2") for n in (3, 1, 5, 2, 4)]

    @pytest.fixture
    def path(self, tmp_path, matrices):
        path = tmp_path / "v1"
        path.mkdir()
        save(path / "0.pt", np.concatenate(matrices[:3]))
        tensors = b"".join(tensor_opcodes(m, key=str(i)) for i, m in enumerate(matrices[3:]))
        members = {f"x/data/{i}": m.tobytes() for i, m in enumerate(matrices[3:])}
        write_archive(path / "1.pt", b"\x80\x02](" + tensors + b"e.", members)
        (path / "doclens.0.json").write_text("[3, 1, 5]")
        (path / "doclens.1.json").write_text("[2, 4]")
        (path / "ivfpq.100.faiss").touch()
        return path

    def test_vectors_are_given_as_they_are(self, path, matrices, monkeypatch):
        for size in (1, 4, 100):
            monkeypatch.setattr("muvera_adapters.plaid.chunks._SLICE_TOKENS", size)
            source = open_index(path)
            assert (source.format, source.dim, len(source), source.n_tokens) == ("colbert-v1", 16, 5, 15)
            for i, (d, m) in enumerate(zip(source.documents(), matrices, strict=True)):
                assert (d.id, d.tokens.dtype) == (i, np.float32)
                np.testing.assert_array_equal(d.tokens, m)

    def test_pyterriers_ids(self, path):
        names = ["a", "b", "c", "d", "e"]
        (path / "docnos.pkl.gz").write_bytes(gzip.compress(pickle.dumps(names)))
        assert [d.id for d in read(path)] == names
        (path / "docnos.pkl.gz").write_bytes(gzip.compress(pickle.dumps(["a", "b", "c", "d", "a"])))
        with pytest.raises(IndexDamaged, match="5 ids, 4 of them different"):
            open_index(path)

    def test_contradictions(self, path, matrices):
        (path / "doclens.1.json").write_text("[2, 5]")
        with pytest.raises(IndexDamaged, match=r"1.pt: 6 rows, but doclens.1.json adds up to 7"):
            open_index(path)
        save(path / "1.pt", np.zeros((7, 8), "f4"))
        with pytest.raises(IndexDamaged, match=r"1.pt: expected rows of 16 dims"):
            open_index(path)
        (path / "1.pt").rename(path / "2.pt")
        with pytest.raises(IndexDamaged, match=r"1.pt: the file is missing"):
            open_index(path)
