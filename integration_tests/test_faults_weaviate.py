"""Weaviate servers that are killed and restarted, full or misconfigured: no report says what is not so."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weaviate
from weaviate.classes.config import Configure, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.exceptions import WeaviateGRPCUnavailableError, WeaviateStartUpError

from integration_tests.engines.weaviate import foreign_id
from muvera_adapters import databases
from muvera_adapters.errors import (
    CollectionNotFound,
    InvalidInput,
    MuveraError,
    StoreUnavailable,
    Unsupported,
    WriteInterrupted,
)
from muvera_adapters.migration import migrate
from muvera_adapters.sources import open_source
from muvera_adapters.testing import Blocking, CannotStart
from muvera_adapters.weaviate import AsyncWeaviateMuvera, Retry, WeaviateMuvera, backfilling, requests
from muvera_core import FDEConfig, FDEEncoder, maxsim
from servers.weaviate_server import WeaviateServer, binary

ENCODER = FDEEncoder(FDEConfig(dim=32, r_reps=4, k_sim=3, d_proj=8))
COUNT = 600
IDS = list(range(COUNT))
TOKENS = list(np.random.default_rng(8).normal(size=(COUNT, 12, 32)).astype(np.float32))
# weaviate-client leaves sockets of attempts to connect that failed to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
# a busy machine takes minutes to start a server
PATIENT = Retry(attempts=20, first_pause=0.2, max_wait=300)


def patiently(connect: Callable[[], Any]) -> Any:
    """All channels of a process share gRPC's growing pauses between attempts to reach an address."""
    deadline = time.monotonic() + 300
    while True:
        try:
            return connect()
        except (WeaviateGRPCUnavailableError, WeaviateStartUpError):  # the client waits 2 seconds for either
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


