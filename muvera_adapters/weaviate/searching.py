"""Operations that search: nearest FDEs, then MaxSim by the server or in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from weaviate.collections.classes.filters import FilterReturn

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.logs import LOG
from muvera_adapters.results import Hit, Hits, Timings
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import need_fde, need_tokens
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
from muvera_adapters.weaviate import also
from muvera_adapters.weaviate.collection import MAX_RESULTS, Collection
from muvera_adapters.weaviate.prepare import check_matrix
from muvera_adapters.weaviate.properties import kinds, property_name, to_payload
from muvera_adapters.weaviate.reading import (
    check_widths,
    count_missing,
    document_id_of,
    fetch_all,
    fitting,
    remember,
    sample_fdes,
    token_names,
    tokens_of,
)
from muvera_adapters.weaviate.requests import Row, by_ids, config, near_fde, near_tokens, page

Rerank = Literal["auto", "native", "client", "none", "native_muvera"]
_MODES = get_args(Rerank)

# documents of one request of an exact search
_SCAN = 1_000


async def search(
    collection: Collection,
    queries: Sequence[Any],
    options: SearchOptions,
    at_once: int = 1,
    missing: bool = False,
) -> list[Hits]:
    """Hits of every query; Weaviate has no request for several, so at most ``at_once`` run at a time.

    Args:
        collection: the collection to search.
        queries: queries, each (m_i, token_dim).
        options: options of all searches.
        at_once: maximum number of searches in progress at a time.
        missing: whether to count documents without an FDE.
    """
    found = grouped(partial(_search, collection, queries, at_once), options, MAX_RESULTS)
    return await with_missing(collection, found, count_missing(collection), wanted=missing and bool(queries))


async def prefetch(collection: Collection, query_tokens: Any, options: SearchOptions) -> dict[str, Any]:
    """The first stage of a search, as keyword arguments of ``collection.query.near_vector``."""
    need_fde(collection)
    _check_options(collection, options)
    query = check_queries(collection, [query_tokens], options, check_matrix)
    fde = (await _encode(collection, query, options))[0]
    return {
        "near_vector": fde.vector.tolist(),
        "target_vector": collection.fde,
        "limit": options.limit,
        "filters": options.filter,
    }


async def _search(collection: Collection, queries: Sequence[Any], at_once: int, options: SearchOptions) -> list[Hits]:
    _check_options(collection, options)
    mode = _mode(collection, options, check_also(options, also.check))
    check_at_once(at_once)
    await _know_properties(collection, options)
    checked = check_queries(collection, queries, options, check_matrix)
    if checked and not collection.seen.fde_width:  # there were no documents yet
        await check_widths(collection)
    if mode == "native_muvera":
        return await timed_each([partial(_native_muvera, collection, options, query) for query in checked], at_once)
    one = {"native": _native, "client": _client, "none": _none}[mode]
    return await search_each(
        collection,
        checked,
        partial(one, collection, options),
        at_once,
        partial(sample_fdes, collection),
        cosine=collection.fde_info.distance == "cosine",
        fit=options.query_fit,
    )


async def _encode(collection: Collection, queries: Sequence[Query], o: SearchOptions) -> list[QueryFDE]:
    cosine = collection.fde_info.distance == "cosine"
    return await query_scaling.encode(
        collection, queries, partial(sample_fdes, collection), cosine=cosine, fit=o.query_fit
    )


async def exact_search(collection: Collection, query_tokens: Any, options: SearchOptions) -> Hits:
    """Ranks all documents that have tokens by MaxSim, page by page in the order of ids."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check_options(collection, options)
    await _know_properties(collection, options)
    query = check_queries(collection, [query_tokens], options, check_matrix)[0]
    native, after = _scores_exactly(collection), None
    best: list[tuple[float, str]] = []
    while True:
        ids = [row.id for row in await page(collection, _SCAN, after, None)]
        if not ids:
            break
        if native:
            rows = await near_tokens(collection, query.scored, len(ids), by_ids(ids, options.filter))
            best += [(_score(row), row.id) for row in rows]
        else:
            best += await _score_here(collection, query.scored, ids, options.filter)
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[: options.wanted]
        after = ids[-1]
    rows = await fetch_all(
        collection,
        [i for _, i in best[options.offset :]],
        _payload(collection, options),
        token_names(collection, options.tokens),
    )
    found = {row.id: row for row in rows}
    hits = [
        _hit(collection, options, found[i], score, None, (), query.weight, reranked=True)
        for score, i in best[options.offset :]
        if i in found
    ]
    return Hits(above_threshold(hits, options))


