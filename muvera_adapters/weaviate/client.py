"""weaviate-client's side: what all calls of a store have in common, and how a call is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from weaviate import WeaviateClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.collections import Collection as ClientCollection

from muvera_adapters.stores.operations import Request, Retry

R = TypeVar("R")
T = TypeVar("T")

#: the client itself repeats a query for a minute
DEFAULT_RETRY = Retry(attempts=4)


@dataclass(frozen=True, slots=True)
class Connection:
    """What all calls of a store have in common.

    Attributes:
        name: name of the collection.
        tenant: tenant that every call is about; None in a collection without tenants.
        consistency_level: level of reads and writes; None: the collection's own.
    """

    name: str
    tenant: str | None = None
    consistency_level: ConsistencyLevel | None = None

    def of_tenant(self, tenant: str) -> Connection:
        """The same for another tenant."""
        return replace(self, tenant=tenant)


@dataclass(frozen=True, slots=True)
class CollectionCall(Request[T], Generic[R, T]):
    """A request that one method of a collection answers.

    Lambdas are typed by the synchronous client. The asynchronous one has methods of the same names, whose results must
    be awaited.

    Attributes:
        send: calls the method of the given collection.
        read: turns the client's reply into the request's.
    """

    send: Callable[[ClientCollection[Any, Any]], R]
    read: Callable[[R], T]


@dataclass(frozen=True, slots=True)
class ClientCall(Request[T], Generic[R, T]):
    """As :class:`CollectionCall`, for a method of the client itself."""

    send: Callable[[WeaviateClient], R]
    read: Callable[[R], T]


Call: TypeAlias = CollectionCall[R, T] | ClientCall[R, T]


def send(client: Any, connection: Connection, call: Call[Any, Any]) -> Any:
    """The client's reply to a call; from an asynchronous client, an awaitable of the reply."""
    if isinstance(call, ClientCall):
        return call.send(client)
    collection = client.collections.use(connection.name)
    if connection.tenant is not None:
        collection = collection.with_tenant(connection.tenant)
    if connection.consistency_level is not None:
        collection = collection.with_consistency_level(connection.consistency_level)
    return call.send(collection)
