"""Weaviate: two-stage search in a server.

- ``database.py``: what the rest of the package knows of Weaviate
- ``async_store.py``: AsyncWeaviateMuvera; ``store.py``, WeaviateMuvera, is generated from it
- ``collection.py``: what is known of a collection and its server
- ``requests.py``: what operations ask of a Weaviate
- ``client.py``: what all calls have in common, and how they are sent
- ``errors.py``: errors of weaviate-client as those of this library
- ``schema.py``: configuration of a new collection, and how a configuration is read
- ``lifecycle.py``: create, open, adopt, add the FDE vector, write the state, drop
- ``prepare.py``: documents and queries, checked before anything is sent
- ``ids.py``: ids as UUIDs, and this library's two properties
- ``reading.py``, ``writing.py``, ``searching.py``, ``backfilling.py``, ``repairing.py``: the operations
- ``also.py``: searches beside that of FDEs
- ``query_fitting.py``: what a fit of query FDEs reads
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.stores.operations import Retry

if TYPE_CHECKING:
    from muvera_adapters.weaviate.also import BM25, NearVector
    from muvera_adapters.weaviate.async_store import AsyncWeaviateMuvera
    from muvera_adapters.weaviate.store import WeaviateMuvera

__all__ = ["BM25", "AsyncWeaviateMuvera", "NearVector", "Retry", "WeaviateMuvera"]

_STORES = {"AsyncWeaviateMuvera": "async_store", "WeaviateMuvera": "store", "BM25": "also", "NearVector": "also"}


def __getattr__(name: str) -> Any:
    if name not in _STORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_STORES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "weaviate":
            raise
        raise MissingExtra("weaviate-client", "weaviate") from error
