"""Translates conditions (``stores/conditions.py``) into Milvus's expressions.

In some versions, a comparison with a missing or null value is neither true nor false, and so is its negation. So every
comparison first tests whether there is a value.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from pymilvus import DataType

from muvera_adapters.errors import InvalidInput
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import among, everything, literal
from muvera_adapters.milvus.ids import to_key
from muvera_adapters.stores.conditions import All, Compare, Condition, Ids, Not, Some, unsupported

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# names with another meaning in expressions
_WORDS = {"and", "or", "not", "in", "like", "exists", "is", "null", "true", "false"}
_TEXTS = (DataType.VARCHAR, DataType.STRING)


def to_expression(condition: Condition, collection: Collection) -> str:
    """The expression of a condition, in parentheses.

    Raises:
        Unsupported: no expression of Milvus has the operator for this value.
        InvalidInput: an id is not valid, or a key cannot be written in an expression.
    """
    match condition:
        case All():
            return _joined(condition.conditions, "and", collection) or f"({everything(collection)})"
        case Some():
            return _joined(condition.conditions, "or", collection) or _nothing(collection)
        case Not():
            return f"(not {to_expression(condition.condition, collection)})"
        case Ids():
            keys = [to_key(each, i, collection.keys, collection.max_key) for i, each in enumerate(condition.ids)]
            return f"({among(collection.key, keys)})" if keys else _nothing(collection)
        case Compare():
            return _comparison(condition, collection)


def _joined(conditions: Any, word: str, collection: Collection) -> str:
    parts = [to_expression(each, collection) for each in conditions]
    return f"({f' {word} '.join(parts)})" if parts else ""


def _nothing(collection: Collection) -> str:
    return f"(not ({everything(collection)}))"


def _comparison(condition: Compare, collection: Collection) -> str:
    operator, value = condition.operator, condition.value
    if operator == "text":
        raise unsupported(condition, "patterns of Milvus depend on its version")
    if isinstance(value, datetime):
        raise unsupported(condition, "Milvus does not compare dates; store them as numbers, for example of seconds")
    name, *deeper = condition.key.split(".")
    if any(not each or re.search(r'["\\\x00-\x1f]', each) for each in (name, *deeper)):
        raise InvalidInput(
            f"the key {condition.key!r} cannot be filtered by: no name in it may be empty or have a quote"
        )
    kind = collection.types.get(name)
    if kind is None and not collection.dynamic:
        return f"({everything(collection)})" if operator == "empty" else _nothing(collection)
    inside = "".join(f"[{literal(each)}]" for each in deeper)
    if kind is not None and kind != DataType.JSON:
        return _declared(condition, name, kind, bool(deeper), collection)
    path = f"$meta[{literal(name)}]{inside}" if kind is None else f"{name}{inside}"
    there = f"(exists {path})" if kind is None or deeper else f"({name} is not null)"
    if operator == "empty":
        if not collection.server.lite:
            raise unsupported(condition, "versions of Milvus differ in whether null is a value")
        return f"(not {there})"
    if operator == "contains":
        # milvus-lite accepts only names of fields
        plain = _NAME.fullmatch(name) and name.lower() not in _WORDS
        compared = f"json_contains({name if plain else path}{inside if plain else ''}, {_literal(value)})"
    else:
        compared = _compared(path, operator, value)
    return f"({there} and {compared})" if compared else _nothing(collection)


def _declared(condition: Compare, name: str, kind: DataType, deeper: bool, collection: Collection) -> str:
    """A comparison with a field that has a type; values of other types are not equal."""
    operator, value = condition.operator, condition.value
    if operator == "empty" or deeper:
        missing = f"({name} is null)" if name in collection.optional else _nothing(collection)
        return missing if operator == "empty" and not deeper else _nothing(collection)
    if (operator == "contains") != (kind == DataType.ARRAY):
        return _nothing(collection)
    if operator == "contains":
        compared = f"array_contains({name}, {_literal(value)})"
    else:
        values = [each for each in (value if operator == "in" else [value]) if _fits(each, kind)]
        compared = _compared(name, "in", values) if operator in ("in", "==") else _compared(name, operator, value)
        if operator not in ("in", "==") and not values:
            compared = ""
    if not compared:
        return _nothing(collection)
    return f"({name} is not null and {compared})" if name in collection.optional else f"({compared})"


def _compared(path: str, operator: str, value: Any) -> str:
    if operator == "in":
        parts = [f"{path} == {_literal(each)}" for each in value]
        return f"({' or '.join(parts)})" if parts else ""
    return f"({path} {operator} {_literal(value)})"


def _fits(value: Any, kind: DataType) -> bool:
    if isinstance(value, bool):
        return bool(kind == DataType.BOOL)
    return bool((kind in _TEXTS) == isinstance(value, str)) and kind != DataType.BOOL


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return literal(value) if isinstance(value, str | int) else repr(value)
