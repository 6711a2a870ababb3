"""Checks documents against Milvus's limits, and makes rows of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType

from muvera_adapters.errors import InvalidInput
from muvera_adapters.milvus import blobs
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.ids import Key, to_key
from muvera_adapters.milvus.requests import MAX_MESSAGE, vector
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.checks import Intake, Prepared, check_finite, check_present, is_plain, json_of

#: largest value of float16
HALF = 65_504.0
# tokens whose sum of squares is less have no value above it
_HALF_SQUARE = 4e9

#: largest number of bytes of a payload's undeclared keys (one JSON value)
_MAX_DYNAMIC = 65_536
# bytes of a document without its vectors and payload
_OVERHEAD = 200


def intake(collection: Collection) -> Intake[Key]:
    """The collection's checks for :func:`~muvera_adapters.stores.checks.prepare`."""
    declared = frozenset(collection.fields)
    return Intake(
        partial(_key, collection),
        partial(_payload, collection, declared),
        partial(check_matrix, collection),
        partial(_size, collection, declared),
        vectors=collection.strangers,
    )


def unfit(collection: Collection, fdes: npt.NDArray[np.float32]) -> dict[int, str]:
    """Rows of (n, dim) FDEs that the FDE field's data type cannot hold, with the reasons."""
    if collection.datatype != DataType.FLOAT16_VECTOR:
        return {}
    over = np.flatnonzero(np.abs(fdes).max(axis=1) > HALF)
    return dict.fromkeys(map(int, over), "its FDE exceeds float16: normalize tokens, or datatype=FLOAT_VECTOR")


def to_rows(
    collection: Collection, prepared: Prepared[Key], i: int, j: int, fdes: npt.NDArray[np.float32]
) -> list[dict[str, Any]]:
    """Documents i to j in the client's form, with their FDEs (j - i, dim)."""
    rows = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        row = {**prepared.payloads[position], **prepared.vectors[position]}
        row[collection.key] = prepared.keys[position]
        row[collection.fde] = vector(collection, fde)
        if collection.marker:
            row[collection.mark] = collection.fde
        row.update(_token_values(collection, prepared.tokens[position]))
        rows.append(row)
    return rows


def check_matrix(collection: Collection, matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for a token matrix that cannot be encoded or stored; ``where`` begins the message."""
    half = collection.storage == "blob" and collection.precision == "float16" and not collection.cosine
    if not is_plain(matrix, _HALF_SQUARE if half else np.inf):
        largest = check_finite(matrix, where)
        if half and largest > HALF:
            raise InvalidInput(
                f"{where} has a value of {largest:.6g}, over the {HALF:.0f} of float16: normalize tokens, or "
                "tokens='float32'"
            )
        check_present(matrix, where)
    if collection.tokens is not None and len(matrix) > collection.capacity:
        raise InvalidInput(
            f"{where} has {len(matrix)} tokens, this collection takes at most {collection.capacity}: pool its tokens, "
            "split the document, or create the collection with a larger max_tokens"
        )


def _key(collection: Collection, document_id: DocumentId, position: int) -> tuple[Key, dict[str, Any]]:
    return to_key(document_id, position, collection.keys, collection.max_key), {}


def _payload(
    collection: Collection, declared: frozenset[str], payload: Mapping[str, Any], position: int
) -> dict[str, Any]:
    reserved = {collection.key, collection.fde, collection.mark, str(collection.tokens), *collection.token_fields}
    for key in payload:
        if key in reserved or key in collection.hidden or key.startswith("$"):
            raise InvalidInput(f"the payload at position {position} has the reserved key {key!r}")
        if key in collection.strangers:
            raise InvalidInput(
                f"the payload at position {position}: {key!r} is a vector of {collection.name}: pass it in vectors="
            )
        if key not in declared and not collection.dynamic:
            raise InvalidInput(f"the payload at position {position}: {collection.name} has no field {key!r}")
    return dict(payload)


def _size(
    collection: Collection, declared: frozenset[str], matrix: npt.NDArray[Any], payload: Mapping[str, Any], where: str
) -> int:
    text = json_of(payload)
    undeclared = len(json_of({k: v for k, v in payload.items() if k not in declared}).encode())
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


def _token_values(collection: Collection, matrix: npt.NDArray[Any]) -> dict[str, Any]:
    """The fields with a token matrix (n, token_dim), by name."""
    if collection.storage == "struct":
        # pymilvus checks no dtype inside structs, and float16 would travel as another type
        floats = np.ascontiguousarray(matrix, np.float32)
        return {str(collection.tokens): [{collection.sub: token} for token in floats]}
    if collection.storage == "blob":
        texts = blobs.pack(matrix, collection.precision, len(collection.blobs))
        return dict(zip(collection.blobs, texts, strict=True))
    return {}
