"""What only LanceDB does: columns and JSON, its index, native MaxSim, several writers, files on disk."""

# ruff: noqa: E402 (imported where the extra is installed)
from __future__ import annotations

import datetime
import threading
import warnings

import numpy as np
import pytest

lancedb = pytest.importorskip("lancedb", reason="pip install 'muvera-adapters[lancedb]'")

import pyarrow as pa
from lancedb.index import FTS
from lancedb.query import MatchQuery

from muvera_adapters.databases import Database
from muvera_adapters.errors import (
    CollectionNotFound,
    EncoderMismatch,
    InvalidInput,
    MuveraError,
    Rejected,
    SchemaMismatch,
    Unsupported,
)
from muvera_adapters.lancedb import FullText, LanceMuvera, Near
from muvera_adapters.lancedb.expressions import checked
from muvera_adapters.stores.sizes import Planned, disk_of
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER, OTHER_ENCODER, QUERIES, truth, unit_rows
from muvera_core import FDEConfig, FDEEncoder

COLUMNS = pa.schema(
    [("year", pa.int32()), ("Title", pa.string()), ("tags", pa.list_(pa.string())), ("at", pa.date32())]
)
MULTIVECTOR = pa.list_(pa.list_(pa.float32(), DIM))


@pytest.fixture
def client(tmp_path):
    return lancedb.connect(tmp_path / "data")


def test_declared_keys_are_columns_and_others_are_json(client):
    store = LanceMuvera.create(client, "docs", ENCODER, columns=COLUMNS)
    payloads = [{"year": 2000 + i, "Title": f"t{i}", "page": i, "in": {"x": [i]}} for i in range(4)]
    payloads[3] |= {"tags": ["a"], "at": "2024-01-02", "page": "iv"}
    store.upsert(range(4), DOCUMENTS[:4], payloads)
    assert [document.payload for document in store.get(range(4))] == payloads
    rows = client.open_table("docs").search().where("year > 2002").to_list()
    assert [(row["id"], row["year"], row["at"]) for row in rows] == [("#3", 2003, datetime.date(2024, 1, 2))]
    filters = {
        "year BETWEEN 2001 AND 2002 AND `Title` <> 't1'": [2],
        "at > date '2024-01-01'": [3],
        "array_has(tags, 'a')": [3],
        "json_exists(payload, '$.page ? (@ >= 1)')": [1, 2],
        "json_exists(payload, '$.in.x[*] ? (@ == 2)')": [2],
    }
    for chosen, expected in filters.items():
        assert [document.id for document in store.scroll(filter=chosen)] == expected, chosen
    store.upsert([1], DOCUMENTS[1:2], [{"year": None, "new": 1}])
    assert store.get([1])[0].payload == {"Title": "t1", "page": 1, "in": {"x": [1]}, "new": 1}


@pytest.mark.parametrize(
    "payload",
    [{"year": "x"}, {"year": 2**40}, {"Title": 3}, {"tags": "a"}, {"at": "never"}, {"year": 2.5}, {"rate": 1e39}],
)
def test_a_value_of_another_type_than_its_column_is_refused(client, payload):
    store = LanceMuvera.create(client, "docs", ENCODER, columns=COLUMNS.append(pa.field("rate", pa.float32())))
    with pytest.raises(InvalidInput, match=next(iter(payload))):
        store.upsert([1, 2], DOCUMENTS[:2], [{"year": 1}, payload])
    assert store.count() == 0


@pytest.mark.parametrize("name", ["", "a`b", "a.b", "_distance", "_score", "id"])
def test_a_column_that_cannot_be_written_or_searched_is_refused(client, name):
    with pytest.raises(InvalidInput, match="columns"):
        LanceMuvera.create(client, "docs", ENCODER, columns=pa.schema([(name, pa.int64())]))
    assert client.list_tables().tables == []


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.time64("us"), pa.duration("s"), pa.decimal128(9, 2), pa.json_(), pa.list_(pa.timestamp("us"))],
    ids=str,
)
def test_a_column_that_takes_no_json_is_refused(client, kind):
    with pytest.raises(InvalidInput, match="'x'"):
        LanceMuvera.create(client, "docs", ENCODER, columns=pa.schema([("x", kind)]))


@pytest.mark.parametrize(
    "chosen", ["a) OR (b", "a = 'x", "a = `b", "a > 1 -- x", "a /* x", "(a = 1", 3, 'a = "x'], ids=str
)
def test_a_filter_cannot_leave_its_parentheses(chosen):
    with pytest.raises(InvalidInput, match="filter"):
        checked(chosen)


