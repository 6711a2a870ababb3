"""Operations that search: nearest FDEs, then MaxSim of the candidates' stored tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.lancedb import also
from muvera_adapters.lancedb import requests as r
from muvera_adapters.lancedb.backfilling import without_fde
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.expressions import checked
from muvera_adapters.lancedb.reading import Cursor, fetch_all, next_keys, sample_fdes, token_columns
from muvera_adapters.lancedb.requests import FILTER_KEYS, Row
from muvera_adapters.results import Hit, Hits, Timings
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import check_encodable, need_fde, need_tokens
from muvera_adapters.stores.fusion import FDE, Candidates
from muvera_adapters.stores.grouping import grouped
from muvera_adapters.stores.keys import Key, from_key
from muvera_adapters.stores.operations import Compute
from muvera_adapters.stores.query_scaling import Query, QueryFDE
from muvera_adapters.stores.searching import (
    SearchOptions,
    above_threshold,
    check_also,
    check_mode,
    check_options,
    check_queries,
    check_rerank,
    final_ranking,
    first_lists,
    fused_page,
    maxsim_of_stored,
    score_in_slices,
    search_each,
    with_missing,
)
from muvera_adapters.stores.timing import Stage

Rerank = Literal["auto", "native", "client", "none"]
_MODES = get_args(Rerank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SearchOptions):
    """Arguments of a search; the stores document them.

    Attributes:
        nprobes: partitions of the index to look into; None: LanceDB's default.
        refine_factor: times as many candidates whose FDEs are read again; None: 2 where the index has codes.
        count_missing: count the documents that have no FDE.
    """

    nprobes: int | None = None
    refine_factor: int | None = None
    count_missing: bool = True


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document of the final ranking.

    Attributes:
        key: key of the document.
        score: MaxSim, or the encoder's estimate.
        fde_score: the encoder's estimate, None where it is not known.
        reranked: whether the score is MaxSim.
        found_by: names of the searches that found it.
        weight: sum of the query's weights, None for fused scores.
    """

    key: Key
    score: float
    fde_score: float | None
    reranked: bool
    found_by: tuple[str, ...]
    weight: float | None


async def search(collection: Collection, queries: Sequence[Any], options: Options, at_once: int = 1) -> list[Hits]:
    """Hits of every query; at most ``at_once`` searches go on at a time."""
    found = grouped(partial(_search, collection, queries, at_once), options)
    return await with_missing(collection, found, without_fde(collection), wanted=options.count_missing)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """MaxSim over everything that has tokens, page by page in the order of keys."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check(collection, options)
    query = check_queries(collection, [query_tokens], options, check_encodable)[0]
    chosen = checked(options.filter)
    timings = Timings()
    best: list[tuple[float, Key]] = []
    cursor: Cursor = None
    while True:
        keys, cursor = await next_keys(collection, chosen, FILTER_KEYS, cursor)
        scores = await _score_here(collection, query.scored, keys, timings)
        best += [(value, key) for key, value in scores.items()]
        best = sorted(best, key=lambda pair: (-pair[0], str(pair[1])))[: options.wanted]
        if cursor is None:
            break
    ranking = [Ranked(key, value, None, True, (), query.weight) for value, key in best]
    return await _shown(collection, final_ranking(ranking, [], options), [], options, timings)


async def prefetch(
    collection: Collection, query_tokens: Any, options: Options
) -> tuple[npt.NDArray[np.float32], list[tuple[str, int]]]:
    """The query's FDE (dim,) as the first stage of a search sends it, and the settings of its query."""
    need_fde(collection)
    _check(collection, options)
    query = check_queries(collection, [query_tokens], options, check_encodable)
    sample = partial(sample_fdes, collection)
    fdes = await query_scaling.encode(collection, query, sample, fit=options.query_fit)
    return fdes[0].vector, _tuning(collection, options)


async def _search(collection: Collection, queries: Sequence[Any], at_once: int, options: Options) -> list[Hits]:
    _check(collection, options)
    check_also(options, also.check)
    mode = _mode(collection, options)
    checked_queries = check_queries(collection, queries, options, check_encodable)
    one, sample = partial(_two_stages, collection, mode, options), partial(sample_fdes, collection)
    return await search_each(collection, checked_queries, one, at_once, sample, fit=options.query_fit)


async def _two_stages(
    collection: Collection, mode: str, o: Options, query: Query, fde: QueryFDE, timings: Timings
) -> Hits:
    """Candidates, their scores, and what hits have to show."""
    chosen, tuning = checked(o.filter), _tuning(collection, o)
    if mode == "none" and o.rrf is None:
        return await _none(collection, query, fde, chosen, tuning, o, timings)
    nearest = r.near_fde(collection, fde.vector, o.candidates, chosen, (), tuning)
    further = [also.request(collection, each, o.candidates, chosen) for each in query.also]
    lists = await first_lists(timings, nearest, further)
    searched = [also.searched(each) for each in query.also]
    candidates = Candidates.of(searched, [[row.key for row in rows] for rows in lists])
    found_by = candidates.found_by()
    timings.candidates = len(found_by)
    estimates = {row.key: fde.score(_dot(row)) for row in lists[0]}
    scores: dict[Key, float] = {}
    without: list[Key] = []
    if mode != "none":
        order = candidates.ranked() if query.also else list(estimates)

        async def score(keys: Sequence[Key]) -> dict[Key, float]:
            """MaxSim of the candidates that have tokens."""
            some = await (_score_there if mode == "native" else _score_here)(collection, query.scored, keys, timings)
            without.extend(key for key in keys if key not in some)
            return some

        with Stage(timings, "second_stage"):
            scores = await score_in_slices(order, score, o.wanted, o.stop_after)
        timings.reranked = len(scores)
    if o.rrf is not None:
        first = list(estimates) if mode == "none" else sorted(scores, key=lambda key: -scores[key])
        page = fused_page([first, *candidates.further], o)
        ranking = [Ranked(key, value, estimates.get(key), False, found_by[key], None) for key, value in page]
        return await _shown(collection, ranking, [], o, timings)
    reranked = [
        Ranked(key, value, estimates.get(key), True, found_by[key], query.weight) for key, value in scores.items()
    ]
    reranked.sort(key=lambda one: -one.score)
    rest = [
        Ranked(key, estimates.get(key, 0.0), estimates.get(key), False, found_by[key], query.weight) for key in without
    ]
    return await _shown(collection, final_ranking(reranked, rest, o), rest, o, timings)


