"""The requests that operations make: one function for each kind, typed by its reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from weaviate.classes.config import Property
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, MetadataQuery
from weaviate.collections import Collection as ClientCollection
from weaviate.collections.classes.batch import BatchObjectReturn
from weaviate.collections.classes.cluster import NodeVerbose, Shard
from weaviate.collections.classes.config import CollectionConfig
from weaviate.collections.classes.config_vectors import VectorConfigCreate
from weaviate.collections.classes.filters import FilterReturn
from weaviate.collections.classes.internal import QueryReturn

from muvera_adapters.stores.operations import Request
from muvera_adapters.weaviate.client import ClientCall, CollectionCall
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.ids import FDE_KEY, ID_KEY, JSON_KEY

Vectors: TypeAlias = dict[str, npt.NDArray[Any]]

T = TypeVar("T")

#: bytes of one insert; the server's limit is 104,858,000 (GRPC_MAX_MESSAGE_SIZE)
WRITE_BYTES = 8 << 20
#: maximum number of ids in a filter: each becomes a separate condition (inverted/searcher.go, classifyContainsBatch)
FILTER_IDS = 1_000

# a document without the multi-vector scores MaxFloat32 for every query token (hnsw/search.go, computeScore)
_ABSENT = 1e30


@dataclass(frozen=True, slots=True)
class Row:
    """An object that was read.

    Attributes:
        id: UUID of the object.
        properties: requested properties that it has, including this library's.
        vectors: requested vectors that it has, by name.
        distance: distance to the query; None if the request has no query.
    """

    id: str
    properties: dict[str, Any]
    vectors: Vectors
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """An object to write.

    Attributes:
        id: UUID of the object.
        properties: all its properties, including this library's.
        vectors: vectors to write, by name, as arrays or in the client's types.
    """

    id: str
    properties: dict[str, Any]
    vectors: Mapping[str, Any]


def near_fde(
    collection: Collection,
    fde: npt.NDArray[np.float32],
    limit: int,
    filters: FilterReturn | None = None,
    properties: Any = None,
    vectors: Sequence[str] = (),
) -> Request[list[Row]]:
    """Documents whose FDEs are nearest to a query's (dim,), best first."""
    return CollectionCall(_near(collection, fde, collection.fde, limit, filters, properties, vectors), to_rows)


def near_tokens(
    collection: Collection,
    query: npt.NDArray[np.float32],
    limit: int,
    filters: FilterReturn | None = None,
    properties: Any = None,
    vectors: Sequence[str] = (),
) -> Request[list[Row]]:
    """Documents by MaxSim with a query (m, token_dim), best first; documents without tokens are left out."""
    # unlike in writes, a two-dimensional array of one row is a multi-vector here
    near = _near(collection, query, collection.tokens, limit, filters, properties, vectors)
    return CollectionCall(near, _with_tokens)


def fetch(
    collection: Collection,
    ids: Sequence[str],
    properties: Any = True,
    vectors: Sequence[str] = (),
    filters: FilterReturn | None = None,
) -> Request[list[Row]]:
    """Documents of at most FILTER_IDS ids that exist and pass ``filters``, in any order."""
    names, wanted, chosen = _names(collection, properties), list(vectors) or False, by_ids(ids, filters)
    return CollectionCall(
        lambda its: its.query.fetch_objects(
            limit=len(ids), filters=chosen, include_vector=wanted, return_properties=names
        ),
        to_rows,
    )


def page(
    collection: Collection, limit: int, after: str | None, properties: Any = True, vectors: Sequence[str] = ()
) -> Request[list[Row]]:
    """Documents after an id, in the order of ids; such a cursor cannot be combined with a filter."""
    names, wanted = _names(collection, properties), list(vectors) or False
    return CollectionCall(
        lambda its: its.query.fetch_objects(limit=limit, after=after, include_vector=wanted, return_properties=names),
        to_rows,
    )


def matching(filters: FilterReturn | None, limit: int, offset: int, vectors: Sequence[str]) -> Request[list[Row]]:
    """Documents that pass ``filters``, without properties; offset + limit is at most MAX_RESULTS."""
    wanted = list(vectors) or False
    return CollectionCall(
        lambda its: its.query.fetch_objects(
            filters=filters, limit=limit, offset=offset, include_vector=wanted, return_properties=[]
        ),
        to_rows,
    )


def count(filters: FilterReturn | None = None) -> Request[int]:
    """Exact number of documents."""
    return CollectionCall(
        lambda its: its.aggregate.over_all(total_count=True, filters=filters), lambda reply: reply.total_count or 0
    )


def count_marked(collection: Collection) -> Request[int]:
    """Exact number of documents whose FDE this library wrote."""
    return count(Filter.by_property(FDE_KEY).equal(collection.fde))


def insert(writes: Sequence[Write]) -> Request[dict[int, str]]:
    """Writes whole objects, replacing existing ones. Reply: errors of rejected ones, by position."""
    # converted here, where errors of the conversion are translated
    return CollectionCall(
        lambda its: its.data.insert_many([DataObject(w.properties, w.id, _lists(w.vectors)) for w in writes]), _errors
    )


