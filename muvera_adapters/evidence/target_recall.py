"""Decides whether a number of candidates reaches a target recall, with a margin that is larger for fewer queries."""

from __future__ import annotations

import numpy as np

from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.evidence.measuring import Float64

_STEPS = (1, 1.5, 2, 3, 5, 7)  # numbers of candidates to try in each decade
#: default number of candidates of a search
MAX_PREFETCH = 200
#: for the same recall, candidates grow with the number of documents to this power (docs/tuning.md has its source)
GROWTH = 1 / 3
_NORMAL = 1.6449  # one-sided 95 % quantile


def lower_bound(values: Float64) -> float:
    """Recall that the mean over as many other queries of the same kind exceeds in 19 of 20 cases.

    This is the one-sided 95 % prediction limit of a mean. It takes into account that the mean of the given ``values``
    (one for each query) and the mean of the other queries both vary.
    """
    n = len(values)
    if n < 2:
        return float("-inf")
    error = float(values.std(ddof=1)) * np.sqrt(2 / n)
    return float(values.mean() - _student(n - 1) * error)


def reaches(values: Float64, target: float) -> bool:
    """Whether other queries can be expected to reach the target too, from the recall of each query."""
    return lower_bound(values) >= target - 1e-9


def grid(k: int, most: int) -> list[int]:
    """Numbers of candidates to try, from k to ``most``, which is one of them."""
    steps = {round(step * 10.0**decade) for decade in range(8) for step in _STEPS}
    return [*sorted(n for n in steps if k <= n < most), most]


def grid_of_sample(k: int, max_prefetch: int, documents: int) -> list[int]:
    """Numbers of candidates to try on a sample: at most half of its documents, as larger numbers mean nothing."""
    return grid(k, max(k, min(max_prefetch, documents // 2)))


def grown(prefetch: int, sample: int, collection: int) -> int:
    """Projects the number of candidates from a sample to its collection, rounded up to a number of the grid.

    The number grows with the number of documents to the power :data:`GROWTH`.

    Args:
        prefetch: number of candidates that the sample needs.
        sample: number of documents of the sample.
        collection: number of documents of the collection; if it is not larger than the sample, the result is
            ``prefetch``.
    """
    if collection <= sample:
        return prefetch
    needed = prefetch * (collection / sample) ** GROWTH
    return min(collection, next(n for n in grid(1, 10**8) if n >= needed - 1e-9))


def check(target: float, k: int, max_prefetch: int, documents: int) -> None:
    """Raises InvalidInput if there are too few documents, and WrongUsage for numbers that are out of range."""
    if not 0 < target <= 1:
        raise WrongUsage(f"the target is a recall above 0 and at most 1, got {target}")
    if k < 1 or max_prefetch < k:
        raise WrongUsage(f"k must be at least 1 and max_prefetch at least k, got {k} and {max_prefetch}")
    if documents <= k:
        raise InvalidInput(f"the exact top {k} of {documents} documents tells nothing: give more documents")


def _student(freedom: int) -> float:
    """One-sided 95 % quantile of Student's t (expansion around the normal one: 1 % off at 2, 12 % at 1)."""
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
