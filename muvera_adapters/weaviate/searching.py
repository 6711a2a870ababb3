"""Operations that search: nearest FDEs, then MaxSim by the server or here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_adapters.documents import normalised
from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.reranking import maxsim_of_stored
from muvera_adapters.results import Hit, Hits
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.operations import Compute, Together
from muvera_adapters.stores.query_scaling import QueryFDE
from muvera_adapters.weaviate.documents import query_matrix
from muvera_adapters.weaviate.identity import user_properties
from muvera_adapters.weaviate.reading import (
    check_widths,
    document_id_of,
    fetch_all,
    fitting,
    need_fde,
    remember,
    sample_fdes,
    token_names,
    tokens_of,
)
from muvera_adapters.weaviate.requests import MAX_RESULTS, Collection, Row, by_ids, near_fde, near_tokens, page

Rerank = Literal["auto", "native", "client", "none", "native_muvera"]

# documents of one request of an exact search
_SCAN = 1_000


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of a search; the stores document them."""

    limit: int = 10
    prefetch: int = 200
    rerank: Rerank = "auto"
    filter: Any = None
    offset: int = 0
    score_threshold: float | None = None
    payload: bool | Sequence[Any] = True
    tokens: bool = False

    @property
    def wanted(self) -> int:
        """Hits to rank, those that the offset skips included."""
        return self.offset + self.limit

    @property
    def candidates(self) -> int:
        """Of the first stage, which must bring what is skipped too."""
        return max(self.prefetch, self.wanted)


async def search(collection: Collection, queries: Sequence[Any], options: Options, at_once: int = 1) -> list[Hits]:
    """Hits of every query; Weaviate has no request for several, so at most ``at_once`` go on at a time."""
    mode = _mode(collection, options)
    if at_once < 1:
        raise InvalidInput(f"at_once must be at least 1, got {at_once}")
    many = len(queries) > 1
    matrices = [query_matrix(collection, q, f"query {i}" if many else "query") for i, q in enumerate(queries)]
    if not matrices:
        return []
    if not collection.width_seen:  # nothing was there yet
        await check_widths(collection)
    if mode == "native_muvera":
        return await Together([_native_muvera(collection, q, options) for q in matrices], at_once)
    cosine = collection.fde_info.distance == "cosine"
    fdes = await query_scaling.encode(collection, matrices, partial(sample_fdes, collection), cosine=cosine)
    one = {"native": _native, "client": _client, "none": _none}[mode]
    each = [one(collection, q, fde, options) for q, fde in zip(matrices, fdes, strict=True)]
    return await Together(each, at_once)


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """MaxSim over everything that has tokens, page by page in the order of ids."""
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to score exactly")
    _check(collection, options)
    query = query_matrix(collection, query_tokens)
    native, after = _scores_exactly(collection), None
    best: list[tuple[float, str]] = []
    while True:
        ids = [row.id for row in (await page(collection, _SCAN, after, None))]
        if not ids:
            break
        if native:
            rows = await near_tokens(collection, query, len(ids), by_ids(ids, options.filter))
            best += [(_score(row), row.id) for row in rows]
        else:
            best += await _score_here(collection, query, ids, options.filter)
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[: options.wanted]
        after = ids[-1]
    if options.score_threshold is not None:
        best = [(score, i) for score, i in best if score >= options.score_threshold]
    chosen = best[options.offset :]
    rows = await fetch_all(
        collection, [i for _, i in chosen], _payload(options), token_names(collection, options.tokens)
    )
    found = {row.id: row for row in rows}
    return Hits(_hit(collection, found[i], options, score, None, True) for score, i in chosen if i in found)


async def _native(collection: Collection, query: npt.NDArray[np.float32], fde: QueryFDE, o: Options) -> Hits:
    """Two requests: candidates by FDE, then MaxSim of exactly these on the server."""
    first = await near_fde(collection, fde.vector, o.candidates, o.filter)
    if not first:
        return Hits()
    estimates = {row.id: _estimate(collection, row, fde) for row in first}
    ids = [row.id for row in first]
    # with a smaller limit a MUVERA field would rerank twice the limit, chosen by its own encoding
    rows = await near_tokens(collection, query, len(ids), by_ids(ids), _payload(o), token_names(collection, o.tokens))
    scored = [(row, _score(row)) for row in rows]
    reranked = {row.id for row in rows}
    missing = [i for i in ids if i not in reranked]
    unscored = []
    if missing:
        found = {row.id: row for row in (await fetch_all(collection, missing, _payload(o), ()))}
        unscored = [found[i] for i in missing if i in found]
    return _ranked(collection, scored, unscored, estimates, o)


