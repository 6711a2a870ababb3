"""The configuration of an FDE: sizes, seed and options, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

Projection = Literal["orthonormal", "rademacher", "count_sketch"]
Algorithm = Literal["muvera-2", "muvera-1", "fastembed-1"]

MAX_K_SIM = 16
# a bound for memory, not for quality; every supported database stores fewer dimensions
MAX_FDE_DIM = 1 << 24

# constants of of_size(), as measured with documents of 48 to 900 tokens
_D_PROJ = 8
_LEAST_REPS, _MOST_K_SIM = 10, 5
_SHORT, _SHORT_MOST_K_SIM = 60, 3  # below 60 tokens, k_sim is at most 3
_ENOUGH_REPS = ((500, 20), (200, 40))  # above 500 tokens, 20 repetitions are enough; above 200, 40


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Hash of ``content`` in 32 hex digits, which changes with any value in it."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FDEConfig:
    """All settings of a Fixed Dimensional Encoding (MUVERA, arXiv 2405.19504, section 2).

    Encoders with equal configs produce interchangeable FDEs, on every machine.

    ``algorithm`` says how the random matrices are drawn:

    - ``"muvera-2"``: orthogonal draws. Each random rotation gives ``dim`` orthogonal hyperplanes, and successive
      repetitions take the next ``k_sim`` of them ("super-bit" LSH, Ji et al., NIPS 2012). Further rotations are cut
      into disjoint projections of ``d_proj`` dimensions, one for each repetition (orthogonal random features, Yu et
      al., NIPS 2016). Repetitions then share less information, so the same recall needs fewer dimensions. Where
      ``dim`` is a power of two of at least 64, a rotation is three rounds of random signs and a Walsh-Hadamard
      transform, which makes hashing several times faster. Otherwise it is drawn uniformly.
    - ``"muvera-1"``: the independent draws of the paper: Gaussian hyperplanes, and a projection for each repetition.
    - ``"fastembed-1"``: the draws of fastembed's ``Muvera``, see :meth:`fastembed`.

    Args:
        dim: width of a token vector (d in the paper).
        r_reps: number of repetitions (R in the paper). More repetitions lower the noise. With everything else equal,
            the FDE of fewer repetitions is a prefix of the longer one (before scaling; not with ``d_final``).
        k_sim: number of hyperplanes in a repetition, which make 2**k_sim partitions.
        d_proj: dimensions of a partition after the inner projection, at most ``dim``; None: no projection.
        seed: seed of all randomness, at least 0. The matrices of a repetition depend on the seed, its number and, with
            ``"muvera-2"``, on ``k_sim`` and ``d_proj``; they never depend on ``r_reps``.
        projection: kind of the inner projection. ``"orthonormal"``: columns of a random rotation scaled by
            sqrt(d / d_proj), which have the lowest variance; ``"rademacher"``: +-1/sqrt(d_proj), as in the paper;
            ``"count_sketch"``: one +-1 for each dimension. The last two are drawn independently for each repetition
            with every algorithm.
        fill_empty: whether an empty partition of a document gets the token that is nearest in Hamming distance (of
            equally near ones, the first).
        normalize: whether FDEs of documents are scaled to unit length. The paper does not do this (``False`` is the
            paper's). It costs nothing and raised recall on every collection measured. Queries are never scaled.
        d_final: dimensions after a final count sketch over all repetitions (appendix C.2 has a dense matrix here);
            None: no final projection.
        algorithm: version of the construction, see above.

    Raises:
        ValueError: a size is out of range, or sizes contradict each other.
        TypeError: a size is not an integer.
    """

    dim: int
    r_reps: int = 40
    k_sim: int = 3
    d_proj: int | None = 8
    seed: int = 42
    projection: Projection = "orthonormal"
    fill_empty: bool = True
    normalize: bool = True
    d_final: int | None = None
    algorithm: Algorithm = "muvera-2"

    def __post_init__(self) -> None:
        for name in ("dim", "r_reps", "k_sim", "d_proj", "seed", "d_final"):
            value = getattr(self, name)
            if value is None and name in ("d_proj", "d_final"):
                continue
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            object.__setattr__(self, name, value.__index__())
            if value < (0 if name in ("k_sim", "seed") else 1):
                raise ValueError(f"{name} must be at least {0 if name in ('k_sim', 'seed') else 1}, got {value}")
        for name in ("fill_empty", "normalize"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, allowed in (("projection", get_args(Projection)), ("algorithm", get_args(Algorithm))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        if self.k_sim > MAX_K_SIM:
            raise ValueError(f"k_sim={self.k_sim} makes 2**{self.k_sim} partitions; k_sim can be at most {MAX_K_SIM}")
        if self.d_proj is not None and self.d_proj > self.dim:
            raise ValueError(
                f"d_proj={self.d_proj} is larger than dim={self.dim}: a projection cannot add dimensions; "
                f"use d_proj=None to keep all {self.dim}"
            )
        if self.d_final is None:
            if self.fde_dim > MAX_FDE_DIM:
                raise ValueError(f"these sizes give {self.fde_dim} dimensions; at most {MAX_FDE_DIM} are supported")
        elif not self.block_dim <= self.d_final <= self.unprojected_dim:
            raise ValueError(
                f"d_final={self.d_final} must be between the {self.block_dim} dimensions of one partition and the "
                f"{self.unprojected_dim} = r_reps * 2**k_sim * {self.block_dim} that it projects"
            )

    @property
    def n_partitions(self) -> int:
        """Number of partitions of one repetition: 2**k_sim."""
        return 1 << self.k_sim

    @property
    def block_dim(self) -> int:
        """Dimensions of one partition: d_proj, or dim without inner projection."""
        return self.dim if self.d_proj is None else self.d_proj

    @property
    def unprojected_dim(self) -> int:
        """Dimensions before the final projection: r_reps * 2**k_sim * block_dim."""
        return self.r_reps * self.n_partitions * self.block_dim

    @property
    def fde_dim(self) -> int:
        """Dimensions of an FDE."""
        return self.unprojected_dim if self.d_final is None else self.d_final

    @property
    def fingerprint(self) -> str:
        """32 hex digits. Two configs have the same fingerprint exactly if their FDEs are interchangeable.

        What an encoder has fitted is not part of its config.
        """
        return fingerprint_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Describes the config in JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FDEConfig:
        """Rebuilds the config that :meth:`to_dict` described.

        Raises:
            ValueError: a key is unknown or ``dim`` is missing, because another version wrote the content or it is not
                an FDE config.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(content) - known)
        if unknown or "dim" not in content:
            problem = f"unknown keys {', '.join(unknown)}" if unknown else "no key 'dim'"
            raise ValueError(f"not an FDE config of this version: {problem}; keys are {', '.join(sorted(known))}")
        return cls(**content)

    @classmethod
    def of_size(cls, dim: int, fde_dim: int, tokens: float | None = None, **options: Any) -> FDEConfig:
        """Chooses the config for a number of dimensions, with the sizes that ranked best in measurements.

        ``d_proj`` is 8 (None where ``dim`` is at most 8). ``k_sim`` is the largest that leaves enough repetitions: five
        times as many as partitions. This gives 1 from 160 dimensions on, 2 from 640, 3 from 2,560, 4 from 10,240 and 5
        from 40,960. For documents of more than 200 tokens, 40 repetitions are enough (4 from 5,120 on, 5 from 10,240).
        For documents of more than 500 tokens, 20 are enough (3 from 1,280 on, 4 from 2,560, 5 from 5,120). For
        documents of fewer than 60 tokens, ``k_sim`` is at most 3. docs/encoders.md has the measurements.

        The ``fde_dim`` of the result is the largest multiple of ``2**k_sim * d_proj`` that is at most the given one. It
        differs from the given one by less than one repetition. A larger argument never gives a smaller result.
        ``of_size(dim, 2560)`` is the default config where ``dim`` is more than 8.

        Args:
            dim: width of a token vector.
            fde_dim: maximum number of dimensions of an FDE, at least 20 times ``d_proj``.
            tokens: typical number of tokens of a document, such as the mean; None: not known.
            options: other arguments of the constructor (seed, normalize, ...), except sizes.

        Raises:
            ValueError: ``fde_dim`` is too small for a useful ranking or too large, or ``tokens`` is not positive.
            TypeError: a number is not an integer, or an option is a size.
        """
        sizes = sorted({"r_reps", "k_sim", "d_proj", "d_final"} & set(options))
        if sizes:
            raise TypeError(f"of_size() chooses the sizes itself, got {', '.join(sizes)}; give them to FDEConfig()")
        plain = cls(dim, d_proj=None, k_sim=0, r_reps=1, **options)
        block = min(_D_PROJ, plain.dim)
        if isinstance(fde_dim, bool) or not hasattr(fde_dim, "__index__"):
            raise TypeError(f"fde_dim must be an integer, got {fde_dim!r}")
        if tokens is not None and not tokens > 0:
            raise ValueError(f"tokens must be a positive number, got {tokens!r}")
        cells = fde_dim.__index__() // block
        k_sim = max((k for k in range(1, _MOST_K_SIM + 1) if cells >> k >= _least_reps(k, tokens)), default=0)
        if not k_sim:
            raise ValueError(
                f"fde_dim={fde_dim} is too small for an FDE of tokens of width {dim}: use at least "
                f"{2 * _LEAST_REPS * block} dimensions, or a RegressionEncoder, which needs fewer"
            )
        d_proj = block if plain.dim > block else None
        return replace(plain, r_reps=cells >> k_sim, k_sim=k_sim, d_proj=d_proj)

    @classmethod
    def fastembed(
        cls, dim: int, k_sim: int = 5, dim_proj: int = 16, r_reps: int = 20, random_seed: int = 42
    ) -> FDEConfig:
        """The encoding of fastembed's ``Muvera``, for collections that fastembed filled.

        The arguments are those of fastembed, and so are the random draws. The projection is +-1 (none when ``dim_proj``
        equals ``dim``), and documents are not scaled. An empty partition gets the first token of the nearest partition
        (of equally near ones, the lowest). FDEs agree to float32 rounding; fastembed returns float64.
        """
        if dim_proj > dim:
            raise ValueError(f"dim_proj={dim_proj} is larger than dim={dim}, which fastembed does not allow either")
        return cls(
            dim=dim,
            r_reps=r_reps,
            k_sim=k_sim,
            d_proj=None if dim_proj == dim else dim_proj,
            seed=random_seed,
            projection="rademacher",
            normalize=False,
            algorithm="fastembed-1",
        )


def _least_reps(k_sim: int, tokens: float | None) -> float:
    """Number of repetitions from which ``k_sim`` hyperplanes rank better than fewer, for documents of this length."""
    if tokens is not None and tokens < _SHORT and k_sim > _SHORT_MOST_K_SIM:
        return math.inf
    enough = next((reps for above, reps in _ENOUGH_REPS if tokens is not None and tokens > above), math.inf)
    return min(enough, _LEAST_REPS << (k_sim - 1))
