"""The fit of the regression encoder in closed form; docs/design.md has the derivation and the measurements."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_core._draws import Stream, orthonormal
from muvera_core._regression_run import maxima
from muvera_core.tokens import TokenBatch, Tokens

Float64 = npt.NDArray[np.float64]
Half = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]

# roles of random streams, in addition to those of FDEs
SAMPLE, WEIGHTS, REFERENCES, SUBSPACE, ROTATION, QUERIES, CLUSTERED, STARTS = range(10, 18)

# room for documents that are further from the average than all reference documents; it did not lower recall by an index
HEADROOM = 1.25
_ITERATIONS = 4
_LONGEST = 1_000  # limit of the typical length of token vectors; the lower limit is its inverse

# minimum number of tokens of a part of a document
_PART_TOKENS = 30

# regularisation of the two steps of a fit with centres, and its clustering
_CENTRE_RIDGE, _HEAD_RIDGE = 0.03, 0.05
_CLUSTERED_TOKENS, _CLUSTERINGS = 60_000, 5
_BLOCK = 8192  # number of tokens that are compared with all centres at a time


class Arithmetic(Protocol):
    """The expensive operations of a fit, on any device. Arguments and results are numpy arrays."""

    def maxima(self, documents: list[Tokens], sample: Half) -> Float32:
        """(s, n) largest dot product of each of s sample tokens with each of n documents."""

    def product(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Matrix product in the wider of the two dtypes."""

    def factor(self, positive: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Lower Cholesky factor of a symmetric positive definite matrix, and the factor's inverse."""

    def solve(self, matrix: Float64, right: Float64) -> Float64:
        """The solution x of matrix @ x = right."""


class Processor:
    """The operations on the CPU, with numpy and the kernels of this library."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def maxima(self, documents: list[Tokens], sample: Half) -> Float32:
        return maxima(documents, sample, self._threads)

    def product(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result: npt.NDArray[Any] = left @ right
        return result

    def factor(self, positive: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        lower = np.linalg.cholesky(positive)
        return lower, _inverse(lower)

    def solve(self, matrix: Float64, right: Float64) -> Float64:
        return np.linalg.solve(matrix, right).astype(np.float64, copy=False)


class Fitted(NamedTuple):
    """The saved state of an encoder.

    Attributes:
        sample: (s, d) tokens with which documents are compared: sample tokens, or centres of them; divided by a power
            of two near their mean squared length.
        centres: (s,) mean over the reference documents of their largest dot product with each row of ``sample``.
        weights: (d, f) weights of the features relu(x @ weights - thresholds).
        thresholds: (f,) thresholds of the features.
        documents: (s, dim) matrix from centred maxima to a document's vector, which is shorter than 1.
        queries: (f, dim) matrix from a query's features to its vector, which can have any length.
        lift: (dim,) unit vector that is orthogonal to the vectors of all queries.
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
    queries: TokenBatch | None,
    dim: int,
    *,
    seed: int,
    centres: int | None,
    sample_tokens: int,
    features: int,
    ridge: float,
    references: int,
    by: Arithmetic,
) -> Fitted:
    """Fits to documents and queries whose tokens have been checked; ``by`` computes the large products.

    Raises:
        ValueError: the documents are all alike, or token vectors are very long or very short.
    """
    unit = _unit(batch)
    sample = _sample(batch, queries, sample_tokens, seed)
    mean = batch.values.mean(axis=0, dtype=np.float64)
    weights = Stream(seed, 0, WEIGHTS).normals(batch.dim, features).astype(np.float16)
    thresholds = (mean @ weights).astype(np.float32)
    chosen = [batch[i] for i in Stream(seed, 0, REFERENCES).choice(len(batch), references)]
    means, targets = _centred_maxima(chosen, sample, by)  # (s, n)
    if not (targets - targets[:, :1]).any():
        raise ValueError("the sample's documents are all alike: there is nothing to tell apart")

    phi = _features(sample, weights, thresholds, by)
    gram = by.product(phi.T, phi)  # float32 is exact enough here because of the ridge, but not for the factorisation
    lower, inverse = by.factor(_ridged(gram, ridge))
    whiten = inverse.astype(np.float32)  # (f, f)
    products = by.product(phi.T, targets)  # (f, n)
    vectors = spanned = by.product(whiten, products)  # whitened vectors of the references
    if parts := _parts(chosen, references):
        found = _centred_maxima(parts, sample, by)[1]
        spanned = np.concatenate([vectors, by.product(whiten, by.product(phi.T, found))], axis=1)
    kept = _leading(spanned, Stream(seed, 0, SUBSPACE).normals(features, dim - 1), by)  # (f, dim - 1)
    to_queries = by.product(whiten.T, kept)
    if centres is None:
        to_documents = by.product(phi, to_queries)  # (s, dim - 1)
    else:
        sample, sizes = _cluster(batch, centres, seed, by)
        means, targets = _centred_maxima(chosen, sample, by)
        base = _base(_features(sample, weights, thresholds, by), sizes, by)  # (c, f)
        estimates = by.product(base.T, targets)
        weighed = by.product(gram, estimates)
        scale = float(np.vdot(estimates, products) / np.vdot(estimates, weighed))
        missing = by.product(kept.T.astype(np.float32), vectors - scale * by.product(whiten, weighed))
        to_documents = scale * by.product(base, by.product(lower, kept)) + _head(targets, missing, by)  # (c, dim - 1)

    rotation = orthonormal(Stream(seed, 0, ROTATION).normals(dim, dim))
    longest = float(np.sqrt((by.product(targets.T, to_documents) ** 2).sum(axis=1).max()))
    longest *= HEADROOM
    largest = float(np.abs(to_queries).max())
    return Fitted(
        (sample.astype(np.float32) / unit).astype(np.float16),
        (means / unit).astype(np.float32),
        weights,
        thresholds,
        (to_documents * (unit / longest) @ rotation[:-1]).astype(np.float16),
        (to_queries / largest @ rotation[:-1]).astype(np.float16),
        rotation[-1].astype(np.float32),
    )


