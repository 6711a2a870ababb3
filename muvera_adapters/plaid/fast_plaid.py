"""Indexes of fast-plaid, 1.4 to 1.7, and of next-plaid, whose format is nearly the same.

There are chunk files and files of merged chunks. Up to 1.6, merged files are a second copy. From 1.7 on they are the
only copy, and a chunk file exists only until it is merged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from muvera_adapters.plaid.chunks import Chunk, ChunkedIndex, Float32, Labels, Rows
from muvera_adapters.plaid.codec import ResidualCodec
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.files import Int64, read_json, read_lengths, read_metadata
from muvera_adapters.plaid.metadata_db import open_metadata
from muvera_adapters.plaid.numpy_file import load_array, load_object_array
from muvera_adapters.plaid.residuals import Array, mapped, numpy_codec, residual_rows

# maximum size of embeddings.npy and buffer.npy, which are read into memory; fast-plaid keeps 1,000 documents there
_MAX_ORIGINALS_BYTES = 1 << 30
# mean cosine of a document's original and decoded tokens; measured: the same document at 1 bit 0.81 and more,
# others 0.40 and less. Lengths do not tell: a deletion in fast-plaid 1.7 can remove another document from the buffer
_MIN_COSINE = 0.6


def open_fast_plaid(directory: Path, *, originals: bool = True) -> ChunkedIndex:
    """Opens a directory written by fast-plaid.

    Ids are positions: fast-plaid renumbers the remaining documents after a deletion. Columns of ``metadata.db`` are the
    payload.

    Args:
        directory: directory of the index.
        originals: whether to use the original vectors, scaled to unit length, of the documents in
            ``embeddings.npy`` or ``buffer.npy``; False: decode all.

    Raises:
        IndexDamaged: a file is missing or contradicts another.
    """
    index = _open(directory, "fast-plaid", load_object_array if originals else None)
    return index.with_labels(Labels(payloads=open_metadata(directory / "metadata.db", len(index.lengths))))


def open_next_plaid(directory: Path, *, originals: bool = True) -> ChunkedIndex:
    """Opens a directory written by next-plaid (colgrep); its binary indexes are not supported.

    Arguments, errors and results as for :func:`open_fast_plaid`.
    """
    index = _open(directory, "next-plaid", _flat_originals if originals else None)
    return index.with_labels(Labels(payloads=open_metadata(directory / "metadata.db", len(index.lengths))))


# reads the documents' matrices of a file; None: the file contradicts itself
_ReadOriginals = Callable[[Path], list[Any] | None]


def _open(directory: Path, format: str, read_originals: _ReadOriginals | None) -> ChunkedIndex:
    _, count = read_metadata(directory)
    lengths = [read_lengths(directory / f"doclens.{number}.json") for number in range(count)]
    codec = numpy_codec(directory)
    merged_rows = {kind: _merged_rows(directory, kind, lengths) for kind in ("codes", "residuals")}
    chunks = []
    for number, chunk_lengths in enumerate(lengths):
        # only the last chunk can have padding after it
        spans = {
            kind: slice(rows[:number].sum(), None if number == count - 1 else rows[: number + 1].sum())
            for kind, rows in merged_rows.items()
        }
        read = partial(_rows, directory, codec, number, int(chunk_lengths.sum()), spans)
        read()
        chunks.append(Chunk(chunk_lengths, read))
    if read_originals is not None:
        chunks = _with_originals(directory, codec.dim, chunks, read_originals)
    return ChunkedIndex(format, codec.dim, chunks)


def _merged_rows(directory: Path, kind: str, lengths: list[Int64]) -> Int64:
    """Number of rows of each chunk in the merged file: from its manifest, otherwise its number of tokens."""
    rows = np.array([n.sum() for n in lengths], np.int64)
    path = directory / f"merged_{kind}.manifest.json"
    if not path.exists():
        return rows
    manifest = read_json(path)
    # newer next-plaid has the chunks one level down
    chunks = manifest.get("chunks", manifest) if isinstance(manifest, dict) else None
    if not isinstance(chunks, dict):
        raise IndexDamaged(path, "expected an object with the chunks' names")
    for number in range(len(rows)):
        entry = chunks.get(f"{number}.{kind}.npy")
        if entry is not None:
            found = entry.get("rows") if isinstance(entry, dict) else None
            if not isinstance(found, int) or not 0 <= found < 2**40:
                raise IndexDamaged(path, f"the number of rows of {number}.{kind}.npy is missing or not valid")
            rows[number] = found
    return rows


def _rows(directory: Path, codec: ResidualCodec, number: int, n_tokens: int, spans: Mapping[str, slice]) -> Rows:
    def find(kind: str) -> Array:
        path = directory / f"{number}.{kind}.npy"
        merged = directory / f"merged_{kind}.npy"
        # a chunk file is newer than the merged one, or the same
        if path.exists():
            return mapped(path)
        if not merged.exists():
            raise IndexDamaged(path, f"the file is missing, and so is {merged.name}")
        values = load_array(merged)
        return Array(merged, values[spans[kind]] if values.ndim else values)

    return residual_rows(codec, find("codes"), find("residuals"), n_tokens, f"doclens.{number}.json")


def _with_originals(directory: Path, dim: int, chunks: list[Chunk], read: _ReadOriginals) -> list[Chunk]:
    """Replaces decoded vectors by the original ones, if these agree with the documents' lengths."""
    lengths = np.concatenate([c.lengths for c in chunks])
    found: dict[int, Array] = {}
    # the buffer has the last documents
    for name in ("buffer.npy", "embeddings.npy"):
        path = directory / name
        if not path.exists():
            continue
        # 64 bits per number, and the overhead of a pickle per document
        limit = min(_MAX_ORIGINALS_BYTES, int(lengths.sum()) * dim * 8 + 4096 * (len(lengths) + 1))
        size = path.stat().st_size
        matrices = read(path) if size <= limit else None
        n = 0 if matrices is None else len(matrices)
        first = len(lengths) - n
        if matrices is None or first < 0 or (name == "embeddings.npy" and first > 0) or not all(
            m.shape == (length, dim) for m, length in zip(matrices, lengths[first:], strict=True)
        ):  # fmt: skip
            warnings.warn(
                f"{path}: not used, the documents in it are not those of the index; decoding them", IndexWarning, 4
            )
            continue
        with np.errstate(over="ignore"):
            matrices = [m.astype(np.float32) for m in matrices]
        if not all(np.isfinite(m).all() for m in matrices):
            raise IndexDamaged(path, "a vector is NaN or infinite")
        found = {k: Array(path, m) for k, m in enumerate(matrices, first)} | found
    if not found:
        return chunks
    result, position = [], 0
    for chunk in chunks:
        result.append(Chunk(chunk.lengths, partial(_mixed_rows, chunk, position, found)))
        position += len(chunk.lengths)
    return result


