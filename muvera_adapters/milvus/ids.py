"""Ids as primary keys. The id can be told from the key, so nothing else is stored."""

from __future__ import annotations

import re
import uuid
from typing import Literal, TypeAlias

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.ids import to_point_id

#: name of the primary key in collections that this library creates
ID = "muvera_id"

Key: TypeAlias = str | int
#: kind of keys. ``any``: keys of this library; ``string`` and ``integer``: primary keys of others, used unchanged
Keys: TypeAlias = Literal["any", "string", "integer"]

#: maximum number of bytes of a key in collections that this library creates
MAX_KEY = 512

_INTEGER, _UUID, _TEXT = "#", "@", "'"

_INT64 = range(-(2**63), 2**63)
_DECIMAL = re.compile(r"-?[0-9]{1,19}")


def to_key(document_id: DocumentId, position: int, keys: Keys = "any", max_bytes: int = MAX_KEY) -> Key:
    """The primary key of a document.

    Strings are used unchanged, except those that begin with a sign that marks other kinds of ids. If keys are integers,
    strings of decimal digits are accepted too, as by the client.

    Raises:
        InvalidInput: the id is not valid, or these keys cannot hold it.
    """
    if keys == "integer":
        return _integer(document_id, position)
    point, kept = to_point_id(document_id, position)
    if keys == "string":
        if not isinstance(document_id, str):
            raise InvalidInput(
                f"id {document_id!r} at position {position}: primary keys of this collection are strings"
            )
        key = document_id
    elif isinstance(point, int):
        key = f"{_INTEGER}{point}"
    elif kept is True:
        key = f"{_UUID}{point}"
    else:
        text = str(document_id)
        key = _TEXT + text if text.startswith((_INTEGER, _UUID, _TEXT)) else text
    size = len(key.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise InvalidInput(f"id {document_id!r:.80} at position {position} has {size} bytes, at most {max_bytes} fit")
    return key


def from_key(key: Key, keys: Keys = "any") -> DocumentId:
    """The user's id of a document."""
    if keys != "any" or isinstance(key, int):
        return key
    kind, rest = key[:1], key[1:]
    if kind == _TEXT:
        return rest
    if kind == _INTEGER and rest.isascii() and rest.isdigit():
        return int(rest)
    if kind == _UUID:
        try:
            return uuid.UUID(rest)
        except ValueError:
            return key
    return key


def _integer(document_id: DocumentId, position: int) -> int:
    if isinstance(document_id, str) and _DECIMAL.fullmatch(document_id):
        number: int | None = int(document_id)
    elif isinstance(document_id, str | bool) or not hasattr(document_id, "__index__"):
        number = None
    else:
        number = document_id.__index__()
    if number is None or number not in _INT64:
        raise InvalidInput(f"id {document_id!r} at position {position}: primary keys of this collection are int64")
    return number
