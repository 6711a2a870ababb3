"""Indexes of XTR-WARP: the Python one (jlscheerer/xtr-warp), and xtr-warp-rs 2."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.chunks import Chunk, ChunkedIndex, Float32, Labels, Rows
from muvera_adapters.plaid.codec import ResidualCodec
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.files import Int64, read_metadata, read_object
from muvera_adapters.plaid.residuals import Array, forget, mapped, numpy_codec, residual_rows, warn_of_empty
from muvera_adapters.plaid.stanford import open_stanford
from muvera_adapters.plaid.torch_file import load_tensors
from muvera_adapters.results import DocumentId

# tokens that one pass over the index looks up: 16 MB, and twice that while they are sorted
_WINDOW_TOKENS = 1 << 21
_BLOCK = 1 << 20


def open_xtr_warp(directory: Path) -> ChunkedIndex:
    """Opens a directory that xtr-warp's converter has written to; vectors are scaled to unit length, as PLAID does.

    Its files have the tokens grouped by centroid, from which a document's tokens are gathered. Their order in the text
    is lost. If the stanford index that was converted still exists, it is read instead.

    Raises:
        IndexDamaged: a file is missing or contradicts another.
    """
    if (directory / "metadata.json").exists() and (directory / "0.codes.pt").exists():
        index = open_stanford(directory)
        index.format = "xtr-warp"
        return index
    codec = numpy_codec(directory, packed_in_order=True)
    sizes = _integers(_tensors(directory / "sizes.compacted.pt"))
    path = directory / "codes.compacted.pt"
    # called codes, but these are the passages' numbers; the codes are the groups
    passages = _integers(_tensors(path))
    residuals = _tensors(directory / "residuals.repacked.compacted.pt")
    n = len(passages)
    if len(sizes) != codec.n_centroids or sizes.sum() != n:
        raise IndexDamaged(
            directory / "sizes.compacted.pt", f"expected {codec.n_centroids} sizes that add up to {n} tokens"
        )
    residual_rows(codec, Array(path, passages), residuals, n, path.name)
    lengths = np.zeros(0, np.int64)
    for begin in range(0, n, _BLOCK):
        block = passages[begin : begin + _BLOCK]
        # a passage has at least one token
        if block.max() >= n:
            raise IndexDamaged(path, f"a passage number is {block.max()}, too large for {n} tokens")
        counts = np.bincount(block, minlength=len(lengths))
        counts[: len(lengths)] += lengths
        lengths = counts
        forget(passages)
    ends = np.cumsum(sizes)
    chunks, first = [], 0
    for last in _windows(lengths):
        rows = partial(_gathered_rows, codec, path, passages, ends, residuals.values, first, last)
        chunks.append(Chunk(lengths[first:last], rows))
        first = last
    return ChunkedIndex("xtr-warp", codec.dim, chunks)


def _windows(lengths: Int64) -> list[int]:
    """Ends of consecutive spans of passages with about _WINDOW_TOKENS tokens each."""
    window = np.cumsum(lengths) // _WINDOW_TOKENS
    return [*(np.flatnonzero(np.diff(window)) + 1).tolist(), len(lengths)] if len(lengths) else []


def _gathered_rows(
    codec: ResidualCodec, path: Path, passages: npt.NDArray[np.integer], ends: Int64,
    residuals: npt.NDArray[np.uint8], first: int, last: int,
) -> Rows:  # fmt: skip
    found, numbers = [], []
    for begin in range(0, len(passages), _BLOCK):
        block = passages[begin : begin + _BLOCK]
        inside = np.flatnonzero((block >= first) & (block < last))
        found.append(inside + begin)
        numbers.append(block[inside])
        forget(passages)
    places = np.concatenate(found)[np.argsort(np.concatenate(numbers), kind="stable")]

    def rows(begin: int, end: int) -> Float32:
        part = places[begin:end]
        codes = np.searchsorted(ends, part, side="right")
        warn_of_empty(codec, codes, path)
        tokens = codec.decode(codes, residuals[part])
        forget(residuals)
        return tokens

    return rows


def open_xtr_warp_rs(directory: Path) -> ChunkedIndex:
    """Opens a directory written by xtr-warp-rs 2; vectors are scaled to unit length, which its own search does not do.

    Ids are its passage ids, which stay the same when others are deleted; deleted passages are left out. Its
    metadata.duckdb is not read.

    Raises:
        IndexDamaged: a file is missing or contradicts another, or the build was not finished.
    """
    state = directory / "build_state.json"
    if state.exists() and read_object(state).get("stage") != "complete":
        raise IndexDamaged(state, "the build was not finished (its stage is not 'complete')")
    _, count = read_metadata(directory)
    codec = numpy_codec(directory)
    chunks, passage_ids = [], []
    for number in range(count):
        lengths = _integers(mapped(directory / f"doclens.{number}.npy"))
        path = directory / f"{number}.passage_ids.npy"
        ids = _integers(mapped(path))
        if len(ids) != len(lengths):
            raise IndexDamaged(path, f"{len(ids)} ids, but doclens.{number}.npy has {len(lengths)} passages")
        read = partial(_chunk_rows, directory, codec, number, int(lengths.sum()))
        read()
        chunks.append(Chunk(np.array(lengths, np.int64), read))
        passage_ids.append(ids)
    numbers = np.concatenate(passage_ids)
    if len(np.unique(numbers)) != len(numbers):
        raise IndexDamaged(directory / "0.passage_ids.npy", "a passage id is there twice")
    tombstones = directory / "deleted_pids.npy"
    deleted = np.isin(numbers, _integers(mapped(tombstones))) if tombstones.exists() else None
    if (directory / "metadata.duckdb").exists():
        warnings.warn(
            f"{directory / 'metadata.duckdb'}: not read, payloads are empty; texts= can give them",
            IndexWarning,
            stacklevel=3,
        )

    def ids_in_order() -> Iterator[DocumentId]:
        return (int(number) for number in numbers)

    return ChunkedIndex("xtr-warp-rs", codec.dim, chunks, Labels(ids_in_order, deleted=deleted))


def _chunk_rows(directory: Path, codec: ResidualCodec, number: int, n_tokens: int) -> Rows:
    codes, residuals = mapped(directory / f"{number}.codes.npy"), mapped(directory / f"{number}.residuals.npy")
    return residual_rows(codec, codes, residuals, n_tokens, f"doclens.{number}.npy")


def _tensors(path: Path) -> Array:
    return Array(path, load_tensors(path))


def _integers(array: Array) -> npt.NDArray[np.integer]:
    """One list of numbers from 0 up to 2 ** 40."""
    path, values = array
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
        raise IndexDamaged(path, "expected one list of integers")
    for begin in range(0, len(values), _BLOCK):
        block = values[begin : begin + _BLOCK]
        if block.min() < 0 or block.max() >= 2**40:
            raise IndexDamaged(path, "a number is negative or too large")
        forget(values)
    return values
