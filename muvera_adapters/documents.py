"""What every store checks of documents and queries before anything is sent, batches by bytes, and their reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, StoreUnavailable, WriteInterrupted
from muvera_adapters.results import DocumentId, WriteReport
from muvera_core import Encoder, TokenBatch
from muvera_core.tokens import ArrayLike, to_matrices, to_matrix


def take(
    ids: Sequence[DocumentId], tokens: Any, payloads: Sequence[Mapping[str, Any] | None] | None, token_dim: int
) -> tuple[list[DocumentId], TokenBatch | list[npt.NDArray[Any]]]:
    """Ids and as many (n_i, token_dim) matrices.

    Raises:
        InvalidInput: no matrices of that width, or the numbers of ids, matrices and payloads differ.
    """
    try:
        matrices = to_matrices(tokens, dim=token_dim)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    ids = list(ids)
    if len(ids) != len(matrices) or (payloads is not None and len(payloads) != len(ids)):
        given = "" if payloads is None else f", {len(payloads)} payloads"
        raise InvalidInput(f"{len(ids)} ids, {len(matrices)} token matrices{given}: the numbers must be equal")
    return ids, matrices


def query_array(query_tokens: ArrayLike, token_dim: int, what: str) -> npt.NDArray[np.float32]:
    """A (m, token_dim) float32 query, whose values are not checked.

    Raises:
        InvalidInput: wrong shape.
    """
    try:
        return to_matrix(query_tokens, dim=token_dim, what=what).astype(np.float32)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def normalised(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rows of unit length, as databases store or compare them under cosine distance."""
    floats = matrix.astype(np.float32)
    return floats / np.linalg.norm(floats, axis=1, keepdims=True)


def encode_stored(encoder: Encoder, matrices: Sequence[npt.NDArray[Any]], *, cosine: bool) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs of stored tokens, which count as normalised where they are compared by ``cosine``."""
    return encoder.encode_documents([normalised(matrix) for matrix in matrices] if cosine else matrices)


def cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n,) cosines between the rows of two (n, dim) arrays."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, np.float32(1e-30))


def is_plain(matrix: npt.NDArray[Any], limit: float) -> bool:
    """One pass tells that no token is zero or not finite, and no value above ``limit``; else the checks below tell."""
    with np.errstate(over="ignore", invalid="ignore"):
        floats = matrix.astype(np.float32, copy=False)
        squares = np.einsum("ij,ij->i", floats, floats)
    # NaN fails every comparison, and over- and underflow are looked at by those checks
    return bool(squares.min() > 0 and squares.max() < limit)


def check_finite(matrix: npt.NDArray[Any], where: str) -> float:
    """The largest absolute value.

    Raises:
        InvalidInput: a value is NaN or infinite.
    """
    largest = float(np.abs(matrix).max())
    if not np.isfinite(largest):
        token = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        raise InvalidInput(f"{where}, token {token} has a NaN or infinite value")
    return largest


def check_present(matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for all-zero tokens, which are padding."""
    present = matrix.any(axis=1)
    if not present.all():
        raise InvalidInput(
            f"{where}, token {int(np.argmin(present))} is all zeros: padding? Drop such tokens, or pass a TokenBatch "
            "made by from_padded with a mask"
        )


def check_encodable(matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for values that are not finite, and for all-zero tokens."""
    if not is_plain(matrix, np.inf):
        check_finite(matrix, where)
        check_present(matrix, where)


def json_of(payload: Mapping[str, Any], where: str) -> str:
    """The payload as JSON.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return json.dumps(payload, default=_readable)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the payload of {where} is not valid JSON: {error}") from error


def slices(sizes: Sequence[int], target: int) -> Iterator[tuple[int, int]]:
    """Ranges i, j whose sizes sum to at most ``target``; one that is larger goes alone."""
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if total + size > target and i > start:
            yield start, i
            start, total = i, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)


def interrupted(
    error: StoreUnavailable,
    report: WriteReport,
    ids: Sequence[DocumentId],
    begun: int,
    advice: str = "repeat the call to complete it",
) -> WriteInterrupted:
    """For a write that got no further than the batch that begins at a position of ``ids``.

    A part of that batch may have been written: all of it is counted as not acknowledged.
    """
    report.written = begun - sum(document_id in report.failed for document_id in ids[:begun])
    for document_id in ids[begun:]:
        report.failed.setdefault(document_id, f"not acknowledged: {error}")
    return WriteInterrupted(f"{error}; {report.written} of {len(ids)} documents are written, {advice}", report)


def _readable(value: Any) -> str:
    # dates and the like, which clients write as text
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    if isoformat is None:
        raise TypeError(f"{type(value).__name__} cannot be stored")
    return isoformat()
