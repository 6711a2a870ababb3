"""What every source is read as."""

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
        position: number of the document in the source, deleted documents counted.
        id: the source's id of the document; its position where the source has no other id.
        tokens: (n, dim) float32.
        payload: metadata that the source keeps beside the vectors; {} where it keeps nothing.
    """

    position: int
    id: DocumentId
    tokens: npt.NDArray[np.float32]
    payload: Mapping[str, Any]


class TokenSource(Protocol):
    """Documents with token matrices; read-only.

    Attributes:
        format: its name.
        dim: width of a token vector.
        n_tokens: token vectors of all documents; None where only reading them all would tell.
        n_positions: positions run from 0 to below it, deleted documents counted.
        lengths: (n_positions,) tokens, 0 where a document was deleted; None where only reading them all would tell.
        files: that the documents are read from; none where they are in a database.
        place: path, or target and collection.
        seekable: ``documents(start)`` reads nothing before ``start``.
        model: model of the token vectors; None where the source does not name it.
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
        """Documents."""
        ...

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents from position ``start`` on, in a fixed order; read as they are asked for."""
        ...

    def close(self) -> None:
        """Closes what was opened for it."""
        ...


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Errors of the operating system about a source's files as InvalidInput."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MuveraError):
            raise
        raise InvalidInput(f"{place} cannot be read: {error}") from error


def to_float32(values: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
    """Values of any floating-point type, ``BFLOAT16`` included.

    Raises:
        InvalidInput: they are no numbers of that kind.
    """
    if values.dtype == BFLOAT16:
        return (values["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    if values.dtype.kind != "f":
        raise InvalidInput(f"{where} holds {values.dtype}, expected floating point")
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, which is reported with its place
        return np.ascontiguousarray(values, np.float32)


def check_unique(ids: Callable[[], Iterable[DocumentId]], where: str) -> None:
    """Raises InvalidInput where an id is there twice.

    Args:
        ids: begins to read them; called again where two may be equal.
        where: of the ids, for the message.
    """
    # hashes take eight bytes an id; equal ones may still be of different ids
    hashes = array("q", (hash(identifier) for identifier in ids()))
    values, counts = np.unique(np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64), return_counts=True)
    suspects = set(values[counts > 1].tolist())
    seen: set[DocumentId] = set()
    for identifier in ids() if suspects else ():
        if identifier in seen:
            raise InvalidInput(
                f"{where} has the id {identifier!r} twice; ids must differ: name others with --ids, or say --ids none "
                "for positions"
            )
        if hash(identifier) in suspects:
            seen.add(identifier)
