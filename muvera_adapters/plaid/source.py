"""What every format is read as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.results import DocumentId


class IndexDocument(NamedTuple):
    """One document of an index.

    Attributes:
        position: number of the document in the index, deleted documents counted.
        id: the index's id of the document; its position where the format has no other id.
        tokens: (n, dim) float32, as the index's own library decodes them, of unit length (ColBERT v1: as stored).
        payload: metadata that the index keeps beside the vectors; {} where it keeps nothing.
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

    #: (n,) tokens per position, as the files say; 0 where the format marks deleted documents so
    lengths: npt.NDArray[np.int64]

    @property
    def n_tokens(self) -> int:
        """Token vectors of all documents."""
        ...

    def __len__(self) -> int:
        """Documents, without deleted ones."""
        ...

    def documents(self, start: int = 0) -> Iterator[IndexDocument]:
        """All documents in the order of the index, deleted ones left out; decoded as they are asked for.

        Args:
            start: position to begin at; nothing before it is decoded.
        """
        ...
