"""Weaviate: two-stage search in a server."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.stores.operations import Retry

if TYPE_CHECKING:
    from muvera_adapters.weaviate.async_store import AsyncWeaviateMuvera
    from muvera_adapters.weaviate.store import WeaviateMuvera

__all__ = ["AsyncWeaviateMuvera", "Retry", "WeaviateMuvera"]

_STORES = {"AsyncWeaviateMuvera": "async_store", "WeaviateMuvera": "store"}


def __getattr__(name: str) -> Any:
    if name not in _STORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_STORES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "weaviate":
            raise
        raise MissingExtra("weaviate-client", "weaviate") from error
