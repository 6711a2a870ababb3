"""Recall of an encoding among its candidates, by a scan and through an index, with intervals; shared by benchmarks.

Recall is the share of the ten best documents by exact MaxSim among the first 20, 100 and 200 of the first stage. "scan"
compares float32 vectors with all documents. "index" asks Qdrant Edge: an HNSW graph (m=16, ef_construct=100, ef 400 as
a store has it for 200 candidates) over codes that are not rescored. An interval is a 95 % bootstrap interval over
queries, of each query's mean over the seeds; that of a difference resamples the queries' differences, so it is paired.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from benchmarks.sets import BEST, Data
from muvera_adapters.evidence.measuring import Float64, Interval, positions, queries_of, recalls
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.qdrant.collection import Preset
from muvera_core import Encoder, TokenBatch

CANDIDATES = (20, 100, 200)
BITS: dict[Preset | None, int] = {None: 32, "int8": 8, "turbo4": 4, "turbo2": 2, "binary": 2, "product": 2}
# small collections are scanned unless told otherwise
GRAPH = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10)
SCAN = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10**9)
ALWAYS = edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)


@dataclass(frozen=True)
class Index:
    """How the index keeps its vectors and is searched.

    Attributes:
        codes: quantization; None: float32 vectors.
        graph: parameters of the graph.
        ef: search width of the graph.
    """

    codes: Preset | None = "turbo2"
    graph: edge.HnswIndexConfig = GRAPH
    ef: int = 400


@dataclass(frozen=True)
class Setting:
    """A row: an encoder for each seed, and its index.

    Attributes:
        name: text for tables.
        make: makes the encoder of a seed.
        index: how its vectors are kept.
        documents: what is encoded in place of the set's documents, the same number of them; None: the set's.
        among: documents whose recall is counted; None: all.
    """

    name: str
    make: Callable[[int], Encoder]
    index: Index = Index()
    documents: TokenBatch | None = None
    among: frozenset[int] | None = None


class Remembered:
    """Encodes each document only once for several indexes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}
        self.token_dim, self.dim, self.fingerprint = encoder.token_dim, encoder.dim, encoder.fingerprint
        self.document_norm = getattr(encoder, "document_norm", None)
        self.encode_queries, self.to_dict = encoder.encode_queries, encoder.to_dict

    def encode_documents(self, docs: Any, mask: Any = None) -> npt.NDArray[np.float32]:
        """The FDEs of the wrapped encoder."""
        keys = [docs[i].tobytes() for i in range(len(docs))]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            vectors = self._encoder.encode_documents([docs[i] for i in new])
            self._known.update(zip((keys[i] for i in new), vectors, strict=True))
        return np.stack([self._known[key] for key in keys])


def measure(setting: Setting, data: Data, seeds: int) -> dict[str, Any]:
    """One row, as JSON values: ``scan`` and ``index`` hold (seeds, queries, candidates) recalls."""
    documents = setting.documents or data.documents
    scans, indexed = [], []
    for seed in range(1, seeds + 1):
        encoder = setting.make(seed)
        scores = encoder.encode_queries(data.queries) @ encoder.encode_documents(documents).T
        scanned = [row.tolist() for row in np.argsort(-scores, axis=1, kind="stable")[:, : max(CANDIDATES)]]
        scans.append(shares(scanned, data, setting.among))
        found = through_index(setting.index, encoder, documents, data.queries)
        indexed.append(shares(found, data, setting.among))
    return {
        "setting": setting.name,
        "dim": encoder.dim,
        "codes": setting.index.codes,
        "bytes": encoder.dim * BITS[setting.index.codes] // 8,
        "scan": np.round(scans, 4).tolist(),
        "index": np.round(indexed, 4).tolist(),
    }


def shares(found: list[list[Any]], data: Data, among: frozenset[int] | None = None) -> Float64:
    """(queries, candidates) recall; with ``among`` of the best documents that are in it, and NaN where none is."""
    places = positions(found, data.best)
    if among is None:
        return np.stack([recalls(places, BEST, n) for n in CANDIDATES], axis=1)
    counted = np.array([[best in among for best in row] for row in data.best])
    inside = np.stack([((places < n) & counted).sum(axis=1) for n in CANDIDATES], axis=1)
    with np.errstate(invalid="ignore"):
        return inside / counted.sum(axis=1, keepdims=True)


def through_index(
    index: Index, encoder: Encoder, documents: TokenBatch, queries: TokenBatch, limit: int = max(CANDIDATES)
) -> list[list[Any]]:
    """Positions of the documents that the index finds first, for each query."""
    half, single = edge.VectorStorageDatatype.Float16, edge.VectorStorageDatatype.Float32
    with tempfile.TemporaryDirectory() as directory:
        store = QdrantEdgeMuvera.create(
            directory,
            "recall",
            encoder,
            quantization=index.codes,
            datatype=half if index.codes else single,
            store_tokens=False,
            hnsw_config=index.graph,
            optimizers=ALWAYS,
        )
        with store:
            report = store.upsert(range(len(documents)), documents)
            assert not report.failed, report.failed
            store.wait_indexed()
            params = edge.SearchParams(hnsw_ef=index.ef, quantization=edge.QuantizationSearchParams(rescore=False))
            return [
                [hit.id for hit in store.search(query, limit, rerank="none", search_params=params)]
                for query in queries_of(queries)
            ]


def by_query(row: dict[str, Any], how: str) -> Float64:
    """(queries, candidates) recall of a row, its mean over the seeds."""
    return np.nanmean(np.asarray(row[how], float), axis=0)


def interval(values: Float64) -> list[Interval]:
    """One for each number of candidates."""
    values = values[~np.isnan(values).any(axis=1)]
    return [Interval.of(column, seed=0) for column in values.T]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text: means, and differences through the index from the first row with their intervals."""
    kinds = [kind for kind in ("scan", "index") if kind in rows[0]]
    heads = "".join(f"  {kind + ' @':>8}" + "".join(f"{n:<7}" for n in CANDIDATES) for kind in kinds)
    lines = [f"{'':<44}{'bytes':>7}{heads}  index less that of the first row"]
    for row in rows:
        line = f"{row['setting']:<44}{row['bytes']:>7,}"
        for kind in kinds:
            line += " " * 10 + "".join(f"{x:<7.3f}" for x in np.nanmean(by_query(row, kind), axis=0))
        if row is not rows[0]:
            for d in interval(by_query(row, "index") - by_query(rows[0], "index")):
                line += f"  {d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f})"
        lines.append(line)
    return "\n".join(lines)
