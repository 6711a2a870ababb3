"""Indexes that the libraries wrote, against their own decompressed vectors, and formats derived from them."""

import gc
import gzip
import itertools
import json
import pickle
import shutil
import sqlite3

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, UnknownFormat, detect, open_index
from muvera_core import maxsim
from tests.plaid.files import INDEXES, save, save_objects, tensor_opcodes, write_archive

# format, directory, and how far the library's own vectors may be: fast-plaid computes them in float16
INDEXED = [
    ("ragatouille", "ragatouille_assembled/index", 1e-6),
    ("pylate-stanford", "pylate160_stanford/index/colbert", 1e-6),
    ("pylate-fast-plaid", "pylate160_fastplaid/index/colbert", 5e-4),
    ("fast-plaid", "fastplaid147_nbits4/index", 5e-4),
    ("fast-plaid", "fastplaid170_nbits4/index", 5e-4),
    ("fast-plaid", "fastplaid170_nbits4_updated/index", 5e-4),
    # its vectors were kept as float16
    ("next-plaid", "nextplaid161_made_2/index", 5e-4),
    ("next-plaid", "nextplaid161_updated_4/index", 5e-4),
    ("next-plaid", "nextplaid161_buffer_deleted_4/index", 5e-4),
]


def read(path, **options):
    return list(open_index(path, **options).documents())


def assert_same(found, expected, *, tolerance=0.0):
    assert [(d.position, d.id, d.payload) for d in found] == [(d.position, d.id, d.payload) for d in expected]
    assert_same_tokens(found, expected, tolerance=tolerance)


def assert_same_tokens(found, expected, *, tolerance=0.0):
    assert [len(d.tokens) for d in found] == [len(d.tokens) for d in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.tokens, b.tokens, rtol=0, atol=tolerance)


@pytest.fixture
def copy(tmp_path):
    """Copies an index to a place where it can be changed."""

    def copy(name):
        return shutil.copytree(INDEXES / name, tmp_path / "index")

    return copy


@pytest.mark.parametrize(("format", "name", "tolerance"), INDEXED)
def test_equals_the_librarys_own_vectors(format, name, tolerance):
    truth = np.load(INDEXES / name.split("/")[0] / "truth.npz")
    source = open_index(INDEXES / name, originals=False)
    documents = {d.position: d for d in source.documents()}
    lengths = truth["doclens"]
    assert source.format == format == detect(INDEXES / name)
    assert source.dim == 128
    assert list(documents) == np.flatnonzero(lengths).tolist()
    assert len(source) == len(documents)
    assert source.n_tokens == lengths.sum()
    at = 0
    for position in truth["sel_docs"]:
        rows = truth["sel_emb"][at : at + lengths[position]]
        at += len(rows)
        if len(rows):
            np.testing.assert_allclose(documents[position].tokens, rows, rtol=0, atol=tolerance)
    for position, d in documents.items():
        assert d.tokens.dtype == np.float32
        # the sum of 28 x 128 numbers that are each off by less than the tolerance
        assert abs(d.tokens.sum(dtype=float) - truth["doc_sum"][position].sum()) < max(1e-4, 20 * tolerance)


@pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
@pytest.mark.parametrize("name", [n for _, n, _ in INDEXED])
def test_slices_do_not_matter(name, monkeypatch):
    whole = read(INDEXES / name)
    for size in (1, 29, 1000):
        monkeypatch.setattr("muvera_adapters.plaid.chunks._SLICE_TOKENS", size)
        assert_same(read(INDEXES / name), whole)


@pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
@pytest.mark.parametrize("name", [n for _, n, _ in INDEXED] + ["xtrwarp_nbits4/index", "xtrwarprs_nbits4/index"])
def test_nothing_is_written(copy, name):
    path = copy(name)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}
    read(path)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["fastplaid170_nbits4_updated/index", "ragatouille_assembled/index"])
def test_reading_a_part_and_again(name):
    """Whoever stops early leaves no database or file open; every reading starts anew."""
    source = open_index(INDEXES / name, originals=False)
    part = list(itertools.islice(source.documents(), 3))
    gc.collect()
    whole = list(source.documents())
    assert_same(part, whole[:3])
    a, b = source.documents(), source.documents()
    for x, y in zip(a, b, strict=True):
        assert_same([x], [y])


