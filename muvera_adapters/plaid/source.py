"""Detection, and what every format is read as."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.errors import UnknownFormat
from muvera_adapters.results import DocumentId


class Document(NamedTuple):
    """One document of an index.

    Attributes:
        position: its number in the index, deleted documents counted.
        id: what the index calls it; its position where the format has no other id.
        tokens: (n, dim) float32, unit length, as the index's own library decodes them.
        payload: what the index keeps beside the vectors, {} where it keeps nothing.
    """

    position: int
    id: DocumentId
    tokens: npt.NDArray[np.float32]
    payload: Mapping[str, Any]


class Source(Protocol):
    """A read-only index; its files are never written, nor opened with the library that wrote them."""

    @property
    def format(self) -> str:
        """Name of the format."""
        ...

    @property
    def dim(self) -> int:
        """Width of a token vector."""
        ...

    @property
    def n_tokens(self) -> int:
        """Token vectors of all documents."""
        ...

    def __len__(self) -> int:
        """Documents, without deleted ones."""
        ...

    def documents(self) -> Iterator[Document]:
        """All documents in the order of the index, deleted ones left out; decoded as they are asked for."""
        ...


def open_index(path: str | os.PathLike[str]) -> Source:
    """Opens the index in a directory, whatever wrote it.

    Nothing in the index is executed: its pickles are read by a parser that knows tensors alone.

    Raises:
        UnknownFormat: no such directory, or it holds no index that can be read.
        IndexDamaged: a file is missing, cut short, or contradicts another; the message names it.
    """
    from muvera_adapters.plaid.stanford import StanfordIndex

    directory = Path(path)
    if not directory.is_dir():
        raise UnknownFormat(f"{directory} is no directory")
    if (directory / "centroids.pt").exists():
        return StanfordIndex(directory)
    if (directory / "plan.json").exists():
        raise UnknownFormat(f"{directory} is a PLAID index whose build was not finished (no centroids)")
    raise UnknownFormat(f"{directory} is no PLAID index (no centroids.pt in it); formats read so far: stanford ColBERT")
