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

# of one kernel call: the packed tokens and the scratch stay in a core's L2 cache
_CHUNK_TOKENS = 1024


class FDEEncoder:
    """Encodes token matrices so that ``query_fde @ document_fde`` approximates their MaxSim score.

    The construction is MUVERA's (arXiv 2405.19504). In every repetition, a token's side of ``k_sim`` random hyperplanes
    names its partition. A query's partition holds the sum of its tokens, a document's the mean, and an empty one of a
    document the nearest token (in Hamming distance); all are projected to ``d_proj`` dimensions and concatenated.
    Hyperplanes and projections are drawn as ``config.algorithm`` says: by default from rotations that repetitions
    share. Unscaled, the dot product approximates ``r_reps`` times MaxSim, and never exceeds it when ``d_proj`` and
    ``d_final`` are None (lemma A.3), however the hyperplanes are drawn.

    The result for a document depends on its tokens alone: not on the batch around it, nor on ``threads``. Partitions
    are decided in float64, everything else is float32. An encoder may be used from several threads and after a fork.
    Its first use compiles the kernels (seconds, once per machine; the code is cached on disk). Where numba is not
    installed, numpy computes the same vectors, but for rounding and several times slower.

    Args:
        config: sizes, seed and options.
        threads: at most so many; None: one per core this process may use.

    Attributes:
        config: as given.
        mean: (dim,) float32, what :meth:`fit` measured, or None.
        threads: as given, or the number of cores.
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
        """An encoder for models whose token vectors share a direction (anisotropic models).

        A large common part makes all tokens fall into few partitions, and the noise of projecting it drowns the
        differences that rank documents. So the hash looks at x - mean, and the mean's direction is kept as one exact
        coordinate of the projection, the other d_proj - 1 being random in its complement: still an unbiased estimate
        of the original MaxSim, at the same size. Harmless on isotropic vectors. (No paper has it; docs/design.md
        gives the measurements.)

        Args:
            config: sizes, seed and options; ``d_proj`` at least 2 or None.
            sample_tokens: token vectors of the corpus, some 10,000: an (n, dim) array, or documents in any form that
                :meth:`encode_documents` takes.
            threads: as in the constructor.

        Raises:
            InvalidTokens: the sample is empty, of another width, or not finite.
            ValueError: the config cannot be fitted, or the sample's mean is zero.
        """
        if config.algorithm == "fastembed-1":
            raise ValueError(f"a config of algorithm {config.algorithm} cannot be fitted: nothing else would match it")
        if config.d_proj is not None and config.d_proj < 2:
            raise ValueError(f"d_proj={config.d_proj} has no room for the mean's direction; use at least 2")
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
            raise ValueError("the sample's mean is zero: there is no common direction, use FDEEncoder(config)")
        encoder = cls(config, threads=threads)
        # through its shortest decimal form, so that to_dict() is short and gives back these very bits
        encoder.mean = np.array([float(str(x)) for x in mean], np.float32)
        encoder.mean.flags.writeable = False
        return encoder

    @property
    def token_dim(self) -> int:
        """Width of the token vectors it takes, ``config.dim``."""
        return self.config.dim

    @property
    def dim(self) -> int:
        """Dimensions of an FDE, ``config.fde_dim``."""
        return self.config.fde_dim

    @property
    def document_norm(self) -> float | None:
        """Length of every document's FDE: 1 where they are scaled (``config.normalize``), else None, as it varies."""
        return 1.0 if self.config.normalize else None

    @cached_property
    def fingerprint(self) -> str:
        """The config's, or one of the config and the fitted mean."""
        if self.mean is None:
            return self.config.fingerprint
        return fingerprint_of({"config": self.config.to_dict(), "mean": _decimals(self.mean)})

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """FDEs of documents.

        Args:
            docs: a :class:`TokenBatch`, an iterable of (n_i, dim) matrices, or an (n, t, dim) array with ``mask``.
                Matrices may be float16, float32 or float64 arrays, torch tensors or nested lists.
            mask: (n, t), 1 or True for real tokens.

        Returns:
            (n, fde_dim) float32, row i for document i.

        Raises:
            InvalidTokens: a document is empty, of another width, not numeric, or has a token that is NaN, infinite or
                all zeros (padding). The message and ``position`` name it; nothing is returned in part.
        """
        return self._encode(docs, mask, "document")

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """FDEs of queries, (n, fde_dim) float32; input and errors as for :meth:`encode_documents`.

        Never scaled. Keep the query augmentation ([MASK] tokens) if the model was trained with it.
        """
        return self._encode(queries, mask, "query")

    def encode_document(self, tokens: ArrayLike) -> Float32:
        """FDE (fde_dim,) of one (n, dim) matrix."""
        return self._encode([to_matrix(tokens, dim=self.token_dim, what="document")], None, "document")[0]

    def encode_query(self, tokens: ArrayLike, weights: ArrayLike | None = None) -> Float32:
        """FDE (fde_dim,) of one (n, dim) matrix.

        Args:
            tokens: (n, dim) token vectors.
            weights: (n,) factors of the tokens' contributions; None: 1 each. A token's partition depends on the token
                alone, so this is not the FDE of scaled tokens where the encoder was fitted.
        """
        matrix = to_matrix(tokens, dim=self.token_dim, what="query")
        if weights is None:
            return self._encode([matrix], None, "query")[0]
        return weighted_sum(weights, self._encode([row[None] for row in matrix], None, "query"))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values; :func:`encoder_from_dict` rebuilds the encoder."""
        content: dict[str, Any] = {"type": "fde", "fingerprint": self.fingerprint, "config": self.config.to_dict()}
        if self.mean is not None:
            content["mean"] = _decimals(self.mean)
        return content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the encoder to a file for :func:`load_encoder`; nothing in it is executed when loaded."""
        save_encoder(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FDEEncoder:
        """The encoder that :meth:`save` wrote; errors as :func:`load_encoder`'s."""
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
        """The matrices in the kernel's layouts: see _simd.py for panels, _draws.py for what they are."""
        config, draws = self.config, draw(self.config, self.mean)
        n = config.r_reps * config.k_sim
        hyperplanes = draws.hyperplanes.reshape(n, config.dim)
        thresholds = draws.thresholds.reshape(n)
        padded = -(-n // LANES) * LANES
        limits = np.full(padded, np.float32(3e38))  # no padded hyperplane is ever passed
        limits[:n] = thresholds
        # float32 rounding of g . x - threshold, relative to max |x_i|, with half an ulp counted as a whole one
        if draws.flips is None:  # d + 2 roundings, each relative to the sum of |g_i x_i|
            rounding = (config.dim + 2) * np.abs(hyperplanes).sum(axis=1).max(initial=0)
            hash_panels = panels(hyperplanes.T[None]).reshape(padded // LANES, config.dim, LANES)
        else:  # levels are rotations: each adds one rounding, relative to the length d**1.5 |x| of the result
            rounding = (draws.flips.shape[1] * np.log2(config.dim) + 2) * config.dim**2
            hash_panels = np.zeros((0, config.dim, LANES), np.float32)
        margin = np.float32(rounding * 2.0**-23)
        # a token far shorter than the mean: the rounding of the thresholds themselves
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
    """Shortest decimals that give back the same float32."""
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