class Servers:
    """Starts servers and connects to them; ends all of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._servers: list[WeaviateServer] = []
        self._clients: list[Any] = []
        self._loop = asyncio.new_event_loop()

    def start(self, path: Path | None = None, **environment: str) -> WeaviateServer:
        server = WeaviateServer(binary(), path or self._path / str(len(self._servers)), **environment)
        self._servers.append(server)
        server.start()
        return server

    def connect(self, server: WeaviateServer) -> weaviate.WeaviateClient:
        self._clients.append(patiently(server.connect))
        return self._clients[-1]

    def store(self, kind: str, server: WeaviateServer, method: str, **options: Any) -> Any:
        if kind == "sync":
            return getattr(WeaviateMuvera, method)(self.connect(server), "Load", **options)
        client = weaviate.use_async_with_local("127.0.0.1", server.port, server.grpc_port)
        patiently(lambda: self._loop.run_until_complete(client.connect()))
        self._clients.append(Blocking(client, self._loop))
        made = getattr(AsyncWeaviateMuvera, method)(client, "Load", **options)
        return Blocking(self._loop.run_until_complete(made), self._loop)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for server in self._servers:
            server.stop()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._clients.clear()
        gc.collect()  # here, where what the client leaves open is expected, and not in the middle of something else


@pytest.fixture
def servers(tmp_path) -> Iterator[Servers]:
    try:
        binary()
    except CannotStart as problem:
        pytest.skip(str(problem))
    made = Servers(tmp_path)
    yield made
    made.close()


@pytest.fixture
def small_batches(monkeypatch) -> None:
    monkeypatch.setattr(requests, "WRITE_BYTES", 40_000)  # about a dozen documents


def check_whole(store: Any) -> None:
    """Every document is counted, listed, and found by its id, by its payload, by FDE and by tokens."""
    assert store.count() == COUNT
    assert store.count(filter=Filter.by_property("n").greater_or_equal(0)) == COUNT
    documents = {d.id: d for d in store.scroll(with_tokens=True)}
    assert sorted(documents) == IDS
    assert all(np.array_equal(documents[i].tokens, TOKENS[i]) and documents[i].payload == {"n": i} for i in IDS)
    assert [d.id for d in store.get(IDS)] == IDS
    for rerank in ("native", "none"):
        # filtered, few documents are looked for one by one: a graph may miss some
        hits = store.search(TOKENS[0], COUNT, COUNT, rerank=rerank, filter=Filter.by_property("n").greater_or_equal(0))
        assert ({hit.id for hit in hits}, hits.unscored) == (set(IDS), [])
    for i in IDS[::29]:
        expected = np.argsort(-maxsim(TOKENS[i], TOKENS))[:5].tolist()
        assert [hit.id for hit in store.exact_search(TOKENS[i], 5)] == expected
        for rerank in ("native", "client"):
            hits = store.search(TOKENS[i], 1, 50, rerank=rerank)
            assert ([hit.id for hit in hits], hits.unscored) == ([i], [])


class KillAfter:
    """Kills the server while a request is on its way, when ``documents`` of the requests before it are acknowledged.

    Args:
        monkeypatch: takes the place of the builder of requests.
        builder: name of the builder in ``requests``, whose argument is one write or many.
        server: the server to kill.
        documents: number of documents.
        then: called after the kill, in the thread of the kill.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        builder: str,
        server: WeaviateServer,
        documents: int,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._documents = documents
        self._then = then
        self._build = getattr(requests, builder)
        self._lock = threading.Lock()
        self._acknowledged = 0
        self._killed = threading.Event()
        self._thread: threading.Thread | None = None
        monkeypatch.setattr(requests, builder, self._watched)

    def join(self) -> None:
        assert self._thread is not None, "the load was over before the kill: the test has tested nothing"
        self._thread.join()

    def _watched(self, writes: Any) -> Any:
        call = self._build(writes)

        def send(its: Any) -> Any:
            self._before()
            return call.send(its)

        def read(reply: Any) -> Any:
            errors = call.read(reply)
            with self._lock:
                self._acknowledged += 1 if isinstance(writes, requests.Write) else len(writes) - len(errors)
            return errors

        return replace(call, send=send, read=read)

    def _before(self) -> None:
        with self._lock:
            due = self._acknowledged >= self._documents
            if due and self._thread is None:
                self._thread = threading.Thread(target=self._kill)
                self._thread.start()
                return
        if due:
            self._killed.wait()  # else a load may be over before a busy machine runs the thread

    def _kill(self) -> None:
        self._server.kill()
        self._killed.set()
        self._then()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_kill_and_a_restart_in_mid_load_are_survived(servers, small_batches, monkeypatch, kind):
    server = servers.start()
    store = servers.store(kind, server, "create", encoder=ENCODER, retry=PATIENT, write_retry=PATIENT)

    def restart() -> None:
        time.sleep(0.5)
        server.start()

    kill = KillAfter(monkeypatch, "insert", server, 50, restart)
    report = store.upsert(IDS, TOKENS, [{"n": i} for i in IDS])
    kill.join()
    assert (report.written, report.failed) == (COUNT, {})
    store.repair()
    check_whole(store)

    server.stop()
    server.start()
    opened = servers.store(kind, server, "open")
    assert opened.encoder.fingerprint == ENCODER.fingerprint, "the state survives a restart"
    check_whole(opened)
    assert opened.repair() == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_acknowledged_documents_that_a_kill_took_from_the_indexes_are_brought_back(servers, kind):
    server = servers.start()
    store = servers.store(kind, server, "create", encoder=ENCODER, quantization=None)
    report = store.upsert(IDS, TOKENS, [{"n": i} for i in IDS])
    assert (report.written, report.failed) == (COUNT, {})
    server.kill()
    server.start()
    opened = servers.store(kind, server, "open")
    assert opened.count() == COUNT
    assert opened.upsert(IDS, TOKENS, [{"n": i} for i in IDS]).written == COUNT
    # this is what Weaviate does, not what we want: should it fail, repair() and its page have lost their reason
    assert opened.repair() > 0, "writing the same again does not mend the indexes"
    check_whole(opened)
    assert opened.repair() == 0
    objects = servers.connect(server).collections.use("Load").query.fetch_objects(limit=COUNT, include_vector=["fde"])
    expected = ENCODER.encode_documents(TOKENS)
    ids = [document.id for document in opened.scroll()]
    assert np.array_equal([found.vector["fde"] for found in objects.objects], expected[ids]), "to the last bit"


def test_an_index_that_does_not_tell_what_it_lost_is_made_anew(servers):
    server = servers.start()
    index = Configure.VectorIndex.hfresh(quantizer=Configure.VectorIndex.Quantizer.rq(bits=1, rescore_limit=COUNT))
    store = servers.store("sync", server, "create", encoder=ENCODER, vector_index_config=index)
    assert store.upsert(IDS, TOKENS, [{"n": i} for i in IDS]).written == COUNT
    server.kill()
    server.start()
    opened = servers.store("sync", server, "open")
    assert opened.repair() == COUNT
    check_whole(opened)
    assert {hit.id for hit in opened.search(TOKENS[0], COUNT, COUNT, rerank="none")} == set(IDS)


