"""Further searches for candidates, with the arguments of Weaviate's client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import FilterReturn
from weaviate.collections.classes.grpc import BM25OperatorOptions

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.operations import Request
from muvera_adapters.stores.searching import limit_of
from muvera_adapters.weaviate.client import CollectionCall
from muvera_adapters.weaviate.requests import Row, to_rows


@dataclass(frozen=True, slots=True)
class BM25:
    """Keyword search; the arguments are those of ``collection.query.bm25``.

    Args:
        query: text to search for.
        query_properties: names of the properties to search, with ``^2`` behind one that counts double; None: all texts.
        operator: words that must be found, from ``weaviate.classes.query.BM25Operator``; None: any of them.
        filters: condition that its documents must pass, in addition to that of the search.
        limit: maximum number of its candidates; None: ``prefetch``.
    """

    query: str
    query_properties: Sequence[str] | None = None
    operator: BM25OperatorOptions | None = None
    filters: FilterReturn | None = None
    limit: int | None = None

    @property
    def searched(self) -> str:
        """Name of the search in ``Hit.found_by``."""
        return "bm25"


@dataclass(frozen=True, slots=True)
class NearVector:
    """Search in another vector of the collection; the arguments are those of ``collection.query.near_vector``.

    Args:
        near_vector: vector (dim,) to search for.
        target_vector: name of the vector to search in.
        certainty: minimum certainty, from 0 to 1; only where vectors are compared by cosine.
        distance: maximum distance.
        filters: condition that its documents must pass, in addition to that of the search.
        limit: maximum number of its candidates; None: ``prefetch``.
    """

    near_vector: Any
    target_vector: str
    certainty: float | None = None
    distance: float | None = None
    filters: FilterReturn | None = None
    limit: int | None = None

    @property
    def searched(self) -> str:
        """Name of the search in ``Hit.found_by``."""
        return self.target_vector


Also: TypeAlias = BM25 | NearVector


def check(search: Any, what: str) -> None:
    """Raises InvalidInput for a search of another class."""
    if not isinstance(search, Also):
        raise InvalidInput(f"{what} must be a BM25 or a NearVector, got a {type(search).__name__}")


def request(search: Also, limit: int, filters: FilterReturn | None) -> Request[list[Row]]:
    """The request of a search, without properties."""
    given = {f.name: getattr(search, f.name) for f in fields(search)}
    chosen = [each for each in (given.pop("filters"), filters) if each is not None]
    given["filters"] = Filter.all_of(chosen) if len(chosen) > 1 else next(iter(chosen), None)
    given["limit"] = limit_of(search, limit)
    if isinstance(search, BM25):
        return CollectionCall(lambda its: its.query.bm25(return_properties=[], **given), to_rows)
    return CollectionCall(lambda its: its.query.near_vector(return_properties=[], **given), to_rows)
