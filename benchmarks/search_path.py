"""Cost of a search in this checkout compared with another: its time, the library's share of it, and its requests.

Two processes, one for each checkout, fill a collection of Qdrant Edge with the same documents. They search in turns,
one round each, and take turns in beginning. The library's share is the time of a search minus that of the engine's
calls. Intervals are 95 % bootstrap intervals over rounds; the two halves of a round are paired.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.search_path /tmp/before [--docs 2000] [--rounds 100]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder

MODES = ("none", "native")
ROOT = Path(__file__).parents[1]


class Engine:
    """A shard whose calls are counted and timed."""

    def __init__(self, shard: Any) -> None:
        self._shard, self.calls, self.seconds = shard, 0, 0.0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._shard, name)

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            reply = call(*arguments)
            self.seconds += time.perf_counter() - start
            self.calls += 1
            return reply

        return timed


def worker(count: int) -> None:
    """Searches in a mode for each line of the input, and answers with medians in microseconds."""
    sample = load_pydocs()
    documents = [document.tokens for document in sample.source.documents()][:count]
    queries = [sample.queries[i] for i in range(len(sample.queries))]
    with tempfile.TemporaryDirectory() as directory:
        store = QdrantEdgeMuvera.create(directory, "docs", FDEEncoder(FDEConfig(128)))
        store.upsert(sample.ids[:count], documents)
        store.wait_indexed()
        shard: Any = store._shard
        engine = shard._shard = Engine(shard._shard)
        for line in sys.stdin:
            mode: Any = line.strip()
            whole, own, calls = [], [], engine.calls
            for query in queries:
                before, start = engine.seconds, time.perf_counter()
                store.search(query, rerank=mode, count_missing=False)
                taken = time.perf_counter() - start
                whole.append(taken)
                own.append(taken - (engine.seconds - before))
            figures = [1e6 * float(np.median(whole)), 1e6 * float(np.median(own))]
            print(json.dumps([*figures, (engine.calls - calls) / len(queries)]), flush=True)
        store.close()


def started(checkout: Path, count: int) -> subprocess.Popen[str]:
    """A worker that imports the checkout's packages."""
    command = [sys.executable, __file__, "--worker", "--docs", str(count)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def asked(process: subprocess.Popen[str], mode: str) -> list[float]:
    """The worker's answer to one round."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{mode}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="directory of the other checkout")
    parser.add_argument("--docs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.docs)
        return
    from muvera_adapters.evidence.measuring import Interval  # workers of older checkouts need not have it

    both = [started(arguments.other, arguments.docs), started(ROOT, arguments.docs)]
    print(f"{'rerank':<8}{'us':>14}{'ratio':>24}{'own us':>16}{'own us more':>26}{'requests':>12}")
    try:
        for mode in MODES:
            for process in both:
                asked(process, mode)  # compiled, cached, counted
            rounds = []
            for i in range(arguments.rounds):
                order = both if i % 2 else both[::-1]
                answers = {process.pid: asked(process, mode) for process in order}
                rounds.append([answers[process.pid] for process in both])
            figures = np.array(rounds)  # (rounds, checkout, figure)
            ratio = Interval.of(figures[:, 1, 0] / figures[:, 0, 0], seed=0)
            more = Interval.of(figures[:, 1, 1] - figures[:, 0, 1], seed=0)
            (before, after), (own_before, own_after) = (np.median(figures[:, :, k], axis=0) for k in (0, 1))
            requests = np.unique(figures[:, :, 2], axis=0).tolist()
            print(
                f"{mode:<8}{before:>7,.0f}{after:>7,.0f}{ratio.mean:>10.4f} ({ratio.low:.4f}-{ratio.high:.4f})"
                f"{own_before:>8,.0f}{own_after:>8,.0f}{more.mean:>+10.1f} ({more.low:+.1f} to {more.high:+.1f})"
                f" {requests}"
            )
    finally:
        for process in both:
            process.communicate()


if __name__ == "__main__":
    main()
