"""Operations that search: nearest FDEs, then MaxSim by the server or here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.logs import LOG
from muvera_adapters.milvus.backfilling import without_fde
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import among, checked
from muvera_adapters.milvus.ids import Key, from_key
from muvera_adapters.milvus.reading import Cursor, fetch_all, next_keys, sample_fdes, token_fields
from muvera_adapters.milvus.requests import FILTER_KEYS, MAX_RESULTS, Row, near_fde, near_tokens
from muvera_adapters.results import Hit, Hits
from muvera_adapters.stores.checks import check_encodable, need_tokens, query_matrix
from muvera_adapters.stores.operations import Compute, Together
from muvera_adapters.stores.query_scaling import QueryFDE
from muvera_adapters.stores.searching import (
    SearchOptions,
    above_threshold,
    check_at_once,
    check_options,
    check_rerank,
    final_ranking,
    maxsim_of_stored,
    query_matrices,
    search_each,
    with_missing,
)

Rerank = Literal["auto", "native", "client", "none", "native_muvera"]
_MODES = get_args(Rerank)

# indexes whose scores are those of codes (knowhere computes MaxSim on what the index has)
_CODED = ("HNSW_SQ", "HNSW_PQ", "HNSW_PRQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SearchOptions):
    """Arguments of a search; the stores document them.

    Attributes:
        search_params: search parameters of the FDEs' index, None for the defaults.
        count_missing: count the documents that have no FDE.
    """

    search_params: Mapping[str, Any] | None = None
    count_missing: bool = True


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document of the final ranking.

    Attributes:
        key: primary key.
        score: MaxSim, or the encoder's estimate.
        fde_score: the encoder's estimate, None where it is not known.
        reranked: whether the score is MaxSim.
    """

    key: Key
    score: float
    fde_score: float | None
    reranked: bool


async def search(collection: Collection, queries: Sequence[Any], options: Options, at_once: int = 1) -> list[Hits]:
    """Hits of every query; second stages differ in their filters, so at most ``at_once`` searches go on at a time."""
    mode = _mode(collection, options)
    check_at_once(at_once)
    matrices = query_matrices(collection, queries, check_encodable)
    found = _search(collection, mode, options, matrices, at_once)
    return await with_missing(collection, found, without_fde(collection), wanted=options.count_missing)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """MaxSim over everything that has tokens, page by page in the order of keys."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check(collection, options)
    query, chosen = query_matrix(collection, query_tokens, check_encodable), checked(options.filter)
    score = _score_there if _scores_there(collection) else _score_here
    best: list[tuple[float, Key]] = []
    cursor: Cursor = None
    while True:
        keys, cursor = await next_keys(collection, chosen, FILTER_KEYS, cursor)
        scores = await score(collection, query, keys)
        best += [(value, key) for key, value in scores.items()]
        best = sorted(best, key=lambda pair: (-pair[0], str(pair[1])))[: options.wanted]
        if cursor is None:
            break
    ranking = [Ranked(key, value, None, True) for value, key in best]
    return await _shown(collection, ranking, [], options)


async def _search(
    collection: Collection, mode: str, options: Options, matrices: Sequence[npt.NDArray[np.float32]], at_once: int
) -> list[Hits]:
    if mode == "native_muvera":
        return await Together([_native_muvera(collection, q, options) for q in matrices], at_once) if matrices else []
    one, sample = partial(_two_stages, collection, mode, options), partial(sample_fdes, collection)
    cosine = collection.fde_metric == "COSINE"
    return await search_each(collection, matrices, one, at_once, sample, cosine=cosine, fit=options.query_fit)


async def _two_stages(
    collection: Collection, mode: str, o: Options, query: npt.NDArray[np.float32], fde: QueryFDE
) -> Hits:
    """Candidates by FDE, their scores, and what hits have to show: a request each, or more where tokens are long."""
    chosen = checked(o.filter)
    if mode == "none":
        return await _none(collection, fde, chosen, o)
    first = await near_fde(collection, fde.vector, o.candidates, chosen, (), o.search_params)
    estimates = {row.key: _estimate(collection, row, fde) for row in first}
    score = _score_there if mode == "native" else _score_here
    scores = await score(collection, query, list(estimates))
    reranked = [Ranked(key, value, estimates[key], True) for key, value in scores.items()]
    reranked.sort(key=lambda one: -one.score)
    without = [key for key in estimates if key not in scores]
    if without:
        # without tokens; or deleted meanwhile
        there = {row.key for row in await fetch_all(collection, without, ())}
        without = [key for key in without if key in there]
    rest = [Ranked(key, estimates[key], estimates[key], False) for key in without]
    return await _shown(collection, reranked, rest, o)


async def _none(collection: Collection, fde: QueryFDE, chosen: str, o: Options) -> Hits:
    """One request, unless candidates are asked for that are not shown: payloads of these stay where they are."""
    fields = _shown_fields(collection, o)
    direct = o.candidates == o.wanted
    rows = await near_fde(collection, fde.vector, o.candidates, chosen, fields if direct else (), o.search_params)
    ranking = []
    for row in rows[: o.wanted]:
        estimate = _estimate(collection, row, fde)
        ranking.append(Ranked(row.key, estimate, estimate, False))
    ranking = above_threshold(ranking, o)[o.offset :]
    if direct:
        found = {row.key: row for row in rows}
    else:
        found = await _fetched(collection, [one.key for one in ranking], o)
    return Hits(_hit(collection, one, found[one.key], o) for one in ranking if one.key in found)


async def _native_muvera(collection: Collection, query: npt.NDArray[np.float32], o: Options) -> Hits:
    """One request, by Milvus's own encoding: it reranks limit * retrieval_ann_ratio documents."""
    ratio = min(100.0, o.candidates / o.wanted)
    rows = await near_tokens(collection, query, o.wanted, checked(o.filter), ratio)
    ranking = [Ranked(row.key, _score(row), None, True) for row in rows]
    return await _shown(collection, ranking, [], o)


