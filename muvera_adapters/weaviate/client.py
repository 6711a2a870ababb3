"""Sends calls through weaviate-client, with what all calls of a store have in common."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar, cast

import grpc
from weaviate import WeaviateAsyncClient, WeaviateClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.collections import Collection as ClientCollection
from weaviate.connect.v4 import ConnectionAsync, ConnectionSync

from muvera_adapters.errors import StoreUnavailable
from muvera_adapters.stores.checks import check_client
from muvera_adapters.stores.operations import Request
from muvera_adapters.weaviate.ids import FDE_KEY

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """What all calls of a store have in common.

    Attributes:
        name: name of the collection.
        tenant: tenant that every call reads or writes; None in a collection without tenants.
        consistency_level: consistency level of reads and writes; None: that of the collection.
    """

    name: str
    tenant: str | None = None
    consistency_level: ConsistencyLevel | None = None

    def of_tenant(self, tenant: str) -> Connection:
        """The same connection for another tenant."""
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
    """Like :class:`CollectionCall`, for a method of the client itself."""

    send: Callable[[WeaviateClient], R]
    read: Callable[[R], T]


class _Short(logging.Filter):
    """Removes vectors from the client's log of rejected objects: it logs whole objects, a megabyte each."""

    def filter(self, record: logging.LogRecord) -> bool:
        said: Any = record.msg
        errors = said.get("errors") if isinstance(said, dict) else None
        if isinstance(errors, dict) and any(map(_is_ours, errors.values())):
            short = {i: f"{getattr(e.object_, 'uuid', None)}: {e.message}"[:1_000] for i, e in errors.items()}
            record.msg = str({**said, "errors": short})
        return True


def _is_ours(error: Any) -> bool:
    return FDE_KEY in (getattr(getattr(error, "object_", None), "properties", None) or {})


logging.getLogger("weaviate-client").addFilter(_Short())


def check_kind(client: Any) -> None:
    """Raises InvalidInput unless the client is a synchronous one."""
    check_client(client, WeaviateClient, {WeaviateAsyncClient: "AsyncWeaviateMuvera"})


def check_kind_async(client: Any) -> None:
    """Raises InvalidInput unless the client is an asynchronous one."""
    check_client(client, WeaviateAsyncClient, {WeaviateClient: "WeaviateMuvera"})


def address(client: Any) -> str:
    """URL and gRPC port of a client's server, for messages; empty if unknown."""
    connection = getattr(client, "_connection", None)
    grpc = getattr(getattr(connection, "_connection_params", None), "grpc", None)
    url = getattr(connection, "url", None)
    return f"{url} (gRPC {grpc.host}:{grpc.port})" if isinstance(url, str) and grpc is not None else ""


Call: TypeAlias = CollectionCall[R, T] | ClientCall[R, T]


def send(client: Any, connection: Connection, call: Call[Any, Any], seconds: float = math.inf) -> Any:
    """The client's reply to a call; from an asynchronous client, an awaitable of the reply.

    Args:
        client: the caller's client.
        connection: collection, tenant and consistency level.
        call: call to send.
        seconds: time limit of the request, in addition to that of the client.
    """
    client = _limited(client, seconds)
    if isinstance(call, ClientCall):
        return call.send(client)
    collection = client.collections.use(connection.name)
    if connection.tenant is not None:
        collection = collection.with_tenant(connection.tenant)
    if connection.consistency_level is not None:
        collection = collection.with_consistency_level(connection.consistency_level)
    return call.send(collection)


class _Once:
    """The client's gRPC stub, wrapped so that the client repeats nothing.

    The client repeats requests that a server which is down does not answer, with pauses of a minute in total that
    cannot be interrupted. It does so only for errors of gRPC, so these become an error of this library.
    """

    def __init__(self, stub: Any, server: str) -> None:
        self._stub = stub
        self._server = server

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                reply = method(*args, **kwargs)
            except grpc.RpcError as error:
                raise self._error(error) from error
            return self._awaited(reply) if hasattr(reply, "__await__") else reply

        return call

    async def _awaited(self, reply: Any) -> Any:
        try:
            return await reply
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> Exception:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return cast(Exception, error)
        at = f" at {self._server}" if self._server else ""
        return StoreUnavailable(f"Weaviate{at} cannot be reached: {error.details()}", transient=True)


class _Limits:
    """A connection that shares everything with the client's, except the time limits."""

    # the client's own method warns about connections that are not closed
    def __del__(self) -> None:
        pass


class _LimitedSync(_Limits, ConnectionSync):
    pass


class _LimitedAsync(_Limits, ConnectionAsync):
    pass


def _limited(client: Any, seconds: float) -> Any:
    """A client on the same connection that repeats nothing and waits at most ``seconds``; the original is unchanged."""
    own = getattr(client, "_connection", None)
    if not isinstance(own, ConnectionSync | ConnectionAsync):
        return client
    kind: Any = _LimitedSync if isinstance(own, ConnectionSync) else _LimitedAsync
    connection = kind.__new__(kind)
    connection.__dict__.update(own.__dict__)
    if connection._grpc_stub is not None:
        connection._grpc_stub = _Once(connection._grpc_stub, address(client))
    if math.isfinite(seconds):
        limits = {name: min(seconds, getattr(own.timeout_config, name)) for name in ("query", "insert")}
        connection.timeout_config = own.timeout_config.model_copy(update=limits)
    limited = copy.copy(client)
    limited._connection = connection
    limited.collections = type(client.collections)(connection)
    limited.cluster = type(client.cluster)(connection)
    return limited
