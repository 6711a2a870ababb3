"""Indexes of fast-plaid: chunks and merged files, centroids of zeros, originals and metadata."""

import json

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, open_index
from tests.plaid.conftest import assert_same, read
from tests.plaid.files import INDEXES, execute, save_objects


class TestEmptyClusters:
    @pytest.fixture
    def path(self, copy):
        """An index with a centroid of zeros that no code names."""
        path = copy("fastplaid170_nbits4/index")
        centroids = np.load(path / "centroids.npy")
        np.save(path / "centroids.npy", np.concatenate([centroids, centroids[:1] * 0]))
        self.used = np.load(path / "merged_codes.npy")[0]
        return path

    def test_one_that_no_code_names(self, path):
        assert_same(read(path), read(INDEXES / "fastplaid170_nbits4/index"))

    def test_one_that_a_code_names(self, path):
        centroids = np.load(path / "centroids.npy")
        centroids[self.used] = 0
        np.save(path / "centroids.npy", centroids)
        with pytest.warns(IndexWarning, match="a code names a centroid that is all zeros"):
            read(path)

    def test_centroids_of_another_length_still_warn(self, path):
        np.save(path / "centroids.npy", np.load(path / "centroids.npy") * np.float16(2))
        with pytest.warns(IndexWarning, match=r"centroids of length 2 to 2"):
            open_index(path)


