"""What the Weaviate stores ask for, without a server."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weaviate import WeaviateAsyncClient, WeaviateClient
from weaviate import exceptions as w
from weaviate.classes.config import Configure, DataType
from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import _FilterAnd, _FilterOr

from muvera_adapters.databases import Database, parse_target, with_store_options
from muvera_adapters.errors import (
    AccessDenied,
    CollectionNotFound,
    InvalidInput,
    Rejected,
    StoreUnavailable,
    WrongUsage,
)
from muvera_adapters.migration.journal import default_path
from muvera_adapters.stores.checks import prepare
from muvera_adapters.stores.operations import Compute, Retry, Together, run
from muvera_adapters.stores.searching import SearchOptions
from muvera_adapters.weaviate import AsyncWeaviateMuvera, WeaviateMuvera
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.client import Connection
from muvera_adapters.weaviate.collection import Collection, Seen
from muvera_adapters.weaviate.errors import refused_write, translate
from muvera_adapters.weaviate.ids import FDE_KEY, ID_KEY, from_uuid, to_uuid
from muvera_adapters.weaviate.prepare import intake, to_writes
from muvera_adapters.weaviate.properties import Kind
from muvera_adapters.weaviate.schema import creation, fde_vector, token_vector
from muvera_adapters.weaviate.searching import search
from muvera_adapters.weaviate.writing import delete, has_conditions, upsert
from muvera_core import FDEConfig, FDEEncoder

ENCODER = FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4))
QUERY = np.eye(8, dtype=np.float32)[:2]
COLLECTION = Collection("c", ENCODER, seen=Seen(fde_width=True))

IDS = list(range(4))

ids = st.one_of(st.integers(0, 2**64 - 1), st.text(), st.uuids())


class TestIds:
    @given(ids)
    def test_every_id_comes_back(self, document_id):
        text, kept = to_uuid(document_id, 0)
        assert str(uuid.UUID(text)) == text
        found = from_uuid(text, {} if kept is None else {ID_KEY: kept})
        assert (type(found), found) == (type(document_id), document_id)

    @given(ids, ids)
    def test_different_ids_are_different_objects(self, a, b):
        same = str(a) == str(b) and uuid.UUID in (type(a), type(b))  # a UUID and its text name one object
        if (type(a), a) != (type(b), b) and not same:
            assert to_uuid(a, 0)[0] != to_uuid(b, 0)[0]

    def test_what_someone_else_wrote_there_is_no_id(self):
        text = str(uuid.UUID(int=3))
        assert from_uuid(text, {ID_KEY: "{broken"}) == text
        assert from_uuid(text, {ID_KEY: "[1]"}) == text


class TestSchema:
    @pytest.mark.parametrize(
        ("quantization", "expected"),
        [
            ("auto", {"rq": {"enabled": True, "bits": 8, "rescoreLimit": 0}}),
            ("rq4", {"rq": {"enabled": True, "bits": 4, "rescoreLimit": 0}}),
            ("rq1", {"rq": {"enabled": True, "bits": 1, "rescoreLimit": 512}}),
            (None, {"skipDefaultQuantization": True}),
        ],
    )
    def test_the_quantizer_is_always_explicit(self, quantization, expected):
        for index in (None, Configure.VectorIndex.flat(), Configure.VectorIndex.hnsw(ef=64)):
            sent = fde_vector("fde", quantization, index)._to_dict()["vectorIndexConfig"]
            assert sent["distance"] == "dot"
            assert {key: sent[key] for key in expected} == expected

    def test_the_users_quantizer_wins(self):
        index = Configure.VectorIndex.hnsw(quantizer=Configure.VectorIndex.Quantizer.bq())
        sent = fde_vector("fde", "rq8", index)._to_dict()["vectorIndexConfig"]
        assert "bq" in sent
        assert "rq" not in sent

    def test_tokens_get_the_smallest_index_or_none(self):
        sent = token_vector("tokens", "rerank")._to_dict()["vectorIndexConfig"]
        muvera = sent["multivector"]["muvera"]
        assert (muvera["ksim"], muvera["dprojections"], muvera["repetitions"]) == (1, 1, 1)
        assert token_vector("tokens", "none")._to_dict()["vectorIndexConfig"]["skip"] is True

    def test_the_state_is_json_in_one_description(self):
        made = creation(ENCODER, "rq8", True, None, "rerank", (), {}, None)["properties"]
        (own,) = [p for p in made if p.name == ID_KEY]
        assert json.loads(own.description)["encoder"]["fingerprint"] == ENCODER.fingerprint


class TestWrites:
    def test_one_token_stays_a_matrix(self):
        prepared = prepare(COLLECTION, [1], [QUERY[:1]], None, intake(COLLECTION))
        call = r.insert(to_writes(COLLECTION, prepared, 0, 1, np.ones((1, ENCODER.dim), np.float32)))
        name, (objects,), _ = asked(call)
        assert name == "data.insert_many"
        assert objects[0].vector["tokens"] == QUERY[:1].tolist()

    def test_sizes_are_those_of_the_messages(self):
        from weaviate.collections.batch.grpc_batch import _BatchGRPC
        from weaviate.collections.classes.batch import _BatchObject
        from weaviate.util import _ServerVersion

        tokens = [np.ones((n, 8), np.float32) for n in (1, 50, 700)]
        prepared = prepare(COLLECTION, ["a", 2, "c"], tokens, [{"text": "x" * 900}, {}, {"n": 1}], intake(COLLECTION))
        writes = to_writes(COLLECTION, prepared, 0, 3, np.ones((3, ENCODER.dim), np.float32))
        for write, size in zip(writes, prepared.sizes, strict=True):
            vectors = r._lists(write.vectors)
            made = _BatchObject("Passages", vectors, write.id, write.properties, None, None, 0)
            sender = _BatchGRPC(_ServerVersion(1, 39, 0), None, 10**8)
            (message,) = sender.grpc_objects([made])
            assert message.ByteSize() <= size < message.ByteSize() + 400

    def test_rejected_requests_are_halved_and_rejected_objects_are_not(self):
        inserted = []

        def send(call):
            name, given, _ = asked(call)
            if name != "data.insert_many":
                return {"aggregate.over_all": 9, "query.fetch_objects": []}[name]
            (objects,) = given
            inserted.append(len(objects))
            if 2 in [o.properties["n"] for o in objects]:
                raise Rejected("message too large")
            return {k: "n is odd" for k, o in enumerate(objects) if o.properties["n"] % 2}

        collection = replace(COLLECTION, seen=Seen(kinds={"n": Kind(DataType.INT)}))
        report = run(upsert(collection, IDS, [QUERY] * 4, [{"n": i} for i in range(4)], False), send, Retry(1))
        assert inserted == [4, 2, 2, 1, 1]
        assert (report.written, sorted(report.failed)) == (1, [1, 2, 3])
        assert report.failed[2] == "message too large"
        assert "n is odd" in report.failed[3]

    def test_a_rejected_lookup_is_no_fault_of_a_document(self):
        requests = []

        def send(call):
            requests.append(call)
            raise Rejected("tenant not found")

        with pytest.raises(Rejected, match="tenant"):
            run(upsert(COLLECTION, IDS, [QUERY] * 4, None, False), send, Retry(1))
        assert len(requests) == 1

    def answers(self, replies):
        """A sender that replies by the name of the client's method, and the names it was asked for."""
        names = []

        def send(call):
            name, given, _ = asked(call)
            names.append(name)
            reply = replies[name]
            return reply(*given) if callable(reply) else reply

        return send, names

    @pytest.mark.parametrize(("there", "replaces"), [(0, False), (9, True)])
    def test_nothing_is_looked_up_where_nothing_is_merged(self, there, replaces):
        send, names = self.answers({"aggregate.over_all": there, "data.insert_many": {}})
        run(upsert(COLLECTION, IDS, [QUERY] * 4, None, False, replace=replaces), send, Retry(1))
        assert names == (["data.insert_many"] if replaces else ["aggregate.over_all", "data.insert_many"])

    def test_an_object_with_more_than_the_write_is_patched(self):
        rows = [r.Row(to_uuid(i, i)[0], {"n": i, "other": 1} if i == 2 else {"n": i}, {}) for i in IDS]
        patched, inserted = [], []
        send, _ = self.answers(
            {
                "aggregate.over_all": 4,
                "query.fetch_objects": rows,
                "data.insert_many": lambda objects: inserted.extend(o.uuid for o in objects) or {},
                "data.update": lambda key, properties: patched.append((key, properties["n"])),
            }
        )
        collection = replace(COLLECTION, seen=Seen(kinds={"n": Kind(DataType.INT)}))
        run(upsert(collection, IDS, [QUERY] * 4, [{"n": i + 10} for i in IDS], False), send, Retry(1))
        assert patched == [(rows[2].id, 12)]
        assert [str(i) for i in inserted] == [rows[i].id for i in (0, 1, 3)]

    def test_properties_are_declared_before_the_first_write(self):
        added = []
        send, names = self.answers(
            {
                "config.get": SimpleNamespace(properties=[]),
                "config.add_property": lambda own: added.append((own.name, own.dataType)),
                "aggregate.over_all": 0,
                "data.insert_many": {},
            }
        )
        collection = replace(COLLECTION, seen=Seen())
        payloads = [{"seen": "2024-01-02T00:00:00Z"}, {"page": 7}, {}, {"page": None}]
        run(upsert(collection, IDS, [QUERY] * 4, payloads, False), send, Retry(1))
        run(upsert(collection, IDS, [QUERY] * 4, payloads, False), send, Retry(1))
        assert added == [("seen", DataType.TEXT), ("page", DataType.INT), ("muvera_json", DataType.TEXT)]
        assert names[-3:] == ["data.insert_many", "aggregate.over_all", "data.insert_many"]

    def test_another_writer_may_declare_a_property_first(self):
        text = SimpleNamespace(name="seen", data_type=DataType.TEXT, nested_properties=None, tokenization=None)
        configs = iter([SimpleNamespace(properties=[]), SimpleNamespace(properties=[text])])

        def refuse(own):
            raise InvalidInput("already exists")

        send, _ = self.answers(
            {
                "config.get": lambda: next(configs),
                "config.add_property": refuse,
                "aggregate.over_all": 0,
                "data.insert_many": {},
            }
        )
        collection = replace(COLLECTION, seen=Seen())
        report = run(upsert(collection, IDS, [QUERY] * 4, [{"seen": "x"}] * 4, False), send, Retry(1))
        assert report.written == 4


