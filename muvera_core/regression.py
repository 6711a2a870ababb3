"""An encoder that is fitted to a sample of the collection: higher recall than an FDE in fewer dimensions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from muvera_core import _regression_run as run
from muvera_core._layout import Float32
from muvera_core._parallel import default_threads
from muvera_core._regression_fit import Arithmetic, Fitted, Processor, fit
from muvera_core.config import fingerprint_of
from muvera_core.encoder import SavedArrays, register, save_encoder
from muvera_core.tokens import (
    ArrayLike,
    InvalidTokens,
    Located,
    TokenBatch,
    Tokens,
    first_bad_token,
    to_batch,
    to_matrices,
    to_matrix,
    weighted_sum,
)

_ALGORITHM = "regression-1"
# number of tokens of a generator's documents that are in memory at a time
_SLICE_TOKENS = 1 << 16


class RegressionEncoder:
    """Encodes token matrices so that ``query_vector @ document_vector`` approximates their MaxSim score.

    ``fit`` makes an encoder. New documents need no new fit while they are similar to those of the sample. Encoding a
    document takes two matrix products, the larger one with the sample: 20 to 80 times the time of an FDE. The result
    depends only on the document or query, not on the rest of the batch or on ``threads``. Where numba is not
    installed, numpy computes it, and may round differently in other batches.

    The largest dot product of a token x with a document's tokens is a function of x. With enough nonlinear features
    phi(x), it is nearly linear in them: phi(x) @ w, where w comes from a ridge regression over sample tokens of the
    collection. MaxSim is then the sum of phi over the query's tokens, multiplied by w. This is LEMUR's idea (arXiv
    2601.21853), with random features and a closed form. Of some thousand features, the encoder keeps the ``dim - 1``
    directions in which the sample's documents differ most. An additional coordinate makes every document a unit vector
    (graphs rank such vectors well) without changing dot products. A random rotation spreads everything evenly over the
    coordinates, so that codes of few bits lose little.

    Vectors of queries have unit length too. A dot product is the document's MaxSim score minus that of the average
    document, multiplied by a factor that depends on the query. It ranks the documents of one query, can be negative,
    and cannot be compared between queries. A document more than 1.25 times as far from the average as any of the
    sample's is scaled to unit length without the additional coordinate: its direction is right, but its scores are too
    near 0 by that factor.

    Attributes:
        threads: maximum number of threads.
    """

    def __init__(self, fitted: Fitted, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        _check(fitted)
        self._fitted = fitted
        self.threads = threads or default_threads()

    @classmethod
    def fit(
        cls,
        sample: Any,
        dim: int = 1024,
        seed: int = 42,
        *,
        queries: Any = None,
        centres: int | None = None,
        sample_tokens: int = 12_000,
        features: int = 4096,
        ridge: float = 0.01,
        references: int = 2000,
        threads: int | None = None,
    ) -> RegressionEncoder:
        """Fits an encoder for collections whose documents are similar to the sample.

        Fit once, save the encoder, and load it where it is needed. Equal arguments give an encoder with the same
        fingerprint only with the same numpy, on the same kind of machine, with the same number of threads; elsewhere
        BLAS rounds differently. If the sample is torch tensors on a GPU, the products of the fit are computed there, in
        float32 and float64.

        Args:
            sample: some thousand documents of the collection with at least ``sample_tokens`` tokens in all, as they
                will be encoded (pooled if the collection's are), in any form that :meth:`encode_documents` takes. They
                are kept in memory during the fit.
            dim: number of dimensions of a vector, usually 256, 512 or 1,024. More than 1,024 gain little.
            seed: seed of all randomness, at least 0.
            queries: queries similar to the expected ones, in any form that :meth:`encode_queries` takes; None: no
                queries. The fit uses their tokens, or ``sample_tokens // 2`` of them drawn at random if there are more,
                and fills up with tokens of documents. Where queries are encoded differently from documents (markers,
                [MASK] tokens) and there are no queries yet, pass the texts of some documents, encoded as queries.
            centres: number of k-means centres of the sample's tokens with which documents are compared, usually 2,000;
                None: documents are compared with all tokens of the fit. The time to encode a document is proportional
                to this number.
            sample_tokens: number of tokens to fit to. The memory of a fit is proportional to it, and without
                ``centres`` also the time to encode a document.
            features: number of features of a token, at least ``dim - 1``.
            ridge: regularisation, as a share of the mean squared feature.
            references: number of documents, drawn from the sample, that determine the average and the directions to
                keep. Where the sample has at most half as many, parts of its documents also help to determine the
                directions.
            threads: maximum number of threads; None: one for each core that this process may use.

        Raises:
            InvalidTokens: a document of the sample or a query is empty, has vectors of another width, is not finite, or
                has an all-zero token.
            ValueError: an argument is out of range, ``queries`` is empty, all documents of the sample are alike, or its
                token vectors have a typical length below 0.001 or above 1,000.
        """
        for name, value, least in (
            ("dim", dim, 2),
            ("seed", seed, 0),
            ("sample_tokens", sample_tokens, 1),
            ("references", references, 2),
            ("features", features, max(1, dim - 1)),
            ("centres", 1 if centres is None else centres, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < ridge < np.inf:
            raise ValueError(f"ridge must be positive, got {ridge}")
        if getattr(sample, "ndim", None) == 2:
            raise InvalidTokens("the sample is one matrix of tokens: pass a list with one matrix for each document")
        if isinstance(sample, Iterator):
            sample = list(sample)
        device = _gpu(sample)
        batch = to_batch(sample, what="sample document")
        if len(batch) < 2:
            raise InvalidTokens(f"the sample needs at least 2 documents, got {len(batch)}")
        _check_values(batch, "sample document")
        asked = None
        if queries is not None:
            asked = to_batch(queries, dim=batch.dim, what="query")
            if len(asked) == 0:
                raise ValueError("queries is empty: pass None if there are no queries")
            _check_values(asked, "query")
        threads = threads or default_threads()
        by: Arithmetic = Processor(threads)
        if device is not None:
            from muvera_core import _regression_torch

            by = _regression_torch.Device(device)
        fitted = fit(
            batch,
            asked,
            dim,
            seed=seed,
            centres=centres,
            sample_tokens=sample_tokens,
            features=features,
            ridge=ridge,
            references=references,
            by=by,
        )
        return cls(fitted, threads=threads)

    @property
    def token_dim(self) -> int:
        """Width of the token vectors that the encoder takes: that of the sample."""
        return int(self._fitted.sample.shape[1])

    @property
    def dim(self) -> int:
        """Number of dimensions of an encoded vector."""
        return int(self._fitted.documents.shape[1])

    @property
    def document_norm(self) -> float:
        """Length of a document's vector: 1."""
        return 1.0

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that depend on every bit of the fitted state."""
        digest = hashlib.sha256()
        for name, array in self._fitted._asdict().items():
            digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return fingerprint_of({"algorithm": _ALGORITHM, "state": digest.hexdigest()})

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """Computes the vectors of documents, which have unit length.

        Args:
            docs: a :class:`TokenBatch`, an iterable of (n_i, token_dim) matrices, or an (n, t, token_dim) array with
                ``mask``. Matrices can be float16, float32 or float64 arrays, torch tensors or nested lists. Of a
                generator, about 65,536 tokens are in memory at a time. Torch tensors on a GPU are encoded there; the
                results can differ from those of the CPU by rounding.
            mask: (n, t) mask of a padded array, 1 or True for real tokens.

        Returns:
            (n, dim) float32 vectors; row i belongs to document i.

        Raises:
            InvalidTokens: a document is empty, has vectors of another width, is not numeric, or has a token that is
                NaN, infinite or all zeros (padding). The message and ``position`` name the document; no vectors are
                returned.
        """
        return self._encode(docs, mask, "document", self._encode_documents)

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """Computes the vectors of queries, (n, dim) float32 of unit length.

        Input and errors are those of :meth:`encode_documents`.

        Keep the query augmentation ([MASK] tokens) if the model was trained with it.
        """
        return self._encode(queries, mask, "query", self._encode_queries)

    def encode_document(self, tokens: ArrayLike) -> Float32:
        """Computes the (dim,) vector of one document, given as an (n, token_dim) matrix."""
        return self.encode_documents([tokens])[0]

    def encode_query(self, tokens: ArrayLike, weights: ArrayLike | None = None) -> Float32:
        """Computes the (dim,) vector of one query, which has unit length.

        Args:
            tokens: (n, token_dim) token vectors of the query.
            weights: (n,) factors of the tokens' contributions; None: 1 each.
        """
        if weights is None:
            return self.encode_queries([tokens])[0]
        matrix = to_matrix(tokens, dim=self.token_dim, what="query")
        rows = to_matrices([row[None] for row in matrix], None, dim=self.token_dim, what="query")
        each = self._query_sums(Located(rows, "query"))
        return _of_unit_length(weighted_sum(weights, each)[None])[0]

    def to_dict(self) -> dict[str, Any]:
        """Describes the encoder in JSON values, without its state, which takes tens of MB.

        Collections keep this description; only :meth:`save` writes the state.
        """
        return {"type": "regression", "fingerprint": self.fingerprint, "token_dim": self.token_dim, "dim": self.dim}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the encoder to a file for :func:`load_encoder`; loading executes nothing from the file."""
        save_encoder(path, self.to_dict(), self._fitted._asdict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RegressionEncoder:
        """Reads the encoder that :meth:`save` wrote; errors are those of :func:`load_encoder`."""
        from muvera_core.encoder import load_encoder

        encoder = load_encoder(path)
        if not isinstance(encoder, cls):
            raise ValueError(f"{os.fspath(path)} holds a {type(encoder).__name__}, not a {cls.__name__}")
        return encoder

    def __repr__(self) -> str:
        return f"RegressionEncoder({self.token_dim} -> {self.dim}, fingerprint {self.fingerprint})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_fitted": self._fitted, "threads": self.threads}  # copies for the kernels are made again

    def _encode(self, docs: Any, mask: ArrayLike | None, what: str, encode: Callable[[Located], Float32]) -> Float32:
        if mask is None and isinstance(docs, Iterator):
            first = next(docs, None)
            docs = chain([] if first is None else [first], docs)
            if not _on_gpu(first):
                parts = [encode(located) for located in _slices(docs, self.token_dim, what)]
                return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)
            return self._encode_on_gpu(docs, None, what)
        if _gpu(docs) is not None:
            return self._encode_on_gpu(docs, mask, what)
        return encode(Located(to_matrices(docs, mask, dim=self.token_dim, what=what), what))

    def _encode_on_gpu(self, docs: Any, mask: ArrayLike | None, what: str) -> Float32:
        from muvera_core import _regression_torch

        return _regression_torch.encode(self._fitted, docs, mask, what)

    def _encode_documents(self, located: Located) -> Float32:
        vectors = run.encode("maxima", *self._document_matrices, located, self.threads)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        lifts = np.sqrt(np.maximum(1 - lengths**2, 0))
        vectors += lifts * self._fitted.lift
        vectors /= np.hypot(lengths, lifts)
        return vectors

    def _encode_queries(self, located: Located) -> Float32:
        # int8 codes clip a query's coordinates to the range of the documents', so it must not be longer than they are
        return _of_unit_length(self._query_sums(located))

    def _query_sums(self, located: Located) -> Float32:
        return run.encode("features", *self._query_matrices, located, self.threads)

    @cached_property
    def _document_matrices(self) -> tuple[run.Matrix, run.Matrix]:
        return run.Matrix(self._fitted.sample.T, self._fitted.centres), run.Matrix(self._fitted.documents)

    @cached_property
    def _query_matrices(self) -> tuple[run.Matrix, run.Matrix]:
        return run.Matrix(self._fitted.weights, self._fitted.thresholds), run.Matrix(self._fitted.queries)


