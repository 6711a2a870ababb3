"""Detection of token vectors that share a direction while they are written, because a plain FDE loses recall there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import SharedDirection
from muvera_adapters.stores.operations import Compute
from muvera_core import FDEEncoder, TokenBatch

if TYPE_CHECKING:
    from muvera_adapters.stores.collection import Described

# from a squared mean norm of .23 on, fitted FDEs had higher recall on both collections (at 20 candidates .804 instead
# of .775, and .794 instead of .758); below it, on neither (docs/tuning.md has the measurements)
FIT_FROM = 0.2
# neighbouring documents are similar: in the sample, whose value is .07, 8 neighbours reach .39 and 32 reach .27, but 64
# reach at most .17
_LEAST_DOCUMENTS = 64
_MOST_DOCUMENTS = 128
_TOKENS = 32


class DirectionOfTokens:
    """A running estimate of how strongly the tokens of the first documents share a direction.

    The estimate is the squared norm of the mean of the tokens at unit length. Pairs of tokens of the same document are
    left out, so that few documents do not raise it. At most 128 documents of 32 tokens are used. Threads can share an
    estimate.
    """

    def __init__(self) -> None:
        self._sums: list[npt.NDArray[np.float64]] = []
        self._counts: list[int] = []
        self._known: set[bytes] = set()
        self._lock = Lock()
        #: whether an estimate was returned, so that no more tokens are used
        self.settled = False

    def add(self, matrices: Sequence[npt.NDArray[Any]] | TokenBatch) -> float | None:
        """Adds tokens, and returns the estimate once, as soon as there are enough different documents.

        Args:
            matrices: finite token matrices (n_i, token_dim).
        """
        with self._lock:
            if self.settled:
                return None
            for position in _spread(len(matrices), _MOST_DOCUMENTS - len(self._sums)):
                self._add(matrices[position])
            if len(self._sums) < _LEAST_DOCUMENTS:
                return None
            self.settled = True
            sums, counts = np.array(self._sums), np.array(self._counts)
            self._sums.clear()
            self._known.clear()
            total = sums.sum(axis=0)
            return float((total @ total - (sums**2).sum()) / (counts.sum() ** 2 - (counts**2).sum()))

    def _add(self, matrix: npt.NDArray[Any]) -> None:
        rows = matrix[_spread(len(matrix), _TOKENS)].astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = (rows / np.where(norms > 0, norms, 1)).sum(axis=0)
        # a document that is written repeatedly says nothing about the collection
        if norms.any() and rows.tobytes() not in self._known:
            self._known.add(rows.tobytes())
            self._sums.append(rows)
            self._counts.append(int((norms > 0).sum()))


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` positions, evenly spaced."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]


async def warn_of_shared_direction(collection: Described, matrices: Sequence[npt.NDArray[Any]] | TokenBatch) -> None:
    """Warns once if tokens share a direction and the encoder is a plain FDE (:class:`SharedDirection`).

    Args:
        collection: the collection that is written to; its ``seen`` keeps the estimate.
        matrices: finite token matrices (n_i, token_dim) of the documents that are written.
    """
    encoder, direction = collection.encoder, collection.seen.direction
    if direction.settled or not isinstance(encoder, FDEEncoder) or encoder.mean is not None:
        return
    found = await Compute(partial(direction.add, matrices))
    if found is not None and found >= FIT_FROM:
        warnings.warn(
            f"the token vectors of {collection.name} share a direction (squared norm of their mean {found:.2f}; a "
            f"plain FDE loses recall from {FIT_FROM} on): use FDEEncoder.fit(config, sample), with some 10,000 token "
            "vectors as the sample, for a new collection, or for an FDE vector beside this one "
            "(adopt(..., fde_vector=NAME) and backfill())",
            SharedDirection,
            stacklevel=2,
        )
