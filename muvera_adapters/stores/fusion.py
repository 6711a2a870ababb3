"""Candidates of several searches: names of the searches, which search found which document, and fused ranks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from muvera_adapters.errors import InvalidInput

K = TypeVar("K", bound=Hashable)

#: name of the search over FDEs in ``Hit.found_by``
FDE = "fde"

#: default constant k of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)
RANK_CONSTANT = 60


@dataclass(frozen=True, slots=True)
class RRF:
    """Reciprocal rank fusion: the score of a document is the sum over the lists of weight / (k + rank).

    Ranks begin at 1. A list that does not have the document adds nothing.

    Args:
        weights: weights of the lists: first that of the ranking by FDEs (by MaxSim if candidates are reranked), then
            one for each entry of ``also``. None: 1 each.
        k: constant that is added to ranks; with a larger one, the first ranks differ less in their scores.

    Raises:
        InvalidInput: a weight is negative, NaN or infinite, all are 0, or ``k`` is below 1.
    """

    weights: Sequence[float] | None = None
    k: int = RANK_CONSTANT

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not hasattr(self.k, "__index__") or self.k < 1:
            raise InvalidInput(f"k of RRF must be an integer of at least 1, got {self.k!r}")
        if self.weights is None:
            return
        problem = f"weights of RRF must be numbers of at least 0, and not all 0, got {self.weights!r}"
        try:
            given = () if isinstance(self.weights, str) else tuple(float(weight) for weight in self.weights)
        except (TypeError, ValueError) as error:
            raise InvalidInput(problem) from error
        if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not any(given):
            raise InvalidInput(problem)
        object.__setattr__(self, "weights", given)


@dataclass(frozen=True, slots=True)
class Candidates(Generic[K]):
    """Keys of candidates by the name of the search that found them, best first in each."""

    lists: Mapping[str, Sequence[K]]

    @classmethod
    def of(cls, searched: Sequence[str | None], lists: Sequence[Sequence[K]]) -> Candidates[K]:
        """Makes the candidates from ``lists``: first that of the search over FDEs, then those of further searches."""
        return cls(dict(zip([FDE, *list_names(searched)], lists, strict=True)))

    @property
    def further(self) -> list[Sequence[K]]:
        """Lists of the further searches, without that over FDEs."""
        return list(self.lists.values())[1:]

    def found_by(self) -> dict[K, tuple[str, ...]]:
        """Names of the searches that found each candidate."""
        names: dict[K, list[str]] = {}
        for name, keys in self.lists.items():
            for key in keys:
                names.setdefault(key, []).append(name)
        return {key: tuple(each) for key, each in names.items()}

    def ranked(self) -> list[K]:
        """Every candidate once, those with the best ranks first."""
        return [key for key, _ in fused(list(self.lists.values()), RRF())]


def fused(lists: Sequence[Sequence[K]], rrf: RRF) -> list[tuple[K, float]]:
    """Keys of all lists with their fused scores, best first; equal scores in the order of the lists."""
    # in a batch, some queries may have no further searches
    weights = [1.0] * len(lists) if rrf.weights is None else [float(weight) for weight in rrf.weights][: len(lists)]
    scores: dict[K, float] = {}
    for weight, keys in zip(weights, lists, strict=True):
        for rank, key in enumerate(keys, 1):
            scores[key] = scores.get(key, 0.0) + weight / (rrf.k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def list_names(vectors: Sequence[str | None]) -> list[str]:
    """Names of the searches of ``also``: the vector or property of each, or its position if unknown or not unique."""
    return [
        f"also[{i}]" if name in (None, "", FDE) or vectors.count(name) > 1 else str(name)
        for i, name in enumerate(vectors)
    ]