async def _client(collection: Collection, query: npt.NDArray[np.float32], fde: QueryFDE, o: Options) -> Hits:
    """One request where the tokens of all candidates fit into a message, else their ids first."""
    assert collection.tokens is not None
    if o.candidates <= (await fitting(collection)):
        rows = await near_fde(collection, fde.vector, o.candidates, o.filter, _payload(o), (collection.tokens,))
        remember(collection, rows)
        estimates = {row.id: _estimate(collection, row, fde) for row in rows}
    else:
        first = await near_fde(collection, fde.vector, o.candidates, o.filter)
        estimates = {row.id: _estimate(collection, row, fde) for row in first}
        found = await fetch_all(collection, list(estimates), _payload(o), (collection.tokens,))
        by_id = {row.id: row for row in found}
        rows = [by_id[i] for i in estimates if i in by_id]
    with_tokens = [row for row in rows if collection.tokens in row.vectors]
    scores = await Compute(partial(_maxsim, collection, query, with_tokens))
    scored = [(row, float(score)) for row, score in zip(with_tokens, scores, strict=True)]
    unscored = [row for row in rows if collection.tokens not in row.vectors]
    return _ranked(collection, scored, unscored, estimates, o)


async def _none(collection: Collection, query: npt.NDArray[np.float32], fde: QueryFDE, o: Options) -> Hits:
    names = token_names(collection, o.tokens)
    # not the server's offset: it searches its graph as deep as the limit alone asks for, so that pages would not join
    rows = await near_fde(collection, fde.vector, max(o.wanted, o.prefetch), o.filter, _payload(o), names)
    hits = []
    for row in rows[: o.wanted]:
        estimate = _estimate(collection, row, fde)
        if o.score_threshold is None or estimate >= o.score_threshold:
            hits.append(_hit(collection, row, o, estimate, estimate, False))
    return Hits(hits[o.offset :])


