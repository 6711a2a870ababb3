"""Checks of documents and queries before anything is sent to the database, shared by all stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.payloads import INTEGERS, UnstorableValue, to_stored
from muvera_core import Encoder, FDEConfig, TokenBatch
from muvera_core.tokens import ArrayLike, to_matrices, to_matrix

K = TypeVar("K")

#: what to do with all-zero token vectors of new documents: refuse the documents, or drop the vectors
ZeroRows: TypeAlias = Literal["refuse", "drop"]


@dataclass(frozen=True, slots=True)
class Intake(Generic[K]):
    """Conversions and checks for one database; they raise InvalidInput for documents that it cannot store.

    Attributes:
        key: converts an id at a position to the database's key, and to the value that the payload must keep to restore
            the id.
        payload: converts a payload of plain JSON values, given with its position, to the stored payload.
        check_tokens: checks a token matrix (n, token_dim); its second argument names the document for messages.
        size: bytes of a document in a request, from its token matrix and stored payload.
        integers: smallest and largest integer of a payload.
        vectors: names of the vectors that can be written in addition to the library's own; None: only the database
            knows them.
        vector_size: bytes of such a vector in a request.
    """

    key: Callable[[DocumentId, int], tuple[K, Mapping[str, Any]]]
    payload: Callable[[Mapping[str, Any], int], dict[str, Any]]
    check_tokens: Callable[[npt.NDArray[Any], str], None]
    size: Callable[[npt.NDArray[Any], Mapping[str, Any], str], int]
    integers: tuple[int, int] = INTEGERS
    vectors: Collection[str] | None = ()
    vector_size: Callable[[Any], int] = lambda value: 4 * numbers_in(value)


@dataclass(frozen=True, slots=True)
class Prepared(Generic[K]):
    """Documents that passed the checks and can be written.

    Attributes:
        ids: ids of the documents, as the user gave them.
        keys: keys of the documents in the database.
        payloads: stored payloads of the documents, with the values needed to restore ids.
        tokens: token matrices (n_i, token_dim), normalised if the collection compares by cosine.
        sizes: bytes of each document in a request.
        vectors: other vectors of each document by name, in the types of the database's client.
        zero_rows: number of all-zero token vectors that were left out.
        unfit: position -> reason of documents that cannot be written because of a value in their payload.
    """

    ids: list[DocumentId]
    keys: list[K]
    payloads: list[dict[str, Any]]
    tokens: TokenBatch | list[npt.NDArray[Any]]
    sizes: list[int]
    vectors: list[dict[str, Any]]
    zero_rows: int = 0
    unfit: dict[int, str] = field(default_factory=dict)


def prepare(
    collection: Described,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    intake: Intake[K],
    *,
    vectors: Mapping[str, Sequence[Any]] | None = None,
    zero_rows: ZeroRows = "refuse",
) -> Prepared[K]:
    """Checks and converts the documents of one write.

    Args:
        collection: the collection to write to.
        ids: ids of the documents.
        tokens: token matrices of the documents.
        payloads: payloads of the documents, or None.
        intake: conversions and checks of the database.
        vectors: other vectors by name, with one entry for each document (None: no vector).
        zero_rows: whether documents with all-zero token vectors are refused, or these vectors dropped and counted.

    Raises:
        InvalidInput: lengths differ, an id is not valid or given twice, a payload has a type that cannot be stored, a
            vector is unknown or the library's own, or tokens cannot be encoded or exceed a limit of the database. The
            message names the document.
    """
    if zero_rows not in get_args(ZeroRows):
        raise InvalidInput(f"zero_rows must be 'refuse' or 'drop', got {zero_rows!r}")
    ids, matrices = take(ids, tokens, payloads, collection.encoder.token_dim)
    others = check_vectors(vectors, len(ids), intake.vectors, (collection.fde, collection.tokens))
    dropped = 0
    if zero_rows == "drop":
        matrices, dropped = _dropped(ids, matrices)
    seen: dict[K, int] = {}
    unfit: dict[int, str] = {}
    stored: list[dict[str, Any]] = []
    sizes = []
    for position, document_id in enumerate(ids):
        key, kept = intake.key(document_id, position)
        if seen.setdefault(key, position) != position:
            raise InvalidInput(f"id {document_id!r} is given twice, at positions {seen[key]} and {position}")
        given: dict[str, Any] = {}
        try:
            payload = (payloads[position] if payloads is not None else None) or {}
            given = to_stored(payload, f"document {position} (id {document_id!r})", intake.integers)
        except UnstorableValue as error:
            unfit[position] = str(error)
        stored.append({**intake.payload(given, position), **kept})
    for position, (document_id, payload) in enumerate(zip(ids, stored, strict=True)):
        where = f"document {position} (id {document_id!r})"
        intake.check_tokens(matrices[position], where)
        beside = sum(intake.vector_size(value) for value in others[position].values())
        sizes.append(intake.size(matrices[position], payload, where) + beside)
    if collection.cosine:
        matrices = [normalised(matrices[i]) for i in range(len(matrices))]
    return Prepared(ids, list(seen), stored, matrices, sizes, others, dropped, unfit)


def query_matrix(
    collection: Described, query_tokens: ArrayLike, check: Callable[[npt.NDArray[Any], str], None], what: str = "query"
) -> npt.NDArray[np.float32]:
    """Checks a query and returns it as (m, token_dim) float32, normalised where tokens are compared by cosine.

    Raises:
        InvalidInput: the shape is wrong, or ``check`` rejects a token.
    """
    try:
        matrix = to_matrix(query_tokens, dim=collection.encoder.token_dim, what=what).astype(np.float32)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if not is_plain(matrix, np.inf):
        check_finite(matrix, what)
        token = _zero_row(matrix)
        if token is not None:
            raise InvalidInput(f"{what}, token {token} is all zeros: padding? Drop such tokens")
    check(matrix, what)
    return normalised(matrix) if collection.cosine else matrix


def check_weights(weights: ArrayLike, count: int, what: str = "query") -> npt.NDArray[np.float64]:
    """Weights of the ``count`` tokens of a query, (count,) float64.

    Raises:
        InvalidInput: the weights are not ``count`` finite numbers of at least 0, or all of them are 0.
    """
    try:
        given = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what}: weights must be numbers, one for each token") from error
    if given.shape != (count,):
        raise InvalidInput(f"{what} has {count} tokens, but its weights have shape {given.shape}: pass one for each")
    # float32 can represent these weights and their sums
    bad = ~((given == 0) | ((given >= 1e-30) & (given <= 1e30)))
    if bad.any():
        token = int(np.argmax(bad))
        raise InvalidInput(f"{what}: the weight of token {token} is {given[token]}; it must be 0, or 1e-30 to 1e30")
    if not given.any():
        raise InvalidInput(f"{what}: all weights are 0, so that nothing is searched for")
    return given


def need_fde(collection: Described) -> None:
    """Raises InvalidInput if the collection has no FDEs yet."""
    if not collection.has_fde:
        raise InvalidInput(
            f"{collection.name} was adopted and has no FDEs in {collection.fde!r} yet: run backfill() first"
        )


def need_tokens(collection: Described, why: str = "") -> str:
    """Name of the stored token matrices; raises InvalidInput if there are none; ``why`` ends the message."""
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens{why}")
    return collection.tokens


def take(
    ids: Sequence[DocumentId], tokens: Any, payloads: Sequence[Mapping[str, Any] | None] | None, token_dim: int
) -> tuple[list[DocumentId], TokenBatch | list[npt.NDArray[Any]]]:
    """Checks that there are equal numbers of ids, (n_i, token_dim) matrices and payloads; returns ids and matrices.

    Raises:
        InvalidInput: ``tokens`` are not matrices of this width, or the numbers differ.
    """
    try:
        matrices = to_matrices(tokens, dim=token_dim)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    ids = list(ids)
    if payloads is not None and (isinstance(payloads, Mapping | str) or not hasattr(payloads, "__len__")):
        raise InvalidInput("payloads must be a list with a dictionary, or None, for each document")
    if len(ids) != len(matrices) or (payloads is not None and len(payloads) != len(ids)):
        given = "" if payloads is None else f", {len(payloads)} payloads"
        raise InvalidInput(f"{len(ids)} ids, {len(matrices)} token matrices{given}: the numbers must be equal")
    return ids, matrices


def check_vectors(
    vectors: Mapping[str, Sequence[Any]] | None, count: int, known: Collection[str] | None, own: Sequence[str | None]
) -> list[dict[str, Any]]:
    """Other vectors of each of ``count`` documents by name, without the entries that are None.

    Args:
        vectors: vectors by name, with one entry for each document.
        count: number of documents.
        known: names of the vectors of the collection; None: only the database knows them.
        own: names of the library's own vectors.

    Raises:
        InvalidInput: a name is unknown or the library's own, or the number of entries is wrong.
    """
    each: list[dict[str, Any]] = [{} for _ in range(count)]
    if vectors is not None and not isinstance(vectors, Mapping):
        raise InvalidInput(
            f"vectors must be a dictionary of lists by name, with an entry for each document; got a {_named(vectors)}"
        )
    for name, values in (vectors or {}).items():
        if name in own:
            raise InvalidInput(f"vectors: {name!r} is written by the library itself, from the tokens")
        if known is not None and name not in known:
            there = ", ".join(repr(other) for other in sorted(set(known) - set(own))) or "none"
            raise InvalidInput(f"vectors: the collection has no vector {name!r} to write; there are: {there}")
        if isinstance(values, Mapping | str) or not hasattr(values, "__len__"):
            raise InvalidInput(f"vectors: {name!r} must be a list with one entry for each document")
        if len(values) != count:
            raise InvalidInput(f"vectors: {name!r} has {len(values)} entries for {count} documents")
        for document, value in zip(each, values, strict=True):
            if value is not None:
                document[name] = value
    return each


def numbers_in(value: Any) -> int:
    """Number of numbers in a vector of any type of the clients: an array, nested lists, indices with values."""
    if hasattr(value, "size") and hasattr(value, "shape"):
        return int(value.size)
    if isinstance(value, Mapping):
        return sum(1 + numbers_in(each) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(map(numbers_in, value)) if value and not isinstance(value[0], int | float) else len(value)
    if hasattr(value, "indices") and hasattr(value, "values"):
        return 2 * len(value.indices)
    return 1


def check_encoder_type(encoder: Any) -> None:
    """Raises InvalidInput for anything but an encoder, with advice for the config of one."""
    if isinstance(encoder, FDEConfig):
        raise InvalidInput("expected an encoder, got an FDEConfig: pass FDEEncoder(config)")
    if isinstance(encoder, type) or not isinstance(encoder, Encoder):
        raise InvalidInput(
            f"expected an encoder, got a {_named(encoder)}: pass FDEEncoder(FDEConfig(dim)), or an encoder from "
            "load_encoder()"
        )


def check_dimensions(encoder: Encoder, most: int, database: str) -> None:
    """Raises InvalidInput for an encoder with more than the ``most`` dimensions that the database stores."""
    if encoder.dim > most:
        raise InvalidInput(
            f"the encoder has {encoder.dim} dimensions, {database} takes at most {most}: use fewer repetitions, a "
            "smaller k_sim or d_proj, or d_final"
        )


def check_client(client: Any, kind: type | tuple[type, ...], others: Mapping[type, str] | None = None) -> None:
    """Raises InvalidInput for a client of a class that the store does not work with.

    A wrapper with the public methods of a right class is accepted.

    Args:
        client: the client that was given.
        kind: class of the clients that the store works with; of several, messages name the first.
        others: classes of clients that another store works with, each with the name of that store.
    """
    for other, store in (others or {}).items():
        if isinstance(client, other):
            raise InvalidInput(f"got a client of class {_named(client)}: use {store} with it")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    methods = [name for name, value in vars(kinds[0]).items() if callable(value) and not name.startswith("_")]
    if isinstance(client, kinds) or (methods and all(hasattr(client, name) for name in methods)):
        return
    wanted = kinds[0].__name__
    made = f": connect first, and pass the client ({wanted})" if isinstance(client, str | PathLike) else ""
    raise InvalidInput(f"expected a client of class {wanted}, got a {_named(client)}{made}")


def _named(thing: Any) -> str:
    return f"class ({thing.__name__})" if isinstance(thing, type) else type(thing).__name__


def has_zero_rows(matrix: npt.NDArray[Any]) -> bool:
    """Whether a token is all zeros."""
    return _zero_row(matrix) is not None


def without_zero_rows(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The matrix without all-zero tokens (padding, which adds nothing to MaxSim); itself if there are none."""
    present = matrix.any(axis=1)
    return matrix if present.all() else matrix[present]


