"""Sends requests as calls of pymilvus's two clients, whose methods have the same names and arguments."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from pymilvus import AsyncMilvusClient, MilvusClient

from muvera_adapters.stores.checks import check_client
from muvera_adapters.stores.operations import Request

R = TypeVar("R")
T = TypeVar("T")

# pymilvus imports it at the first search (SciPyHelper), which fails if two threads search for the first time
with contextlib.suppress(ImportError):
    importlib.import_module("scipy.sparse")

#: time limit of a request in seconds; without one, the client repeats a failed request 75 times
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Connection:
    """What all calls of a store have in common.

    Attributes:
        name: name of the collection, or an alias of it.
        timeout: time limit of one call in seconds, including the client's own retries.
    """

    name: str
    timeout: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class Call(Request[T], Generic[R, T]):
    """A call of the client, and how its reply is read.

    Attributes:
        send: function that makes the call, given the client and the timeout in seconds.
        read: function that turns the client's result into the request's reply.
    """

    send: Callable[[MilvusClient, float], R]
    read: Callable[[R], T]


def send(client: Any, connection: Connection, call: Call[R, Any], seconds: float = math.inf) -> R:
    """The client's reply to a call; from an asynchronous client, an awaitable of the reply.

    Args:
        client: the caller's client.
        connection: settings of all calls of the store.
        call: call to send.
        seconds: time limit of the request, in addition to that of the connection.
    """
    return call.send(client, min(seconds, connection.timeout))


def check_kind(client: Any, kind: type) -> None:
    """Raises InvalidInput unless this is a client of the right kind; names the store for the other kind."""
    stores = {AsyncMilvusClient: "AsyncMilvusMuvera", MilvusClient: "MilvusMuvera"}
    check_client(client, kind, {other: store for other, store in stores.items() if other is not kind})


def address_of(client: Any) -> str:
    """URL of the client's server, without user and password; "" if unknown."""
    config = getattr(client, "_config", None)
    scheme, address = urlsplit(getattr(config, "uri", "")).scheme, getattr(config, "address", "")
    return f"{scheme}://{address}" if scheme in ("http", "https") else str(address)
