"""Qdrant: a server, qdrant-client's local mode, or the embedded engine Qdrant Edge.

Each store is imported on first use, so that the extra ``edge`` or ``qdrant`` alone is enough.

- ``async_store.py``: AsyncQdrantMuvera; ``store.py``, QdrantMuvera, is generated from it
- ``collection.py``: the description of a collection
- ``requests.py``: the requests that operations make
- ``client.py``: sends requests as calls of qdrant-client
- ``errors.py``: translates errors of qdrant-client into those of this library
- ``schema.py``: vectors and quantization of a new collection
- ``lifecycle.py``: create, open, adopt, add the FDE vector, drop
- ``copying.py``: backfill into a new collection
- ``prepare.py``: checks documents and queries before anything is sent
- ``reading.py``, ``writing.py``, ``searching.py``, ``backfilling.py``: the operations
- ``query_fitting.py``: the reads of a query fit
- ``edge/``: QdrantEdgeMuvera, which runs the same operations on the embedded engine
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.stores.operations import Retry

if TYPE_CHECKING:
    from muvera_adapters.qdrant.async_store import AsyncQdrantMuvera
    from muvera_adapters.qdrant.edge.store import QdrantEdgeMuvera
    from muvera_adapters.qdrant.store import QdrantMuvera

__all__ = ["AsyncQdrantMuvera", "QdrantEdgeMuvera", "QdrantMuvera", "Retry"]

# name -> module, what it imports, its package, our extra
_STORES = {
    "AsyncQdrantMuvera": ("async_store", "qdrant_client", "qdrant-client", "qdrant"),
    "QdrantMuvera": ("store", "qdrant_client", "qdrant-client", "qdrant"),
    "QdrantEdgeMuvera": ("edge.store", "qdrant_edge", "qdrant-edge-py", "edge"),
}


def __getattr__(name: str) -> Any:
    if name not in _STORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, imported, package, extra = _STORES[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != imported:
            raise
        raise MissingExtra(package, extra) from error
