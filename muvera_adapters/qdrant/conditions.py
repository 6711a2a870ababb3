"""Translates conditions (``stores/conditions.py``) into Qdrant's filters, in the types of either client."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.conditions import ORDERED, All, Compare, Condition, Ids, Not, Some, moment, unsupported
from muvera_adapters.stores.ids import to_point_id

# a name in a path that needs no quotes
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


@dataclass(frozen=True, slots=True)
class FilterTypes:
    """Constructors of filters and conditions, whose names differ between qdrant-client and Qdrant Edge.

    Attributes:
        group: makes a filter from ``must=``, ``should=`` and ``must_not=``.
        value: makes "the value at a path equals" from ``(path, value)``.
        values: makes "the text at a path is one of a list" from ``(path, texts)``.
        text: makes "the text at a path contains" from ``(path, text)``; None: not supported.
        numbers: makes "the number at a path is in a range" from ``path`` and bounds by keyword.
        times: makes "the time at a path is in a range" from ``path`` and bounds in ISO 8601 by keyword.
        empty: makes "nothing is at a path" from ``(path)``.
        ids: makes "the point has one of these ids" from a list.
    """

    group: Callable[..., Any]
    value: Callable[[str, Any], Any]
    values: Callable[[str, list[str]], Any]
    text: Callable[[str, str], Any] | None
    numbers: Callable[..., Any]
    times: Callable[..., Any]
    empty: Callable[[str], Any]
    ids: Callable[[list[Any]], Any]


def to_filter(condition: Condition, types: FilterTypes) -> Any:
    """Translates a condition into a filter.

    Raises:
        InvalidInput: an id is not valid, or a key cannot be part of a path.
        Unsupported: the server is too old to search within texts.
    """
    made = _condition(condition, types)
    return made if isinstance(condition, All | Some | Not) else types.group(must=[made])


def _condition(condition: Condition, types: FilterTypes) -> Any:
    match condition:
        case All():
            return types.group(must=[_condition(each, types) for each in condition.conditions])
        case Some() if condition.conditions:
            return types.group(should=[_condition(each, types) for each in condition.conditions])
        case Some():
            return types.group(must=[types.ids([])])
        case Not():
            return types.group(must_not=[_condition(condition.condition, types)])
        case Ids():
            return types.ids([to_point_id(each, i)[0] for i, each in enumerate(condition.ids)])
        case Compare():
            return _comparison(condition, types)


def _comparison(condition: Compare, types: FilterTypes) -> Any:
    path, value = _path(condition.key), condition.value
    if condition.operator in ORDERED:
        bound = _BOUNDS[condition.operator]
        if isinstance(value, datetime):
            return types.times(path, **{bound: moment(value)})
        return types.numbers(path, **{bound: value})
    if condition.operator == "in":
        return _among(path, value, types)
    if condition.operator == "text":
        if types.text is None:
            raise unsupported(condition, "Qdrant can search for parts of a text from 1.20 on; upgrade the server")
        return types.text(path, value)
    return types.empty(path) if condition.operator == "empty" else _equal(path, value, types)


def _among(path: str, values: Sequence[Any], types: FilterTypes) -> Any:
    texts = [each for each in values if isinstance(each, str)]
    some = [_equal(path, each, types) for each in values if not isinstance(each, str)]
    some += [types.values(path, texts)] if texts else []
    return types.group(should=some) if some else types.group(must=[types.ids([])])


def _equal(path: str, value: Any, types: FilterTypes) -> Any:
    # a match distinguishes 2 from 2.0, a range does not; a range is not exact beyond 2**53
    if isinstance(value, bool | str) or (isinstance(value, int) and abs(value) > 2**53):
        return types.value(path, value)
    return types.numbers(path, gte=value, lte=value)


def _path(key: str) -> str:
    names = key.split(".")
    if any('"' in name or not name for name in names):
        raise InvalidInput(f"the key {key!r} cannot be used in a filter: no name in it may be empty or have a quote")
    return ".".join(name if _PLAIN.fullmatch(name) else f'"{name}"' for name in names)
