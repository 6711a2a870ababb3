"""An encoding that is fitted to a sample of the collection: more recall than an FDE in fewer dimensions."""

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
# of a generator's documents that are held at a time
_SLICE_TOKENS = 1 << 16


class RegressionEncoder:
    """Encodes token matrices so that ``query_vector @ document_vector`` approximates their MaxSim score.

    The largest dot product of a token x with a document's tokens is a function of x, and a linear one of enough
    nonlinear features of x: phi(x) @ w, with w from a ridge regression over sample tokens of the collection. Then
    MaxSim is the sum of phi over the query's tokens, times w: LEMUR's idea (arXiv 2601.21853) with random features and
    a closed form. Of some thousand features, the ``dim - 1`` directions are kept in which the sample's documents
    differ most. One more coordinate makes every document a unit vector (graphs rank such vectors well) without
    changing a dot product, and a random rotation spreads everything evenly over the coordinates (so that codes of few
    bits lose little).

    ``fit`` makes one; new documents need no other fit while they are like those of the sample. A document costs two
    matrix products, the larger with the sample: some 20 to 80 times an FDE. The result depends on the
    document or query alone: not on the batch around it, nor on ``threads``. Where numba is not installed, numpy
    computes it, and rounds differently in other batches.

    Queries are of unit length too. A dot product is MaxSim less that of the query with the average document, times a
    factor that depends on the query: it ranks documents of one query, may be negative, and says nothing across queries.
    A document more than 1.25 times further from the average than any of the sample's is scaled to unit length without
    the further coordinate: its direction is right, its scores are too near 0 by that factor.

    Attributes:
        threads: at most so many are used.
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
        """An encoder for collections like the sample.

        Equal arguments give an encoder of the same fingerprint with the same numpy, on the same kind of machine with
        the same number of threads. Elsewhere BLAS rounds differently: fit once, save, and load where it is needed.
        Where the sample is torch tensors on a GPU, the products of the fit are computed there, in float32 and float64.

        Args:
            sample: documents of the collection, as they will be encoded (pooled, if they are), some thousands with at
                least ``sample_tokens`` tokens in all, in any form that :meth:`encode_documents` takes. Held in memory
                meanwhile.
            dim: dimensions of a vector: 256, 512 or 1,024 as a rule. More than 1,024 gain little.
            seed: seed of all randomness, at least 0.
            queries: queries like those to come, in any form that :meth:`encode_queries` takes; None: there are none.
                All of their tokens are fitted to, but at most ``sample_tokens // 2``, which are then drawn at random;
                documents' tokens are the rest. Where queries are encoded differently from documents (markers, [MASK]
                tokens) and there are none yet, pass the texts of some documents, encoded as queries.
            centres: number of k-means centres of the sample's tokens that documents are compared with, 2,000 as a
                rule; None: they are compared with all tokens that are fitted to. The time of a document is proportional
                to this number.
            sample_tokens: number of tokens to fit to. The memory of a fit is proportional to it, and without
                ``centres`` the time of a document too.
            features: number of features of a token, at least ``dim - 1``.
            ridge: regularisation, as a share of the mean squared feature.
            references: number of documents, drawn from the sample, that decide the average and the directions that are
                kept. Where the sample has at most half as many, parts of its documents help to decide the directions.
            threads: maximum number of threads; None: one per core this process may use.

        Raises:
            InvalidTokens: a document of the sample or a query is empty, of another width, not finite, or has an
                all-zero token.
            ValueError: an argument is out of range, ``queries`` is empty, the sample's documents are all alike, or its
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
            raise InvalidTokens("the sample must be documents; one matrix of tokens does not say which is whose")
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
                raise ValueError("queries is empty; leave it out where there are none")
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
        """Width of the token vectors it takes, that of the sample's."""
        return int(self._fitted.sample.shape[1])

    @property
    def dim(self) -> int:
        """Dimensions of the vectors it gives."""
        return int(self._fitted.documents.shape[1])

    @property
    def document_norm(self) -> float:
        """Length of every document's vector: 1."""
        return 1.0

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that was fitted, bit by bit."""
        digest = hashlib.sha256()
        for name, array in self._fitted._asdict().items():
            digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return fingerprint_of({"algorithm": _ALGORITHM, "state": digest.hexdigest()})

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """Vectors of documents, each of unit length.

        Args:
            docs: a :class:`TokenBatch`, an iterable of (n_i, dim) matrices, or an (n, t, dim) array with ``mask``.
                Matrices may be float16, float32 or float64 arrays, torch tensors or nested lists. Of a generator, some
                65,536 tokens are held at a time. Torch tensors on a GPU are encoded there, and may differ from the
                processor's results by rounding.
            mask: (n, t), 1 or True for real tokens.

        Returns:
            (n, dim) float32, row i for document i.

        Raises:
            InvalidTokens: a document is empty, of another width, not numeric, or has a token that is NaN, infinite or
                all zeros (padding). The message and ``position`` name it; nothing is returned in part.
        """
        return self._encode(docs, mask, "document", self._encode_documents)

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """Vectors of queries, (n, dim) float32, of unit length; input and errors as for :meth:`encode_documents`.

        Keep the query augmentation ([MASK] tokens) if the model was trained with it.
        """
        return self._encode(queries, mask, "query", self._encode_queries)

    def encode_document(self, tokens: ArrayLike) -> Float32:
        """Vector (dim,) of one (n, dim) matrix."""
        return self.encode_documents([tokens])[0]

    def encode_query(self, tokens: ArrayLike, weights: ArrayLike | None = None) -> Float32:
        """Vector (dim,) of one (n, dim) matrix, of unit length.

        Args:
            tokens: (n, dim) token vectors.
            weights: (n,) factors of the tokens' contributions; None: 1 each.
        """
        if weights is None:
            return self.encode_queries([tokens])[0]
        matrix = to_matrix(tokens, dim=self.token_dim, what="query")
        rows = to_matrices([row[None] for row in matrix], None, dim=self.token_dim, what="query")
        each = self._query_sums(Located(rows, "query"))
        return _of_unit_length(weighted_sum(weights, each)[None])[0]

    def to_dict(self) -> dict[str, Any]:
        """What it is, without its state (tens of MB): a collection keeps the fingerprint, :meth:`save` everything."""
        return {"type": "regression", "fingerprint": self.fingerprint, "token_dim": self.token_dim, "dim": self.dim}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the encoder to a file for :func:`load_encoder`; nothing in it is executed when loaded."""
        save_encoder(path, self.to_dict(), self._fitted._asdict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RegressionEncoder:
        """The encoder that :meth:`save` wrote; errors as :func:`load_encoder`'s."""
        from muvera_core.encoder import load_encoder

        encoder = load_encoder(path)
        if not isinstance(encoder, cls):
            raise ValueError(f"{os.fspath(path)} holds a {type(encoder).__name__}, not a {cls.__name__}")
        return encoder

    def __repr__(self) -> str:
        return f"RegressionEncoder({self.token_dim} -> {self.dim}, fingerprint {self.fingerprint})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_fitted": self._fitted, "threads": self.threads}  # the kernels' copies are made again

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
        # codes cut a query's coordinates off at the documents' range (int8), so it is no longer than they are
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
    """Whether it is a torch tensor on another device than the processor."""
    return hasattr(tensor, "detach") and str(tensor.device.type) not in ("cpu", "meta")


def _gpu(docs: Any) -> Any:
    """The device of documents that are torch tensors on another device than the processor, else None."""
    first = docs[0] if isinstance(docs, Sequence) and len(docs) else docs
    return first.device if _on_gpu(first) else None


def _slices(docs: Iterator[ArrayLike], dim: int, what: str) -> Iterator[Located]:
    """The documents of an iterator, some at a time; errors count from its start."""
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
        raise ValueError("the state of a regression encoder is too big to travel; it is in the file that save() wrote")
    missing = sorted(set(Fitted._fields) - set(state))
    if missing:
        raise ValueError(f"the saved state of a regression encoder has no {', '.join(missing)}")
    if np.ndim(state["sample"]) != 2:
        raise ValueError("sample must be a matrix")
    return RegressionEncoder(Fitted(**{name: state[name] for name in Fitted._fields}))


register("regression", _build)
