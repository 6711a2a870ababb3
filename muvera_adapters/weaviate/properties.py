"""Converts payloads to Weaviate's properties and back, so that every key and value comes back unchanged.

A server guesses the type of a property from its first value: text that looks like a date or a UUID becomes one, and
later text of another form is rejected. So this library declares properties itself. A text whose first values have no
spaces (a name, a code) gets the tokenization ``field``, so that filters compare it as a whole. Others are for keyword
search, word by word: there, "acme corp" passes a filter for "acme".
Values that Weaviate cannot store (None, lists of lists, keys that are not valid property names ...) are stored as JSON
in a property of this library, and so are the keys that begin with a capital, which Weaviate changes to a small letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timezone
from typing import Any

from weaviate.classes.config import DataType, Property, Tokenization
from weaviate.collections.classes.config import CollectionConfig

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.payloads import to_plain
from muvera_adapters.weaviate.ids import JSON_KEY, RESERVED

#: largest integer that is sent as one: gRPC carries numbers as float64
EXACT = 2**53

# entities/schema/validation.go, PropertyNameRegex; nested names keep their capitals
_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,230}")
# reserved by the server or by its client
_TAKEN = {"id", "vector", "_id", "_additional"}

_ARRAYS = {
    DataType.TEXT: DataType.TEXT_ARRAY,
    DataType.INT: DataType.INT_ARRAY,
    DataType.NUMBER: DataType.NUMBER_ARRAY,
    DataType.BOOL: DataType.BOOL_ARRAY,
    DataType.OBJECT: DataType.OBJECT_ARRAY,
}
#: type of the elements of an array, by type of the array
ELEMENTS = {array: element for element, array in _ARRAYS.items()} | {
    DataType.DATE_ARRAY: DataType.DATE,
    DataType.UUID_ARRAY: DataType.UUID,
}
# common type for a property of the first and values of the second type
_NUMBERS = {
    frozenset({DataType.INT, DataType.NUMBER}): DataType.NUMBER,
    frozenset({DataType.INT_ARRAY, DataType.NUMBER_ARRAY}): DataType.NUMBER_ARRAY,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """Type of a property.

    Attributes:
        type: the type, as Weaviate calls it.
        nested: types of the properties of an object.
        whole: whether a text is indexed as a whole, so that filters compare it exactly; otherwise word by word.
    """

    type: DataType
    nested: Mapping[str, Kind] = field(default_factory=dict)
    whole: bool = True


def kinds(config: CollectionConfig) -> dict[str, Kind]:
    """Types of all properties of a collection."""
    return {own.name: _kind_of_config(own) for own in config.properties}


def undeclared(payloads: Iterable[Mapping[str, Any]], declared: Mapping[str, Kind]) -> dict[str, Kind]:
    """Properties that payloads need and that do not exist yet, including the one for JSON if it is needed."""
    found: dict[str, Kind] = {}
    payloads = list(payloads)
    for payload in payloads:
        for key, value in payload.items():
            name = None if key in RESERVED else property_name(key)
            if name is not None and name not in declared and (kind := _kind(value)) is not None:
                found[name] = _common(found[name], kind) if name in found else kind
    if JSON_KEY not in declared and any(_is_beside(p, {**declared, **found}) for p in payloads):
        found[JSON_KEY] = Kind(DataType.TEXT)
    return found


def to_property(name: str, kind: Kind) -> Property:
    """Declaration of a property."""
    if name == JSON_KEY:
        return json_property()
    nested = [to_property(key, inner) for key, inner in kind.nested.items()]
    is_text = kind.type in (DataType.TEXT, DataType.TEXT_ARRAY)
    whole = (Tokenization.FIELD if kind.whole else Tokenization.WORD) if is_text else None
    return Property(name=name, data_type=kind.type, nested_properties=nested or None, tokenization=whole)


def json_property() -> Property:
    """The property for values that Weaviate cannot store."""
    return Property(
        name=JSON_KEY,
        data_type=DataType.TEXT,
        description="JSON of keys and values that Weaviate would change",
        index_filterable=False,
        index_searchable=False,
    )


def property_name(key: str) -> str | None:
    """Name of the property with a key's value; None if Weaviate allows no such name."""
    name = key[:1].lower() + key[1:]
    return None if name in _TAKEN or not _NAME.fullmatch(key) else name


