"""Operations that search: one request with a first stage over FDEs and a second over tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, Rejected
from muvera_adapters.logs import LOG
from muvera_adapters.qdrant.collection import EDGE, LOCAL, Collection
from muvera_adapters.qdrant.prepare import check_query
from muvera_adapters.qdrant.reading import sample_fdes, token_names, tokens_of, user_payload
from muvera_adapters.qdrant.requests import Count, Find, FindMany, Params, PointId, Prefetch, Row, Where
from muvera_adapters.results import Hit, Hits
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import need_fde, need_tokens, query_matrix
from muvera_adapters.stores.ids import ID_KEY
from muvera_adapters.stores.operations import Compute
from muvera_adapters.stores.query_scaling import QueryFDE
from muvera_adapters.stores.searching import (
    SearchOptions,
    check_options,
    check_rerank,
    final_ranking,
    maxsim_of_stored,
    query_matrices,
    with_missing,
)
from muvera_adapters.stores.writing import slices

Rerank = Literal["auto", "native", "client", "none"]
_MODES = get_args(Rerank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SearchOptions):
    """Arguments of a search; the stores document them.

    Attributes:
        fde_scores: hits show the encoder's estimate where the mode does not bring it anyway.
        params: search parameters of the first stage in the database's own type, None for the defaults.
        shard_key: shard key selector.
    """

    fde_scores: bool = False
    params: Any = None
    shard_key: Any = None


async def search(
    collection: Collection, queries: Sequence[Any], options: Options, count_missing: bool = True
) -> list[Hits]:
    """Hits of every query, with the number of documents that have no FDE."""
    # embedded engines work for one thread at a time
    at_once = 1 if collection.wire in (LOCAL, EDGE) else 2
    found = _search(collection, queries, options)
    return await with_missing(collection, found, _count_missing(collection), wanted=count_missing, at_once=at_once)


async def _count_missing(collection: Collection) -> int:
    has = () if collection.tokens is None else (collection.tokens,)
    return await Count(collection.name, Where(has=has, lacks=(collection.fde,)))


async def _search(collection: Collection, queries: Sequence[Any], options: Options) -> list[Hits]:
    """Hits of every query; requests are packed by bytes."""
    need_fde(collection)
    mode = _mode(collection, options)
    matrices = query_matrices(collection, queries, check_query)
    if not matrices:
        return []
    read = partial(sample_fdes, collection)
    fdes = await query_scaling.encode(collection, matrices, read, cosine=collection.fde_cosine, fit=options.query_fit)
    lacking = bool(await _count_lacking(collection)) if mode == "native" else False
    plans = [_plan(collection, mode, lacking, q, fde, options) for q, fde in zip(matrices, fdes, strict=True)]
    replies = await _send([find for plan in plans for find in plan], collection)
    results, parts = [], iter(replies)
    for query, fde, plan in zip(matrices, fdes, plans, strict=True):
        rows = [_unscaled(next(parts), fde if find.using == collection.fde else None) for find in plan]
        if mode == "client":
            results.append(await Compute(partial(_rerank, collection, query, rows[0], options)))
        elif mode == "native":
            results.append(_merge(collection, rows, lacking, options))
        else:
            results.append(_none(collection, rows[0], options))
    return results


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """MaxSim over everything that has tokens."""
    tokens = need_tokens(collection, ": there is nothing to score exactly")
    check_options(collection, options)
    query = query_matrix(collection, query_tokens, check_query)
    rows = await Find(
        collection.name,
        query,
        tokens,
        options.limit,
        options.offset,
        None,
        Params(exact=True) if collection.tokens_indexed else None,
        Where(options.filter),
        options.score_threshold,
        _payload(options),
        token_names(collection, options.tokens),
        options.shard_key,
    )
    return Hits(_hit(collection, row, options, None, True) for row in rows)


def _mode(collection: Collection, options: Options) -> str:
    check_options(collection, options)
    check_rerank(collection, options.rerank, _MODES)
    if options.rerank == "auto":
        return "none" if collection.tokens is None else "native"
    return options.rerank


def _plan(
    collection: Collection,
    mode: str,
    lacking: bool,
    query: npt.NDArray[np.float32],
    fde: QueryFDE,
    o: Options,
) -> list[Find]:
    """The finds of one query; their rows are read by _merge, _rerank or as they are."""
    where = Where(o.filter)
    candidates = o.wanted if mode == "none" else o.candidates
    # a beam twice the candidates brings them nearly all at no cost that can be measured (the vectors are long);
    # rescoring reads the originals from disk, so only where codes are coarse: unindexed documents are scored exactly
    ours = Params(hnsw_ef=max(128, 2 * candidates), rescore=collection.rescore)
    params = o.params if o.params is not None else ours
    first = partial(Find, collection.name, fde.vector, collection.fde, params=params, shard_key=o.shard_key)
    names = token_names(collection, o.tokens)
    if mode == "none":
        threshold = fde.threshold(o.score_threshold)
        return [first(o.limit, o.offset, where=where, score_threshold=threshold, payload=_payload(o), vectors=names)]
    assert collection.tokens is not None
    if mode == "client":
        return [first(candidates, where=where, payload=_payload(o), vectors=(collection.tokens,))]
    two_stage = Find(
        collection.name,
        query,
        collection.tokens,
        # with unscored documents to append, the whole ranking is needed to know where they begin
        o.wanted if lacking else o.limit,
        0 if lacking else o.offset,
        Prefetch(fde.vector, collection.fde, candidates, params),
        Params(exact=True) if collection.tokens_indexed else None,
        where,
        o.score_threshold,
        _payload(o),
        names,
        o.shard_key,
    )
    finds = [two_stage]
    if o.fde_scores or lacking:
        finds.append(first(candidates, where=where, payload=False))
    if lacking:
        missing = Where(o.filter, lacks=(collection.tokens,))
        finds.append(first(candidates, where=missing, payload=_payload(o)))
    return finds


async def _send(finds: list[Find], collection: Collection) -> list[list[Row]]:
    if len(finds) == 1:
        return [(await finds[0])]
    replies: list[list[Row]] = []
    sizes = [int((_floats(find) + 100) * collection.wire.bytes_per_float) for find in finds]
    for i, j in slices(sizes, collection.wire.target):
        replies += await FindMany(collection.name, finds[i:j])
    return replies


def _floats(find: Find) -> int:
    return find.vector.size + (find.prefetch.vector.size if find.prefetch else 0)


async def _count_lacking(collection: Collection) -> int:
    """Documents that the second stage would drop in silence, as the engine does with points without the vector."""
    lacking = collection.seen.lacking
    if not lacking.is_fresh:
        assert collection.tokens is not None
        try:
            lacking.keep(await Count(collection.name, Where(has=(collection.fde,), lacks=(collection.tokens,))))
        except Rejected as error:  # a strict mode may forbid exact counts
            LOG.info("%s: all documents are taken to have tokens, as counting is refused: %s", collection.name, error)
            lacking.keep(None)
    return lacking.value or 0


def _unscaled(rows: list[Row], fde: QueryFDE | None) -> list[Row]:
    """Rows whose scores are those of the query's own FDE; None: they are MaxSim already."""
    return rows if fde is None else [replace(row, score=fde.score(row.score)) for row in rows]


