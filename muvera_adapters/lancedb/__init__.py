"""LanceDB: two-stage search in tables of a directory, embedded in the process.

- ``database.py``: what the rest of the package knows of LanceDB
- ``async_store.py``: AsyncLanceMuvera; ``store.py``, LanceMuvera, is generated from it
- ``collection.py``: what is known of a table
- ``requests.py``: what operations ask of LanceDB
- ``client.py``: how requests are sent, to the blocking and to the asynchronous client
- ``errors.py``: errors of lancedb as those of this library
- ``schema.py``: columns of a new table, and how a schema is read
- ``lifecycle.py``: create, open, adopt, add the FDE column, keep the state, drop
- ``prepare.py``: documents, checked before anything is written
- ``expressions.py``: SQL filters; ``arrow.py``: values as Arrow columns, and back
- ``also.py``: further searches for candidates; ``conditions.py``: filters in no database's words
- ``reading.py``, ``writing.py``, ``searching.py``, ``backfilling.py``: the operations
- ``query_fitting.py``: what a fit of query FDEs reads
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.stores.operations import Retry

if TYPE_CHECKING:
    from muvera_adapters.lancedb.also import FullText, Near
    from muvera_adapters.lancedb.async_store import AsyncLanceMuvera
    from muvera_adapters.lancedb.store import LanceMuvera

__all__ = ["AsyncLanceMuvera", "FullText", "LanceMuvera", "Near", "Retry"]

_STORES = {"AsyncLanceMuvera": "async_store", "LanceMuvera": "store", "FullText": "also", "Near": "also"}


def __getattr__(name: str) -> Any:
    if name not in _STORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_STORES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "lancedb":
            raise
        raise MissingExtra("lancedb", "lancedb") from error