def _sample(batch: TokenBatch, queries: TokenBatch | None, count: int, seed: int) -> Half:
    """(s, d) tokens to fit to: tokens of queries, at most half of ``count``, then tokens of documents."""
    parts, left = [], count
    if queries is not None:
        parts.append(queries.values[Stream(seed, 0, QUERIES).choice(len(queries.values), count // 2)])
        left -= len(parts[0])
    parts.append(batch.values[Stream(seed, 0, SAMPLE).choice(len(batch.values), left)])
    return np.concatenate(parts).astype(np.float16)


def _parts(documents: list[Tokens], references: int) -> list[Tokens]:
    """Equal parts of the documents, about ``references`` in all; none if there are enough documents.

    Few documents span few directions, and other documents differ more in other directions. Parts span more directions.
    """
    each = references // len(documents)
    counts = [min(each, len(document) // _PART_TOKENS) for document in documents]
    cut = [(document, count) for document, count in zip(documents, counts, strict=True) if count > 1]
    return [part for document, count in cut for part in np.array_split(document, count)]


def _features(tokens: Half, weights: Half, thresholds: Float32, by: Arithmetic) -> Float32:
    return np.maximum(by.product(tokens.astype(np.float32), weights.astype(np.float32)) - thresholds, 0)


def _centred_maxima(documents: list[Tokens], sample: Half, by: Arithmetic) -> tuple[Float32, Float32]:
    """The (s,) means of the (s, n) largest dot products with each document, and these products minus the means."""
    found = by.maxima(documents, sample)
    means = found.mean(axis=1, dtype=np.float64).astype(np.float32)
    found -= means[:, None]
    return means, found


def _ridged(gram: npt.NDArray[Any], ridge: float) -> Float64:
    """The matrix in float64, with a share of the diagonal's mean added to the diagonal."""
    result = gram.astype(np.float64)
    result[np.diag_indices(len(result))] += ridge * np.trace(result) / len(result)
    return result


def _cluster(batch: TokenBatch, count: int, seed: int, by: Arithmetic) -> tuple[Half, Float64]:
    """(c, d) k-means centres of the documents' tokens, and the (c,) numbers of tokens in their clusters."""
    tokens = batch.values[Stream(seed, 0, CLUSTERED).choice(len(batch.values), _CLUSTERED_TOKENS)].astype(np.float32)
    centres = tokens[Stream(seed, 0, STARTS).choice(len(tokens), count)]
    sizes = np.ones(len(centres))
    for _ in range(_CLUSTERINGS):
        shift = (centres**2).sum(axis=1) / 2
        owners = np.concatenate(
            [
                (by.product(tokens[i : i + _BLOCK], centres.T) - shift).argmax(axis=1)
                for i in range(0, len(tokens), _BLOCK)
            ]
        )
        order = np.argsort(owners, kind="stable")
        filled, starts = np.unique(owners[order], return_index=True)
        sizes = np.ones(len(centres))  # an empty cluster keeps its centre, and counts as one token
        sizes[filled] = np.diff(np.append(starts, len(tokens)))
        centres[filled] = np.add.reduceat(tokens[order], starts) / sizes[filled, None]
    return centres.astype(np.float16), sizes


def _base(phi: Float32, sizes: Float64, by: Arithmetic) -> Float32:
    """(c, f) weights from maxima at centres to features: a ridge regression over the centres, weighted by ``sizes``."""
    shares = sizes / sizes.mean()
    ridge = _CENTRE_RIDGE * float(shares @ np.einsum("ij,ij->i", phi, phi)) / phi.shape[1]
    kernel = by.product(phi, phi.T).astype(np.float64)
    kernel[np.diag_indices(len(kernel))] += ridge / shares
    return by.solve(kernel, phi.astype(np.float64)).astype(np.float32)


def _head(targets: Float32, missing: Float32, by: Arithmetic) -> Float64:
    """(c, k) ridge regression of the (k, n) values ``missing`` on the references' (c, n) maxima at the centres."""
    kernel = by.product(targets, targets.T).astype(np.float64)
    kernel[np.diag_indices(len(kernel))] += _HEAD_RIDGE * np.trace(kernel) / targets.shape[1]
    return by.solve(kernel, by.product(targets, missing.T).astype(np.float64))


def _unit(batch: TokenBatch) -> np.float32:
    """Mean squared length of tokens, rounded to a power of two: 1 for unit vectors.

    The sample is divided by it. Its dot products with tokens are then about 1, so float16 can hold the matrix from
    these to a document's vector.

    Raises:
        ValueError: tokens are too long or too short for float16.
    """
    values = batch.values
    squares = np.einsum("ij,ij->", values, values, dtype=np.float64)
    length = float(np.sqrt(squares / len(values)))
    if not 1 / _LONGEST <= length <= _LONGEST:
        raise ValueError(
            f"the sample's token vectors have a length of about {length:.2g}; it must be {1 / _LONGEST:g} to "
            f"{_LONGEST:,}: scale the token vectors of all documents and queries, for example to unit length"
        )
    return np.float32(2.0 ** np.round(2 * np.log2(length)))


def _leading(vectors: Float32, start: Float64, by: Arithmetic) -> npt.NDArray[Any]:
    """(f, k) orthonormal columns with nearly the same span as the k leading left singular vectors of (f, n).

    The method is subspace iteration, as only the span matters. Where k exceeds the rank, the other columns come from
    ``start``, which is random.
    """
    tiny = 1e-6 * float((vectors**2).sum())
    basis = start
    for _ in range(_ITERATIONS):
        basis = by.product(vectors, by.product(vectors.T, basis.astype(np.float32))) + tiny * basis
        for _ in range(2):  # Cholesky is several times as fast as QR; the second pass corrects rounding
            basis = by.product(basis, by.factor(by.product(basis.T, basis))[1].T)
    return basis


def _inverse(lower: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The inverse of a lower triangular matrix, by halves; numpy's general inverse does several times the work."""
    n = len(lower)
    if n <= 256:
        return np.linalg.inv(lower)
    h, result = n // 2, np.zeros_like(lower)
    result[:h, :h], result[h:, h:] = _inverse(lower[:h, :h]), _inverse(lower[h:, h:])
    result[h:, :h] = -result[h:, h:] @ (lower[h:, :h] @ result[:h, :h])
    return result
