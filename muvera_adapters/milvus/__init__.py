"""Milvus: two-stage search in a server, a cluster, or milvus-lite's file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.stores.operations import Retry

if TYPE_CHECKING:
    from muvera_adapters.milvus.async_store import AsyncMilvusMuvera
    from muvera_adapters.milvus.store import MilvusMuvera

__all__ = ["AsyncMilvusMuvera", "MilvusMuvera", "Retry"]

_STORES = {"AsyncMilvusMuvera": "async_store", "MilvusMuvera": "store"}


def __getattr__(name: str) -> Any:
    if name not in _STORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_STORES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "pymilvus":
            raise
        raise MissingExtra("pymilvus", "milvus") from error
