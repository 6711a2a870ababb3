"""Shared by all formats: chunks of documents whose token vectors are decoded slice by slice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.plaid.files import Int64
from muvera_adapters.plaid.source import IndexDocument
from muvera_adapters.results import DocumentId

# tokens decoded at a time: 4 MB at 128 dims; a few slices are alive at a time, as batches end within them
_SLICE_TOKENS = 8_192

Float32 = npt.NDArray[np.float32]
#: function that returns the token vectors (end - begin, dim) of rows begin to end of a chunk
Rows = Callable[[int, int], Float32]


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents of an index.

    Attributes:
        lengths: (n,) numbers of tokens per document; 0 for a deleted document.
        rows: function that opens the chunk's files and checks their sizes.
    """

    lengths: Int64
    rows: Callable[[], Rows]


@dataclass(frozen=True)
class Labels:
    """Ids and payloads of documents by position; deleted documents count.

    Attributes:
        ids: function that starts reading the ids of all positions in order; None: the positions are the ids.
        payloads: function that starts reading the payloads of all positions in order; None: there are none.
        deleted: (n,) whether a document is deleted although its vectors are still there; None: no document is.
    """

    ids: Callable[[], Iterator[DocumentId]] | None = None
    payloads: Callable[[], Iterator[Mapping[str, Any]]] | None = None
    deleted: npt.NDArray[np.bool_] | None = None


class ChunkedIndex:
    """An index of any format; see :class:`muvera_adapters.plaid.source.Source`.

    It keeps in memory the centroids, the lengths of documents, and 4 MB of decoded tokens, whatever the size of the
    index.

    Args:
        format: name of the format.
        dim: width of a token vector.
        chunks: chunks in the order of the index.
        labels: ids and payloads of the documents.
    """

    def __init__(self, format: str, dim: int, chunks: Sequence[Chunk], labels: Labels = Labels()) -> None:
        self.format, self.dim, self.labels = format, dim, labels
        self._chunks = chunks
        #: (n,) numbers of tokens per position, as the files have them
        self.lengths = np.concatenate([c.lengths for c in chunks]) if chunks else np.zeros(0, np.int64)
        alive = self.lengths > 0
        self._alive = alive if labels.deleted is None else alive & ~labels.deleted

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all documents."""
        return int(self.lengths[self._alive].sum())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._alive))

    def with_labels(self, labels: Labels) -> ChunkedIndex:
        """The same index with other labels."""
        return ChunkedIndex(self.format, self.dim, self._chunks, labels)

    def documents(self, start: int = 0) -> Iterator[IndexDocument]:
        """All documents from position ``start`` on, in order, without deleted ones."""
        ids: Iterator[DocumentId] = self.labels.ids() if self.labels.ids else itertools.count()
        payloads = self.labels.payloads() if self.labels.payloads else itertools.repeat({})
        if start:
            ids, payloads = itertools.islice(ids, start, None), itertools.islice(payloads, start, None)
        alive_from = self._alive[start:].tolist()
        for position, (alive, tokens) in enumerate(zip(alive_from, self._matrices(start), strict=True), start):
            identifier, payload = next(ids, None), next(payloads, None)
            if identifier is None or payload is None:
                raise InvalidInput(
                    f"the ids or texts given end at position {position}: their file was changed during the reading"
                )
            if alive:
                yield IndexDocument(position, identifier, tokens, payload)

    def _matrices(self, start: int) -> Iterator[Float32]:
        for chunk in self._chunks:
            if start >= len(chunk.lengths):
                start -= len(chunk.lengths)
                continue
            rows = chunk.rows()
            ends = np.cumsum(chunk.lengths)
            i, start = start, 0
            while i < len(ends):
                begin = int(ends[i] - chunk.lengths[i])
                j = max(i + 1, int(np.searchsorted(ends, begin + _SLICE_TOKENS, side="right")))
                tokens = rows(begin, int(ends[j - 1]))
                for k in range(i, j):
                    yield tokens[ends[k] - chunk.lengths[k] - begin : ends[k] - begin]
                i = j
