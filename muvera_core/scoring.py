"""Exact MaxSim (Chamfer) scores: what an FDE approximates and what reranking computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core._layout import panels
from muvera_core._parallel import default_threads, for_chunks
from muvera_core.tokens import ArrayLike, TokenBatch, bad_token, to_batch, to_matrices, to_matrix


def maxsim(
    query_tokens: ArrayLike, docs: Any, mask: ArrayLike | None = None, *, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Sum over the query's tokens of the largest dot product with the document's tokens, for every document.

    Documents may be stored as float16 (half the memory and memory traffic); products and sums are float32.

    Args:
        query_tokens: (m, dim).
        docs: a :class:`TokenBatch`, an iterable of (n_i, dim) matrices, or an (n, t, dim) array with ``mask``.
        mask: (n, t), 1 or True for real tokens.
        threads: at most so many; None: one per core this process may use.

    Returns:
        (n,) float32.

    Raises:
        InvalidTokens: as for :meth:`FDEEncoder.encode_documents`.
    """
    from muvera_core import _kernels

    query = to_matrix(query_tokens, dim=None, what="query").astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(query).all(axis=1) | ~query.any(axis=1))
    if len(bad):
        raise bad_token(not np.isfinite(query[bad[0]]).all(), int(bad[0]), np.array([0, len(query)]), 0, "query")
    matrices = to_matrices(docs, mask, dim=query.shape[1])
    batch = matrices if isinstance(matrices, TokenBatch) else None
    lengths = batch.lengths if batch is not None else np.array([len(m) for m in matrices], np.int64)
    query_panels = panels(query.T[None])[0]
    out = np.empty(len(lengths), np.float32)

    def work(i: int, j: int) -> None:
        chunk = batch if batch is not None else to_batch(matrices[i:j])
        offsets = chunk.offsets[i : j + 1] if batch is not None else chunk.offsets
        values = chunk.values.view(np.uint16) if chunk.values.dtype == np.float16 else chunk.values
        state, row = _kernels.maxsim(values, offsets, query_panels, len(query), out[i:j])
        if state != _kernels.OK:
            raise bad_token(state == _kernels.NOT_FINITE, row, offsets, i, "document")

    for_chunks(lengths, threads or default_threads(), work)
    return out