def test_what_waits_to_be_indexed_is_not_taken_for_lost(servers):
    server = servers.start(ASYNC_INDEXING="true")
    store = servers.store("sync", server, "create", encoder=ENCODER)
    assert store.upsert(IDS, TOKENS, [{"n": i} for i in IDS]).written == COUNT
    assert store.repair() == 0, "nothing was killed"
    check_whole(store)
    server.kill()
    server.start()
    opened = servers.store("sync", server, "open")
    opened.repair()
    opened.wait_indexed()
    check_whole(opened)
    assert opened.repair() == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_lasting_outage_is_reported_and_a_rerun_completes(servers, small_batches, monkeypatch, kind):
    server = servers.start()
    store = servers.store(
        kind, server, "create", encoder=ENCODER, retry=Retry(attempts=1), write_retry=Retry(attempts=1)
    )
    kill = KillAfter(monkeypatch, "insert", server, 50)
    with pytest.raises(WriteInterrupted) as caught:
        store.upsert(IDS, TOKENS)
    kill.join()
    report = caught.value.report
    assert report.written + len(report.failed) == COUNT
    assert report.written >= 50
    assert not isinstance(caught.value.__cause__, MuveraError), "the client's own error is kept"
    with pytest.raises(StoreUnavailable):
        store.info()

    server.start()
    again = servers.store(kind, server, "open")
    acknowledged = {i for i in IDS if i not in report.failed}
    assert acknowledged <= {d.id for d in again.scroll()}, "reported as written means stored, through a kill"
    assert again.upsert(IDS, TOKENS, [{"n": i} for i in IDS]).written == COUNT
    again.repair()
    check_whole(again)


def test_a_migration_into_a_killed_server_is_repaired_by_the_second_run(servers, small_batches, monkeypatch, tmp_path):
    server = servers.start()
    monkeypatch.setattr(databases, "_PATIENT", Retry(attempts=1))
    np.savez(tmp_path / "all.npz", embeddings=np.vstack(TOKENS), lengths=[len(t) for t in TOKENS], ids=IDS)

    def run() -> Any:
        source = open_source(tmp_path / "all.npz")
        with databases.Database(f"weaviate:http://127.0.0.1:{server.port}?grpc_port={server.grpc_port}") as database:
            try:
                store, report = migrate(source, database, "Load", ENCODER, journal=tmp_path / "journal")
                assert [d.id for d in store.get(IDS) if d is not None] == IDS
                assert store.repair() == 0, "nothing is left to repair"
            finally:
                source.close()
        return report

    kill = KillAfter(monkeypatch, "insert", server, 100)
    with pytest.raises(StoreUnavailable, match="run the same command again"):
        run()
    kill.join()
    server.start()
    patiently(server.connect).close()
    report = run()
    assert (report.written, report.failed) == (COUNT, [])


def test_a_backfill_is_resumed_after_a_kill(servers, monkeypatch):
    server = servers.start()
    client = servers.connect(server)
    index = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.DOT)
    vector = Configure.MultiVectors.self_provided(name="colbert", vector_index_config=index)
    collection = client.collections.create("Load", vector_config=[vector])
    some = TOKENS[:200]
    objects = [DataObject({}, foreign_id(i), {"colbert": t.tolist()}) for i, t in enumerate(some)]
    assert not collection.data.insert_many(objects).has_errors
    monkeypatch.setattr(backfilling, "_WRITE", 16)

    def marked() -> int:
        return sum("fde" in o.vector for o in collection.query.fetch_objects(limit=500, include_vector=True).objects)

    store = WeaviateMuvera.adopt(client, "Load", ENCODER, retry=Retry(attempts=1), write_retry=Retry(attempts=1))
    kill = KillAfter(monkeypatch, "patch", server, 40)
    with pytest.raises(StoreUnavailable):
        store.backfill()
    kill.join()
    server.start()
    done = marked()
    assert 40 <= done < 200, "acknowledged means stored, through a kill"
    report = WeaviateMuvera.open(servers.connect(server), "Load").backfill()
    assert report.written == 200 - done, "what was done is not done again"
    assert (report.remaining, marked()) == (0, 200)
    opened = WeaviateMuvera.open(servers.connect(server), "Load")
    opened.repair()
    found = [hit.id for hit in opened.exact_search(some[7], 5)]
    assert found == [foreign_id(int(i)) for i in np.argsort(-maxsim(some[7], some))[:5]]
    assert opened.search(some[7], 1, 50)[0].id == foreign_id(7)
    assert None not in opened.get([foreign_id(i) for i in range(200)])