class TestRagatouille:
    NAME = "ragatouille_assembled/index"

    def test_passages_keep_their_numbers_and_texts_follow_the_ranks(self):
        documents = read(INDEXES / self.NAME)
        assert [d.id for d in documents] == [i for i in range(240) if i not in (3, 150, 239)]
        map_ = json.loads((INDEXES / self.NAME / "pid_docid_map.json").read_text())
        for d in documents:
            assert d.payload["text"] == f'Passage {d.id} says "hello"'
            assert d.payload["document_id"] == d.payload["pkg"] == map_[str(d.id)]

    def test_texts_that_cannot_be_matched_are_left_out(self, copy):
        path = copy(self.NAME)
        texts = json.loads((path / "collection.json").read_text())
        (path / "collection.json").write_text(json.dumps(texts[1:]))
        with pytest.warns(IndexWarning, match=r"collection.json: texts left out: 236 texts, 237 passages"):
            source = open_index(path)
        assert not any("text" in d.payload for d in source.documents())

    def test_a_map_shifted_by_delete_and_add(self, copy):
        path = copy(self.NAME)
        map_ = json.loads((path / "pid_docid_map.json").read_text())
        (path / "pid_docid_map.json").write_text(json.dumps({**map_, "239": "new"}))
        with pytest.raises(
            IndexDamaged, match=r"pid_docid_map.json: it maps passage 239 to 'new', .* is shifted; pass"
        ):
            open_index(path)
        (path / "pid_docid_map.json").write_text(json.dumps({**map_, "240": "new"}))
        with pytest.raises(IndexDamaged, match="the index has only 240 passages: the map is shifted"):
            open_index(path)
        ids = path.parent / "ids.txt"
        ids.write_text("".join(f"p{i}\n" for i in range(240)))
        assert [d.id for d in read(path, ids=ids)][:4] == ["p0", "p1", "p2", "p4"]

    @pytest.mark.parametrize("left_alone", ["both", "map", "texts"])
    def test_files_that_a_deletion_left_alone(self, copy, left_alone):
        expected = read(INDEXES / self.NAME)
        path = copy(self.NAME)
        if left_alone in ("both", "map"):
            map_ = json.loads((path / "pid_docid_map.json").read_text())
            (path / "pid_docid_map.json").write_text(json.dumps({str(i): map_.get(str(i), "gone") for i in range(240)}))
        if left_alone in ("both", "texts"):
            texts = {d.position: d.payload["text"] for d in expected}
            (path / "collection.json").write_text(json.dumps([texts.get(i, "gone") for i in range(240)]))
        assert_same(read(path), expected)

    def test_metadata_under_the_names_of_our_keys(self, copy):
        path = copy(self.NAME)
        map_ = json.loads((path / "pid_docid_map.json").read_text())
        metadata = {"document_id": "DOI 10/1", "text": "all of it", "metadata_text": "taken", "year": 2020}
        (path / "docid_metadata_map.json").write_text(json.dumps({map_["0"]: metadata}))
        assert read(path)[0].payload == {
            "document_id": map_["0"],
            "text": 'Passage 0 says "hello"',
            "metadata_document_id": "DOI 10/1",
            "metadata_metadata_text": "all of it",
            "metadata_text": "taken",
            "year": 2020,
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [("", "empty"), ("{}", "no list"), ('["a", 1]', "no list"), ('["a"', "cut short"), ('["a"] x', "cut short"),
         ('["a" "b"]', "cut short"), ("[", "cut short")],
    )  # fmt: skip
    def test_no_list_of_texts(self, copy, text, message):
        path = copy(self.NAME)
        (path / "collection.json").write_text(text)
        with pytest.raises(IndexDamaged, match=f"collection.json: .*{message}"):
            open_index(path)

    def test_texts_that_are_no_utf8(self, copy):
        path = copy(self.NAME)
        (path / "collection.json").write_bytes(b"[" + b",".join([b'"\xff"'] * 237) + b"]")
        with pytest.raises(IndexDamaged, match=r"collection.json: no JSON"):
            read(path)

    def test_texts_in_any_layout_of_json(self, copy):
        path = copy(self.NAME)
        texts = ["", "\\", 'a "quoted" \n text', "ü日本😀", "],["] + [str(i) for i in range(232)]
        for layout in ({"indent": 2}, {}, {"ensure_ascii": False, "separators": (",", ":")}):
            (path / "collection.json").write_text(json.dumps(texts, **layout), "utf-8")
            assert [d.payload["text"] for d in read(path)] == texts


class TestPylate:
    FAST, STANFORD = "pylate160_fastplaid/index/colbert", "pylate160_stanford/index/colbert"

    @pytest.mark.parametrize("name", [FAST, STANFORD])
    def test_ids(self, name):
        documents = read(INDEXES / name)
        map_ = pickle.loads((INDEXES / name / "plaid_ids_to_documents_ids.pkl").read_bytes())
        assert len(map_) == 98
        assert {d.position: d.id for d in documents} == map_

    def test_the_directory_inside_has_no_ids(self):
        with pytest.warns(
            IndexWarning, match="ids are the index's own numbers; open .*colbert for those that PyLate keeps"
        ):
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
        with pytest.warns(IndexWarning, match="open .*warp for those that PyLate keeps"):
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
            (-1, "no number"),
            ("a", "no num"),
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


def execute(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


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


class TestDetection:
    @pytest.mark.parametrize(
        ("name", "what"),
        [("index_config.json.gz", "Byaldi"), ("flattened_embeddings.npy", "ScaNN"), ("index.voyager", "Voyager"),
         ("tachiom.bin", "TACHIOM"), ("0.residuals.bn", "binarization")],
    )  # fmt: skip
    def test_known_but_not_read(self, tmp_path, name, what):
        (tmp_path / name).touch()
        with pytest.raises(UnknownFormat, match=f"{what}.*not read"):
            detect(tmp_path)

    def test_the_directory_above_gives_a_hint(self):
        with pytest.raises(UnknownFormat, match=r"did you mean .*pylate160_stanford/index/colbert\?"):
            detect(INDEXES / "pylate160_stanford" / "index")

    def test_an_unfinished_build(self, copy):
        path = copy("stanford_nbits2/index")
        (path / "metadata.json").unlink()
        (path / "2.codes.pt").unlink()
        (path / "doclens.2.json").unlink()
        with pytest.raises(IndexDamaged, match=r"metadata.json: .* unfinished build, 2 of 3 chunks are there"):
            open_index(path)

    @pytest.mark.parametrize(
        ("name", "first"), [("stanford_nbits2", "3.codes.pt"), ("fastplaid147_nbits4", "3.codes.npy")]
    )
    def test_extra_chunks_are_ignored(self, copy, name, first):
        path = copy(f"{name}/index")
        (path / first).write_bytes(b"not read")
        with pytest.warns(IndexWarning, match=r"ignored the files of chunk 3 and later; metadata.json says 3 chunks"):
            source = open_index(path)
        assert len(source) == 240