def patch(write: Write) -> Request[None]:
    """Writes the given properties and vectors of an existing object; a property of None is removed."""
    return CollectionCall(
        lambda its: its.data.update(write.id, write.properties, vector=_lists(write.vectors)), _nothing
    )


def delete(filters: FilterReturn) -> Request[tuple[int, int]]:
    """Deletes as many matches as one query may return. Reply: number of matches, number of failures."""
    return CollectionCall(lambda its: its.data.delete_many(filters), lambda reply: (reply.matches, reply.failed))


def config() -> Request[CollectionConfig]:
    """Configuration of the collection."""
    return CollectionCall(lambda its: its.config.get(), _as_it_is)


def add_property(own: Property) -> Request[None]:
    """Adds a property to the collection."""
    return CollectionCall(lambda its: its.config.add_property(own), _nothing)


def describe_property(name: str, description: str) -> Request[None]:
    """Replaces the description of a property."""
    return CollectionCall(lambda its: its.config.update(property_descriptions={name: description}), _nothing)


def add_vector(vector: VectorConfigCreate) -> Request[None]:
    """Adds a named vector to the collection."""
    return CollectionCall(lambda its: its.config.add_vector(vector_config=vector), _nothing)


def drop_vector(name: str) -> Request[None]:
    """Removes a named vector from the collection; the server continues after the reply."""
    return CollectionCall(lambda its: its.config.delete_vector_index(name), _nothing)


def meta() -> Request[dict[str, Any]]:
    """Version and settings of the server."""
    return ClientCall(lambda client: client.get_meta(), _as_it_is)


def exists(name: str) -> ClientCall[bool, bool]:
    """Whether there is such a collection."""
    return ClientCall(lambda client: client.collections.exists(name), _as_it_is)


def create(name: str, arguments: Mapping[str, Any]) -> Request[None]:
    """Creates a collection; ``arguments`` are those of ``client.collections.create``."""
    return ClientCall(lambda client: client.collections.create(name, **arguments), _nothing)


def create_tenant(name: str, tenant: str) -> Request[None]:
    """Creates a tenant of a collection."""
    return ClientCall(lambda client: client.collections.use(name).tenants.create(tenant), _nothing)


def drop(name: str) -> Request[None]:
    """Deletes a collection with all its tenants; one that does not exist is ignored."""
    return ClientCall(lambda client: client.collections.delete(name), _nothing)


def shards(collection: Collection) -> Request[list[Shard]]:
    """Shards of the collection on all nodes."""
    return ClientCall(lambda client: client.cluster.nodes(collection.name, output="verbose"), _shards)


def by_ids(ids: Sequence[str], filters: FilterReturn | None = None) -> FilterReturn:
    """Filter for objects of these ids that pass ``filters``."""
    chosen = Filter.by_id().contains_any(list(ids))
    return chosen if filters is None else filters & chosen


def to_rows(reply: QueryReturn[Any, Any]) -> list[Row]:
    """Objects of a query's reply; properties that an object does not have are left out."""
    return [
        Row(
            str(found.uuid),
            {key: value for key, value in (found.properties or {}).items() if value is not None},
            {name: np.asarray(vector, np.float32) for name, vector in (found.vector or {}).items()},
            found.metadata.distance if found.metadata else None,
        )
        for found in reply.objects
    ]


def _near(
    collection: Collection,
    vector: Any,
    name: str | None,
    limit: int,
    filters: FilterReturn | None,
    properties: Any,
    vectors: Sequence[str],
) -> Callable[[ClientCollection[Any, Any]], QueryReturn[Any, Any]]:
    names, wanted = _names(collection, properties), list(vectors) or False
    return lambda its: its.query.near_vector(
        vector,
        target_vector=name,
        limit=limit,
        filters=filters,
        include_vector=wanted,
        return_properties=names,
        return_metadata=MetadataQuery(distance=True),
    )


def _with_tokens(reply: QueryReturn[Any, Any]) -> list[Row]:
    return [row for row in to_rows(reply) if row.distance is not None and row.distance < _ABSENT]


def _names(collection: Collection, properties: Any) -> list[Any] | None:
    """``return_properties`` of a query, where None means all.

    ``properties`` is True (all), False (those of this library, for ids and payloads), None (none), or names in addition
    to those of False.
    """
    if properties is True:
        return None
    if properties is None:
        return []
    ours = [key for key in (ID_KEY, JSON_KEY) if collection.keeps_state and key in collection.seen.kinds]
    return [*(properties or ()), *ours]


def _lists(vectors: Mapping[str, Any]) -> dict[str, Any]:
    # the client squeezes arrays in writes: a document of one token would become a single vector (W/util.py, get_vector)
    return {name: vector.tolist() if hasattr(vector, "tolist") else vector for name, vector in vectors.items()}


def _errors(reply: BatchObjectReturn) -> dict[int, str]:
    return {position: str(error.message) for position, error in reply.errors.items()}


def _shards(nodes: Sequence[NodeVerbose]) -> list[Shard]:
    return [shard for node in nodes for shard in node.shards]


def _as_it_is(reply: T) -> T:
    return reply


def _nothing(_: object) -> None:
    """Ignores the reply."""
