"""Operations that search: nearest FDEs, then MaxSim by the server or in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pymilvus import AnnSearchRequest

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.logs import LOG
from muvera_adapters.milvus import also
from muvera_adapters.milvus.backfilling import without_fde
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import among, checked
from muvera_adapters.milvus.ids import Key, from_key
from muvera_adapters.milvus.reading import Cursor, fetch_all, next_keys, sample_fdes, token_fields
from muvera_adapters.milvus.requests import FILTER_KEYS, MAX_RESULTS, Row, first_stage, near_fde, near_tokens
from muvera_adapters.results import Hit, Hits, Timings
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import check_encodable, need_fde, need_tokens
from muvera_adapters.stores.fusion import FDE, Candidates
from muvera_adapters.stores.grouping import grouped
from muvera_adapters.stores.operations import Compute
from muvera_adapters.stores.query_scaling import Query, QueryFDE
from muvera_adapters.stores.searching import (
    SearchOptions,
    above_threshold,
    check_also,
    check_at_once,
    check_mode,
    check_options,
    check_queries,
    check_rerank,
    final_ranking,
    first_lists,
    fused_page,
    maxsim_of_stored,
    needs_client,
    score_in_slices,
    search_each,
    timed_each,
    with_missing,
)
from muvera_adapters.stores.timing import Stage

Rerank = Literal["auto", "native", "client", "none", "native_muvera"]
_MODES = get_args(Rerank)

# indexes whose scores are those of quantized tokens (knowhere computes MaxSim on the index's values)
_CODED = ("HNSW_SQ", "HNSW_PQ", "HNSW_PRQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SearchOptions):
    """Arguments of a search; the stores document them.

    Attributes:
        search_params: search parameters of the FDE index; None: the defaults.
        count_missing: whether to count the documents without an FDE.
    """

    search_params: Mapping[str, Any] | None = None
    count_missing: bool = True


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document of the final ranking.

    Attributes:
        key: primary key.
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


async def search(collection: Collection, queries: Sequence[Any], options: Options, at_once: int = 1) -> list[Hits]:
    """Hits of every query; second stages have different filters, so at most ``at_once`` searches run at a time."""
    found = grouped(partial(_search, collection, queries, at_once), options, MAX_RESULTS)
    return await with_missing(collection, found, without_fde(collection), wanted=options.count_missing)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """Ranks all documents that have tokens by MaxSim, page by page in the order of keys."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check(collection, options)
    query = check_queries(collection, [query_tokens], options, check_encodable)[0]
    chosen = checked(options.filter)
    score = _score_there if _scores_there(collection) else _score_here
    timings = Timings()
    best: list[tuple[float, Key]] = []
    cursor: Cursor = None
    while True:
        keys, cursor = await next_keys(collection, chosen, FILTER_KEYS, cursor)
        scores = await score(collection, query.scored, keys, timings)
        best += [(value, key) for key, value in scores.items()]
        best = sorted(best, key=lambda pair: (-pair[0], str(pair[1])))[: options.wanted]
        if cursor is None:
            break
    ranking = [Ranked(key, value, None, True, (), query.weight) for value, key in best]
    return await _shown(collection, final_ranking(ranking, [], options), [], options, timings)


async def prefetch(collection: Collection, query_tokens: Any, options: Options) -> AnnSearchRequest:
    """The first stage of a search as a request of the client's ``hybrid_search``."""
    need_fde(collection)
    _check(collection, options)
    query = check_queries(collection, [query_tokens], options, check_encodable)
    sample, cosine = partial(sample_fdes, collection), collection.fde_metric == "COSINE"
    fde = (await query_scaling.encode(collection, query, sample, cosine=cosine, fit=options.query_fit))[0]
    return first_stage(collection, fde.vector, options.limit, checked(options.filter), options.search_params)


