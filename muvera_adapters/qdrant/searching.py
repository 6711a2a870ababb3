"""Operations that search: one request with a first stage over FDEs and a second over tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from muvera_adapters.errors import Rejected
from muvera_adapters.qdrant import search_plan
from muvera_adapters.qdrant.collection import EDGE, LOCAL, Collection
from muvera_adapters.qdrant.prepare import check_query
from muvera_adapters.qdrant.reading import (
    count_vectors,
    fetch,
    sample_fdes,
    token_names,
    tokens_of,
    user_payload,
)
from muvera_adapters.qdrant.requests import Find, FindMany, FindOwn, Params, PointId, Prefetch, Row, Where
from muvera_adapters.qdrant.search_plan import Found, Options, Plan, asked_payload
from muvera_adapters.results import Hit, Hits, Timings
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import need_fde, need_tokens, numbers_in
from muvera_adapters.stores.fusion import FDE
from muvera_adapters.stores.grouping import grouped
from muvera_adapters.stores.operations import Compute
from muvera_adapters.stores.query_scaling import Query, QueryFDE
from muvera_adapters.stores.searching import (
    check_also,
    check_mode,
    check_options,
    check_queries,
    check_rerank,
    final_ranking,
    fused_page,
    maxsim_of_stored,
    needs_client,
    score_in_slices,
    with_missing,
)
from muvera_adapters.stores.timing import Counting, Stage
from muvera_adapters.stores.writing import slices

Rerank = Literal["auto", "native", "client", "none"]
_MODES = get_args(Rerank)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the requests of one query found, on the way to hits.

    Attributes:
        query: the query.
        found: replies to its requests.
        options: options of the search.
        timings: where its time goes.
        found_by: names of the searches that found each candidate.
    """

    query: Query
    found: Found
    options: Options
    timings: Timings
    found_by: Mapping[PointId, tuple[str, ...]]


async def search(
    collection: Collection, queries: Sequence[Any], options: Options, count_missing: bool = True
) -> list[Hits]:
    """Hits of every query, with the number of documents that have no FDE."""
    # embedded engines work for one thread at a time
    at_once = 1 if collection.wire in (LOCAL, EDGE) else 2
    found = grouped(partial(_search, collection, queries), options)
    return await with_missing(collection, found, _count_missing(collection), wanted=count_missing, at_once=at_once)


async def prefetch(collection: Collection, query_tokens: Any, options: Options) -> Prefetch:
    """The first stage of a search, for a user's own request."""
    need_fde(collection)
    check_options(collection, options)
    query = check_queries(collection, [query_tokens], options, check_query)
    fde = (await _encode(collection, query, options))[0]
    params = search_plan.first_stage_params(collection, options, options.limit)
    return Prefetch(fde.vector, collection.fde, options.limit, params, options.filter)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """Ranks all documents that have tokens by MaxSim."""
    tokens = need_tokens(collection, ": there is nothing to score exactly")
    check_options(collection, options)
    check_mode(collection, options, "native")
    query = check_queries(collection, [query_tokens], options, check_query)[0]
    timings = Timings(requests=1)
    with Stage(timings, "second_stage"):
        rows = await Find(
            collection.name,
            query.scored,
            tokens,
            options.limit,
            options.offset,
            (),
            Params(exact=True) if collection.tokens_indexed else None,
            Where(options.filter),
            options.score_threshold,
            asked_payload(options),
            token_names(collection, options.tokens),
            options.shard_key,
        )
    hits = [_hit(collection, row, options, row.score, None, (), query.weight, reranked=True) for row in rows]
    return Hits(hits, timings=timings)


async def _count_missing(collection: Collection) -> int:
    has = () if collection.tokens is None else (collection.tokens,)
    return await count_vectors(collection, Where(has=has, lacks=(collection.fde,)))


async def _search(collection: Collection, queries: Sequence[Any], options: Options) -> list[Hits]:
    need_fde(collection)
    mode = _mode(collection, options)
    checked = check_queries(collection, queries, options, check_query)
    if not checked:
        return []
    timings = Timings()
    found: list[Hits] = await Counting(_answer(collection, mode, checked, options, timings), timings)
    for hits in found:
        hits.timings.requests = timings.requests
    return found


async def _answer(
    collection: Collection, mode: str, queries: Sequence[Query], options: Options, timings: Timings
) -> list[Hits]:
    """Hits of every query; requests are packed by bytes, so ``timings`` are those of all queries."""
    with Stage(timings, "encode"):
        fdes = await _encode(collection, queries, options)
    lacking = mode == "native" and bool(await _count_lacking(collection, options.has_also))
    plans = [
        search_plan.plan(collection, mode, lacking, query, fde, options)
        for query, fde in zip(queries, fdes, strict=True)
    ]
    with Stage(timings, "second_stage" if mode == "native" else "first_stage"):
        replies = iter(await _replies(collection, plans))
    results = []
    for query, fde, plan in zip(queries, fdes, plans, strict=True):
        found = search_plan.read(plan, replies, fde)
        names = found.candidates.found_by()
        of_query = timings if len(queries) == 1 else replace(timings)
        of_query.candidates = len(names)
        answer = Answer(query, found, options, of_query, names)
        if mode == "native":
            results.append(await _native(collection, plan, answer))
        elif mode == "client":
            results.append(await _client(collection, plan, answer))
        else:
            results.append(await _none(collection, answer))
    return results


