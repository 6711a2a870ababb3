"""Adapters for MUVERA two-stage search in vector databases; each database has its own folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import (
    AccessDenied,
    CollectionExists,
    CollectionNotFound,
    EncoderMismatch,
    InvalidInput,
    MissingExtra,
    MissingFDEs,
    ModelMismatch,
    MuveraError,
    NoGain,
    Rejected,
    SchemaMismatch,
    SharedDirection,
    StoreUnavailable,
    Unsupported,
    WriteInterrupted,
    WrongUsage,
)
from muvera_adapters.stores.fusion import RRF
from muvera_adapters.stores.token_model import TokenModel

if TYPE_CHECKING:
    from muvera_adapters.explanation import Explanation, Match

__all__ = [
    "RRF",
    "AccessDenied",
    "CollectionExists",
    "CollectionNotFound",
    "EncoderMismatch",
    "Explanation",
    "InvalidInput",
    "Match",
    "MissingExtra",
    "MissingFDEs",
    "ModelMismatch",
    "MuveraError",
    "NoGain",
    "Rejected",
    "SchemaMismatch",
    "SharedDirection",
    "StoreUnavailable",
    "TokenModel",
    "Unsupported",
    "WriteInterrupted",
    "WrongUsage",
    "__version__",
]

#: version of the installed distribution, read on first use
__version__: str


def __getattr__(name: str) -> Any:
    if name in ("Explanation", "Match"):  # imported only here, because they need numpy
        from muvera_adapters import explanation

        return getattr(explanation, name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("muvera-adapters")