class TestDeletes:
    def test_a_filter_without_conditions_is_everything(self):
        one = Filter.by_property("n").equal(1)
        assert has_conditions(one)
        assert has_conditions(one & one)
        assert not has_conditions(_FilterAnd([]))
        assert not has_conditions(_FilterAnd([_FilterOr([])]))
        for operation in (delete(COLLECTION, None, _FilterAnd([]), False), delete(COLLECTION, None, None, False)):
            with pytest.raises(InvalidInput, match="everything=True"):
                run(operation, None, Retry(1))


class TestLogs:
    def test_vectors_of_our_objects_are_left_out(self, caplog):
        logger = logging.getLogger("weaviate-client")
        ours, theirs = (
            SimpleNamespace(
                message="refused", object_=SimpleNamespace(uuid="u", properties=properties, vector={"v": [0.125] * 9})
            )
            for properties in ({FDE_KEY: "fde"}, {})
        )
        logger.error({"message": "Failed to send 1 objects", "errors": {0: ours}})
        assert "0.125" not in caplog.text
        assert "Failed to send 1 objects" in caplog.text
        assert "u: refused" in caplog.text
        logger.error({"message": "Failed to send 1 objects", "errors": {0: theirs}})
        assert "0.125" in caplog.text, "what others write is logged as the client does it"


