"""Further searches for candidates: the client's AnnSearchRequest, or expressions."""

from __future__ import annotations

from typing import Any, TypeAlias

from pymilvus import AnnSearchRequest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.milvus import requests
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import both, checked
from muvera_adapters.milvus.requests import Row
from muvera_adapters.stores.operations import Request

#: a search in another field, or an expression, whose documents have no order
Also: TypeAlias = AnnSearchRequest | str


def check(search: Any, what: str) -> None:
    """Raises InvalidInput for another class, an empty expression, or several vectors."""
    if isinstance(search, str):
        if not checked(search):
            raise InvalidInput(f"{what} is an empty expression")
    elif not isinstance(search, AnnSearchRequest):
        raise InvalidInput(f"{what} must be an AnnSearchRequest or an expression, got a {type(search).__name__}")
    elif getattr(search.data, "shape", None) is None and len(search.data) != 1:
        raise InvalidInput(f"{what} has {len(search.data)} vectors, and must have one: pass data=[vector]")


def searched(search: Also) -> str | None:
    """Name of the field that is searched; None for an expression."""
    return None if isinstance(search, str) else search.anns_field


def request(collection: Collection, search: Also, limit: int, chosen: str) -> Request[list[Row]]:
    """The request of a search, without payloads; ``chosen`` is the expression of the whole search."""
    if isinstance(search, str):
        return requests.matching(collection, both(chosen, f"({checked(search)})"), limit)
    own = checked(search.expr)
    expression = both(chosen, f"({own})") if own else chosen
    return requests.near_own(collection, search, expression)
