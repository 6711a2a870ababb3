"""What stores give back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: what users have: strings, integers, UUIDs
DocumentId: TypeAlias = int | str | uuid.UUID


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found.

    Attributes:
        id: as it was given to ``upsert``.
        score: MaxSim when the search reranked, else the encoder's estimate.
        fde_score: the encoder's estimate, where the store knows it, else None.
        payload: the document's payload, None when it was not asked for.
    """

    id: DocumentId
    score: float
    fde_score: float | None = None
    payload: Mapping[str, Any] | None = None


@dataclass(slots=True)
class WriteReport:
    """What became of every document of a write.

    Attributes:
        written: documents that the database has acknowledged.
        failed: id and error of those that it has not.
    """

    written: int = 0
    failed: dict[DocumentId, str] = field(default_factory=dict)
