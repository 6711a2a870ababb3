"""The requests of a search, and how their replies are assigned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from muvera_adapters.errors import InvalidInput
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.reading import token_names
from muvera_adapters.qdrant.requests import Find, FindOwn, OwnPrefetch, Params, PointId, Prefetch, Row, Where
from muvera_adapters.stores.fusion import FDE, Candidates, list_names
from muvera_adapters.stores.ids import ID_KEY
from muvera_adapters.stores.query_scaling import Query, QueryFDE
from muvera_adapters.stores.searching import SearchOptions, limit_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SearchOptions):
    """Arguments of a search; the stores document them.

    Attributes:
        fde_scores: whether hits have the encoder's estimate even if the mode does not return it anyway.
        params: search parameters of the first stage, in the database's own type; None: the defaults.
        shard_key: shard key selector.
    """

    fde_scores: bool = False
    params: Any = None
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests of one query, in the order of the attributes.

    Attributes:
        both: request for both stages; None if the database does not do the second.
        lists: one request for each list of candidates, that of FDEs first.
        lacking: like ``lists``, for candidates without tokens.
        names: names of the lists.
    """

    both: Find | None
    lists: Sequence[Find | FindOwn]
    lacking: Sequence[Find | FindOwn] = ()
    names: Sequence[str] = (FDE,)

    @property
    def finds(self) -> list[Find | FindOwn]:
        """All requests."""
        return [*([] if self.both is None else [self.both]), *self.lists, *self.lacking]


@dataclass(frozen=True, slots=True)
class Found:
    """Replies to a plan.

    Attributes:
        both: reranked rows, best first.
        lists: rows of each list, best first.
        candidates: points of all lists.
        lacking: rows of candidates without tokens.
    """

    both: list[Row]
    lists: list[list[Row]]
    candidates: Candidates[PointId]
    lacking: list[Row]

    @property
    def estimates(self) -> dict[PointId, float]:
        """Estimates of the encoder, as far as they are known."""
        return {row.id: row.score for row in self.lists[0]} if self.lists else {}


def plan(collection: Collection, mode: str, lacking: bool, query: Query, fde: QueryFDE, o: Options) -> Plan:
    """Requests of one query.

    Args:
        collection: the collection to search.
        mode: how candidates are scored.
        lacking: whether candidates may lack tokens.
        query: the query.
        fde: its FDE.
        o: options of the search.
    """
    where, payload = Where(o.filter), asked_payload(o)
    vectors = token_names(collection, o.tokens)
    joined = bool(query.also) or o.fusion is not None
    candidates = o.candidates if joined or mode != "none" else o.wanted
    params = first_stage_params(collection, o, candidates)
    first = partial(Find, collection.name, fde.vector, collection.fde, params=params, shard_key=o.shard_key)
    if mode == "none" and not joined:
        least = fde.threshold(o.score_threshold)
        page = first(o.limit, o.offset, where=where, score_threshold=least, payload=payload, vectors=vectors)
        return Plan(None, [page])
    assert collection.tokens is not None or mode == "none"
    if mode == "client" and not joined and o.stop_after is None:
        return Plan(None, [first(candidates, where=where, payload=payload, vectors=token_names(collection, True))])
    own = [OwnPrefetch(each, limit_of(each, candidates), f"also[{i}]") for i, each in enumerate(query.also)]
    names = [FDE, *list_names([getattr(each.prefetch, "using", None) for each in own])] if own else [FDE]

    def lists(where: Where, payload: Any) -> list[Find | FindOwn]:
        """One request for each list."""
        theirs = [FindOwn(each, where, payload, o.shard_key) for each in own]
        return [first(candidates, where=where, payload=payload), *theirs]

    if mode != "native":
        return Plan(None, lists(where, False), names=names)
    assert collection.tokens is not None
    # with unscored documents to append, or ranks to fuse, the whole ranking is needed
    paged = not lacking and o.fusion is None
    total = candidates + sum(each.limit for each in own)
    both = Find(
        collection.name,
        query.scored,
        collection.tokens,
        o.limit if paged else o.wanted if o.fusion is None else total,
        o.offset if paged else 0,
        (Prefetch(fde.vector, collection.fde, candidates, params), *own),
        Params(exact=True) if collection.tokens_indexed else None,
        where,
        None if o.fusion is not None else o.score_threshold,
        payload,
        vectors,
        o.shard_key,
    )
    if not joined and not o.fde_scores and not lacking:
        return Plan(both, [])
    known = lists(where, False)
    without = Where(o.filter, lacks=(collection.tokens,))
    return Plan(both, known, lists(without, payload) if lacking else [], names)


def read(plan: Plan, replies: Iterator[list[Row]], fde: QueryFDE) -> Found:
    """Takes the replies to a plan's requests, the next ones of ``replies``."""
    both = next(replies) if plan.both is not None else []
    lists = [next(replies) for _ in plan.lists]
    if lists:
        lists[0] = _unscaled(lists[0], fde)
    named = zip(plan.names, lists, strict=False)
    candidates = Candidates({name: [row.id for row in rows] for name, rows in named})
    lacking: dict[PointId, Row] = {}
    if plan.lacking:
        there = {row.id for rows in lists for row in rows}
        for i, _ in enumerate(plan.lacking):
            rows = next(replies)
            for row in _unscaled(rows, fde) if i == 0 else rows:
                if row.id in there:
                    lacking.setdefault(row.id, row)
    return Found(both, lists, candidates, list(lacking.values()))


def first_stage_params(collection: Collection, o: Options, candidates: int) -> Any:
    """Search parameters over FDEs: the user's, or ours."""
    # a beam of twice the candidates finds nearly all of them at no measurable cost (the vectors are long); rescoring
    # reads the originals from disk, so it is used only for coarse codes: unindexed documents are scored exactly
    ours = Params(hnsw_ef=max(128, 2 * candidates), rescore=collection.rescore)
    return ours if o.params is None else o.params


def asked_payload(o: Options) -> Any:
    """The payload to request, so that it includes the ids."""
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


def _unscaled(rows: list[Row], fde: QueryFDE) -> list[Row]:
    """The rows with the scores of the query's unscaled FDE."""
    return [Row(row.id, row.payload, row.vectors, fde.score(row.score)) for row in rows]
