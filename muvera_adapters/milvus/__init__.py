"""Milvus: two-stage search in a server, a cluster, or a file of milvus-lite.

- ``database.py``: Milvus's entry in the registry
- ``async_store.py``: AsyncMilvusMuvera; ``store.py``, MilvusMuvera, is generated from it
- ``collection.py``: the description of a collection and its server
- ``requests.py``: the requests that operations make
- ``client.py``: sends calls, with what they have in common
- ``errors.py``: translates errors of pymilvus into those of this library
- ``schema.py``: schema and indexes of a new collection, and how a schema is read
- ``lifecycle.py``: create, open, adopt, add the FDE field, write the state, drop
- ``copying.py``: backfill into a new collection
- ``merging.py``: writes that keep fields that they do not name
- ``prepare.py``: checks documents before anything is sent
- ``ids.py``: ids as primary keys; ``expressions.py``: filters; ``blobs.py``: tokens as text
- ``reading.py``, ``writing.py``, ``searching.py``, ``backfilling.py``: the operations
- ``query_fitting.py``: the reads of a query fit
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
