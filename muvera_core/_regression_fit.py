"""The closed form behind the regression encoder: see docs/design.md for the derivation and the measurements."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core._draws import Stream, orthonormal
from muvera_core._regression_run import maxima
from muvera_core.tokens import TokenBatch

Float64 = npt.NDArray[np.float64]
Half = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]

SAMPLE, WEIGHTS, REFERENCES, SUBSPACE, ROTATION = 10, 11, 12, 13, 14  # roles of random streams, beside an FDE's

# room for documents further from the average than any reference document; through an index, it was harmless
HEADROOM = 1.25
_ITERATIONS = 4
_LONGEST = 1_000  # typical length of token vectors, and the shortest is one over it


class Fitted(NamedTuple):
    """What an encoder keeps, as it is saved.

    Attributes:
        sample: (s, d) sample tokens, divided by a power of two near their mean squared length.
        centres: (s,) mean over the reference documents of their largest dot product with each of ``sample``.
        weights: (d, f) of the features relu(x @ weights - thresholds).
        thresholds: (f,).
        documents: (s, dim) from centred maxima to a document's vector, shorter than 1.
        queries: (f, dim) from a query's features to its vector, of any length.
        lift: (dim,) unit vector that is orthogonal to every query's.
    """

    sample: Half
    centres: Float32
    weights: Half
    thresholds: Float32
    documents: Half
    queries: Half
    lift: Float32


def fit(
    batch: TokenBatch,
    dim: int,
    *,
    seed: int,
    sample_tokens: int,
    features: int,
    ridge: float,
    references: int,
    threads: int,
) -> Fitted:
    """Fits to documents whose tokens have been checked.

    Raises:
        ValueError: they are all alike, or their token vectors are very long or short.
    """
    picked = Stream(seed, 0, SAMPLE).choice(len(batch.values), sample_tokens)
    drawn = batch.values[picked].astype(np.float32)
    scale = _scale(drawn)
    sample = (drawn / scale).astype(np.float16)
    mean = batch.values.mean(axis=0, dtype=np.float64)
    weights = Stream(seed, 0, WEIGHTS).normals(batch.dim, features).astype(np.float16)
    thresholds = (mean @ weights).astype(np.float32)
    chosen = Stream(seed, 0, REFERENCES).choice(len(batch), references)
    targets = maxima([batch[i] for i in chosen], sample, threads)  # (s, n)
    if not np.ptp(targets, axis=1).any():
        raise ValueError("the sample's documents are all alike: there is nothing to tell apart")
    centres = targets.mean(axis=1, dtype=np.float64).astype(np.float32)

    phi = np.maximum(scale * sample.astype(np.float32) @ weights.astype(np.float32) - thresholds, 0)
    gram = (phi.T @ phi).astype(np.float64)  # float32 is exact enough beside the ridge, the factorisation's is not
    gram[np.diag_indices(features)] += ridge * np.trace(gram) / features
    whiten = _inverse(np.linalg.cholesky(gram)).astype(np.float32)  # (f, f)
    vectors = whiten @ (phi.T @ (targets - centres[:, None]))  # (f, n): the references, whitened
    to_queries = whiten.T @ _leading(vectors, Stream(seed, 0, SUBSPACE).normals(features, dim - 1))  # (f, dim - 1)
    to_documents = phi @ to_queries  # (s, dim - 1)

    rotation = orthonormal(Stream(seed, 0, ROTATION).normals(dim, dim))
    longest = float(np.sqrt((((targets - centres[:, None]).T @ to_documents) ** 2).sum(axis=1).max()))
    longest *= HEADROOM
    largest = float(np.abs(to_queries).max())
    return Fitted(
        sample,
        centres,
        weights,
        thresholds,
        (to_documents / longest @ rotation[:-1]).astype(np.float16),
        (to_queries / largest @ rotation[:-1]).astype(np.float16),
        rotation[-1].astype(np.float32),
    )


def _scale(tokens: Float32) -> np.float32:
    """Mean squared length of tokens as a power of two: 1 for unit vectors.

    The sample is divided by it, so that its dot products with tokens are about 1 and float16 holds what is fitted.

    Raises:
        ValueError: so long or short tokens that float16 holds their sample badly.
    """
    length = float(np.sqrt(np.einsum("ij,ij->", tokens, tokens, dtype=np.float64) / len(tokens)))
    if not 1 / _LONGEST <= length <= _LONGEST:
        raise ValueError(
            f"the sample's token vectors have a length of about {length:.2g}; it must be {1 / _LONGEST:g} to "
            f"{_LONGEST:,}: scale the token vectors of all documents and queries, to unit length, say"
        )
    return np.float32(2.0 ** np.round(2 * np.log2(length)))


def _leading(vectors: Float32, start: Float64) -> npt.NDArray[Any]:
    """(f, k) orthonormal columns that span about what the k leading left singular vectors of (f, n) do.

    Subspace iteration; only the span matters. Where k exceeds the rank, the rest is from ``start``, which is random.
    """
    tiny = 1e-6 * float((vectors**2).sum())
    basis = start
    for _ in range(_ITERATIONS):
        basis = vectors @ (vectors.T @ basis.astype(np.float32)) + tiny * basis
        for _ in range(2):  # orthonormal by Cholesky, several times as fast as QR; the second time cleans up
            basis = basis @ _inverse(np.linalg.cholesky(basis.T @ basis)).T
    return basis


def _inverse(lower: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of a lower triangular matrix, by halves: numpy has the general inverse only, at several times the work."""
    n = len(lower)
    if n <= 256:
        return np.linalg.inv(lower)
    h, result = n // 2, np.zeros_like(lower)
    result[:h, :h], result[h:, h:] = _inverse(lower[:h, :h]), _inverse(lower[h:, h:])
    result[h:, :h] = -result[h:, h:] @ (lower[h:, :h] @ result[:h, :h])
    return result
