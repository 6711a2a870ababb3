"""What Weaviate alone has: its indexes, tenants, references, other vectors; against a real server."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import weaviate
from weaviate.classes.config import Configure, DataType, Property, ReferenceProperty, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, QueryReference
from weaviate.classes.tenants import Tenant

from integration_tests.engines.weaviate import foreign_id
from muvera_adapters.errors import EncoderMismatch, InvalidInput, SchemaMismatch, Unsupported
from muvera_adapters.testing import CannotStart
from muvera_adapters.testing.corpus import (
    COUNT,
    DIM,
    DOCUMENTS,
    ENCODER,
    OTHER_ENCODER,
    QUERIES,
    best,
    estimates,
    truth,
    two_stage,
)
from muvera_adapters.weaviate import WeaviateMuvera, reading, requests, searching
from muvera_adapters.weaviate.ids import to_uuid
from servers import shared, weaviate_server

VI = Configure.VectorIndex
IDS = list(range(COUNT))
MUVERA = VI.MultiVector.Encoding.muvera()
PICTURE = "aGVsbG8="


@pytest.fixture
def client() -> Iterator[weaviate.WeaviateClient]:
    try:
        host, port, grpc_port = shared(weaviate_server.running)
    except CannotStart as problem:
        pytest.skip(str(problem))
    with weaviate.connect_to_local(host, port, grpc_port) as connected:
        yield connected
        assert connected.is_connected(), "the client is the caller's"


@pytest.fixture
def name(client) -> Iterator[str]:
    made = f"MuveraTest{uuid.uuid4().hex[:8]}"
    yield made
    client.collections.delete(made)


@pytest.fixture
def other(client) -> Iterator[str]:
    made = f"MuveraOther{uuid.uuid4().hex[:8]}"
    client.collections.create(made)
    client.collections.use(made).data.insert({}, uuid=foreign_id(1))
    yield made
    client.collections.delete(made)


def filled(client: Any, name: str, **options: Any) -> WeaviateMuvera:
    store = WeaviateMuvera.create(client, name, ENCODER, **{"quantization": None, **options})
    assert store.upsert(IDS, DOCUMENTS, [{"n": i} for i in IDS]).written == COUNT
    return store


def everything(client: Any, name: str) -> dict[str, Any]:
    """id -> properties, vectors, ids of its references."""
    links = QueryReference(link_on="ref")
    # a blob is in no reply unless asked for
    asked = {"include_vector": True, "return_references": links, "return_properties": ["n", "text", "picture"]}
    found = client.collections.use(name).query.fetch_objects(limit=1000, **asked)
    return {
        str(o.uuid): (
            {key: value for key, value in o.properties.items() if value is not None and not key.startswith("muvera_")},
            {key: np.asarray(vector, np.float32) for key, vector in o.vector.items()},
            [str(to.uuid) for to in o.references["ref"].objects] if o.references else [],
        )
        for o in found.objects
    }


def richly(client: Any, name: str, other: str) -> None:
    """Makes a collection with tokens, another vector, properties, a blob and references."""
    client.collections.create(
        name,
        vector_config=[
            Configure.MultiVectors.self_provided(
                name="colbert", vector_index_config=VI.hnsw(distance_metric=VectorDistances.DOT)
            ),
            Configure.Vectors.self_provided(name="title"),
        ],
        properties=[
            Property(name="n", data_type=DataType.INT),
            Property(name="text", data_type=DataType.TEXT),
            Property(name="picture", data_type=DataType.BLOB),
        ],
        references=[ReferenceProperty(name="ref", target_collection=other)],
    )
    objects: list[Any] = [
        DataObject(
            {"n": i, "text": f"t{i}", "picture": PICTURE},
            foreign_id(i),
            {"colbert": DOCUMENTS[i].tolist(), "title": [1.0, float(i)]},
            {"ref": foreign_id(1)},
        )
        for i in IDS
    ]
    assert not client.collections.use(name).data.insert_many(objects).has_errors


def number(hit: Any) -> int:
    return uuid.UUID(hit.id).int


class TestIndexes:
    def test_the_schema_is_what_two_stages_need(self, client, name):
        WeaviateMuvera.create(client, name, ENCODER)
        vectors = client.collections.use(name).config.get().vector_config
        fde, tokens = vectors["fde"].vector_index_config, vectors["tokens"].vector_index_config
        assert (fde.distance_metric, fde.quantizer.bits, fde.quantizer.rescore_limit) == (VectorDistances.DOT, 8, 0)
        encoding = tokens.multi_vector.encoding
        assert (encoding.ksim, encoding.dprojections, encoding.repetitions) == (1, 1, 1)
        assert (tokens.distance_metric, tokens.quantizer, tokens.skip) == (VectorDistances.DOT, None, False)

    @pytest.mark.parametrize("quantization", ["rq8", "rq4", "rq1", VI.Quantizer.sq()])
    def test_quantized_fdes_find_the_same(self, client, name, quantization):
        store = filled(client, name, quantization=quantization)
        found = [{hit.id for hit in store.search(query, 10, 60)} for query in QUERIES]
        expected = [set(two_stage(query, 10, 60)) for query in QUERIES]
        assert np.mean([len(a & b) / 10 for a, b in zip(found, expected, strict=True)]) >= 0.9

    @pytest.mark.parametrize(
        "index", [VI.flat(), VI.hfresh(), VI.hnsw(max_connections=8)], ids=["flat", "hfresh", "hnsw"]
    )
    def test_other_indexes_of_the_fdes_rank_alike(self, client, name, index):
        before = copy.deepcopy(index)
        store = filled(client, name, vector_index_config=index)
        assert index == before
        for query in QUERIES:
            hits = store.search(query, 5, rerank="none")
            assert [hit.id for hit in hits] == best(estimates(query), 5)
            assert np.allclose([hit.score for hit in hits], estimates(query)[[hit.id for hit in hits]], atol=1e-2)

    def test_hfresh_is_not_asked_for_more_than_it_gives(self, client, name):
        index = VI.hfresh(quantizer=VI.Quantizer.rq(bits=1, rescore_limit=20))
        store = filled(client, name, vector_index_config=index)
        fde = ENCODER.encode_query(QUERIES[0])
        given = client.collections.use(name).query.near_vector(fde, target_vector="fde", limit=COUNT).objects
        assert len(given) == 20, "what Weaviate does; should it give more, the limit has lost its reason"
        assert len(store.search(QUERIES[0], 20, 20)) == 20
        for options in ({"limit": 21, "prefetch": 20}, {"prefetch": 21}, {"prefetch": 20, "offset": 15}):
            with pytest.raises(InvalidInput, match="the 20 that it rescores"):
                store.search(QUERIES[0], **options)
        assert len(store.exact_search(QUERIES[0], COUNT)) == COUNT

    def test_what_is_no_measure_of_fdes_is_refused(self, client, name):
        index = VI.hnsw(distance_metric=VectorDistances.L2_SQUARED)
        with pytest.raises(InvalidInput, match="l2-squared"):
            WeaviateMuvera.create(client, name, ENCODER, vector_index_config=index)
        for options in ({"quantization": "int3"}, {"tokens_index": "tree"}, {"colour": "red"}):
            with pytest.raises(InvalidInput):
                WeaviateMuvera.create(client, name, ENCODER, **options)
        with pytest.raises(InvalidInput, match="reserved"):
            WeaviateMuvera.create(
                client, name, ENCODER, properties=[Property(name="muvera_id", data_type=DataType.TEXT)]
            )
        assert not client.collections.exists(name)

    def test_tokens_without_an_index_are_reranked_here(self, client, name):
        store = filled(client, name, tokens_index="none")
        assert [hit.id for hit in store.search(QUERIES[2], 8, 20)] == two_stage(QUERIES[2], 8, 20)
        assert [hit.id for hit in store.exact_search(QUERIES[2], 8)] == best(truth(QUERIES[2]), 8)
        with pytest.raises(Unsupported, match="client"):
            store.search(QUERIES[2], rerank="native")

    def test_weaviates_own_muvera_reranks_twice_its_limit(self, client, name):
        store = filled(client, name, tokens_index=MUVERA)
        for query in QUERIES:
            hits = store.search(query, 8, COUNT, rerank="native_muvera")
            assert [hit.id for hit in hits] == best(truth(query), 8)
            assert np.allclose([hit.score for hit in hits], np.sort(truth(query))[::-1][:8], atol=1e-4)
            assert hits[0].payload == {"n": hits[0].id}
            rest = store.search(query, 4, COUNT, rerank="native_muvera", offset=4)
            assert [hit.id for hit in rest] == [hit.id for hit in hits[4:]]

    def test_only_a_real_muvera_is_searched_by(self, client, name):
        store = filled(client, name)
        with pytest.raises(Unsupported, match="tokens_index"):
            store.search(QUERIES[0], rerank="native_muvera")

    def test_a_quantized_token_index_is_not_used_where_documents_lack_tokens(self, client, name):
        index = VI.hnsw(distance_metric=VectorDistances.DOT, quantizer=VI.Quantizer.rq(bits=8))
        vector = Configure.MultiVectors.self_provided(name="colbert", vector_index_config=index)
        client.collections.create(name, vector_config=[vector])
        objects = [DataObject({}, foreign_id(i), {"colbert": DOCUMENTS[i].tolist()}) for i in IDS]
        client.collections.use(name).data.insert_many(objects)
        store = WeaviateMuvera.adopt(client, name, ENCODER)
        store.backfill(quantization=None)
        lonely = DataObject({}, foreign_id(900), {"fde": (ENCODER.encode_query(QUERIES[0]) * 10).tolist()})
        client.collections.use(name).data.insert_many([lonely])
        hits = store.search(QUERIES[0], 8, COUNT + 1)
        assert [number(hit) for hit in hits] == best(truth(QUERIES[0]), 8)
        assert [number(hit) for hit in hits.unscored] == [900]
        with pytest.raises(Unsupported, match="client"):
            store.search(QUERIES[0], rerank="native")


class TestLongReplies:
    def test_tokens_that_do_not_fit_into_a_message_come_in_several(self, client, name, monkeypatch):
        store = filled(client, name)
        monkeypatch.setattr(reading, "READ_BYTES", 5_000)
        assert [hit.id for hit in store.search(QUERIES[2], 8, COUNT, rerank="client")] == best(truth(QUERIES[2]), 8)
        assert len([d for d in store.get(IDS, with_tokens=True) if d is not None and d.tokens is not None]) == COUNT

    @pytest.mark.parametrize("index", ["rerank", "none", "hnsw"])
    def test_exact_search_goes_through_all_pages(self, client, name, index, monkeypatch):
        store = filled(client, name, tokens_index=index)
        monkeypatch.setattr(searching, "_SCAN", 7)
        for query in QUERIES:
            assert [hit.id for hit in store.exact_search(query, 10)] == best(truth(query), 10)
        even = store.exact_search(QUERIES[1], 5, filter=Filter.by_property("n").less_than(40), offset=2)
        assert [hit.id for hit in even] == best(truth(QUERIES[1], DOCUMENTS[:40]), 7)[2:]

    def test_more_results_than_the_server_gives_are_refused(self, client, name):
        store = WeaviateMuvera.create(client, name, ENCODER)
        with pytest.raises(InvalidInput, match="10000"):
            store.search(QUERIES[0], prefetch=10_001)


class TestWriting:
    def test_nothing_of_the_caller_is_changed(self, client, name):
        store = WeaviateMuvera.create(client, name, ENCODER)
        self.check_nothing_is_changed(store, IDS[:9])

    def test_nothing_of_the_caller_is_changed_where_tokens_are_normalised(self, client, name):
        index = VI.hnsw(distance_metric=VectorDistances.COSINE)
        vector = Configure.MultiVectors.self_provided(name="colbert", vector_index_config=index)
        client.collections.create(name, vector_config=[vector])
        store = WeaviateMuvera.adopt(client, name, ENCODER)
        store.backfill()
        self.check_nothing_is_changed(store, [foreign_id(i) for i in IDS[:9]])

    def check_nothing_is_changed(self, store, ids):
        tokens, payloads = [3 * d for d in DOCUMENTS[:9]], [{"n": i, "deep": {"a": [i]}} for i in range(9)]
        query, given = 3 * QUERIES[0], (list(ids), tokens, payloads)
        before = copy.deepcopy((query, given))
        for _ in range(2):  # of documents that are new, and of those that are there
            assert store.upsert(*given).written == 9
        for mode in ("native", "client", "none"):
            store.search(query, 5, rerank=mode)
        store.exact_search(query, 5)
        assert (given[0], payloads) == (before[1][0], before[1][2])
        assert np.array_equal(query, before[0])
        assert all(np.array_equal(a, b) for a, b in zip(tokens, before[1][1], strict=True))

    def test_refused_documents_are_reported_under_their_ids(self, client, name):
        own = [Property(name="n", data_type=DataType.INT)]
        store = WeaviateMuvera.create(client, name, ENCODER, properties=own)
        payloads = [{"n": 1}, {"n": "not a number"}, {"n": 3}]
        report = store.upsert(["a", "b", "c"], DOCUMENTS[:3], payloads)
        assert (report.written, list(report.failed)) == (2, ["b"])
        assert "n" in report.failed["b"]
        assert {document.id for document in store.scroll()} == {"a", "c"}
        all_bad = store.upsert(["d", "e"], DOCUMENTS[:2], [{"n": "x"}] * 2)
        assert (all_bad.written, sorted(all_bad.failed)) == (0, ["d", "e"])

    def test_refused_documents_of_all_batches_and_ways_of_writing_are_reported(self, client, name, monkeypatch):
        own = [Property(name="n", data_type=DataType.INT)]
        store = WeaviateMuvera.create(client, name, ENCODER, properties=own)
        # those that are there, and have a property that the payload does not name, are patched
        there = IDS[:COUNT:3]
        assert store.upsert(there, [DOCUMENTS[i] for i in there], [{"text": "a"} for _ in there]).written == len(there)
        size = 4 * (ENCODER.dim + max(d.size for d in DOCUMENTS)) + 600
        monkeypatch.setattr(requests, "WRITE_BYTES", 7 * size)
        bad = [i for i in IDS if i % 5 == 1 or i % 7 == 3]
        payloads = [{"n": "no number" if i in bad else i} for i in IDS]
        report = store.upsert([f"d{i}" if i not in there else i for i in IDS], DOCUMENTS, payloads)
        named = {f"d{i}" if i not in there else i for i in bad}
        assert (report.written, set(report.failed)) == (COUNT - len(bad), named)
        for document in store.scroll():
            i = document.id if isinstance(document.id, int) else int(document.id[1:])
            assert document.payload == {**({"text": "a"} if i in there else {}), **({} if i in bad else {"n": i})}

    def test_properties_that_a_payload_does_not_name_stay(self, client, name):
        blob = Property(name="picture", data_type=DataType.BLOB)
        store = filled(client, name)
        store.upsert([3, 4], DOCUMENTS[3:5], [{"text": "a", "n": 33}, {"n": None, "text": "b"}])
        store.upsert([3], DOCUMENTS[5:6], [{"more": True}])
        changed, emptied = store.get([3, 4], with_tokens=True)
        assert changed.payload == {"n": 33, "text": "a", "more": True}
        assert emptied.payload == {"n": None, "text": "b"}
        assert store.count(filter=Filter.by_property("n").greater_or_equal(0)) == COUNT - 1, (
            "it is not a number any more"
        )
        assert np.array_equal(changed.tokens, DOCUMENTS[5])
        assert store.search(DOCUMENTS[5], 2, COUNT)[0].score == pytest.approx(truth(DOCUMENTS[5]).max(), abs=1e-4)
        # a blob is in no reply unless asked for
        client.collections.use(name).config.add_property(blob)
        client.collections.use(name).data.update(uuid=to_uuid(3, 0)[0], properties={"picture": PICTURE})
        WeaviateMuvera.open(client, name).upsert([3], DOCUMENTS[:1], [{"n": 3, "text": "a", "more": True}])
        found = client.collections.use(name).query.fetch_object_by_id(to_uuid(3, 0)[0], return_properties=["picture"])
        assert found.properties["picture"] == PICTURE

    def test_without_a_payload_properties_stay(self, client, name):
        store = filled(client, name)
        assert store.upsert([3, 500], [DOCUMENTS[4], DOCUMENTS[5]], [None, None]).written == 2
        assert store.upsert([4], [DOCUMENTS[6]]).written == 1
        kept, bare, other = store.get([3, 500, 4], with_tokens=True)
        assert (kept.payload, bare.payload, other.payload) == ({"n": 3}, {}, {"n": 4})
        for document, i in ((kept, 4), (bare, 5), (other, 6)):
            assert np.array_equal(document.tokens, DOCUMENTS[i])

    def test_vectors_and_references_of_others_stay(self, client, name, other):
        richly(client, name, other)
        store = WeaviateMuvera.adopt(client, name, ENCODER)
        store.backfill()
        before = everything(client, name)
        changed = foreign_id(3)
        full = {"n": 5, "text": "all that there is"}
        written = [changed, foreign_id(4), "new", foreign_id(5)]
        report = store.upsert(written, [*DOCUMENTS[6:9], DOCUMENTS[5]], [{"n": 33}, None, {"n": 7}, full])
        assert (report.written, report.failed) == (4, {})
        after = everything(client, name)
        assert after[changed][0] == {"n": 33, "text": "t3", "picture": PICTURE}
        assert after[foreign_id(4)][0] == before[foreign_id(4)][0]
        assert after[foreign_id(5)][0] == {**full, "picture": PICTURE}
        for each, i in ((changed, 6), (foreign_id(4), 7), (foreign_id(5), 5)):
            assert np.array_equal(after[each][1]["title"], before[each][1]["title"])
            assert np.array_equal(after[each][1]["colbert"], DOCUMENTS[i])
            assert after[each][2] == [foreign_id(1)]
        assert store.get(["new"])[0].payload == {"n": 7}
        query = DOCUMENTS[6]
        scores = truth(query, [*DOCUMENTS[:3], DOCUMENTS[6], DOCUMENTS[7], *DOCUMENTS[5:], DOCUMENTS[8]])
        assert store.search(query, 3, COUNT + 1)[0].score == pytest.approx(scores.max(), abs=1e-4)


class TestAdoption:
    def test_backfill_loses_nothing(self, client, name, other):
        richly(client, name, other)
        before = everything(client, name)
        store = WeaviateMuvera.adopt(client, name, ENCODER)
        assert store.backfill().written == COUNT
        after = everything(client, name)
        assert after.keys() == before.keys()
        fdes = ENCODER.encode_documents(DOCUMENTS)
        for each, (properties, vectors, references) in before.items():
            assert after[each][0] == properties
            assert after[each][2] == references == [foreign_id(1)]
            assert after[each][1].keys() == {"colbert", "title", "fde"}
            assert all(np.array_equal(after[each][1][key], vector) for key, vector in vectors.items())
            assert np.allclose(after[each][1]["fde"], fdes[uuid.UUID(each).int], atol=1e-6)

    def test_a_store_opened_before_another_run_sees_what_that_run_added(self, client, name):
        index = VI.hnsw(distance_metric=VectorDistances.DOT)
        vector = Configure.MultiVectors.self_provided(name="colbert", vector_index_config=index)
        client.collections.create(name, vector_config=[vector])
        objects = [DataObject({}, foreign_id(i), {"colbert": DOCUMENTS[i].tolist()}) for i in IDS]
        client.collections.use(name).data.insert_many(objects)
        early, other = (WeaviateMuvera.adopt(client, name, ENCODER) for _ in range(2))
        assert early.backfill(dry_run=True).remaining == COUNT
        assert other.backfill().written == COUNT
        assert early.backfill(dry_run=True).remaining == 0
        assert early.backfill().written == 0
        assert number(early.search(DOCUMENTS[3], 1, 20)[0]) == best(truth(DOCUMENTS[3]), 1)[0]

    def test_another_encoder_needs_another_vector_and_takes_over_when_it_is_filled(self, client, name):
        filled(client, name).upsert(["x"], DOCUMENTS[:1], [{"n": 1}])
        with pytest.raises(EncoderMismatch):
            WeaviateMuvera.adopt(client, name, OTHER_ENCODER, tokens_vector="tokens")
        second = WeaviateMuvera.adopt(client, name, OTHER_ENCODER, tokens_vector="tokens", fde_vector="fde_v2")
        with pytest.raises(InvalidInput, match="backfill"):
            second.search(QUERIES[0])
        assert WeaviateMuvera.open(client, name).encoder.fingerprint == ENCODER.fingerprint
        assert second.backfill(quantization=None).written == COUNT + 1
        opened = WeaviateMuvera.open(client, name)
        assert opened.encoder.fingerprint == OTHER_ENCODER.fingerprint
        assert opened.info().without_fde == 0
        for query in QUERIES:
            own = OTHER_ENCODER.encode_documents(DOCUMENTS) @ OTHER_ENCODER.encode_query(query)
            hits = [hit for hit in opened.search(query, 9, rerank="none") if hit.id != "x"][:8]
            assert [hit.id for hit in hits] == best(own, 8)
        assert "fde" in everything_vectors(client, name), "nothing is dropped that was not named"

    def test_what_is_no_multivector_is_named(self, client, name):
        client.collections.create(name, vector_config=[Configure.Vectors.self_provided(name="colbert")])
        with pytest.raises(SchemaMismatch, match="not a multivector"):
            WeaviateMuvera.adopt(client, name, ENCODER)


def everything_vectors(client: Any, name: str) -> set[str]:
    found = client.collections.use(name).query.fetch_objects(limit=1, include_vector=True)
    return set(found.objects[0].vector)


def test_tenants_are_kept_apart(client, name):
    tenants = Configure.multi_tenancy(True)
    first = WeaviateMuvera.create(client, name, ENCODER, quantization=None, tenant="a", multi_tenancy_config=tenants)
    client.collections.use(name).tenants.create([Tenant(name="a"), Tenant(name="b")])
    second = first.with_tenant("b")
    first.upsert(IDS[:30], DOCUMENTS[:30])
    second.upsert(IDS[30:], DOCUMENTS[30:])
    assert (first.count(), second.count()) == (30, COUNT - 30)
    for rerank in ("native", "client", "none"):
        assert {hit.id for hit in first.search(QUERIES[1], 30, 30, rerank=rerank)} == set(IDS[:30])
        assert {hit.id for hit in second.search(QUERIES[1], 50, 50, rerank=rerank)} == set(IDS[30:])
    assert [hit.id for hit in first.exact_search(QUERIES[1], 5)] == best(truth(QUERIES[1], DOCUMENTS[:30]), 5)
    assert WeaviateMuvera.open(client, name, tenant="b").count() == COUNT - 30
    assert WeaviateMuvera.open(client, name).with_tenant("a").search(QUERIES[1], 1)[0].id in IDS[:30]
    first.delete(IDS[:5])
    assert (first.count(), second.count()) == (25, COUNT - 30)


@pytest.mark.parametrize("quantization", ["rq8", None])
def test_width_of_stored_fdes_is_checked(client, name, quantization):
    store = WeaviateMuvera.create(client, name, ENCODER, quantization=quantization)
    assert store.search(QUERIES[0]) == []
    short = DataObject({}, foreign_id(1), {"fde": [1.0] * 7, "tokens": DOCUMENTS[0].tolist()})
    assert not client.collections.use(name).data.insert_many([short]).has_errors
    problem = f"'fde' has 7 dimensions, the encoder gives {ENCODER.dim}"
    for mode in ("native", "client", "none"):
        with pytest.raises(SchemaMismatch, match=problem):
            store.search(QUERIES[0], rerank=mode)
    with pytest.raises(SchemaMismatch, match=problem):
        WeaviateMuvera.open(client, name)


def test_width_of_stored_tokens_is_checked(client, name):
    vector = Configure.MultiVectors.self_provided(name="colbert")
    client.collections.create(name, vector_config=[vector])
    client.collections.use(name).data.insert({}, vector={"colbert": np.ones((2, DIM + 1)).tolist()})
    with pytest.raises(SchemaMismatch, match=f"{DIM + 1} dimensions"):
        WeaviateMuvera.adopt(client, name, ENCODER)