async def _search(collection: Collection, queries: Sequence[Any], at_once: int, options: Options) -> list[Hits]:
    _check(collection, options)
    mode = _mode(collection, options, check_also(options, also.check))
    check_at_once(at_once)
    checked_queries = check_queries(collection, queries, options, check_encodable)
    if mode == "native_muvera":
        return await timed_each([partial(_native_muvera, collection, q, options) for q in checked_queries], at_once)
    one, sample = partial(_two_stages, collection, mode, options), partial(sample_fdes, collection)
    cosine = collection.fde_metric == "COSINE"
    return await search_each(collection, checked_queries, one, at_once, sample, cosine=cosine, fit=options.query_fit)


async def _two_stages(
    collection: Collection, mode: str, o: Options, query: Query, fde: QueryFDE, timings: Timings
) -> Hits:
    """Candidates, their scores, and the fields of hits: a request each, or more if tokens are long."""
    chosen = checked(o.filter)
    if mode == "none" and o.rrf is None:
        return await _none(collection, query, fde, chosen, o, timings)
    nearest = near_fde(collection, fde.vector, o.candidates, chosen, (), o.search_params)
    further = [also.request(collection, each, o.candidates, chosen) for each in query.also]
    lists = await first_lists(timings, nearest, further)
    searched = [also.searched(each) for each in query.also]
    candidates = Candidates.of(searched, [[row.key for row in rows] for rows in lists])
    found_by = candidates.found_by()
    timings.candidates = len(found_by)
    estimates = {row.key: _estimate(collection, row, fde) for row in lists[0]}
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
    if without:
        # without tokens, or deleted meanwhile
        there = {row.key for row in await fetch_all(collection, without, ())}
        without = [key for key in without if key in there]
    rest = [
        Ranked(key, estimates.get(key, 0.0), estimates.get(key), False, found_by[key], query.weight) for key in without
    ]
    return await _shown(collection, final_ranking(reranked, rest, o), rest, o, timings)


async def _none(collection: Collection, query: Query, fde: QueryFDE, chosen: str, o: Options, timings: Timings) -> Hits:
    """One request, unless there are candidates that are not shown, whose payloads are not read."""
    fields = _shown_fields(collection, o)
    direct = o.candidates == o.wanted
    with Stage(timings, "first_stage"):
        rows = await near_fde(collection, fde.vector, o.candidates, chosen, fields if direct else (), o.search_params)
    timings.candidates = len(rows)
    ranking = []
    for row in rows[: o.wanted]:
        estimate = _estimate(collection, row, fde)
        ranking.append(Ranked(row.key, estimate, estimate, False, (FDE,), query.weight))
    ranking = above_threshold(ranking, o)[o.offset :]
    if not direct:
        return await _shown(collection, ranking, [], o, timings)
    found = {row.key: row for row in rows}
    return Hits([_hit(collection, one, found[one.key], o) for one in ranking if one.key in found], timings=timings)


async def _native_muvera(collection: Collection, query: Query, o: Options, timings: Timings) -> Hits:
    """One request, by Milvus's own encoding: it reranks limit * retrieval_ann_ratio documents."""
    ratio = min(100.0, o.candidates / o.wanted)
    with Stage(timings, "second_stage"):
        rows = await near_tokens(collection, query.scored, o.wanted, checked(o.filter), ratio)
    ranking = [Ranked(row.key, _score(row), None, True, (), query.weight) for row in rows]
    return await _shown(collection, final_ranking(ranking, [], o), [], o, timings)


async def _score_there(
    collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key], timings: Timings
) -> dict[Key, float]:
    """MaxSim by the server; others are scored in this process. Documents without tokens have no score."""
    scores: dict[Key, float] = {}
    for i in range(0, len(keys), FILTER_KEYS):
        some = keys[i : i + FILTER_KEYS]
        # with a smaller limit, the server would search fewer tokens and leave out more documents
        rows = await near_tokens(collection, query, len(some), among(collection.key, some))
        scores.update((row.key, _score(row)) for row in rows)
    missing = [key for key in keys if key not in scores]
    if missing:
        scores.update(await _score_here(collection, query, missing, timings))
    return scores


