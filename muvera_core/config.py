"""What determines an FDE: sizes, seed and options, with a fingerprint."""

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
# what every supported database could hold is smaller still; this bounds memory, not quality
MAX_FDE_DIM = 1 << 24

# of of_size(), as measured with documents of 48 to 900 tokens
_D_PROJ = 8
_LEAST_REPS, _MOST_K_SIM = 10, 5
_SHORT, _SHORT_MOST_K_SIM = 60, 3  # below 60 tokens, k_sim is at most 3
_ENOUGH_REPS = ((500, 20), (200, 40))  # above 500 tokens, 20 repetitions are enough; above 200, 40


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """32 hex digits that change with anything in ``content``."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FDEConfig:
    """Everything that a Fixed Dimensional Encoding depends on (MUVERA, arXiv 2405.19504, section 2).

    Two encoders of equal configs give interchangeable FDEs, on every machine.

    ``algorithm`` says how the random matrices are drawn:

    - ``"muvera-2"``: orthogonal draws. Random rotations give ``dim`` orthogonal hyperplanes each, and successive
      repetitions take the next ``k_sim`` of them ("super-bit" LSH, Ji et al., NIPS 2012). Further rotations are cut
      into disjoint projections of ``d_proj`` dimensions, one for each repetition (orthogonal random features, Yu et
      al., NIPS 2016). Repetitions then repeat less of each other, and the same recall takes fewer dimensions. Where
      ``dim`` is a power of two from 64 on, a rotation is three rounds of random signs and a Walsh-Hadamard transform,
      which makes hashing several times faster; otherwise it is drawn uniformly.
    - ``"muvera-1"``: the paper's independent draws: Gaussian hyperplanes, and a projection for each repetition.
    - ``"fastembed-1"``: those of fastembed's ``Muvera``, see :meth:`fastembed`.

    Args:
        dim: width of a token vector, d in the paper.
        r_reps: repetitions, R. More repetitions lower the noise; with everything else equal, the FDE of
            fewer repetitions is a prefix of the longer one (before scaling; not with ``d_final``).
        k_sim: hyperplanes of a partition; a repetition has 2**k_sim partitions.
        d_proj: dimensions of a partition after the inner projection, at most ``dim``; None: no projection.
        seed: seed of all randomness, at least 0. A repetition's matrices depend on the seed, its number and, with
            ``"muvera-2"``, on ``k_sim`` and ``d_proj``; never on ``r_reps``.
        projection: the inner projection. ``"orthonormal"``: columns of a random rotation scaled by sqrt(d / d_proj),
            the lowest variance; ``"rademacher"``: the paper's +-1/sqrt(d_proj); ``"count_sketch"``: one +-1 a
            dimension. The last two are drawn independently for each repetition with every algorithm.
        fill_empty: give a document's empty partitions the token nearest in Hamming distance (ties: the first token).
        normalize: scale documents' FDEs to unit length. It is not in the paper (``False`` is the paper's), costs
            nothing, and raised recall on every collection measured; queries are never scaled.
        d_final: dimensions after a final count sketch over all repetitions (appendix C.2 has a dense matrix here);
            None: no final projection.
        algorithm: version of the construction, see above.

    Raises:
        ValueError: a size is out of range or sizes contradict each other.
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
            raise ValueError(f"k_sim={self.k_sim} makes 2**{self.k_sim} partitions; at most {MAX_K_SIM} is supported")
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
        """Partitions of one repetition, 2**k_sim."""
        return 1 << self.k_sim

    @property
    def block_dim(self) -> int:
        """Dimensions that one partition takes: d_proj, or dim without inner projection."""
        return self.dim if self.d_proj is None else self.d_proj

    @property
    def unprojected_dim(self) -> int:
        """r_reps * 2**k_sim * block_dim, the dimensions before the final projection."""
        return self.r_reps * self.n_partitions * self.block_dim

    @property
    def fde_dim(self) -> int:
        """Dimensions of an FDE."""
        return self.unprojected_dim if self.d_final is None else self.d_final

    @property
    def fingerprint(self) -> str:
        """32 hex digits; equal exactly where FDEs are interchangeable (but for what an encoder has fitted)."""
        return fingerprint_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FDEConfig:
        """The config that :meth:`to_dict` described.

        Raises:
            ValueError: a key is unknown, or dim is missing: another version wrote it, or it is no FDE config.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(content) - known)
        if unknown or "dim" not in content:
            problem = f"unknown keys {', '.join(unknown)}" if unknown else "no key 'dim'"
            raise ValueError(f"not an FDE config of this version: {problem}; keys are {', '.join(sorted(known))}")
        return cls(**content)

    @classmethod
    def of_size(cls, dim: int, fde_dim: int, tokens: float | None = None, **options: Any) -> FDEConfig:
        """The config for a number of dimensions, with the sizes that ranked best in measurements (docs/encoders.md).

        ``d_proj`` is 8 (None where ``dim`` is at most 8). ``k_sim`` is the largest for which enough repetitions are
        left: five times as many as partitions. That is 1 from 160 dimensions on, 2 from 640, 3 from 2,560, 4 from
        10,240 and 5 from 40,960. For documents of more than 200 tokens, 40 repetitions are enough (4 from 5,120 on,
        5 from 10,240); above 500 tokens, 20 are enough (3 from 1,280 on, 4 from 2,560, 5 from 5,120). For documents
        of fewer than 60 tokens, ``k_sim`` is at most 3.

        The result's ``fde_dim`` is the largest multiple of ``2**k_sim * d_proj`` that is not above the given one: the
        given one where it is such a multiple, and else fewer by less than one repetition. More dimensions asked for
        never give fewer. ``of_size(dim, 2560)`` is the default config where ``dim`` is more than 8.

        Args:
            dim: width of a token vector.
            fde_dim: most dimensions of an FDE, at least 20 times ``d_proj``.
            tokens: typical number of tokens of a document, such as the mean; None: not known.
            options: the constructor's other arguments (seed, normalize, ...), but no sizes.

        Raises:
            ValueError: ``fde_dim`` is too small to rank by or too large, or ``tokens`` is not positive.
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
        """The encoding of fastembed's ``Muvera``, to go on with collections filled by it; arguments are fastembed's.

        Same random draws, +-1 projection (none when ``dim_proj`` equals ``dim``), documents not scaled, an empty
        partition filled with the first token of the nearest partition (ties: the lowest partition). FDEs agree to
        float32 rounding; fastembed returns float64.
        """
        if dim_proj > dim:
            raise ValueError(f"dim_proj={dim_proj} is larger than dim={dim}, which fastembed refuses too")
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
    """Repetitions from which on ``k_sim`` hyperplanes rank better than fewer, for documents of ``tokens`` tokens."""
    if tokens is not None and tokens < _SHORT and k_sim > _SHORT_MOST_K_SIM:
        return math.inf
    enough = next((reps for above, reps in _ENOUGH_REPS if tokens is not None and tokens > above), math.inf)
    return min(enough, _LEAST_REPS << (k_sim - 1))
