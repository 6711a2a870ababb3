"""The gRPC way of writing, over a real channel to a stub on loopback: what arrives, and what errors become."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as messages

from muvera_adapters.errors import AccessDenied, WriteInterrupted
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantMuvera, Retry
from muvera_adapters.qdrant.client import Connection, wire_of
from muvera_adapters.qdrant.collection import GRPC, Collection
from muvera_adapters.testing import Blocking
from muvera_core import FDEConfig, FDEEncoder

# grpcio before 1.80 raises what the call has raised once more when the call is collected
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*InterceptedCall.__del__:pytest.PytestUnraisableExceptionWarning"
)

ENCODER = FDEEncoder(FDEConfig(dim=128, r_reps=4, k_sim=3, d_proj=8))
COUNT = 60
TOKENS = list(np.random.default_rng(3).normal(size=(COUNT, 1_000, 128)).astype(np.float16))  # 0.5 MB each
# attempts end it: on a busy machine one of them may take seconds
QUICK = Retry(attempts=3, first_pause=0.02)


class Collections(messages.CollectionsServicer):
    """Describes a collection with a sparse vector beside ours."""

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        def dense(size: int, multi: bool) -> Any:
            config = messages.MultiVectorConfig(comparator=messages.MultiVectorComparator.MaxSim) if multi else None
            return messages.VectorParams(size=size, distance=messages.Distance.Dot, multivector_config=config)

        vectors = {"fde": dense(ENCODER.dim, False), "tokens": dense(128, True)}
        params = messages.CollectionParams(
            shard_number=1,
            vectors_config=messages.VectorsConfig(params_map=messages.VectorParamsMap(map=vectors)),
            sparse_vectors_config=messages.SparseVectorConfig(map={"bm25": messages.SparseVectorParams()}),
        )
        config = messages.CollectionConfig(
            params=params,
            hnsw_config=messages.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
            optimizer_config=messages.OptimizersConfigDiff(
                deleted_threshold=0.2, vacuum_min_vector_number=1_000, default_segment_number=0, flush_interval_sec=5
            ),
            wal_config=messages.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
        )
        info = messages.CollectionInfo(status=messages.CollectionStatus.Green, segments_count=1, config=config)
        return messages.GetCollectionInfoResponse(result=info)


class Points(messages.PointsServicer):
    """Stores what is written, after the faults it was told to have."""

    def __init__(self) -> None:
        self.faults: deque[grpc.StatusCode] = deque()
        self.received: dict[int, Any] = {}
        self.sizes: list[int] = []
        self.waited: list[bool] = []
        self.changes: list[Any] = []
        self.settled = 0

    def DeletePayload(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.settled += request.wait
        result = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
        return messages.PointsOperationResponse(result=result)

    def Scroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        some = list(self.received.values())[: request.limit]
        return messages.ScrollResponse(result=[messages.RetrievedPoint(id=point.id) for point in some])

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = [self.received[each.num] for each in request.ids if each.num in self.received]
        return messages.GetResponse(result=[messages.RetrievedPoint(id=point.id) for point in found])

    def UpdateBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.sizes.append(request.ByteSize())
        if self.faults:
            context.abort(self.faults.popleft(), "on command")
        self.waited.append(request.wait)
        self.changes += request.operations
        for operation in request.operations:
            self.received.update((point.id.num, point) for point in operation.upsert.points)
        result = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
        return messages.UpdateBatchResponse(result=[result] * len(request.operations))

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.sizes.append(request.ByteSize())
        if self.faults:
            fault = self.faults.popleft()
            if fault == grpc.StatusCode.RESOURCE_EXHAUSTED:
                context.set_trailing_metadata((("retry-after", "1"),))
            context.abort(fault, "on command")
        self.waited.append(request.wait)
        self.received.update((point.id.num, point) for point in request.points)
        result = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
        return messages.PointsOperationResponse(result=result)


@pytest.fixture
def points() -> Points:
    return Points()


@pytest.fixture(params=["sync", "async"])
def store(request, points) -> Iterator[Any]:
    """A store on an existing collection, as ``open`` would give it: the stub describes none."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    messages.add_PointsServicer_to_server(points, server)
    messages.add_CollectionsServicer_to_server(Collections(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options: dict[str, Any] = {"grpc_port": port, "prefer_grpc": True, "check_compatibility": False, "timeout": 20}
    connection = Connection("c", "Qdrant 1.19", (1, 19), GRPC, None)
    collection = Collection("c", ENCODER, wire=GRPC)
    loop = asyncio.new_event_loop()
    if request.param == "sync":
        client = QdrantClient("127.0.0.1", **options)
        assert wire_of(client) is GRPC
        yield QdrantMuvera(client, connection, collection, QUICK, QUICK)
        client.close()
    else:

        async def connect() -> AsyncQdrantClient:
            return AsyncQdrantClient("127.0.0.1", **options)

        async_client = loop.run_until_complete(connect())
        yield Blocking(AsyncQdrantMuvera(async_client, connection, collection, QUICK, QUICK), loop)
        loop.run_until_complete(async_client.close())
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    server.stop(None).wait()


def test_every_number_arrives_as_it_was(store, points):
    payloads = [{"n": i, "nested": {"list": [1, "two", None]}} for i in range(COUNT)]
    assert store.upsert(range(COUNT), TOKENS, payloads).written == COUNT
    fdes = ENCODER.encode_documents(TOKENS)
    for i in range(COUNT):
        vectors = points.received[i].vectors.vectors.vectors
        assert np.array_equal(np.array(vectors["fde"].dense.data, np.float32), fdes[i])
        rows = [row.data for row in vectors["tokens"].multi_dense.vectors]
        assert np.array_equal(np.array(rows, np.float32), TOKENS[i].astype(np.float32))
        assert points.received[i].payload["n"].integer_value == i


def test_batches_stay_below_the_target_and_the_end_waits_for_all_shards(store, points):
    store.upsert(range(COUNT), TOKENS)
    assert max(points.sizes) <= 8 << 20
    assert len(points.sizes) <= 5
    assert points.waited == [False] * (len(points.sizes) - 1) + [True]
    assert points.settled == 1
    store.upsert([1], TOKENS[:1])  # one batch is waited for anyway
    assert points.settled == 1


@pytest.mark.parametrize(
    "fault",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED],
    ids=lambda code: code.name,
)
def test_passing_faults_are_survived(store, points, fault):
    points.faults.extend([fault, fault])
    assert store.upsert(range(COUNT), TOKENS).written == COUNT
    assert sorted(points.received) == list(range(COUNT))


def test_a_lasting_fault_is_reported_with_the_clients_own_error(store, points):
    points.faults.extend([grpc.StatusCode.UNAVAILABLE] * 3)
    with pytest.raises(WriteInterrupted) as caught:
        store.upsert(range(COUNT), TOKENS)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(caught.value.report.failed) == COUNT
    assert store.upsert(range(COUNT), TOKENS).written == COUNT


def test_a_refusal_is_not_repeated(store, points):
    points.faults.append(grpc.StatusCode.INVALID_ARGUMENT)
    report = store.upsert([1], TOKENS[:1])
    assert list(report.failed) == [1]
    assert "on command" in report.failed[1]
    assert len(points.sizes) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED])