def _mixed_rows(chunk: Chunk, position: int, originals: Mapping[int, Array]) -> Rows:
    decoded = chunk.rows()
    ends = np.cumsum(chunk.lengths)

    def rows(begin: int, end: int) -> Float32:
        tokens = decoded(begin, end)
        # slices are of whole documents
        for k in range(int(np.searchsorted(ends, begin, side="right")), int(np.searchsorted(ends, end)) + 1):
            if position + k not in originals or not chunk.lengths[k]:
                continue
            path, given = originals[position + k]
            with np.errstate(over="ignore"):
                given = given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-12)
            same = tokens[ends[k] - chunk.lengths[k] - begin : ends[k] - begin]
            if np.einsum("ij,ij->i", given, same).mean() < _MIN_COSINE:
                warnings.warn(f"{path}: some vectors are not those of the index; decoding them", IndexWarning, 2)
            else:
                same[:] = given
        return tokens

    return rows


def _flat_originals(path: Path) -> list[Any] | None:
    """Original vectors of next-plaid: one (n, dim) array, and a file with the documents' lengths."""
    values = load_array(path)
    lengths = read_lengths(path.with_name(path.stem + "_lengths.json"))
    if values.ndim != 2 or values.dtype.kind != "f":
        raise IndexDamaged(path, "expected an (n, dim) array of floats")
    if lengths.sum() != len(values):
        return None
    return np.split(values, np.cumsum(lengths)[:-1])
