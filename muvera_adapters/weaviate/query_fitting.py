"""The reads of a query fit."""

from __future__ import annotations

from typing import Any

from muvera_adapters.stores.backfilling import Stored
from muvera_adapters.stores.query_fitting import FitAccess
from muvera_adapters.weaviate.backfilling import with_tokens
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.prepare import check_matrix
from muvera_adapters.weaviate.reading import fetch_all
from muvera_adapters.weaviate.requests import page

# number of ids in one page; a reply has only ids
_PAGE = 1_000


def access(collection: Collection) -> FitAccess:
    """The reads of a query fit to the collection."""
    names = [name for name in (collection.tokens, collection.fde) if name is not None]

    async def keys(after: Any) -> tuple[list[Any], Any]:
        ids = [row.id for row in await page(collection, _PAGE, after, None)]
        return ids, ids[-1] if len(ids) == _PAGE else None

    async def read(ids: list[Any]) -> list[Stored]:
        return with_tokens(collection, await fetch_all(collection, ids, False, names))

    return FitAccess(collection, check_matrix, keys, read, collection.fde_info.distance == "cosine")
