"""What a fit of query FDEs reads."""

from __future__ import annotations

from typing import Any

from muvera_adapters.lancedb.backfilling import stored
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.expressions import column
from muvera_adapters.lancedb.reading import fetch_all, next_keys
from muvera_adapters.lancedb.requests import FILTER_KEYS
from muvera_adapters.stores.backfilling import Stored
from muvera_adapters.stores.checks import check_encodable
from muvera_adapters.stores.query_fitting import FitAccess


def access(collection: Collection) -> FitAccess:
    """The reads of a fit to the collection."""

    async def keys(cursor: Any) -> tuple[list[Any], Any]:
        return await next_keys(collection, f"{column(collection.fde)} IS NOT NULL", FILTER_KEYS, cursor)

    async def read(some: list[Any]) -> list[Stored]:
        return stored(collection, await fetch_all(collection, some, [str(collection.tokens), collection.fde]))

    return FitAccess(collection, check_encodable, keys, read, False)
