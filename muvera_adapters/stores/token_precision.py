"""The words for how token matrices are stored, the same in every store, and what rounding does to tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from muvera_adapters.errors import InvalidInput

#: how token matrices are stored; each store has some of them
TokenPrecision: TypeAlias = Literal["float32", "float16", "int8", "turbo8", "turbo4"]


@dataclass(frozen=True, slots=True)
class Rounding:
    """What storing a token vector in fewer bits does.

    Attributes:
        bits: bits of one dimension.
        beside: bytes that are kept with each token, such as a scale.
        error: typical length of the difference between a stored token and the given one, relative to the token's
            length, where values do not show it; 0 for float32, and for float16, whose values do.
    """

    bits: int
    beside: int
    error: float


#: measured on random and real tokens of 16 to 128 dimensions; a scalar code of 4 bits cannot do better than .098
ROUNDINGS: dict[TokenPrecision, Rounding] = {
    "float32": Rounding(32, 0, 0.0),
    "float16": Rounding(16, 0, 0.0),
    "int8": Rounding(8, 4, 0.0075),
    "turbo8": Rounding(8, 4, 0.0075),
    "turbo4": Rounding(4, 4, 0.1),
}


def rounding_error(name: str) -> float:
    """The typical error of tokens of a data type, 0 for those that are not in :data:`ROUNDINGS`."""
    return next((each.error for key, each in ROUNDINGS.items() if key == name), 0.0)


def check_precision(precision: object, known: Collection[str], others: str = "") -> None:
    """Raises InvalidInput unless a store has this way of storing tokens.

    Args:
        precision: what was asked for.
        known: words that the store has.
        others: what else the store takes, in words that end the sentence.
    """
    if not isinstance(precision, str) or precision not in known:
        raise InvalidInput(f"tokens must be one of {', '.join(known)}{others}, got {precision!r}")
