"""The kernels' work by numpy, where numba is not installed: the same results but for rounding, several times slower.

A token's partition is decided in float64 here too, so that only sums differ in their last digits.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from muvera_core._draws import draw
from muvera_core._layout import Float32
from muvera_core.config import FDEConfig
from muvera_core.tokens import Located

_LOG = logging.getLogger("muvera_core")

_STEP = np.int64(1 << 40)
_FAR = 30 * _STEP  # farther than any partition


def _quiet() -> np.errstate:
    """The largest values give infinite sums, of which kernels do not warn; one for each call, as threads share it."""
    return np.errstate(over="ignore", invalid="ignore")


@cache
def has_numba() -> bool:
    """Whether the kernels can be compiled."""
    found = find_spec("numba") is not None
    if not found:
        _LOG.info("numba is not installed, so numpy encodes and scores, several times slower")
    return found


class PlainFDE:
    """FDEs by numpy.

    Args:
        config: sizes, seed and options.
        mean: (dim,) what :meth:`FDEEncoder.fit` measured, or None.
    """

    def __init__(self, config: FDEConfig, mean: Float32 | None) -> None:
        draws = draw(config, mean)
        self._config = config
        self._hyperplanes = draws.hyperplanes.reshape(-1, config.dim).T
        self._thresholds = draws.thresholds.reshape(-1)
        self._projections = None if draws.projections is None else draws.projections.astype(np.float32)
        self._places: npt.NDArray[np.int64] | None = None  # of a partition's dimensions in the final sketch
        if draws.shifts is not None and draws.signs is not None:
            self._places = ((draws.shifts[:, :, None] + np.arange(config.block_dim)) % config.fde_dim).reshape(-1)
            self._signs = draws.signs.astype(np.float32).reshape(-1)

    def encode(self, tokens: Float32, query: bool) -> Float32:
        """(fde_dim,) of one (n, dim) matrix."""
        with _quiet():
            return self._encode(tokens, query)

    def _encode(self, tokens: Float32, query: bool) -> Float32:
        config, n = self._config, len(tokens)
        sides = tokens.astype(np.float64) @ self._hyperplanes > self._thresholds
        bits = sides.reshape(n, config.r_reps, config.k_sim)
        codes = (bits @ (1 << np.arange(config.k_sim))).astype(np.int64).T  # (r_reps, n) partition of each token
        if self._projections is None:
            each = np.broadcast_to(tokens, (config.r_reps, n, config.dim))
        else:
            each = tokens @ self._projections  # (r_reps, n, d_proj)
        blocks = _blocks(codes, each.reshape(-1, config.block_dim), config, query)
        fde = blocks.reshape(-1)
        if self._places is not None:
            fde = np.bincount(self._places, self._signs * fde, config.fde_dim).astype(np.float32)
        if config.normalize and not query:
            largest = np.abs(fde).max()  # so that no square leaves float32's range
            if largest > 0:
                fde = fde / largest
                fde /= np.sqrt(fde @ fde)
        return fde


def _blocks(codes: npt.NDArray[np.int64], each: Float32, config: FDEConfig, query: bool) -> Float32:
    """(r_reps * n_partitions, block_dim) sums or means of the tokens' values, empty partitions filled.

    Args:
        codes: (r_reps, n) partition of each token.
        each: (r_reps * n, block_dim) value of each token.
        config: sizes and options.
        query: of a query: sums, and nothing is filled.
    """
    reps, n = codes.shape
    repetition, cells = np.arange(reps)[:, None], np.arange(config.n_partitions)
    flat = (repetition * len(cells) + codes).reshape(-1)
    order = np.argsort(flat, kind="stable")
    used, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    blocks = np.zeros((reps * len(cells), config.block_dim), np.float32)
    sums = np.add.reduceat(each[order], starts, axis=0)
    blocks[used] = sums if query else sums / counts[:, None].astype(np.float32)
    if query or not config.fill_empty:
        return blocks
    first = np.zeros(len(blocks), np.int64)  # a partition's first token, a row of ``each``
    first[used] = order[starts]
    # a key is a distance in steps, plus what decides between equals: the token, in fastembed the partition
    by_partition = config.algorithm == "fastembed-1"
    keys = np.full((reps, len(cells)), _FAR)
    keys.reshape(-1)[used] = used % len(cells) if by_partition else first[used] % n
    for j in range(config.k_sim):  # after step j, the nearest among those that differ in the first j bits alone
        keys = np.minimum(keys, keys[:, cells ^ (1 << j)] + _STEP)
    nearest = keys % _STEP
    tokens = first.reshape(reps, -1)[repetition, nearest] if by_partition else repetition * n + nearest
    filled = np.ones(len(blocks), np.bool_)
    filled[used] = False
    blocks[filled] = each[tokens.reshape(-1)[filled]]
    return blocks


def maxsim(query: Float32, located: Located) -> Float32:
    """(n,) sum over the query's tokens of the largest dot product with each document."""
    with _quiet():
        scores = (np.sum((query @ tokens.T).max(axis=1), dtype=np.float64) for tokens in located.checked())
        return np.fromiter(scores, np.float32, len(located.addresses))


def maxima(located: Located, sample: Float32, centres: Float32) -> Float32:
    """(n, s) largest dot product of each document with each column of the (dim, s) sample, less ``centres``."""
    result = np.empty((len(located.addresses), sample.shape[1]), np.float32)
    with _quiet():
        for row, tokens in zip(result, located.checked(), strict=True):
            np.subtract((tokens @ sample).max(axis=0), centres, out=row)
    return result


def features(located: Located, weights: Float32, thresholds: Float32) -> Float32:
    """(n, f) sum over each query's tokens x of max(x @ weights - thresholds, 0)."""
    result = np.empty((len(located.addresses), weights.shape[1]), np.float32)
    with _quiet():
        for row, tokens in zip(result, located.checked(), strict=True):
            np.maximum(tokens @ weights - thresholds, 0).sum(axis=0, out=row)
    return result
