"""What every source is read as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId


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
    """

    format: str
    dim: int
    n_tokens: int | None
    n_positions: int
    lengths: npt.NDArray[np.int64] | None
    files: Sequence[Path]
    place: str
    seekable: bool

    def __len__(self) -> int:
        """Documents."""
        ...

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents from position ``start`` on, in a fixed order; read as they are asked for."""
        ...

    def close(self) -> None:
        """Closes what was opened for it."""
        ...


def to_float32(values: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
    """Values of any floating-point type.

    Raises:
        InvalidInput: they are no numbers of that kind.
    """
    if values.dtype.kind != "f":
        raise InvalidInput(f"{where} holds {values.dtype}, expected floating point")
    return np.ascontiguousarray(values, np.float32)


def check_unique(ids: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput where an id is there twice."""
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != len(ids):
        raise InvalidInput(f"{where} has the id {values[counts > 1][0].item()!r} twice; ids must differ")
