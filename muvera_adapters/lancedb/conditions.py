"""Conditions in no database's words (``stores/conditions.py``) as SQL of LanceDB.

A comparison with null is neither true nor false, and nor is its negation, so every comparison is asked whether it is
true. Keys in the JSON column are compared by JSON paths, which know the types of values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from muvera_adapters.errors import InvalidInput
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.expressions import among, column, literal
from muvera_adapters.stores.conditions import ORDERED, All, Compare, Condition, Ids, Not, Some, unsupported
from muvera_adapters.stores.keys import to_key


def to_filter(condition: Condition, collection: Collection) -> str:
    """The SQL of a condition, in parentheses.

    Raises:
        Unsupported: no SQL of LanceDB has the operator for this value.
        InvalidInput: an id is not valid, or a key cannot be written in SQL.
    """
    match condition:
        case All():
            return _joined(condition.conditions, "AND", collection) or "(true)"
        case Some():
            return _joined(condition.conditions, "OR", collection) or "(false)"
        case Not():
            return f"(NOT {to_filter(condition.condition, collection)})"
        case Ids():
            keys = [to_key(each, i, collection.keys) for i, each in enumerate(condition.ids)]
            return f"({among(collection.key, keys)})" if keys else "(false)"
        case Compare():
            return f"({_comparison(condition, collection)})"


def _joined(conditions: Sequence[Condition], word: str, collection: Collection) -> str:
    parts = [to_filter(each, collection) for each in conditions]
    return f"({f' {word} '.join(parts)})" if parts else ""


def _comparison(condition: Compare, collection: Collection) -> str:
    if isinstance(condition.value, datetime):
        raise unsupported(condition, "payloads keep dates as text; keep them as numbers, of seconds for example")
    name, *deeper = condition.key.split(".")
    kind = collection.fields.get(name)
    if kind is not None:
        return _in_column(condition, name, deeper, kind)
    if collection.json is None:
        return "true" if condition.operator == "empty" else "false"
    return _in_json(condition, column(collection.json), [name, *deeper])


def _in_json(condition: Compare, where: str, names: Sequence[str]) -> str:
    operator, value = condition.operator, condition.value
    if any(ord(character) < 32 for name in names for character in name):
        raise InvalidInput(f"no filter can name the key {condition.key!r}")
    path = "$" + "".join(f".{json.dumps(name, ensure_ascii=False)}" for name in names)
    there = f"json_extract({where}, {literal(path)})"
    if operator == "empty":
        return f"coalesce({there}, 'null') = 'null'"
    if operator == "text":
        raise unsupported(condition, "SQL functions of JSON values have no part of a text")
    if operator == "contains":
        return f"{there} LIKE '[%' AND {_at(where, path + '[*]', '==', value)}"
    if operator == "in":
        return " OR ".join(_at(where, path, "==", each) for each in value) or "false"
    return _at(where, path, operator, value)


def _at(where: str, path: str, operator: str, value: Any) -> str:
    """A comparison of what is at a JSON path."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, float):  # paths have no fractions
        sign = "=" if operator == "==" else operator
        return f"(TRY_CAST(json_extract({where}, {literal(path)}) AS DOUBLE) {sign} {value!r}) IS TRUE"
    written = json.dumps(value, ensure_ascii=False)
    return f"json_exists({where}, {literal(f'{path} ? (@ {operator} {written})')}) IS TRUE"


def _in_column(condition: Compare, name: str, deeper: Sequence[str], kind: pa.DataType) -> str:
    """A comparison of a column that has a type: a value of another type is equal to nothing."""
    operator, value = condition.operator, condition.value
    path = column(name)
    for each in deeper:
        found = kind.get_field_index(each) if pa.types.is_struct(kind) else -1
        if found < 0:
            return "true" if operator == "empty" else "false"
        kind, path = kind.field(found).type, f"{path}.{column(each)}"
    if operator == "empty":
        return f"{path} IS NULL"
    if operator == "contains":
        fits = pa.types.is_list(kind) and _fits(value, kind.value_type)
        return f"array_has({path}, {_literal(value)}) IS TRUE" if fits else "false"
    if operator == "text":
        return f"contains({path}, {literal(value)}) IS TRUE" if _is_text(kind) else "false"
    values = [each for each in (value if operator == "in" else [value]) if _fits(each, kind)]
    if operator in ORDERED:
        return f"({_number(path, kind, values[0])} {operator} {_literal(values[0])}) IS TRUE" if values else "false"
    parts = [f"({_number(path, kind, each)} = {_literal(each)}) IS TRUE" for each in values]
    return " OR ".join(parts) or "false"


def _number(path: str, kind: pa.DataType, value: Any) -> str:
    """The column, as a float where it has integers and the value is none."""
    return f"CAST({path} AS DOUBLE)" if pa.types.is_integer(kind) and isinstance(value, float) else path


def _fits(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, bool):
        return bool(pa.types.is_boolean(kind))
    if isinstance(value, str):
        return _is_text(kind)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return literal(value) if isinstance(value, str | int) else repr(value)