async def _score_there(collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key]) -> dict[Key, float]:
    """MaxSim by the server; documents that it left out are scored here. Those without tokens have no score."""
    scores: dict[Key, float] = {}
    for i in range(0, len(keys), FILTER_KEYS):
        some = keys[i : i + FILTER_KEYS]
        # with a smaller limit the server would look at fewer tokens, and leave out more documents
        rows = await near_tokens(collection, query, len(some), among(collection.key, some))
        scores.update((row.key, _score(row)) for row in rows)
    missing = [key for key in keys if key not in scores]
    if missing:
        scores.update(await _score_here(collection, query, missing))
    return scores


async def _score_here(collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key]) -> dict[Key, float]:
    rows = await fetch_all(collection, keys, collection.token_fields)
    matrices = {row.key: row.tokens for row in rows if row.tokens is not None}
    scores = await Compute(partial(maxsim_of_stored, query, list(matrices.values()), cosine=collection.cosine))
    return {key: float(score) for key, score in zip(matrices, scores, strict=True)}


async def _shown(collection: Collection, reranked: Sequence[Ranked], rest: Sequence[Ranked], o: Options) -> Hits:
    """Hits of the final ranking, whose payloads and tokens are fetched now; then candidates without tokens."""
    shown = final_ranking(reranked, rest, o)
    found = await _fetched(collection, list(dict.fromkeys(one.key for one in [*shown, *rest])), o)
    hits = [_hit(collection, one, found[one.key], o) for one in shown if one.key in found]
    return Hits(hits, [_hit(collection, one, found[one.key], o) for one in rest if one.key in found])


async def _fetched(collection: Collection, keys: Sequence[Key], o: Options) -> dict[Key, Row]:
    fields = _shown_fields(collection, o)
    if not fields:
        return {key: Row(key, {}) for key in keys}
    return {row.key: row for row in await fetch_all(collection, keys, fields)}


def _shown_fields(collection: Collection, o: Options) -> list[str]:
    names = collection.payload_fields if o.payload is True else list(o.payload or ())
    return [*names, *token_fields(collection, o.tokens)]


def _mode(collection: Collection, options: Options) -> str:
    _check(collection, options)
    check_rerank(collection, options.rerank, _MODES)
    if options.rerank == "auto":
        if collection.tokens is None or _scores_there(collection):
            return "none" if collection.tokens is None else "native"
        LOG.debug("%s: tokens are scored here: the server cannot, or would score their codes", collection.name)
        return "client"
    if options.rerank == "native_muvera" and collection.strategy != "muvera":
        raise Unsupported(
            f"{collection.name} has no MUVERA of Milvus's own: create it on Milvus >= 3.0 with "
            "tokens_index_params={'emb_list_strategy': 'muvera'}"
        )
    if options.rerank == "native" and collection.token_index is None:
        raise Unsupported(
            f"{collection.name} has its tokens as {collection.storage}, which no server scores: use rerank='client'"
        )
    return options.rerank


def _scores_there(collection: Collection) -> bool:
    """Whether the server's own MaxSim is exact: codes of tokens would give scores of codes."""
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
    shown = None if o.payload is False else row.payload
    return Hit(
        from_key(one.key, collection.keys),
        one.score,
        one.fde_score,
        shown,
        row.tokens if o.tokens else None,
        one.reranked,
    )
