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
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client import grpc as messages

from muvera_adapters.errors import MuveraError, StoreUnavailable, WriteInterrupted
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
QUICK = Retry(attempts=3, first_pause=0.02, max_wait=3.0)


class Points(messages.PointsServicer):
    """Stores what is written, after the faults it was told to have."""

    def __init__(self) -> None:
        self.faults: deque[grpc.StatusCode] = deque()
        self.received: dict[int, Any] = {}
        self.sizes: list[int] = []
        self.waited: list[bool] = []

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
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options: dict[str, Any] = {"grpc_port": port, "prefer_grpc": True, "check_compatibility": False, "timeout": 20}
    connection = Connection("c", "Qdrant 1.19", (1, 19), GRPC, None)
    collection = Collection("c", ENCODER, wire=GRPC)
    loop = asyncio.new_event_loop()
    if request.param == "sync":
        client = QdrantClient("127.0.0.1", **options)
        assert wire_of(client) is GRPC
        yield QdrantMuvera(client, connection, collection, QUICK)
        client.close()
    else:

        async def connect() -> AsyncQdrantClient:
            return AsyncQdrantClient("127.0.0.1", **options)

        async_client = loop.run_until_complete(connect())
        yield Blocking(AsyncQdrantMuvera(async_client, connection, collection, QUICK), loop)
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


def test_batches_stay_below_the_target_and_only_the_last_waits(store, points):
    store.upsert(range(COUNT), TOKENS)
    assert max(points.sizes) <= 8 << 20
    assert len(points.sizes) <= 5
    assert points.waited == [False] * (len(points.sizes) - 1) + [True]


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
    points.faults.append(grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(MuveraError, match="403") as caught:
        store.upsert([1], TOKENS[:1])
    assert not isinstance(caught.value, StoreUnavailable)
    assert len(points.sizes) == 2
