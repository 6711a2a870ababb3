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
from muvera_adapters.milvus.reading import fetch_all, next_keys, sample_fdes, token_fields
from muvera_adapters.milvus.requests import FILTER_KEYS, MAX_RESULTS, Row, first_stage, near_fde, near_tokens
from muvera_adapters.results import Hit, Hits, Timings
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import check_encodable, need_fde, need_tokens
from muvera_adapters.stores.grouping import grouped
from muvera_adapters.stores.keyed_search import (
    Ranked,
    by_estimate,
    by_maxsim,
    hits_of,
    score_rows,
    to_hit,
    two_stages,
)
from muvera_adapters.stores.keys import Key
from muvera_adapters.stores.query_scaling import Query, QueryFDE
from muvera_adapters.stores.searching import (
    SearchOptions,
    check_also,
    check_at_once,
    check_mode,
    check_options,
    check_queries,
    check_rerank,
    final_ranking,
    first_lists,
    needs_client,
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


async def search(collection: Collection, queries: Sequence[Any], options: Options, at_once: int = 1) -> list[Hits]:
    """Hits of every query; second stages have different filters, so at most ``at_once`` searches run at a time."""
    found = grouped(partial(_search, collection, queries, at_once), options, MAX_RESULTS)
    return await with_missing(collection, found, without_fde(collection), wanted=options.count_missing)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """Ranks all documents that have tokens by MaxSim, page by page in the order of keys."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check(collection, options)
    query = check_queries(collection, [query_tokens], options, check_encodable)[0]
    timings = Timings()
    page = partial(next_keys, collection, checked(options.filter), FILTER_KEYS)
    score = partial(_score_there if _scores_there(collection) else _score_here, collection, timings, query.scored)
    return await _shown(collection, await by_maxsim(options, query, page, score), [], options, timings)


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
    score = partial(_score_there if mode == "native" else _score_here, collection, timings, query.scored)
    shown, rest = await two_stages(
        o,
        query,
        timings,
        lists,
        [also.searched(each) for each in query.also],
        partial(_estimate, collection, fde),
        None if mode == "none" else score,
        partial(_existing, collection),
    )
    return await _shown(collection, shown, rest, o, timings)


async def _existing(collection: Collection, keys: Sequence[Key]) -> set[Key]:
    """Those of the keys that were not deleted meanwhile."""
    return {row.key for row in await fetch_all(collection, keys, ())}


async def _none(collection: Collection, query: Query, fde: QueryFDE, chosen: str, o: Options, timings: Timings) -> Hits:
    """One request, unless there are candidates that are not shown, whose payloads are not read."""
    fields = _shown_fields(collection, o)
    direct = o.candidates == o.wanted
    with Stage(timings, "first_stage"):
        rows = await near_fde(collection, fde.vector, o.candidates, chosen, fields if direct else (), o.search_params)
    ranking = by_estimate(o, query, timings, rows, partial(_estimate, collection, fde))
    if not direct:
        return await _shown(collection, ranking, [], o, timings)
    found = {row.key: row for row in rows}
    return Hits([_hit(collection, o, one, found[one.key]) for one in ranking if one.key in found], timings=timings)


async def _native_muvera(collection: Collection, query: Query, o: Options, timings: Timings) -> Hits:
    """One request, by Milvus's own encoding: it reranks limit * retrieval_ann_ratio documents."""
    ratio = min(100.0, o.candidates / o.wanted)
    with Stage(timings, "second_stage"):
        rows = await near_tokens(collection, query.scored, o.wanted, checked(o.filter), ratio)
    ranking = [Ranked(row.key, _score(row), None, True, (), query.weight) for row in rows]
    return await _shown(collection, final_ranking(ranking, [], o), [], o, timings)


async def _score_there(
    collection: Collection, timings: Timings, query: npt.NDArray[np.float32], keys: Sequence[Key]
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
        scores.update(await _score_here(collection, timings, query, missing))
    return scores


async def _score_here(
    collection: Collection, timings: Timings, query: npt.NDArray[np.float32], keys: Sequence[Key]
) -> dict[Key, float]:
    rows = await fetch_all(collection, keys, collection.token_fields)
    return await score_rows(query, rows, timings, cosine=collection.cosine)


async def _shown(
    collection: Collection, shown: Sequence[Ranked], unscored: Sequence[Ranked], o: Options, timings: Timings
) -> Hits:
    async def fetch(keys: Sequence[Key]) -> list[Row]:
        fields = _shown_fields(collection, o)
        return await fetch_all(collection, keys, fields) if fields else [Row(key, {}) for key in keys]

    return await hits_of(shown, unscored, fetch, partial(_hit, collection, o), timings)


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


def _estimate(collection: Collection, fde: QueryFDE, row: Row) -> float:
    """The dot product of FDEs (under cosine: of the document's at unit length)."""
    if collection.fde_metric == "COSINE":
        return _score(row) * float(np.linalg.norm(fde.vector))
    return fde.score(_score(row))


def _hit(collection: Collection, o: Options, one: Ranked, row: Row) -> Hit:
    return to_hit(o, collection.keys, one, row.payload, row.tokens)
