"""Whether a number of candidates reaches a target recall, judged cautiously where queries are few."""

from __future__ import annotations

import numpy as np

from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence.measuring import Float64, bootstrap

_STEPS = (1, 1.5, 2, 3, 5, 7)  # of a decade of numbers of candidates
# the target is reached when at least so many of 100 resampled sets of queries reach it: with the plain mean, half of
# all choices would miss it on other queries
_PERCENT = 90


def reaches(values: Float64, target: float, seed: int) -> bool:
    """Whether recall, of one value a query, can be relied on to reach the target for other queries of the kind."""
    return bool(np.percentile(bootstrap(values, seed), 100 - _PERCENT) >= target)


def grid(k: int, most: int) -> list[int]:
    """Numbers of candidates to try, from k to ``most``, which is one of them."""
    steps = {round(step * 10.0**decade) for decade in range(8) for step in _STEPS}
    return [*sorted(n for n in steps if k <= n < most), most]


def check(target: float, k: int, max_prefetch: int, documents: int) -> None:
    """Raises InvalidInput for numbers that cannot be tuned to."""
    if not 0 < target <= 1:
        raise InvalidInput(f"the target is a recall above 0 and at most 1, got {target}")
    if k < 1 or max_prefetch < k:
        raise InvalidInput(f"k must be at least 1 and max_prefetch at least k, got {k} and {max_prefetch}")
    if documents <= k:
        raise InvalidInput(f"the exact top {k} of {documents} documents tells nothing; give more documents")