def test_wrong_credentials_are_told_at_once(store, points, code):
    points.faults.append(code)
    with pytest.raises(AccessDenied, match="API key") as caught:
        store.upsert([1], TOKENS[:1])
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(points.sizes) == 1


def test_documents_that_are_there_are_merged_in_one_request(store, points):
    store.upsert(range(3), TOKENS[:3], [{"a": i} for i in range(3)])
    dense = models.SparseVector(indices=[4], values=[0.5])
    changes = _changes(store, points, [1, 7, 2], [{"b": 1}, {"b": 7}, None], {"bm25": [None, dense, dense]})
    assert [change.WhichOneof("operation") for change in changes] == ["upsert", "update_vectors", "set_payload"]
    new, vectors, payload = changes
    assert [point.id.num for point in new.upsert.points] == [7]
    assert [point.id.num for point in vectors.update_vectors.points] == [1, 2]
    assert [sorted(point.vectors.vectors.vectors) for point in vectors.update_vectors.points] == [
        ["fde", "tokens"],
        ["bm25", "fde", "tokens"],
    ]
    sent = vectors.update_vectors.points[1].vectors.vectors.vectors
    assert np.array_equal(np.array(sent["fde"].dense.data, np.float32), ENCODER.encode_document(TOKENS[2]))
    assert list(sent["bm25"].sparse.indices) == [4]
    assert [point.num for point in payload.set_payload.points_selector.points.ids] == [1]
    assert payload.set_payload.payload["b"].integer_value == 1


def test_a_replaced_document_keeps_no_payload_and_no_vector_of_others(store, points):
    """gRPC does not tell an empty payload from none, with which an indexed segment keeps the old one."""
    store.upsert(range(3), TOKENS[:3], [{"a": i} for i in range(3)])
    changes = _changes(store, points, [1, 7], [None, None], {"bm25": [None, None]}, replace=True)
    assert [change.WhichOneof("operation") for change in changes] == ["delete_vectors", "clear_payload", "upsert"]
    dropped, cleared, written = changes
    assert list(dropped.delete_vectors.vectors.names) == ["bm25"]
    assert [point.num for point in dropped.delete_vectors.points_selector.points.ids] == [1]
    assert [point.num for point in cleared.clear_payload.points.points.ids] == [1]
    assert [point.id.num for point in written.upsert.points] == [1, 7]


def _changes(store: Any, points: Points, ids: Any, payloads: Any, vectors: Any, **options: Any) -> list[Any]:
    points.changes.clear()
    batches = len(points.sizes)
    assert store.upsert(ids, TOKENS[: len(ids)], payloads, vectors=vectors, **options).failed == {}
    assert len(points.sizes) == batches + 1
    return points.changes


@pytest.mark.parametrize("value", ["a \ud83d b", 2**63])
def test_a_payload_that_grpc_cannot_carry_fails_its_document_alone(store, points, value):
    report = store.upsert([0, 1, 2], TOKENS[:3], [{"text": "fine"}, {"text": value}, {"text": "fine"}])
    assert (report.written, list(report.failed)) == (2, [1])
    assert "key 'text'" in report.failed[1]
    assert sorted(points.received) == [0, 2]


def test_what_the_client_cannot_convert_fails_alone(store, points):
    bad = models.SparseVector(indices=[2**40], values=[1.0])
    good = models.SparseVector(indices=[1], values=[1.0])
    report = store.upsert([0, 1, 2], TOKENS[:3], vectors={"bm25": [good, bad, good]})
    assert (report.written, list(report.failed)) == (2, [1])
    assert sorted(points.received) == [0, 2]