def _dropped(
    ids: Sequence[DocumentId], matrices: TokenBatch | list[npt.NDArray[Any]]
) -> tuple[list[npt.NDArray[Any]], int]:
    """The matrices without all-zero rows, and the number of these rows.

    Raises:
        InvalidInput: a document has only all-zero rows.
    """
    kept = [without_zero_rows(matrices[i]) for i in range(len(matrices))]
    for position, matrix in enumerate(kept):
        if not len(matrix):
            raise InvalidInput(f"document {position} (id {ids[position]!r}) has only all-zero tokens")
    return kept, sum(len(matrices[i]) - len(kept[i]) for i in range(len(kept)))


def normalised(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rows of unit length, as databases store or compare them under cosine distance; zeros stay zeros."""
    floats = matrix.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(floats, axis=1, keepdims=True)
    if not ((norms > 0) & (norms < np.inf)).all():  # zeros, or squares beyond float32
        norms = np.linalg.norm(floats.astype(np.float64), axis=1, keepdims=True)
        norms[norms == 0] = 1
        return (floats / norms).astype(np.float32)
    return floats / norms


def encode_stored(encoder: Encoder, matrices: Sequence[npt.NDArray[Any]], *, cosine: bool) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs of stored tokens, which are normalised first where they are compared by ``cosine``.

    All-zero rows (padding that others stored) are left out; every matrix must have at least one other row, and no NaN.
    """
    present = [without_zero_rows(matrix) for matrix in matrices]
    return encoder.encode_documents([normalised(matrix) for matrix in present] if cosine else present)


def cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n,) cosines between the rows of two (n, dim) arrays."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, np.float32(1e-30))


