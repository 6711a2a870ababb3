"""The interface of all formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.results import DocumentId


class IndexDocument(NamedTuple):
    """One document of an index.

    Attributes:
        position: number of the document in the index; deleted documents count.
        id: id of the document in the index; its position if the format has no ids.
        tokens: (n, dim) float32, as the index's own library decodes them, of unit length (ColBERT v1: as stored).
        payload: metadata of the document in the index; {} if there is none.
    """

    position: int
    id: DocumentId
    tokens: npt.NDArray[np.float32]
    payload: Mapping[str, Any]


class Source(Protocol):
    """A read-only index. Its files are never written, and never opened with the library that wrote them."""

    @property
    def format(self) -> str:
        """Name of the format."""
        ...

    @property
    def dim(self) -> int:
        """Width of a token vector."""
        ...

    #: (n,) numbers of tokens per position, as the files have them; 0 if the format marks deleted documents so
    lengths: npt.NDArray[np.int64]

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all documents."""
        ...

    def __len__(self) -> int:
        """Number of documents, without deleted ones."""
        ...

    def documents(self, start: int = 0) -> Iterator[IndexDocument]:
        """All documents in the order of the index, without deleted ones, decoded lazily.

        Args:
            start: position to begin at; nothing before it is decoded.
        """
        ...
