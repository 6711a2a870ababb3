"""The residual codec, against its definition bit by bit."""

import numpy as np
import pytest

from muvera_adapters.plaid.codec import ResidualCodec


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize("packed_in_order", [False, True])
def test_decodes_what_was_encoded(rng, nbits, packed_in_order):
    n, dim, n_centroids = 50, 24, 7
    centroids = rng.normal(size=(n_centroids, dim)).astype("f2")
    weights = np.sort(rng.normal(size=2**nbits)).astype("f4")
    codes = rng.integers(0, n_centroids, n)
    buckets = rng.integers(0, 2**nbits, (n, dim))
    # the bits of an index lowest first, or highest first; the bits of a byte highest first
    shifts = range(nbits)[::-1] if packed_in_order else range(nbits)
    bits = np.array([[[(b >> s) & 1 for s in shifts] for b in row] for row in buckets])
    residuals = np.packbits(bits.reshape(n, -1), axis=1)
    assert residuals.shape == (n, dim * nbits // 8)

    expected = centroids[codes].astype("f8") + weights[buckets]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    codec = ResidualCodec(centroids, weights, nbits, packed_in_order=packed_in_order)
    np.testing.assert_allclose(codec.decode(codes, residuals), expected, rtol=0, atol=1e-6)
    assert codec.decode(codes[:0], residuals[:0]).shape == (0, dim)
