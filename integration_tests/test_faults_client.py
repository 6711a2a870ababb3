"""Bulk loads into a server that fails: after a rerun every document is there once, and no report said otherwise."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    InvalidInput,
    MuveraError,
    StoreUnavailable,
    Unsupported,
    WriteInterrupted,
)
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantMuvera, Retry
from muvera_adapters.testing import Blocking
from muvera_core import FDEConfig, FDEEncoder
from servers.qdrant_stub import StubServer

ENCODER = FDEEncoder(FDEConfig(dim=128, r_reps=4, k_sim=3, d_proj=8))
COUNT = 60
IDS = list(range(COUNT))
# 1 MB of JSON each: eight in a batch
TOKENS = list(np.random.default_rng(3).normal(size=(COUNT, 390, 128)).astype(np.float16))
QUICK = Retry(attempts=4, first_pause=0.02, max_wait=3.0)


@pytest.fixture
def server() -> Iterator[StubServer]:
    stub = StubServer()
    stub.start()
    yield stub
    stub.stop()


@pytest.fixture(params=["sync", "async"])
def connect(request, server):
    """Makes or opens the collection over a new client, which waits ``timeout`` seconds for an answer."""
    loop = asyncio.new_event_loop()
    clients: list[QdrantClient] = []
    async_clients: list[AsyncQdrantClient] = []

    def make(method: str = "create", retry: Retry = QUICK, timeout: int = 20, write_retry: Retry | None = None):
        arguments = ("c", ENCODER)
        options = {"timeout": timeout, "retry": retry, "write_retry": write_retry or retry}
        if request.param == "sync":
            clients.append(QdrantClient(server.url, check_compatibility=False))
            return getattr(QdrantMuvera, method)(clients[-1], *arguments, **options)
        async_clients.append(AsyncQdrantClient(server.url, check_compatibility=False))
        made = getattr(AsyncQdrantMuvera, method)(async_clients[-1], *arguments, **options)
        return Blocking(loop.run_until_complete(made), loop)

    yield make
    for client in clients:
        client.close()
    for async_client in async_clients:
        loop.run_until_complete(async_client.close())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def check_complete(server: StubServer) -> None:
    assert sorted(server.points) == IDS


@pytest.mark.parametrize("fault", ["500", "502", "503", "504", "408", "429", "429:1", "drop", "lost", "slow"])
def test_a_passing_fault_is_survived(server, connect, fault):
    store = connect(timeout=3 if fault == "slow" else 20)
    server.delay = 5.0
    server.faults.extend(["ok", fault, "ok", "ok", fault, "ok"])
    report = store.upsert(IDS, TOKENS)
    assert (report.written, report.failed) == (COUNT, {})
    check_complete(server)
    assert len(server.writes) == len({tuple(ids) for ids in server.writes}) + 2, "each fault is followed by one repeat"
    assert store.count() == COUNT


def test_a_creation_whose_reply_is_lost_is_no_conflict(server, connect):
    server.lose_creation = True
    assert connect().upsert(IDS[:2], TOKENS[:2]).written == 2
    with pytest.raises(CollectionExists):
        connect()


def test_requests_stay_near_eight_megabytes(server, connect):
    connect().upsert(IDS, TOKENS)
    assert server.largest < 9 << 20
    assert len(server.writes) < COUNT / 4
    check_complete(server)


def test_what_the_server_asks_to_wait_is_waited(server, connect):
    store = connect()
    server.faults.append("429:1")
    store.upsert(IDS[:2], TOKENS[:2])
    assert server.arrivals[1] - server.arrivals[0] >= 1.0


@pytest.mark.parametrize("fault", ["429:3600", "429:2"])
def test_waiting_for_an_overloaded_server_is_bounded(server, connect, fault):
    store = connect()
    server.always = fault
    started = time.monotonic()
    with pytest.raises(WriteInterrupted) as caught:
        store.upsert(IDS, TOKENS)
    assert time.monotonic() - started < 6
    assert caught.value.report.written == 0
    assert sorted(caught.value.report.failed) == IDS


@pytest.mark.parametrize("fault", ["503", "drop", "lost", "507"])
def test_a_lasting_fault_is_reported_for_every_document_and_a_rerun_completes(server, connect, fault):
    store = connect()
    server.faults.extend(["ok", "ok"])
    server.always = fault
    with pytest.raises(WriteInterrupted) as caught:
        store.upsert(IDS, TOKENS)
    report = caught.value.report
    assert report.written == sum(len(ids) for ids in server.writes[:2])
    assert report.written + len(report.failed) == COUNT
    assert all(i in server.points for i in IDS if i not in report.failed), "reported as written means stored"
    assert not isinstance(caught.value.__cause__, MuveraError), "the client's own error is kept"

    server.always = "ok"
    again = connect("open").upsert(IDS, TOKENS)
    assert (again.written, again.failed) == (COUNT, {})
    check_complete(server)


def test_a_full_storage_and_a_forbidden_write_are_not_repeated(server, connect):
    store = connect()
    server.always = "507"
    with pytest.raises(WriteInterrupted, match="storage is full"):
        store.upsert(IDS[:1], TOKENS[:1])
    server.always = "403"
    with pytest.raises(MuveraError, match="403"):
        store.upsert(IDS[:1], TOKENS[:1])
    assert len(server.writes) == 2


def test_a_refused_document_does_not_take_others_with_it(server, connect):
    store = connect()
    server.poison = {5, 41}
    report = store.upsert(IDS, TOKENS)
    assert sorted(report.failed) == [5, 41]
    assert "point 5 is refused" in report.failed[5]
    assert report.written == COUNT - 2
    assert sorted(server.points) == [i for i in IDS if i not in (5, 41)]


def test_a_refusal_and_then_an_outage_add_up(server, connect):
    store = connect()
    server.poison = {2}
    server.on_write = lambda: setattr(server, "always", "503") if len(server.writes) == 9 else None
    with pytest.raises(WriteInterrupted) as caught:
        store.upsert(IDS, TOKENS)
    report = caught.value.report
    assert report.written + len(report.failed) == COUNT
    assert all(i in server.points for i in IDS if i not in report.failed)


def test_a_restart_in_the_middle_is_survived(server, connect):
    store = connect(retry=Retry(attempts=20, first_pause=0.05, max_wait=20))
    thread = server.restart_at(write=3, pause=0.7)
    report = store.upsert(IDS, TOKENS)
    thread.join()
    assert (report.written, report.failed) == (COUNT, {})
    check_complete(server)


def test_writes_have_retries_of_their_own(server, connect):
    store = connect(retry=Retry(attempts=1), write_retry=QUICK)
    server.faults.extend(["503", "503"])
    assert store.upsert(IDS[:2], TOKENS[:2]).written == 2
    impatient = connect("open", retry=QUICK, write_retry=Retry(attempts=1))
    server.faults.append("503")
    with pytest.raises(WriteInterrupted):
        impatient.upsert(IDS[:2], TOKENS[:2])


def test_no_server_is_an_error_of_ours(server, connect):
    store = connect()
    server.stop()
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        store.count()
    assert type(caught.value.__cause__).__name__ == "ResponseHandlingException"
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        connect("open", Retry(attempts=1))


def test_what_the_server_lacks_is_told(server, connect):
    store = connect()
    with pytest.raises(Unsupported):
        store.search(TOKENS[0])
    server.collections.clear()
    with pytest.raises(CollectionNotFound):
        connect("open")


def test_an_interrupt_ends_the_load_at_once_and_a_rerun_completes(server, connect):
    store = connect()

    def interrupt() -> None:
        if len(server.writes) == 3:
            raise_in_main.set()

    raise_in_main = threading.Event()
    server.on_write = interrupt

    opened = store._store if isinstance(store, Blocking) else store

    class Encoder:
        """Raises what Ctrl-C raises, between two batches."""

        def __getattr__(self, name):
            return getattr(ENCODER, name)

        def encode_documents(self, docs, mask=None):
            if raise_in_main.is_set():
                raise KeyboardInterrupt
            return ENCODER.encode_documents(docs, mask)

    opened._collection = replace(opened._collection, encoder=Encoder())
    with pytest.raises(KeyboardInterrupt):
        store.upsert(IDS, TOKENS)
    assert len(server.writes) == 3
    server.on_write = lambda: None
    assert connect("open").upsert(IDS, TOKENS).written == COUNT
    check_complete(server)


def test_retries_are_checked():
    with pytest.raises(InvalidInput):
        Retry(attempts=0)
