"""Conditions on payloads in no database's words: each store makes a filter of its own of them (``filter_of``).

:func:`matches` defines what a condition means. A comparison of a key that is missing does not hold, so its negation
does. Numbers are equal across types (2 and 2.0), and never equal to booleans. Lists are compared by ``contains`` only;
what the other operators do with a list is the database's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias, get_args

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.payloads import at_path

#: value of a payload that can be compared
Scalar: TypeAlias = str | int | float | bool
#: ``text``: the text at the key has the value in it, as it is spelled; ``empty``: missing or null
Operator: TypeAlias = Literal["==", "in", ">", ">=", "<", "<=", "contains", "text", "empty"]

ORDERED = (">", ">=", "<", "<=")


@dataclass(frozen=True, slots=True)
class Compare:
    """Compares the value at a key of the payload.

    Attributes:
        key: key of the payload; dots lead into nested dictionaries.
        operator: how to compare.
        value: for ``==`` and ``contains`` a scalar, for ``in`` a sequence of scalars, for orders a number or a
            ``datetime`` (without a zone: UTC; it is compared with dates in ISO 8601), for ``text`` a text, for
            ``empty`` None.

    Raises:
        InvalidInput: there is no such operator, or the value does not suit it.
    """

    key: str
    operator: Operator
    value: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise InvalidInput(f"the key of a condition is a text with at least one character, got {self.key!r}")
        if self.operator not in get_args(Operator):
            raise InvalidInput(f"no operator {self.operator!r}; there are {', '.join(get_args(Operator))}")
        if not self._suits():
            raise InvalidInput(f"{self.key!r}: {self.value!r} is not a value for the operator {self.operator!r}")

    def _suits(self) -> bool:
        if self.operator == "in":
            many = isinstance(self.value, Sequence) and not isinstance(self.value, str | bytes)
            return many and all(map(_is_scalar, self.value))
        if self.operator in ORDERED:
            number = _is_scalar(self.value) and not isinstance(self.value, bool | str)
            return number or isinstance(self.value, datetime)
        if self.operator == "empty":
            return self.value is None
        return isinstance(self.value, str) if self.operator == "text" else _is_scalar(self.value)


@dataclass(frozen=True, slots=True)
class Ids:
    """Documents of these ids."""

    ids: Sequence[DocumentId]


@dataclass(frozen=True, slots=True)
class All:
    """All conditions hold; with none, every document passes."""

    conditions: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one condition holds; with none, no document passes."""

    conditions: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Condition


Condition: TypeAlias = Compare | Ids | All | Some | Not


def matches(condition: Condition, document_id: DocumentId, payload: Mapping[str, Any] | None) -> bool:
    """Whether a document passes a condition."""
    match condition:
        case All():
            return all(matches(each, document_id, payload) for each in condition.conditions)
        case Some():
            return any(matches(each, document_id, payload) for each in condition.conditions)
        case Not():
            return not matches(condition.condition, document_id, payload)
        case Ids():
            return document_id in condition.ids
        case Compare():
            return _holds(condition, at_path(payload or {}, condition.key))


def unsupported(condition: Compare, reason: str) -> Unsupported:
    """The error for a comparison that a database's filters cannot express."""
    return Unsupported(f"a filter on {condition.key!r} with the operator {condition.operator!r}: {reason}")


def moment(value: datetime) -> str:
    """A time as ISO 8601 with its zone."""
    return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).isoformat()


def parsed(text: str) -> datetime | None:
    """The time that a text in ISO 8601 names, with its zone (UTC where it has none); None for any other text."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00") if text.endswith("Z") else text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Scalar) and not (isinstance(value, float) and not math.isfinite(value))


def _holds(condition: Compare, found: Any) -> bool:
    wanted = condition.value
    match condition.operator:
        case "empty":
            return found is None
        case "==":
            return _equal(found, wanted)
        case "in":
            return any(_equal(found, each) for each in wanted)
        case "contains":
            return isinstance(found, list) and any(_equal(each, wanted) for each in found)
        case "text":
            return isinstance(found, str) and wanted in found
        case _:
            return _ordered(found, condition.operator, wanted)


def _ordered(found: Any, operator: str, wanted: Any) -> bool:
    if isinstance(wanted, datetime):
        found = parsed(found) if isinstance(found, str) else None
        wanted = wanted if wanted.tzinfo else wanted.replace(tzinfo=timezone.utc)
    elif not isinstance(found, int | float) or isinstance(found, bool):
        found = None
    if found is None:
        return False
    below, same = bool(found < wanted), bool(found == wanted)
    return {"<": below, "<=": below or same, ">": not below and not same, ">=": not below}[operator]


def _equal(found: Any, wanted: Any) -> bool:
    return isinstance(found, Scalar) and isinstance(found, bool) == isinstance(wanted, bool) and found == wanted
