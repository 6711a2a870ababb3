"""Runs the regression encoder's products over documents and queries: the kernels, on threads, or numpy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from muvera_core import _plain
from muvera_core._layout import LANES, Float32, aligned_rows, panels
from muvera_core._parallel import for_chunks
from muvera_core._plain import has_numba
from muvera_core.tokens import Located, TokenBatch, Tokens

#: a product of tokens with a matrix: the largest of a document, or the sum of a query's positive ones
Product: TypeAlias = Literal["maxima", "features"]

# tokens of one call: many documents share one pass over the (sample, dim) matrix; their maxima take some MB per thread
_CHUNK_TOKENS = 8192
_ROW = 128  # a kernel's row


class Matrix:
    """A (rows, columns) matrix as the right side of a product.

    Args:
        matrix: (rows, columns).
        shift: (columns,), what is subtracted from the product; None: zeros.
    """

    def __init__(self, matrix: npt.NDArray[Any], shift: Float32 | None = None) -> None:
        self._matrix = matrix
        self.rows, self.columns = matrix.shape
        self.shift = np.zeros(self.columns, np.float32) if shift is None else shift

    @cached_property
    def dense(self) -> Float32:
        """(rows, columns), for numpy."""
        return self._matrix.astype(np.float32)

    @cached_property
    def panels(self) -> Float32:
        """(p, rows, LANES), for the kernels."""
        return panels(self._matrix.astype(np.float32)[None])[0]

    @cached_property
    def shift_panels(self) -> Float32:
        """(p, LANES), for the kernels."""
        padded = np.zeros(len(self.panels) * LANES, np.float32)
        padded[: self.columns] = self.shift
        return padded.reshape(-1, LANES)


def first_product(kernel: Any, matrix: Matrix, located: Located, i: int, j: int) -> Float32:
    """Result of ``kernel`` for documents or queries i to j and a matrix of token width: planes, padded with zeros.

    Raises:
        InvalidTokens: a token is NaN, infinite or all zeros.
    """
    rows = 1 if j - i == 1 else -(-(j - i) // LANES) * LANES  # padding would cost a single query the work of 16
    out = aligned_rows(-(-len(matrix.panels) * LANES // _ROW) * rows, _ROW).reshape(-1, rows, _ROW)
    out[...] = 0
    state, position, token = kernel(
        located.addresses[i:j],
        located.offsets[i : j + 1],
        located.half,
        matrix.rows,
        matrix.panels,
        matrix.shift_panels,
        out,
    )
    from muvera_core import _kernels

    if state != _kernels.OK:
        raise located.bad_token(state == _kernels.NOT_FINITE, i + position, token)
    return out


def encode(what: Product, first: Matrix, second: Matrix, located: Located, threads: int) -> Float32:
    """(n, second.columns): the first product of each document or query, multiplied by the second matrix."""
    if not has_numba():
        plain = _plain.maxima if what == "maxima" else _plain.features
        return plain(located, first.dense, first.shift) @ second.dense
    from muvera_core import _regression_kernels

    kernel = getattr(_regression_kernels, what)
    result = np.empty((len(located.addresses), second.columns), np.float32)
    matrix = second.panels

    def work(i: int, j: int) -> None:
        rows = first_product(kernel, first, located, i, j)
        out = aligned_rows(rows.shape[1], len(matrix) * LANES)
        _regression_kernels.products(rows, second.rows, matrix, out)
        result[i:j] = out[: j - i, : second.columns]

    for_chunks(located.lengths, _CHUNK_TOKENS, threads, work)
    return result


def maxima(matrices: TokenBatch | Sequence[Tokens], sample: npt.NDArray[Any], threads: int) -> Float32:
    """(s, n) largest dot product of each of s sample tokens with each of n documents."""
    located, matrix = Located(matrices, "document"), Matrix(sample.T)
    if not has_numba():
        return _plain.maxima(located, matrix.dense, matrix.shift).T
    from muvera_core import _regression_kernels

    result = np.empty((len(sample), len(located.addresses)), np.float32)

    def work(i: int, j: int) -> None:
        rows = first_product(_regression_kernels.maxima, matrix, located, i, j)
        result[:, i:j] = rows.transpose(0, 2, 1).reshape(-1, rows.shape[1])[: len(sample), : j - i]

    for_chunks(located.lengths, _CHUNK_TOKENS, threads, work)
    return result
