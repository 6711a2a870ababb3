"""Ids as Weaviate's UUIDs, and the two properties that this library adds to a collection."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from muvera_adapters.results import DocumentId
from muvera_adapters.stores.ids import to_point_id

#: property with the user's id if it cannot be told from the UUID; its description has the collection's state
ID_KEY = "muvera_id"
#: property with the name of the FDE vector, written with every FDE: Weaviate has no filter for objects with a vector
FDE_KEY = "muvera_fde"
#: property with those parts of a payload that Weaviate would change (:mod:`muvera_adapters.weaviate.properties`)
JSON_KEY = "muvera_json"

RESERVED = (ID_KEY, FDE_KEY, JSON_KEY)

_INTEGERS = uuid.UUID("0d7a6c39-5f0e-5b7e-8a56-b0e9c1d7f3a2")


def to_uuid(document_id: DocumentId, position: int) -> tuple[str, str | None]:
    """The UUID of a document's object, and the value to store under ID_KEY (None: nothing).

    A UUID is used as it is. Any other id is hashed into a UUID, in a namespace of this library.

    Raises:
        InvalidInput: the id is negative or over 64 bits, or not an integer, string or UUID.
    """
    point, kept = to_point_id(document_id, position)
    if isinstance(point, int):
        return str(uuid.uuid5(_INTEGERS, str(point))), json.dumps(point)
    return point, None if kept is None else json.dumps(kept)


def from_uuid(text: str, properties: Mapping[str, Any]) -> DocumentId:
    """The user's id of an object, from its UUID and properties."""
    try:
        kept = json.loads(properties.get(ID_KEY) or "null")
    except ValueError:
        return text
    if kept is True:
        return uuid.UUID(text)
    return kept if isinstance(kept, int | str) else text