async def _native_muvera(collection: Collection, query: npt.NDArray[np.float32], o: Options) -> Hits:
    """One request, by Weaviate's own encoding: it reranks twice the limit (hnsw/search.go, overfetch)."""
    limit = max(o.wanted, (o.prefetch + 1) // 2)
    rows = await near_tokens(collection, query, limit, o.filter, _payload(o), token_names(collection, o.tokens))
    hits = [_hit(collection, row, o, _score(row), None, True) for row in rows[: o.wanted]]
    if o.score_threshold is not None:
        hits = [hit for hit in hits if hit.score >= o.score_threshold]
    return Hits(hits[o.offset :])


def _mode(collection: Collection, options: Options) -> str:
    _check(collection, options)
    mode: str = options.rerank
    if mode not in ("auto", "native", "client", "none", "native_muvera"):
        raise InvalidInput(f"rerank must be 'auto', 'native', 'client', 'none' or 'native_muvera', got {mode!r}")
    if mode == "auto":
        native = _scores_exactly(collection) and options.candidates < collection.flat_cutoff
        mode = "none" if collection.tokens is None else "native" if native else "client"
    if mode != "none" and collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: use rerank='none'")
    if mode != "native_muvera":
        need_fde(collection)
        if options.candidates > collection.fde_info.most:
            raise InvalidInput(
                f"{collection.name} has its FDEs in an hfresh index, which gives at most the "
                f"{collection.fde_info.most} that it rescores, not {options.candidates}: lower prefetch and limit, or "
                "create it with quantizer=Configure.VectorIndex.Quantizer.rq(bits=1, rescore_limit=...)"
            )
    elif collection.index != "muvera":
        raise Unsupported(
            f"{collection.name} has no MUVERA of Weaviate's own to search by: create it with "
            "tokens_index=Configure.VectorIndex.MultiVector.Encoding.muvera()"
        )
    if mode == "native":
        _check_native(collection, options)
    return mode


def _scores_exactly(collection: Collection) -> bool:
    """Whether the server's MaxSim of chosen documents is exact, whatever their tokens are.

    Under cosine it normalises the query at most, never the tokens.
    """
    return collection.index != "none" and not collection.cosine and collection.flat_cutoff > _SCAN


def _check_native(collection: Collection, options: Options) -> None:
    if collection.index == "none":
        raise Unsupported(f"{collection.name} stores its tokens without an index: use rerank='client'")
    if options.candidates >= collection.flat_cutoff:
        raise Unsupported(
            f"{collection.name}: its token index does not score {options.candidates} chosen documents exactly "
            "(flat_search_cutoff, or quantized): use rerank='client'"
        )


def _check(collection: Collection, options: Options) -> None:
    token_names(collection, options.tokens)
    if options.limit < 1 or options.prefetch < 1 or options.offset < 0:
        raise InvalidInput(
            "limit and prefetch must be at least 1 and offset at least 0, "
            f"got {options.limit}, {options.prefetch} and {options.offset}"
        )
    if options.candidates > MAX_RESULTS:
        raise InvalidInput(
            f"prefetch, and offset + limit, are at most {MAX_RESULTS} (QUERY_MAXIMUM_RESULTS), got {options.candidates}"
        )


async def _score_here(
    collection: Collection, query: npt.NDArray[np.float32], ids: Sequence[str], filters: Any
) -> list[tuple[float, str]]:
    assert collection.tokens is not None
    rows = [
        row
        for row in (await fetch_all(collection, ids, None, (collection.tokens,), filters))
        if collection.tokens in row.vectors
    ]
    scores = await Compute(partial(_maxsim, collection, query, rows))
    return [(float(score), row.id) for score, row in zip(scores, rows, strict=True)]


def _maxsim(collection: Collection, query: npt.NDArray[np.float32], rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    assert collection.tokens is not None
    matrices = [row.vectors[collection.tokens] for row in rows]
    return maxsim_of_stored(query, [normalised(m) for m in matrices] if collection.cosine else matrices)


def _ranked(
    collection: Collection,
    scored: Sequence[tuple[Row, float]],
    unscored: Sequence[Row],
    estimates: dict[str, float],
    o: Options,
) -> Hits:
    """Reranked rows, then the candidates without tokens."""
    best = sorted(scored, key=lambda pair: -pair[1])
    if o.score_threshold is not None:
        best = [(row, score) for row, score in best if score >= o.score_threshold]
    hits = [_hit(collection, row, o, score, estimates[row.id], True) for row, score in best[: o.wanted]]
    rest = [_hit(collection, row, o, estimates[row.id], estimates[row.id], False) for row in unscored]
    # their scores are on another scale, so a threshold cannot admit them
    room = [] if o.score_threshold is not None else rest
    return Hits((hits + room)[o.offset : o.wanted], rest)


def _score(row: Row) -> float:
    assert row.distance is not None
    return -row.distance


def _estimate(collection: Collection, row: Row, fde: QueryFDE) -> float:
    """The dot product of FDEs (under cosine: of the document's at unit length)."""
    assert row.distance is not None
    if collection.fde_info.distance == "cosine":
        return (1 - row.distance) * float(np.linalg.norm(fde.vector))
    return fde.score(-row.distance)


def _hit(collection: Collection, row: Row, o: Options, score: float, fde_score: float | None, reranked: bool) -> Hit:
    shown = None if o.payload is False else user_properties(row.properties)
    return Hit(document_id_of(row), score, fde_score, shown, tokens_of(collection, row) if o.tokens else None, reranked)


def _payload(o: Options) -> bool | list[Any]:
    return o.payload if isinstance(o.payload, bool) else list(_names(o.payload))


def _names(keys: Sequence[Any]) -> Iterator[Any]:
    for key in keys:
        if not isinstance(key, str) and not hasattr(key, "properties"):
            raise InvalidInput(f"with_payload takes names of properties, or Weaviate's QueryNested, got {key!r}")
        yield key
