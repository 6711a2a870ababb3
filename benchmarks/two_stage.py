"""Two-stage search compared with an index of every token, on the sample and the same engine, in one run.

Contestants, all in Qdrant Edge with the same documents, tokens as float16:

- two stages: FDEs with int8 codes in an HNSW graph, tokens without a graph, 200 candidates reranked;
- multivector graph: an HNSW graph over the token matrices, whose distance is MaxSim (what a collection with a
  multivector gets by default);
- a vector per token: each token a point in an HNSW graph; the 64 nearest of each query token name the candidates,
  which are scored exactly outside the engine.

    python benchmarks/two_stage.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import qdrant_edge as edge

from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.results import Hit
from muvera_adapters.samples import Sample, load_pydocs
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim

GRAPH = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
Search = Callable[[Any], list[Hit]]


class Contestant(NamedTuple):
    """A loaded index."""

    search: Search
    close: Callable[[], None]
    seconds: dict[str, float]


def timed(call: Callable[[], Any]) -> float:
    """Seconds it takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def shard(
    path: Path, vector: edge.EdgeVectorParams, points: list[edge.Point]
) -> tuple[edge.EdgeShard, dict[str, float]]:
    """A shard with one vector, filled and indexed; and the seconds of both."""
    made = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors={"v": vector}))

    def load() -> None:
        for i in range(0, len(points), 2000):
            made.update(edge.UpdateOperation.upsert_points(points[i : i + 2000]))

    seconds = {"load_s": timed(load), "index_s": timed(made.optimize)}
    made.flush()
    return made, seconds


def two_stages(path: Path, sample: Sample, documents: TokenBatch) -> Contestant:
    """This library."""
    store = QdrantEdgeMuvera.create(path, "two", FDEEncoder(FDEConfig(documents.dim)))
    load = timed(lambda: store.upsert(sample.ids, documents))
    index = timed(store.wait_indexed)
    return Contestant(lambda q: store.search(q, prefetch=200), store.close, {"load_s": load, "index_s": index})


def multivector_graph(path: Path, sample: Sample, documents: TokenBatch) -> Contestant:
    """A graph over token matrices."""
    vector = edge.EdgeVectorParams(
        documents.dim,
        edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=edge.VectorStorageDatatype.Float16,
        hnsw_config=GRAPH,
    )
    matrices: list[Any] = [documents[i] for i in range(len(documents))]
    points = [edge.Point(i, {"v": matrix}, {}) for i, matrix in enumerate(matrices)]
    made, seconds = shard(path / "multi", vector, points)

    def search(query: Any) -> list[Hit]:
        params = edge.SearchParams(hnsw_ef=128)
        request = edge.QueryRequest(10, query=edge.Query.Nearest(query, using="v"), params=params)
        return [Hit(sample.ids[int(p.id)], p.score) for p in made.query(request)]

    return Contestant(search, made.close, seconds)


def vector_per_token(path: Path, sample: Sample, documents: TokenBatch) -> Contestant:
    """A graph over tokens, candidates gathered from each query token's neighbours."""
    owner = np.repeat(np.arange(len(documents)), documents.lengths)
    vector = edge.EdgeVectorParams(
        documents.dim, edge.Distance.Dot, datatype=edge.VectorStorageDatatype.Float16, hnsw_config=GRAPH
    )
    values: Any = documents.values
    points = [edge.Point(t, {"v": x}, {}) for t, x in enumerate(values)]
    made, seconds = shard(path / "tokens", vector, points)

    def search(query: Any) -> list[Hit]:
        params = edge.SearchParams(hnsw_ef=128)
        requests = [edge.QueryRequest(64, query=edge.Query.Nearest(q, using="v"), params=params) for q in query]
        found = made.query_batch(edge.QueryBatchRequest(requests))
        candidates = np.unique([owner[int(p.id)] for points in found for p in points])
        scores = maxsim(query, [documents[i] for i in candidates])
        best = np.argsort(-scores)[:10]
        return [Hit(sample.ids[candidates[i]], float(scores[i])) for i in best]

    return Contestant(search, made.close, seconds)


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/two_stage.json"))
    arguments = parser.parse_args()
    sample = load_pydocs()
    documents = TokenBatch.from_list(d.tokens for d in sample.source.documents())
    truth = exact_top(sample.queries, documents, sample.ids, 10)
    relevant = [q.relevant for q in sample.questions]
    FDEEncoder(FDEConfig(documents.dim)).encode_documents(documents[:1])  # compile first
    result = []
    print(f"{'search':<22}{'recall@10':>10}{'p50 ms':>8}{'p95 ms':>8}{'load s':>8}{'index s':>9}{'KB/doc':>8}")
    with tempfile.TemporaryDirectory() as directory:
        for name, make in (
            ("two stages", two_stages),
            ("multivector graph", multivector_graph),
            ("a vector per token", vector_per_token),
        ):
            path = Path(directory) / name.replace(" ", "-")
            path.mkdir()
            made = make(path, sample, documents)
            measured = measure(made.search, sample.queries, truth, relevant)
            made.close()  # which removes the segments that indexing replaced
            size = sum(f.stat().st_blocks * 512 for f in path.rglob("*") if f.is_file() and "wal" not in f.parts)
            row = {
                "search": name,
                "recall_at_10": measured.recall_at_10,
                "p50_ms": measured.p50_ms,
                "p95_ms": measured.p95_ms,
                "disk_kb_per_document": size / 1024 / len(documents),
                **made.seconds,
            }
            result.append(row)
            print(
                f"{name:<22}{row['recall_at_10']:>10.3f}{row['p50_ms']:>8.1f}{row['p95_ms']:>8.1f}"
                f"{row['load_s']:>8.1f}{row['index_s']:>9.1f}{row['disk_kb_per_document']:>8.0f}"
            )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
