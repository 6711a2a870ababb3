"""Edge and local mode: processes that are killed in mid-load, full disks, two owners, damaged files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import MuveraError, StoreUnavailable, WriteInterrupted
from muvera_adapters.qdrant import QdrantEdgeMuvera, QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder, maxsim

ENCODER = FDEEncoder(FDEConfig(dim=32, r_reps=8, k_sim=4, d_proj=16))  # 2,048 dimensions
COUNT = 2_000
TOKENS = list(np.random.default_rng(8).normal(size=(COUNT, 40, 32)).astype(np.float16))

# a child process that works in small steps, says when it is in the middle, and then goes slowly until it is stopped
_PRELUDE = """
import itertools
import signal
import sys
import time
from dataclasses import replace
import numpy as np
from muvera_adapters.qdrant import QdrantEdgeMuvera, QdrantMuvera
from muvera_adapters.qdrant.collection import Wire
from muvera_core import FDEConfig, FDEEncoder
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background of a shell
ENCODER = FDEEncoder(FDEConfig(dim=32, r_reps=8, k_sim=4, d_proj=16))
TOKENS = list(np.random.default_rng(8).normal(size=(2000, 40, 32)).astype(np.float16))
def small(store, target):
    wire = store._collection.wire
    store._collection = replace(store._collection, wire=Wire(wire.bytes_per_float, target, wire.cap))
    return store
def pace(owner, name, wanted=None):
    original, seen = getattr(owner, name), []
    def slow(self, *arguments, **options):
        reply = original(self, *arguments, **options)
        if wanted is None or type(arguments[0]).__name__ == wanted:
            seen.append(1)
            if len(seen) == 5:
                print("under way", flush=True)
            if len(seen) >= 5:
                time.sleep(0.05)
        return reply
    setattr(owner, name, slow)
"""
_LOAD = """
from muvera_adapters.qdrant.edge.client import Shard
pace(Shard, "send", "Upsert")
store = small(QdrantEdgeMuvera.open(sys.argv[1], "c"), 100_000)
print("written", store.upsert(range(2000), TOKENS, [{"n": i} for i in range(2000)]).written, flush=True)
"""
_BACKFILL_EDGE = """
from muvera_adapters.qdrant.edge.client import Shard
pace(Shard, "send", "Update")
store = small(QdrantEdgeMuvera.adopt(sys.argv[1], "c", ENCODER), 30_000)
print("written", store.backfill().written, flush=True)
"""
_BACKFILL_LOCAL = """
from qdrant_client import QdrantClient
pace(QdrantClient, "batch_update_points")
store = small(QdrantMuvera.adopt(QdrantClient(path=sys.argv[1]), "c", ENCODER), 30_000)
print("written", store.backfill().written, flush=True)
"""


def start(program: str, directory: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _PRELUDE + program, str(directory)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "under way\n"
    return child


def stop(child: subprocess.Popen[str], sent: signal.Signals, after: float = 0.1) -> str:
    """Ends the child in the middle of its work."""
    time.sleep(after)
    child.send_signal(sent)
    output, _ = child.communicate(timeout=60)
    assert "written" not in output, "it was finished before the signal: the test has tested nothing"
    return output


def check_complete(directory: Path) -> None:
    with QdrantEdgeMuvera.open(directory, "c") as store:
        documents = list(store.scroll(with_tokens=True))
        assert sorted(document.id for document in documents) == list(range(COUNT))
        assert all(np.array_equal(document.tokens, TOKENS[document.id]) for document in documents)
        assert store.info().without_fde == 0
        query = TOKENS[77][:3].astype(np.float32)
        best = int(np.argmax(maxsim(query, TOKENS)))
        assert store.search(query, 1, COUNT)[0].id == best


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_load_that_was_killed_is_finished_by_another(tmp_path, sent):
    QdrantEdgeMuvera.create(tmp_path, "c", ENCODER).close()
    stop(start(_LOAD, tmp_path), sent)
    with QdrantEdgeMuvera.open(tmp_path, "c") as store:
        there = store.count()
        assert 0 < there < COUNT
        assert store.info().without_fde == 0
        assert store.info().without_tokens == 0
        assert store.upsert(range(COUNT), TOKENS).written == COUNT
    check_complete(tmp_path)


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path):
    QdrantEdgeMuvera.create(tmp_path, "c", ENCODER).close()
    program = """
store = QdrantEdgeMuvera.open(sys.argv[1], "c")
for i in itertools.count():  # a busy machine may send the signal late, or before another line
    store.upsert([i], [TOKENS[i % len(TOKENS)]])
    if i >= 20:
        print("under way" if i == 20 else i, flush=True)
"""
    output = stop(start(program, tmp_path), signal.SIGKILL)
    acknowledged = [20, *(int(line) for line in output.split("\n")[:-1] if line.isdigit())]
    with QdrantEdgeMuvera.open(tmp_path, "c") as store:
        assert None not in store.get(range(acknowledged[-1] + 1))


@pytest.mark.parametrize("after", [0.05, 0.4, 1.1])
def test_a_kill_while_the_log_is_made_small_loses_nothing(tmp_path, after):
    QdrantEdgeMuvera.create(tmp_path, "c", ENCODER).close()
    program = """
from muvera_adapters.qdrant.edge import client
client._LOG_MOST = client._LOG_SMALL = 0  # every write flushes, and every flush makes the log small
store = QdrantEdgeMuvera.open(sys.argv[1], "c")
for i in range(0, 2000, 20):
    store.upsert(range(i, i + 20), TOKENS[i:i + 20])
    store.upsert([i], TOKENS[i + 1:i + 2])  # replaced
    if i % 200 == 180:
        store.wait_indexed()
    if i == 200:
        print("under way", flush=True)
    if i >= 200:
        print(i, flush=True)