class TestClients:
    def test_another_kind_of_client_is_refused(self):
        sync, asynchronous = (object.__new__(kind) for kind in (WeaviateClient, WeaviateAsyncClient))
        for call, problem in [
            (lambda: WeaviateMuvera.open(asynchronous, "C"), "use AsyncWeaviateMuvera"),
            (lambda: asyncio.run(AsyncWeaviateMuvera.open(sync, "C")), "use WeaviateMuvera"),
            (lambda: WeaviateMuvera.create("http://localhost:8080", "C", ENCODER), "WeaviateClient"),
            (lambda: WeaviateMuvera.adopt(sync, "C", ENCODER.config), r"FDEEncoder\(config\)"),
        ]:
            with pytest.raises(InvalidInput, match=problem):
                call()


class TestTargets:
    @pytest.mark.parametrize("url", ["http://localhost:8080/behind/a/path", "http://localhost/x?grpc_port=1"])
    def test_a_path_is_refused(self, url):
        with pytest.raises(WrongUsage, match="takes no path"):
            Database(f"weaviate:{url}")

    def test_addresses_of_ipv6_are_reached(self):
        with pytest.raises(StoreUnavailable, match=r"http://\[::1\]:9") as caught:
            Database("weaviate:http://[::1]:9?grpc_port=10").open("C")
        assert "nvalid port" not in str(caught.value)

    def test_a_tenant_is_given_to_the_store(self):
        text = with_store_options("weaviate:http://localhost:8080?grpc_port=1", tenant="a b&c")
        target = parse_target(text)
        assert target.store_options == {"tenant": "a b&c"}
        assert target.location == "http://localhost:8080"
        assert default_path(target, "C") != default_path(parse_target("weaviate:http://localhost:8080"), "C")

    @pytest.mark.parametrize("text", ["milvus:http://localhost:19530", "index"])
    def test_others_have_no_tenants(self, text):
        assert with_store_options(text, tenant=None) == text
        with pytest.raises(WrongUsage, match="--tenant applies to weaviate"):
            with_store_options(text, tenant="one")


