"""Filter expressions. Templates are not known to milvus-lite and servers before 2.5, so literals are written out."""

from __future__ import annotations

from collections.abc import Sequence

from muvera_adapters.errors import InvalidInput
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.ids import Key

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def literal(value: Key) -> str:
    """A string or integer in Milvus's syntax. Few characters are escaped, as some parsers know no other escapes."""
    return f'"{value.translate(_ESCAPES)}"' if isinstance(value, str) else str(value)


def among(field: str, keys: Sequence[Key], chosen: str = "") -> str:
    """An expression for the documents of these keys that pass ``chosen``."""
    return both(chosen, f"{field} in [{', '.join(map(literal, keys))}]")


def after(field: str, key: Key, chosen: str = "") -> str:
    """An expression for the documents whose key is larger and that pass ``chosen``."""
    return both(chosen, f"{field} > {literal(key)}")


def everything(collection: Collection) -> str:
    """An expression for all documents, for requests that do not accept an empty one."""
    key = collection.key
    return f"({key} >= 0 or {key} < 0)" if collection.keys == "integer" else f'{key} >= ""'


def both(chosen: str, other: str) -> str:
    """An expression for documents that pass ``other`` and, if it is not empty, ``chosen``."""
    return f"({chosen}) and {other}" if chosen else other


def checked(expression: str | None) -> str:
    """Checks that a user's expression stays one expression within parentheses; returns "" for None.

    Raises:
        InvalidInput: it is not a string, or its brackets or quotes are not closed.
    """
    if expression is None:
        return ""
    if not isinstance(expression, str):
        raise InvalidInput(f"filter is an expression of Milvus, such as 'year > 2020', got {expression!r}")
    open_brackets, quote, position = [], "", 0
    while position < len(expression):
        character = expression[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif character in ")]}" and (not open_brackets or open_brackets.pop() != character):
            raise InvalidInput(f"filter {expression!r}: {character!r} at position {position} closes nothing")
        position += 1
    if quote or open_brackets:
        raise InvalidInput(f"filter {expression!r}: {quote or open_brackets[-1]!r} is missing at its end")
    return expression.strip()
