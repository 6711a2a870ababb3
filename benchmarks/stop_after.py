"""Savings and costs of `stop_after`: recall of the exact top 10, tokens fetched and scored, and latency.

`search(rerank="client", stop_after=n)` in Qdrant Edge or milvus-lite as `create` makes them, for several n and numbers
of candidates; "-" is a search without `stop_after`. Figures are means over queries and seeds, latency is a median; the
difference of recall from that without has a 95 % bootstrap interval over queries.

    python -m benchmarks.stop_after [--sets pydocs FILE.npz ...] [--database edge milvus] [--seeds 3] [--every 1]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sets import BEST, Data, each, load
from muvera_adapters.evidence.measuring import Float64, Interval
from muvera_core import FDEConfig, FDEEncoder

STOPS = (0, 16, 32, 64, 128)
PREFETCH = (200, 500)


@contextmanager
def filled(database: str, encoder: FDEEncoder, data: Data) -> Iterator[Any]:
    """A collection of the set."""
    with tempfile.TemporaryDirectory() as directory:
        store: Any
        if database == "edge":
            from muvera_adapters.qdrant import QdrantEdgeMuvera

            store = QdrantEdgeMuvera.create(directory, "docs", encoder)
            close = store.close
        else:
            from pymilvus import MilvusClient

            from muvera_adapters.milvus import MilvusMuvera

            client = MilvusClient(str(Path(directory) / "docs.db"))
            store = MilvusMuvera.create(client, "docs", encoder)
            close = client.close
        try:
            store.upsert(range(len(data.documents)), data.documents)
            store.wait_indexed()
            yield store
        finally:
            close()


def figures(database: str, data: Data, seeds: int, every: int) -> dict[tuple[int, int], Float64]:
    """(seeds, queries, 4) recall, candidates scored, token bytes and seconds, by prefetch and stop_after."""
    found: dict[tuple[int, int], list[Any]] = {}
    for seed in range(1, seeds + 1):
        encoder = FDEEncoder(FDEConfig(data.documents.dim, seed=seed))
        with filled(database, encoder, data) as store:
            for prefetch in PREFETCH:
                for stop in STOPS:
                    rows = []
                    for i, query in list(enumerate(each(data.queries)))[::every]:
                        options = {"rerank": "client", "stop_after": stop or None, "with_payload": False}
                        start = time.perf_counter()
                        hits = store.search(query, BEST, prefetch, count_missing=False, **options)
                        taken = time.perf_counter() - start
                        recall = len({hit.id for hit in hits} & set(data.best[i])) / BEST
                        rows.append((recall, hits.timings.reranked, hits.timings.token_bytes, taken))
                    found.setdefault((prefetch, stop), []).append(rows)
    return {key: np.asarray(rows, float) for key, rows in found.items()}


def main() -> None:
    """Prints a table for each database and set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["pydocs"])
    parser.add_argument("--database", nargs="+", choices=["edge", "milvus"], default=["edge"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="n: use only every n-th query")
    arguments = parser.parse_args()
    for name in arguments.sets:
        data = load(name)
        for database in arguments.database:
            print(f"\n{data}; {database}")
            print("prefetch  stop_after  recall  less (95 %)               scored  KB of tokens  p50 ms")
            found = figures(database, data, arguments.seeds, arguments.every)
            for (prefetch, stop), values in found.items():
                recalls = values[:, :, 0].mean(axis=0)
                less = Interval.of(recalls - found[prefetch, 0][:, :, 0].mean(axis=0), seed=0)
                _, scored, size, _ = values.mean(axis=(0, 1))
                print(
                    f"{prefetch:>8}{stop or '-':>12}{recalls.mean():>8.3f}"
                    f"  {less.mean:+.4f} ({less.low:+.4f} to {less.high:+.4f})"
                    f"{scored:>8.0f}{size / 1000:>14.0f}{1000 * np.median(values[:, :, 3]):>8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
