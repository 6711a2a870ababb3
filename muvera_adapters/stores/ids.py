"""Ids for databases that take only integers and UUIDs: a deterministic and reversible mapping."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId

#: payload key of the user's id, if it cannot be told from the id of the point
ID_KEY = "_muvera_id"

_HYPHENS = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID = re.compile(
    rf"(?P<hyphens>{_HYPHENS})|(?P<hex>[0-9a-f]{{32}})|\{{(?P<braces>{_HYPHENS})\}}|urn:uuid:(?P<urn>{_HYPHENS})",
    re.IGNORECASE | re.ASCII,
)
_NAMESPACE = uuid.UUID("6f1d2a34-8a57-5c0e-9d2b-3b1f7c9e4a10")


def to_point_id(document_id: DocumentId, position: int) -> tuple[int | str, str | bool | None]:
    """The id of the point, and the value to keep under ID_KEY (None: nothing).

    Integers are used as they are. So are strings that are UUIDs in any of the usual spellings: with or without hyphens,
    in capitals, in braces, or as a URN. All spellings of a UUID give the same point. Other strings are hashed to a
    UUID.

    Raises:
        InvalidInput: the id is a negative integer or has more than 64 bits, it is a string that UTF-8 cannot encode, or
            it is not an integer, string or UUID.
    """
    if isinstance(document_id, uuid.UUID):
        return str(document_id), True
    if isinstance(document_id, str):
        found = spelled_uuid(document_id)
        if found is not None:
            return found, None if found == document_id else document_id
        try:
            return str(uuid.uuid5(_NAMESPACE, document_id)), document_id
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"id {document_id!r:.80} at position {position} has half a surrogate pair, which UTF-8 cannot encode"
            ) from error
    if isinstance(document_id, bool) or not hasattr(document_id, "__index__"):
        raise InvalidInput(
            f"id {document_id!r} at position {position} is a {type(document_id).__name__}; "
            "ids must be integers, strings or UUIDs"
        )
    number = document_id.__index__()
    if not 0 <= number < 2**64:
        raise InvalidInput(f"id {number} at position {position} is outside 0 .. 2**64 - 1: use a string for such ids")
    return number, None


def from_point_id(point_id: int | str | uuid.UUID, payload: Mapping[str, Any] | None) -> DocumentId:
    """The user's id of a point."""
    kept = (payload or {}).get(ID_KEY)
    if isinstance(kept, str):
        return kept
    if kept is True:
        return uuid.UUID(str(point_id))
    return point_id if isinstance(point_id, int) else str(point_id)


def spelled_uuid(text: str) -> str | None:
    """The canonical spelling of a UUID in any spelling that databases accept; None for any other text."""
    if len(text) < 32:
        return None
    match = _UUID.fullmatch(text)
    return (
        None if match is None else str(uuid.UUID(match["hyphens"] or match["hex"] or match["braces"] or match["urn"]))
    )