def is_plain(matrix: npt.NDArray[Any], limit: float) -> bool:
    """A quick check: True if no token is zero or not finite, and no value above ``limit``; False means unknown."""
    with np.errstate(over="ignore", invalid="ignore"):
        floats = matrix.astype(np.float32, copy=False)
        squares = np.einsum("ij,ij->i", floats, floats)
    # NaN fails every comparison; after over- or underflow, the slow checks decide
    return bool(squares.min() > 0 and squares.max() < limit)


def check_finite(matrix: npt.NDArray[Any], where: str) -> float:
    """The largest absolute value of a matrix.

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
    token = _zero_row(matrix)
    if token is not None:
        raise InvalidInput(
            f"{where}, token {token} is all zeros: padding? Pass zero_rows='drop' to leave such tokens out, or a "
            "TokenBatch made by from_padded with a mask"
        )


def _zero_row(matrix: npt.NDArray[Any]) -> int | None:
    present = matrix.any(axis=1)
    return None if present.all() else int(np.argmin(present))


def check_encodable(matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for values that are not finite, and for all-zero tokens."""
    if not is_plain(matrix, np.inf):
        check_finite(matrix, where)
        check_present(matrix, where)


def json_of(payload: Mapping[str, Any]) -> str:
    """A payload of plain JSON values (as from :func:`prepare`) as JSON text."""
    return json.dumps(payload)