@dataclass(frozen=True, slots=True)
class First:
    """What the first stage of a query found.

    Attributes:
        query: the query.
        candidates: ids of the candidates.
        estimates: encoder's estimates of the candidates that the search over FDEs found.
        found_by: names of the searches that found each candidate.
        rows: objects that the search over FDEs found.
        timings: where the time of the search goes.
    """

    query: Query
    candidates: Candidates[str]
    estimates: dict[str, float]
    found_by: Mapping[str, tuple[str, ...]]
    rows: list[Row]
    timings: Timings


async def _first(
    collection: Collection,
    o: SearchOptions,
    query: Query,
    fde: QueryFDE,
    timings: Timings,
    properties: Any = None,
    vectors: Sequence[str] = (),
) -> First:
    """Candidates of all searches, which are in progress at the same time."""
    nearest = near_fde(collection, fde.vector, o.candidates, o.filter, properties, vectors)
    further = [also.request(each, o.candidates, o.filter) for each in query.also]
    lists = await first_lists(timings, nearest, further)
    candidates = Candidates.of([each.searched for each in query.also], [[row.id for row in rows] for rows in lists])
    estimates = {row.id: _estimate(collection, row, fde) for row in lists[0]}
    found_by = candidates.found_by()
    timings.candidates = len(found_by)
    return First(query, candidates, estimates, found_by, lists[0], timings)


async def _native(collection: Collection, o: SearchOptions, query: Query, fde: QueryFDE, timings: Timings) -> Hits:
    """Two requests: candidates, then MaxSim of exactly these on the server."""
    first = await _first(collection, o, query, fde, timings)
    ids = list(first.found_by)
    if not ids:
        return Hits(timings=timings)
    # with a smaller limit a MUVERA field would rerank twice the limit, chosen by its own encoding
    payload, names = _payload(collection, o), token_names(collection, o.tokens)
    with Stage(timings, "second_stage"):
        rows = await near_tokens(collection, query.scored, len(ids), by_ids(ids), payload, names)
    scored = [(row, _score(row)) for row in rows]
    reranked = {row.id for row in rows}
    missing = [i for i in ids if i not in reranked]
    unscored = []
    if missing:
        found = {row.id: row for row in await fetch_all(collection, missing, payload, ())}
        unscored = [found[i] for i in missing if i in found]
    return await _ranked(collection, o, first, scored, unscored)


async def _client(collection: Collection, o: SearchOptions, query: Query, fde: QueryFDE, timings: Timings) -> Hits:
    """One request where the tokens of all candidates fit into a message; otherwise ids first, and then tokens."""
    payload, names = _payload(collection, o), token_names(collection, True)
    together = not query.also and o.stop_after is None and o.candidates <= await fitting(collection)
    if together:
        first = await _first(collection, o, query, fde, timings, payload, names)
        remember(collection, first.rows)
        found = {row.id: row for row in first.rows}
    else:
        first = await _first(collection, o, query, fde, timings)
        found = {}
    timings.token_bytes = 0

    async def score(ids: Sequence[str]) -> dict[str, float]:
        """MaxSim of the candidates that have tokens."""
        if not together:
            found.update({row.id: row for row in await fetch_all(collection, ids, payload, names)})
        rows = [found[i] for i in ids if i in found]
        scored = await _maxsim(collection, query.scored, rows)
        sizes = [tokens.nbytes for row, _ in scored if (tokens := tokens_of(collection, row)) is not None]
        timings.token_bytes = (timings.token_bytes or 0) + sum(sizes)
        return {row.id: value for row, value in scored}

    order = first.candidates.ranked() if query.also else list(first.estimates)
    with Stage(timings, "second_stage"):
        scores = await score_in_slices(order, score, o.wanted, o.stop_after)
    unscored = [row for row in found.values() if row.id not in scores]
    return await _ranked(collection, o, first, [(found[i], value) for i, value in scores.items()], unscored)


