"""Indexes of PyLate, and the maps from positions to ids that it keeps beside them."""

import pickle
import shutil
import sqlite3

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, detect, open_index
from tests.plaid.conftest import assert_same, assert_same_tokens, read
from tests.plaid.files import INDEXES


class TestPylate:
    FAST, STANFORD = "pylate160_fastplaid/index/colbert", "pylate160_stanford/index/colbert"

    @pytest.mark.parametrize("name", [FAST, STANFORD])
    def test_ids(self, name):
        documents = read(INDEXES / name)
        map_ = pickle.loads((INDEXES / name / "plaid_ids_to_documents_ids.pkl").read_bytes())
        assert len(map_) == 98
        assert {d.position: d.id for d in documents} == map_

    def test_the_directory_inside_has_no_ids(self):
        with pytest.warns(IndexWarning, match="ids are the index's own numbers; open .*colbert for those of PyLate"):
            source = open_index(INDEXES / self.FAST / "fast_plaid_index")
        assert source.format == "fast-plaid"
        assert [d.id for d in source.documents()] == list(range(98))

    def test_originals_are_taken(self):
        path = INDEXES / self.FAST
        raw = np.load(path / "fast_plaid_index" / "embeddings.npy", allow_pickle=True)
        for d in read(path):
            unit = raw[d.position] / np.linalg.norm(raw[d.position], axis=1, keepdims=True)
            np.testing.assert_allclose(d.tokens, unit, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("name", [FAST, STANFORD])
    def test_maps_in_sqlite(self, copy, name):
        """As PyLate 1.3 and 1.4 write them, with sqlitedict; a position out of the map is a deleted document."""
        expected = read(INDEXES / name)
        path = copy(name)
        map_ = pickle.loads((path / "plaid_ids_to_documents_ids.pkl").read_bytes())
        for p in path.glob("*.pkl"):
            p.unlink()
        with sqlite3.connect(path / "plaid_ids_to_documents_ids.sqlite") as db:
            db.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
            for position, id in map_.items():
                if position not in (7, 97):
                    db.execute("INSERT INTO unnamed VALUES (?, ?)", (str(position), pickle.dumps(id, 5)))
        db.close()
        assert_same(read(path), [d for d in expected if d.position not in (7, 97)])
        assert len(open_index(path)) == len(expected) - len({7, 97} & {d.position for d in expected})

    def write(self, path, map_):
        (path / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps(map_))

    def test_the_newest_of_duplicate_ids(self, copy):
        path = copy(self.FAST)
        self.write(path, {i: "twice" if i in (4, 90) else i for i in range(98)})
        with pytest.warns(IndexWarning, match=r"1 documents share their id with a newer one \('twice'\)"):
            source = open_index(path)
        found = {d.position: d.id for d in source.documents()}
        assert found == {i: "twice" if i == 90 else i for i in range(98) if i != 4}
        assert len(source) == 97

    def test_maps_that_contradict_the_index(self, copy):
        path = copy(self.STANFORD)
        self.write(path, {i: str(i) for i in range(101)})
        with pytest.raises(
            IndexDamaged, match=r"ids.pkl: it maps position 100, but the index has 100 documents.* pass"
        ):
            open_index(path)
        self.write(path, {i: str(i) for i in range(99)})
        with pytest.raises(IndexDamaged, match=r"ids.pkl: it maps position 3 to '3', but that document was deleted"):
            open_index(path)
        # a map of every position is one that a deletion left alone
        self.write(path, {i: str(i) for i in range(100)})
        assert [d.id for d in read(path)] == [str(d.position) for d in read(path)]
        assert len(open_index(path)) == 98
        assert len(open_index(path, ids=self.ids_file(path.parent, 100))) == 98

    @pytest.mark.parametrize("map_", [[1], {"0": "a"}, {0: None}, {0: ["a"]}, {True: "a"}, {0: True}, 3])
    def test_no_map(self, copy, map_):
        path = copy(self.STANFORD)
        self.write(path, map_)
        with pytest.raises(IndexDamaged, match="expected a map from positions to ids"):
            open_index(path)

    def test_no_map_at_all(self, copy):
        path = copy(self.FAST)
        for p in path.glob("*.pkl"):
            p.unlink()
        with pytest.raises(IndexDamaged, match=r"plaid_ids_to_documents_ids.*missing"):
            open_index(path)
        assert len(open_index(path, ids=self.ids_file(path.parent, 98))) == 98

    def ids_file(self, directory, n):
        (directory / "ids.txt").write_text("".join(f"id{i}\n" for i in range(n)))
        return directory / "ids.txt"


@pytest.mark.filterwarnings("ignore:.*metadata.duckdb")
class TestPylateWarp:
    @pytest.fixture
    def path(self, tmp_path):
        """As ``indexes/warp.py`` of PyLate 1.6 lays it out."""
        shutil.copytree(INDEXES / "xtrwarprs_nbits4" / "index", tmp_path / "warp" / "warp_index")
        return tmp_path / "warp"

    def write(self, path, map_):
        (path / "warp_ids_to_documents_ids.pkl").write_bytes(pickle.dumps(map_))

    def test_ids(self, path):
        inner = read(path / "warp_index")  # without the map, it is an index of xtr-warp-rs like any other
        self.write(path, {d.id: f"paper-{d.id}" for d in inner})
        assert open_index(path).format == detect(path) == "pylate-warp"
        found = read(path)
        assert [d.id for d in found] == [f"paper-{d.id}" for d in inner]
        assert_same_tokens(found, inner)
        with pytest.warns(IndexWarning, match="open .*warp for those of PyLate"):
            open_index(path / "warp_index")

    def test_what_is_not_mapped_is_deleted_and_the_newest_of_an_id_is_read(self, path):
        inner = read(path / "warp_index")
        numbers = [d.id for d in inner]
        np.save(path / "warp_index" / "deleted_pids.npy", np.array(numbers[-1:]))
        # the newest one is a tombstone
        self.write(path, {n: "twice" if n in (numbers[1], numbers[4], numbers[-1]) else str(n) for n in numbers[1:]})
        with pytest.warns(IndexWarning, match=r"1 documents share their id with a newer one \('twice'\)"):
            found = read(path)
        expected = [str(n) for n in numbers[2:-1]]
        expected[numbers[2:].index(numbers[4])] = "twice"
        assert [d.id for d in found] == expected

    def test_a_map_of_another_state(self, path):
        self.write(path, {0: "a", 10**6: "b"})
        with pytest.raises(IndexDamaged, match=r"it maps passage 1000000, which the index does not have.*pass ids="):
            open_index(path)
