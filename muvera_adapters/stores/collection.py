"""What is known of a collection in every database, and what operations learn of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from muvera_adapters.stores.operations import seconds
from muvera_adapters.stores.shared_direction import DirectionOfTokens
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import Encoder

# what another writer does may go unnoticed for so long
_COUNTED_FOR = 30.0


@dataclass(slots=True)
class Counted:
    """A number of documents, which is used for 30 seconds.

    Attributes:
        value: the number at the last count; None before the first, and where the count failed.
        at: time of that count (:func:`~muvera_adapters.stores.operations.seconds`); None: count again.
    """

    value: int | None = None
    at: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the number can be used."""
        return self.at is not None and seconds() - self.at < _COUNTED_FOR

    def keep(self, value: int | None) -> None:
        """Takes the result of a count, None where it failed."""
        self.value, self.at = value, seconds()

    def forget(self) -> None:
        """Makes the next user count again: documents were written or deleted."""
        self.at = None


@dataclass(slots=True)
class BatchLimit:
    """How many items the database was seen to take in one request.

    Attributes:
        most: number that it accepted where it refused twice as many; None: nothing was refused for its number.
    """

    most: int | None = None

    def learn(self, accepted: int) -> None:
        """More than ``accepted`` items were refused, and all of them were accepted in smaller requests."""
        self.most = accepted if self.most is None else min(self.most, accepted)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What operations learn of a collection while they run; threads share it, and any of it may be learned again.

    Attributes:
        fde_length: typical length of the stored FDEs, None while it is not known.
        without_fde: number of documents without an FDE.
        warned: whether documents without an FDE have been warned of.
        direction: how much the tokens of the first documents written share a direction.
        written_at_once: number of documents that one write may have.
    """

    fde_length: float | None = None
    without_fde: Counted = field(default_factory=Counted)
    warned: bool = False
    direction: DirectionOfTokens = field(default_factory=DirectionOfTokens)
    written_at_once: BatchLimit = field(default_factory=BatchLimit)


class Described(Protocol):
    """What is known of a collection; each database adds its own attributes.

    Attributes:
        name: name of the collection.
        encoder: encoder of its FDEs.
        fde: name of the vector with the FDEs.
        tokens: name of the token matrices, None where none are stored.
        has_fde: FDEs can be searched and written (False: adopted, and not backfilled yet).
        cosine: tokens are compared by cosine, so queries and FDEs are made of tokens of unit length.
        token_error: typical length of the rounding of a stored token, relative to the token's length
            (:mod:`~muvera_adapters.stores.token_precision`).
        model: model of its tokens, None where nobody named it.
        seen: what operations have learned of it.
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
