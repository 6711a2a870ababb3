"""The best reranked hits for each value of a payload key, computed in this process for all stores.

Databases can group too, but they group the results of the first stage, or repeat a search with other filters until
groups are full. Their groups are therefore not those of the reranked candidates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import Group, Hit, Hits, Timings
from muvera_adapters.stores.operations import Operation
from muvera_adapters.stores.payloads import at_path
from muvera_adapters.stores.searching import SearchOptions, most_candidates

O = TypeVar("O", bound=SearchOptions)  # noqa: E741

# how often the number of candidates is doubled at most, if there are too few groups
_DOUBLINGS = 2

_MISSING = object()


async def grouped(search: Callable[[O], Operation[list[Hits]]], options: O, most: int | None = None) -> list[Hits]:
    """Hits of each query in groups; without ``group_by``, the hits of ``search``.

    All candidates are ranked. If they have fewer groups than wanted, the search is repeated with twice as many
    candidates, at most two times.

    Args:
        search: searches with the given options.
        options: options of the search; ``limit`` and ``offset`` count groups.
        most: largest ``prefetch`` of the database; None: no limit.

    Raises:
        InvalidInput: no candidate has the key, or ``with_payload`` is of a kind that may leave it out.
    """
    key = options.group_by
    if key is None:
        return await search(options)
    if not isinstance(key, str) or not key:
        raise InvalidInput(f"group_by must be the name of a payload key, got {key!r}")
    shown = options.payload
    if shown is not True and shown is not False and not isinstance(shown, list | tuple):
        raise InvalidInput("with group_by, with_payload must be True, False or a list of names")
    root = key.split(".")[0]
    payload = True if shown is True else list(dict.fromkeys([*(shown or ()), root]))
    depth = options.candidates
    spent = Timings()
    for doubling in range(_DOUBLINGS + 1):
        total = most_candidates(options, depth)
        wide = replace(
            options, group_by=None, limit=total, offset=0, prefetch=depth, payload=payload, all_candidates=True
        )
        found = await search(wide)
        both = [(hits, _groups(hits, key, options.group_size)) for hits in found]
        enough = all(len(groups) >= options.wanted or _is_all(hits, depth) for hits, groups in both)
        if enough or doubling == _DOUBLINGS or (most is not None and most_candidates(options, 2 * depth) > most):
            break
        spent = _sum(spent, found[0].timings)
        depth *= 2
    return [_page(hits, groups, options, root, spent) for hits, groups in both]


def _is_all(hits: Hits, depth: int) -> bool:
    """Whether more candidates would not give more hits."""
    return hits.timings.candidates is not None and hits.timings.candidates < depth


def _sum(first: Timings, second: Timings) -> Timings:
    """Sums of times and requests of both searches; other values are those of the second."""
    times: dict[str, Any] = {}
    for name in ("encode", "first_stage", "second_stage", "payload"):
        both = (getattr(first, name), getattr(second, name))
        times[name] = None if both == (None, None) else sum(each or 0.0 for each in both)
    return replace(second, requests=first.requests + second.requests, **times)


def _groups(hits: Hits, key: str, size: int) -> list[Group]:
    values: dict[str, Group] = {}
    groups: list[Group] = []
    for hit in hits:
        value = _value(hit.payload or {}, key)
        name = json.dumps(value, sort_keys=True, default=str) if value is not _MISSING else ""
        group = values.get(name) if name else None
        if group is None:
            group = Group(None if value is _MISSING else value, [])
            groups.append(group)
            if name:
                values[name] = group
        if len(group.hits) < size:
            group.hits.append(hit)
    if hits and not values:
        there = ", ".join(hits[0].payload or {}) or "none"
        raise InvalidInput(f"group_by={key!r}: no candidate has this payload key; keys of the first one: {there}")
    return groups


def _value(payload: Mapping[str, Any], key: str) -> Any:
    """Value of a key, or of a path of keys with dots."""
    return payload[key] if key in payload else at_path(payload, key, _MISSING)


def _page(hits: Hits, groups: Sequence[Group], o: SearchOptions, root: str, spent: Timings) -> Hits:
    page = groups[o.offset : o.wanted]
    unscored: list[Hit] = hits.unscored
    if o.payload is not True:
        names = None if o.payload is False else list(o.payload)
        page = [Group(group.value, [_shown(hit, names, root) for hit in group.hits]) for group in page]
        unscored = [_shown(hit, names, root) for hit in unscored]
    best = sorted((hit for group in page for hit in group.hits), key=lambda hit: (not hit.reranked, -hit.score))
    return Hits(best, unscored, hits.without_fde, _sum(spent, hits.timings), page)


def _shown(hit: Hit, names: Sequence[Any] | None, root: str) -> Hit:
    """The hit with only the requested part of the payload at the root of the group's key; names None: no payload."""
    if names is None:
        return replace(hit, payload=None)
    if root in names:
        return hit
    payload = {name: value for name, value in (hit.payload or {}).items() if name != root}
    for name in names:
        if isinstance(name, str) and name.split(".")[0] == root:
            value = _value(hit.payload or {}, name)
            if value is not _MISSING:
                _put(payload, name.split("."), value)
    return replace(hit, payload=payload)


def _put(payload: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        payload = payload.setdefault(name, {})
    payload[path[-1]] = value
