"""The interface of all sources."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.plaid.torch_file import BFLOAT16
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.token_model import TokenModel


class SourceDocument(NamedTuple):
    """One document of a source.

    Attributes:
        position: number of the document in the source; deleted documents count.
        id: id of the document in the source; its position if the source has no ids.
        tokens: (n, dim) float32.
        payload: metadata of the document in the source; {} if there is none.
    """

    position: int
    id: DocumentId
    tokens: npt.NDArray[np.float32]
    payload: Mapping[str, Any]


class TokenSource(Protocol):
    """Documents with token matrices; read-only.

    Attributes:
        format: name of the format.
        dim: width of a token vector.
        n_tokens: number of token vectors of all documents; None if only reading them all would tell.
        n_positions: number of positions, including those of deleted documents.
        lengths: (n_positions,) numbers of tokens, 0 for a deleted document; None if only reading them all would tell.
        files: files that the documents are read from; none for a database.
        place: path, or target and collection.
        seekable: whether ``documents(start)`` reads nothing before ``start``.
        model: model of the token vectors; None if the source does not name it.
    """

    format: str
    dim: int
    n_tokens: int | None
    n_positions: int
    lengths: npt.NDArray[np.int64] | None
    files: Sequence[Path]
    place: str
    seekable: bool
    model: TokenModel | None

    def __len__(self) -> int:
        """Number of documents."""
        ...

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents from position ``start`` on, in a fixed order, read lazily."""
        ...

    def close(self) -> None:
        """Closes the files or connections of the source."""
        ...


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Raises InvalidInput for errors of the operating system about a source's files."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MuveraError):
            raise
        raise InvalidInput(f"{place} cannot be read: {error}") from error


def to_float32(values: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
    """Values of any floating-point type, including ``BFLOAT16``, as float32.

    Raises:
        InvalidInput: the values are not floating-point numbers.
    """
    if values.dtype == BFLOAT16:
        return (values["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    if values.dtype.kind != "f":
        raise InvalidInput(f"{where} holds {values.dtype}, expected floating point")
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, which is reported with its place
        return np.ascontiguousarray(values, np.float32)


def check_unique(ids: Callable[[], Iterable[DocumentId]], where: str) -> None:
    """Raises InvalidInput if two ids are equal.

    Args:
        ids: function that starts reading the ids; it is called again if two may be equal.
        where: where the ids are, for the message.
    """
    # hashes take eight bytes per id; different ids may have equal hashes
    hashes = array("q", (hash(identifier) for identifier in ids()))
    values, counts = np.unique(np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64), return_counts=True)
    suspects = set(values[counts > 1].tolist())
    seen: set[DocumentId] = set()
    for identifier in ids() if suspects else ():
        if identifier in seen:
            raise InvalidInput(
                f"{where} has the id {identifier!r} twice; ids must differ: name others with --ids, or use --ids none "
                "for positions"
            )
        if hash(identifier) in suspects:
            seen.add(identifier)