def test_filters_are_checked_by_the_engine_too(client):
    store = LanceMuvera.create(client, "docs", ENCODER)
    assert checked(" a = 'it''s (' AND `b)` = 1 ") == "(a = 'it''s (' AND `b)` = 1)"
    store.upsert(range(3), DOCUMENTS[:3])
    for ignored in ("id > '' LIMIT 1", "id > '' ORDER BY id", "id > '';"):
        with pytest.raises(Rejected, match="id > ''"):
            store.delete(filter=ignored)
    assert store.count() == 3
    with pytest.raises(Rejected, match="nothing"):
        store.count(filter="nothing = 1")
    with pytest.raises(InvalidInput, match="a/b"):
        LanceMuvera.create(client, "a/b", ENCODER)
    with pytest.raises(InvalidInput, match="name of a table"):
        LanceMuvera.create(client, None, ENCODER)
    with pytest.raises(InvalidInput, match="larger than LanceDB"):
        store.search(QUERIES[0], nprobes=2**40)
    with pytest.raises(InvalidInput, match="connect first"):
        LanceMuvera.open("data", "docs")


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_native_maxsim_is_exact_for_float32(client, metric):
    scaled = [3 * matrix * np.linspace(1, 2, len(matrix), dtype="f4")[:, None] for matrix in DOCUMENTS]
    store = LanceMuvera.create(client, "docs", ENCODER, tokens="float32", tokens_metric=metric)
    store.upsert(range(COUNT), scaled)
    documents = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in scaled] if metric == "cosine" else scaled
    for query in QUERIES:
        native = store.search(query, 10, COUNT, rerank="native")
        unit = query / np.linalg.norm(query, axis=1, keepdims=True) if metric == "cosine" else query
        expected = truth(unit, documents)
        assert np.allclose([hit.score for hit in native], np.sort(expected)[::-1][:10], rtol=1e-5)
        assert [hit.id for hit in native] == [hit.id for hit in store.search(query, 10, COUNT)]


def test_native_maxsim_is_refused_for_float16(client):
    store = LanceMuvera.create(client, "docs", ENCODER)
    store.upsert(range(3), DOCUMENTS[:3])
    with pytest.raises(Unsupported, match="tokens='float32'"):
        store.search(QUERIES[0], rerank="native")


def test_an_index_is_built_and_completed(client):
    generator = np.random.default_rng(4)
    documents = [unit_rows(generator, 4) for _ in range(1_100)]
    store = LanceMuvera.create(client, "docs", ENCODER)
    store.upsert(range(900), documents[:900])
    assert store.wait_indexed() == 900, "there are too few documents for an index"
    assert store.info().indexed
    store.upsert(range(900, 1_000), documents[900:1_000])
    assert not store.info().indexed
    assert store.wait_indexed() == 0
    kinds = {index.columns[0]: index.index_type for index in client.open_table("docs").list_indices()}
    assert kinds == {"fde": "IvfSq", "id": "BTree"}
    store.upsert(range(1_000, 1_100), documents[1_000:])
    assert (store.info().unindexed, store.info().indexed) == (100, False)
    assert store.search(documents[1_050], 1)[0].id == 1_050
    assert store.wait_indexed() == 0


def test_keywords_bring_candidates(client):
    store = LanceMuvera.create(client, "docs", ENCODER, columns=COLUMNS)
    store.upsert(range(COUNT), DOCUMENTS, [{"Title": f"word{i}", "year": i} for i in range(COUNT)])
    client.open_table("docs").create_index("Title", config=FTS())
    query = MatchQuery("word7 word70", "Title")
    for also in (query, FullText(query, limit=5)):
        hits = store.search(QUERIES[0], COUNT, 1, also=[also], rerank="client")
        assert {hit.id for hit in hits if "Title" in hit.found_by} == {7, 70}
    hits = store.search(QUERIES[0], COUNT, 1, also=[FullText(query, filter="year > 50")])
    assert {hit.id for hit in hits if "Title" in hit.found_by} == {70}
    for bad in (Near("fde", [[1.0]]), Near("fde", [1.0], distance="ip"), FullText("word"), "year = 1"):
        with pytest.raises(InvalidInput, match=r"also\[0\]"):
            store.search(QUERIES[0], also=[bad])


def test_the_first_stage_is_a_query_of_the_client(client):
    store = LanceMuvera.create(client, "docs", ENCODER, columns=COLUMNS)
    store.upsert(range(COUNT), DOCUMENTS, [{"year": i} for i in range(COUNT)])
    rows = store.prefetch(QUERIES[1], 5, filter="year > 9").select(["id", "_distance"]).to_list()
    found = store.search(QUERIES[1], 5, 5, rerank="none", filter="year > 9")
    assert [store.document_id(row) for row in rows] == [hit.id for hit in found]
    with pytest.raises(InvalidInput, match="'id'"):
        store.document_id({"_distance": 1.0})


def test_several_writers(tmp_path):
    """Each has a client of its own; whoever loses the race to commit repeats the write, also of the same new id."""
    LanceMuvera.create(lancedb.connect(tmp_path / "data"), "docs", ENCODER)
    failures, together = [], threading.Barrier(3)

    def write(first):
        try:
            store = LanceMuvera.open(lancedb.connect(tmp_path / "data"), "docs")
            for i in range(first, first + 20, 5):
                report = store.upsert(range(i, i + 5), DOCUMENTS[i : i + 5], [{"n": k} for k in range(i, i + 5)])
                assert report.failed == {}
            together.wait()
            store.upsert(["shared"], DOCUMENTS[:1], [{"n": first}])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = LanceMuvera.open(lancedb.connect(tmp_path / "data"), "docs")
    found = {document.id: document.payload["n"] for document in store.scroll()}
    assert found.pop("shared") in (0, 20, 40)
    assert found == {i: i for i in range(60)}
    assert store.count() == 61


