"""What the Weaviate stores ask for, without a server."""

from __future__ import annotations

import asyncio
import json
import uuid
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weaviate import exceptions as w
from weaviate.classes.config import Configure

from muvera_adapters.errors import CollectionNotFound, InvalidInput, MuveraError, Rejected, StoreUnavailable
from muvera_adapters.stores.operations import Compute, Retry, Together
from muvera_adapters.weaviate import AsyncWeaviateMuvera, WeaviateMuvera
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.calls import Target
from muvera_adapters.weaviate.client_errors import refused_write, translate
from muvera_adapters.weaviate.documents import prepare, to_writes
from muvera_adapters.weaviate.identity import ID_KEY, from_uuid, to_uuid
from muvera_adapters.weaviate.schema import creation, fde_vector, token_vector
from muvera_adapters.weaviate.searching import Options, search
from muvera_core import FDEConfig, FDEEncoder

ENCODER = FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4))
QUERY = np.eye(8, dtype=np.float32)[:2]

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
            ("rq8", {"rq": {"enabled": True, "bits": 8, "rescoreLimit": 0}}),
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
        made = creation(ENCODER, "rq8", True, None, "rerank", (), {})["properties"]
        (own,) = [p for p in made if p.name == ID_KEY]
        assert json.loads(own.description)["encoder"]["fingerprint"] == ENCODER.fingerprint


class TestWrites:
    def test_one_token_stays_a_matrix(self):
        collection = r.Collection("c", ENCODER)
        documents = prepare(collection, [1], [QUERY[:1]], None)
        (call,) = [r.insert(to_writes(collection, documents, 0, 1, np.ones((1, ENCODER.dim), np.float32)))]
        assert call.arguments["objects"][0].vector["tokens"] == QUERY[:1].tolist()

    def test_sizes_are_those_of_the_messages(self):
        from weaviate.collections.batch.grpc_batch import _BatchGRPC
        from weaviate.collections.classes.batch import _BatchObject
        from weaviate.util import _ServerVersion

        collection = r.Collection("c", ENCODER)
        tokens = [np.ones((n, 8), np.float32) for n in (1, 50, 700)]
        documents = prepare(collection, ["a", 2, "c"], tokens, [{"text": "x" * 900}, {}, {"n": 1}])
        writes = to_writes(collection, documents, 0, 3, np.ones((3, ENCODER.dim), np.float32))
        for write, size in zip(writes, documents.sizes, strict=True):
            vectors = r._lists(write.vectors)
            made = _BatchObject("Passages", vectors, write.id, write.properties, None, None, 0)
            sender = _BatchGRPC(_ServerVersion(1, 39, 0), None, 10**8)
            (message,) = sender.grpc_objects([made])
            assert message.ByteSize() <= size < message.ByteSize() + 400


class TestSearches:
    def test_the_second_stage_scores_every_candidate_and_only_those(self):
        collection = r.Collection("c", ENCODER, width_seen=True)
        (one,) = operations(search(collection, [QUERY], Options(limit=2, prefetch=7, filter=None)))
        first = one.send(None)
        assert (first.arguments["target_vector"], first.arguments["limit"]) == ("fde", 7)
        rows = [r.Row(str(uuid.UUID(int=i)), {}, {}, -float(i)) for i in (3, 2, 1)]
        second = one.send(rows)
        assert (second.arguments["target_vector"], second.arguments["limit"]) == ("tokens", 3)
        assert second.arguments["filters"].value == [row.id for row in rows]
        lost = one.send([r.Row(rows[2].id, {}, {}, -9.0), r.Row(rows[0].id, {}, {}, -8.0)])
        assert lost.arguments["filters"].value == [rows[1].id], "a candidate without tokens is not forgotten"
        with pytest.raises(StopIteration) as done:
            one.send([rows[1]])
        hits = done.value.value
        assert [hit.score for hit in hits] == [9.0, 8.0]
        assert [hit.id for hit in hits.unscored] == [rows[1].id]

    def test_no_candidates_no_second_request(self):
        (one,) = operations(search(r.Collection("c", ENCODER, width_seen=True), [QUERY], Options()))
        one.send(None)
        with pytest.raises(StopIteration) as done:
            one.send([])
        assert done.value.value == []

    def test_a_batch_is_bounded(self):
        operation = search(r.Collection("c", ENCODER, width_seen=True), [QUERY] * 9, Options(), at_once=3)
        together = operation.send(operation.send(None).call())
        assert (len(together.operations), together.at_once) == (9, 3)
        for one in together.operations:
            one.close()
        with pytest.raises(InvalidInput):
            search(r.Collection("c", ENCODER, width_seen=True), [QUERY], Options(), at_once=0).send(None)


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
            (grpc.StatusCode.PERMISSION_DENIED, MuveraError, None),
        ],
    )
    def test_the_status_is_found_where_the_client_leaves_it(self, code, kind, transient):
        with pytest.raises(w.WeaviateQueryError) as caught:
            _raise_from(code)
        error = translate(caught.value, "c")
        assert type(error) is kind
        assert getattr(error, "transient", None) is transient

    def test_a_batch_that_the_client_gave_up_may_be_repeated(self):
        assert translate(w.WeaviateRetryError("gone", 3), "c").transient

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
        return kind(self, Target("C"), r.Collection("C", ENCODER), Retry(attempts=attempts, first_pause=0))

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
