"""What Milvus alone has: expressions, storage of tokens, copies and aliases, candidates that the server leaves out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient, DataType, FieldSchema, MilvusClient, MilvusException

from integration_tests.engines.milvus import text
from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    InvalidInput,
    MissingFDEs,
    MuveraError,
    StoreUnavailable,
    Unsupported,
    WriteInterrupted,
)
from muvera_adapters.milvus import AsyncMilvusMuvera, MilvusMuvera, Retry, copying, requests
from muvera_adapters.testing import CannotStart
from muvera_adapters.testing.corpus import (
    COUNT,
    DOCUMENTS,
    ENCODER,
    OTHER_ENCODER,
    QUERIES,
    best,
    estimates,
    truth,
    two_stage,
)
from muvera_core import maxsim
from servers import milvus_server, milvus_stub, shared
from servers.milvus_server import LiteServer

IDS = list(range(COUNT))
STRONG: dict[str, Any] = {"consistency_level": "Strong"}


def connect(kind: str, path: Any) -> MilvusClient:
    if kind == "file":
        return MilvusClient(str(path / "one.db"))
    try:
        return MilvusClient(shared(milvus_server.standalone), timeout=60)
    except CannotStart as problem:
        pytest.skip(str(problem))


def patiently(uri: str) -> MilvusClient:
    """gRPC does not try an address again for a while after it has refused connections."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return MilvusClient(uri, timeout=10, dedicated=True)
        except MilvusException:
            if time.monotonic() > deadline:
                raise


@pytest.fixture
def stub(tmp_path) -> Iterator[tuple[MilvusClient, milvus_stub.StructServicer]]:
    with milvus_stub.serving(tmp_path / "stub") as (uri, servicer):
        client = MilvusClient(uri, timeout=60)
        yield client, servicer
        client.close()


@pytest.fixture(params=["file", "standalone"])
def client(request, tmp_path) -> Iterator[MilvusClient]:
    connected = connect(request.param, tmp_path)
    yield connected
    connected.close()


@pytest.fixture
def lite(tmp_path) -> Iterator[MilvusClient]:
    connected = connect("file", tmp_path)
    yield connected
    connected.close()


@pytest.fixture
def name(client) -> Iterator[str]:
    made = f"muvera_test_{uuid.uuid4().hex[:8]}"
    yield made
    for alias in client.list_aliases("")["aliases"]:
        if alias.startswith(made):
            client.drop_alias(alias)
    for each in client.list_collections():
        if each.startswith(made):
            client.drop_collection(each)


def filled(client: MilvusClient, name: str, **options: Any) -> MilvusMuvera:
    store = MilvusMuvera.create(client, name, ENCODER, **{**STRONG, **options})
    assert store.upsert(IDS, DOCUMENTS, [{"n": i, "parity": i % 2} for i in IDS]).written == COUNT
    return store


def script(client: MilvusClient, name: str) -> list[Any]:
    """What a program does, whatever it is connected to."""
    store = MilvusMuvera.create(client, name, ENCODER)
    payloads = [{"n": i, "parity": i % 2, "words": {"deep": [i]}} for i in IDS]
    ids = [f"d'\"\\é{i}" if i % 3 else i for i in IDS]
    report = store.upsert(ids, DOCUMENTS, payloads)
    seen: list[Any] = [report.written, report.failed, store.count(), store.count(filter="parity == 1")]
    store = MilvusMuvera.open(client, name)
    for query in QUERIES:
        for options in (
            {},
            {"filter": "parity == 0 or n == 3"},
            {"offset": 3},
            {"rerank": "client"},
            {"rerank": "none"},
        ):
            hits = store.search(query, 7, 30, **options)
            seen.append([(hit.id, round(hit.score, 3), hit.payload, hit.reranked) for hit in hits])
        seen.append([(hit.id, round(hit.score, 3)) for hit in store.exact_search(query, 5)])
    store.delete(ids[:5])
    store.delete(filter="n > 70")
    seen += [store.count(), sorted(map(str, (d.id for d in store.scroll(page_size=9))))]
    seen += [None if d is None else (d.id, d.payload, d.tokens.tolist()) for d in store.get(ids[:8], with_tokens=True)]
    store.drop()
    return seen


