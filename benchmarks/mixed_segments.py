"""Recall of Qdrant Edge when a part of a collection has no index and no codes, for every kind of codes.

    python -m benchmarks.mixed_segments [--seeds 0 1] [--presets int8 binary ...] [--r-reps 20] [--no-normalize]

The shipped sample in random order: 1,641 documents are indexed, then 400 more are written and stay without index and
codes. They are compared with the same 2,041 documents, all indexed. Recall of the exact top 10 of 55 questions among
20, 50 and 200 candidates, mean over the seeds of the order.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder, maxsim

CANDIDATES = (20, 50, 200)
UNINDEXED = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--presets", nargs="+", default=["none", "int8", "turbo4", "turbo2", "binary", "product"])
    parser.add_argument("--r-reps", type=int, default=20)
    parser.add_argument("--k-sim", type=int, default=5)
    parser.add_argument("--d-proj", type=int, default=16)
    parser.add_argument("--no-normalize", action="store_true", help="FDEs of documents as the paper has them")
    options = parser.parse_args()
    sample = load_pydocs()
    documents = [np.asarray(document.tokens, np.float32) for document in sample.source.documents()]
    queries = [sample.queries[i] for i in range(len(sample.queries))]
    exact = np.stack([maxsim(query, documents) for query in queries])
    best = [set(np.argsort(-scores, kind="stable")[:10].tolist()) for scores in exact]
    config = FDEConfig(
        dim=documents[0].shape[1],
        r_reps=options.r_reps,
        k_sim=options.k_sim,
        d_proj=options.d_proj,
        normalize=not options.no_normalize,
    )
    print(f"{config}: {FDEEncoder(config).dim:,} dimensions, seeds {options.seeds}")
    print("| codes | " + " | ".join(f"{state}, {n}" for state in ("indexed", "mixed") for n in CANDIDATES) + " |")
    print("|---|" + "---|" * (2 * len(CANDIDATES)))
    for preset in options.presets:
        runs = [list(_run(preset, config, documents, queries, best, seed)) for seed in options.seeds]
        print(f"| {preset} | " + " | ".join(f"{value:.3f}" for value in np.mean(runs, axis=0)) + " |", flush=True)


def _run(
    preset: str,
    config: FDEConfig,
    documents: Sequence[npt.NDArray[np.float32]],
    queries: Sequence[Any],
    best: Sequence[set[int]],
    seed: int,
) -> Iterator[float]:
    """Recall with everything indexed, then with a part not, at each number of candidates."""
    order = np.random.default_rng(seed).permutation(len(documents)).tolist()
    for indexed in (len(order), len(order) - UNINDEXED):
        with (
            tempfile.TemporaryDirectory() as directory,
            QdrantEdgeMuvera.create(
                directory,
                "documents",
                FDEEncoder(config),
                quantization=None if preset == "none" else preset,  # type: ignore[arg-type]
                optimizers=edge.EdgeOptimizersConfig(indexing_threshold=5_000),
            ) as store,
        ):
            store.upsert(order[:indexed], [documents[i] for i in order[:indexed]])
            started = time.monotonic()
            left = store.wait_indexed()
            seconds = time.monotonic() - started
            assert left == 0, f"{left} documents have no index"
            if indexed < len(order):
                store.upsert(order[indexed:], [documents[i] for i in order[indexed:]])
                assert store.info().unindexed == UNINDEXED
            elif seconds > 60:
                print(f"({preset}: {seconds:.0f} s to index {indexed:,} documents)")
            for n in CANDIDATES:
                found = [{hit.id for hit in hits} for hits in store.search_batch(queries, 10, n, with_payload=False)]
                yield float(np.mean([len(a & b) / 10 for a, b in zip(found, best, strict=True)]))


if __name__ == "__main__":
    main()