async def _encode(collection: Collection, queries: Sequence[Query], o: Options) -> list[QueryFDE]:
    read = partial(sample_fdes, collection)
    return await query_scaling.encode(collection, queries, read, cosine=collection.fde_cosine, fit=o.query_fit)


def _mode(collection: Collection, options: Options) -> str:
    check_options(collection, options)
    check_also(options)
    check_rerank(collection, options.rerank, _MODES)
    mode = options.rerank
    if mode == "auto":
        client = needs_client(collection, options)
        mode = "none" if collection.tokens is None else "client" if client else "native"
    check_mode(collection, options, mode)
    return mode


async def _replies(collection: Collection, plans: Sequence[Plan]) -> list[list[Row]]:
    """Replies to the requests of all plans, in their order."""
    if not all(plan.both and plan.lacking and len(plan.lists) == 1 for plan in plans):
        return await _send([find for plan in plans for find in plan.finds], collection)
    # candidates first: the other requests are restricted to them; otherwise each would search all documents again
    candidates = await _send([plan.lists[0] for plan in plans], collection)
    narrowed: list[Find | FindOwn] = []
    for plan, rows in zip(plans, candidates, strict=True):
        if rows and plan.both is not None:
            where = replace(plan.both.where, ids=[row.id for row in rows])
            # this strict mode rejects MaxSim without a first stage, which otherwise is no longer needed
            first = plan.both.prefetches if collection.seen.counts_are_refused else ()
            narrowed.append(replace(plan.both, where=where, prefetches=first))
            narrowed.append(replace(plan.lacking[0], where=replace(plan.lacking[0].where, ids=where.ids)))
    found = iter(await _send(narrowed, collection) if narrowed else [])
    replies = []
    for rows in candidates:
        both = next(found) if rows else []
        replies += [both, rows, next(found) if rows else []]
    return replies


async def _send(finds: list[Find | FindOwn], collection: Collection) -> list[list[Row]]:
    if len(finds) == 1 and isinstance(finds[0], Find):
        return [(await finds[0])]
    replies: list[list[Row]] = []
    sizes = [int((_floats(find) + 100) * collection.wire.bytes_per_float) for find in finds]
    for i, j in slices(sizes, collection.wire.target):
        replies += await _find_many(collection, finds[i:j])
    return replies


async def _find_many(collection: Collection, finds: Sequence[Find | FindOwn]) -> list[list[Row]]:
    """Replies to searches, in as few requests as the server allows: strict mode may limit searches per request."""
    limit = collection.seen.searched_at_once
    size = len(finds) if limit.most is None else limit.most
    if len(finds) <= size:
        try:
            return await FindMany(collection.name, finds)
        except Rejected:
            if len(finds) == 1:
                raise
            size = len(finds) // 2
    replies = []
    for i in range(0, len(finds), size):
        replies += await _find_many(collection, finds[i : i + size])
    limit.learn(size)
    return replies


def _floats(find: Find | FindOwn) -> int:
    if isinstance(find, FindOwn):
        return numbers_in(find.own.prefetch)
    first = (p.vector.size if isinstance(p, Prefetch) else numbers_in(p.prefetch) for p in find.prefetches)
    return find.vector.size + sum(first)


async def _count_lacking(collection: Collection, also: bool) -> int:
    """Number of documents without tokens, which the engine would drop silently in the second stage.

    Args:
        collection: the collection to search.
        also: whether other searches than that of FDEs may find documents that have neither FDE nor tokens.
    """
    lacking = collection.seen.without_tokens if also else collection.seen.lacking
    if not lacking.is_fresh:
        assert collection.tokens is not None
        where = Where(has=() if also else (collection.fde,), lacks=(collection.tokens,))
        lacking.keep(await count_vectors(collection, where))
    return lacking.value or 0


async def _none(collection: Collection, answer: Answer) -> Hits:
    """Hits by the ranks of the first stage."""
    o = answer.options
    if o.rrf is not None:
        return await _fused(collection, answer, answer.found.lists, {})
    least = -np.inf if o.score_threshold is None else o.score_threshold
    rows = [row for row in answer.found.lists[0] if row.score >= least]
    weight = answer.query.weight
    hits = [_hit(collection, row, o, row.score, row.score, (FDE,), weight, reranked=False) for row in rows]
    return Hits(hits, timings=answer.timings)


