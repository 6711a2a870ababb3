"""Estimates of the size and the times of a collection before it is filled, for any database.

The folder of each database has the formulas and the measurements.
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
    """Estimated size of a collection of N documents, and the time to fill and search it.

    Attributes:
        database: name of the database, with which its targets begin.
        target: the target that was asked for, or the form of targets that stands for the database.
        layout: ``"two stages"``, or ``"a vector per token"``: every token is a node of a graph.
        quantization: preset of the encodings; ``"none"`` without codes.
        documents: number of documents.
        parts: parts of the collection.
        time: projected CPU time; None: not measured for this database and layout.
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
        """Bytes in memory of all parts."""
        return ram_of(self.parts)

    @property
    def disk(self) -> int:
        """Bytes on disk of all parts."""
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
    """Estimates sizes and times of the collections that stores make, and for comparison of a vector per token.

    Sizes are for one copy after indexing, without replicas, payloads and the process itself. During indexing, a
    database may need twice as much. Times are CPU times, projected from the most similar collection that was measured.
    Other machines differ, so take them as orders of magnitude.

    Args:
        documents: number of documents.
        tokens_per_document: mean number of tokens of a document.
        dim: dimensions of an encoding.
        token_dim: dimensions of a token vector.
        databases: names of databases, or targets; a name stands for the first form of its targets. None: all databases.
        quantization: preset of the encodings; ``"auto"``: the preset that each store chooses.
        tokens_as: way of storing tokens, as ``tokens=`` of ``create``; ``"auto"``: the default of each store.

    Returns:
        For each database, an estimate for two stages and one for a vector per token.

    Raises:
        InvalidInput: a name is unknown, or a number is below 1.
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
