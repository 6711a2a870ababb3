"""The random matrices of an encoder, in float64.

They are made from the raw output of PCG64, which numpy keeps stable. ``Generator.normal`` may change (NEP 19). So the
same seed gives the same matrices with every version of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muvera_core.config import FDEConfig

Float64 = npt.NDArray[np.float64]

HYPERPLANES, PROJECTION, SKETCH = 0, 1, 2  # roles of random streams

# with narrower tokens, three rounds of sign flips make too few different rotations
_MIN_FAST_DIM = 64
_ROUNDS = 3


class Stream:
    """Random numbers that depend only on (seed, index, role); the index is that of a repetition or a rotation."""

    def __init__(self, seed: int, index: int, role: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, index, role]))

    def integers(self, below: int, count: int) -> npt.NDArray[np.int64]:
        # the bias of the modulo is below 2**-40 for all values of ``below`` that are used
        return (self._raw(count) % np.uint64(below)).astype(np.int64)

    def signs(self, *shape: int) -> Float64:
        return self.integers(2, int(np.prod(shape))).reshape(shape).astype(np.float64) * 2 - 1

    def normals(self, *shape: int) -> Float64:
        count = int(np.prod(shape))
        uniform = ((self._raw(2 * count) >> np.uint64(11)) + 0.5) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log(uniform[:count])), 2 * np.pi * uniform[count:]
        return (radius * np.cos(angle)).reshape(shape)  # Box-Muller

    def choice(self, below: int, count: int) -> npt.NDArray[np.int64]:
        """``count`` different numbers below ``below`` in ascending order; all numbers if there are not so many."""
        return np.sort(np.argsort(self._raw(below), kind="stable")[:count])

    def _raw(self, count: int) -> npt.NDArray[np.uint64]:
        return self._bits.random_raw(count) if count else np.empty(0, np.uint64)


@dataclass(frozen=True)
class Draws:
    """Matrices of all repetitions.

    Attributes:
        hyperplanes: (r_reps, k_sim, dim) normals g of the hyperplanes, of any length.
        thresholds: (r_reps, k_sim) thresholds; bit j of a token's partition is 1 where g_j . x > threshold_j.
        projections: (r_reps, dim, d_proj) matrices of the inner projection, or None without one.
        shifts: (r_reps, partitions) shifts of the final sketch, or None without one: element e of a partition's block
            is added, with its sign, to output (shift + e) modulo d_final.
        signs: (r_reps, partitions, block_dim) signs of the final sketch, or None without one.
        flips: (rotations, rounds, dim) signs of the fast rotations whose rows are the hyperplanes (see
            :func:`_fast_rotation`); None if the rotations are not fast.
    """

    hyperplanes: Float64
    thresholds: Float64
    projections: Float64 | None
    shifts: npt.NDArray[np.int64] | None
    signs: Float64 | None
    flips: Float64 | None = None


def draw(config: FDEConfig, mean: npt.NDArray[np.float32] | None = None) -> Draws:
    """Draws an encoder's matrices; ``mean`` (dim,) is what ``FDEEncoder.fit`` measured."""
    flips = None
    if config.algorithm == "fastembed-1":
        hyperplanes, projections = _fastembed(config)
    elif config.algorithm == "muvera-2":
        hyperplanes, flips = _orthogonal_hyperplanes(config)
        if config.d_proj is not None and config.projection == "orthonormal":
            projections = _coupled_projections(config, config.d_proj, mean)
        else:
            projections = _independent_projections(config, mean)
    else:
        reps = range(config.r_reps)
        hyperplanes = np.stack([Stream(config.seed, r, HYPERPLANES).normals(config.k_sim, config.dim) for r in reps])
        projections = _independent_projections(config, mean)
    thresholds = np.zeros(hyperplanes.shape[:2])
    if mean is not None:
        thresholds = hyperplanes @ mean.astype(np.float64)
    if config.d_final is None:
        return Draws(hyperplanes, thresholds, projections, None, None, flips)
    streams = [Stream(config.seed, r, SKETCH) for r in range(config.r_reps)]
    shifts = np.stack([s.integers(config.d_final, config.n_partitions) for s in streams])
    signs = np.stack([s.signs(config.n_partitions, config.block_dim) for s in streams])
    return Draws(hyperplanes, thresholds, projections, shifts, signs, flips)


