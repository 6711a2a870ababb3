"""What all formats have in common: chunks of documents whose token vectors are decoded slice by slice."""

from __future__ import annotations

import itertools
import mmap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.codec import ResidualCodec
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.files import Int64
from muvera_adapters.plaid.source import Document
from muvera_adapters.results import DocumentId

# tokens decoded at once: 16 MB at 128 dims
_SLICE_TOKENS = 32_768

Float32 = npt.NDArray[np.float32]
#: token vectors (end - begin, dim) of rows begin to end of a chunk
Rows = Callable[[int, int], Float32]


class Array(NamedTuple):
    """Values of a file, (n, ...), and the file, for errors about them."""

    path: Path
    values: Any


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents.

    Attributes:
        lengths: (n,) tokens per document, 0 where it was deleted.
        rows: opens the chunk's files and checks their sizes.
    """

    lengths: Int64
    rows: Callable[[], Rows]


@dataclass(frozen=True)
class Labels:
    """What documents are called and what is kept beside them, by position, deleted documents counted.

    Attributes:
        ids: starts reading the ids of all positions in order; None: the positions are the ids.
        payloads: starts reading the payloads of all positions in order; None: there are none.
        deleted: (n,) true where a document's vectors are still there but it is deleted; None: nowhere.
    """

    ids: Callable[[], Iterator[DocumentId]] | None = None
    payloads: Callable[[], Iterator[Mapping[str, Any]]] | None = None
    deleted: npt.NDArray[np.bool_] | None = None


class ChunkedIndex:
    """An index of any format; see :class:`muvera_adapters.plaid.source.Source`.

    Memory: the centroids, lengths of documents, and 16 MB of decoded tokens, whatever the size of the index.

    Args:
        format: its name.
        dim: width of a token vector.
        chunks: in the order of the index.
        labels: of its documents.
    """

    def __init__(self, format: str, dim: int, chunks: Sequence[Chunk], labels: Labels = Labels()) -> None:
        self.format, self.dim, self.labels = format, dim, labels
        self._chunks = chunks
        #: (n,) tokens per position, as the files say
        self.lengths = np.concatenate([c.lengths for c in chunks]) if chunks else np.zeros(0, np.int64)
        alive = self.lengths > 0
        self._alive = alive if labels.deleted is None else alive & ~labels.deleted

    @property
    def n_tokens(self) -> int:
        """Token vectors of all documents."""
        return int(self.lengths[self._alive].sum())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._alive))

    def with_labels(self, labels: Labels) -> ChunkedIndex:
        """The same index with other labels."""
        return ChunkedIndex(self.format, self.dim, self._chunks, labels)

    def documents(self) -> Iterator[Document]:
        """All documents in order, deleted ones left out."""
        ids: Iterator[DocumentId] = self.labels.ids() if self.labels.ids else itertools.count()
        payloads = self.labels.payloads() if self.labels.payloads else itertools.repeat({})
        matrices = self._matrices()
        # not zip, which would hide ids or payloads that end early because their file was changed meanwhile
        for position, alive in enumerate(self._alive.tolist()):
            tokens, identifier, payload = next(matrices), next(ids), next(payloads)
            if alive:
                yield Document(position, identifier, tokens, payload)

    def _matrices(self) -> Iterator[Float32]:
        for chunk in self._chunks:
            rows = chunk.rows()
            ends = np.cumsum(chunk.lengths)
            i = 0
            while i < len(ends):
                begin = int(ends[i] - chunk.lengths[i])
                j = max(i + 1, int(np.searchsorted(ends, begin + _SLICE_TOKENS, side="right")))
                tokens = rows(begin, int(ends[j - 1]))
                for k in range(i, j):
                    yield tokens[ends[k] - chunk.lengths[k] - begin : ends[k] - begin]
                i = j


def residual_rows(codec: ResidualCodec, codes: Array, residuals: Array, n_tokens: int, lengths: str) -> Rows:
    """Decodes codes (n,) and residuals (n, dim * nbits / 8) after a check of shapes and types.

    Rows of zeros after the last token are padding, as fast-plaid and colbert-ai's ``coalesce.py`` leave.

    Args:
        codec: decodes them.
        codes: integers.
        residuals: bytes.
        n_tokens: sum of the documents' lengths.
        lengths: name of the file that says so.
    """
    if not isinstance(codes.values, np.ndarray) or codes.values.ndim != 1 or codes.values.dtype.kind not in "iu":
        raise IndexDamaged(codes.path, "expected one list of integers")
    width = codec.dim * codec.nbits // 8
    values = residuals.values
    if not isinstance(values, np.ndarray) or values.dtype != np.uint8 or values.shape[1:] != (width,):
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise IndexDamaged(residuals.path, f"expected an (n, {width}) array of bytes, found {found}")
    for path, rows in (codes, residuals):
        if len(rows) != n_tokens and not (len(rows) > n_tokens and _all_zero(rows, n_tokens)):
            raise IndexDamaged(
                path, f"{len(rows)} rows, but {lengths} adds up to {n_tokens} tokens: "
                "an interrupted update, or files of different builds"
            )  # fmt: skip

    def rows_between(begin: int, end: int) -> Float32:
        part = codes.values[begin:end]
        if len(part) and not 0 <= part.min() <= part.max() < codec.n_centroids:
            raise IndexDamaged(
                codes.path, f"a code is outside the {codec.n_centroids} centroids: files of different builds"
            )
        tokens = codec.decode(part, values[begin:end])
        forget(codes.values)
        forget(values)
        return tokens

    return rows_between


def forget(values: npt.NDArray[Any]) -> None:
    """Takes what was read of a mapped file out of this process's memory, which would else grow with the index."""
    owner: Any = values
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    # absent on Windows
    if owner is not None and hasattr(owner, "madvise"):
        owner.madvise(mmap.MADV_DONTNEED)


def make_codec(centroids: Array, weights: Array, *, packed_in_order: bool = False) -> ResidualCodec:
    """Checks centroids (K, dim) and bucket weights (2 ** nbits,), and warns about what no healthy build has."""
    path, values = centroids
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise IndexDamaged(path, "expected one (centroids, dim) array of floats")
    buckets = weights.values
    nbits = {2: 1, 4: 2, 16: 4, 256: 8}.get(buckets.size) if isinstance(buckets, np.ndarray) else None
    if nbits is None or buckets.ndim != 1 or buckets.dtype.kind != "f":
        raise IndexDamaged(weights.path, "expected 2, 4, 16 or 256 bucket weights")
    for file, numbers in (centroids, weights):
        if not np.isfinite(numbers).all():
            raise IndexDamaged(file, "centroids or bucket weights are NaN or infinite")
    if values.shape[1] * nbits % 8:
        raise IndexDamaged(path, f"{nbits} bits times {values.shape[1]} dims are no whole bytes")
    if (np.diff(buckets) < 0).any():
        warnings.warn(f"{weights.path}: the bucket weights do not ascend: trained on too few tokens?", IndexWarning, 3)
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float32))
    if norms.min() < 0.99 or norms.max() > 1.01:
        warnings.warn(
            f"{path}: centroids of length {norms.min():.3g} to {norms.max():.3g}, 1 was expected; decoded tokens are "
            "scaled to unit length, which is wrong for a model that compares by dot product",
            IndexWarning,
            stacklevel=3,
        )
    return ResidualCodec(values, buckets, nbits, packed_in_order=packed_in_order)


def _all_zero(rows: npt.NDArray[Any], begin: int, block: int = 1 << 20) -> bool:
    return not any(rows[i : i + block].any() for i in range(begin, len(rows), block))
