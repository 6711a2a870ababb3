"""LEMUR (arXiv 2601.21853) in numpy, for comparison: learned features of a token, and a document's weights for them.

The features are GELU(LayerNorm(x W + b)), trained to predict the largest dot products of tokens with documents: mean
squared error on values less their mean, divided by their deviation; Adam, batches of 512, gradients clipped at a norm
of 0.5. A document's vector are the weights that fit its maxima at 16,384 tokens best (least squares), a query's the sum
of its tokens' features. Those settings are the release's (github.com/ejaasaari/lemur).

Different here: the training is shorter (the release takes 100,000 tokens, 8,192 documents and 100 epochs), the last
epoch is kept, and GELU is the usual approximation by tanh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core import TokenBatch
from muvera_core._regression_run import maxima

Float32 = npt.NDArray[np.float32]

_BATCH, _RATE, _CLIP, _EPSILON = 512, 3e-3, 0.5, 1e-5
_GELU, _CUBIC = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)


@dataclass(frozen=True)
class Training:
    """Sizes of a training.

    Attributes:
        features: number of features of a token.
        tokens: number of tokens that the features are trained on.
        documents: number of documents whose maxima the features predict while they are trained.
        epochs: passes over the tokens.
        weight_tokens: number of tokens that documents' weights are fitted to.
    """

    features: int = 2048
    tokens: int = 16_384
    documents: int = 512
    epochs: int = 12
    weight_tokens: int = 16_384


class LemurEncoder:
    """An :class:`muvera_core.Encoder` that keeps what it learned in memory only.

    Args:
        documents: documents that the features are trained with.
        queries: queries whose tokens are trained on; documents' tokens fill up.
        training: sizes of the training.
        seed: seed of all randomness.
        threads: number of threads for maxima.
    """

    def __init__(
        self, documents: TokenBatch, queries: TokenBatch, training: Training, *, seed: int, threads: int
    ) -> None:
        self.token_dim, self.dim = documents.dim, training.features
        self.fingerprint = f"lemur-{seed}-{training}"
        self._threads = threads
        generator = np.random.default_rng(seed)
        learned = _tokens(documents, queries, max(training.tokens, training.weight_tokens), generator)
        chosen = generator.permutation(len(documents))[: training.documents]
        targets = maxima([documents[int(i)] for i in chosen], learned[: training.tokens].astype(np.float16), threads)
        self._mean, self._deviation = float(targets.mean()), float(targets.std())
        targets = (targets - self._mean) / self._deviation
        self._parameters = train(learned[: training.tokens], targets, training, generator)
        self._sample = learned[: training.weight_tokens].astype(np.float16)
        features = self._features(self._sample.astype(np.float32))
        self.gram = (features.T @ features).astype(np.float64)
        inverse = np.linalg.pinv(self.gram, rcond=1e-6, hermitian=True)
        self._pseudo_inverse = inverse.astype(np.float32) @ features.T

    def encode_documents(self, docs: Any, mask: Any = None) -> Float32:
        """Weights (n, dim)."""
        found = (maxima(docs, self._sample, self._threads) - self._mean) / self._deviation
        weights: Float32 = (self._pseudo_inverse @ found).T
        return weights

    def encode_queries(self, queries: Any, mask: Any = None) -> Float32:
        """Sums of features (n, dim)."""
        return np.stack([self._features(np.asarray(query, np.float32)).sum(axis=0) for query in queries])

    def to_dict(self) -> dict[str, Any]:
        """Only a name: it cannot be rebuilt."""
        return {"type": "benchmark", "fingerprint": self.fingerprint}

    def _features(self, tokens: Float32) -> Float32:
        return _forward(tokens, self._parameters)[0]


class Whitened:
    """LEMUR's vectors in coordinates that suit graphs and codes, as the regression encoder has them.

    Features of a token are made uncorrelated, the average document is subtracted, one more coordinate makes documents
    unit vectors, and queries have unit length. A query's products change by a constant and a factor only. The encoder
    must have been trained with ``documents``.
    """

    def __init__(self, encoder: LemurEncoder, documents: TokenBatch) -> None:
        self._encoder = encoder
        self.token_dim, self.dim = encoder.token_dim, encoder.dim + 1
        self.fingerprint = f"whitened-{encoder.fingerprint}"
        self.document_norm = 1.0
        gram = encoder.gram.copy()
        gram[np.diag_indices(len(gram))] += 0.01 * np.trace(gram) / len(gram)
        lower = np.linalg.cholesky(gram)
        self._lower, self._inverse = lower.astype(np.float32), np.linalg.inv(lower).astype(np.float32)
        weights = encoder.encode_documents(documents)
        self._average = weights.mean(axis=0)
        self._longest = 1.25 * np.linalg.norm((weights - self._average) @ self._lower, axis=1).max()

    def encode_documents(self, docs: Any, mask: Any = None) -> Float32:
        """Unit vectors (n, dim)."""
        vectors = (self._encoder.encode_documents(docs) - self._average) @ self._lower / self._longest
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        lifts = np.sqrt(np.maximum(1 - lengths**2, 0))
        whole: Float32 = np.hstack([vectors, lifts]) / np.hypot(lengths, lifts)
        return whole

    def encode_queries(self, queries: Any, mask: Any = None) -> Float32:
        """Unit vectors (n, dim)."""
        vectors = self._encoder.encode_queries(queries) @ self._inverse.T
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        whole: Float32 = np.hstack([vectors, np.zeros((len(vectors), 1), np.float32)])
        return whole

    def to_dict(self) -> dict[str, Any]:
        """Only a name: it cannot be rebuilt."""
        return {"type": "benchmark", "fingerprint": self.fingerprint}


def _tokens(documents: TokenBatch, queries: TokenBatch, count: int, generator: np.random.Generator) -> Float32:
    """Tokens of queries, and of documents to make ``count``, shuffled."""
    asked = queries.values[generator.permutation(len(queries.values))[:count]]
    others = documents.values[generator.permutation(len(documents.values))[: count - len(asked)]]
    return generator.permutation(np.concatenate([asked, others]).astype(np.float32))


def _forward(tokens: Float32, p: dict[str, Float32]) -> tuple[Float32, Float32, Float32, Float32, Float32]:
    """Features, and what their derivatives need: normalised values, their deviation, values and tanh of GELU."""
    hidden = tokens @ p["weights"] + p["bias"]
    hidden -= hidden.mean(axis=1, keepdims=True)
    deviation = np.sqrt((hidden**2).mean(axis=1, keepdims=True) + _EPSILON)
    normal = hidden / deviation
    values = normal * p["gain"] + p["shift"]
    bent = np.tanh(_GELU * (values + _CUBIC * values**3))
    return values * (1 + bent) / 2, normal, deviation, values, bent


def _gradients(tokens: Float32, targets: Float32, p: dict[str, Float32]) -> dict[str, Float32]:
    """Derivatives of the mean squared error."""
    features, normal, deviation, values, bent = _forward(tokens, p)
    errors = (features @ p["output"] - targets) * np.float32(2 / targets.size)
    inner = (1 - bent**2) * values * _GELU * (1 + 3 * _CUBIC * values**2)
    to_values = (errors @ p["output"].T) * (1 + bent + inner) / 2
    to_normal = to_values * p["gain"]
    to_hidden = to_normal - to_normal.mean(axis=1, keepdims=True)
    to_hidden -= normal * (to_normal * normal).mean(axis=1, keepdims=True)
    to_hidden /= deviation
    return {
        "output": features.T @ errors,
        "gain": (to_values * normal).sum(axis=0),
        "shift": to_values.sum(axis=0),
        "weights": tokens.T @ to_hidden,
        "bias": to_hidden.sum(axis=0),
    }


def train(tokens: Float32, targets: Float32, training: Training, generator: np.random.Generator) -> dict[str, Float32]:
    """Parameters of the features, and of the output layer.

    Args:
        tokens: (n, d).
        targets: (n, documents).
        training: sizes.
        generator: source of the start and of the batches.
    """
    d, f = tokens.shape[1], training.features
    p = {
        "weights": generator.uniform(-1, 1, (d, f)) / np.sqrt(d),
        "bias": generator.uniform(-1, 1, f) / np.sqrt(d),
        "gain": np.ones(f),
        "shift": np.zeros(f),
        "output": generator.uniform(-1, 1, (f, targets.shape[1])) / np.sqrt(f),
    }
    parameters = {name: value.astype(np.float32) for name, value in p.items()}
    first = {name: np.zeros_like(value) for name, value in parameters.items()}
    second = {name: np.zeros_like(value) for name, value in parameters.items()}
    step = 0
    for _ in range(training.epochs):
        order = generator.permutation(len(tokens))
        for i in range(0, len(order), _BATCH):
            step += 1
            rows = order[i : i + _BATCH]
            found = _gradients(tokens[rows], targets[rows], parameters)
            clip = min(1.0, _CLIP / float(np.sqrt(sum(np.vdot(g, g) for g in found.values()))))
            for name, gradient in found.items():
                first[name] += np.float32(0.1) * (clip * gradient - first[name])
                second[name] += np.float32(0.001) * ((clip * gradient) ** 2 - second[name])
                moment, spread = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                parameters[name] -= np.float32(_RATE) * moment / (np.sqrt(spread) + np.float32(1e-8))
    return parameters
