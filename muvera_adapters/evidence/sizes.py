"""Sizes and times of collections that are not there yet, in any database.

Each database's folder has the formulas and the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muvera_adapters.databases import parse_target, schemes, spec_of
from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.database import DatabaseSpec
from muvera_adapters.stores.sizes import AUTO, NO_CODES, Part, Place, Planned, disk_of, ram_of
from muvera_adapters.stores.times import PlannedTime, planned_time


@dataclass(frozen=True, slots=True)
class Estimate:
    """The size of a collection of N documents, and what it takes to fill and search it.

    Attributes:
        database: name of the database, such as the targets of it begin with.
        target: the target that was asked for, or the form of targets that stands for the database.
        layout: ``"two stages"``, or ``"a vector per token"``: every token is a node of a graph.
        quantization: preset of the encodings; ``"none"`` without codes.
        documents: number of documents.
        parts: parts of the collection.
        time: projected processor time; None: of this database and layout nothing was measured.
    """

    database: str
    target: str
    layout: str
    quantization: str
    documents: int
    parts: list[Part]
    time: PlannedTime | None = None

    @property
    def ram(self) -> int:
        """Bytes of all parts in memory."""
        return ram_of(self.parts)

    @property
    def disk(self) -> int:
        """Bytes of all parts on disk."""
        return disk_of(self.parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "ram": self.ram, "disk": self.disk}


def estimate(
    documents: int,
    tokens_per_document: float,
    dim: int,
    *,
    token_dim: int = 128,
    databases: Sequence[str] | None = None,
    quantization: str = AUTO,
    tokens_as: str = AUTO,
) -> list[Estimate]:
    """Sizes and times of collections as the stores of this library make them, each followed by a vector per token.

    Sizes are those of one copy, without replicas, payloads and the process itself, once indexing has finished. While
    it indexes, a database may need twice as much. Times are those of processors, projected from the nearest
    collection that was measured. They tell minutes from hours; other machines differ.

    Args:
        documents: number of documents.
        tokens_per_document: mean number of tokens of a document.
        dim: dimensions of an encoding.
        token_dim: dimensions of a token vector.
        databases: names of databases, or targets; a name stands for the first form of its targets. None: all.
        quantization: preset of the encodings; ``"auto"``: what each store chooses.
        tokens_as: way of storing tokens, as ``tokens=`` of ``create``; ``"auto"``: what each store does by itself.

    Raises:
        InvalidInput: an unknown name, or a number below 1.
    """
    if documents < 1 or tokens_per_document < 1 or dim < 1 or token_dim < 1:
        raise InvalidInput(
            "documents, tokens per document and dimensions must be at least 1, got "
            f"{documents}, {tokens_per_document}, {dim} and {token_dim}"
        )
    found = []
    for name in schemes() if databases is None else databases:
        spec, target, place = _resolved(name)
        spec.check_token_preset(tokens_as)
        chosen = spec.quantization(quantization, dim, place)
        planned = Planned(documents, tokens_per_document, dim, token_dim, chosen, place, tokens_as)
        time = planned_time(planned, spec.times)
        found.append(Estimate(spec.scheme, target, "two stages", chosen, documents, spec.two_stages(planned), time))
        parts = spec.per_token(planned)
        found.append(Estimate(spec.scheme, target, "a vector per token", NO_CODES, documents, parts))
    return found


def _resolved(name: str) -> tuple[DatabaseSpec, str, Place]:
    if ":" in name:
        target = parse_target(name)
        return spec_of(target.scheme), str(target), target.place
    spec = spec_of(name)
    return spec, spec.targets[0], spec.forms[0].place
