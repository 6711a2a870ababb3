"""The closed form behind the regression encoder: see docs/design.md for the derivation and the measurements."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core._draws import Stream, orthonormal
from muvera_core._regression_run import maxima
from muvera_core.tokens import TokenBatch

Float64 = npt.NDArray[np.float64]
Half = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]

SAMPLE, WEIGHTS, REFERENCES, ROTATION = 10, 11, 12, 13  # roles of random streams, apart from those of an FDE


class Fitted(NamedTuple):
    """What an encoder keeps, as it is saved.

    Attributes:
        sample: (s, d) sample tokens.
        centres: (s,) mean over the reference documents of their largest dot product with each.
        weights: (d, f) of the features relu(x @ weights - thresholds).
        thresholds: (f,).
        documents: (s, dim) from centred maxima to a document's vector.
        queries: (f, dim) from a query's features to its vector.
        lift: (dim,) unit vector that is orthogonal to every query's.
        scales: (2,) factors of a document's vector, and of a query's.
    """

    sample: Half
    centres: Float32
    weights: Half
    thresholds: Float32
    documents: Half
    queries: Half
    lift: Float32
    scales: Float32


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
        ValueError: they are all alike.
    """
    picked = Stream(seed, 0, SAMPLE).choice(len(batch.values), sample_tokens)
    sample = batch.values[picked].astype(np.float16)
    mean = batch.values.mean(axis=0, dtype=np.float64)
    weights = Stream(seed, 0, WEIGHTS).normals(batch.dim, features).astype(np.float16)
    thresholds = (mean @ weights).astype(np.float32)
    chosen = Stream(seed, 0, REFERENCES).choice(len(batch), references)
    targets = maxima([batch[i] for i in chosen], sample, threads)  # (s, n)
    if not np.ptp(targets, axis=1).any():
        raise ValueError("the sample's documents are all alike: there is nothing to tell apart")
    centres = targets.mean(axis=1, dtype=np.float64).astype(np.float32)

    phi = np.maximum(sample.astype(np.float32) @ weights.astype(np.float32) - thresholds, 0).astype(np.float64)
    gram = phi.T @ phi
    gram[np.diag_indices(features)] += ridge * np.trace(gram) / features
    whiten = np.linalg.inv(np.linalg.cholesky(gram))  # (f, f)
    vectors = whiten @ (phi.T @ (targets - centres[:, None]))  # (f, n): the references, whitened
    # the directions in which documents differ most are those that a query's score depends on most
    _, directions = np.linalg.eigh(vectors @ vectors.T)
    to_queries = whiten.T @ directions[:, :-dim:-1]  # (f, dim - 1)
    to_documents = phi @ to_queries  # (s, dim - 1)

    rotation = orthonormal(Stream(seed, 0, ROTATION).normals(dim, dim))
    longest = float(np.sqrt((((targets - centres[:, None]).T @ to_documents) ** 2).sum(axis=1).max()))
    largest = float(np.abs(to_queries).max())
    return Fitted(
        sample,
        centres,
        weights,
        thresholds,
        (to_documents @ rotation[:-1]).astype(np.float16),
        (to_queries / largest @ rotation[:-1]).astype(np.float16),
        rotation[-1].astype(np.float32),
        np.array([1 / longest, longest * largest], np.float32),
    )
