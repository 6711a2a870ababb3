"""A correction of query vectors towards exact MaxSim. Vectors of documents do not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from muvera_core import _archive
from muvera_core import _regression_run as run
from muvera_core._draws import Stream
from muvera_core._parallel import default_threads
from muvera_core.config import fingerprint_of
from muvera_core.encoder import Encoder
from muvera_core.tokens import ArrayLike, TokenBatch, to_batch, to_matrix

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Half = npt.NDArray[np.float16]

_ALGORITHM = "query-fit-1"
_SAMPLE, _WEIGHTS = 20, 21  # roles of random streams, in addition to those of encoders
_RIDGE = 0.01  # ridge of the features, as a share of their mean square
# ridges of the prior to choose from, as multiples of the mean squared length of a centred document vector
_RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# a larger, safer ridge is preferred if its error is at most this share above that of the best
_SLACK = 0.02
# number of tokens whose plain vectors are in memory at a time
_SLICE = 512
# largest relative difference by rounding between the vector of a query and the sum of its tokens' vectors
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class FitReport:
    """Recall of a fit on held-out documents and queries, by exact dot products with the stored vectors.

    Recall is the share of the exact MaxSim top 10 (of the held-out documents) among the first candidates.

    Attributes:
        fitted_documents: number of documents used for the fit.
        judged_documents: number of held-out documents, among which the candidates are ranked.
        fitted_queries: number of queries used for the fit.
        judged_queries: number of held-out queries.
        origin: where the queries come from: ``"given"``, or ``"documents"`` (tokens of documents that are in neither
            group).
        candidates: numbers of candidates, one for each entry of the following lists.
        plain: recall of the encoder's own query vectors.
        corrected: recall of the corrected query vectors.
        low: lower ends of 95 % intervals of the paired difference (mean over queries, 1.96 standard errors).
        high: upper ends of these intervals.
    """

    fitted_documents: int
    judged_documents: int
    fitted_queries: int
    judged_queries: int
    origin: str
    candidates: tuple[int, ...]
    plain: tuple[float, ...]
    corrected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FitReport:
        """Rebuilds a report from the dictionary of ``dataclasses.asdict``, also after a round trip through JSON."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**values)

    @property
    def gained(self) -> bool:
        """Whether recall is higher for some number of candidates and lower for none, each beyond its interval."""
        return max(self.low) > 0 and min(self.high) >= 0

    def __str__(self) -> str:
        rows = [
            f"{n} candidates: {plain:.3f} -> {corrected:.3f} (difference {low:+.3f} to {high:+.3f})"
            for n, plain, corrected, low, high in zip(
                self.candidates, self.plain, self.corrected, self.low, self.high, strict=True
            )
        ]
        asked = "queries" if self.origin == "given" else "queries made of documents' tokens"
        return (
            f"recall of the exact top 10, {self.judged_queries} {asked} and {self.judged_documents} documents "
            f"that the fit has not seen; {'; '.join(rows)}"
        )


class _State(NamedTuple):
    """The saved state of a fit.

    Attributes:
        weights: (d, f) weights of the features relu(x @ weights - thresholds).
        thresholds: (f,) thresholds of the features.
        down: (f, r) matrix from a query's features to the directions that are corrected.
        up: (r, dim) matrix from these directions to the query's vector.
        gain: (1,) factor of the plain vector.
    """

    weights: Half
    thresholds: Float32
    down: Half
    up: Half
    gain: Float32


