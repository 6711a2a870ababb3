"""Token pooling: fewer token vectors per document, before documents are encoded or stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core._parallel import default_threads, for_chunks
from muvera_core._plain import has_numba
from muvera_core.tokens import ArrayLike, Located, TokenBatch, to_batch

_CHUNK_TOKENS = 2048


def pool_tokens(docs: Any, factor: int, mask: ArrayLike | None = None, *, threads: int | None = None) -> TokenBatch:
    """Merges similar tokens of each document, so that one token in ``factor`` remains.

    Pool documents, never queries. docs/encoders.md has measurements.

    The method is "Token Pooling" (Clavie, Chaffin and Adams, arXiv 2409.14683): Ward's hierarchical clustering of the
    tokens' unit vectors, cut at ``ceil(n / factor)`` clusters. A cluster becomes the mean of its unit vectors, scaled
    to unit length. Clusters are in the order of their first tokens. Of equally near pairs, the one with the earliest
    tokens is merged, so equal documents give equal results. Time and memory grow with the square of the number of
    tokens of a document.

    Args:
        docs: a :class:`TokenBatch`, an iterable of (n_i, dim) matrices, or an (n, t, dim) array with ``mask``.
        factor: number of tokens that become one on average, usually 2 to 9; 1 keeps every token, scaled to unit length.
        mask: (n, t) mask of a padded array, 1 or True for real tokens.
        threads: maximum number of threads; None: one for each core that this process may use.

    Returns:
        Batch of float32 tokens of unit length, ``ceil(n_i / factor)`` for document i.

    Raises:
        InvalidTokens: a document cannot be pooled, for the reasons of :meth:`FDEEncoder.encode_documents`.
        ValueError: ``factor`` is less than 1.
        TypeError: ``factor`` is not an integer.
        ModuleNotFoundError: numba is not installed.
    """
    if isinstance(factor, bool) or not hasattr(factor, "__index__"):
        raise TypeError(f"factor must be an integer, got {factor!r}")
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    if not has_numba():
        raise ModuleNotFoundError(
            "numba is not installed, and pooling tokens needs it; install it with: pip install numba", name="numba"
        )
    batch = to_batch(docs, mask)
    values = _unit(batch)
    lengths = -(-batch.lengths // factor)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    out = np.empty((offsets[-1], batch.dim), np.float32)

    def work(i: int, j: int) -> None:
        from muvera_core._pooling_kernels import ward

        for k in range(i, j):
            tokens = values[batch.offsets[k] : batch.offsets[k + 1]]
            ward(tokens, tokens @ tokens.T, out[offsets[k] : offsets[k + 1]])

    for_chunks(batch.lengths, _CHUNK_TOKENS, threads or default_threads(), work)
    return TokenBatch(out, offsets)


def _unit(batch: TokenBatch) -> npt.NDArray[np.float32]:
    values = batch.values.astype(np.float32)
    top = np.abs(values).max(axis=1, initial=0)[:, None]
    bad = np.flatnonzero(~(np.isfinite(top[:, 0]) & (top[:, 0] > 0)))
    if len(bad):
        document = int(np.searchsorted(batch.offsets, bad[0], side="right")) - 1
        finite = bool(np.isfinite(values[bad[0]]).all())
        raise Located(batch, "document").bad_token(not finite, document, int(bad[0] - batch.offsets[document]))
    values /= top  # so that no square overflows
    values /= np.sqrt(np.einsum("ij,ij->i", values, values))[:, None]
    return values
