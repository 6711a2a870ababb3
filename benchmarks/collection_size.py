"""Number of candidates that a larger collection of the same kind needs.

A document is two runs of 24 tokens from random places of the set, with noise of length .3 at every token, scaled back
to unit length; the first 2,000 of 20,000 documents are the collection of 2,000. The queries are the set's. The truth is
exact MaxSim over the collection. The default FDE is scanned in float32, and searched in Qdrant Edge with two-bit codes
(m=16, ef_construct=100, the store's own search parameters).

    python -m benchmarks.collection_size FILE.npz --sizes 2000 20000 [--seeds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recall import ALWAYS, GRAPH
from benchmarks.sets import BEST, read, unit
from muvera_adapters.evidence.measuring import Float64, positions, queries_of, recalls
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim

RUN, RUNS, NOISE = 24, 2, 0.3
CANDIDATES = (20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000)
TARGET = 0.95
_CHUNK = 1000  # documents that are held at a time


def chunks(tokens: np.ndarray, count: int) -> Iterator[TokenBatch]:
    """The collection's documents, some at a time."""
    for first in range(0, count, _CHUNK):
        rng = np.random.default_rng(first)
        starts = rng.integers(len(tokens) - RUN, size=(_CHUNK, RUNS))
        taken = tokens[(starts[:, :, None] + np.arange(RUN)).ravel()]
        added = unit(rng.standard_normal(taken.shape, dtype=np.float32))
        values = unit(taken + np.float32(NOISE) * added)
        documents = TokenBatch(values, np.arange(_CHUNK + 1) * RUN * RUNS)
        yield documents[: count - first]


def exact(tokens: np.ndarray, queries: TokenBatch, count: int) -> list[list[Any]]:
    """Positions of each query's best documents."""
    scores = np.concatenate(
        [np.stack([maxsim(q, documents) for q in queries_of(queries)]) for documents in chunks(tokens, count)], axis=1
    )
    return [row[:BEST].tolist() for row in np.argsort(-scores, axis=1, kind="stable")]


def scanned(encoder: FDEEncoder, tokens: np.ndarray, queries: TokenBatch, best: list[list[Any]], count: int) -> Float64:
    """(queries, candidates) recall by float32 dot products with all documents."""
    asked = encoder.encode_queries(queries)
    scores = np.concatenate([asked @ encoder.encode_documents(d).T for d in chunks(tokens, count)], axis=1)
    found = np.argsort(-scores, axis=1, kind="stable")[:, : max(CANDIDATES)]
    places = positions(found.tolist(), best)
    return np.stack([recalls(places, BEST, n) for n in CANDIDATES], axis=1)


def indexed(encoder: FDEEncoder, tokens: np.ndarray, queries: TokenBatch, best: list[list[Any]], count: int) -> Float64:
    """(queries, candidates) recall through the index, each number of candidates asked for by itself."""
    with tempfile.TemporaryDirectory() as directory:
        store = QdrantEdgeMuvera.create(
            directory,
            "size",
            encoder,
            quantization="turbo2",
            store_tokens=False,
            hnsw_config=GRAPH,
            optimizers=ALWAYS,
        )
        with store:
            for i, documents in enumerate(chunks(tokens, count)):
                report = store.upsert(range(_CHUNK * i, _CHUNK * i + len(documents)), documents)
                assert not report.failed, report.failed
            store.wait_indexed()
            out = []
            for n in CANDIDATES:
                found = [[hit.id for hit in store.search(q, n, rerank="none")] for q in queries_of(queries)]
                out.append(recalls(positions(found, best), BEST, n))
    return np.stack(out, axis=1)


def needed(recall: Float64) -> str:
    """The least number of candidates of those tried whose mean recall reaches the target."""
    reached = np.flatnonzero(recall.mean(axis=0) >= TARGET)
    return f"{CANDIDATES[reached[0]]:,}" if len(reached) else f"more than {CANDIDATES[-1]:,}"


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", default="pydocs")
    parser.add_argument("--sizes", nargs="+", type=int, default=[2000, 20_000])
    parser.add_argument("--queries", type=int, default=100, help="maximum number of the set's queries")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/collection_size.json"))
    arguments = parser.parse_args()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    documents, queries = read(arguments.set)
    queries = queries[: arguments.queries]
    print(f"{'':<28}" + "".join(f"{n:>7,}" for n in CANDIDATES) + f"   needed for {TARGET}")
    for count in arguments.sizes:
        best = exact(documents.values, queries, count)
        for how, measure in (("scan", scanned), ("index", indexed)):
            recall = []
            for seed in range(1, arguments.seeds + 1):
                encoder = FDEEncoder(FDEConfig(documents.dim, seed=seed), threads=1)
                recall.append(measure(encoder, documents.values, queries, best, count))
            results[f"{Path(arguments.set).stem} {count} {how}"] = np.round(recall, 4).tolist()
            arguments.json.write_text(json.dumps(results))
            mean = np.mean(recall, axis=0)
            figures = "".join(f"{x:>7.3f}" for x in mean.mean(axis=0))
            print(f"{count:>9,} documents, {how:<8}{figures}   {needed(mean)}", flush=True)


if __name__ == "__main__":
    main()