async def _none(collection: Collection, o: SearchOptions, query: Query, fde: QueryFDE, timings: Timings) -> Hits:
    payload, names = _payload(collection, o), token_names(collection, o.tokens)
    if o.rrf is not None:
        first = await _first(collection, o, query, fde, timings)
        return await _fused(collection, o, first, list(first.candidates.lists.values()), {})
    # not the server's offset: it searches the graph only as deep as the limit needs, so pages would not fit together
    first = await _first(collection, o, query, fde, timings, payload, names)
    hits = []
    for row in first.rows[: o.wanted]:
        estimate = first.estimates[row.id]
        hits.append(_hit(collection, o, row, estimate, estimate, (FDE,), query.weight, reranked=False))
    return Hits(above_threshold(hits, o)[o.offset :], timings=timings)


async def _native_muvera(collection: Collection, o: SearchOptions, query: Query, timings: Timings) -> Hits:
    """One request, by Weaviate's own encoding: it reranks twice the limit (hnsw/search.go, overfetch)."""
    limit = max(o.wanted, (o.prefetch + 1) // 2)
    payload, names = _payload(collection, o), token_names(collection, o.tokens)
    with Stage(timings, "second_stage"):
        rows = await near_tokens(collection, query.scored, limit, o.filter, payload, names)
    hits = [_hit(collection, o, row, _score(row), None, (), query.weight, reranked=True) for row in rows[: o.wanted]]
    return Hits(above_threshold(hits, o)[o.offset :], timings=timings)


def _mode(collection: Collection, o: SearchOptions, candidates: int) -> str:
    """The mode of reranking, for so many candidates of all searches."""
    check_rerank(collection, o.rerank, _MODES)
    mode = o.rerank
    if mode == "auto":
        native = _scores_exactly(collection) and candidates < collection.exact_below
        native = native and not needs_client(collection, o)
        mode = "none" if collection.tokens is None else "native" if native else "client"
        if mode == "client" and not needs_client(collection, o):
            LOG.debug(
                "%s: tokens are scored in this process: the server's scores would not be exact for all", collection.name
            )
    check_mode(collection, o, mode)
    if candidates > MAX_RESULTS:
        raise InvalidInput(
            f"prefetch and the limits of also are {candidates} candidates together, and Weaviate gives at most "
            f"{MAX_RESULTS} (QUERY_MAXIMUM_RESULTS)"
        )
    if mode == "native_muvera":
        if collection.index != "muvera":
            raise Unsupported(
                f"{collection.name} has no MUVERA of Weaviate's own to search by: create it with "
                "tokens_index=Configure.VectorIndex.MultiVector.Encoding.muvera()"
            )
        return mode
    need_fde(collection)
    if o.candidates > collection.fde_info.most:
        raise InvalidInput(
            f"{collection.name} has its FDEs in an hfresh index, which gives at most the "
            f"{collection.fde_info.most} that it rescores, not {o.candidates}: lower prefetch and limit, or "
            "create it with quantizer=Configure.VectorIndex.Quantizer.rq(bits=1, rescore_limit=...)"
        )
    if mode == "native":
        _check_native(collection, candidates)
    return mode


def _check_options(collection: Collection, o: SearchOptions) -> None:
    check_options(collection, o, MAX_RESULTS, " (QUERY_MAXIMUM_RESULTS)")


def _scores_exactly(collection: Collection) -> bool:
    """Whether the server computes the exact MaxSim of chosen documents for any tokens.

    Under cosine, it normalises at most the query, and never the tokens.
    """
    return collection.index != "none" and not collection.cosine and collection.exact_below > _SCAN


def _check_native(collection: Collection, candidates: int) -> None:
    if collection.index == "none":
        raise Unsupported(f"{collection.name} stores its tokens without an index: use rerank='client'")
    if candidates >= collection.exact_below:
        raise Unsupported(
            f"{collection.name}: its token index does not score {candidates} chosen documents exactly "
            "(flat_search_cutoff, or quantized): use rerank='client'"
        )


async def _score_here(
    collection: Collection, query: npt.NDArray[np.float32], ids: Sequence[str], filters: FilterReturn | None
) -> list[tuple[float, str]]:
    rows = await fetch_all(collection, ids, None, token_names(collection, True), filters)
    return [(score, row.id) for row, score in await _maxsim(collection, query, rows)]


async def _maxsim(
    collection: Collection, query: npt.NDArray[np.float32], rows: Sequence[Row]
) -> list[tuple[Row, float]]:
    """Rows that have tokens, with their scores."""
    both = [(row, tokens) for row in rows if (tokens := tokens_of(collection, row)) is not None]
    matrices = [tokens for _, tokens in both]
    scores = await Compute(partial(maxsim_of_stored, query, matrices, cosine=collection.cosine))
    return [(row, float(score)) for (row, _), score in zip(both, scores, strict=True)]


async def _ranked(
    collection: Collection,
    o: SearchOptions,
    first: First,
    scored: Sequence[tuple[Row, float]],
    unscored: Sequence[Row],
) -> Hits:
    """Reranked rows, then the candidates without tokens."""
    first.timings.reranked = len(scored)
    best = sorted(scored, key=lambda pair: -pair[1])
    if o.rrf is not None:
        lists = [[row.id for row, _ in best], *first.candidates.further]
        rows = {row.id: row for row in [*(row for row, _ in best), *unscored]}
        return await _fused(collection, o, first, lists, rows)
    weight, names = first.query.weight, first.found_by
    hits = [
        _hit(collection, o, row, score, first.estimates.get(row.id), names[row.id], weight, reranked=True)
        for row, score in best
    ]
    rest = []
    for row in unscored:
        estimate = first.estimates.get(row.id)
        score = 0.0 if estimate is None else estimate
        rest.append(_hit(collection, o, row, score, estimate, names[row.id], weight, reranked=False))
    return Hits(final_ranking(hits, rest, o), rest, timings=first.timings)


async def _fused(
    collection: Collection, o: SearchOptions, first: First, lists: Sequence[Sequence[str]], rows: Mapping[str, Row]
) -> Hits:
    """Hits by fused ranks of the lists; missing objects are fetched."""
    page = fused_page(lists, o)
    missing = [i for i, _ in page if i not in rows]
    if missing:
        names = token_names(collection, o.tokens)
        with Stage(first.timings, "payload"):
            found = await fetch_all(collection, missing, _payload(collection, o), names)
        rows = {**rows, **{row.id: row for row in found}}
    hits = [
        _hit(collection, o, rows[i], score, first.estimates.get(i), first.found_by[i], None, reranked=False)
        for i, score in page
        if i in rows  # otherwise it was deleted meanwhile
    ]
    return Hits(hits, timings=first.timings)


def _score(row: Row) -> float:
    assert row.distance is not None
    return -row.distance


def _estimate(collection: Collection, row: Row, fde: QueryFDE) -> float:
    """Dot product of the query's and the document's FDE; under cosine, of the document's at unit length."""
    assert row.distance is not None
    if collection.fde_info.distance == "cosine":
        return (1 - row.distance) * float(np.linalg.norm(fde.vector))
    return fde.score(-row.distance)


def _hit(
    collection: Collection,
    o: SearchOptions,
    row: Row,
    score: float,
    fde_score: float | None,
    found_by: tuple[str, ...],
    weight: float | None,
    *,
    reranked: bool,
) -> Hit:
    shown = None if o.payload is False else to_payload(row.properties)
    if shown is not None and not isinstance(o.payload, bool):
        shown = {key: shown[key] for key in map(_key, o.payload) if key in shown}
    tokens = tokens_of(collection, row) if o.tokens else None
    return Hit(document_id_of(row), score, fde_score, shown, tokens, reranked, found_by, weight)


async def _know_properties(collection: Collection, o: SearchOptions) -> None:
    """Reads the collection's properties again if a requested key was not known before."""
    if not isinstance(o.payload, bool) and any(_property(key) not in collection.seen.kinds for key in o.payload):
        collection.seen.kinds = kinds(await config())


def _payload(collection: Collection, o: SearchOptions) -> bool | list[Any]:
    """The properties to request: all, none, or those of the requested keys that exist."""
    if isinstance(o.payload, bool):
        return o.payload
    there = [key for key in o.payload if _property(key) in collection.seen.kinds]
    return [_property(key) if isinstance(key, str) else key for key in there]


def _property(key: Any) -> str | None:
    return property_name(_key(key))


def _key(key: Any) -> str:
    """The key of a name, or of Weaviate's QueryNested."""
    if not isinstance(key, str) and not hasattr(key, "properties"):
        raise InvalidInput(f"with_payload takes names of properties, or Weaviate's QueryNested, got {key!r}")
    return key if isinstance(key, str) else str(key.name)
