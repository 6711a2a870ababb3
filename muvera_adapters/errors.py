"""Errors and warnings of this package; the database client's own error is kept as ``__cause__``."""

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
    """A collection of this name exists already; nothing was changed."""


class CollectionNotFound(MuveraError):
    """There is no such collection, or this library did not create or adopt it."""


class EncoderMismatch(MuveraError):
    """The collection was filled with another encoder."""


class ModelMismatch(MuveraError):
    """The collection's token vectors were made by another model, or with other prompts."""


class SchemaMismatch(MuveraError):
    """The collection's vectors do not fit the encoder or two-stage search; the message names each difference."""


class Unsupported(MuveraError):
    """The database, or its version, does not support what was asked."""


class InvalidInput(MuveraError, ValueError):
    """Ids, tokens, payloads or arguments that are not valid; the message names the position."""


class WrongUsage(InvalidInput):
    """An invalid target or combination of options; the CLI exits with status 2."""


class Rejected(MuveraError):
    """The database rejected the request; repeating it would not help."""


class AccessDenied(MuveraError):
    """The database rejects the credentials, or they do not allow the request (401, 403)."""


class StoreUnavailable(MuveraError):
    """The database cannot be reached or opened now.

    Attributes:
        transient: whether repeating the request may help.
        retry_after: number of seconds that the database asked to wait, or None.
    """

    def __init__(self, message: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class NoGain(MuveraError):
    """A query fit does not improve recall on documents and queries that were not used to fit.

    Attributes:
        report: what was measured.
    """

    def __init__(self, message: str, report: FitReport) -> None:
        super().__init__(message)
        self.report = report


class MissingFDEs(UserWarning):
    """Some documents have no FDE, so no search finds them; ``backfill()`` computes the missing FDEs."""


class SharedDirection(UserWarning):
    """Tokens share a direction, which costs a plain FDE recall; use ``FDEEncoder.fit(config, sample)``."""


class WriteInterrupted(StoreUnavailable):
    """The database stopped accepting writes; repeat the same call to complete them.

    Attributes:
        report: every document of the call, as written or as failed (here: not acknowledged).
    """

    def __init__(self, message: str, report: WriteReport) -> None:
        super().__init__(message)
        self.report = report
