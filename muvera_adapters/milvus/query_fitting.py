"""The reads of a query fit."""

from __future__ import annotations

from typing import Any

from muvera_adapters.milvus.backfilling import to_stored
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.reading import fetch_all, marked_by, next_keys
from muvera_adapters.milvus.requests import MAX_RESULTS
from muvera_adapters.stores.backfilling import Stored
from muvera_adapters.stores.checks import check_encodable
from muvera_adapters.stores.query_fitting import FitAccess


def access(collection: Collection) -> FitAccess:
    """The reads of a query fit to the collection."""
    chosen = marked_by(collection) if collection.marker else ""

    async def keys(cursor: Any) -> tuple[list[Any], Any]:
        return await next_keys(collection, chosen, MAX_RESULTS, cursor)

    async def read(some: list[Any]) -> list[Stored]:
        rows = await fetch_all(collection, some, [*collection.token_fields, collection.fde], strong=True)
        return to_stored(collection, rows)

    return FitAccess(collection, check_encodable, keys, read, collection.fde_metric == "COSINE")
