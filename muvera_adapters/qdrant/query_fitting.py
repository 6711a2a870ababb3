"""The reads of a query fit."""

from __future__ import annotations

from functools import partial
from typing import Any

from muvera_adapters.qdrant.backfilling import to_stored
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import check_matrix
from muvera_adapters.qdrant.reading import read_page
from muvera_adapters.qdrant.requests import Fetch, Where
from muvera_adapters.stores.backfilling import Stored
from muvera_adapters.stores.ids import ID_KEY
from muvera_adapters.stores.query_fitting import FitAccess

# number of ids in one page; a reply has only ids
_PAGE = 1_000


def access(collection: Collection) -> FitAccess:
    """The reads of a query fit to the collection."""
    names = (collection.fde,) if collection.tokens is None else (collection.tokens, collection.fde)

    async def keys(offset: Any) -> tuple[list[Any], Any]:
        rows, following = await read_page(collection, Where(has=names), _PAGE, offset, False)
        return [row.id for row in rows], following

    async def read(ids: list[Any]) -> list[Stored]:
        rows = await Fetch(collection.name, ids, [ID_KEY], names)
        return [to_stored(collection, row) for row in rows if collection.tokens in row.vectors]

    return FitAccess(collection, partial(check_matrix, half=False), keys, read, collection.fde_cosine)
