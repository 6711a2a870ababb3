"""Descriptions of collections, and the facts that operations learn about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from muvera_adapters.stores.operations import seconds
from muvera_adapters.stores.shared_direction import DirectionOfTokens
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import Encoder

# seconds for which changes by other writers may go unnoticed
_COUNTED_FOR = 30.0


@dataclass(slots=True)
class Counted:
    """A number of documents that is cached for 30 seconds.

    Attributes:
        value: result of the last count; None before the first count, and if it failed.
        at: time of the last count (:func:`~muvera_adapters.stores.operations.seconds`); None: count again.
    """

    value: int | None = None
    at: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the number can be used without counting again."""
        return self.at is not None and seconds() - self.at < _COUNTED_FOR

    def keep(self, value: int | None) -> None:
        """Stores the result of a count; None: it failed."""
        self.value, self.at = value, seconds()

    def forget(self) -> None:
        """Forces a new count, because documents were written or deleted."""
        self.at = None


@dataclass(slots=True)
class BatchLimit:
    """The number of items that the database takes in one request, as learned from rejected requests.

    Attributes:
        most: number that was accepted when twice as many were rejected; None: nothing was rejected for its number.
    """

    most: int | None = None

    def learn(self, accepted: int) -> None:
        """Lowers the limit: more than ``accepted`` items were rejected, but accepted in smaller requests."""
        self.most = accepted if self.most is None else min(self.most, accepted)


@dataclass(slots=True, kw_only=True)
class Seen:
    """Facts that operations learn about a collection; threads share them, and all can be learned again.

    Attributes:
        fde_length: typical length of the stored FDEs; None: not known yet.
        without_fde: number of documents without an FDE.
        warned: whether a warning about documents without an FDE was given.
        direction: how strongly the tokens of the first documents written share a direction.
        written_at_once: maximum number of documents in one write.
    """

    fde_length: float | None = None
    without_fde: Counted = field(default_factory=Counted)
    warned: bool = False
    direction: DirectionOfTokens = field(default_factory=DirectionOfTokens)
    written_at_once: BatchLimit = field(default_factory=BatchLimit)


class Described(Protocol):
    """The description of a collection; each database adds its own attributes.

    Attributes:
        name: name of the collection.
        encoder: encoder of its FDEs.
        fde: name of the vector with the FDEs.
        tokens: name of the token matrices; None: no tokens are stored.
        has_fde: whether FDEs can be searched and written (False: adopted, and not backfilled yet).
        cosine: whether tokens are compared by cosine; queries and FDEs are then made from tokens of unit length.
        token_error: typical length of the rounding of a stored token, relative to the token's length
            (:mod:`~muvera_adapters.stores.token_precision`).
        model: model of the tokens; None: nobody named it.
        seen: facts that operations have learned about the collection.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def encoder(self) -> Encoder: ...  # noqa: D102
    @property
    def fde(self) -> str: ...  # noqa: D102
    @property
    def tokens(self) -> str | None: ...  # noqa: D102
    @property
    def has_fde(self) -> bool: ...  # noqa: D102
    @property
    def cosine(self) -> bool: ...  # noqa: D102
    @property
    def token_error(self) -> float: ...  # noqa: D102
    @property
    def model(self) -> TokenModel | None: ...  # noqa: D102
    @property
    def seen(self) -> Seen: ...  # noqa: D102