async def _none(
    collection: Collection,
    query: Query,
    fde: QueryFDE,
    chosen: str,
    tuning: Sequence[tuple[str, int]],
    o: Options,
    timings: Timings,
) -> Hits:
    with Stage(timings, "first_stage"):
        rows = await r.near_fde(collection, fde.vector, o.candidates, chosen, (), tuning)
    timings.candidates = len(rows)
    ranking = []
    for row in rows[: o.wanted]:
        estimate = fde.score(_dot(row))
        ranking.append(Ranked(row.key, estimate, estimate, False, (FDE,), query.weight))
    return await _shown(collection, above_threshold(ranking, o)[o.offset :], [], o, timings)


async def _score_there(
    collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key], timings: Timings
) -> dict[Key, float]:
    """MaxSim by LanceDB; documents that it leaves out are scored here. Those without tokens have no score."""
    scores: dict[Key, float] = {}
    for i in range(0, len(keys), FILTER_KEYS):
        scores.update(await r.near_tokens(collection, query, keys[i : i + FILTER_KEYS]))
    # cosines of all-zero tokens are NaN there, and their documents are left out
    missing = [key for key in keys if key not in scores]
    if missing:
        scores.update(await _score_here(collection, query, missing, timings))
    return scores


async def _score_here(
    collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key], timings: Timings
) -> dict[Key, float]:
    rows = await fetch_all(collection, keys, [str(collection.tokens)])
    matrices = {row.key: row.tokens for row in rows if row.tokens is not None}
    timings.token_bytes = (timings.token_bytes or 0) + sum(matrix.nbytes for matrix in matrices.values())
    scores = await Compute(partial(maxsim_of_stored, query, list(matrices.values()), cosine=collection.cosine))
    return {key: float(score) for key, score in zip(matrices, scores, strict=True)}


async def _shown(
    collection: Collection, shown: Sequence[Ranked], unscored: Sequence[Ranked], o: Options, timings: Timings
) -> Hits:
    """Hits, whose payloads and tokens are fetched now, and candidates without tokens."""
    keys = list(dict.fromkeys(one.key for one in [*shown, *unscored]))
    with Stage(timings, "payload"):
        columns = [*_shown_columns(collection, o), *token_columns(collection, o.tokens)]
        rows = await fetch_all(collection, keys, columns) if columns else [Row(key, {}) for key in keys]
    found = {row.key: row for row in rows}
    hits = [_hit(collection, one, found[one.key], o) for one in shown if one.key in found]
    rest = [_hit(collection, one, found[one.key], o) for one in unscored if one.key in found]
    return Hits(hits, rest, timings=timings)


def _shown_columns(collection: Collection, o: Options) -> list[str]:
    """Columns of the payload keys that are asked for."""
    if isinstance(o.payload, bool):
        return collection.payload_columns if o.payload else []
    own = [name for name in o.payload if name in collection.fields]
    return [*own, *([collection.json] if collection.json and len(own) < len(o.payload) else [])]


def _mode(collection: Collection, options: Options) -> str:
    """The mode of reranking."""
    check_rerank(collection, options.rerank, _MODES)
    mode: str = options.rerank
    if mode == "auto":
        mode = "none" if collection.tokens is None else "client"
    check_mode(collection, options, mode)
    if mode == "native" and collection.token_type != pa.float32():
        raise Unsupported(
            f"{collection.name} has its tokens as {collection.token_type}, to which LanceDB would round the query: use "
            "rerank='client', or create the table with tokens='float32'"
        )
    return mode


def _check(collection: Collection, options: Options) -> None:
    check_options(collection, options)
    for name in ("nprobes", "refine_factor"):
        number = getattr(options, name)
        if number is not None and (isinstance(number, bool) or not hasattr(number, "__index__") or number < 1):
            raise InvalidInput(f"{name} must be an integer of at least 1, or None, got {number!r}")


def _tuning(collection: Collection, o: Options) -> list[tuple[str, int]]:
    """Settings of the query for FDEs; without an index they have no effect."""
    refine = o.refine_factor or (None if collection.quantization is None else r.REFINE)
    return [(name, value) for name, value in (("nprobes", o.nprobes), ("refine_factor", refine)) if value is not None]


def _dot(row: Row) -> float:
    assert row.distance is not None
    return 1.0 - row.distance


def _hit(collection: Collection, one: Ranked, row: Row, o: Options) -> Hit:
    payload = row.payload
    if not isinstance(o.payload, bool):
        payload = {name: value for name, value in payload.items() if name in o.payload}
    return Hit(
        from_key(one.key, collection.keys),
        one.score,
        one.fde_score,
        None if o.payload is False else payload,
        row.tokens if o.tokens else None,
        one.reranked,
        one.found_by,
        one.weight,
    )
