"""Checks of documents and queries before anything is sent, and what passed them: the same in all stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.collection import Described
from muvera_core import Encoder, TokenBatch
from muvera_core.tokens import ArrayLike, to_matrices, to_matrix

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Intake(Generic[K]):
    """What one database takes, as functions that raise InvalidInput for what it cannot store.

    Attributes:
        key: the database's key of an id at a position, and what the payload must keep to give the id back.
        payload: the payload as it is stored, from the user's and its position.
        check_tokens: check of a token matrix (n, token_dim); its second argument says whose it is.
        size: bytes of a document on the way to the database, from its token matrix and stored payload.
    """

    key: Callable[[DocumentId, int], tuple[K, Mapping[str, Any]]]
    payload: Callable[[Mapping[str, Any], int], dict[str, Any]]
    check_tokens: Callable[[npt.NDArray[Any], str], None]
    size: Callable[[npt.NDArray[Any], Mapping[str, Any], str], int]


@dataclass(frozen=True, slots=True)
class Prepared(Generic[K]):
    """Documents that can be written.

    Attributes:
        ids: ids as the user gave them.
        keys: the database's key of each.
        payloads: payload of each as it is stored, with what is needed to give the id back.
        tokens: token matrix (n_i, token_dim) of each, normalised where the collection compares by cosine.
        sizes: bytes of each on the way to the database.
    """

    ids: list[DocumentId]
    keys: list[K]
    payloads: list[dict[str, Any]]
    tokens: TokenBatch | list[npt.NDArray[Any]]
    sizes: list[int]


def prepare(
    collection: Described,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    intake: Intake[K],
) -> Prepared[K]:
    """Documents for one write.

    Raises:
        InvalidInput: lengths differ, an id is not valid or given twice, a payload cannot be stored, or tokens cannot be
            encoded or exceed a limit of the database; the message says where.
    """
    ids, matrices = take(ids, tokens, payloads, collection.encoder.token_dim)
    seen: dict[K, int] = {}
    stored: list[dict[str, Any]] = []
    sizes = []
    for position, document_id in enumerate(ids):
        key, kept = intake.key(document_id, position)
        if seen.setdefault(key, position) != position:
            raise InvalidInput(f"id {document_id!r} is given twice, at positions {seen[key]} and {position}")
        given = (payloads[position] if payloads is not None else None) or {}
        stored.append({**intake.payload(given, position), **kept})
    for position, (document_id, payload) in enumerate(zip(ids, stored, strict=True)):
        where = f"document {position} (id {document_id!r})"
        intake.check_tokens(matrices[position], where)
        sizes.append(intake.size(matrices[position], payload, where))
    if collection.cosine:
        matrices = [normalised(matrices[i]) for i in range(len(matrices))]
    return Prepared(ids, list(seen), stored, matrices, sizes)


def query_matrix(
    collection: Described, query_tokens: ArrayLike, check: Callable[[npt.NDArray[Any], str], None], what: str = "query"
) -> npt.NDArray[np.float32]:
    """A checked (m, token_dim) float32 query, normalised where tokens are compared by cosine.

    Raises:
        InvalidInput: wrong shape, or tokens that ``check`` rejects.
    """
    try:
        matrix = to_matrix(query_tokens, dim=collection.encoder.token_dim, what=what).astype(np.float32)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    check(matrix, what)
    return normalised(matrix) if collection.cosine else matrix


def need_fde(collection: Described) -> None:
    """Raises InvalidInput where there are no FDEs to search or to write yet."""
    if not collection.has_fde:
        raise InvalidInput(
            f"{collection.name} was adopted and has no FDEs in {collection.fde!r} yet: run backfill() first"
        )


def need_tokens(collection: Described, why: str = "") -> str:
    """Name of the stored token matrices; raises InvalidInput where there are none, with ``why`` behind the message."""
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens{why}")
    return collection.tokens


def take(
    ids: Sequence[DocumentId], tokens: Any, payloads: Sequence[Mapping[str, Any] | None] | None, token_dim: int
) -> tuple[list[DocumentId], TokenBatch | list[npt.NDArray[Any]]]:
    """Ids and as many (n_i, token_dim) matrices.

    Raises:
        InvalidInput: ``tokens`` are not matrices of that width, or the numbers of ids, matrices and payloads differ.
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
        InvalidInput: it is not valid JSON.
    """
    try:
        return json.dumps(payload, default=_readable)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the payload of {where} is not valid JSON: {error}") from error


def _readable(value: Any) -> str:
    # dates and the like, which clients write as text
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    if isoformat is None:
        raise TypeError(f"{type(value).__name__} cannot be stored")
    return isoformat()