def test_what_others_write_is_seen_at_once(client, tmp_path):
    ours, theirs = (LanceMuvera.create(client, "docs", ENCODER), None)
    theirs = LanceMuvera.open(lancedb.connect(tmp_path / "data"), "docs")
    ours.upsert([1], DOCUMENTS[:1])
    assert theirs.count() == 1
    theirs.upsert([2], DOCUMENTS[1:2])
    assert {hit.id for hit in ours.search(QUERIES[0])} == {1, 2}
    theirs.drop()
    with pytest.raises(MuveraError):
        ours.count()
    with pytest.raises(CollectionNotFound):
        LanceMuvera.open(client, "docs")
    ours.drop()


def test_a_table_that_others_made_anew_is_not_written_with_the_old_encoder(client):
    ours = LanceMuvera.create(client, "docs", ENCODER)
    client.drop_table("docs")
    LanceMuvera.create(client, "docs", OTHER_ENCODER).upsert([1], DOCUMENTS[:1])
    with pytest.raises(EncoderMismatch, match="seed"):
        ours.upsert([2], DOCUMENTS[:1])
    client.open_table("docs").drop_columns(["fde"])
    with pytest.raises(SchemaMismatch, match="no column 'fde' any more"):
        ours.search(QUERIES[0])


def test_a_table_without_ids_is_refused(client):
    matrix = [[[0.5] * DIM]]
    columns = {"key": ["a"], "colbert": pa.array(matrix, pa.list_(pa.list_(pa.float32(), DIM)))}
    client.create_table("pages", pa.table(columns))
    with pytest.raises(SchemaMismatch, match="no column 'id' with ids"):
        LanceMuvera.adopt(client, "pages", ENCODER)
    store = LanceMuvera.adopt(client, "pages", ENCODER, id_column="key")
    assert store.backfill().written == 1
    assert store.search(QUERIES[0])[0].id == "a"
    with pytest.raises(InvalidInput, match="no column 'page'"):
        store.upsert(["b"], DOCUMENTS[:1], [{"page": 1}])


@pytest.mark.parametrize(
    ("ids", "problem"),
    [(["a", None], "1 rows have null"), (["a", "a"], "several rows have the id 'a'"), ([5, 5], "the id 5")],
)
def test_ids_that_are_not_unique_are_refused_before_the_table_changes(client, ids, problem):
    tokens = pa.array([matrix.tolist() for matrix in DOCUMENTS[:2]], MULTIVECTOR)
    table = client.create_table("pages", pa.table({"id": ids, "colbert": tokens}))
    store = LanceMuvera.adopt(client, "pages", ENCODER)
    with pytest.raises(SchemaMismatch, match=problem):
        store.backfill()
    assert table.schema.names == ["id", "colbert"]


def test_a_table_that_cannot_be_searched_is_refused(client):
    tokens = pa.array([DOCUMENTS[0].tolist()], MULTIVECTOR)
    client.create_table("pages", pa.table({"id": ["a"], "colbert": tokens, "_distance": [1]}))
    with pytest.raises(SchemaMismatch, match="'_distance': rename it"):
        LanceMuvera.adopt(client, "pages", ENCODER)
    LanceMuvera.create(client, "docs", ENCODER)
    client.open_table("docs").drop_columns(["payload"])
    with pytest.raises(SchemaMismatch, match="no column 'payload'"):
        LanceMuvera.open(client, "docs")


@pytest.mark.parametrize("quantization", ["none", "rq1", "sq8"])
def test_files(tmp_path, quantization):
    """What is on disk, after old versions were removed, is what the size model says."""
    generator = np.random.default_rng(0)
    encoder = FDEEncoder(FDEConfig(128, r_reps=5, k_sim=5, d_proj=16))
    with Database(f"lancedb:{tmp_path / 'data'}") as database:
        codes = None if quantization == "none" else quantization
        store = database.create("x", encoder, quantization=codes)
        for start in range(0, 1_000, 250):
            tokens = generator.normal(size=(250, 40, 128)).astype("f4")
            store.upsert([f"d{i}" for i in range(start, start + 250)], list(tokens))
        store.wait_indexed()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = lancedb.connect(tmp_path / "data").open_table("x")
            table.optimize(cleanup_older_than=datetime.timedelta(0), delete_unverified=True)
        parts = database.spec.two_stages(Planned(1_000, 40, encoder.dim, 128, quantization, "directory"))
    found = sum(file.stat().st_size for file in (tmp_path / "data").rglob("*") if file.is_file())
    assert found == pytest.approx(disk_of(parts), rel=0.04)
