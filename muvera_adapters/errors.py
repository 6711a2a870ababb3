"""What can go wrong, in one tree; the database client's own error is kept as ``__cause__``."""

from __future__ import annotations


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


class InvalidInput(MuveraError, ValueError):
    """Ids, tokens or payloads that cannot be stored or searched; the message names the position."""


class StoreUnavailable(MuveraError):
    """The database cannot be reached or opened now."""
