"""Searches of databases with one key column: ranked keys first, rows of the hits at the end."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from muvera_adapters.results import Hit, Hits, Timings
from muvera_adapters.stores.fusion import FDE, Candidates
from muvera_adapters.stores.keys import Key, Keys, from_key
from muvera_adapters.stores.operations import Compute, Operation
from muvera_adapters.stores.query_scaling import Query
from muvera_adapters.stores.searching import (
    SearchOptions,
    above_threshold,
    final_ranking,
    fused_page,
    maxsim_of_stored,
    score_in_slices,
)
from muvera_adapters.stores.timing import Stage


class Row(Protocol):
    """A document that was read."""

    @property
    def key(self) -> Key: ...  # noqa: D102

    @property
    def tokens(self) -> npt.NDArray[np.float32] | None: ...  # noqa: D102


R = TypeVar("R", bound=Row)
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document of the final ranking.

    Attributes:
        key: key of the document.
        score: MaxSim, or the encoder's estimate.
        fde_score: encoder's estimate; None: unknown.
        reranked: whether the score is MaxSim.
        found_by: names of the searches that found it.
        weight: sum of the query's weights; None for fused scores.
    """

    key: Key
    score: float
    fde_score: float | None
    reranked: bool
    found_by: tuple[str, ...]
    weight: float | None


async def two_stages(
    o: SearchOptions,
    query: Query,
    timings: Timings,
    lists: Sequence[Sequence[R]],
    searched: Sequence[str | None],
    estimate: Callable[[R], float],
    score: Callable[[Sequence[Key]], Operation[dict[Key, float]]] | None,
    there: Callable[[Sequence[Key]], Operation[Container[Key]]] | None = None,
) -> tuple[list[Ranked], list[Ranked]]:
    """Hits to show, and all candidates without tokens.

    Args:
        o: arguments of the search.
        query: the query.
        timings: where the time of the search goes.
        lists: rows of the search over FDEs, and of each further search.
        searched: names of the vectors or fields of the further searches.
        estimate: encoder's estimate of a row of the search over FDEs.
        score: MaxSim of those keys that have tokens; None: fused ranks of the first stage are the result.
        there: keys that still exist among those without tokens; None: nothing can be deleted during a search.
    """
    candidates = Candidates.of(searched, [[row.key for row in rows] for rows in lists])
    found_by = candidates.found_by()
    timings.candidates = len(found_by)
    estimates = {row.key: estimate(row) for row in lists[0]}
    scores: dict[Key, float] = {}
    without: list[Key] = []
    if score is not None:
        order = candidates.ranked() if query.also else list(estimates)

        async def scored(keys: Sequence[Key]) -> dict[Key, float]:
            some = await score(keys)
            without.extend(key for key in keys if key not in some)
            return some

        with Stage(timings, "second_stage"):
            scores = await score_in_slices(order, scored, o.wanted, o.stop_after)
        timings.reranked = len(scores)
    if o.rrf is not None:
        first = list(estimates) if score is None else sorted(scores, key=lambda key: -scores[key])
        page = fused_page([first, *candidates.further], o)
        return [Ranked(key, value, estimates.get(key), False, found_by[key], None) for key, value in page], []
    reranked = [
        Ranked(key, value, estimates.get(key), True, found_by[key], query.weight) for key, value in scores.items()
    ]
    reranked.sort(key=lambda one: -one.score)
    if without and there is not None:
        existing = await there(without)
        without = [key for key in without if key in existing]
    rest = [
        Ranked(key, estimates.get(key, 0.0), estimates.get(key), False, found_by[key], query.weight) for key in without
    ]
    return final_ranking(reranked, rest, o), rest


def by_estimate(
    o: SearchOptions, query: Query, timings: Timings, rows: Sequence[R], estimate: Callable[[R], float]
) -> list[Ranked]:
    """Hits of the search over FDEs alone."""
    timings.candidates = len(rows)
    pairs = [(row.key, estimate(row)) for row in rows[: o.wanted]]
    ranking = [Ranked(key, value, value, False, (FDE,), query.weight) for key, value in pairs]
    return above_threshold(ranking, o)[o.offset :]


async def by_maxsim(
    o: SearchOptions,
    query: Query,
    page: Callable[[C | None], Operation[tuple[list[Key], C | None]]],
    score: Callable[[Sequence[Key]], Operation[dict[Key, float]]],
) -> list[Ranked]:
    """Hits among all documents that have tokens.

    Args:
        o: arguments of the search.
        query: the query.
        page: keys of the page at a cursor (None: the first), and the cursor of the next page (None: there is none).
        score: MaxSim of those keys that have tokens.
    """
    best: list[tuple[float, Key]] = []
    cursor: C | None = None
    while True:
        keys, cursor = await page(cursor)
        scores = await score(keys)
        best += [(value, key) for key, value in scores.items()]
        best = sorted(best, key=lambda pair: (-pair[0], str(pair[1])))[: o.wanted]
        if cursor is None:
            break
    return final_ranking([Ranked(key, value, None, True, (), query.weight) for value, key in best], [], o)


async def score_rows(
    query: npt.NDArray[np.float32], rows: Sequence[Row], timings: Timings, *, cosine: bool
) -> dict[Key, float]:
    """MaxSim of those rows that have tokens, in this process."""
    matrices = {row.key: row.tokens for row in rows if row.tokens is not None}
    timings.token_bytes = (timings.token_bytes or 0) + sum(matrix.nbytes for matrix in matrices.values())
    scores = await Compute(partial(maxsim_of_stored, query, list(matrices.values()), cosine=cosine))
    return {key: float(value) for key, value in zip(matrices, scores, strict=True)}


async def hits_of(
    shown: Sequence[Ranked],
    unscored: Sequence[Ranked],
    fetch: Callable[[Sequence[Key]], Operation[Sequence[R]]],
    hit: Callable[[Ranked, R], Hit],
    timings: Timings,
) -> Hits:
    """Hits, with payloads and tokens that are fetched now, and candidates without tokens."""
    with Stage(timings, "payload"):
        rows = await fetch(list(dict.fromkeys(one.key for one in [*shown, *unscored])))
    found = {row.key: row for row in rows}
    hits, rest = ([hit(one, found[one.key]) for one in some if one.key in found] for some in (shown, unscored))
    return Hits(hits, rest, timings=timings)


def to_hit(
    o: SearchOptions,
    keys: Keys,
    one: Ranked,
    payload: dict[str, Any],
    tokens: npt.NDArray[np.float32] | None,
) -> Hit:
    """The hit of a ranked document, with what was asked for of its payload and tokens."""
    return Hit(
        from_key(one.key, keys),
        one.score,
        one.fde_score,
        None if o.payload is False else payload,
        tokens if o.tokens else None,
        one.reranked,
        one.found_by,
        one.weight,
    )
