"""Encodings of long documents compared by recall at equal bytes, through an index.

One FDE of the whole document is compared with FDEs of segments (points that are grouped by document; the best segment
counts), FDEs of pooled tokens, and a few pooled tokens in a graph whose distance is MaxSim. The ground truth is MaxSim
of all tokens. Recall and intervals are those of ``benchmarks/recall.py``; differences are from the first row. For
regression encoders on joined documents, see ``benchmarks/regression.py --join 5``.

    python -m benchmarks.long_documents [--sets pydocs:join=5 FILE.npz:draw=5000,join=5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from benchmarks.recall import ALWAYS, CANDIDATES, GRAPH, Index, shares, table, through_index
from benchmarks.sets import Data, each, load
from muvera_adapters.evidence.measuring import queries_of
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, pool_tokens

MOST = max(CANDIDATES)
SHAPES = ((40, 3, 8), (40, 4, 8), (20, 5, 8), (40, 5, 8), (40, 6, 8))  # r_reps, k_sim, d_proj
SEGMENT_TOKENS = 128
ROWS = (16,)  # of a document, after pooling

Found = list[list[Any]]
# name, bytes of codes a document, and what is found with a seed
Way = tuple[str, float, Callable[[int], Found]]


def ways(data: Data) -> Iterator[Way]:
    """Every way of finding long documents."""
    documents, dim = data.documents, data.documents.dim

    def fde(seed: int, r_reps: int, k_sim: int, d_proj: int) -> FDEEncoder:
        return FDEEncoder(FDEConfig(dim, r_reps=r_reps, k_sim=k_sim, d_proj=d_proj, seed=seed), threads=1)

    def whole(shape: tuple[int, int, int], given: TokenBatch) -> Callable[[int], Found]:
        return lambda seed: through_index(Index(), fde(seed, *shape), given, data.queries)

    for r, k, p in SHAPES:
        yield f"one FDE, {r} x {2**k} x {p}", r * 2**k * p / 4, whole((r, k, p), documents)
    yield "pooled by 2, 40 x 32 x 8", 2560, whole((40, 5, 8), pool_tokens(documents, 2))

    segments, owner = cut_up(documents)
    for k in (2, 3):

        def by_segments(seed: int, k: int = k) -> Found:
            found = through_index(Index(), fde(seed, 40, k, 8), segments, data.queries, 5 * MOST)
            return [list(dict.fromkeys(owner[ids]))[:MOST] for ids in found]

        yield (
            f"segments of {SEGMENT_TOKENS} tokens, 40 x {2**k} x 8",
            80 * 2**k * len(owner) / len(documents),
            by_segments,
        )

    for rows in ROWS:
        pooled = to_rows(documents, rows)
        bytes_each = len(pooled.values) * dim / len(documents)
        yield f"{rows} pooled tokens, MaxSim, int8", bytes_each, lambda seed, p=pooled: by_maxsim(p, data.queries)  # type: ignore[misc]


def cut_up(documents: TokenBatch) -> tuple[TokenBatch, np.ndarray]:
    """Segments of about :data:`SEGMENT_TOKENS` tokens, and the document of each."""
    parts = [np.array_split(d, max(1, round(len(d) / SEGMENT_TOKENS))) for d in each(documents)]
    owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    return TokenBatch.from_list(segment for p in parts for segment in p), owner


def to_rows(documents: TokenBatch, rows: int) -> TokenBatch:
    """Each document, pooled where it has more tokens than that."""
    return TokenBatch.from_list(pool_tokens([d], -(-len(d) // rows), threads=1).values for d in each(documents))


def by_maxsim(documents: TokenBatch, queries: TokenBatch) -> Found:
    """Positions found by a graph over multivectors, int8 codes."""
    params = edge.EdgeVectorParams(
        documents.dim,
        edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99),
        hnsw_config=GRAPH,
    )
    with tempfile.TemporaryDirectory() as directory:
        shard = edge.EdgeShard.create(directory, edge.EdgeConfig(vectors={"rows": params}, optimizers=ALWAYS))
        points = [edge.Point(i, {"rows": d.tolist()}, {}) for i, d in enumerate(each(documents))]
        shard.update(edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        search = edge.SearchParams(hnsw_ef=200, quantization=edge.QuantizationSearchParams(rescore=False))
        found = [
            [
                p.id
                for p in shard.query(
                    edge.QueryRequest(MOST, query=edge.Query.Nearest(q.tolist(), "rows"), params=search)
                )
            ]
            for q in queries_of(queries)
        ]
        shard.close()
    return found


def main() -> None:
    """Prints a table for each set and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["pydocs:join=5", "pydocs:draw=10000,join=5"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/long_documents.json"))
    arguments = parser.parse_args()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name in arguments.sets:
        data = load(name)
        print(f"\n{data}", flush=True)
        rows: list[dict[str, Any]] = []
        results[data.name] = rows
        for label, size, find in ways(data):
            recall = [shares(find(seed), data).round(4).tolist() for seed in range(1, arguments.seeds + 1)]
            rows.append({"setting": label, "bytes": round(size), "index": recall})
            arguments.json.write_text(json.dumps(results))
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
