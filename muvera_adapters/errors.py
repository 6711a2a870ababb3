"""What can go wrong, in one tree; the database client's own error is kept as ``__cause__``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muvera_adapters.results import WriteReport
    from muvera_core import FitReport


class MuveraError(Exception):
    """Base of all errors of muvera_adapters."""


class MissingExtra(MuveraError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; install it with: pip install 'muvera-adapters[{extra}]'", name=package
        )


class CollectionExists(MuveraError):
    """The name is taken; nothing was changed."""


class CollectionNotFound(MuveraError):
    """No such collection, or none that this library made."""


class EncoderMismatch(MuveraError):
    """The collection was filled with another encoder."""


class ModelMismatch(MuveraError):
    """The collection's token vectors are of another model, or were made with other prompts."""


class SchemaMismatch(MuveraError):
    """The collection's vectors are not what the encoder and two-stage search need; the message names each."""


class Unsupported(MuveraError):
    """This database, or this version of it, cannot do what was asked."""


class InvalidInput(MuveraError, ValueError):
    """Ids, tokens or payloads that cannot be stored or searched; the message names the position."""


class WrongUsage(InvalidInput):
    """A target, or options of a command, that cannot be meant; the command line ends with status 2."""


class Rejected(MuveraError):
    """The database refused the request; repeating it would not help."""


class AccessDenied(MuveraError):
    """The database rejects the credentials, or they do not allow the request (401, 403)."""


class StoreUnavailable(MuveraError):
    """The database cannot be reached or opened now.

    Attributes:
        transient: repeating the request may help.
        retry_after: seconds that the database asked to wait, or None.
    """

    def __init__(self, message: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class NoGain(MuveraError):
    """A fit of query vectors does not find more than the plain ones, on documents and queries that it has not seen.

    Attributes:
        report: what was measured.
    """

    def __init__(self, message: str, report: FitReport) -> None:
        super().__init__(message)
        self.report = report


class MissingFDEs(UserWarning):
    """Some documents have no FDE, so that no search finds them; ``backfill()`` computes the missing FDEs."""


class SharedDirection(UserWarning):
    """Tokens share a direction, in which a plain FDE loses recall; ``FDEEncoder.fit(config, sample)`` cures it."""


class WriteInterrupted(StoreUnavailable):
    """The database stopped taking writes; the same call, repeated, completes them.

    Attributes:
        report: every document of the call, as written or as failed ("failed": not acknowledged).
    """

    def __init__(self, message: str, report: WriteReport) -> None:
        super().__init__(message)
        self.report = report