def test_one_script_gives_equal_results_on_a_file_a_server_and_struct_arrays(tmp_path, stub):
    name = f"muvera_test_{uuid.uuid4().hex[:8]}"
    file, server = connect("file", tmp_path), connect("standalone", tmp_path)
    results = [script(each, name) for each in (file, server, stub[0])]
    for each in (file, server):
        each.close()
    assert results[0] == results[1]
    assert results[0] == results[2]
    assert results[0][:4] == [COUNT, {}, COUNT, COUNT // 2]


class TestExpressions:
    @pytest.mark.parametrize(
        "document_id",
        ["", "#7", "@x", "'", '"', "\\", "a' or 1 == 1", "new\nline", "é日本😀", "%{x}", "\u2028", "\\u0041"],
    )
    def test_any_id_is_found_again(self, client, document_id, request):
        store = self._store(client, request)
        store.upsert([document_id], DOCUMENTS[:1], [{"n": 1}])
        assert [document.id for document in store.get([document_id])] == [document_id]
        assert store.search(DOCUMENTS[0], 1, filter="n == 1 or n == 2")[0].id == document_id
        store.delete([document_id])
        assert store.get([document_id]) == [None]

    def _store(self, client: MilvusClient, request: Any) -> MilvusMuvera:
        """One collection for all of them."""
        name = "muvera_test_ids"
        if client.has_collection(name):
            return MilvusMuvera.open(client, name, **STRONG)
        store = MilvusMuvera.create(client, name, ENCODER, **STRONG)
        store.upsert(["other", "id"], DOCUMENTS[1:3], [{"n": 3}, {"n": 4}])
        return store

    @pytest.mark.parametrize("expression", ["n == 1) or (n == 2", "n == 'x", "(n == 1", 'n == "\\"', "n in [1"])
    def test_what_would_leave_its_parentheses_is_refused(self, lite, expression):
        store = filled(lite, "c")
        for call in (lambda: store.search(QUERIES[0], filter=expression), lambda: store.delete(filter=expression)):
            with pytest.raises(InvalidInput, match="filter"):
                call()
        assert store.count() == COUNT

    def test_an_or_does_not_escape_the_candidates(self, lite):
        store = filled(lite, "c")
        hits = store.search(QUERIES[2], 6, 15, filter="n == 5 or parity == 1")
        chosen = np.array([i == 5 or i % 2 == 1 for i in IDS])
        candidates = best(np.where(chosen, estimates(QUERIES[2]), -np.inf), 15)
        assert [hit.id for hit in hits] == sorted(candidates, key=lambda i: -truth(QUERIES[2])[i])[:6]


class TestStorage:
    def test_what_the_server_has_decides(self, stub, lite):
        assert MilvusMuvera.create(stub[0], "c", ENCODER).token_storage == "struct"
        assert MilvusMuvera.create(lite, "c", ENCODER).token_storage == "blob"
        assert MilvusMuvera.create(stub[0], "b", ENCODER, token_storage="blob").token_storage == "blob"
        assert MilvusMuvera.open(stub[0], "b").token_storage == "blob"
        with pytest.raises(Unsupported, match="arrays of structs"):
            MilvusMuvera.create(lite, "s", ENCODER, token_storage="struct")
        assert not lite.has_collection("s"), "nothing is left of it"

    def test_long_documents_are_split_over_fields(self, client, name):
        store = MilvusMuvera.create(client, name, ENCODER, max_tokens=4_000, **STRONG)
        long = np.tile(DOCUMENTS[0], (4_000 // len(DOCUMENTS[0]), 1))
        assert len(long) * 16 * 2 * 4 / 3 > 65_535 * 2
        assert store.upsert(["long"], [long]).written == 1
        assert np.array_equal(store.get(["long"], with_tokens=True)[0].tokens, long)

    def test_float32_text_is_exact(self, lite):
        tokens = [matrix / np.float32(3) for matrix in DOCUMENTS[:9]]
        store = MilvusMuvera.create(lite, "c", ENCODER, tokens_datatype="float32", **STRONG)
        store.upsert(IDS[:9], tokens)
        assert all(
            np.array_equal(d.tokens, t) for d, t in zip(store.get(IDS[:9], with_tokens=True), tokens, strict=True)
        )

    @pytest.mark.parametrize("metric", ["IP", "COSINE"])
    def test_both_storages_score_alike(self, stub, metric):
        scaled = [m * np.linspace(1, 3, len(m), dtype=np.float32)[:, None] for m in DOCUMENTS]
        found = []
        for storage in ("struct", "blob"):
            options = {"token_storage": storage, "tokens_metric": metric, "tokens_datatype": "float32"}
            store = MilvusMuvera.create(stub[0], storage, ENCODER, **options, **STRONG)
            store.upsert(IDS, scaled)
            found.append([[(h.id, round(h.score, 3)) for h in store.search(q, 8, 40)] for q in QUERIES])
        assert found[0] == found[1]

    def test_declared_fields_and_a_partition_key(self, lite):
        fields = [
            FieldSchema("tenant", DataType.VARCHAR, max_length=64, is_partition_key=True),
            FieldSchema("year", DataType.INT64),
        ]
        store = MilvusMuvera.create(lite, "c", ENCODER, fields=fields, dynamic=False, num_partitions=4, **STRONG)
        payloads = [{"tenant": "ab"[i % 2], "year": 2000 + i} for i in IDS]
        assert store.upsert(IDS, DOCUMENTS, payloads).written == COUNT
        hits = store.search(QUERIES[1], 50, 50, filter='tenant == "b"')
        assert {hit.id for hit in hits} == set(IDS[1::2])
        assert hits[0].payload == payloads[hits[0].id]
        with pytest.raises(InvalidInput, match="no field 'color'"):
            store.upsert([1], DOCUMENTS[:1], [{"tenant": "a", "year": 1, "color": "red"}])
        report = store.upsert(["x", "y"], DOCUMENTS[:2], [{"tenant": "a", "year": 1}, {"tenant": "a", "year": "no"}])
        assert (report.written, list(report.failed)) == (1, ["y"])

    def test_reserved_keys_and_payloads_over_the_limit_are_refused(self, lite):
        store = MilvusMuvera.create(lite, "c", ENCODER)
        for payload, problem in (({"muvera_tokens_0": "x"}, "reserved"), ({"a": "x" * 70_000}, "65536")):
            with pytest.raises(InvalidInput, match=problem):
                store.upsert([1], DOCUMENTS[:1], [payload])
        assert store.count() == 0


class TestStructs:
    def test_candidates_that_the_server_leaves_out_are_scored_here(self, stub, monkeypatch):
        client, servicer = stub
        store = filled(client, "c")
        monkeypatch.setattr(requests, "_MAX_RATIO", 0.1)
        for query in QUERIES:
            hits = store.search(query, 8, 40, rerank="native")
            assert [hit.id for hit in hits] == two_stage(query, 8, 40)
            assert np.allclose([hit.score for hit in hits], truth(query)[[hit.id for hit in hits]], atol=1e-4)
            assert hits.unscored == []
        assert max(servicer.searches) > 10, "the stub did leave some out"

    def test_by_default_none_is_left_out(self, stub):
        client, servicer = stub
        store = filled(client, "c")
        for query in QUERIES:
            store.search(query, 8, 40)
        assert servicer.searches == [0] * len(QUERIES)

    def test_only_what_is_shown_travels(self, stub):
        client, servicer = stub
        store = filled(client, "c")
        servicer.asked.clear()
        store.search(QUERIES[0], 3, 20, with_payload=["n"])
        assert servicer.asked == [["muvera_id"], ["muvera_id"], ["n"]]
        servicer.asked.clear()
        store.search(QUERIES[0], 3, 20, with_payload=False)
        assert servicer.asked == [["muvera_id"], ["muvera_id"]]

    def test_milvus_own_muvera_is_passed_through_only_where_it_is(self, stub):
        plain = filled(stub[0], "plain")
        with pytest.raises(Unsupported, match="emb_list_strategy"):
            plain.search(QUERIES[0], rerank="native_muvera")
        own = filled(stub[0], "own", tokens_index_params={"emb_list_strategy": "muvera"})
        assert [hit.id for hit in own.search(QUERIES[0], 5, COUNT, rerank="native_muvera")] == best(
            truth(QUERIES[0]), 5
        )

    def test_coded_token_indexes_are_not_trusted_by_auto(self, stub):
        client, servicer = stub
        store = filled(client, "c", tokens_index_type="HNSW_SQ", tokens_index_params={"sq_type": "SQ8"})
        assert [hit.id for hit in store.search(QUERIES[0], 8, 40)] == two_stage(QUERIES[0], 8, 40)
        assert servicer.searches == []

    def test_what_is_no_index_of_tokens_leaves_nothing_behind(self, stub):
        with pytest.raises(MuveraError, match="can't build"):
            MilvusMuvera.create(stub[0], "c", ENCODER, tokens_index_type="FLAT")
        assert not stub[0].has_collection("c")

    def test_in_place_backfills_say_what_old_servers_lack(self, stub):
        client, servicer = stub
        filled(client, "c")
        servicer.adds_vectors = False
        second = MilvusMuvera.adopt(client, "c", OTHER_ENCODER, tokens_vector="muvera_tokens", fde_vector="fde_v2")
        with pytest.raises(Unsupported, match=r"2\.6\.18.*into="):
            second.backfill()
        servicer.adds_vectors, servicer.updates_structs = True, False
        with pytest.raises(Unsupported, match=r"2\.6\.20.*into="):
            second.backfill()
        assert MilvusMuvera.open(client, "c").encoder.fingerprint == ENCODER.fingerprint
        servicer.updates_structs = True
        assert second.backfill().written == COUNT
        opened = MilvusMuvera.open(client, "c", **STRONG)
        assert opened.encoder.fingerprint == OTHER_ENCODER.fingerprint
        assert [hit.id for hit in opened.search(QUERIES[0], 8, COUNT)] == best(truth(QUERIES[0]), 8)

    def test_messages_over_64_mb_are_halved(self, stub, monkeypatch):
        store = MilvusMuvera.create(stub[0], "c", ENCODER, timeout=60)
        monkeypatch.setattr(requests, "WRITE_BYTES", 1 << 40)
        tokens = [np.ones((2_000, 16), np.float32)] * 700  # 90 MB
        report = store.upsert(list(range(700)), tokens)
        assert (report.written, report.failed, store.count()) == (700, {}, 700)


class TestCopies:
    def test_a_copy_takes_over_by_an_alias_and_loses_nothing(self, client, name):
        filled(client, name)
        second = MilvusMuvera.adopt(client, name, OTHER_ENCODER, tokens_vector="muvera_tokens", fde_vector="fde_v2")
        with pytest.raises(Unsupported, match="into="):
            second.backfill()
        report = second.backfill(into=f"{name}_v2", alias=f"{name}_alias", leave_out=["fde"])
        assert (report.written, report.copied, report.remaining) == (COUNT, COUNT, 0)
        assert report.verified > 0
        opened = MilvusMuvera.open(client, f"{name}_alias", **STRONG)
        assert opened.encoder.fingerprint == OTHER_ENCODER.fingerprint
        assert [hit.id for hit in opened.search(QUERIES[0], 8, COUNT)] == best(truth(QUERIES[0]), 8)
        documents = {d.id: d for d in opened.scroll(with_tokens=True)}
        assert sorted(documents) == IDS
        assert all(np.array_equal(documents[i].tokens, DOCUMENTS[i]) for i in IDS)
        assert all(documents[i].payload == {"n": i, "parity": i % 2} for i in IDS)
        assert MilvusMuvera.open(client, name).count() == COUNT, "the old one is left as it was"

    def test_a_killed_copy_is_completed_by_the_next_run(self, lite, monkeypatch):
        filled(lite, "c")
        adopt = {"tokens_vector": "muvera_tokens", "fde_vector": "fde_v2"}
        second = MilvusMuvera.adopt(lite, "c", OTHER_ENCODER, **adopt)
        monkeypatch.setattr(copying, "_PAGE", 16)
        write, calls = copying._write, []

        async def dying(*args):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            await write(*args)

        monkeypatch.setattr(copying, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            second.backfill(into="v2")
        with pytest.raises(MuveraError, match="unfinished copy"):
            MilvusMuvera.open(lite, "v2")
        monkeypatch.setattr(copying, "_write", write)
        MilvusMuvera.open(lite, "c").delete([0])  # copied already
        MilvusMuvera.open(lite, "c").upsert([1], DOCUMENTS[5:6])
        report = second.backfill(into="v2")
        assert report.written == COUNT - 32 + 1, "what was done is not done again"
        opened = MilvusMuvera.open(lite, "v2", **STRONG)
        assert opened.count() == COUNT - 1
        assert np.array_equal(opened.get([1], with_tokens=True)[0].tokens, DOCUMENTS[5])
        with pytest.raises(CollectionExists, match="not an unfinished copy"):
            second.backfill(into="v2")

    def test_what_is_left_out_must_be_there_and_not_needed(self, lite):
        filled(lite, "c")
        second = MilvusMuvera.adopt(lite, "c", OTHER_ENCODER, tokens_vector="muvera_tokens", fde_vector="fde_v2")
        for field in ("nothing", "muvera_tokens_0", "muvera_id"):
            with pytest.raises(InvalidInput, match="leave_out"):
                second.backfill(into="v2", leave_out=[field])

    def test_vectors_of_others_survive_upserts(self, lite):
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=20)
        schema.add_field("title", DataType.FLOAT_VECTOR, dim=2)
        schema.add_field("colbert_0", DataType.VARCHAR, max_length=65_535)
        lite.create_collection("c", schema=schema)
        lite.insert("c", [{"pk": "a", "title": [1.0, 2.0], "colbert_0": text(DOCUMENTS[0])}])
        params = MilvusClient.prepare_index_params()
        params.add_index("title", index_type="HNSW", metric_type="L2")
        lite.create_index("c", params)
        MilvusMuvera.adopt(lite, "c", ENCODER).backfill(into="d")
        store = MilvusMuvera.open(lite, "d")
        titles = {"title": [None, [3.0, 4.0]]}
        assert store.upsert(["a", "b"], DOCUMENTS[1:3], [{"n": 1}, None], vectors=titles).written == 2
        rows = lite.query("d", filter='pk >= ""', output_fields=["pk", "title", "n"])
        assert {row["pk"]: list(row["title"]) for row in rows} == {"a": [1.0, 2.0], "b": [3.0, 4.0]}
        with pytest.raises(InvalidInput, match="strings"):
            store.get([7])
        with pytest.raises(InvalidInput, match="vectors="):
            store.upsert(["b"], DOCUMENTS[:1], [{"title": [3.0, 4.0]}])


SCALARS = [
    FieldSchema("year", DataType.INT64),
    FieldSchema("title", DataType.VARCHAR, max_length=100),
    FieldSchema("more", DataType.JSON),
]


class TestMerges:
    """Servers that update single fields, and those for which documents are read and written again."""

    @pytest.fixture(params=["file", "standalone", "stub"])
    def merging(self, request, tmp_path, stub) -> Iterator[tuple[MilvusClient, str]]:
        made = f"muvera_test_{uuid.uuid4().hex[:8]}"
        connected = stub[0] if request.param == "stub" else connect(request.param, tmp_path)
        yield connected, made
        connected.drop_collection(made)

    def test_declared_fields_and_keys_of_the_dynamic_field(self, merging):
        store = MilvusMuvera.create(*merging, ENCODER, fields=SCALARS, **STRONG)
        whole = {"year": 2000, "title": "x", "more": {"a": 1, "b": 2}, "k": 1, "deep": {"a": 1, "b": [None]}}
        assert store.upsert([1, "two", 3], DOCUMENTS[:3], [whole] * 3).written == 3
        store.wait_indexed()
        named = [{"year": 2001, "k": None}, {"deep": {"c": 1}, "new": "x"}, None, {**whole, "k": 9}]
        report = store.upsert([1, "two", 3, 4], DOCUMENTS[3:7], named)
        assert (report.written, report.failed, store.count()) == (4, {}, 4)
        found = store.get([1, "two", 3, 4], with_tokens=True)
        assert [document.payload for document in found] == [
            {**whole, "year": 2001, "k": None},
            {**whole, "deep": {"c": 1}, "new": "x"},
            whole,
            {**whole, "k": 9},
        ]
        assert all(np.array_equal(d.tokens, t) for d, t in zip(found, DOCUMENTS[3:7], strict=True))
        assert store.upsert([3], DOCUMENTS[:1], [{"year": 1}], replace=True).failed.keys() == {3}, "no title"
        assert store.upsert([3], DOCUMENTS[:1], [{"year": 1, "title": "", "more": {}}], replace=True).written == 1
        assert store.get([3])[0].payload == {"year": 1, "title": "", "more": {}}

    def test_a_new_document_needs_what_the_collection_demands(self, merging):
        store = MilvusMuvera.create(*merging, ENCODER, fields=SCALARS[:2], **STRONG)
        report = store.upsert([1, 2], DOCUMENTS[:2], [{"year": 1, "title": "a"}, {"year": 2}])
        assert (report.written, list(report.failed)) == (1, [2])
        assert [document.id for document in store.scroll()] == [1]

    def test_a_fresh_load_reads_nothing_but_one_count(self, stub, monkeypatch):
        client, servicer = stub
        monkeypatch.setattr(requests, "WRITE_BYTES", 20_000)
        store = MilvusMuvera.create(client, "c", ENCODER, token_storage="blob", **STRONG)
        servicer.asked.clear()
        assert store.upsert(IDS, DOCUMENTS).written == COUNT
        assert servicer.asked == [["count(*)"]]

    def test_stale_fdes_are_refreshed_by_reading_and_writing_again(self, client, name):
        store = filled(client, name)
        names = ["muvera_id", "fde", "$meta"]
        rows = client.query(name, filter='muvera_id == "#3"', output_fields=names, **STRONG)
        texts = [each["name"] for each in client.describe_collection(name)["fields"] if "_tokens_" in each["name"]]
        row = {**rows[0], **dict.fromkeys(texts, ""), texts[0]: text(DOCUMENTS[50])}
        client.upsert(name, [row])
        assert store.verify().stale == [3]
        report = store.backfill(refresh=True)
        assert (report.refreshed, report.written, report.failed) == (1, 0, {})
        assert store.verify().passed
        assert store.get([3])[0].payload == {"n": 3, "parity": 1}
        assert store.count() == COUNT
        assert store.search(DOCUMENTS[50], 2, 2)[0].id in (3, 50)


class TestGuests:
    """What an adoption leaves, and what others see."""

    def adopted(self, client: MilvusClient) -> MilvusMuvera:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("pk", DataType.INT64, is_primary=True)
        for field in ("colbert_0", "colbert_1"):
            schema.add_field(field, DataType.VARCHAR, max_length=65_535)
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=2)
        params = MilvusClient.prepare_index_params()
        params.add_index("dense", index_type="HNSW", metric_type="L2", params={"M": 4, "efConstruction": 40})
        client.create_collection("c", schema=schema, index_params=params, **STRONG)
        rows = [
            {"pk": i - 5, "colbert_0": text(DOCUMENTS[i]), "colbert_1": "", "dense": [1.0, float(i)], "n": i}
            for i in range(12)
        ]
        client.insert("c", rows)
        return MilvusMuvera.adopt(client, "c", ENCODER, **STRONG)

    def content(self, client: MilvusClient) -> list[dict[str, Any]]:
        fields = [each["name"] for each in client.describe_collection("c")["fields"]]
        rows = client.query("c", filter="pk >= -100", output_fields=[*fields, "$meta"], limit=100, **STRONG)
        return sorted((dict(row) for row in rows), key=lambda row: row["pk"])

    @pytest.mark.parametrize("drops", [True, False])
    def test_an_adoption_is_undone(self, stub, drops):
        client, servicer = stub
        servicer.drops_fields = drops
        store = self.adopted(client)
        before = self.content(client)
        assert store.backfill().written == 12
        if drops:
            store.remove_fde()
            assert self.content(client) == before
        else:
            with pytest.raises(Unsupported, match="'fde' of c stays, and is empty now"):
                store.remove_fde()
            after = self.content(client)
            assert all(not np.any(row.pop("fde")) and row.pop("muvera_fde") is None for row in after)
            assert [{**row, "dense": list(row["dense"])} for row in after] == [
                {**row, "dense": list(row["dense"])} for row in before
            ]
        with pytest.raises(InvalidInput, match=r"backfill\(\)"):
            store.search(QUERIES[0])
        with pytest.raises(CollectionNotFound, match="adopt"):
            MilvusMuvera.open(client, "c")
        assert MilvusMuvera.adopt(client, "c", ENCODER, **STRONG).backfill().written == 12

    def test_the_first_encoder_goes_on_beside_the_second(self, stub):
        client, _ = stub
        first = self.adopted(client)
        first.backfill()
        second = MilvusMuvera.adopt(client, "c", OTHER_ENCODER, fde_vector="fde_v2", **STRONG)
        assert second.backfill().written == 12
        for store in (first, second):
            hits = store.search(QUERIES[0], 3, 12)
            assert (hits.without_fde, store.info().without_fde, store.verify().passed) == (0, 0, True)
            assert all(set(hit.payload) == {"n"} for hit in hits)
        assert second.upsert([1], DOCUMENTS[40:41]).written == 1
        assert first.verify().stale == [1], "its FDE is that of the old tokens"
        assert MilvusMuvera.open(client, "c").encoder.fingerprint == OTHER_ENCODER.fingerprint

    def test_integer_keys_in_any_spelling(self, stub):
        store = self.adopted(stub[0])
        store.backfill()
        assert [document.payload["n"] for document in store.get(["-5", -4, "1", np.int64(2)])] == [0, 1, 6, 7]
        assert store.upsert(["1"], DOCUMENTS[20:21], [{"new": 1}]).written == 1
        assert store.get([1])[0].payload == {"n": 6, "new": 1}
        store.delete(["-5", "1"])
        assert store.count() == 10

    def test_text_that_is_no_tokens_is_reported_and_ends_nothing(self, stub):
        client, _ = stub
        store = self.adopted(client)
        client.upsert("c", [{"pk": 2, "colbert_0": "no tokens"}], partial_update=True)
        report = store.backfill()
        assert (report.written, list(report.failed)) == (11, [2])
        assert "cannot be read" in report.failed[2]
        client.upsert("c", [{"pk": 1, "colbert_0": "no tokens"}], partial_update=True)
        found = store.verify()
        assert (found.checked, sorted(found.unreadable)) == (10, [1, 2])
        with pytest.warns(MissingFDEs, match="1 documents"):
            hits = store.search(QUERIES[0], 20, 20)
        assert sum(hit.reranked for hit in hits) == 10
        assert 1 in [hit.id for hit in hits.unscored]
        assert store.get([2])[0].payload == {"n": 7}
        with pytest.raises(MuveraError, match="cannot be read"):
            store.get([2], with_tokens=True)

    def test_marks_and_vectors_are_no_payload(self, stub):
        store = self.adopted(stub[0])
        store.backfill()
        for key, problem in (("muvera_fde", "reserved"), ("dense", "vectors=")):
            with pytest.raises(InvalidInput, match=problem):
                store.upsert([1], DOCUMENTS[:1], [{key: [1.0, 2.0]}])


class TestErrors:
    def test_the_wrong_client(self, lite, tmp_path):
        for make in (MilvusMuvera.open, partial(MilvusMuvera.adopt, encoder=ENCODER)):
            with pytest.raises(InvalidInput, match="MilvusClient"):
                make("http://localhost:19530", "c")

    def test_the_clients_of_the_other_kind(self, lite, tmp_path):
        async def wrongly() -> None:
            waiting = AsyncMilvusClient(str(tmp_path / "one.db"))
            with pytest.raises(InvalidInput, match="use AsyncMilvusMuvera"):
                MilvusMuvera.create(waiting, "c", ENCODER)
            with pytest.raises(InvalidInput, match="use MilvusMuvera"):
                await AsyncMilvusMuvera.create(lite, "c", ENCODER)
            await waiting.close()

        asyncio.run(wrongly())

    def test_an_outage_names_the_address(self, tmp_path):
        server = LiteServer(tmp_path)
        server.start()
        client = MilvusClient(server.uri, timeout=5, dedicated=True)
        store = MilvusMuvera.create(client, "c", ENCODER, timeout=2, retry=Retry(attempts=1))
        server.stop()
        with pytest.raises(StoreUnavailable, match=server.uri):
            store.count()
        client.close()


class TestFaults:
    @pytest.fixture
    def server(self, tmp_path) -> Iterator[LiteServer]:
        made = LiteServer(tmp_path)
        made.start()
        yield made
        made.stop()

    def test_an_outage_is_reported_and_a_rerun_completes(self, server, monkeypatch):
        monkeypatch.setattr(requests, "WRITE_BYTES", 20_000)
        client = MilvusClient(server.uri, timeout=5)
        store = MilvusMuvera.create(client, "c", ENCODER, timeout=3, retry=Retry(attempts=1), **STRONG)
        call, calls = client.insert, []

        def dying(**arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                server.kill()
            return call(**arguments)

        monkeypatch.setattr(client, "insert", dying)
        with pytest.raises(WriteInterrupted) as caught:
            store.upsert(IDS, DOCUMENTS)
        report = caught.value.report
        assert 0 < report.written < COUNT
        assert report.written + len(report.failed) == COUNT
        assert not isinstance(caught.value.__cause__, MuveraError), "the client's own error is kept"
        with pytest.raises(StoreUnavailable):
            store.count()
        client.close()
        server.start()
        client = patiently(server.uri)
        again = MilvusMuvera.open(client, "c", **STRONG)
        acknowledged = {i for i in IDS if i not in report.failed}
        assert acknowledged <= {d.id for d in again.scroll()}, "reported as written means stored, through a kill"
        assert again.upsert(IDS, DOCUMENTS).written == COUNT
        assert again.count() == COUNT
        assert again.search(QUERIES[2], 5, COUNT)[0].id == int(np.argmax(maxsim(QUERIES[2], DOCUMENTS)))
        client.close()

    def test_a_collection_that_is_gone_is_no_failure_of_documents(self, lite):
        store = filled(lite, "c")
        lite.drop_collection("c")
        with pytest.raises(MuveraError, match="c"):
            store.upsert(IDS[:3], DOCUMENTS[:3])