print("written", flush=True)
"""
    output = stop(start(program, tmp_path), signal.SIGKILL, after)
    end = 20 + max(200, *(int(line) for line in output.split("\n")[:-1] if line.isdigit()), 0)
    with QdrantEdgeMuvera.open(tmp_path, "c") as store:
        for document in store.get(range(end), with_tokens=True):
            replaced = document.id % 20 == 0
            assert np.array_equal(document.tokens, TOKENS[document.id + replaced])
        assert store.verify().stale == []
        # the numbers of writes go on, so that later ones are not taken for old
        store.upsert([3], TOKENS[9:10])
        assert np.array_equal(store.get([3], with_tokens=True)[0].tokens, TOKENS[9])


def test_the_log_is_small_after_a_load(tmp_path):
    with QdrantEdgeMuvera.create(tmp_path, "c", ENCODER) as store:
        store.upsert(range(COUNT), TOKENS)
        store.wait_indexed()
        assert sum(file.stat().st_blocks * 512 for file in (tmp_path / "c" / "wal").iterdir()) < 1 << 20
    check_complete(tmp_path)


def foreign_edge(directory: Path) -> None:
    maxsim_config = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    vectors = {"colbert": edge.EdgeVectorParams(32, edge.Distance.Dot, multivector_config=maxsim_config)}
    (directory / "c").mkdir()
    shard = edge.EdgeShard.create(str(directory / "c"), edge.EdgeConfig(vectors=vectors))
    points = [edge.Point(i, {"colbert": m}, {"n": i}) for i, m in enumerate(TOKENS)]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.close()


def test_a_backfill_of_edge_that_was_killed_is_finished_by_another(tmp_path):
    foreign_edge(tmp_path)
    stop(start(_BACKFILL_EDGE, tmp_path), signal.SIGKILL)
    with QdrantEdgeMuvera.adopt(tmp_path, "c", ENCODER) as store:
        left = store.info().without_fde
        assert 0 < left < COUNT
        assert store.backfill().written == left
    check_complete(tmp_path)


def test_a_backfill_of_local_mode_that_was_killed_is_finished_by_another(tmp_path):
    client = QdrantClient(path=str(tmp_path))
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vector = models.VectorParams(size=32, distance=models.Distance.DOT, multivector_config=comparator)
    client.create_collection("c", {"colbert": vector})
    points = [models.PointStruct(id=i, vector={"colbert": m.tolist()}) for i, m in enumerate(TOKENS[:400])]
    client.upsert("c", points)
    client.close()
    stop(start(_BACKFILL_LOCAL, tmp_path), signal.SIGKILL)
    client = QdrantClient(path=str(tmp_path))
    store = QdrantMuvera.adopt(client, "c", ENCODER)
    left = store.info().without_fde
    assert 0 < left < 400
    assert store.backfill().written == left
    assert QdrantMuvera.open(client, "c").info().without_fde == 0
    client.close()


def test_a_backfill_killed_between_adding_the_vector_and_writing_the_state_is_finished(tmp_path):
    foreign_edge(tmp_path)
    shard = edge.EdgeShard.load(str(tmp_path / "c"))
    shard.update(edge.UpdateOperation.create_dense_vector("fde", ENCODER.dim, edge.Distance.Dot))
    shard.close()
    with QdrantEdgeMuvera.adopt(tmp_path, "c", ENCODER) as store:
        assert store.backfill().written == COUNT
        assert store.info().code_bytes > 0, "the index's codes were configured too"
    check_complete(tmp_path)


def test_a_second_owner_is_told_who_has_the_directory(tmp_path):
    store = QdrantEdgeMuvera.create(tmp_path, "c", ENCODER)
    with pytest.raises(StoreUnavailable, match="another process") as caught:
        QdrantEdgeMuvera.open(tmp_path, "c")
    assert caught.value.__cause__ is not None
    program = "QdrantEdgeMuvera.open(sys.argv[1], 'c')"
    arguments = [sys.executable, "-c", _PRELUDE + program, str(tmp_path)]
    child = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert "has it open" in child.stderr
    store.upsert([1], TOKENS[:1])
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.count()
    assert QdrantEdgeMuvera.open(tmp_path, "c").count() == 1


@pytest.mark.parametrize(
    "content", ["", "{", '{"version": 99, "encoder": {}}', '{"version": 1, "encoder": {"type": "x"}}']
)
def test_a_damaged_sidecar_is_an_error_of_ours(tmp_path, content):
    QdrantEdgeMuvera.create(tmp_path, "c", ENCODER).close()
    (tmp_path / "c.muvera.json").write_text(content)
    with pytest.raises(MuveraError):
        QdrantEdgeMuvera.open(tmp_path, "c")
    # and the shard is not left open
    edge.EdgeShard.load(str(tmp_path / "c")).close()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 MB, where we may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(tmp_path)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("run as root on Linux: a small tmpfs has to be mounted")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_ends_the_load_with_a_report_and_a_rerun_completes_it(small_disk):
    store = QdrantEdgeMuvera.create(small_disk, "c", ENCODER)
    documents = [np.tile(tokens, (8, 1)) for tokens in TOKENS]
    with pytest.raises(WriteInterrupted, match="free some") as caught:
        store.upsert(range(COUNT), documents)
    report = caught.value.report
    assert report.written + len(report.failed) == COUNT
    assert store.count() == report.written
    store.close()
    subprocess.run(["mount", "-o", "remount,size=900m", str(small_disk)], check=True)
    with QdrantEdgeMuvera.open(small_disk, "c") as store:
        assert store.count() == report.written
        assert store.upsert(range(COUNT), documents).written == COUNT
        assert store.count() == COUNT