def _none(collection: Collection, rows: list[Row], o: Options) -> Hits:
    least = -np.inf if o.score_threshold is None else o.score_threshold
    return Hits(_hit(collection, row, o, row.score, False) for row in rows if row.score >= least)


def _merge(collection: Collection, rows: list[list[Row]], lacking: bool, o: Options) -> Hits:
    """Reranked rows, then the candidates without tokens."""
    fde_scores: dict[PointId, float] = {row.id: row.score for row in rows[1]} if len(rows) > 1 else {}
    hits = [_hit(collection, row, o, fde_scores.get(row.id), True) for row in rows[0]]
    if not lacking:
        return Hits(hits)
    unscored = [_hit(collection, row, o, row.score, False) for row in rows[2] if row.id in fde_scores]
    return Hits(final_ranking(hits, unscored, o), unscored)


def _rerank(collection: Collection, query: npt.NDArray[np.float32], rows: list[Row], o: Options) -> Hits:
    """The second stage, here."""
    matrices = [(row, tokens_of(collection, row)) for row in rows]
    scored = [(row, m) for row, m in matrices if m is not None]
    scores = maxsim_of_stored(query, [m for _, m in scored])
    order = np.argsort(-scores, kind="stable")
    best = [(scored[i][0], float(scores[i])) for i in order]
    hits = [_hit(collection, row, o, row.score, True, score) for row, score in best]
    unscored = [_hit(collection, row, o, row.score, False) for row, m in matrices if m is None]
    return Hits(final_ranking(hits, unscored, o), unscored)


def _hit(
    collection: Collection,
    row: Row,
    o: Options,
    fde_score: float | None,
    reranked: bool,
    score: float | None = None,
) -> Hit:
    document_id, payload = user_payload(row)
    tokens = tokens_of(collection, row) if o.tokens else None
    shown = None if o.payload is False else payload
    return Hit(document_id, row.score if score is None else score, fde_score, shown, tokens, reranked)


def _payload(o: Options) -> Any:
    """What to ask for, so that ids can be told."""
    if o.payload is False:
        return [ID_KEY]
    if isinstance(o.payload, list | tuple):
        return [*_strings(o.payload), ID_KEY]
    return o.payload


def _strings(keys: Sequence[Any]) -> Iterator[str]:
    for key in keys:
        if not isinstance(key, str):
            raise InvalidInput(f"with_payload takes names of payload keys, got {key!r}")
        yield key
