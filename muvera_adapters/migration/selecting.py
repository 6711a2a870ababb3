"""Which documents of a source are migrated."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from muvera_adapters.errors import WrongUsage

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
        text: ``KEY=VALUE``, or with ``!=``, ``<``, ``<=``, ``>``, ``>=``. VALUE is JSON (``3``, ``true``, ``"3"``), and
            a string where it is none. A document without the key passes ``!=`` alone; so does one whose value
            cannot be compared.
    """

    text: str
    key: str
    sign: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises WrongUsage for what is no comparison."""
        match = re.fullmatch(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", text, re.DOTALL)
        if not match:
            raise WrongUsage(f"{text!r} is no condition: write KEY=VALUE, or one of != < <= > >= between them")
        try:
            value = json.loads(match[3])
        except ValueError:
            value = match[3]
        return cls(text, match[1].strip(), match[2], value)

    def __call__(self, payload: Mapping[str, Any]) -> bool:
        """Whether a document passes."""
        if self.key not in payload:
            return self.sign == "!="
        try:
            return bool(_OPERATORS[self.sign](payload[self.key], self.value))
        except TypeError:
            return False