async def _native(collection: Collection, plan: Plan, answer: Answer) -> Hits:
    """Hits by the engine's MaxSim, then candidates without tokens."""
    found, o = answer.found, answer.options
    if plan.lists:
        answer.timings.reranked = len(answer.found_by) - len(found.lacking)
    else:  # the engine does not report candidates that it leaves out
        told = o.score_threshold is None and o.offset == 0 and len(found.both) < o.limit
        answer.timings.candidates = answer.timings.reranked = len(found.both) if told else None
    scored = [(row, row.score) for row in found.both]
    if o.rrf is not None:
        rows = {row.id: row for row in [*found.lacking, *found.both]}
        return await _fused(collection, answer, [found.both, *found.lists[1:]], rows)
    if plan.lacking:
        return _merged(collection, answer, scored, found.lacking)
    return Hits(_reranked(collection, answer, scored), timings=answer.timings)


async def _client(collection: Collection, plan: Plan, answer: Answer) -> Hits:
    """Hits by MaxSim computed here, then candidates without tokens."""
    assert collection.tokens is not None
    tokens, found, o, timings = collection.tokens, answer.found, answer.options, answer.timings
    came = plan.lists[0]
    rows: dict[PointId, Row] = {}
    if isinstance(came, Find) and came.vectors:
        rows = {row.id: row for row in found.lists[0]}
    timings.token_bytes = 0

    async def score(keys: Sequence[PointId]) -> dict[PointId, float]:
        """MaxSim of the candidates that have tokens."""
        missing = [key for key in keys if key not in rows]
        rows.update(await fetch(collection, missing, asked_payload(o), (tokens,), o.shard_key))
        matrices = {key: m for key in keys if key in rows and (m := tokens_of(collection, rows[key])) is not None}
        timings.token_bytes = (timings.token_bytes or 0) + sum(m.nbytes for m in matrices.values())
        scores = await Compute(partial(maxsim_of_stored, answer.query.scored, list(matrices.values())))
        return {key: float(value) for key, value in zip(matrices, scores, strict=True)}

    with Stage(timings, "second_stage"):
        order = found.candidates.ranked() if answer.query.also else [row.id for row in found.lists[0]]
        scores = await score_in_slices(order, score, o.wanted, o.stop_after)
    timings.reranked = len(scores)
    best = sorted(((rows[key], value) for key, value in scores.items()), key=lambda pair: -pair[1])
    if o.rrf is not None:
        return await _fused(collection, answer, [[row for row, _ in best], *found.lists[1:]], rows)
    return _merged(collection, answer, best, [row for key, row in rows.items() if key not in scores])


async def _fused(
    collection: Collection, answer: Answer, lists: Sequence[Sequence[Row]], rows: Mapping[PointId, Row]
) -> Hits:
    """Hits by fused ranks of the lists; missing rows are fetched."""
    o = answer.options
    page = fused_page([[row.id for row in each] for each in lists], o)
    missing = [key for key, _ in page if key not in rows]
    if missing:
        with Stage(answer.timings, "payload"):
            names = token_names(collection, o.tokens)
            rows = {**rows, **await fetch(collection, missing, asked_payload(o), names, o.shard_key)}
    estimates = answer.found.estimates
    hits = [
        _hit(collection, rows[key], o, score, estimates.get(key), answer.found_by.get(key, ()), None, reranked=False)
        for key, score in page
        if key in rows  # otherwise it was deleted meanwhile
    ]
    return Hits(hits, timings=answer.timings)


def _reranked(collection: Collection, answer: Answer, scored: Sequence[tuple[Row, float]]) -> list[Hit]:
    estimates, o, weight = answer.found.estimates, answer.options, answer.query.weight
    names = answer.found_by if answer.query.also else {}
    return [
        _hit(collection, row, o, score, estimates.get(row.id), names.get(row.id, (FDE,)), weight, reranked=True)
        for row, score in scored
    ]


def _merged(
    collection: Collection, answer: Answer, scored: Sequence[tuple[Row, float]], without_tokens: Sequence[Row]
) -> Hits:
    """Reranked rows, then the candidates without tokens."""
    estimates, o, weight = answer.found.estimates, answer.options, answer.query.weight
    unscored = []
    for row in without_tokens:
        estimate = estimates.get(row.id)
        score = 0.0 if estimate is None else estimate
        unscored.append(_hit(collection, row, o, score, estimate, answer.found_by[row.id], weight, reranked=False))
    return Hits(final_ranking(_reranked(collection, answer, scored), unscored, o), unscored, timings=answer.timings)


def _hit(
    collection: Collection,
    row: Row,
    o: Options,
    score: float,
    fde_score: float | None,
    found_by: tuple[str, ...],
    weight: float | None,
    *,
    reranked: bool,
) -> Hit:
    document_id, payload = user_payload(row)
    tokens = tokens_of(collection, row) if o.tokens else None
    shown = None if o.payload is False else payload
    return Hit(document_id, score, fde_score, shown, tokens, reranked, found_by, weight)
