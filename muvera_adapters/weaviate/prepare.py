"""Checks documents and queries against Weaviate's limits, and makes objects of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.checks import Intake, Prepared, check_encodable, json_of
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.ids import FDE_KEY, ID_KEY, to_uuid
from muvera_adapters.weaviate.properties import check_keys, to_properties
from muvera_adapters.weaviate.requests import Vectors, Write

# entities/storobj/storage_object.go, maxVectorLength
MAX_DIM = 65_535
#: the server's own MUVERA counts the tokens of a partition in 16 bits (multivector/muvera.go)
MAX_TOKENS = 65_535

# bytes of an object without its vectors and properties, and of each token's header
_OVERHEAD = 300


def intake(collection: Collection) -> Intake[str]:
    """Weaviate's checks for :func:`~muvera_adapters.stores.checks.prepare`."""
    return Intake(
        _key,
        partial(_properties, collection),
        check_matrix,
        partial(_size, collection),
        vectors=collection.others,
    )


def to_writes(
    collection: Collection, prepared: Prepared[str], i: int, j: int, fdes: npt.NDArray[np.float32]
) -> list[Write]:
    """Objects i to j of a write; ``fdes`` (j - i, dim)."""
    writes = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        vectors: Vectors = {**prepared.vectors[position], collection.fde: fde}
        if collection.tokens is not None:
            vectors[collection.tokens] = prepared.tokens[position]
        properties = to_properties(prepared.payloads[position], collection.seen.kinds)
        writes.append(Write(prepared.keys[position], properties, vectors))
    return writes


def check_matrix(matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for a token matrix that cannot be encoded or stored."""
    if len(matrix) > MAX_TOKENS:
        raise InvalidInput(
            f"{where} has {len(matrix)} tokens; Weaviate takes at most {MAX_TOKENS}: pool its tokens, or split the "
            "document"
        )
    check_encodable(matrix, where)


def _key(document_id: DocumentId, position: int) -> tuple[str, dict[str, Any]]:
    object_id, kept = to_uuid(document_id, position)
    return object_id, {} if kept is None else {ID_KEY: kept}


def _properties(collection: Collection, payload: Mapping[str, Any], position: int) -> dict[str, Any]:
    check_keys(payload, f"document {position}")
    return {**payload, FDE_KEY: collection.fde}


def _size(collection: Collection, matrix: npt.NDArray[Any], properties: Mapping[str, Any], where: str) -> int:
    floats = collection.encoder.dim + (matrix.size if collection.tokens is not None else 0)
    size = 4 * floats + len(json_of(properties)) + _OVERHEAD
    cap = collection.server.max_message
    if size > cap:
        raise InvalidInput(
            f"{where} makes a message of {size} bytes, over the {cap} that the server takes: pool its tokens, split "
            "the document, or raise GRPC_MAX_MESSAGE_SIZE"
        )
    return size
