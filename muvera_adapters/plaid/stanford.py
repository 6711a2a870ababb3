"""Indexes of stanford ColBERT (colbert-ai 0.2.x), and those of RAGatouille and PyLate in the same format."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from muvera_adapters.plaid.chunks import Chunk, ChunkedIndex, Rows
from muvera_adapters.plaid.codec import ResidualCodec
from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.files import read_lengths, read_metadata
from muvera_adapters.plaid.residuals import Array, make_codec, residual_rows
from muvera_adapters.plaid.torch_file import load_tensors


def open_stanford(directory: Path) -> ChunkedIndex:
    """Opens a directory written by colbert-ai 0.2.x, possibly updated since.

    Only the files' own sizes and the lists of document lengths are trusted: the counts in ``metadata.json`` are wrong
    in many healthy indexes. A length of 0 is a deleted document; the others keep their positions, which are the ids in
    colbert-ai's own results.

    Raises:
        IndexDamaged: a file is missing or contradicts another.
    """
    _, count = read_metadata(directory)
    lengths = [read_lengths(directory / f"doclens.{number}.json") for number in range(count)]
    codec = _codec(directory)
    chunks = [Chunk(n, partial(_rows, directory, codec, i, int(n.sum()))) for i, n in enumerate(lengths)]
    for chunk in chunks:
        chunk.rows()
    return ChunkedIndex("stanford", codec.dim, chunks)


def _codec(directory: Path) -> ResidualCodec:
    path = directory / "buckets.pt"
    centroids = Array(directory / "centroids.pt", load_tensors(directory / "centroids.pt"))
    buckets = load_tensors(path)
    if not isinstance(buckets, tuple | list) or len(buckets) != 2:
        raise IndexDamaged(path, "expected cut-offs and bucket weights")
    return make_codec(centroids, Array(path, buckets[1]))


def _rows(directory: Path, codec: ResidualCodec, number: int, n_tokens: int) -> Rows:
    codes, residuals = directory / f"{number}.codes.pt", directory / f"{number}.residuals.pt"
    return residual_rows(
        codec,
        Array(codes, load_tensors(codes)),
        Array(residuals, load_tensors(residuals)),
        n_tokens,
        f"doclens.{number}.json",
    )
