"""Measurement of recall of the exact MaxSim ranking, with its uncertainty, and of latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.progress import progress_bar
from muvera_adapters.results import DocumentId, Hit
from muvera_core import TokenBatch, maxsim
from muvera_core.tokens import Tokens

Ranking = Sequence[DocumentId]
Float64 = npt.NDArray[np.float64]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries, with its 95 % bootstrap interval (percentiles of the means of resampled queries).

    Attributes:
        mean: mean over the queries.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Float64, seed: int) -> Interval:
        """The interval for ``values``, one for each query."""
        low, high = np.percentile(bootstrap(values, seed), (2.5, 97.5))
        return cls(float(values.mean()), float(low), float(high))


def bootstrap(values: Float64, seed: int) -> Float64:
    """(2000,) means of ``values`` (one for each query) over resampled queries; the same for the same seed."""
    chosen = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    return values[chosen].mean(axis=1)


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of sequential queries in milliseconds.

    Attributes:
        p50_ms: median latency.
        p95_ms: 95th percentile of latency.
    """

    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """The latency from the seconds of each query."""
        p50, p95 = 1000 * np.percentile(seconds, (50, 95))
        return cls(float(p50), float(p95))


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall, success and latency of one way of searching.

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


def exact_top(
    queries: TokenBatch, documents: TokenBatch, ids: Ranking, k: int, *, progress: bool = False
) -> list[list[DocumentId]]:
    """Ids of the k best documents for each query by exact MaxSim, computed in this process; ties by position."""
    search = exact_search(documents, ids, k)
    return ask(search, queries, warm_up=False, progress="exact MaxSim" if progress else None)[0]


def exact_search(documents: TokenBatch, ids: Ranking, k: int) -> Callable[[Tokens], list[Hit]]:
    """A search that scores every document in this process."""

    def search(query: Tokens) -> list[Hit]:
        scores = maxsim(query, documents)
        return [Hit(ids[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k]]

    return search


def positions(found: Sequence[Ranking], exact: Sequence[Ranking]) -> Float64:
    """(queries, k) positions of the exact results in the rankings found, from 0; infinite where not found.

    k is the length of the shortest exact ranking.
    """
    k = min(map(len, exact))
    out = np.full((len(exact), k), np.inf)
    for row, ids, top in zip(out, found, exact, strict=True):
        place = {found_id: i for i, found_id in reversed(list(enumerate(ids)))}
        row[:] = [place.get(wanted, np.inf) for wanted in top[:k]]
    return out


def recalls(places: Float64, k: int, candidates: float = np.inf) -> Float64:
    """(queries,) share of the exact top k among the first ``candidates`` found; ``places`` are of :func:`positions`."""
    return (places[:, :k] < candidates).mean(axis=1)


def ask(
    search: Callable[[Tokens], Sequence[Hit]],
    queries: TokenBatch,
    *,
    warm_up: bool = True,
    progress: str | None = None,
) -> tuple[list[list[DocumentId]], list[float]]:
    """Runs all queries one after the other, and returns the ids found and the seconds taken for each.

    Args:
        search: searches for one query.
        queries: queries to run.
        warm_up: whether to run the first query once before the measurement.
        progress: text of a progress bar; None: no bar.
    """
    if warm_up:
        search(queries[0])
    found, seconds = [], []
    for query in progress_bar(queries_of(queries), desc=progress, unit="query", disable=progress is None):
        start = time.perf_counter()
        hits = search(query)
        seconds.append(time.perf_counter() - start)
        found.append([hit.id for hit in hits])
    return found, seconds


def measure(
    search: Callable[[Tokens], Sequence[Hit]],
    queries: TokenBatch,
    exact: Sequence[Ranking],
    relevant: Sequence[Set[Any]],
) -> Measured:
    """Runs ``search`` (ten hits) once to warm up and once for every query, one after the other."""
    found, seconds = ask(search, queries)
    best = [ids[:10] for ids in found]
    latency = Latency.of(seconds)
    return Measured(
        recall_at_10=float(recalls(positions(best, exact), 10).mean()),
        success_at_10=float(np.mean([not right.isdisjoint(ids) for ids, right in zip(best, relevant, strict=True)])),
        p50_ms=latency.p50_ms,
        p95_ms=latency.p95_ms,
    )


def queries_of(batch: TokenBatch) -> list[Tokens]:
    """The matrices of a batch, as a list."""
    return [batch[i] for i in range(len(batch))]
