"""Operations that search: nearest FDEs, then MaxSim by the server or here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from weaviate.collections.classes.filters import FilterReturn

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.logs import LOG
from muvera_adapters.results import Hit, Hits
from muvera_adapters.stores.checks import need_fde, need_tokens, query_matrix
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
    """Hits of every query; Weaviate has no request for several, so at most ``at_once`` are in progress at a time.

    Args:
        collection: the collection to search.
        queries: queries, each (m_i, token_dim).
        options: what the searches have in common.
        at_once: maximum number of searches in progress at a time.
        missing: whether to count documents without an FDE.
    """
    found = _search(collection, queries, options, at_once)
    return await with_missing(collection, found, count_missing(collection), wanted=missing and bool(queries))


async def _search(collection: Collection, queries: Sequence[Any], options: SearchOptions, at_once: int) -> list[Hits]:
    mode = _mode(collection, options)
    check_at_once(at_once)
    await _know_properties(collection, options)
    matrices = query_matrices(collection, queries, check_matrix)
    if matrices and not collection.seen.fde_width:  # nothing was there yet
        await check_widths(collection)
    if mode == "native_muvera":
        return await Together([_native_muvera(collection, options, q) for q in matrices], at_once)
    one = {"native": _native, "client": _client, "none": _none}[mode]
    return await search_each(
        collection,
        matrices,
        partial(one, collection, options),
        at_once,
        partial(sample_fdes, collection),
        cosine=collection.fde_info.distance == "cosine",
        fit=options.query_fit,
    )


async def exact_search(collection: Collection, query_tokens: Any, options: SearchOptions) -> Hits:
    """MaxSim over everything that has tokens, page by page in the order of ids."""
    need_tokens(collection, ": there is nothing to score exactly")
    _check_options(collection, options)
    await _know_properties(collection, options)
    query = query_matrix(collection, query_tokens, check_matrix)
    native, after = _scores_exactly(collection), None
    best: list[tuple[float, str]] = []
    while True:
        ids = [row.id for row in await page(collection, _SCAN, after, None)]
        if not ids:
            break
        if native:
            rows = await near_tokens(collection, query, len(ids), by_ids(ids, options.filter))
            best += [(_score(row), row.id) for row in rows]
        else:
            best += await _score_here(collection, query, ids, options.filter)
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[: options.wanted]
        after = ids[-1]
    rows = await fetch_all(
        collection,
        [i for _, i in best[options.offset :]],
        _payload(collection, options),
        token_names(collection, options.tokens),
    )
    found = {row.id: row for row in rows}
    hits = [_hit(collection, options, found[i], score, None, True) for score, i in best if i in found]
    return Hits(above_threshold(hits, options))


async def _native(collection: Collection, o: SearchOptions, query: npt.NDArray[np.float32], fde: QueryFDE) -> Hits:
    """Two requests: candidates by FDE, then MaxSim of exactly these on the server."""
    first = await near_fde(collection, fde.vector, o.candidates, o.filter)
    if not first:
        return Hits()
    estimates = {row.id: _estimate(collection, row, fde) for row in first}
    ids = [row.id for row in first]
    # with a smaller limit a MUVERA field would rerank twice the limit, chosen by its own encoding
    rows = await near_tokens(
        collection, query, len(ids), by_ids(ids), _payload(collection, o), token_names(collection, o.tokens)
    )
    scored = [(row, _score(row)) for row in rows]
    reranked = {row.id for row in rows}
    missing = [i for i in ids if i not in reranked]
    unscored = []
    if missing:
        found = {row.id: row for row in await fetch_all(collection, missing, _payload(collection, o), ())}
        unscored = [found[i] for i in missing if i in found]
    return _ranked(collection, o, scored, unscored, estimates)


async def _client(collection: Collection, o: SearchOptions, query: npt.NDArray[np.float32], fde: QueryFDE) -> Hits:
    """One request where the tokens of all candidates fit into a message; otherwise ids first, and then tokens."""
    names = token_names(collection, True)
    if o.candidates <= await fitting(collection):
        rows = await near_fde(collection, fde.vector, o.candidates, o.filter, _payload(collection, o), names)
        remember(collection, rows)
        estimates = {row.id: _estimate(collection, row, fde) for row in rows}
    else:
        first = await near_fde(collection, fde.vector, o.candidates, o.filter)
        estimates = {row.id: _estimate(collection, row, fde) for row in first}
        found = await fetch_all(collection, list(estimates), _payload(collection, o), names)
        by_id = {row.id: row for row in found}
        rows = [by_id[i] for i in estimates if i in by_id]
    scored = await _maxsim(collection, query, rows)
    unscored = [row for row in rows if tokens_of(collection, row) is None]
    return _ranked(collection, o, scored, unscored, estimates)


async def _none(collection: Collection, o: SearchOptions, query: npt.NDArray[np.float32], fde: QueryFDE) -> Hits:
    names = token_names(collection, o.tokens)
    # not the server's offset: it searches its graph as deep as the limit alone asks for, so that pages would not join
    rows = await near_fde(collection, fde.vector, o.candidates, o.filter, _payload(collection, o), names)
    hits = []
    for row in rows[: o.wanted]:
        estimate = _estimate(collection, row, fde)
        hits.append(_hit(collection, o, row, estimate, estimate, False))
    return Hits(above_threshold(hits, o)[o.offset :])


async def _native_muvera(collection: Collection, o: SearchOptions, query: npt.NDArray[np.float32]) -> Hits:
    """One request, by Weaviate's own encoding: it reranks twice the limit (hnsw/search.go, overfetch)."""
    limit = max(o.wanted, (o.prefetch + 1) // 2)
    rows = await near_tokens(
        collection, query, limit, o.filter, _payload(collection, o), token_names(collection, o.tokens)
    )
    hits = [_hit(collection, o, row, _score(row), None, True) for row in rows[: o.wanted]]
    return Hits(above_threshold(hits, o)[o.offset :])


def _mode(collection: Collection, o: SearchOptions) -> str:
    _check_options(collection, o)
    check_rerank(collection, o.rerank, _MODES)
    mode = o.rerank
    if mode == "auto":
        native = _scores_exactly(collection) and o.candidates < collection.exact_below
        mode = "none" if collection.tokens is None else "native" if native else "client"
        if mode == "client":
            LOG.debug("%s: tokens are scored here: the server's scores would not be exact for all", collection.name)
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
        _check_native(collection, o)
    return mode


def _check_options(collection: Collection, o: SearchOptions) -> None:
    check_options(collection, o, MAX_RESULTS, " (QUERY_MAXIMUM_RESULTS)")


def _scores_exactly(collection: Collection) -> bool:
    """Whether the server computes the exact MaxSim of chosen documents, whatever their tokens are.

    Under cosine it normalises the query at most, and never the tokens.
    """
    return collection.index != "none" and not collection.cosine and collection.exact_below > _SCAN


def _check_native(collection: Collection, o: SearchOptions) -> None:
    if collection.index == "none":
        raise Unsupported(f"{collection.name} stores its tokens without an index: use rerank='client'")
    if o.candidates >= collection.exact_below:
        raise Unsupported(
            f"{collection.name}: its token index does not score {o.candidates} chosen documents exactly "
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


def _ranked(
    collection: Collection,
    o: SearchOptions,
    scored: Sequence[tuple[Row, float]],
    unscored: Sequence[Row],
    estimates: dict[str, float],
) -> Hits:
    """Reranked rows, then the candidates without tokens."""
    best = sorted(scored, key=lambda pair: -pair[1])
    hits = [_hit(collection, o, row, score, estimates[row.id], True) for row, score in best]
    rest = [_hit(collection, o, row, estimates[row.id], estimates[row.id], False) for row in unscored]
    return Hits(final_ranking(hits, rest, o), rest)


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
    collection: Collection, o: SearchOptions, row: Row, score: float, fde_score: float | None, reranked: bool
) -> Hit:
    shown = None if o.payload is False else to_payload(row.properties)
    if shown is not None and not isinstance(o.payload, bool):
        shown = {key: shown[key] for key in map(_key, o.payload) if key in shown}
    return Hit(document_id_of(row), score, fde_score, shown, tokens_of(collection, row) if o.tokens else None, reranked)


async def _know_properties(collection: Collection, o: SearchOptions) -> None:
    """Reads the collection's properties again where a key is asked for that was not there before."""
    if not isinstance(o.payload, bool) and any(_property(key) not in collection.seen.kinds for key in o.payload):
        collection.seen.kinds = kinds(await config())


def _payload(collection: Collection, o: SearchOptions) -> bool | list[Any]:
    """What to ask for: all properties, none, or those of the keys that are wanted and exist."""
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
