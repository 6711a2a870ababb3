"""Conditions that choose the documents to migrate."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.stores import conditions

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of one value of a document's payload.

    Attributes:
        text: ``KEY=VALUE``, or with ``!=``, ``<``, ``<=``, ``>``, ``>=``. VALUE is JSON (``3``, ``true``, ``"3"``);
            otherwise it is a string. A document without the key passes only ``!=``; so does one whose value cannot
            be compared.
    """

    text: str
    key: str
    sign: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Parses a condition; raises WrongUsage if it is not a comparison."""
        match = re.fullmatch(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", text, re.DOTALL)
        if not match:
            raise WrongUsage(f"{text!r} is not a condition: write KEY=VALUE, or another sign: != < <= > >=")
        try:
            value = json.loads(match[3])
        except ValueError:
            value = match[3]
        return cls(text, match[1].strip(), match[2], value)

    def __call__(self, payload: Mapping[str, Any]) -> bool:
        """Whether a document with this payload passes."""
        if self.key not in payload:
            return self.sign == "!="
        try:
            return bool(_OPERATORS[self.sign](payload[self.key], self.value))
        except TypeError:
            return False

    def as_filter(self) -> conditions.Condition:
        """The same comparison for ``filter_of`` of a store; with ``<`` and ``>``, a text is a date in ISO 8601.

        Raises:
            WrongUsage: a list or an object cannot be compared, and only numbers and dates have an order.
        """
        try:
            if self.value is None and self.sign in ("=", "!="):
                found: conditions.Condition = conditions.Compare(self.key, "empty")
            elif self.sign in conditions.ORDERED:
                date = conditions.parsed(self.value) if isinstance(self.value, str) else None
                return conditions.Compare(self.key, cast(conditions.Operator, self.sign), date or self.value)
            else:
                found = conditions.Compare(self.key, "==", self.value)
        except InvalidInput as error:
            raise WrongUsage(f"--filter {self.text!r}: {error}") from error
        return conditions.Not(found) if self.sign == "!=" else found
