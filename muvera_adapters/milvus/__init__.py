"""Milvus: two-stage search in a server, a cluster, or a file of milvus-lite.

Map of this folder:

- ``async_store.py``   ``AsyncMilvusMuvera``, whose encoding runs in worker threads; source of both stores
- ``store.py``         ``MilvusMuvera``, generated from it
- ``collection.py``    what is known of a collection: ``Collection``, ``Server``, ``Seen``
- ``requests.py``      what is asked of Milvus, and how replies are read
- ``client.py``        how requests are sent: ``Connection``, ``Call``, ``send``
- ``errors.py``        the client's errors as this library's
- ``schema.py``        what a collection is made with, and how its description is read
- ``lifecycle.py``     create, open, adopt, add the FDE field, write the state, drop
- ``copying.py``       copy into a new collection, where a vector cannot be added in place
- ``prepare.py``       checks of documents and queries against Milvus's limits
- ``ids.py``           ids as primary keys; ``expressions.py``: filters; ``blobs.py``: tokens as text
- ``reading.py writing.py searching.py backfilling.py``   the operations of the stores
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
