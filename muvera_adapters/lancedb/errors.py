"""Errors of lancedb as those of this library. It raises built-in classes, so that most is told by the message."""

from __future__ import annotations

import re

from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    InvalidInput,
    MuveraError,
    Rejected,
    StoreUnavailable,
    Unsupported,
)

# another writer was faster: the same write succeeds on the new version
_CONFLICTS = ("commit conflict", "concurrent", "conflicted", "too many")
# where the engine's code raised the error
_SOURCE = re.compile(r",? ?/[^ ]*\.rs:\d+:\d+")
_FULL = ("no space left", "disk quota", "read-only file system", "too many open files", "permission denied")


def translate(error: Exception, name: str) -> MuveraError:
    """This library's error for an error of the client, raised by a call on table ``name``."""
    message = _SOURCE.sub("", " ".join(str(error).split()))[:500]
    lower = message.lower()
    if isinstance(error, NotImplementedError):
        return Unsupported(f"LanceDB cannot do that with {name}: {message}")
    if isinstance(error, OSError) or any(reason in lower for reason in _FULL):
        return StoreUnavailable(f"LanceDB cannot read or write {name}: {message}")
    if "was not found" in lower and "table" in lower:
        return CollectionNotFound(f"there is no table {name}")
    if "already exists" in lower:
        return CollectionExists(f"{name} exists: open or adopt it, or drop it first; nothing was changed")
    if "out of range integral type" in lower:
        return InvalidInput(f"{name}: limit, prefetch, nprobes or refine_factor is larger than LanceDB can take")
    if "invalid table name" in lower:
        return InvalidInput(f"{name!r} is not a valid name of a table: {message}")
    if any(reason in lower for reason in _CONFLICTS):
        return StoreUnavailable(f"another writer was faster at {name}: {message}", transient=True)
    if "not found:" in lower:
        return CollectionNotFound(f"the files of table {name} are gone: {message}")
    if "lance error: io" in lower or "lanceerror(io)" in lower:
        return StoreUnavailable(f"LanceDB cannot read or write {name}: {message}")
    return Rejected(f"LanceDB rejected a request on {name}: {message}")