class QueryFit:
    """Corrects the query vectors of one encoder, so that they rank the stored documents more like MaxSim.

    ``fit_queries`` of a store makes a fit, measures it, and returns it only if it helps. Documents are not encoded
    again.

    The corrected vector of a query is its plain vector multiplied by a constant, plus a correction for each token:
    random features of the token, multiplied by a matrix of low rank. The matrix is a ridge regression of the errors
    that the plain vectors make for the sample's documents. Documents unlike those of the sample therefore keep the
    plain estimate.

    Differences between the dot products of one query estimate differences of its MaxSim scores, whatever the scale of
    the encoder's own dot products. The dot products themselves do not estimate the scores.

    Attributes:
        encoder_fingerprint: fingerprint of the encoder whose queries are corrected.
        ridge: weight of the plain vector as the prior, relative to the mean squared length of a centred vector.
        report: measurements on held-out documents and queries; None: not measured.
    """

    def __init__(self, state: _State, encoder_fingerprint: str, ridge: float, report: FitReport | None = None) -> None:
        _check(state)
        self._state = state
        self._weights = state.weights.astype(np.float32)
        self._down, self._up = state.down.astype(np.float32), state.up.astype(np.float32)
        self.encoder_fingerprint = encoder_fingerprint
        self.ridge = ridge
        self.report = report

    @classmethod
    def fit(
        cls,
        encoder: Encoder,
        documents: Any,
        vectors: npt.NDArray[Any],
        queries: Any = None,
        *,
        rank: int = 64,
        features: int = 1536,
        sample_tokens: int = 6000,
        ridge: float | None = None,
        seed: int = 42,
        threads: int | None = None,
    ) -> QueryFit:
        """Fits a correction to documents and their stored vectors.

        Args:
            encoder: encoder of the vectors. Its vector of a query must be the sum of the tokens' vectors, as with FDEs.
            documents: n token matrices, in any form that encoders take.
            vectors: (n, dim) vectors of the documents, as the database compares them.
            queries: token matrices of queries, whose tokens are also fitted to; at most half of ``sample_tokens``.
            rank: rank of the correction; the saved state is proportional to it.
            features: number of random features of a token.
            sample_tokens: number of tokens to fit to.
            ridge: weight of the plain vector as the prior, relative to the mean squared length of a centred vector;
                None: chosen by predicting each document from the others: of several values, the largest that is nearly
                as good as the best.
            seed: seed of all randomness.
            threads: maximum number of threads; None: one for each core that this process may use.

        Raises:
            InvalidTokens: tokens cannot be encoded.
            ValueError: an argument is out of range, shapes differ, documents or vectors are all alike, or the encoder's
                query vectors are not sums over tokens.
        """
        for name, value, least in (
            ("rank", rank, 1),
            ("features", features, 1),
            ("sample_tokens", sample_tokens, 8),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if ridge is not None and not 0 < ridge < np.inf:
            raise ValueError(f"ridge must be positive, got {ridge}")
        batch = to_batch(documents, dim=encoder.token_dim)
        if np.shape(vectors) != (len(batch), encoder.dim) or len(batch) < 2:
            raise ValueError(
                f"vectors must be ({len(batch)}, {encoder.dim}), one for each of at least 2 documents, got "
                f"{np.shape(vectors)}"
            )
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ValueError(f"the vector of document {bad[0]} has a NaN or infinite value")
        threads = threads or default_threads()
        sample = _sample(
            batch,
            None if queries is None else to_batch(queries, dim=encoder.token_dim, what="query"),
            sample_tokens,
            seed,
        )
        _check_sums(encoder, sample)
        weights = Stream(seed, 0, _WEIGHTS).normals(batch.dim, features).astype(np.float16)
        thresholds = (batch.values.mean(axis=0, dtype=np.float64) @ weights).astype(np.float32)
        phi = np.maximum(sample @ weights.astype(np.float32) - thresholds, 0)

        targets = run.maxima([batch[i] for i in range(len(batch))], sample, threads)  # (s, n)
        estimates = np.empty_like(targets)
        stored = np.asarray(vectors, np.float32)
        for i in range(0, len(sample), _SLICE):
            estimates[i : i + _SLICE] = encoder.encode_queries([x[None] for x in sample[i : i + _SLICE]]) @ stored.T
        if not np.ptp(targets, axis=1).any() or not np.ptp(stored, axis=0).any():
            raise ValueError("the documents, or their vectors, are all alike: there is nothing to tell apart")
        targets -= targets.mean(axis=1, keepdims=True)  # only differences between documents count
        estimates -= estimates.mean(axis=1, keepdims=True)
        size = float(np.einsum("ij,ij->", estimates, estimates, dtype=np.float64))
        gain = float(np.einsum("ij,ij->", estimates, targets, dtype=np.float64)) / size
        targets -= np.float32(gain) * estimates
        del estimates

        matrix = _Regression(phi, targets, stored - stored.mean(axis=0))
        ridge = matrix.best_ridge() if ridge is None else ridge
        down, up = matrix.reduced(ridge, rank)
        balance = np.sqrt(np.abs(up).max() / np.abs(down).max())  # float16 rounds both least if they are equally large
        state = _State(
            weights,
            thresholds,
            (down * balance).astype(np.float16),
            (up / balance).astype(np.float16),
            np.array([gain], np.float32),
        )
        return cls(state, encoder.fingerprint, ridge)

    @property
    def token_dim(self) -> int:
        """Width of the token vectors of queries."""
        return len(self._weights)

    @property
    def dim(self) -> int:
        """Number of dimensions of a query's vector."""
        return int(self._up.shape[1])

    @property
    def rank(self) -> int:
        """Rank of the correction."""
        return len(self._up)

    @property
    def fingerprint(self) -> str:
        """Stable hex id that depends on every bit of the fitted state and on the encoder that is corrected."""
        digest = hashlib.sha256()
        for name, array in self._state._asdict().items():
            digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        content = {"algorithm": _ALGORITHM, "encoder": self.encoder_fingerprint, "state": digest.hexdigest()}
        return fingerprint_of(content)

    def encode_queries(self, encoder: Encoder, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """Computes the corrected vectors of queries, (n, dim) float32; each depends only on its query.

        Args:
            encoder: encoder that the fit corrects.
            queries: queries in any form that ``encoder.encode_queries`` takes.
            mask: (n, t) mask of a padded array, 1 or True for real tokens.

        Raises:
            InvalidTokens: a query cannot be encoded.
            ValueError: the fit corrects another encoder.
        """
        self._check_encoder(encoder)
        batch = to_batch(queries, mask, dim=self.token_dim, what="query")
        corrected = self._state.gain * encoder.encode_queries(batch)
        for i in range(len(batch)):
            corrected[i] += self._correction(batch[i])
        return corrected

    def encode_query(self, encoder: Encoder, tokens: ArrayLike, weights: ArrayLike | None = None) -> Float32:
        """Computes the corrected vector of one query, (dim,) float32.

        Args:
            encoder: encoder that the fit corrects; with ``weights``, one whose ``encode_query`` takes weights.
            tokens: (n, token_dim) token vectors of the query.
            weights: (n,) factors of the tokens' contributions; None: 1 each.

        Raises:
            InvalidTokens: the query cannot be encoded.
            ValueError: the fit corrects another encoder.
        """
        if weights is None:
            return self.encode_queries(encoder, [tokens])[0]
        self._check_encoder(encoder)
        matrix = to_matrix(tokens, dim=self.token_dim, what="query")
        plain: Float32 = cast(Any, encoder).encode_query(matrix, weights)
        return self._state.gain * plain + self._correction(matrix, np.asarray(weights, np.float32))

    def _correction(self, tokens: npt.NDArray[Any], weights: npt.NDArray[np.float32] | None = None) -> Float32:
        phi = np.maximum(tokens.astype(np.float32) @ self._weights - self._state.thresholds, 0)
        total = phi.sum(axis=0) if weights is None else weights @ phi
        correction: Float32 = total @ self._down @ self._up
        return correction

    def _check_encoder(self, encoder: Encoder) -> None:
        if encoder.fingerprint != self.encoder_fingerprint:
            raise ValueError(
                f"this fit corrects queries of encoder {self.encoder_fingerprint}, not of encoder {encoder.fingerprint}"
            )

    def with_report(self, report: FitReport) -> QueryFit:
        """The same fit with the given measurements."""
        return QueryFit(self._state, self.encoder_fingerprint, self.ridge, report)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fit to one .npz file (plain arrays, no pickle), replacing it atomically."""
        content = {
            "algorithm": _ALGORITHM,
            "fingerprint": self.fingerprint,
            "encoder": self.encoder_fingerprint,
            "ridge": self.ridge,
            "report": None if self.report is None else asdict(self.report),
        }
        _archive.write(path, "query_fit", content, self._state._asdict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> QueryFit:
        """Reads the fit that :meth:`save` wrote; nothing in the file is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a saved query fit, is damaged, or was written by another version.
        """
        name = os.fspath(path)
        try:
            content, arrays = _archive.read(path, "query_fit")
            if content["algorithm"] != _ALGORITHM:
                raise ValueError(f"it has version {content['algorithm']!r}, but this library reads {_ALGORITHM!r}")
            report = content["report"]
            if report is not None:
                report = FitReport.from_dict(report)
            fit = cls(_State(**arrays), content["encoder"], float(content["ridge"]), report)
            wanted = content["fingerprint"]
        except FileNotFoundError:
            raise
        except _archive.DAMAGED as error:
            raise ValueError(f"{name} is not a saved query fit: {error}") from error
        if fit.fingerprint != wanted:
            raise ValueError(f"{name} is damaged: its fingerprint is {fit.fingerprint}, not {wanted}")
        return fit

    def __repr__(self) -> str:
        return f"QueryFit(rank {self.rank}, encoder {self.encoder_fingerprint[:8]}, fingerprint {self.fingerprint[:8]})"


class _Regression:
    """Ridge regression of residuals (s, n) by features (s, f) of tokens and centred vectors (n, dim) of documents."""

    def __init__(self, phi: Float32, residuals: Float32, centred: Float32) -> None:
        gram = (phi.T @ phi).astype(np.float64)
        self._gram = gram.copy()
        gram[np.diag_indices(len(gram))] += _RIDGE * np.trace(gram) / len(gram)
        self._lower = np.linalg.cholesky(gram)
        self._products = (phi.T @ residuals).astype(np.float64)  # (f, n)
        self._rows = np.linalg.solve(gram, self._products)  # (f, n): one column predicts a document's residuals
        self._centred = centred
        kernel = (centred @ centred.T).astype(np.float64)
        self._values, self._basis = np.linalg.eigh(kernel)
        self._unit = np.trace(kernel) / len(kernel)
        self._rotated = self._rows @ self._basis

    def best_ridge(self) -> float:
        """The largest ridge that predicts documents, each from the others, about as well as the best."""
        with np.errstate(all="ignore"):
            errors = [self._error(ridge) for ridge in _RIDGES]
        if not np.isfinite(errors).all():
            raise ValueError("token vectors or vectors of documents are too long or too short for float32: scale them")
        limit = min(errors) + _SLACK * abs(min(errors))
        return max(ridge for ridge, error in zip(_RIDGES, errors, strict=True) if error <= limit)

    def _error(self, ridge: float) -> float:
        """Squared error of predictions of each document from the others, without a constant that no ridge changes."""
        inverse = 1 / (self._values + ridge * self._unit)
        diagonal = self._basis**2 @ inverse
        out = self._rows - (self._rotated * inverse) @ self._basis.T / diagonal
        return float(np.einsum("ij,ij->", out, self._gram @ out) - 2 * np.einsum("ij,ij->", out, self._products))

    def reduced(self, ridge: float, rank: int) -> tuple[Float64, Float64]:
        """The regression as (f, r) and (r, dim) matrices: of its directions, the r that matter most for predictions."""
        shrunk = self._rotated / (self._values + ridge * self._unit)
        predictions = self._lower.T @ (shrunk * self._values)  # (f, n) in a basis of the documents
        leading = np.linalg.svd(predictions, full_matrices=False)[0][:, :rank]
        up = (leading.T @ self._lower.T @ shrunk) @ self._basis.T @ self._centred
        return np.linalg.solve(self._lower.T, leading), up


def _sample(batch: TokenBatch, queries: TokenBatch | None, count: int, seed: int) -> Float32:
    """(s, d) tokens to fit to, of queries (at most half) and of documents."""
    stream = Stream(seed, 0, _SAMPLE)
    parts = []
    if queries is not None and len(queries):
        parts.append(queries.values[stream.choice(len(queries.values), count // 2)])
    parts.append(batch.values[stream.choice(len(batch.values), count - sum(map(len, parts)))])
    return np.concatenate([part.astype(np.float32) for part in parts])


def _check_sums(encoder: Encoder, sample: Float32) -> None:
    """Raises ValueError where the vector of a query is not the sum of the vectors of its tokens."""
    tokens = sample[np.linspace(0, len(sample) - 1, 8).astype(int)]
    together = encoder.encode_queries([tokens])[0]
    apart = encoder.encode_queries([x[None] for x in tokens]).sum(axis=0)
    if np.linalg.norm(together - apart) > _ROUNDING * np.linalg.norm(apart):
        raise ValueError(
            f"encoder {encoder.fingerprint} cannot be corrected: its query vectors are not sums over tokens, as FDEs "
            "are; a regression encoder is already fitted to MaxSim"
        )


def _check(state: _State) -> None:
    """Raises ValueError where shapes, dtypes or values do not fit."""
    if any(np.ndim(array) != 2 for array in (state.weights, state.down, state.up)):
        raise ValueError("weights, down and up must be matrices")
    (d, f), (r, dim) = state.weights.shape, state.up.shape
    for name, dtype, shape in (
        ("weights", np.float16, (d, f)),
        ("thresholds", np.float32, (f,)),
        ("down", np.float16, (f, r)),
        ("up", np.float16, (r, dim)),
        ("gain", np.float32, (1,)),
    ):
        array = getattr(state, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has a NaN or infinite value")
