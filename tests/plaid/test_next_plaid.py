"""Indexes of next-plaid, written by the library or derived here from its source."""

import json

import numpy as np
import pytest

from muvera_adapters.plaid import IndexWarning, UnknownFormat, detect, open_index
from tests.plaid.conftest import assert_same, read
from tests.plaid.files import INDEXES, execute


class TestRealNextPlaid:
    """Written by next-plaid 1.6.1."""

    @pytest.mark.parametrize("name", ["made_2", "updated_4", "buffer_deleted_4"])
    def test_float32_vectors(self, name):
        path = INDEXES / f"nextplaid161_{name}"
        tokens = np.concatenate([d.tokens for d in read(path / "index", originals=False)])
        np.testing.assert_allclose(tokens[:50], np.load(path / "truth.npz")["first"], rtol=0, atol=1e-7)

    def test_payloads(self):
        documents = read(INDEXES / "nextplaid161_buffer_deleted_4/index")
        assert documents[0].payload == {
            "name": "doc 0", "day": "2024-01-02", "page": 0, "score": 0.0, "tags": '["a","b"]',
        }  # fmt: skip
        assert documents[-1].payload == {"name": "new 19", "page": 119}

    @pytest.mark.parametrize(("name", "n"), [("made_2", 60), ("buffer_deleted_4", 18)])
    def test_originals(self, name, n):
        path = INDEXES / f"nextplaid161_{name}/index"
        given, decoded = read(path)[-n:], read(path, originals=False)[-n:]
        cosines = np.concatenate(
            [np.einsum("ij,ij->i", a.tokens, b.tokens) for a, b in zip(given, decoded, strict=True)]
        )
        assert 0.9 < cosines.mean() < 0.9999

    def test_binary_ones_are_refused_by_name(self, copy):
        path = copy("nextplaid161_made_2/index")
        metadata = json.loads((path / "metadata.json").read_text())
        (path / "metadata.json").write_text(json.dumps({**metadata, "binary": True}))
        with pytest.raises(UnknownFormat, match="is a binary index of next-plaid"):
            open_index(path)
        with pytest.raises(UnknownFormat, match="is a binary index of next-plaid"):
            detect(path)


class TestNextPlaid:
    """Written here as next-plaid's source describes it, out of what fast-plaid wrote: what no real one met has."""

    @pytest.fixture
    def path(self, copy):
        path = copy("fastplaid147_nbits4/index")
        for name in ("centroids.npy", "bucket_weights.npy"):
            np.save(path / name, np.load(path / name).astype("f4"))
        metadata = json.loads((path / "metadata.json").read_text())
        metadata |= {"embedding_dim": 128, "next_plaid_compatible": True}
        (path / "metadata.json").write_text(json.dumps(metadata))
        return path

    def test_decodes_as_fast_plaid(self, path):
        assert open_index(path).format == "next-plaid"
        assert_same(read(path), read(INDEXES / "fastplaid147_nbits4/index"))

    def test_flat_originals(self, path):
        decoded = read(path)
        for name, part in (("embeddings", decoded), ("buffer", decoded[-3:])):
            np.save(path / f"{name}.npy", np.concatenate([d.tokens for d in part]) * np.float32(3))
            (path / f"{name}_lengths.json").write_text(json.dumps([len(d.tokens) for d in part]))
        assert_same(read(path), decoded, tolerance=1e-6)
        (path / "embeddings_lengths.json").write_text("[1, 2]")
        with pytest.warns(IndexWarning, match="embeddings.npy: not used"):
            assert_same(read(path), decoded, tolerance=1e-6)

    def test_both_layouts_of_its_database(self, path):
        numbers = range(240)
        execute(
            path / "metadata.db",
            "CREATE TABLE METADATA (_subset_ INTEGER, name TEXT, x REAL)", "CREATE INDEX i ON METADATA (_subset_)",
            *(f"INSERT INTO METADATA VALUES ({i}, 'n{i}', NULL)" for i in reversed(numbers)), "PRAGMA user_version = 1",
        )  # fmt: skip
        assert [d.payload for d in read(path)] == [{"name": f"n{i}"} for i in numbers]
        (path / "metadata.db").unlink()
        execute(
            path / "metadata.db",
            "CREATE TABLE METADATA (_subset_ INTEGER, _content_id_ INTEGER, name TEXT)",
            "CREATE TABLE METADATA_CONTENT (_content_id_ INTEGER PRIMARY KEY, code TEXT)",
            *(f"INSERT INTO METADATA VALUES ({i}, {i // 2}, 'n{i}')" for i in numbers),
            *(f"INSERT INTO METADATA_CONTENT VALUES ({i}, 'c{i}')" for i in range(120)), "PRAGMA user_version = 2",
        )  # fmt: skip
        assert [d.payload for d in read(path)] == [{"name": f"n{i}", "code": f"c{i // 2}"} for i in numbers]
