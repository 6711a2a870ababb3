"""Milvus: two-stage search in a server, a cluster, or a file of milvus-lite.

- ``database.py``: what the rest of the package knows of Milvus
- ``async_store.py``: AsyncMilvusMuvera; ``store.py``, MilvusMuvera, is generated from it
- ``collection.py``: what is known of a collection and its server
- ``requests.py``: what operations ask of a Milvus
- ``client.py``: what all calls have in common, and how they are sent
- ``errors.py``: errors of pymilvus as those of this library
- ``schema.py``: schema and indexes of a new collection, and how a schema is read
- ``lifecycle.py``: create, open, adopt, add the FDE field, write the state, drop
- ``copying.py``: backfill into a new collection
- ``merging.py``: writes that keep what they do not name
- ``prepare.py``: documents, checked before anything is sent
- ``expressions.py``: filters; ``blobs.py``: tokens as text
- ``reading.py``, ``writing.py``, ``searching.py``, ``backfilling.py``: the operations
- ``query_fitting.py``: what a fit of query FDEs reads
"""

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