async def _score_here(
    collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key], timings: Timings
) -> dict[Key, float]:
    rows = await fetch_all(collection, keys, collection.token_fields)
    matrices = {row.key: row.tokens for row in rows if row.tokens is not None}
    timings.token_bytes = (timings.token_bytes or 0) + sum(matrix.nbytes for matrix in matrices.values())
    scores = await Compute(partial(maxsim_of_stored, query, list(matrices.values()), cosine=collection.cosine))
    return {key: float(score) for key, score in zip(matrices, scores, strict=True)}


async def _shown(
    collection: Collection, shown: Sequence[Ranked], unscored: Sequence[Ranked], o: Options, timings: Timings
) -> Hits:
    """Hits, with payloads and tokens that are fetched now, and candidates without tokens."""
    with Stage(timings, "payload"):
        found = await _fetched(collection, list(dict.fromkeys(one.key for one in [*shown, *unscored])), o)
    hits = [_hit(collection, one, found[one.key], o) for one in shown if one.key in found]
    rest = [_hit(collection, one, found[one.key], o) for one in unscored if one.key in found]
    return Hits(hits, rest, timings=timings)


async def _fetched(collection: Collection, keys: Sequence[Key], o: Options) -> dict[Key, Row]:
    fields = _shown_fields(collection, o)
    if not fields:
        return {key: Row(key, {}) for key in keys}
    return {row.key: row for row in await fetch_all(collection, keys, fields)}


def _shown_fields(collection: Collection, o: Options) -> list[str]:
    names = collection.payload_fields if o.payload is True else list(o.payload or ())
    return [*names, *token_fields(collection, o.tokens)]


def _mode(collection: Collection, options: Options, candidates: int) -> str:
    """The mode of reranking, for so many candidates of all searches."""
    check_rerank(collection, options.rerank, _MODES)
    if candidates > MAX_RESULTS:
        raise InvalidInput(
            f"prefetch and the limits of also are {candidates} candidates together, and Milvus gives at most "
            f"{MAX_RESULTS}"
        )
    mode = options.rerank
    if mode == "auto":
        native = _scores_there(collection) and not needs_client(collection, options)
        mode = "none" if collection.tokens is None else "native" if native else "client"
        if mode == "client" and not needs_client(collection, options):
            LOG.debug("%s: tokens are scored in this process: the server would score codes, or cannot", collection.name)
    check_mode(collection, options, mode)
    if options.rerank == "native_muvera" and collection.strategy != "muvera":
        raise Unsupported(
            f"{collection.name} has no MUVERA of Milvus's own: create it on Milvus >= 3.0 with "
            "tokens_index_params={'emb_list_strategy': 'muvera'}"
        )
    if options.rerank == "native" and collection.token_index is None:
        raise Unsupported(
            f"{collection.name} has its tokens as {collection.storage}, which no server scores: use rerank='client'"
        )
    return mode


def _scores_there(collection: Collection) -> bool:
    """Whether the server's MaxSim is exact, which it is not for quantized tokens."""
    return collection.token_index is not None and collection.token_index.get("index_type") not in _CODED


def _check(collection: Collection, options: Options) -> None:
    check_options(collection, options, MAX_RESULTS)
    for name in () if isinstance(options.payload, bool) else options.payload:
        if not isinstance(name, str) or name in (collection.mark, collection.fde, *collection.token_fields):
            raise InvalidInput(f"with_payload takes names of payload keys, got {name!r}")


def _score(row: Row) -> float:
    assert row.distance is not None
    return row.distance


def _estimate(collection: Collection, row: Row, fde: QueryFDE) -> float:
    """The dot product of FDEs (under cosine: of the document's at unit length)."""
    if collection.fde_metric == "COSINE":
        return _score(row) * float(np.linalg.norm(fde.vector))
    return fde.score(_score(row))


def _hit(collection: Collection, one: Ranked, row: Row, o: Options) -> Hit:
    return Hit(
        from_key(one.key, collection.keys),
        one.score,
        one.fde_score,
        None if o.payload is False else row.payload,
        row.tokens if o.tokens else None,
        one.reranked,
        one.found_by,
        one.weight,
    )