def check_keys(payload: Mapping[str, Any], where: str) -> None:
    """Raises InvalidInput for keys of this library, and for two keys that would become one property."""
    names: dict[str, str] = {}
    for key in payload:
        name = property_name(key) or key
        if name in RESERVED:
            raise InvalidInput(f"payload of {where}: the key {key!r} is reserved")
        if names.setdefault(name, key) != key:
            raise InvalidInput(
                f"payload of {where}, key {key!r}: Weaviate begins names with a small letter, so that it cannot be "
                f"distinguished from {names[name]!r}: rename one of them"
            )


def to_properties(payload: Mapping[str, Any], declared: Mapping[str, Kind]) -> dict[str, Any]:
    """Properties of a payload of plain JSON values; keys of this library stay as they are."""
    properties: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    capitals = []
    for key, value in payload.items():
        name = property_name(key)
        if key in RESERVED:
            properties[key] = value
        elif name is None or not _goes_in(value, declared.get(name)):
            beside[key] = value
        else:
            properties[name] = _sent(value, declared[name])
            if name != key:
                capitals.append(key)
    if beside or capitals:
        properties[JSON_KEY] = _json(capitals, beside)
    return properties


def to_payload(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The user's payload of an object, as plain JSON values, from its properties."""
    capitals, beside = _read(properties)
    spelled = {name: key for key in capitals if (name := property_name(key)) is not None}
    shown = {spelled.get(name, name): _shown(value) for name, value in properties.items() if name not in RESERVED}
    for key, value in beside.items():
        shown.setdefault(key, value)
    return to_plain(shown)


def merged(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Properties to patch an object with, so that the keys of ``new`` are set and the other keys of ``old`` stay.

    Raises:
        InvalidInput: a key would replace another one that differs only in the case of its first letter.
    """
    properties = dict(new)
    if JSON_KEY not in new and JSON_KEY not in old:
        return properties
    capitals, beside = _read(new)
    old_capitals, old_beside = _read(old)
    keys = to_payload(new).keys()
    before = {property_name(key): key for key in to_payload(old)}
    for key in keys:
        name = property_name(key)
        if name is not None and before.get(name, key) != key:
            raise InvalidInput(
                f"key {key!r}: the document has the key {before[name]!r}, which Weaviate cannot distinguish from it"
            )
        if name is not None and key in beside and name in old:
            properties[name] = None
    capitals += [key for key in old_capitals if key not in keys]
    beside = {**{key: value for key, value in old_beside.items() if key not in keys}, **beside}
    properties[JSON_KEY] = _json(capitals, beside) if capitals or beside else None
    return properties


def _kind_of_config(own: Any) -> Kind:
    nested = {inner.name: _kind_of_config(inner) for inner in own.nested_properties or ()}
    return Kind(own.data_type, nested, own.tokenization in (None, Tokenization.FIELD))


def _kind(value: Any) -> Kind | None:
    """Type for a value; None if no type preserves it."""
    if isinstance(value, bool):
        return Kind(DataType.BOOL)
    if isinstance(value, str):
        return Kind(DataType.TEXT, whole=not any(map(str.isspace, value)))
    if isinstance(value, int):
        return Kind(DataType.INT) if abs(value) <= EXACT else None
    if isinstance(value, float):
        return Kind(DataType.NUMBER)
    if isinstance(value, Mapping):
        inner = {key: kind for key, each in value.items() if _NAME.fullmatch(key) and (kind := _kind(each))}
        return Kind(DataType.OBJECT, inner) if inner else None
    if isinstance(value, list):
        return _array(value)
    return None


def _array(values: list[Any]) -> Kind | None:
    each = [_kind(value) for value in values]
    if not each or any(kind is None or kind.type not in _ARRAYS for kind in each):
        return None
    common = each[0]
    for kind in each[1:]:
        assert common is not None
        assert kind is not None
        if kind.type != common.type and frozenset({kind.type, common.type}) not in _NUMBERS:
            return None
        common = _common(common, kind)
    return None if common is None else Kind(_ARRAYS[common.type], common.nested, common.whole)


def _common(first: Kind, second: Kind) -> Kind:
    """A type for values of both, if there is one; otherwise the first."""
    if first.type == second.type:
        nested = dict(first.nested)
        for key, kind in second.nested.items():
            nested[key] = _common(nested[key], kind) if key in nested else kind
        return Kind(first.type, nested, first.whole and second.whole)
    return Kind(_NUMBERS.get(frozenset({first.type, second.type}), first.type), first.nested)


def _is_beside(payload: Mapping[str, Any], declared: Mapping[str, Kind]) -> bool:
    return JSON_KEY in to_properties(payload, declared)


def _goes_in(value: Any, kind: Kind | None) -> bool:
    """Whether a value is sent as a property: if it fits, or if the server is to reject it by name."""
    if kind is None or value is None:
        return False
    if _fits(value, kind):
        return True
    return not isinstance(value, list | Mapping) and not _is_large(value)


def _fits(value: Any, kind: Kind) -> bool:
    """Whether a property returns a value unchanged; the server checks texts of special types."""
    if kind.type in ELEMENTS:
        element = Kind(ELEMENTS[kind.type], kind.nested)
        return isinstance(value, list) and all(_fits(each, element) for each in value)
    if kind.type == DataType.OBJECT:
        return isinstance(value, Mapping) and all(
            key in kind.nested and (each is None or _fits(each, kind.nested[key])) for key, each in value.items()
        )
    if kind.type in (DataType.INT, DataType.NUMBER):
        number = isinstance(value, int | float) and not isinstance(value, bool) and not _is_large(value)
        return number and (kind.type == DataType.NUMBER or value == int(value))
    if kind.type == DataType.BOOL:
        return isinstance(value, bool)
    if kind.type in (DataType.GEO_COORDINATES, DataType.PHONE_NUMBER):
        return isinstance(value, Mapping)
    return isinstance(value, str)


def _is_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > EXACT


def _sent(value: Any, kind: Kind) -> Any:
    """The value in the form that weaviate-client needs for a property."""
    if kind.type in ELEMENTS and isinstance(value, list):
        element = Kind(ELEMENTS[kind.type], kind.nested)
        return [_sent(each, element) for each in value]
    if kind.type == DataType.OBJECT and isinstance(value, Mapping):
        return {key: None if each is None else _sent(each, kind.nested[key]) for key, each in value.items()}
    if kind.type == DataType.DATE and isinstance(value, str):
        return _rfc3339(value)
    if kind.type == DataType.GEO_COORDINATES and isinstance(value, Mapping):
        place = {"lat": value.get("latitude"), "lon": value.get("longitude"), **value}
        if isinstance(place["lat"], int | float) and isinstance(place["lon"], int | float):
            return {"latitude": place["lat"], "longitude": place["lon"]}
    if isinstance(value, int | float) and not isinstance(value, bool):
        # a list of both kinds of numbers, whose type the client tells from the first
        if kind.type == DataType.NUMBER:
            return float(value)
        if kind.type == DataType.INT and value == int(value):
            return int(value)
    return value


def _rfc3339(text: str) -> str:
    """A date or a time without a zone as UTC, as Weaviate needs it; any other text unchanged."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is not None:
        return text
    return moment.replace(tzinfo=timezone.utc).isoformat().replace("+00:00", "Z")


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _shown(each) for key, each in value.items()}
    if hasattr(value, "international_formatted"):  # a phone number, in a class of the client
        return {"input": value.number, "defaultCountry": value.default_country}
    return value.isoformat() if isinstance(value, date | time) else value


def _json(capitals: list[str], beside: Mapping[str, Any]) -> str:
    return json.dumps({"capitals": capitals, "values": beside})


def _read(properties: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Keys that begin with a capital, and values that are stored as JSON."""
    try:
        kept = json.loads(properties.get(JSON_KEY) or "{}")
    except ValueError:
        return [], {}
    if not isinstance(kept, dict):
        return [], {}
    return list(kept.get("capitals") or ()), dict(kept.get("values") or {})
