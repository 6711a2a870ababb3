"""How requests are sent: calls of pymilvus's two clients, whose methods have the same names and arguments."""

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

# pymilvus loads it at the first search (SciPyHelper), which fails where two threads search for the first time
with contextlib.suppress(ImportError):
    importlib.import_module("scipy.sparse")

#: seconds; without a limit the client repeats a failed request 75 times
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Connection:
    """What all calls of a store have in common.

    Attributes:
        name: name of the collection, or an alias of it.
        timeout: seconds that one call may take, the client's own repetitions included.
    """

    name: str
    timeout: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class Call(Request[T], Generic[R, T]):
    """A call of the client, and the reply of the request.

    Attributes:
        send: function of the client and the timeout in seconds that makes the call.
        read: function that turns what the client returns into the request's reply.
    """

    send: Callable[[MilvusClient, float], R]
    read: Callable[[R], T]


def send(client: Any, connection: Connection, call: Call[R, Any], seconds: float = math.inf) -> R:
    """The client's reply to a call; from an asynchronous client, an awaitable of the reply.

    Args:
        client: the caller's client.
        connection: what all calls of the store have in common.
        call: what is asked for.
        seconds: limit of the request, beside that of the connection.
    """
    return call.send(client, min(seconds, connection.timeout))


def check_kind(client: Any, kind: type) -> None:
    """Raises InvalidInput for what is not a client of this kind, and names the store of the other kind."""
    stores = {AsyncMilvusClient: "AsyncMilvusMuvera", MilvusClient: "MilvusMuvera"}
    check_client(client, kind, {other: store for other, store in stores.items() if other is not kind})


def address_of(client: Any) -> str:
    """URL of the client's server, without user and password; "" where it is not known."""
    config = getattr(client, "_config", None)
    scheme, address = urlsplit(getattr(config, "uri", "")).scheme, getattr(config, "address", "")
    return f"{scheme}://{address}" if scheme in ("http", "https") else str(address)
