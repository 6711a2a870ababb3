"""Translates Haystack's filters into conditions that are independent of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from haystack.errors import FilterError

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.conditions import All, Compare, Condition, Ids, Not, Operator, Some, parsed

_ORDERED: dict[str, Operator] = {">": ">", ">=": ">=", "<": "<", "<=": "<="}
_OPERATORS = ("==", "!=", *_ORDERED, "in", "not in")
_LOGICAL = ("AND", "OR", "NOT")


def to_condition(filters: Mapping[str, Any] | None, text_key: str) -> Condition | None:
    """The condition of filters; None for None and for an empty dictionary.

    Fields are ``meta.KEY``, ``id`` and ``content``; a field without ``meta.`` is a key of the metadata too. ``NOT``
    passes unless all of its conditions hold, as in Haystack.

    Args:
        filters: filters in Haystack's language.
        text_key: payload key of a document's content.

    Raises:
        FilterError: the filters are not in Haystack's language, or a value does not suit its operator.
    """
    if not filters:
        return None
    try:
        return _one(filters, text_key)
    except InvalidInput as error:
        raise FilterError(str(error)) from error


def _one(filters: Any, text_key: str) -> Condition:
    if not isinstance(filters, Mapping):
        raise FilterError(f"a filter is a dictionary, got {filters!r}")
    if "field" in filters:
        return _comparison(filters, text_key)
    operator, conditions = _wanted(filters, "operator"), _wanted(filters, "conditions")
    if operator not in _LOGICAL:
        raise FilterError(f"a filter with conditions has the operator AND, OR or NOT, got {operator!r}")
    if not isinstance(conditions, list):
        raise FilterError(f"conditions of a filter are a list, got {conditions!r}")
    inner = [_one(each, text_key) for each in conditions]
    return Some(inner) if operator == "OR" else All(inner) if operator == "AND" else Not(All(inner))


def _comparison(filters: Mapping[str, Any], text_key: str) -> Condition:
    field, operator, value = (_wanted(filters, key) for key in ("field", "operator", "value"))
    unknown = sorted(set(filters) - {"field", "operator", "value"})
    if unknown:
        raise FilterError(f"a filter with a field has no key {', '.join(unknown)}: {dict(filters)!r}")
    if operator not in _OPERATORS:
        raise FilterError(f"no operator {operator!r} in {dict(filters)!r}; there are {', '.join(_OPERATORS)}")
    if operator in ("!=", "not in"):
        return Not(_comparison({**filters, "operator": "==" if operator == "!=" else "in"}, text_key))
    if operator == "in" and not isinstance(value, list):
        raise FilterError(f"a filter with the operator 'in' takes a list, got {value!r} for {field!r}")
    if field == "id":
        return _ids(operator, value)
    key = text_key if field == "content" else str(field).removeprefix("meta.")
    if operator in _ORDERED:
        return _order(key, operator, value)
    if operator == "in":
        some = Compare(key, "in", [each for each in value if each is not None])
        return Some([some, Compare(key, "empty")]) if None in value else some
    return Compare(key, "empty") if value is None else Compare(key, "==", value)


def _order(key: str, operator: str, value: Any) -> Condition:
    if value is None:
        return Some([])
    found = parsed(value) if isinstance(value, str) else value
    if not isinstance(found, int | float | datetime):
        raise FilterError(
            f"a filter on {key!r} with the operator {operator!r} takes a number or a time in ISO 8601, got {value!r}"
        )
    return Compare(key, _ORDERED[operator], found)


def _ids(operator: str, value: Any) -> Condition:
    ids = value if operator == "in" else [value]
    if operator in _ORDERED or not all(isinstance(each, str) for each in ids):
        raise FilterError(f"a filter on 'id' takes == or in, and texts, got {operator!r} and {value!r}")
    return Ids(ids)


def _wanted(filters: Mapping[str, Any], key: str) -> Any:
    if key not in filters:
        raise FilterError(f"{key!r} is missing in the filter {dict(filters)!r}")
    return filters[key]
