"""Conversion of payloads to plain JSON values, the same for all databases.

| value | what is stored |
|---|---|
| `None`, `bool`, `int`, `float`, `str` | the same |
| numpy scalars and arrays | numbers, lists of numbers |
| `list`, `tuple` | list |
| dictionary with keys of text | dictionary |
| `date`, `datetime`, `time`, `numpy.datetime64` | text, ISO 8601 |
| `uuid.UUID` | text, with hyphens |
| objects with `latitude` and `longitude` | `{"lat": ..., "lon": ...}` |

All other values are rejected with an error that names the key. So are NaN, infinite numbers, integers outside the
database's range, text with half a surrogate pair (UTF-8 cannot encode it), and nesting deeper than 100 levels.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any

import numpy as np

from muvera_adapters.errors import InvalidInput

#: default range of the integers that a database can store
INTEGERS = (-(2**63), 2**63 - 1)

_DEEPEST = 100
# types that can be stored except for some values
_JSON_TYPES = (str, int, float, np.integer, np.floating, np.datetime64, date, time)


class UnstorableValue(InvalidInput):
    """A value that cannot be stored although its type can; an upsert then reports only this document as failed."""


def to_stored(payload: Mapping[str, Any], where: str, integers: tuple[int, int] = INTEGERS) -> dict[str, Any]:
    """Converts a payload to plain JSON values.

    Args:
        payload: payload as the user gave it.
        where: the document, for messages: "document 3 (id 'x')".
        integers: smallest and largest integer that the database can store.

    Raises:
        UnstorableValue: a text, number or date cannot be stored; the message names the key.
        InvalidInput: a key or value is of a type that cannot be stored; the message names the key.
    """
    if not isinstance(payload, Mapping):
        raise InvalidInput(f"payload of {where} must be a dictionary, got a {type(payload).__name__}")

    def refuse(value: Any, path: str, problem: str) -> Any:
        key = f", key {path!r}" if path else ""
        kind = UnstorableValue if isinstance(value, _JSON_TYPES) else InvalidInput
        raise kind(f"payload of {where}{key}: {problem}")

    converted: dict[str, Any] = _plain(payload, "", integers, refuse, 0)
    return converted


def to_plain(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a payload that was read from a database to plain JSON values; other values stay as they are."""
    converted: dict[str, Any] = _plain(payload, "", None, lambda value, path, problem: value, 0)
    return converted


def first_difference(expected: Any, found: Any, path: str = "") -> str | None:
    """The first key in which two payloads of plain JSON values differ, with both values; None where they are equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in {**expected, **found}:
            inner = f"{path}.{key}" if path else str(key)
            if key not in found:
                return f"key {inner!r}: {_short(expected[key])} became nothing"
            if key not in expected:
                return f"key {inner!r}: {_short(found[key])} was added"
            difference = first_difference(expected[key], found[key], inner)
            if difference is not None:
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        differences = (first_difference(a, b, f"{path}[{i}]") for i, (a, b) in pairs)
        return next((each for each in differences if each is not None), None)
    # in Python, True == 1, but in JSON they are different values; 2.0 and 2 are the same number in both
    same = expected == found and isinstance(expected, bool) == isinstance(found, bool)
    return None if same else f"key {path!r}: {_short(expected)} became {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _plain(
    value: Any, path: str, integers: tuple[int, int] | None, refuse: Callable[[Any, str, str], Any], depth: int
) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = str.__str__(value)  # str() of a text enumeration would give its name
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            return refuse(value, path, "the text has half a surrogate pair, which UTF-8 cannot encode")
        return text
    if isinstance(value, int | np.integer):
        number = int(value)
        if integers is not None and not integers[0] <= number <= integers[1]:
            return refuse(value, path, f"the integer {number} is outside {integers[0]} .. {integers[1]}: use text")
        return number
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else refuse(value, path, f"{float(value)} is not a JSON value")
    if depth > _DEEPEST:
        return refuse(value, path[:40] + "...", f"it is nested deeper than {_DEEPEST} levels")
    if isinstance(value, Mapping):
        inner = {}
        for key, each in value.items():
            if not isinstance(key, str):
                return refuse(value, path, f"the key {key!r} is a {type(key).__name__}; keys must be text")
            name = _plain(key, path, integers, refuse, depth)
            inner[name] = _plain(each, f"{path}.{name}" if path else name, integers, refuse, depth + 1)
        return inner
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}[{i}]", integers, refuse, depth + 1) for i, each in enumerate(value)]
    return _converted(value, path, integers, refuse, depth)


def _converted(
    value: Any, path: str, integers: tuple[int, int] | None, refuse: Callable[[Any, str, str], Any], depth: int
) -> Any:
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, np.datetime64):
        return refuse(value, path, "NaT is not a date") if np.isnat(value) else str(value)
    if isinstance(value, date | time):
        # pandas' NaT is a datetime that is not equal to itself
        return value.isoformat() if value == value else refuse(value, path, "NaT is not a date")
    if isinstance(value, np.ndarray):
        # element by element if elements can be of any type, or if tolist() would convert dates to integers
        elements = list(value) if value.dtype.kind in "OMm" and value.ndim else value.tolist()
        return _plain(elements, path, integers, refuse, depth + 1)
    latitude, longitude = getattr(value, "latitude", None), getattr(value, "longitude", None)
    if isinstance(latitude, int | float) and isinstance(longitude, int | float):
        return _plain({"lat": latitude, "lon": longitude}, path, integers, refuse, depth)
    kind = type(value).__name__
    advice = ": encode it as text, with base64 for instance" if isinstance(value, bytes | bytearray) else ""
    return refuse(value, path, f"a value of type {kind} cannot be stored{advice}")


def at_path(payload: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    """Value at a path of keys with dots, which lead into nested dictionaries; ``missing`` if there is none."""
    value: Any = payload
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return missing
        value = value[name]
    return value
