"""Weaviate: two-stage search in a server.

- ``database.py``: Weaviate's entry in the registry
- ``async_store.py``: AsyncWeaviateMuvera; ``store.py``, WeaviateMuvera, is generated from it
- ``collection.py``: the description of a collection and its server
- ``requests.py``: the requests that operations make
- ``client.py``: sends calls, with what they have in common
- ``errors.py``: translates errors of weaviate-client into those of this library
- ``schema.py``: configuration of a new collection, and how a configuration is read
- ``lifecycle.py``: create, open, adopt, add the FDE vector, write the state, drop
- ``prepare.py``: checks documents and queries before anything is sent
- ``ids.py``: ids as UUIDs, and this library's two properties
- ``reading.py``, ``writing.py``, ``searching.py``, ``backfilling.py``, ``repairing.py``: the operations
- ``also.py``: further searches for candidates, beside that of FDEs
- ``query_fitting.py``: the reads of a query fit
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
