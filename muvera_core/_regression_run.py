"""Runs the regression encoder's kernels over documents and queries, on threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core._layout import LANES, Float32, aligned_rows, panels
from muvera_core._parallel import for_chunks
from muvera_core.tokens import Located, TokenBatch, Tokens

# tokens of one call: many documents share one pass over the (sample, dim) matrix; their maxima take some MB per thread
_CHUNK_TOKENS = 8192
_ROW = 128  # a kernel's row


class Matrix:
    """A (rows, columns) matrix as the right side of a product."""

    def __init__(self, matrix: npt.NDArray[Any]) -> None:
        self.rows, self.columns = matrix.shape
        self.panels = panels(matrix.astype(np.float32)[None])[0]  # (p, rows, LANES)

    def vector(self, values: npt.NDArray[Any]) -> Float32:
        """(columns,) values in the panels' layout, (p, LANES)."""
        padded = np.zeros(len(self.panels) * LANES, np.float32)
        padded[: self.columns] = values
        return padded.reshape(-1, LANES)


def first_product(kernel: Any, matrix: Matrix, shift: Float32, located: Located, i: int, j: int) -> Float32:
    """Result of ``kernel`` for documents or queries i to j and a matrix of token width: planes, padded with zeros.

    Raises:
        InvalidTokens: a token is NaN, infinite or all zeros.
    """
    rows = 1 if j - i == 1 else -(-(j - i) // LANES) * LANES  # padding would cost a single query the work of 16
    out = aligned_rows(-(-len(matrix.panels) * LANES // _ROW) * rows, _ROW).reshape(-1, rows, _ROW)
    out[...] = 0
    state, position, token = kernel(
        located.addresses[i:j], located.offsets[i : j + 1], located.half, matrix.rows, matrix.panels, shift, out
    )
    from muvera_core import _kernels

    if state != _kernels.OK:
        raise located.bad_token(state == _kernels.NOT_FINITE, i + position, token)
    return out


def encode(kernel: Any, first: Matrix, shift: Float32, second: Matrix, located: Located, threads: int) -> Float32:
    """(n, second.columns) vectors: the first product, then the second."""
    from muvera_core import _regression_kernels

    result = np.empty((len(located.addresses), second.columns), np.float32)

    def work(i: int, j: int) -> None:
        rows = first_product(kernel, first, shift, located, i, j)
        out = aligned_rows(rows.shape[1], len(second.panels) * LANES)
        _regression_kernels.products(rows, second.rows, second.panels, out)
        result[i:j] = out[: j - i, : second.columns]

    for_chunks(located.lengths, _CHUNK_TOKENS, threads, work)
    return result


def maxima(matrices: TokenBatch | Sequence[Tokens], sample: npt.NDArray[Any], threads: int) -> Float32:
    """(s, n) largest dot product of each of s sample tokens with each of n documents."""
    from muvera_core import _regression_kernels

    located, matrix = Located(matrices, "document"), Matrix(sample.T)
    result = np.empty((len(sample), len(located.addresses)), np.float32)
    shift = matrix.vector(np.zeros(len(sample), np.float32))

    def work(i: int, j: int) -> None:
        rows = first_product(_regression_kernels.maxima, matrix, shift, located, i, j)
        result[:, i:j] = rows.transpose(0, 2, 1).reshape(-1, rows.shape[1])[: len(sample), : j - i]

    for_chunks(located.lengths, _CHUNK_TOKENS, threads, work)
    return result
