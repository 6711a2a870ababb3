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
from muvera_adapters.lancedb.reading import fetch_all, next_keys, sample_fdes, token_columns
from muvera_adapters.lancedb.requests import FILTER_KEYS, Row
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
    check_mode,
    check_options,
    check_queries,
    check_rerank,
    first_lists,
    search_each,
    with_missing,
)

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


async def search(collection: Collection, queries: Sequence[Any], options: Options, at_once: int = 1) -> list[Hits]:
    """Hits of every query; at most ``at_once`` searches go on at a time."""
    found = grouped(partial(_search, collection, queries, at_once), options)
    return await with_missing(collection, found, without_fde(collection), wanted=options.count_missing)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """MaxSim over everything that has tokens, page by page in the order of keys."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check(collection, options)
    query = check_queries(collection, [query_tokens], options, check_encodable)[0]
    timings = Timings()
    page = partial(next_keys, collection, checked(options.filter), FILTER_KEYS)
    score = partial(_score_here, collection, timings, query.scored)
    return await _shown(collection, await by_maxsim(options, query, page, score), [], options, timings)


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
    nearest = r.near_fde(collection, fde.vector, o.candidates, chosen, (), tuning)
    further = [also.request(collection, each, o.candidates, chosen) for each in query.also]
    lists = await first_lists(timings, nearest, further)
    estimate = partial(_estimate, fde)
    if mode == "none" and o.rrf is None:
        return await _shown(collection, by_estimate(o, query, timings, lists[0], estimate), [], o, timings)
    score = partial(_score_there if mode == "native" else _score_here, collection, timings, query.scored)
    searched = [also.searched(each) for each in query.also]
    shown, rest = await two_stages(o, query, timings, lists, searched, estimate, None if mode == "none" else score)
    return await _shown(collection, shown, rest, o, timings)


async def _score_there(
    collection: Collection, timings: Timings, query: npt.NDArray[np.float32], keys: Sequence[Key]
) -> dict[Key, float]:
    """MaxSim by LanceDB; documents that it leaves out are scored here. Those without tokens have no score."""
    scores: dict[Key, float] = {}
    for i in range(0, len(keys), FILTER_KEYS):
        scores.update(await r.near_tokens(collection, query, keys[i : i + FILTER_KEYS]))
    # cosines of all-zero tokens are NaN there, and their documents are left out
    missing = [key for key in keys if key not in scores]
    if missing:
        scores.update(await _score_here(collection, timings, query, missing))
    return scores


async def _score_here(
    collection: Collection, timings: Timings, query: npt.NDArray[np.float32], keys: Sequence[Key]
) -> dict[Key, float]:
    rows = await fetch_all(collection, keys, [str(collection.tokens)])
    return await score_rows(query, rows, timings, cosine=collection.cosine)


async def _shown(
    collection: Collection, shown: Sequence[Ranked], unscored: Sequence[Ranked], o: Options, timings: Timings
) -> Hits:
    async def fetch(keys: Sequence[Key]) -> list[Row]:
        columns = [*_shown_columns(collection, o), *token_columns(collection, o.tokens)]
        return await fetch_all(collection, keys, columns) if columns else [Row(key, {}) for key in keys]

    return await hits_of(shown, unscored, fetch, partial(_hit, collection, o), timings)


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


def _estimate(fde: QueryFDE, row: Row) -> float:
    assert row.distance is not None  # 1 - dot product
    return fde.score(1.0 - row.distance)


def _hit(collection: Collection, o: Options, one: Ranked, row: Row) -> Hit:
    payload = row.payload
    if not isinstance(o.payload, bool):
        payload = {name: value for name, value in payload.items() if name in o.payload}
    return to_hit(o, collection.keys, one, payload, row.tokens)
