"""Checks what users give, before anything is sent, and cuts it into batches by bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.documents import check_finite, check_present, is_plain, json_of, normalised, query_array, take
from muvera_adapters.errors import InvalidInput
from muvera_adapters.ids import ID_KEY, to_point_id
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.requests import Point, PointId, Vectors
from muvera_adapters.results import DocumentId
from muvera_core import TokenBatch
from muvera_core.tokens import ArrayLike

# lib/common/common/src/validation.rs; the embedded engine and local mode do not check it
MAX_FLOATS = 1_048_576

_HALF_MAX = 65_504.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents that can be written.

    Attributes:
        ids: as given.
        points: id of the point and its payload, with what is needed to give the id back.
        tokens: their matrices, (n_i, dim), float32 or float16.
        sizes: bytes of each on the way to the database.
    """

    ids: list[DocumentId]
    points: list[tuple[PointId, dict[str, Any]]]
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
    points = _points(ids, payloads)
    sizes = []
    for position, (document_id, (_, payload)) in enumerate(zip(ids, points, strict=True)):
        where = f"document {position} (id {document_id!r})"
        check_matrix(matrices[position], where, half=collection.half and collection.tokens is not None)
        sizes.append(_size(collection, matrices[position], payload, where))
    if collection.cosine:
        matrices = [normalised(matrices[i]) for i in range(len(matrices))]
    return Prepared(ids, points, matrices, sizes)


def query_matrix(collection: Collection, query_tokens: ArrayLike, what: str = "query") -> npt.NDArray[np.float32]:
    """A checked (m, token_dim) float32 query, normalised where the stored tokens are.

    Raises:
        InvalidInput: wrong shape, NaN, infinite, all-zero or too many tokens.
    """
    matrix = query_array(query_tokens, collection.encoder.token_dim, what)
    check_matrix(matrix, what, half=False)
    return normalised(matrix) if collection.cosine else matrix


def overflowing(collection: Collection, fdes: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Rows of (n, dim) FDEs that float16 cannot hold, where it has to; only tokens far from unit length give such."""
    if not collection.fde_half:
        return np.empty(0, np.intp)
    return np.flatnonzero(~(np.maximum(fdes.max(axis=1), -fdes.min(axis=1)) <= _HALF_MAX))


def to_points(collection: Collection, documents: Prepared, i: int, j: int, fdes: npt.NDArray[Any]) -> list[Point]:
    """Points i to j of a write; ``fdes`` (j - i, dim)."""
    points = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        point_id, payload = documents.points[position]
        vectors: Vectors = {collection.fde: fde}
        if collection.tokens is not None:
            vectors[collection.tokens] = documents.tokens[position]
        points.append(Point(point_id, vectors, payload))
    return points


def _points(
    ids: Sequence[DocumentId], payloads: Sequence[Mapping[str, Any] | None] | None
) -> list[tuple[PointId, dict[str, Any]]]:
    points: list[tuple[PointId, dict[str, Any]]] = []
    seen: dict[PointId, int] = {}
    for position, document_id in enumerate(ids):
        point_id, kept = to_point_id(document_id, position)
        if seen.setdefault(point_id, position) != position:
            raise InvalidInput(f"id {document_id!r} is given twice, at positions {seen[point_id]} and {position}")
        payload = dict((payloads[position] if payloads is not None else None) or {})
        if ID_KEY in payload:
            raise InvalidInput(f"the payload at position {position} has the reserved key {ID_KEY!r}")
        if kept is not None:
            payload[ID_KEY] = kept
        points.append((point_id, payload))
    return points


def check_matrix(matrix: npt.NDArray[Any], where: str, *, half: bool) -> None:
    """Raises InvalidInput for what cannot be encoded or stored; ``half``: it will be stored as float16."""
    if matrix.size >= MAX_FLOATS:
        raise InvalidInput(
            f"{where} has {matrix.shape[0]} tokens of {matrix.shape[1]} dimensions; Qdrant takes fewer than "
            f"{MAX_FLOATS} numbers in one multivector: pool its tokens, or split the document"
        )
    if is_plain(matrix, _HALF_MAX if half else np.inf):
        return
    largest = check_finite(matrix, where)
    if half and largest > _HALF_MAX:
        raise InvalidInput(
            f"{where} has the value {largest:g}, beyond float16 ({_HALF_MAX:g}), as which tokens are stored: "
            "normalize the token vectors"
        )
    check_present(matrix, where)


def _size(collection: Collection, matrix: npt.NDArray[Any], payload: Mapping[str, Any], where: str) -> int:
    floats = collection.encoder.dim + (matrix.size if collection.tokens is not None else 0)
    size = int(floats * collection.wire.bytes_per_float)
    if payload:
        size += len(json_of(payload, where))
    cap = collection.wire.cap
    if cap is not None and size > cap:
        raise InvalidInput(
            f"{where} makes a request of about {size >> 20} MB, over the {cap >> 20} MB that Qdrant's REST interface "
            "safely takes: connect with prefer_grpc=True, pool its tokens, or split the document"
        )
    return size