class TestSearches:
    def test_the_second_stage_scores_every_candidate_and_only_those(self):
        (one,) = operations(search(COLLECTION, [QUERY], SearchOptions(limit=2, prefetch=7, filter=None)))
        _, _, first = asked(one.send(None))
        assert (first["target_vector"], first["limit"]) == ("fde", 7)
        rows = [r.Row(str(uuid.UUID(int=i)), {}, {}, -float(i)) for i in (3, 2, 1)]
        _, _, second = asked(one.send(rows))
        assert (second["target_vector"], second["limit"]) == ("tokens", 3)
        assert second["filters"].value == [row.id for row in rows]
        _, _, lost = asked(one.send([r.Row(rows[2].id, {}, {}, -9.0), r.Row(rows[0].id, {}, {}, -8.0)]))
        assert lost["filters"].value == [rows[1].id], "a candidate without tokens is not forgotten"
        with pytest.raises(StopIteration) as done:
            one.send([rows[1]])
        hits = done.value.value
        assert [hit.score for hit in hits] == [9.0, 8.0]
        assert [hit.id for hit in hits.unscored] == [rows[1].id]

    def test_no_candidates_no_second_request(self):
        (one,) = operations(search(COLLECTION, [QUERY], SearchOptions()))
        one.send(None)
        with pytest.raises(StopIteration) as done:
            one.send([])
        assert done.value.value == []

    def test_a_batch_is_bounded(self):
        operation = search(COLLECTION, [QUERY] * 9, SearchOptions(), at_once=3)
        together = operation.send(operation.send(None).call())
        assert (len(together.operations), together.at_once) == (9, 3)
        for one in together.operations:
            one.close()
        with pytest.raises(InvalidInput):
            search(COLLECTION, [QUERY], SearchOptions(), at_once=0).send(None)


def asked(call):
    """Dotted name, positional and keyword arguments of the client's method that a request calls."""
    client = MagicMock()
    call.send(client)
    return client.mock_calls[0]