def test_a_shard_that_takes_no_writes_is_reported_at_once(servers):
    server = servers.start()
    store = servers.store("sync", server, "create", encoder=ENCODER)
    store.upsert(IDS[:5], TOKENS[:5])
    for shard in servers.connect(server).collections.use("Load").config.get_shards():
        # what the server does by itself when DISK_USE_READONLY_PERCENTAGE is passed
        servers.connect(server).collections.use("Load").config.update_shards("READONLY", shard.name)
    started = time.monotonic()
    with pytest.raises(WriteInterrupted, match="accepts no writes") as caught:
        store.upsert(IDS[5:20], TOKENS[5:20])
    assert time.monotonic() - started < 10
    assert (caught.value.report.written, sorted(caught.value.report.failed)) == (0, IDS[5:20])
    assert store.search(TOKENS[2], 1)[0].id == 2, "reading goes on"
    for shard in servers.connect(server).collections.use("Load").config.get_shards():
        servers.connect(server).collections.use("Load").config.update_shards("READY", shard.name)
    assert store.upsert(IDS[5:20], TOKENS[5:20]).written == 15


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 48 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("readonly_at", ["90", "100"])
def test_a_full_disk_is_reported_and_reading_goes_on(servers, small_disk, readonly_at):
    """At 90 % the server itself stops writes; at 100 % the system does."""
    percentages = {"DISK_USE_READONLY_PERCENTAGE": readonly_at, "DISK_USE_WARNING_PERCENTAGE": readonly_at}
    server = servers.start(small_disk / "server", **percentages)
    store = servers.store(
        "sync", server, "create", encoder=FDEEncoder(FDEConfig(dim=32, r_reps=20, k_sim=5, d_proj=16))
    )
    acknowledged: list[int] = []

    def fill() -> None:
        while len(acknowledged) < 3000:
            ids = range(len(acknowledged), len(acknowledged) + 50)
            report = store.upsert(ids, TOKENS[:50], [{"n": 1}] * 50)
            assert not report.failed, report.failed
            acknowledged.extend(ids)

    with pytest.raises(WriteInterrupted) as caught:
        fill()
    assert len(acknowledged) >= 50
    assert caught.value.report.written + len(caught.value.report.failed) == 50
    assert "accepts no writes" in str(caught.value)
    stored = {document.id for document in store.scroll()}
    assert set(acknowledged) <= stored, "reading goes on, and what was acknowledged is there"
    assert store.search(TOKENS[3], 1)[0].score == pytest.approx(maxsim(TOKENS[3], TOKENS[:50]).max(), abs=1e-3)
    server.kill()  # with nowhere to write, a stop takes its whole minute


def test_a_document_over_the_servers_message_limit_is_refused_before_it_is_sent(servers, monkeypatch):
    sent: list[int] = []
    insert = requests.insert

    def watched(writes: Any) -> Any:
        sent.append(sum(vector.nbytes for write in writes for vector in write.vectors.values()))
        return insert(writes)

    monkeypatch.setattr(requests, "insert", watched)
    server = servers.start(GRPC_MAX_MESSAGE_SIZE="200000")
    store = servers.store("sync", server, "create", encoder=ENCODER)
    huge = np.ones((2_000, 32), np.float32)
    with pytest.raises(InvalidInput, match=r"document 1 .*200000"):
        store.upsert([1, 2], [TOKENS[0], huge])
    assert (store.count(), sent) == (0, [])
    assert store.upsert(IDS[:300], TOKENS[:300]).written == 300
    assert 100_000 < max(sent) < 200_000, "batches are cut below it, rather than refused and halved"
    query = TOKENS[7][:3]
    expected = [int(i) for i in np.argsort(-maxsim(query, TOKENS[:300]))[:5]]
    assert [hit.id for hit in store.search(query, 5, 300, rerank="client")] == expected, "and so do replies"


def test_vectors_of_another_width_are_refused_under_their_ids(servers):
    server = servers.start()
    store = servers.store("sync", server, "create", encoder=ENCODER)
    foreign = DataObject({}, foreign_id(1), {"fde": [1.0] * 7})
    assert not servers.connect(server).collections.use("Load").data.insert_many([foreign]).has_errors
    report = store.upsert(["a", "b"], TOKENS[:2])
    assert (report.written, sorted(report.failed)) == (0, ["a", "b"])
    assert "length" in report.failed["a"]


def test_a_server_that_drops_no_vectors_keeps_only_these(servers):
    server = servers.start(ENABLE_EXPERIMENTAL_ALTER_SCHEMA_DROP_VECTOR_INDEX_ENDPOINT="false")
    store = servers.store("sync", server, "create", encoder=ENCODER)
    store.upsert(IDS[:9], TOKENS[:9], [{"n": i} for i in IDS[:9]])
    with pytest.raises(Unsupported, match="ENABLE_EXPERIMENTAL"):
        store.remove_fde()
    with pytest.raises(CollectionNotFound):
        servers.store("sync", server, "open")
    again = servers.store("sync", server, "adopt", encoder=ENCODER, tokens_vector="tokens", fde_vector="fde_v2")
    assert again.backfill().written == 9
    assert [d.payload for d in again.get(IDS[:9])] == [{"n": i} for i in IDS[:9]]


def test_a_servers_default_quantization_does_not_creep_in(servers):
    server = servers.start(DEFAULT_QUANTIZATION="rq-8")
    store = servers.store("sync", server, "create", encoder=ENCODER, quantization=None)
    vectors = servers.connect(server).collections.use(store.name).config.get().vector_config
    assert vectors["fde"].vector_index_config.quantizer is None
    assert vectors["tokens"].vector_index_config.quantizer is None
