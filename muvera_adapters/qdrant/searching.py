"""Operations that search: one request with a first stage over FDEs and a second over tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_adapters.documents import slices
from muvera_adapters.errors import InvalidInput
from muvera_adapters.ids import ID_KEY
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import query_matrix
from muvera_adapters.qdrant.reading import need_fde, token_names, tokens_of, user_payload
from muvera_adapters.qdrant.requests import Count, Find, FindMany, Params, PointId, Prefetch, Row, Where
from muvera_adapters.reranking import maxsim_of_stored
from muvera_adapters.results import Hit, Hits
from muvera_adapters.stores.operations import Compute, seconds

Rerank = Literal["auto", "native", "client", "none"]

# another writer's documents without tokens may go unnoticed for so long
_RECOUNT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of a search; the stores document them."""

    limit: int = 10
    prefetch: int = 200
    rerank: Rerank = "auto"
    filter: Any = None
    offset: int = 0
    score_threshold: float | None = None
    payload: Any = True
    tokens: bool = False
    fde_scores: bool = False
    params: Any = None
    shard_key: Any = None


async def search(collection: Collection, queries: Sequence[Any], options: Options) -> list[Hits]:
    """Hits of every query; requests are packed by bytes."""
    need_fde(collection)
    mode = _mode(collection, options)
    token_names(collection, options.tokens)
    many = len(queries) > 1
    matrices = [query_matrix(collection, q, f"query {i}" if many else "query") for i, q in enumerate(queries)]
    if not matrices:
        return []
    fdes = await Compute(partial(collection.encoder.encode_queries, matrices))
    lacking = bool(await _count_lacking(collection)) if mode == "native" else False
    plans = [_plan(collection, mode, lacking, q, fde, options) for q, fde in zip(matrices, fdes, strict=True)]
    replies = await _send([find for plan in plans for find in plan], collection)
    results, parts = [], iter(replies)
    for query, plan in zip(matrices, plans, strict=True):
        rows = [next(parts) for _ in plan]
        if mode == "client":
            results.append(await Compute(partial(_rerank, collection, query, rows[0], options)))
        elif mode == "native":
            results.append(_merge(collection, rows, lacking, options))
        else:
            results.append(Hits(_hit(collection, row, options, row.score, False) for row in rows[0]))
    return results


async def exact_search(collection: Collection, query_tokens: Any, options: Options) -> Hits:
    """MaxSim over everything that has tokens."""
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to score exactly")
    _check(options)
    token_names(collection, options.tokens)
    query = query_matrix(collection, query_tokens)
    rows = await Find(
        collection.name,
        query,
        collection.tokens,
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
    _check(options)
    if options.rerank == "auto":
        return "none" if collection.tokens is None else "native"
    if options.rerank not in ("native", "client", "none"):
        raise InvalidInput(f"rerank must be 'auto', 'native', 'client' or 'none', got {options.rerank!r}")
    if options.rerank != "none" and collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: use rerank='none'")
    return options.rerank


def _check(options: Options) -> None:
    if options.limit < 1 or options.prefetch < 1 or options.offset < 0:
        raise InvalidInput(
            "limit and prefetch must be at least 1 and offset at least 0, "
            f"got {options.limit}, {options.prefetch} and {options.offset}"
        )


def _plan(
    collection: Collection,
    mode: str,
    lacking: bool,
    query: npt.NDArray[np.float32],
    fde: npt.NDArray[np.float32],
    o: Options,
) -> list[Find]:
    """The finds of one query; their rows are read by _merge, _rerank or as they are."""
    where = Where(o.filter)
    wanted = o.offset + o.limit
    # an offset is not applied to the first stage, so it must bring what is skipped too
    candidates = wanted if mode == "none" else max(o.prefetch, wanted)
    # a beam twice the candidates brings them nearly all at no cost that can be measured (the vectors are long);
    # rescoring would read the originals from disk, which the second stage makes needless
    params = o.params if o.params is not None else Params(hnsw_ef=max(128, 2 * candidates), rescore=False)
    first = partial(Find, collection.name, fde, collection.fde, params=params, shard_key=o.shard_key)
    names = token_names(collection, o.tokens)
    if mode == "none":
        threshold = o.score_threshold
        return [first(o.limit, o.offset, where=where, score_threshold=threshold, payload=_payload(o), vectors=names)]
    assert collection.tokens is not None
    if mode == "client":
        return [first(candidates, where=where, payload=_payload(o), vectors=(collection.tokens,))]
    two_stage = Find(
        collection.name,
        query,
        collection.tokens,
        # with unscored documents to append, the whole ranking is needed to know where they begin
        wanted if lacking else o.limit,
        0 if lacking else o.offset,
        Prefetch(fde, collection.fde, candidates, params),
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
    seen = collection.seen
    if seen.lacking is None or seconds() - seen.lacking_at > _RECOUNT_SECONDS:
        assert collection.tokens is not None
        seen.lacking = await Count(collection.name, Where(has=(collection.fde,), lacks=(collection.tokens,)))
        seen.lacking_at = seconds()
    return seen.lacking or 0


def _merge(collection: Collection, rows: list[list[Row]], lacking: bool, o: Options) -> Hits:
    """Reranked rows, then the candidates without tokens."""
    fde_scores: dict[PointId, float] = {row.id: row.score for row in rows[1]} if len(rows) > 1 else {}
    hits = [_hit(collection, row, o, fde_scores.get(row.id), True) for row in rows[0]]
    if not lacking:
        return Hits(hits)
    unscored = [_hit(collection, row, o, row.score, False) for row in rows[2] if row.id in fde_scores]
    # their scores are on another scale, so a threshold cannot admit them
    room = [] if o.score_threshold is not None else unscored
    return Hits((hits + room)[o.offset : o.offset + o.limit], unscored)


def _rerank(collection: Collection, query: npt.NDArray[np.float32], rows: list[Row], o: Options) -> Hits:
    """The second stage, here."""
    matrices = [(row, tokens_of(collection, row)) for row in rows]
    scored = [(row, m) for row, m in matrices if m is not None]
    scores = maxsim_of_stored(query, [m for _, m in scored])
    order = np.argsort(-scores, kind="stable")
    best = [(scored[i][0], float(scores[i])) for i in order]
    if o.score_threshold is not None:
        best = [(row, score) for row, score in best if score >= o.score_threshold]
    hits = [_hit(collection, row, o, row.score, True, score) for row, score in best[: o.offset + o.limit]]
    unscored = [_hit(collection, row, o, row.score, False) for row, m in matrices if m is None]
    room = [] if o.score_threshold is not None else unscored
    return Hits((hits + room)[o.offset : o.offset + o.limit], unscored)


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