def operations(operation):
    """Of the searches that go on together, once queries are encoded."""
    request = operation.send(None)
    assert isinstance(request, Compute)
    together = operation.send(request.call())
    assert isinstance(together, Together)
    return together.operations


class Failed(grpc.RpcError):
    def __init__(self, code):
        self._code = code

    def code(self):
        return self._code


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "kind", "transient"),
        [
            (grpc.StatusCode.UNAVAILABLE, StoreUnavailable, True),
            (grpc.StatusCode.DEADLINE_EXCEEDED, StoreUnavailable, True),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, Rejected, None),
            (grpc.StatusCode.UNKNOWN, Rejected, None),
            (grpc.StatusCode.PERMISSION_DENIED, AccessDenied, None),
            (grpc.StatusCode.UNAUTHENTICATED, AccessDenied, None),
        ],
    )
    def test_the_status_is_found_where_the_client_leaves_it(self, code, kind, transient):
        with pytest.raises(w.WeaviateQueryError) as caught:
            _raise_from(code)
        error = translate(caught.value, "c")
        assert type(error) is kind
        assert getattr(error, "transient", None) is transient

    @pytest.mark.parametrize("status", [401, 403])
    def test_rejected_credentials(self, status):
        reply = httpx.Response(status, json={"error": [{"message": "forbidden"}]})
        assert type(translate(w.UnexpectedStatusCodeError("Object", reply), "c")) is AccessDenied
        assert type(translate(w.InsufficientPermissionsError(reply), "c")) is AccessDenied

    def test_the_server_is_named(self):
        error = translate(w.WeaviateConnectionError("refused"), "c", "http://localhost:8080 (gRPC localhost:50051)")
        assert "http://localhost:8080 (gRPC localhost:50051)" in str(error)

    def test_a_server_that_takes_no_writes_is_no_fault_of_a_document(self):
        assert isinstance(refused_write("store is read-only due to: disk usage too high", "c"), StoreUnavailable)
        assert isinstance(refused_write("vector lengths don't match", "c"), Rejected)


class Starting:
    """A client of a server that answers gRPC and does not know its collections yet, ``times`` times."""

    def __init__(self, asynchronous, times, exists=True):
        self.times, self.asynchronous = times, asynchronous
        count = SimpleNamespace(over_all=self._answer(self._count))
        self.collections = SimpleNamespace(
            use=lambda name: SimpleNamespace(aggregate=count), exists=self._answer(lambda name: exists)
        )

    def _count(self, **arguments):
        self.times -= 1
        if self.times >= 0:
            raise w.WeaviateQueryError("could not find class C in schema", "GRPC search")
        return SimpleNamespace(total_count=7)

    def _answer(self, method):
        async def later(*args, **kwargs):
            return method(*args, **kwargs)

        return later if self.asynchronous else method

    def store(self, attempts):
        kind = AsyncWeaviateMuvera if self.asynchronous else WeaviateMuvera
        retry = Retry(attempts=attempts, first_pause=0)
        return kind(self, Connection("C"), Collection("C", ENCODER), retry, retry)

    def count(self, attempts):
        found = self.store(attempts).count()
        return asyncio.run(found) if self.asynchronous else found


@pytest.mark.parametrize("asynchronous", [False, True])
class TestAStartingServer:
    def test_is_asked_again(self, asynchronous):
        assert Starting(asynchronous, 2).count(attempts=3) == 7

    def test_is_unavailable(self, asynchronous):
        with pytest.raises(StoreUnavailable, match="starting") as caught:
            Starting(asynchronous, 3).count(attempts=3)
        assert isinstance(caught.value.__cause__, w.WeaviateQueryError)

    def test_is_believed_when_the_schema_says_so_too(self, asynchronous):
        with pytest.raises(CollectionNotFound):
            Starting(asynchronous, 1, exists=False).count(attempts=3)


def _raise_from(code):
    try:
        raise Failed(code)
    except grpc.RpcError:
        raise w.WeaviateQueryError("text", "GRPC search")  # noqa: B904  as the client does
