"""Translates conditions (``stores/conditions.py``) into Weaviate's filters, by the types of properties."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from weaviate.classes.config import DataType
from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import FilterReturn

from muvera_adapters.errors import Unsupported
from muvera_adapters.stores.conditions import ORDERED, All, Compare, Condition, Ids, Not, Some, moment, unsupported
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.ids import to_uuid
from muvera_adapters.weaviate.properties import ELEMENTS, EXACT, Kind, kinds, property_name

# an id that no object has
_NOBODY = str(uuid.uuid5(uuid.NAMESPACE_OID, "muvera_adapters, no object"))
_NUMBERS = (DataType.INT, DataType.NUMBER)
#: first version with a filter that negates
_NEGATES = (1, 33)


async def to_filter(condition: Condition, collection: Collection) -> FilterReturn:
    """Translates a condition; properties that are not known yet are looked up.

    Raises:
        Unsupported: no filter of Weaviate has the operator for this value, or the server is too old to negate.
        InvalidInput: an id is not valid.
    """
    if any(property_name(key) not in collection.seen.kinds for key in _keys(condition)):
        collection.seen.kinds = kinds(await r.config())
    return _made(condition, collection)


def _keys(condition: Condition) -> set[str]:
    match condition:
        case All() | Some():
            return {key for each in condition.conditions for key in _keys(each)}
        case Not():
            return _keys(condition.condition)
        case Compare():
            return {condition.key.partition(".")[0]}
        case Ids():
            return set()


def _made(condition: Condition, collection: Collection) -> FilterReturn:
    match condition:
        case All():
            parts = [_made(each, collection) for each in condition.conditions]
            return Filter.all_of(parts) if parts else Filter.by_id().not_equal(_NOBODY)
        case Some():
            parts = [_made(each, collection) for each in condition.conditions]
            return Filter.any_of(parts) if parts else _nothing()
        case Not():
            if collection.server.version < _NEGATES:
                raise Unsupported(f"a filter with the operator 'not': {collection.server.engine} has it from 1.33 on")
            return Filter.not_(_made(condition.condition, collection))
        case Ids():
            objects = [to_uuid(each, i)[0] for i, each in enumerate(condition.ids)]
            return r.by_ids(objects) if objects else _nothing()
        case Compare():
            return _comparison(condition, collection.seen.kinds)


def _nothing() -> FilterReturn:
    return Filter.by_id().equal(_NOBODY)


def _comparison(condition: Compare, declared: Mapping[str, Kind]) -> FilterReturn:
    name, _, deeper = condition.key.partition(".")
    if deeper:
        raise unsupported(condition, "Weaviate does not filter by what is nested in an object")
    own = property_name(name)
    if own is None:
        raise unsupported(condition, "Weaviate allows no property of this name, so the value is stored as JSON")
    if condition.operator == "text":
        raise unsupported(condition, "Weaviate finds words, not parts of a text")
    kind = declared.get(own)
    if kind is None:
        return _nothing() if condition.operator != "empty" else Filter.by_id().not_equal(_NOBODY)
    if kind.type in (DataType.TEXT, DataType.TEXT_ARRAY) and not kind.whole and condition.operator != "empty":
        raise unsupported(
            condition,
            f"the property {own!r} is compared word by word; create the collection with properties=[Property(name="
            f"{own!r}, data_type=DataType.{kind.type.name}, tokenization=Tokenization.FIELD)]",
        )
    found = _of_property(condition, own, kind)
    return _nothing() if found is None else found


def _of_property(condition: Compare, name: str, kind: Kind) -> FilterReturn | None:
    """A comparison with a property that exists; None if no value of its type can pass."""
    operator, value = condition.operator, condition.value
    if operator == "empty":
        return _empty(condition, name, kind)
    if operator in ORDERED:
        return _ordered(condition, name, kind)
    if operator == "contains":
        element = ELEMENTS.get(kind.type)
        sent = None if element is None else _sent(condition, value, element)
        return None if sent is None else Filter.by_property(name).contains_any([sent])
    some = [_sent(condition, each, kind.type) for each in (value if operator == "in" else [value])]
    parts = [Filter.by_property(name).equal(each) for each in some if each is not None]
    return Filter.any_of(parts) if parts else None


def _sent(condition: Compare, value: Any, kind: DataType) -> Any:
    """The value in the form that a property of this type has; None if no value can be equal to it."""
    if isinstance(value, bool):
        return value if kind == DataType.BOOL else None
    if isinstance(value, str):
        if kind in (DataType.TEXT, DataType.UUID):
            return value
        if kind == DataType.DATE:
            raise unsupported(condition, "the property is a date: compare it with > and < and a datetime")
        return None
    if kind not in _NUMBERS:
        return None
    if isinstance(value, int) and abs(value) > EXACT:
        raise unsupported(condition, "integers beyond 2**53 are stored as JSON")
    if kind == DataType.INT:
        return int(value) if value == int(value) else None
    return float(value)


def _ordered(condition: Compare, name: str, kind: Kind) -> FilterReturn | None:
    operator, value = condition.operator, condition.value
    own = Filter.by_property(name)
    if isinstance(value, datetime):
        if kind.type != DataType.DATE:
            raise unsupported(condition, f"the property {name!r} is a {kind.type.name}; only a DATE is compared so")
        value = datetime.fromisoformat(moment(value))
    elif kind.type not in _NUMBERS:
        return None
    elif kind.type == DataType.INT:
        value = math.floor(value) if operator in (">", "<=") else math.ceil(value)
    else:
        value = float(value)
    compare = {
        ">": own.greater_than,
        ">=": own.greater_or_equal,
        "<": own.less_than,
        "<=": own.less_or_equal,
    }
    return compare[operator](value)


def _empty(condition: Compare, name: str, kind: Kind) -> FilterReturn:
    """A filter for a missing value. Weaviate indexes null values only if configured, so it tests for any value."""
    own = Filter.by_property(name)
    if kind.type in _NUMBERS:
        zero: Any = 0 if kind.type == DataType.INT else 0.0
        return Filter.not_(own.greater_or_equal(zero) | own.less_than(zero))
    if kind.type == DataType.BOOL:
        return Filter.not_(own.equal(True) | own.equal(False))
    if kind.type in (DataType.TEXT, DataType.TEXT_ARRAY):
        return Filter.not_(own.like("*"))
    raise unsupported(condition, f"Weaviate does not tell which {kind.type.name} is missing")
