"""Indexes of XTR-WARP, written by its converter or by xtr-warp-rs."""

import shutil

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, open_index
from muvera_core import maxsim
from tests.plaid.conftest import assert_same, assert_same_tokens, read
from tests.plaid.files import INDEXES, save


class TestXtrWarp:
    NAME = "xtrwarp_nbits4/index"

    def test_tokens_are_those_of_the_index_that_was_converted(self):
        """The converter groups tokens by centroid, so that their order in a document is lost."""
        source = open_index(INDEXES / self.NAME)
        expected = read(INDEXES / "stanford_nbits4/index")
        assert source.format == "xtr-warp"
        found = list(source.documents())
        assert [d.id for d in found] == list(range(240))
        for a, b in zip(found, expected, strict=True):
            # every token has its twin, on both sides
            similar = np.abs(a.tokens[:, None] - b.tokens[None]).max(axis=2) < 1e-6
            assert (similar.sum(axis=0) >= 1).all()
            assert (similar.sum(axis=1) >= 1).all()
            assert len(a.tokens) == len(b.tokens)

    def test_windows_do_not_matter(self, monkeypatch):
        whole = read(INDEXES / self.NAME)
        for window, block in ((1, 100), (500, 1 << 20), (6547, 7), (6548, 6548)):
            monkeypatch.setattr("muvera_adapters.plaid.xtr_warp._WINDOW_TOKENS", window)
            monkeypatch.setattr("muvera_adapters.plaid.xtr_warp._BLOCK", block)
            assert_same(read(INDEXES / self.NAME), whole)

    def test_the_converted_index_is_read_where_it_is_still_there(self, copy):
        path = copy("stanford_nbits4/index")
        shutil.copytree(INDEXES / self.NAME, path, dirs_exist_ok=True)
        assert open_index(path).format == "xtr-warp"
        assert_same(read(path), read(INDEXES / "stanford_nbits4/index"))

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("sizes", lambda x: x[:-1], r"expected \d+ sizes that add up to 6548"),
            ("sizes", lambda x: x + 1, r"expected \d+ sizes that add up to 6548"),
            ("sizes", lambda x: x - 100, "negative"),
            ("codes", lambda x: x - 1, "negative"),
            ("codes", lambda x: x + 2**30, "too large for 6548 tokens"),
            ("codes", lambda x: x[1:], "add up to 6547"),
        ],
    )
    def test_contradictions(self, copy, name, change, message):
        from muvera_adapters.plaid.torch_file import load_tensors

        path = copy(self.NAME)
        save(path / f"{name}.compacted.pt", change(load_tensors(path / f"{name}.compacted.pt")))
        with pytest.raises(IndexDamaged, match=message):
            open_index(path)


class TestXtrWarpRs:
    NAME = "xtrwarprs_nbits4/index"

    def test_finds_what_the_library_finds(self):
        """It cannot decompress; its best document of each query is that of exhaustive MaxSim on the decoded tokens."""
        source = open_index(INDEXES / self.NAME)
        assert source.format == "xtr-warp-rs"
        documents = list(source.documents())
        assert [d.id for d in documents] == list(range(240))
        own = np.load(INDEXES / "xtrwarprs_nbits4" / "best.npz")
        queries = np.split(own["queries"].astype(np.float32), np.cumsum(own["query_lengths"])[:-1])
        best = [int(np.argmax(maxsim(q, [d.tokens for d in documents]))) for q in queries]
        assert best == own["best"].tolist()

    def test_ids_are_stable_and_tombstones_count(self, copy):
        path = copy(self.NAME)
        expected = read(path)
        np.save(path / "0.passage_ids.npy", np.arange(240) + 1000)
        np.save(path / "deleted_pids.npy", np.array([1003, 1150, 5]))
        source = open_index(path)
        documents = list(source.documents())
        assert [d.id - 1000 for d in documents] == [i for i in range(240) if i not in (3, 150)]
        assert_same_tokens(documents, [d for d in expected if d.id not in (3, 150)])
        assert len(source) == 238
        assert source.n_tokens == sum(len(d.tokens) for d in documents)

    def test_its_database_is_not_read(self, copy):
        path = copy(self.NAME)
        (path / "metadata.duckdb").touch()
        with pytest.warns(IndexWarning, match="metadata.duckdb: not read"):
            open_index(path)

    def test_unfinished_and_contradictory(self, copy):
        path = copy(self.NAME)
        np.save(path / "0.passage_ids.npy", np.arange(239))
        with pytest.raises(IndexDamaged, match=r"0.passage_ids.npy: 239 ids, but doclens.0.npy has 240"):
            open_index(path)
        np.save(path / "0.passage_ids.npy", np.zeros(240, np.int64))
        with pytest.raises(IndexDamaged, match="a passage id is there twice"):
            open_index(path)
        (path / "build_state.json").write_text('{"stage": "encoding"}')
        with pytest.raises(IndexDamaged, match=r"build_state.json: the build was not finished"):
            open_index(path)
