"""Several lists of candidates compared with one list of the same size: recall of the exact top 10 and nDCG@10.

In Qdrant Edge as `create` makes it (codes included), by `search(also=[...])`: FDEs alone with 50 candidates, and FDEs
with BM25, with a dense vector (the mean of a document's tokens, at unit length), and with both, 50 candidates in all.
"Candidates" are the different documents among them. BM25 needs texts, which only the sample (pydocs) has. nDCG needs
judgements: those of the sample's questions, or `--judgements`, a file of lines "query-id TAB corpus-id TAB score" for
the ids in the .npz file. Intervals are 95 % bootstrap intervals over queries, of the mean over the seeds; those
of differences from the first row are paired.

    python -m benchmarks.hybrid [--sets pydocs FILE.npz ...] [--judgements FILE.tsv] [--seeds 3] [--dims 2560 640]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from benchmarks.sets import BEST, Data, each, load, unit
from muvera_adapters.evidence.measuring import Float64, Interval
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.samples import docstring, load_pydocs
from muvera_core import FDEConfig, FDEEncoder

# name of a row, candidates of FDEs and of each other list, and fusion
ROWS: list[tuple[str, dict[str, int], Any]] = [
    ("FDE", {"fde": 50}, None),
    ("FDE + BM25", {"fde": 25, "bm25": 25}, None),
    ("FDE + dense", {"fde": 25, "dense": 25}, None),
    ("FDE + BM25 + dense", {"fde": 18, "bm25": 16, "dense": 16}, None),
    ("FDE + BM25, rrf", {"fde": 25, "bm25": 25}, "rrf"),
    ("FDE + dense, rrf", {"fde": 25, "dense": 25}, "rrf"),
]


class Texts:
    """Texts of documents and queries, by position."""

    def __init__(self) -> None:
        sample = load_pydocs()
        self.documents = [f"{name} {docstring(name) or ''}" for name in sample.ids]
        self.queries = [question.text for question in sample.questions]


def judgements(name: str, qrels: Path | None) -> list[set[int]] | None:
    """Positions of the relevant documents of each query; None: nobody judged."""
    if name == "pydocs":
        sample = load_pydocs()
        place = {document: i for i, document in enumerate(sample.ids)}
        return [{place[document] for document in question.relevant} for question in sample.questions]
    if qrels is None:
        return None
    with np.load(name) as file:
        documents = {str(document): i for i, document in enumerate(file["doc_ids"])}
        queries = {str(query): i for i, query in enumerate(file["query_ids"])}
    relevant: list[set[int]] = [set() for _ in queries]
    for line in qrels.read_text().splitlines()[1:]:
        query, document, score = line.split("\t")
        if int(score) > 0 and query in queries and document in documents:
            relevant[queries[query]].add(documents[document])
    return relevant


def ndcg(found: Sequence[int], relevant: set[int]) -> float:
    """nDCG@10 of ids, best first; NaN where nothing is relevant."""
    if not relevant:
        return float("nan")
    gains = 1 / np.log2(np.arange(2, BEST + 2))
    got = sum(gains[rank] for rank, document in enumerate(found[:BEST]) if document in relevant)
    return float(got / gains[: len(relevant)].sum())


def filled(directory: str, encoder: FDEEncoder, data: Data, texts: Texts | None) -> QdrantEdgeMuvera:
    """A collection with the other vectors."""
    QdrantEdgeMuvera.create(directory, "hybrid", encoder).close()
    shard = edge.EdgeShard.load(str(Path(directory) / "hybrid"))
    shard.update(edge.UpdateOperation.create_dense_vector("dense", data.documents.dim, edge.Distance.Dot))
    if texts is not None:
        shard.update(edge.UpdateOperation.create_sparse_vector("bm25", edge.Modifier.Idf))
    shard.close()
    store = QdrantEdgeMuvera.open(directory, "hybrid")
    vectors: dict[str, list[Any]] = {"dense": list(means(data.documents))}
    if texts is not None:
        model = edge.Bm25()
        vectors["bm25"] = [model.embed_document(text) for text in texts.documents]
    report = store.upsert(range(len(data.documents)), data.documents, vectors=vectors)
    assert not report.failed, report.failed
    store.wait_indexed()
    return store


def means(batch: Any) -> Any:
    """(n, dim) means of token matrices, at unit length."""
    return unit(np.stack([tokens.mean(axis=0) for tokens in each(batch)]))


def measured(
    data: Data, texts: Texts | None, relevant: list[set[int]] | None, dim: int, seeds: int
) -> dict[str, Float64]:
    """(queries, 3) recall, nDCG@10 and number of different candidates of each row, means over the seeds."""
    found: dict[str, list[Any]] = {}
    model = edge.Bm25()
    dense = means(data.queries)
    for seed in range(1, seeds + 1):
        config = FDEConfig.of_size(data.documents.dim, dim, seed=seed)
        with tempfile.TemporaryDirectory() as directory, filled(directory, FDEEncoder(config), data, texts) as store:
            for name, limits, fusion in ROWS:
                if "bm25" in limits and texts is None:
                    continue
                figures = []
                for i, query in enumerate(each(data.queries)):
                    also = [
                        edge.Prefetch(limits[vector], query=edge.Query.Nearest(value, using=vector))
                        for vector, value in _queries(texts, model, dense, i).items()
                        if vector in limits
                    ]
                    hits = store.search(
                        query, BEST, limits["fde"], also=also or None, fusion=fusion, with_payload=False
                    )
                    ids = [int(hit.id) for hit in hits]
                    recall = len(set(ids) & set(data.best[i])) / BEST
                    judged = float("nan") if relevant is None else ndcg(ids, relevant[i])
                    figures.append((recall, judged, hits.timings.candidates))
                found.setdefault(name, []).append(figures)
    return {name: np.asarray(figures, float).mean(axis=0) for name, figures in found.items()}


def _queries(texts: Texts | None, model: edge.Bm25, dense: Any, i: int) -> Mapping[str, Any]:
    words = {} if texts is None else {"bm25": model.embed_query(texts.queries[i])}
    return {**words, "dense": dense[i].tolist()}


def main() -> None:
    """Prints a table for each set and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["pydocs"])
    parser.add_argument("--judgements", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dims", type=int, nargs="+", default=[2_560, 640])
    arguments = parser.parse_args()
    for name in arguments.sets:
        data = load(name)
        relevant = judgements(name, arguments.judgements)
        exact = "" if relevant is None else f", exact MaxSim has nDCG@10 {_mean(_exact(data, relevant)):.3f}"
        print(f"\n{data}{exact}")
        for dim in arguments.dims:
            rows = measured(data, Texts() if name == "pydocs" else None, relevant, dim, arguments.seeds)
            print(f"FDE of {dim:,} dimensions, {arguments.seeds} seeds")
            first = rows["FDE"]
            for row, figures in rows.items():
                line = f"  {row:<22}{figures[:, 2].mean():>6.1f} candidates"
                for k, what in ((0, "recall"), (1, "nDCG")):
                    judged = ~np.isnan(figures[:, k])
                    if not judged.any():
                        continue
                    value = Interval.of(figures[judged, k], seed=0)
                    more = Interval.of(figures[judged, k] - first[judged, k], seed=0)
                    line += f"  {what} {value.mean:.3f} ({value.low:.3f}-{value.high:.3f})"
                    line += f" {more.mean:+.3f} ({more.low:+.3f} to {more.high:+.3f})"
                print(line, flush=True)


def _exact(data: Data, relevant: list[set[int]]) -> Float64:
    return np.array([ndcg([int(i) for i in best], right) for best, right in zip(data.best, relevant, strict=True)])


def _mean(values: Float64) -> float:
    return float(np.nanmean(values))


if __name__ == "__main__":
    main()
