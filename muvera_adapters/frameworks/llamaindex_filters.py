"""Translates LlamaIndex's metadata filters into conditions that are independent of the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.stores.conditions import All, Compare, Condition, Not, Operator, Some, parsed

_ORDERED: dict[FilterOperator, Operator] = {
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}


def to_condition(filters: MetadataFilters | None) -> Condition | None:
    """The condition of filters; None for None and for an empty list of filters.

    ``NOT`` passes if none of its filters holds, as in LlamaIndex.

    Raises:
        InvalidInput: a value does not suit its operator.
        Unsupported: this library has no such operator.
    """
    if filters is None or not filters.filters:
        return None
    inner = [_one(each) for each in filters.filters]
    if filters.condition in (None, FilterCondition.AND):
        return All(inner)
    if filters.condition == FilterCondition.OR:
        return Some(inner)
    if filters.condition == FilterCondition.NOT:
        return Not(Some(inner))
    raise Unsupported(f"filters with the condition {filters.condition!r} are not supported")


def _one(each: MetadataFilter | MetadataFilters) -> Condition:
    if isinstance(each, MetadataFilters):
        return to_condition(each) or All([])
    key, value, operator = each.key, each.value, each.operator
    if operator in _ORDERED:
        return Compare(key, _ORDERED[operator], _number_or_time(key, value, operator))
    match operator:
        case FilterOperator.EQ:
            return Compare(key, "empty") if value is None else Compare(key, "==", value)
        case FilterOperator.NE:
            return Not(Compare(key, "empty") if value is None else Compare(key, "==", value))
        case FilterOperator.IN:
            return Compare(key, "in", value)
        case FilterOperator.NIN:
            return Not(Compare(key, "in", value))
        case FilterOperator.CONTAINS:
            return Compare(key, "contains", value)
        case FilterOperator.ANY:
            return Some([Compare(key, "contains", one) for one in _many(key, value, operator)])
        case FilterOperator.ALL:
            return All([Compare(key, "contains", one) for one in _many(key, value, operator)])
        case FilterOperator.TEXT_MATCH:
            return Compare(key, "text", value)
        case FilterOperator.IS_EMPTY:
            return Compare(key, "empty")
    name = getattr(operator, "value", operator)
    raise Unsupported(f"a filter on {key!r} with the operator {name!r}: no store of this library has it")


def _number_or_time(key: str, value: Any, operator: FilterOperator) -> int | float | datetime:
    found = parsed(value) if isinstance(value, str) else value
    if found is None or isinstance(found, list):
        raise InvalidInput(
            f"a filter on {key!r} with the operator {operator.value!r} takes a number or a time in ISO 8601, "
            f"got {value!r}"
        )
    return found


def _many(key: str, value: Any, operator: FilterOperator) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"a filter on {key!r} with the operator {operator.value!r} takes a list, got {value!r}")
    return value
