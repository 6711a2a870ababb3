"""The residual codec that the whole PLAID family shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


class ResidualCodec:
    """Decodes tokens: a centroid, plus a quantized residual per dimension, scaled to unit length.

    Each residual is an index of ``nbits`` bits into ``bucket_weights``. Its bits are stored lowest first; the bit
    stream is packed highest bit first (colbert-ai 0.2, ``indexing/codecs/residual.py``).

    Args:
        centroids: (K, dim) floats.
        bucket_weights: (2**nbits,) floats.
        nbits: 1, 2, 4 or 8.
        packed_in_order: whether each index has its bits highest first instead, as XTR-WARP repacks them.
    """

    def __init__(
        self,
        centroids: npt.NDArray[np.floating],
        bucket_weights: npt.NDArray[np.floating],
        nbits: int,
        *,
        packed_in_order: bool = False,
    ) -> None:
        self.nbits = nbits
        self._centroids = np.ascontiguousarray(centroids, np.float32)
        empty = ~self._centroids.any(axis=1)
        self._empty = empty if empty.any() else None
        values = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).reshape(256, 8 // nbits, nbits)
        shifts = np.arange(nbits, dtype=np.uint8)
        buckets = (values << (shifts[::-1] if packed_in_order else shifts)).sum(axis=2, dtype=np.uint8)
        # (256, 8 // nbits): the residuals that one byte holds
        self._residuals = bucket_weights.astype(np.float32)[buckets]

    @property
    def dim(self) -> int:
        """Width of a token vector."""
        return int(self._centroids.shape[1])

    @property
    def n_centroids(self) -> int:
        """Number of centroids, and so of valid codes."""
        return len(self._centroids)

    def uses_empty(self, codes: npt.NDArray[np.integer]) -> bool:
        """Whether one of the codes names a centroid of zeros, as the k-means of small collections leaves for clusters
        without tokens.
        """
        return self._empty is not None and bool(np.take(self._empty, codes).any())

    def decode(self, codes: npt.NDArray[np.integer], residuals: npt.NDArray[np.uint8]) -> Float32:
        """Decodes (n,) codes and (n, dim * nbits / 8) bytes to (n, dim) float32 of unit length."""
        tokens = self._centroids[codes]
        tokens += self._residuals[residuals].reshape(tokens.shape)
        norms = np.sqrt(np.einsum("ij,ij->i", tokens, tokens))
        tokens /= np.maximum(norms, 1e-12)[:, None]
        return tokens