class TestFastPlaid:
    def test_merged_files_and_chunks_hold_the_same(self, copy):
        expected = read(INDEXES / "fastplaid147_nbits4/index")
        path = copy("fastplaid147_nbits4/index")
        for p in path.glob("merged_*"):
            p.rename(path.parent / p.name)
        assert_same(read(path), expected)  # as written before December 2025
        for p in path.parent.glob("merged_*"):
            p.rename(path / p.name)
        for p in path.glob("*.codes.npy"):
            p.unlink()
        assert_same(read(path), expected)  # codes merged, residuals in chunks
        for p in path.glob("*.residuals.npy"):
            p.unlink()
        assert_same(read(path), expected)
        for p in path.glob("*.manifest.json"):
            p.unlink()
        assert_same(read(path), expected)

    def test_a_chunk_that_waits_to_be_merged_wins(self, copy):
        path = copy("fastplaid170_nbits4/index")
        before = read(path)
        n = sum(json.loads((path / "doclens.1.json").read_text()))
        np.save(path / "1.codes.npy", np.zeros(n, np.int64))
        np.save(path / "1.residuals.npy", np.zeros((n, 64), np.uint8))
        after = read(path)
        assert_same(after[:100], before[:100])
        assert_same(after[200:], before[200:])
        tokens = np.concatenate([d.tokens for d in after[100:200]])
        assert (tokens == tokens[0]).all()

    def test_padding_must_be_zeros(self, copy):
        path = copy("fastplaid170_nbits4_updated/index")
        codes = np.load(path / "merged_codes.npy")
        padded = np.concatenate([codes[:6221], np.zeros(40, np.int64)])
        np.save(path / "merged_codes.npy", padded)
        expected = read(INDEXES / "fastplaid170_nbits4_updated/index", originals=False)
        assert_same(read(path, originals=False), expected)
        padded[-1] = 1
        np.save(path / "merged_codes.npy", padded)
        with pytest.raises(IndexDamaged, match=r"merged_codes.npy: 6261 rows, but doclens.0.json adds up to 6221"):
            open_index(path)

    def test_a_manifest_that_contradicts_the_lengths(self, copy):
        path = copy("fastplaid170_nbits4/index")
        for rows, message in (
            (2727, "2727 rows, but doclens.0.json adds up to 2728"),
            (-1, "number of rows"),
            ("a", "number of rows"),
        ):
            entry = {"0.codes.npy": {"rows": rows}, "../../etc/passwd": {"rows": 1}}
            (path / "merged_codes.manifest.json").write_text(json.dumps(entry))
            with pytest.raises(IndexDamaged, match=message):
                open_index(path)

    def test_originals_of_the_buffer(self, copy):
        path = copy("fastplaid170_nbits4_updated/index")
        decoded = read(path, originals=False)
        noise = np.random.default_rng(0)
        given = [(2 * d.tokens + noise.normal(0, 0.05, d.tokens.shape)).astype("f2") for d in decoded[-29:]]
        save_objects(path / "buffer.npy", given)
        documents = read(path)
        assert_same(documents[:-29], decoded[:-29])
        for d, x in zip(documents[-29:], given, strict=True):
            unit = x.astype("f4") / np.linalg.norm(x.astype("f4"), axis=1, keepdims=True)
            np.testing.assert_allclose(d.tokens, unit, rtol=0, atol=1e-6)
            assert np.abs(d.tokens - decoded[d.position].tokens).max() > 0.01

    def test_a_buffer_from_which_another_document_was_deleted(self):
        """fast-plaid 1.7.0 wrote this one: document 205 was deleted, the buffer still has it and lacks 208."""
        path = INDEXES / "fastplaid170_nbits4_updated/index"
        with pytest.warns(IndexWarning, match="buffer.npy: not used, the documents in it are not those of the index"):
            documents = read(path)
        assert_same(documents, read(path, originals=False))

    def test_originals_of_other_documents_of_the_same_lengths(self, copy):
        path = copy("fastplaid170_nbits4/index")
        decoded = read(path)
        given = [d.tokens for d in decoded]
        a = 10
        b = next(i for i in range(100, 240) if len(given[i]) == len(given[a]))
        given[a], given[b] = given[b], given[a]
        save_objects(path / "embeddings.npy", given)
        source = open_index(path)
        with pytest.warns(IndexWarning, match="embeddings.npy: some vectors are not those of the index"):
            documents = list(source.documents())
        assert_same(documents, decoded, tolerance=1e-6)

    def test_stale_originals(self, copy):
        path = copy("fastplaid170_nbits4/index")
        decoded = read(path)
        for given in ([d.tokens for d in decoded[:-1]], [d.tokens[:, :64] for d in decoded], []):
            save_objects(path / "embeddings.npy", given)
            with pytest.warns(IndexWarning, match="embeddings.npy: not used"):
                documents = read(path)
            assert_same(documents, decoded)

    def test_columns_become_the_payload(self):
        truth = np.load(INDEXES / "fastplaid170_nbits4_updated" / "truth.npz")
        for d in read(INDEXES / "fastplaid170_nbits4_updated/index", originals=False):
            assert set(d.payload) == {"name", "src", "len"}
            assert d.payload["len"] == len(d.tokens) == truth["doclens"][d.position]
        assert [d.payload["src"] for d in read(INDEXES / "fastplaid170_nbits4_updated/index", originals=False)] == [
            i for i in range(230) if i not in (0, 17, 205)
        ]

    @pytest.mark.parametrize(
        "change",
        ["DELETE FROM METADATA WHERE _subset_ = 226", "DELETE FROM METADATA WHERE _subset_ = 5",
         "INSERT INTO METADATA (_subset_) VALUES (227)", "UPDATE METADATA SET _subset_ = 300 WHERE _subset_ = 3",
         "DELETE FROM METADATA"],
    )  # fmt: skip
    def test_a_database_of_another_state_is_left_out(self, copy, change):
        path = copy("fastplaid170_nbits4_updated/index")
        execute(path / "metadata.db", change)
        with pytest.warns(IndexWarning, match="metadata.db: left out"):
            source = open_index(path, originals=False)
        assert all(d.payload == {} for d in source.documents())

    def test_databases_that_would_run_something(self, copy):
        path = copy("fastplaid170_nbits4_updated/index")
        execute(path / "metadata.db", "ALTER TABLE METADATA RENAME TO X", "CREATE VIEW METADATA AS SELECT * FROM X")
        with pytest.raises(IndexDamaged, match=r"metadata.db: expected a table METADATA"):
            open_index(path, originals=False)
        (path / "metadata.db-wal").write_bytes(b"x")
        with pytest.raises(IndexDamaged, match=r"metadata.db-wal: a program is writing"):
            open_index(path, originals=False)
