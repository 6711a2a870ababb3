"""Fixed Dimensional Encodings (MUVERA, arXiv 2405.19504, section 2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from muvera_core._draws import Draws, draw
from muvera_core._layout import LANES, Float32, aligned, aligned_rows, paired_panels, panels
from muvera_core._parallel import default_threads, for_chunks
from muvera_core._plain import PlainFDE, has_numba
from muvera_core.config import FDEConfig, fingerprint_of
from muvera_core.encoder import SavedArrays, register, save_encoder
from muvera_core.tokens import (
    ArrayLike,
    InvalidTokens,
    Located,
    to_batch,
    to_matrices,
    to_matrix,
    weighted_sum,
)

# tokens of one kernel call: with these, the packed tokens and the scratch memory stay in a core's L2 cache
_CHUNK_TOKENS = 1024


class FDEEncoder:
    """Encodes token matrices so that ``query_fde @ document_fde`` approximates their MaxSim score.

    The construction is that of MUVERA (arXiv 2405.19504). In every repetition, ``k_sim`` random hyperplanes divide the
    space into partitions. A query's partition holds the sum of its tokens, and a document's partition holds the mean.
    An empty partition of a document holds the token that is nearest in Hamming distance. Each partition is projected
    to ``d_proj`` dimensions, and all are concatenated. ``config.algorithm`` says how hyperplanes and projections are
    drawn: by default from rotations that repetitions share. Without ``config.normalize``, the dot product approximates
    ``r_reps`` times MaxSim. It never exceeds this when ``d_proj`` and ``d_final`` are None (lemma A.3), however the
    hyperplanes are drawn.

    The result for a document depends only on its tokens, not on the other documents of the batch or on ``threads``.
    Partitions are decided in float64, everything else is float32. An encoder can be used from several threads and
    after a fork. The first use compiles the kernels, which takes seconds, once per machine (the code is cached on
    disk). Where numba is not installed, numpy computes the same vectors, except
    for rounding, and takes several times as long.

    Args:
        config: sizes, seed and options of the encoding.
        threads: maximum number of threads; None: one for each core that this process may use.

    Attributes:
        config: sizes, seed and options of the encoding.
        mean: (dim,) float32 mean of the sample's tokens, as :meth:`fit` measured it; None for an encoder that was not
            fitted.
        threads: maximum number of threads.
    """

    def __init__(self, config: FDEConfig, *, threads: int | None = None) -> None:
        if not isinstance(config, FDEConfig):
            raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.config = config
        self.mean: Float32 | None = None
        self.threads = threads or default_threads()

    @classmethod
    def fit(cls, config: FDEConfig, sample_tokens: Any, *, threads: int | None = None) -> FDEEncoder:
        """Makes an encoder for models whose token vectors share a direction (anisotropic models).

        A large common part of all tokens makes them fall into few partitions, and the noise of its projection hides
        the differences that rank documents. A fitted encoder therefore hashes x - mean. It keeps the mean's direction
        as one exact coordinate of the projection, and draws the other d_proj - 1 at random in its complement. The
        estimate of the original MaxSim stays unbiased, at the same size. On isotropic vectors it does no harm. (No
        paper describes this; docs/design.md has the measurements.)

        Args:
            config: sizes, seed and options of the encoding; ``d_proj`` must be at least 2, or None.
            sample_tokens: about 10,000 token vectors of the collection: an (n, dim) array, or documents in any form
                that :meth:`encode_documents` takes.
            threads: maximum number of threads; None: one for each core that this process may use.

        Raises:
            InvalidTokens: the sample is empty, its vectors have another width, or a value is not finite.
            ValueError: the config cannot be fitted, or the sample's mean is zero.
        """
        if config.algorithm == "fastembed-1":
            raise ValueError(
                f"a config with algorithm {config.algorithm} cannot be fitted: its FDEs would no longer match those of "
                "fastembed"
            )
        if config.d_proj is not None and config.d_proj < 2:
            raise ValueError(f"d_proj={config.d_proj} has no room for the mean's direction: use at least 2")
        if getattr(sample_tokens, "ndim", None) == 2:
            sample_tokens = [sample_tokens]
        sample = to_batch(sample_tokens, dim=config.dim, what="sample").values
        if len(sample) == 0:
            raise InvalidTokens("the sample has no tokens")
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        if not np.isfinite(mean).all():
            bad = np.flatnonzero(~np.isfinite(sample).all(axis=1))
            raise InvalidTokens(f"the sample's token {bad[0] if len(bad) else 0} has a NaN or infinite value")
        return cls._fitted(config, mean, threads)

    @classmethod
    def _fitted(cls, config: FDEConfig, mean: Float32, threads: int | None) -> FDEEncoder:
        if not mean.any():
            raise ValueError("the sample's mean is zero, so there is no common direction: use FDEEncoder(config)")
        encoder = cls(config, threads=threads)
        # rounded to the shortest decimals, so that to_dict() is short and restores exactly the same bits
        encoder.mean = np.array([float(str(x)) for x in mean], np.float32)
        encoder.mean.flags.writeable = False
        return encoder

    @property
    def token_dim(self) -> int:
        """Width of the token vectors that the encoder takes: ``config.dim``."""
        return self.config.dim

    @property
    def dim(self) -> int:
        """Number of dimensions of an FDE: ``config.fde_dim``."""
        return self.config.fde_dim

    @property
    def document_norm(self) -> float | None:
        """Length of a document's FDE: 1 where FDEs are scaled (``config.normalize``), else None because it varies."""
        return 1.0 if self.config.normalize else None

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits: the config's fingerprint, or for a fitted encoder that of the config and the mean together."""
        if self.mean is None:
            return self.config.fingerprint
        return fingerprint_of({"config": self.config.to_dict(), "mean": _decimals(self.mean)})

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """Computes the FDEs of documents.

        Args:
            docs: a :class:`TokenBatch`, an iterable of (n_i, dim) matrices, or an (n, t, dim) array with ``mask``.
                Matrices can be float16, float32 or float64 arrays, torch tensors or nested lists.
            mask: (n, t) mask of a padded array, 1 or True for real tokens.

        Returns:
            (n, fde_dim) float32 FDEs; row i belongs to document i.

        Raises:
            InvalidTokens: a document is empty, has vectors of another width, is not numeric, or has a token that is
                NaN, infinite or all zeros (padding). The message and ``position`` name the document; no FDEs are
                returned.
        """
        return self._encode(docs, mask, "document")

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """Computes the FDEs of queries, (n, fde_dim) float32; input and errors are those of :meth:`encode_documents`.

        FDEs of queries are never scaled. Keep the query augmentation ([MASK] tokens) if the model was trained with it.
        """
        return self._encode(queries, mask, "query")

    def encode_document(self, tokens: ArrayLike) -> Float32:
        """Computes the (fde_dim,) FDE of one document, given as an (n, dim) matrix."""
        return self._encode([to_matrix(tokens, dim=self.token_dim, what="document")], None, "document")[0]

    def encode_query(self, tokens: ArrayLike, weights: ArrayLike | None = None) -> Float32:
        """Computes the (fde_dim,) FDE of one query.

        Args:
            tokens: (n, dim) token vectors of the query.
            weights: (n,) factors of the tokens' contributions; None: 1 each. Weights do not change the partition of a
                token, so with a fitted encoder the result is not the FDE of scaled tokens.
        """
        matrix = to_matrix(tokens, dim=self.token_dim, what="query")
        if weights is None:
            return self._encode([matrix], None, "query")[0]
        return weighted_sum(weights, self._encode([row[None] for row in matrix], None, "query"))

    def to_dict(self) -> dict[str, Any]:
        """Describes the whole encoder in JSON values; :func:`encoder_from_dict` rebuilds it."""
        content: dict[str, Any] = {"type": "fde", "fingerprint": self.fingerprint, "config": self.config.to_dict()}
        if self.mean is not None:
            content["mean"] = _decimals(self.mean)
        return content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the encoder to a file for :func:`load_encoder`; loading executes nothing from the file."""
        save_encoder(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FDEEncoder:
        """Reads the encoder that :meth:`save` wrote; errors are those of :func:`load_encoder`."""
        from muvera_core.encoder import load_encoder

        encoder = load_encoder(path)
        if not isinstance(encoder, cls):
            raise ValueError(f"{os.fspath(path)} holds a {type(encoder).__name__}, not an {cls.__name__}")
        return encoder

    def __repr__(self) -> str:
        return f"FDEEncoder({self.config}{', fitted' if self.mean is not None else ''})"

    def _encode(self, docs: Any, mask: ArrayLike | None, what: str) -> Float32:
        located = Located(to_matrices(docs, mask, dim=self.token_dim, what=what), what)
        out = aligned_rows(len(located.addresses), self.dim)
        config, query = self.config, what == "query"
        if not has_numba():
            for row, tokens in zip(out, located.checked(), strict=True):
                row[:] = self._plain.encode(tokens, query)
            return out
        from muvera_core import _kernels  # compiles or loads numba code: only when something is encoded

        matrices = self._kernel_arguments

        def work(i: int, j: int) -> None:
            state, position, token = _kernels.encode(
                located.addresses[i:j],
                located.offsets[i : j + 1],
                located.half,
                config.dim,
                *matrices,
                query,
                config.fill_empty and not query,
                config.algorithm == "fastembed-1",
                config.normalize and not query,
                out[i:j],
            )
            if state != _kernels.OK:
                raise located.bad_token(state == _kernels.NOT_FINITE, i + position, token)

        for_chunks(located.lengths, _CHUNK_TOKENS, self.threads, work)
        return out

    @cached_property
    def _plain(self) -> PlainFDE:
        return PlainFDE(self.config, self.mean)

    @cached_property
    def _kernel_arguments(self) -> tuple[Any, ...]:
        """The matrices in the layouts of the kernel: _draws.py explains the matrices, _simd.py the panels."""
        config, draws = self.config, draw(self.config, self.mean)
        n = config.r_reps * config.k_sim
        hyperplanes = draws.hyperplanes.reshape(n, config.dim)
        thresholds = draws.thresholds.reshape(n)
        padded = -(-n // LANES) * LANES
        limits = np.full(padded, np.float32(3e38))  # no padded hyperplane is ever passed
        limits[:n] = thresholds
        # bound of the float32 rounding of g . x - threshold, relative to max |x_i|; half an ulp counts as a whole one
        if draws.flips is None:  # d + 2 roundings, each relative to the sum of |g_i x_i|
            rounding = (config.dim + 2) * np.abs(hyperplanes).sum(axis=1).max(initial=0)
            hash_panels = panels(hyperplanes.T[None]).reshape(padded // LANES, config.dim, LANES)
        else:  # levels are rotations: each adds one rounding, relative to the length d**1.5 |x| of the result
            rounding = (draws.flips.shape[1] * np.log2(config.dim) + 2) * config.dim**2
            hash_panels = np.zeros((0, config.dim, LANES), np.float32)
        margin = np.float32(rounding * 2.0**-23)
        # the rounding of the thresholds themselves matters for tokens that are far shorter than the mean
        slack = np.float32(2.0**-22 * np.abs(thresholds).max()) if n else np.float32(0)
        return (
            np.column_stack([hyperplanes, thresholds]),
            aligned(limits),
            hash_panels,
            aligned(draws.flips if draws.flips is not None else np.zeros((0, 1, config.dim))),
            margin,
            slack,
            config.k_sim,
            *_projection_arguments(config, draws),
        )


def _projection_arguments(config: FDEConfig, draws: Draws) -> tuple[Any, ...]:
    if draws.projections is None:
        projections = np.zeros((config.r_reps, 0, config.dim, LANES), np.float32)
    else:
        narrow = draws.projections.shape[2] <= LANES // 2 and config.dim > 1
        projections = (paired_panels if narrow else panels)(draws.projections)
    shifts = draws.shifts if draws.shifts is not None else np.zeros((config.r_reps, 0), np.int64)
    negative = draws.signs < 0 if draws.signs is not None else np.zeros((config.r_reps, 0, 0), np.bool_)
    padded = np.pad(negative, ((0, 0), (0, 0), (0, -negative.shape[2] % LANES)))
    bits = np.packbits(padded, axis=2, bitorder="little").view(np.uint16)
    return projections, config.d_proj or 0, shifts, bits, config.d_final or 0


def _decimals(values: Float32) -> list[float]:
    """The shortest decimals that read back as the same float32 values."""
    return [float(str(x)) for x in values]


def _build(content: Mapping[str, Any], state: SavedArrays) -> FDEEncoder:
    config = content.get("config")
    if not isinstance(config, Mapping):
        raise ValueError("the description of an FDE encoder has no config")
    config = FDEConfig.from_dict(config)
    if content.get("mean") is None:
        return FDEEncoder(config)
    mean = np.asarray(content["mean"], np.float32)
    if mean.shape != (config.dim,) or not np.isfinite(mean).all():
        raise ValueError(f"the fitted mean must be {config.dim} finite numbers, got shape {mean.shape}")
    return FDEEncoder._fitted(config, mean, None)


register("fde", _build)
