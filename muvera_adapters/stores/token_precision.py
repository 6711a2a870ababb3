"""Names for the ways of storing token matrices, the same in every store, and the rounding of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from muvera_adapters.errors import InvalidInput

#: ways of storing token matrices; each store has some of them
TokenPrecision: TypeAlias = Literal["float32", "float16", "int8", "turbo8", "turbo4"]


@dataclass(frozen=True, slots=True)
class Rounding:
    """The size and the rounding error of a way of storing tokens.

    Attributes:
        bits: bits of one dimension.
        beside: additional bytes for each token, such as a scale.
        error: typical length of the difference between a stored token and the given one, relative to the token's
            length. 0 for float32, and also for float16, because float16 can be recognised by the values themselves.
    """

    bits: int
    beside: int
    error: float


#: measured on random and real tokens of 16 to 128 dimensions; no scalar code of 4 bits has an error below .098
ROUNDINGS: dict[TokenPrecision, Rounding] = {
    "float32": Rounding(32, 0, 0.0),
    "float16": Rounding(16, 0, 0.0),
    "int8": Rounding(8, 4, 0.0075),
    "turbo8": Rounding(8, 4, 0.0075),
    "turbo4": Rounding(4, 4, 0.1),
}


def rounding_error(name: str) -> float:
    """The typical error of a way of storing tokens, 0 for those that are not in :data:`ROUNDINGS`."""
    return next((each.error for key, each in ROUNDINGS.items() if key == name), 0.0)


def check_precision(precision: object, known: Collection[str], others: str = "") -> None:
    """Raises InvalidInput unless a store has this way of storing tokens.

    Args:
        precision: the requested way.
        known: ways that the store has.
        others: other arguments that the store takes, as words that continue the sentence.
    """
    if not isinstance(precision, str) or precision not in known:
        raise InvalidInput(f"tokens must be one of {', '.join(known)}{others}, got {precision!r}")
