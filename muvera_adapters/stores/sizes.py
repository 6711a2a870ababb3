"""The size model: memory and disk space of the parts of a collection. Each database's folder has its formulas.

Sizes are for one copy after indexing, without replicas, payloads and the process itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from muvera_adapters.stores.token_precision import ROUNDINGS, TokenPrecision

#: location of a database: a URL, a directory, or a file
Place: TypeAlias = Literal["server", "directory", "file"]

#: kind of data in a part; "other": graphs, ids, logs
Holds: TypeAlias = Literal["encodings", "codes", "tokens", "other"]

#: presets of every database: no codes, and the codes that the store chooses
NO_CODES, AUTO = "none", "auto"

#: source of a part that was not compared with a real collection
FORMULA = "formula"


@dataclass(frozen=True, slots=True)
class Planned:
    """A collection to estimate, which does not exist yet.

    Attributes:
        documents: number of documents.
        tokens: mean number of tokens of a document.
        dim: dimensions of an encoding.
        token_dim: dimensions of a token vector.
        quantization: preset of the codes of the encodings, or ``"none"``.
        place: location of the database's data.
        tokens_as: way of storing tokens; ``"auto"``: the default of the store's ``create``.
    """

    documents: int
    tokens: float
    dim: int
    token_dim: int
    quantization: str = NO_CODES
    place: Place = "server"
    tokens_as: str = AUTO

    def token_bytes(self, precision: TokenPrecision) -> float:
        """Bytes of all token matrices at this precision."""
        rounding = ROUNDINGS[precision]
        return self.token_values * rounding.bits / 8 + self.documents * self.tokens * rounding.beside

    @property
    def token_values(self) -> float:
        """Number of values in all token matrices."""
        return self.documents * self.tokens * self.token_dim


@dataclass(frozen=True, slots=True)
class Part:
    """The size of one part of a collection.

    Attributes:
        name: name of the part.
        ram: bytes that must be in memory for fast searches.
        disk: bytes on disk.
        formula: bytes of one document or token, in words.
        source: origin of the formula, as listed in the documentation of the database's ``database`` module.
        holds: kind of data in the part.
    """

    name: str
    ram: float
    disk: float
    formula: str
    source: str
    holds: Holds = "other"


def disk_of(parts: list[Part], holds: Holds | None = None) -> int:
    """Bytes on disk of all parts, or of those that hold one kind of data."""
    return round(sum(part.disk for part in parts if holds is None or part.holds == holds))


def ram_of(parts: list[Part]) -> int:
    """Bytes in memory of all parts."""
    return round(sum(part.ram for part in parts))


def code_bytes(dim: int, bits: float, beside: int = 0) -> float:
    """Bytes of the codes of one vector.

    Args:
        dim: dimensions of the vector.
        bits: bits of one dimension.
        beside: bytes that are kept with the codes of each vector, such as a scale.
    """
    return dim * bits / 8 + beside


def token_precision(planned: Planned, default: TokenPrecision) -> TokenPrecision:
    """The way of storing tokens; ``default`` is that of the store for ``"auto"``."""
    return next((each for each in ROUNDINGS if each == planned.tokens_as), default)


def bytes_formula(dimensions: str, bits: float) -> str:
    """Bytes of ``dimensions`` values with ``bits`` bits each, in words."""
    if bits == 8:
        return dimensions
    return f"{bits / 8:g} * {dimensions}" if bits > 8 else f"{dimensions} / {8 / bits:g}"


def token_formula(precision: TokenPrecision) -> str:
    """Bytes of one token, in words."""
    rounding = ROUNDINGS[precision]
    beside = f" + {rounding.beside}" if rounding.beside else ""
    return f"{bytes_formula('token_dim', rounding.bits)}{beside} a token"


def link_bits(nodes: float) -> int:
    """Number of bits of a node's number in a graph with ``nodes`` nodes."""
    return max(1, math.ceil(math.log2(nodes))) if nodes > 1 else 1
