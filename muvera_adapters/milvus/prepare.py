"""Checks documents and queries against Milvus's limits, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType

from muvera_adapters.documents import (
    check_encodable,
    check_finite,
    check_present,
    is_plain,
    json_of,
    normalised,
    query_array,
    take,
)
from muvera_adapters.errors import InvalidInput
from muvera_adapters.milvus import blobs
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.ids import FDE_KEY, Key, to_key
from muvera_adapters.milvus.requests import MAX_MESSAGE, vector
from muvera_adapters.results import DocumentId
from muvera_core import TokenBatch
from muvera_core.tokens import ArrayLike

#: largest value of float16; smaller squares than this leave room for it
HALF = 65_504.0
_HALF_SQUARE = 4e9

#: largest number of bytes of a payload's undeclared keys (one JSON value)
_MAX_DYNAMIC = 65_536
# bytes of a document beside its vectors and payload
_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents that can be written.

    Attributes:
        ids: ids as they were given.
        keys: primary keys, one a document.
        payloads: payloads as they were given, {} for None.
        tokens: token matrices (n_i, token_dim).
        sizes: bytes of each document in a write's message.
    """

    ids: list[DocumentId]
    keys: list[Key]
    payloads: list[Mapping[str, Any]]
    tokens: TokenBatch | list[npt.NDArray[Any]]
    sizes: list[int]


def prepare(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
) -> Prepared:
    """Documents for one write.

    Raises:
        InvalidInput: lengths differ, an id is not valid or given twice, a payload is not JSON, or tokens cannot be
            encoded or exceed a limit of the database; the message says where.
    """
    ids, matrices = take(ids, tokens, payloads, collection.encoder.token_dim)
    keys = to_keys(collection, ids)
    shown = [(payloads[i] if payloads is not None else None) or {} for i in range(len(ids))]
    sizes = []
    for position, (document_id, payload) in enumerate(zip(ids, shown, strict=True)):
        where = f"document {position} (id {document_id!r})"
        check_matrix(collection, matrices[position], where)
        sizes.append(_size(collection, matrices[position], payload, position, where))
    if collection.cosine:
        matrices = [normalised(matrices[i]) for i in range(len(matrices))]
    return Prepared(ids, keys, shown, matrices, sizes)


def query_matrix(collection: Collection, query_tokens: ArrayLike, what: str = "query") -> npt.NDArray[np.float32]:
    """A checked (m, token_dim) float32 query, normalised where the tokens are compared by cosine.

    Raises:
        InvalidInput: wrong shape, NaN, infinite or all-zero tokens.
    """
    matrix = query_array(query_tokens, collection.encoder.token_dim, what)
    check_encodable(matrix, what)
    return normalised(matrix) if collection.cosine else matrix


def to_rows(
    collection: Collection, documents: Prepared, i: int, j: int, fdes: npt.NDArray[np.float32]
) -> list[dict[str, Any]]:
    """Documents i to j as the client takes them, with their FDEs (j - i, dim)."""
    rows = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        row = dict(documents.payloads[position])
        row[collection.key] = documents.keys[position]
        row[collection.fde] = vector(collection, fde)
        if collection.marker:
            row[FDE_KEY] = collection.fde
        row.update(token_values(collection, documents.tokens[position]))
        rows.append(row)
    return rows


def token_values(collection: Collection, matrix: npt.NDArray[Any]) -> dict[str, Any]:
    """The fields that hold a token matrix (n, token_dim), by name."""
    if collection.storage == "struct":
        # pymilvus checks no dtype inside structs, and float16 would travel as another type
        floats = np.ascontiguousarray(matrix, np.float32)
        return {str(collection.tokens): [{collection.sub: token} for token in floats]}
    if collection.storage == "blob":
        texts = blobs.pack(matrix, collection.precision, len(collection.blobs))
        return dict(zip(collection.blobs, texts, strict=True))
    return {}


def to_keys(collection: Collection, ids: Sequence[DocumentId]) -> list[Key]:
    """The primary keys of documents.

    Raises:
        InvalidInput: an id is not valid, or given twice.
    """
    seen: dict[Key, int] = {}
    for position, document_id in enumerate(ids):
        key = to_key(document_id, position, collection.keys, collection.max_key)
        if seen.setdefault(key, position) != position:
            raise InvalidInput(f"id {document_id!r} is given twice, at positions {seen[key]} and {position}")
    return list(seen)


def check_matrix(collection: Collection, matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for a token matrix that cannot be encoded or stored; ``where`` begins the message."""
    half = collection.storage == "blob" and collection.precision == "float16" and not collection.cosine
    if not is_plain(matrix, _HALF_SQUARE if half else np.inf):
        largest = check_finite(matrix, where)
        if half and largest > HALF:
            raise InvalidInput(
                f"{where} has a value of {largest:.6g}, over the {HALF:.0f} of float16: normalize tokens, or "
                "tokens_datatype='float32'"
            )
        check_present(matrix, where)
    if collection.storage != "none" and len(matrix) > collection.capacity:
        raise InvalidInput(
            f"{where} has {len(matrix)} tokens, this collection takes at most {collection.capacity}: pool its tokens, "
            "split the document, or create the collection with a larger max_tokens"
        )


def overflowing(collection: Collection, fdes: npt.NDArray[np.float32]) -> list[int]:
    """Rows of (n, dim) that the FDE field's type cannot hold."""
    if collection.datatype != DataType.FLOAT16_VECTOR:
        return []
    return [int(i) for i in np.flatnonzero(np.abs(fdes).max(axis=1) > HALF)]


def _size(
    collection: Collection, matrix: npt.NDArray[Any], payload: Mapping[str, Any], position: int, where: str
) -> int:
    # vectors of the user are fields like others to Milvus
    allowed = {*collection.fields, *collection.strangers}
    hidden = {collection.key, collection.fde, FDE_KEY, str(collection.tokens), *collection.token_fields}
    for key in payload:
        if not isinstance(key, str) or key in hidden or key.startswith("$"):
            raise InvalidInput(f"the payload at position {position} has the reserved key {key!r}")
        if key not in allowed and not collection.dynamic:
            raise InvalidInput(f"the payload at position {position}: {collection.name} has no field {key!r}")
    text = json_of(payload, where)
    undeclared = len(json_of({k: v for k, v in payload.items() if k not in allowed}, where).encode())
    if undeclared > _MAX_DYNAMIC:
        raise InvalidInput(
            f"the undeclared part of the payload of {where} has {undeclared} bytes, at most {_MAX_DYNAMIC} fit: "
            "declare fields for it"
        )
    size = 4 * collection.encoder.dim + len(text) + _OVERHEAD
    if collection.storage == "struct":
        size += 4 * matrix.size
    elif collection.storage == "blob":
        size += blobs.text_length(len(matrix), matrix.shape[1], collection.precision)
    if size > MAX_MESSAGE - 1_000_000:
        raise InvalidInput(
            f"{where} makes a message of {size} bytes, over the {MAX_MESSAGE} that a server takes: pool its tokens, or "
            "split the document"
        )
    return size
