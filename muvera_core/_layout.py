"""Memory layouts for the kernels: arrays aligned to cache lines, and matrices cut into panels (see _simd.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

LANES = 16  # number of float32 lanes of a kernel's vector


def panels(matrices: npt.NDArray[Any]) -> Float32:
    """Converts (r, d, n) matrices to (r, ceil(n / LANES), d, LANES) float32 panels, padded with zeros."""
    r, d, n = matrices.shape
    padded = np.pad(matrices, ((0, 0), (0, 0), (0, -n % LANES)))
    return aligned(padded.reshape(r, d, -1, LANES).transpose(0, 2, 1, 3))


def paired_panels(matrices: npt.NDArray[Any]) -> Float32:
    """Converts (r, d, n) matrices with at most LANES / 2 columns to (r, 1, ceil(d / 2), LANES) zero-padded panels.

    A vector holds two successive rows, interleaved: lane 2 * j + i is column j of row i of the pair.
    """
    r, d, n = matrices.shape
    padded = np.pad(matrices, ((0, 0), (0, d % 2), (0, LANES // 2 - n)))
    return aligned(padded.reshape(r, 1, -1, 2, LANES // 2).swapaxes(3, 4).reshape(r, 1, -1, LANES))


def aligned(array: npt.NDArray[Any]) -> Float32:
    """A float32 copy of an array that starts at a cache line."""
    copy = aligned_rows(array.size, 1).reshape(array.shape)
    copy[...] = array
    return copy


def aligned_rows(n: int, width: int) -> Float32:
    """(n, width) uninitialised float32 that starts at a cache line, for vector stores that bypass the cache."""
    memory = np.empty(n * width + LANES, np.float32)
    skip = -memory.ctypes.data % (4 * LANES) // 4
    return memory[skip : skip + n * width].reshape(n, width)
