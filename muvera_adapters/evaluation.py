"""Measuring a search against exact MaxSim."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np

from muvera_adapters.results import DocumentId, Hit
from muvera_core import TokenBatch, maxsim
from muvera_core.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """How one way of searching did.

    Attributes:
        recall_at_10: mean share of the exact top 10 that was found.
        success_at_10: share of queries with a relevant document in the top 10.
        p50_ms: median latency.
        p95_ms: 95th percentile of latency.
    """

    recall_at_10: float
    success_at_10: float
    p50_ms: float
    p95_ms: float


def exact_top(queries: TokenBatch, documents: TokenBatch, ids: Sequence[DocumentId], k: int) -> list[list[DocumentId]]:
    """Ids of the k best documents of each query by MaxSim over all, computed here; ties by position."""
    tops = []
    for query in queries_of(queries):
        order = np.argsort(-maxsim(query, documents), kind="stable")
        tops.append([ids[i] for i in order[:k]])
    return tops


def measure(
    search: Callable[[Tokens], list[Hit]],
    queries: TokenBatch,
    exact: Sequence[Sequence[DocumentId]],
    relevant: Sequence[Set[DocumentId]] | Sequence[frozenset[str]],
) -> Measured:
    """Runs ``search`` (ten hits) once to warm up and once for every query, one after the other."""
    search(queries[0])
    seconds, found = [], []
    for query in queries_of(queries):
        start = time.perf_counter()
        hits = search(query)
        seconds.append(time.perf_counter() - start)
        found.append([hit.id for hit in hits[:10]])
    recalls = [len(set(ids) & set(top)) / len(top) for ids, top in zip(found, exact, strict=True)]
    successes = [not right.isdisjoint(ids) for ids, right in zip(found, relevant, strict=True)]
    milliseconds = 1000 * np.array(seconds)
    return Measured(
        recall_at_10=float(np.mean(recalls)),
        success_at_10=float(np.mean(successes)),
        p50_ms=float(np.median(milliseconds)),
        p95_ms=float(np.percentile(milliseconds, 95)),
    )


def queries_of(batch: TokenBatch) -> list[Tokens]:
    """The matrices of a batch, as a list."""
    return [batch[i] for i in range(len(batch))]
