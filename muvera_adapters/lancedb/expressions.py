"""Filters in the SQL of LanceDB."""

from __future__ import annotations

from collections.abc import Sequence

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.keys import Key


def literal(value: Key) -> str:
    """A text or integer in SQL."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def column(name: str) -> str:
    """A column by its name, which is case-sensitive.

    Raises:
        InvalidInput: SQL cannot name such a column.
    """
    if not name or "`" in name or any(ord(character) < 32 for character in name):
        raise InvalidInput(f"no filter can name a column {name!r}")
    return f"`{name}`"


def among(name: str, keys: Sequence[Key], chosen: str = "") -> str:
    """A filter for rows whose column ``name`` is one of ``keys`` and that pass ``chosen``."""
    return both(chosen, f"{column(name)} IN ({', '.join(map(literal, keys))})")


def both(chosen: str, other: str) -> str:
    """A filter for what passes ``chosen``, if it is not empty, and ``other``."""
    return f"({chosen}) AND ({other})" if chosen else other


def checked(expression: str | None) -> str:
    """A user's filter in parentheses, which it cannot leave; "" for None.

    Raises:
        InvalidInput: not a text, it has a comment, or parentheses or quotes in it are not closed.
    """
    if expression is None:
        return ""
    if not isinstance(expression, str):
        raise InvalidInput(f"filter is a condition in SQL, such as 'year > 2020', got {expression!r}")
    opened, quote = 0, ""
    for position, character in enumerate(expression):
        if quote:
            quote = "" if character == quote else quote  # a doubled quote closes and opens again
        elif character in "'\"`":
            quote = character
        elif expression.startswith(("--", "/*"), position):
            raise InvalidInput(f"filter {expression!r} has a comment at position {position}: leave it out")
        elif character in "()":
            opened += 1 if character == "(" else -1
            if opened < 0:
                raise InvalidInput(f"filter {expression!r}: ')' at position {position} closes nothing")
    if quote or opened:
        raise InvalidInput(f"filter {expression!r}: {quote or ')'!r} is missing at its end")
    # in parentheses, the engine refuses what it would ignore after a condition, such as LIMIT
    return f"({expression.strip()})" if expression.strip() else ""