def _of_unit_length(vectors: Float32) -> Float32:
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return vectors


def _on_gpu(tensor: Any) -> bool:
    """Whether this is a torch tensor on a device other than the CPU."""
    return hasattr(tensor, "detach") and str(tensor.device.type) not in ("cpu", "meta")


def _gpu(docs: Any) -> Any:
    """The device of documents that are torch tensors on a device other than the CPU; None for all others."""
    first = docs[0] if isinstance(docs, Sequence) and len(docs) else docs
    return first.device if _on_gpu(first) else None


def _slices(docs: Iterator[ArrayLike], dim: int, what: str) -> Iterator[Located]:
    """The documents of an iterator in slices; positions in errors count from its start."""
    held: list[Tokens] = []
    tokens = first = 0
    for position, matrix in enumerate(docs):
        held.append(to_matrix(matrix, dim=dim, what=f"{what} {position}", position=position))
        tokens += len(held[-1])
        if tokens >= _SLICE_TOKENS:
            yield Located(held, what, first)
            held, tokens, first = [], 0, position + 1
    if held:
        yield Located(held, what, first)


def _check_values(batch: TokenBatch, what: str) -> None:
    bad = first_bad_token(batch)
    if bad is not None:
        raise Located(batch, what).bad_token(*bad)


def _check(fitted: Fitted) -> None:
    """Raises ValueError where shapes, dtypes or values do not fit."""
    (s, d), f, dim = fitted.sample.shape, fitted.weights.shape[-1], fitted.documents.shape[-1]
    for name, dtype, shape in (
        ("sample", np.float16, (s, d)),
        ("centres", np.float32, (s,)),
        ("weights", np.float16, (d, f)),
        ("thresholds", np.float32, (f,)),
        ("documents", np.float16, (s, dim)),
        ("queries", np.float16, (f, dim)),
        ("lift", np.float32, (dim,)),
    ):
        array = getattr(fitted, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has a NaN or infinite value")


def _build(content: Mapping[str, Any], state: SavedArrays) -> RegressionEncoder:
    if not state:
        raise ValueError(
            "a regression encoder is too large to be kept with a collection: load it from the file that save() wrote"
        )
    missing = sorted(set(Fitted._fields) - set(state))
    if missing:
        raise ValueError(f"the saved state of a regression encoder has no {', '.join(missing)}")
    if np.ndim(state["sample"]) != 2:
        raise ValueError("sample must be a matrix")
    return RegressionEncoder(Fitted(**{name: state[name] for name in Fitted._fields}))


register("regression", _build)
