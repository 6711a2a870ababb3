"""Database-independent conditions on payloads; ``filter_of`` of each store converts them to filters.

:func:`matches` defines the meaning of a condition. A comparison of a missing key does not hold, so its negation holds.
Numbers of different types can be equal (2 and 2.0), but numbers never equal booleans. Only ``contains`` is defined for
lists; what the other operators do with lists depends on the database.
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
#: ``text``: the text at the key contains the value, with the same upper and lower case; ``empty``: missing or null
Operator: TypeAlias = Literal["==", "in", ">", ">=", "<", "<=", "contains", "text", "empty"]

ORDERED = (">", ">=", "<", "<=")


@dataclass(frozen=True, slots=True)
class Compare:
    """Compares the value at a key of the payload.

    Attributes:
        key: key of the payload; dots lead into nested dictionaries.
        operator: comparison operator.
        value: value to compare with. For ``==`` and ``contains``: a scalar; for ``in``: a sequence of scalars; for
            ``>``, ``>=``, ``<`` and ``<=``: a number or a ``datetime`` (UTC if it has no time zone; it is compared with
            dates in ISO 8601); for ``text``: a text; for ``empty``: None.

    Raises:
        InvalidInput: the operator does not exist, or the value has the wrong type for it.
    """

    key: str
    operator: Operator
    value: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise InvalidInput(f"the key of a condition must be a text that is not empty, got {self.key!r}")
        if self.operator not in get_args(Operator):
            raise InvalidInput(f"unknown operator {self.operator!r}; operators are {', '.join(get_args(Operator))}")
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
    """The id of the document is one of these."""

    ids: Sequence[DocumentId]


@dataclass(frozen=True, slots=True)
class All:
    """All conditions hold; without conditions, every document passes."""

    conditions: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one condition holds; without conditions, no document passes."""

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
    """A time as ISO 8601 text with its time zone."""
    return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).isoformat()


def parsed(text: str) -> datetime | None:
    """The time of an ISO 8601 text with its time zone (UTC if it has none); None for any other text."""
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
