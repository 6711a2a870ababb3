"""Exact MaxSim (Chamfer) scores, which FDEs approximate and reranking computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core._layout import panels
from muvera_core._parallel import default_threads, for_chunks
from muvera_core._plain import has_numba
from muvera_core._plain import maxsim as plain_maxsim
from muvera_core.tokens import ArrayLike, Located, to_matrices, to_matrix

# tokens of one kernel call: enough work that the 0.1 ms to hand it to a thread does not matter
_CHUNK_TOKENS = 8192


def maxsim(
    query_tokens: ArrayLike, docs: Any, mask: ArrayLike | None = None, *, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Computes the MaxSim score of every document.

    For each query token, MaxSim takes the largest dot product with the document's tokens; the score is the sum of
    these. Documents can be float16, which halves memory and memory traffic; products and sums are float32.

    Args:
        query_tokens: (m, dim) token vectors of the query.
        docs: a :class:`TokenBatch`, an iterable of (n_i, dim) matrices, or an (n, t, dim) array with ``mask``.
        mask: (n, t) mask of a padded array, 1 or True for real tokens.
        threads: maximum number of threads; None: one for each core that this process may use.

    Returns:
        (n,) float32 scores, in the order of the documents.

    Raises:
        InvalidTokens: the query or a document cannot be scored, for the reasons of
            :meth:`FDEEncoder.encode_documents`.
    """
    query = to_matrix(query_tokens, dim=None, what="query").astype(np.float32)
    located_query = Located([query], "query")
    for token, x in enumerate(query):
        if not np.isfinite(x).all() or not x.any():
            raise located_query.bad_token(bool(x.any()), 0, token)
    located = Located(to_matrices(docs, mask, dim=query.shape[1]), "document")
    if not has_numba():
        return plain_maxsim(query, located)
    from muvera_core import _kernels

    query_panels = panels(query.T[None])[0]
    out = np.empty(len(located.addresses), np.float32)

    def work(i: int, j: int) -> None:
        state, position, token = _kernels.maxsim(
            located.addresses[i:j],
            located.offsets[i : j + 1],
            located.half,
            query_panels,
            query.shape[1],
            len(query),
            out[i:j],
        )
        if state != _kernels.OK:
            raise located.bad_token(state == _kernels.NOT_FINITE, i + position, token)

    for_chunks(located.lengths, _CHUNK_TOKENS, threads or default_threads(), work)
    return out
