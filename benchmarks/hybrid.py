"""Candidates of FDEs, of keywords and of one dense vector, and an early end of the second stage, through Qdrant Edge.

    python -m benchmarks.hybrid [--vectors FILE.npz ...] [--total 50] [--seeds 0 1 2] [--json FILE]

First table: recall of the ten best documents by exact MaxSim, among ``total`` candidates in all that one search or
several of them bring, each an equal part (``search(also=[...])``); and nDCG@10 after reranking, where there are
judgements. "dense" is the mean of a document's tokens at unit length, "bm25" a sparse vector of BM25 (k1 1.2, b .75),
which only the sample has, whose texts are those of the Python that runs. Means over seeds of the encoder; intervals are
95 % bootstraps of the difference to FDEs alone, over queries.

Second table: ``search(rerank="client", stop_after=N)``: share of the ten best documents of a full rerank that are
found, and share of the token bytes that are fetched.

Collections are made with the store's defaults (2,560 dimensions, codes of 2 bits) after ``wait_indexed()``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from benchmarks import sets
from muvera_adapters import RRF
from muvera_adapters.evidence.measuring import bootstrap
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.samples import docstring, load_pydocs
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim

K1, B = 1.2, 0.75
#: searches whose candidates are joined
CHOICES = (("fde",), ("bm25",), ("dense",), ("fde", "bm25"), ("fde", "dense"), ("fde", "bm25", "dense"))
#: prefetch, and numbers of candidates in a row after which the second stage ends
DEPTHS = (200, 500)
STOPS = (16, 32, 64, 128)


@dataclass(frozen=True, eq=False)
class Texts:
    """BM25 of texts as sparse vectors, whose dot products are its scores."""

    documents: list[edge.SparseVector]
    queries: list[edge.SparseVector]


def bm25(documents: Sequence[str], queries: Sequence[str]) -> Texts:
    """Sparse vectors of documents and queries."""
    words = [Counter(re.findall(r"[a-z0-9]+", text.lower())) for text in documents]
    number: dict[str, int] = {}
    frequency: Counter[str] = Counter(word for each in words for word in each)
    mean = sum(sum(each.values()) for each in words) / len(words)
    vectors = []
    for each in words:
        length = sum(each.values())
        values = {}
        for word, count in each.items():
            idf = math.log(1 + (len(words) - frequency[word] + 0.5) / (frequency[word] + 0.5))
            values[number.setdefault(word, len(number))] = (
                idf * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))
            )
        vectors.append(edge.SparseVector(list(values), list(values.values())))
    asked = []
    for text in queries:
        there = sorted({number[word] for word in re.findall(r"[a-z0-9]+", text.lower()) if word in number})
        asked.append(edge.SparseVector(there, [1.0] * len(there)))
    return Texts(vectors, asked)


def means(batch: TokenBatch) -> npt.NDArray[np.float32]:
    """(n, dim) means of tokens, at unit length."""
    each = np.stack([batch[i].mean(axis=0) for i in range(len(batch))]).astype(np.float32)
    return np.asarray(each / np.linalg.norm(each, axis=1, keepdims=True), np.float32)


def filled(place: Path, data: sets.Data, texts: Texts | None, seed: int) -> QdrantEdgeMuvera:
    """A collection of tokens, means and sparse vectors that gets FDEs in place."""
    dim = data.documents.dim
    comparator = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    no_graph = edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000)
    vectors = {
        "colbert": edge.EdgeVectorParams(dim, edge.Distance.Dot, multivector_config=comparator, hnsw_config=no_graph),
        "dense": edge.EdgeVectorParams(dim, edge.Distance.Dot),
    }
    sparse = {} if texts is None else {"bm25": edge.EdgeSparseVectorParams()}
    (place / "hybrid").mkdir()
    shard = edge.EdgeShard.create(str(place / "hybrid"), edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse))
    dense = means(data.documents)
    for start in range(0, len(data.documents), 200):
        points = []
        for i in range(start, min(start + 200, len(data.documents))):
            own: dict[str, Any] = {"colbert": np.ascontiguousarray(data.documents[i], np.float32), "dense": dense[i]}
            if texts is not None:
                own["bm25"] = texts.documents[i]
            points.append(edge.Point(i, own, {}))
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.close()
    encoder = FDEEncoder(FDEConfig(dim, seed=seed))
    store = QdrantEdgeMuvera.adopt(str(place), "hybrid", encoder, tokens_vector="colbert")
    store.backfill()
    store.wait_indexed()
    return store


def gain(judged: dict[Any, float], ranking: Sequence[Any]) -> float:
    """nDCG@10."""
    found = sum(judged.get(d, 0.0) / math.log2(i + 2) for i, d in enumerate(ranking[:10]))
    ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(judged.values(), reverse=True)[:10]))
    return found / ideal if ideal else 0.0


def also_of(names: Sequence[str], query: int, dense: Any, texts: Texts | None, limit: int) -> list[Any]:
    """Entries of ``also``."""
    made = []
    for name in names:
        vector: Any = dense[query].tolist() if name == "dense" or texts is None else texts.queries[query]
        made.append(edge.Prefetch(limit, query=edge.Query.Nearest(vector, using=name)))
    return made


def measure(data: sets.Data, texts: Texts | None, judged: list[dict[Any, float]] | None, args: Any) -> dict[str, Any]:
    """Both tables of a set."""
    dense, n = means(data.queries), len(data.queries)
    recalls: dict[tuple[str, ...], list[Any]] = {}
    gains: dict[tuple[str, ...], list[Any]] = {}
    stops: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as place, filled(Path(place), data, texts, seed) as store:
            for names in CHOICES:
                if texts is None and "bm25" in names:
                    continue
                part = -(-args.total // len(names))
                found: list[float] = []
                ranked: list[float] = []
                for q in range(n):
                    if "fde" in names:
                        also = also_of(names[1:], q, dense, texts, part)
                        hits = store.search(
                            data.queries[q], 10, part, also=also or None, with_payload=False, count_missing=False
                        )
                        ranking: list[Any] = [hit.id for hit in hits]
                    else:  # the other search alone: what it found, and one candidate of the FDEs beside it
                        also = also_of(names, q, dense, texts, part)
                        hits = store.search(
                            data.queries[q],
                            part + 1,
                            1,
                            rerank="none",
                            fusion=RRF(weights=(1e-9, 1)),
                            also=also,
                            with_payload=False,
                            count_missing=False,
                        )
                        ranking = exact(
                            data, q, [hit.id for hit in hits if len(hit.found_by) > 1 or hit.found_by != ("fde",)]
                        )[:10]
                    found.append(len(set(ranking) & set(data.best[q])) / 10)
                    ranked.append(gain(judged[q], ranking) if judged else 0.0)
                recalls.setdefault(names, []).append(found)
                gains.setdefault(names, []).append(ranked)
            for depth in DEPTHS:
                for q in range(n):
                    whole = store.search(
                        data.queries[q], 10, depth, rerank="client", with_payload=False, count_missing=False
                    )
                    for stop in STOPS:
                        hits = store.search(
                            data.queries[q],
                            10,
                            depth,
                            rerank="client",
                            stop_after=stop,
                            with_payload=False,
                            count_missing=False,
                        )
                        kept = len({hit.id for hit in hits} & {hit.id for hit in whole}) / len(whole)
                        fetched = (hits.timings.token_bytes or 0) / (whole.timings.token_bytes or 1)
                        stops.setdefault((depth, stop), []).append((kept, fetched))
    return report(data, recalls, gains if judged else None, stops, args.total)


def exact(data: sets.Data, query: int, ids: Sequence[Any]) -> list[Any]:
    """Documents by exact MaxSim."""
    scores = maxsim(data.queries[query], [data.documents[i] for i in ids])
    return [ids[i] for i in np.argsort(-scores, kind="stable")]


def report(data: sets.Data, recalls: Any, gains: Any, stops: Any, total: int) -> dict[str, Any]:
    """Prints both tables."""
    print(f"\n{data}\n")
    print(f"| {total} candidates of | recall | difference to FDEs | 95 % |{' nDCG@10 |' if gains else ''}")
    print(f"|---|---|---|---|{'---|' if gains else ''}")
    base = np.mean(recalls["fde",], axis=0)
    rows = {}
    for names, found in recalls.items():
        values = np.mean(found, axis=0)
        low, high = np.percentile(bootstrap(values - base, 1), (2.5, 97.5))
        ndcg = f" {np.mean(gains[names]):.3f} |" if gains else ""
        change = f"{(values - base).mean():+.3f} | {low:+.3f} to {high:+.3f}"
        print(f"| {' + '.join(names)} | {values.mean():.3f} | {change} |{ndcg}")
        rows[" + ".join(names)] = float(values.mean())
    print("\n| prefetch | stop_after | kept of the top 10 | token bytes fetched |\n|---|---|---|---|")
    ends = []
    for (depth, stop), pairs in stops.items():
        kept, fetched = np.mean(pairs, axis=0)
        print(f"| {depth} | {stop} | {kept:.3f} | {fetched:.2f} |")
        ends.append([depth, stop, float(kept), float(fetched)])
    return {"set": str(data), "recall": rows, "stop_after": ends}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--vectors", nargs="*", default=[], help="further sets, as of benchmarks/sets.py, without texts"
    )
    parser.add_argument("--total", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sample = load_pydocs()
    data = sets.load("pydocs")
    texts = bm25([f"{name} {docstring(name) or ''}" for name in sample.ids], [q.text for q in sample.questions])
    position = {name: i for i, name in enumerate(sample.ids)}
    judged = [{position[name]: 1.0 for name in q.relevant if name in position} for q in sample.questions]
    results = [measure(data, texts, judged, args)]
    results += [measure(sets.load(name), None, None, args) for name in args.vectors]
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
