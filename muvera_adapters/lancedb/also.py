"""Searches for candidates beside that of FDEs: vectors of other models, and full-text queries of the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from lancedb.query import FullTextQuery

from muvera_adapters.errors import InvalidInput
from muvera_adapters.lancedb import requests as r
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.expressions import both, checked
from muvera_adapters.lancedb.requests import Row
from muvera_adapters.stores.operations import Request
from muvera_adapters.stores.searching import limit_of

#: distance of vectors
Distance: TypeAlias = Literal["l2", "cosine", "dot"]


@dataclass(frozen=True, slots=True)
class Near:
    """Search for the nearest vectors in a column of another model.

    Args:
        column: name of the column.
        vector: (dim,) vector to look for.
        distance: distance that the column's index has, or that is computed.
        filter: condition in SQL that its documents must pass, beside that of the search.
        limit: maximum number of its candidates; None: ``prefetch``.
    """

    column: str
    vector: Any
    distance: Distance = "l2"
    filter: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class FullText:
    """Full-text search in columns that have an index for it (``table.create_index("text", config=FTS())``).

    Args:
        query: query of the client, such as ``MatchQuery("words", "text")`` of ``lancedb.query``.
        filter: condition in SQL that its documents must pass, beside that of the search.
        limit: maximum number of its candidates; None: ``prefetch``.
    """

    query: FullTextQuery
    filter: str | None = None
    limit: int | None = None


#: another search for candidates; a bare query of the client finds ``prefetch`` candidates
Also: TypeAlias = Near | FullText | FullTextQuery


def check(search: Any, what: str) -> None:
    """Raises InvalidInput for another class, or for what is not a vector."""
    if isinstance(search, FullTextQuery):
        return
    if isinstance(search, FullText):
        checked(search.filter)
        if not isinstance(search.query, FullTextQuery):
            raise InvalidInput(f"{what}: query must be one of lancedb.query, such as MatchQuery('words', 'text')")
        return
    if not isinstance(search, Near):
        raise InvalidInput(
            f"{what} must be a Near, a FullText or a query of lancedb.query, got a {type(search).__name__}"
        )
    checked(search.filter)
    if search.distance not in get_args(Distance):
        raise InvalidInput(f"{what}: distance must be one of {', '.join(get_args(Distance))}, got {search.distance!r}")
    try:
        vector = np.asarray(search.vector, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what}: vector must be numbers") from error
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise InvalidInput(f"{what}: vector must be finite numbers of shape (dim,), got the shape {vector.shape}")


def searched(search: Also) -> str | None:
    """Name of the column that is searched; None where there may be several."""
    if isinstance(search, Near):
        return search.column
    query = search.query if isinstance(search, FullText) else search
    return getattr(query, "column", None)


def request(collection: Collection, search: Also, candidates: int, chosen: str) -> Request[list[Row]]:
    """The request of a search, without payloads; ``chosen`` is the filter of the whole search."""
    limit = limit_of(search, candidates)
    own = "" if isinstance(search, FullTextQuery) else checked(search.filter)
    chosen = both(chosen, own) if own else chosen
    if isinstance(search, Near):
        vector = np.asarray(search.vector, np.float32)
        return r.near_vector(collection, search.column, vector, search.distance, limit, chosen)
    query = search.query if isinstance(search, FullText) else search
    return r.near_text(collection, query, limit, chosen)