def _orthogonal_hyperplanes(config: FDEConfig) -> tuple[Float64, Float64 | None]:
    """(r_reps, k_sim, dim) successive rows of successive rotations, and the flips of the rotations if they are fast."""
    d, count = config.dim, config.r_reps * config.k_sim
    rotations = range(-(-count // d))
    flips = None
    if _is_fast(d):  # not scaled, so entries are integers and all machines round dot products alike
        flips = np.array([_flips(config.seed, i, HYPERPLANES, d) for i in rotations]).reshape(-1, _ROUNDS, d)
        rows = [_fast_rotation(signs) for signs in flips]
    else:
        rows = [_rotation(config.seed, i, HYPERPLANES, d) for i in rotations]
    return np.concatenate([np.empty((0, d)), *rows])[:count].reshape(config.r_reps, config.k_sim, d), flips


def _coupled_projections(config: FDEConfig, d_proj: int, mean: npt.NDArray[np.float32] | None) -> Float64:
    """(r_reps, dim, d_proj) projections: disjoint rows of a rotation for successive repetitions, then the next one.

    Each has E[S S^T] = I over the draws. With a mean, its direction is column 0 of every projection, and the rotations
    are those of its complement.
    """
    if mean is None:
        return _rotation_slices(config, config.dim, d_proj)
    basis = _basis(mean.astype(np.float64))
    inner = _rotation_slices(config, config.dim - 1, d_proj - 1)
    first = np.broadcast_to(basis[:, :1], (config.r_reps, config.dim, 1))
    return np.concatenate([first, basis[:, 1:] @ inner], axis=2)


def _rotation_slices(config: FDEConfig, dim: int, width: int) -> Float64:
    shared = dim // width  # number of repetitions that share a rotation
    rotations = [_rotation(config.seed, i, PROJECTION, dim) for i in range(-(-config.r_reps // shared))]
    slices = [rows[s * width : (s + 1) * width].T for rows in rotations for s in range(shared)]
    return np.stack(slices[: config.r_reps]) * np.sqrt(dim / width)


def _rotation(seed: int, index: int, role: int, d: int) -> Float64:
    """(d, d) random rotation: a fast one where ``d`` allows it, otherwise uniformly distributed."""
    if _is_fast(d):
        return _fast_rotation(_flips(seed, index, role, d)) / d**1.5
    return orthonormal(Stream(seed, index, role).normals(d, d)).T


def _is_fast(d: int) -> bool:
    return d >= _MIN_FAST_DIM and d & (d - 1) == 0


def _flips(seed: int, index: int, role: int, d: int) -> Float64:
    return Stream(seed, index, role).signs(_ROUNDS, d)


def _fast_rotation(flips: Float64) -> Float64:
    """(d, d) matrix of integers, a rotation times d**1.5: H D3 H D2 H D1 with Walsh-Hadamard H and diagonal signs D."""
    d = flips.shape[1]
    rotation = np.eye(d)
    for signs in flips:
        rotation = signs[:, None] * rotation
        distance = 1
        while distance < d:
            pairs = rotation.reshape(-1, 2, distance, d)
            rotation = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(d, d)
            distance *= 2
    return rotation


def _independent_projections(config: FDEConfig, mean: npt.NDArray[np.float32] | None) -> Float64 | None:
    if config.d_proj is None:
        return None
    return np.stack([_projection(config, r, mean) for r in range(config.r_reps)])


def _projection(config: FDEConfig, repetition: int, mean: npt.NDArray[np.float32] | None) -> Float64:
    """(dim, d_proj), with E[S S^T] = I over the draws; column 0 is the mean's direction where one was fitted."""
    assert config.d_proj is not None
    stream = Stream(config.seed, repetition, PROJECTION)
    if mean is None:
        return _random_projection(config, stream, config.dim, config.d_proj)
    # in a basis whose first vector is the mean's direction, that coordinate is kept and the others are projected
    basis = _basis(mean.astype(np.float64))
    inner = _random_projection(config, stream, config.dim - 1, config.d_proj - 1)
    return np.column_stack([basis[:, 0], basis[:, 1:] @ inner])


def _random_projection(config: FDEConfig, stream: Stream, dim: int, width: int) -> Float64:
    if config.projection == "rademacher":
        return stream.signs(dim, width) / np.sqrt(width)
    if config.projection == "count_sketch":
        sketch = np.zeros((dim, width))
        sketch[np.arange(dim), stream.integers(width, dim)] = stream.signs(dim)
        return sketch
    return orthonormal(stream.normals(dim, width)) * np.sqrt(dim / width)


def orthonormal(gaussian: Float64) -> Float64:
    """The orthonormal factor whose triangular factor has a positive diagonal, which is unique whatever LAPACK does."""
    q, r = np.linalg.qr(gaussian)
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


def _basis(direction: Float64) -> Float64:
    """(d, d) orthonormal matrix with ``direction`` as its first column: a Householder reflection, exact and unique."""
    unit = direction / np.linalg.norm(direction)
    mirror = unit.copy()
    sign = 1.0 if unit[0] >= 0 else -1.0
    mirror[0] += sign
    reflection = np.eye(len(unit)) - 2 * np.outer(mirror, mirror) / (mirror @ mirror)
    reflection[:, 0] = unit  # the reflection gives -sign * unit here
    return reflection


def _fastembed(config: FDEConfig) -> tuple[Float64, Float64 | None]:
    """The draws of fastembed, which takes everything from one generator: all hyperplanes, then all projections."""
    generator = np.random.default_rng(config.seed)
    hyperplanes = np.stack([generator.normal(size=(config.dim, config.k_sim)).T for _ in range(config.r_reps)])
    if config.d_proj is None:
        return hyperplanes, None
    signs = generator.choice([-1, 1], size=(config.r_reps, config.dim, config.d_proj))
    return hyperplanes, signs / np.sqrt(config.d_proj)
