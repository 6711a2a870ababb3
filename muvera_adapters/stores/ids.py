"""Ids for databases that take only integers and UUIDs: a deterministic mapping that can be reversed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId

#: payload key of what the user's id was, where the point's own id does not tell
ID_KEY = "_muvera_id"

_NAMESPACE = uuid.UUID("6f1d2a34-8a57-5c0e-9d2b-3b1f7c9e4a10")


def to_point_id(document_id: DocumentId, position: int) -> tuple[int | str, str | bool | None]:
    """The point's id and what to keep under ID_KEY (None: nothing).

    Integers and strings that are canonical UUIDs are used as they are; other strings become a UUID made of them.

    Raises:
        InvalidInput: negative or over 64 bits, or no integer, string or UUID.
    """
    if isinstance(document_id, uuid.UUID):
        return str(document_id), True
    if isinstance(document_id, str):
        if _is_canonical_uuid(document_id):
            return document_id, None
        return str(uuid.uuid5(_NAMESPACE, document_id)), document_id
    if isinstance(document_id, bool) or not hasattr(document_id, "__index__"):
        raise InvalidInput(
            f"id {document_id!r} at position {position} is a {type(document_id).__name__}; "
            "ids are integers, strings or UUIDs"
        )
    number = document_id.__index__()
    if not 0 <= number < 2**64:
        raise InvalidInput(f"id {number} at position {position} is outside 0 .. 2**64 - 1; use a string for such ids")
    return number, None


def from_point_id(point_id: int | str | uuid.UUID, payload: Mapping[str, Any] | None) -> DocumentId:
    """The user's id of a point."""
    kept = (payload or {}).get(ID_KEY)
    if isinstance(kept, str):
        return kept
    if kept is True:
        return uuid.UUID(str(point_id))
    return point_id if isinstance(point_id, int) else str(point_id)


def _is_canonical_uuid(text: str) -> bool:
    if len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
