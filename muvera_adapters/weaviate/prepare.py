"""Checks documents and queries against Weaviate's limits, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.documents import check_encodable, json_of, normalised, query_array, take
from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.ids import FDE_KEY, ID_KEY, RESERVED, to_uuid
from muvera_adapters.weaviate.requests import Write
from muvera_core import TokenBatch
from muvera_core.tokens import ArrayLike

#: the server's own MUVERA counts the tokens of a partition in 16 bits (multivector/muvera.go)
MAX_TOKENS = 65_535

# of an object beside its vectors and properties, and of every token's header
_OVERHEAD = 300


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents that can be written.

    Attributes:
        ids: as given.
        objects: id of the object and all its properties, ours included.
        tokens: their matrices, (n_i, dim).
        sizes: bytes of each on the way to the database.
    """

    ids: list[DocumentId]
    objects: list[tuple[str, dict[str, Any]]]
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
        InvalidInput: lengths differ, an id is none or given twice, a payload is no JSON, or tokens cannot be encoded or
            are over a limit of the database; the message says where.
    """
    ids, matrices = take(ids, tokens, payloads, collection.encoder.token_dim)
    objects = _objects(collection, ids, payloads)
    sizes = []
    for position, (document_id, (_, properties)) in enumerate(zip(ids, objects, strict=True)):
        where = f"document {position} (id {document_id!r})"
        check_matrix(matrices[position], where)
        sizes.append(_size(collection, matrices[position], properties, where))
    if collection.cosine:
        matrices = [normalised(matrices[i]) for i in range(len(matrices))]
    return Prepared(ids, objects, matrices, sizes)


def query_matrix(collection: Collection, query_tokens: ArrayLike, what: str = "query") -> npt.NDArray[np.float32]:
    """A checked (m, token_dim) float32 query, normalised where the tokens are compared by cosine.

    Raises:
        InvalidInput: wrong shape, NaN, infinite or all-zero tokens.
    """
    matrix = query_array(query_tokens, collection.encoder.token_dim, what)
    check_matrix(matrix, what)
    return normalised(matrix) if collection.cosine else matrix


def to_writes(collection: Collection, prepared: Prepared, i: int, j: int, fdes: npt.NDArray[Any]) -> list[Write]:
    """Objects i to j of a write; ``fdes`` (j - i, dim)."""
    writes = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        object_id, properties = prepared.objects[position]
        vectors: dict[str, npt.NDArray[Any]] = {collection.fde: fde}
        if collection.tokens is not None:
            vectors[collection.tokens] = prepared.tokens[position]
        writes.append(Write(object_id, properties, vectors))
    return writes


def check_matrix(matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for what cannot be encoded or stored."""
    if len(matrix) > MAX_TOKENS:
        raise InvalidInput(
            f"{where} has {len(matrix)} tokens; Weaviate takes at most {MAX_TOKENS}: pool its tokens, or split the "
            "document"
        )
    check_encodable(matrix, where)


def _objects(
    collection: Collection, ids: Sequence[DocumentId], payloads: Sequence[Mapping[str, Any] | None] | None
) -> list[tuple[str, dict[str, Any]]]:
    objects: list[tuple[str, dict[str, Any]]] = []
    seen: dict[str, int] = {}
    for position, document_id in enumerate(ids):
        object_id, kept = to_uuid(document_id, position)
        if seen.setdefault(object_id, position) != position:
            raise InvalidInput(f"id {document_id!r} is given twice, at positions {seen[object_id]} and {position}")
        properties = dict((payloads[position] if payloads is not None else None) or {})
        for key in RESERVED:
            if key in properties:
                raise InvalidInput(f"the payload at position {position} has the reserved key {key!r}")
        properties[FDE_KEY] = collection.fde
        if kept is not None:
            properties[ID_KEY] = kept
        objects.append((object_id, properties))
    return objects


def _size(collection: Collection, matrix: npt.NDArray[Any], properties: Mapping[str, Any], where: str) -> int:
    floats = collection.encoder.dim + (matrix.size if collection.tokens is not None else 0)
    size = 4 * floats + len(json_of(properties, where)) + _OVERHEAD
    cap = collection.server.max_message
    if size > cap:
        raise InvalidInput(
            f"{where} makes a message of {size} bytes, over the {cap} that the server takes: pool its tokens, split "
            "the document, or raise GRPC_MAX_MESSAGE_SIZE"
        )
    return size
