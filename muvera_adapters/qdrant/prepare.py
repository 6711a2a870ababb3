"""Checks documents and queries against Qdrant's limits, and makes points of them."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.requests import Point, PointId, Vectors
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.checks import (
    Intake,
    Prepared,
    check_finite,
    check_present,
    is_plain,
    json_of,
    numbers_in,
)
from muvera_adapters.stores.ids import ID_KEY, to_point_id

# lib/common/common/src/validation.rs; the embedded engine and local mode do not check it
MAX_FLOATS = 1_048_576

_HALF_MAX = 65_504.0


def intake(collection: Collection, vectors: Names[str] = ()) -> Intake[PointId]:
    """Qdrant's checks for :func:`~muvera_adapters.stores.checks.prepare`.

    Args:
        collection: the collection to write to.
        vectors: names of all vectors of the collection.
    """
    half = collection.stored_as == "float16" and collection.tokens is not None
    return Intake(
        _key,
        _payload,
        partial(check_matrix, half=half),
        partial(_size, collection),
        vectors=vectors,
        vector_size=lambda value: int(numbers_in(value) * collection.wire.bytes_per_float),
    )


def check_query(matrix: npt.NDArray[Any], what: str) -> None:
    """Raises InvalidInput for a query that is too large to send; its values have been checked."""
    _check_size(matrix, what)


def unfit(collection: Collection, fdes: npt.NDArray[np.float32]) -> dict[int, str]:
    """Rows of (n, dim) FDEs that float16 cannot hold, with the reasons, if FDEs are stored as float16.

    Only tokens far from unit length give such FDEs.
    """
    if not collection.fde_half:
        return {}
    over = ~(np.maximum(fdes.max(axis=1), -fdes.min(axis=1)) <= _HALF_MAX)
    reason = "its FDE exceeds float16: normalize tokens, or create the collection with datatype=FLOAT32"
    return dict.fromkeys(map(int, np.flatnonzero(over)), reason)


def to_points(
    collection: Collection, prepared: Prepared[PointId], i: int, j: int, fdes: npt.NDArray[Any]
) -> list[Point]:
    """Points i to j of a write; ``fdes`` (j - i, dim)."""
    points = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        vectors: Vectors = {collection.fde: fde}
        if collection.tokens is not None:
            vectors[collection.tokens] = prepared.tokens[position]
        points.append(Point(prepared.keys[position], vectors, prepared.payloads[position], prepared.vectors[position]))
    return points


def _key(document_id: DocumentId, position: int) -> tuple[PointId, dict[str, Any]]:
    point_id, kept = to_point_id(document_id, position)
    return point_id, {} if kept is None else {ID_KEY: kept}


def _payload(payload: Mapping[str, Any], position: int) -> dict[str, Any]:
    if ID_KEY in payload:
        raise InvalidInput(f"the payload at position {position} has the reserved key {ID_KEY!r}")
    return dict(payload)


def check_matrix(matrix: npt.NDArray[Any], where: str, *, half: bool) -> None:
    """Raises InvalidInput for a matrix that cannot be encoded or stored; ``half``: it will be stored as float16."""
    _check_size(matrix, where)
    if is_plain(matrix, _HALF_MAX if half else np.inf):
        return
    largest = check_finite(matrix, where)
    if half and largest > _HALF_MAX:
        raise InvalidInput(
            f"{where} has the value {largest:g}, beyond float16 ({_HALF_MAX:g}), as which tokens are stored: "
            "normalize the token vectors"
        )
    check_present(matrix, where)


def _check_size(matrix: npt.NDArray[Any], where: str) -> None:
    if matrix.size >= MAX_FLOATS:
        raise InvalidInput(
            f"{where} has {matrix.shape[0]} tokens of {matrix.shape[1]} dimensions; Qdrant takes fewer than "
            f"{MAX_FLOATS} numbers in one multivector: pool its tokens, or split the document"
        )


def _size(collection: Collection, matrix: npt.NDArray[Any], payload: Mapping[str, Any], where: str) -> int:
    floats = collection.encoder.dim + (matrix.size if collection.tokens is not None else 0)
    size = int(floats * collection.wire.bytes_per_float)
    if payload:
        size += len(json_of(payload))
    cap = collection.wire.cap
    if cap is not None and size > cap:
        raise InvalidInput(
            f"{where} makes a request of about {size >> 20} MB, over the {cap >> 20} MB that Qdrant's REST interface "
            "safely takes: connect with prefer_grpc=True, pool its tokens, or split the document"
        )
    return size
