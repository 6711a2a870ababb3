"""Centroids, codes and residuals in files: checks them, and decodes a few documents at a time."""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.chunks import Float32, Rows
from muvera_adapters.plaid.codec import ResidualCodec
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.numpy_file import load_array

# maximum value of a centroid or residual; healthy ones are below 1, and the squares of larger ones overflow
_LARGEST = 1e15


class Array(NamedTuple):
    """Values of a file, (n, ...), and its path, for errors."""

    path: Path
    values: Any


def residual_rows(codec: ResidualCodec, codes: Array, residuals: Array, n_tokens: int, lengths: str) -> Rows:
    """Decodes codes (n,) and residuals (n, dim * nbits / 8) after a check of shapes and types.

    All-zero rows after the last token are padding, which fast-plaid and colbert-ai's ``coalesce.py`` leave.

    Args:
        codec: codec that decodes them.
        codes: (n,) integers.
        residuals: (n, dim * nbits / 8) bytes.
        n_tokens: sum of the documents' lengths.
        lengths: name of the file with these lengths.
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
        warn_of_empty(codec, part, codes.path)
        tokens = codec.decode(part, values[begin:end])
        forget(codes.values)
        forget(values)
        return tokens

    return rows_between


def forget(values: npt.NDArray[Any]) -> None:
    """Releases the pages of a mapped file that were read, so that memory does not grow with the index."""
    owner: Any = values
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    # absent on Windows
    if owner is not None and hasattr(owner, "madvise"):
        owner.madvise(mmap.MADV_DONTNEED)


def mapped(path: Path) -> Array:
    """The numbers of a ``.npy`` file."""
    return Array(path, load_array(path))


def numpy_codec(directory: Path, *, packed_in_order: bool = False) -> ResidualCodec:
    """The codec of a directory with ``centroids.npy`` and ``bucket_weights.npy``."""
    centroids, weights = mapped(directory / "centroids.npy"), mapped(directory / "bucket_weights.npy")
    return make_codec(centroids, weights, packed_in_order=packed_in_order)


def make_codec(centroids: Array, weights: Array, *, packed_in_order: bool = False) -> ResidualCodec:
    """Checks centroids (K, dim) and bucket weights (2 ** nbits,), and warns about values of an unhealthy build."""
    path, values = centroids
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise IndexDamaged(path, "expected one (centroids, dim) array of floats")
    buckets = weights.values
    nbits = {2: 1, 4: 2, 16: 4, 256: 8}.get(buckets.size) if isinstance(buckets, np.ndarray) else None
    if nbits is None or buckets.ndim != 1 or buckets.dtype.kind != "f":
        raise IndexDamaged(weights.path, "expected 2, 4, 16 or 256 bucket weights")
    for file, numbers in (centroids, weights):
        # this comparison also rejects NaN
        with np.errstate(over="ignore"):
            fits = np.abs(np.asarray(numbers, np.float32)) < _LARGEST
        if not fits.all():
            raise IndexDamaged(file, "centroids or bucket weights are NaN or infinite, or larger than 1e15")
    if values.shape[1] * nbits % 8:
        raise IndexDamaged(path, f"{nbits} bits times {values.shape[1]} dims are not whole bytes")
    if (np.diff(buckets) < 0).any():
        warnings.warn(f"{weights.path}: the bucket weights do not ascend: trained on too few tokens?", IndexWarning, 3)
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float32))
    # all-zero centroids are those of empty clusters, which matter only if a code names one
    norms = norms[norms > 0]
    if not len(norms):
        raise IndexDamaged(path, "all centroids are zeros")
    if norms.min() < 0.99 or norms.max() > 1.01:
        warnings.warn(
            f"{path}: centroids of length {norms.min():.3g} to {norms.max():.3g}, 1 was expected; decoded tokens are "
            "scaled to unit length, which is wrong for a model that compares by dot product",
            IndexWarning,
            stacklevel=3,
        )
    return ResidualCodec(values, buckets, nbits, packed_in_order=packed_in_order)


def warn_of_empty(codec: ResidualCodec, codes: npt.NDArray[np.integer], path: Path) -> None:
    """Warns if tokens belong to an all-zero centroid: a healthy build has these only for empty clusters."""
    if codec.uses_empty(codes):
        warnings.warn(
            f"{path}: a code names a centroid that is all zeros; the tokens decoded with it come from their residuals "
            "alone",
            IndexWarning,
            stacklevel=3,
        )


def _all_zero(rows: npt.NDArray[Any], begin: int, block: int = 1 << 20) -> bool:
    return not any(rows[i : i + block].any() for i in range(begin, len(rows), block))
