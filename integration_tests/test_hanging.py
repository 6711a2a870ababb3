"""Servers that accept connections and stay silent: every call ends when its time is over, and says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from muvera_adapters.errors import StoreUnavailable
from muvera_adapters.stores import operations
from muvera_adapters.testing import Blocking, CannotStart
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER, QUERIES
from servers.relay import Relay

IDS = list(range(5))
SERVERS = ["qdrant-rest", "qdrant-grpc", "milvus", "weaviate"]
# clients that are closed while the server is silent
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def qdrant(wire: str, asynchronous: bool, exits: ExitStack, run: Callable[[Any], Any], _: Any) -> Any:
    """A store as ``open`` would give it, of a server that has never answered."""
    from qdrant_client import AsyncQdrantClient, QdrantClient

    from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantMuvera
    from muvera_adapters.qdrant.client import Connection, address_of, wire_of
    from muvera_adapters.qdrant.collection import Collection

    relay = Relay()
    exits.callback(relay.close)
    options: dict[str, Any] = {"port": relay.port, "grpc_port": relay.port, "prefer_grpc": wire == "qdrant-grpc"}

    async def connect() -> Any:
        kind = AsyncQdrantClient if asynchronous else QdrantClient
        return kind("127.0.0.1", check_compatibility=False, **options)

    client = run(connect())
    exits.callback(lambda: run(client.close()) if asynchronous else client.close())
    connection = Connection("c", "Qdrant 1.19", (1, 19), wire_of(client), 60, address_of(client))
    collection = Collection("c", ENCODER, wire=connection.wire)
    store = AsyncQdrantMuvera if asynchronous else QdrantMuvera
    retries = (operations.DEFAULT_RETRY, operations.DEFAULT_WRITE_RETRY)
    return store(client, connection, collection, *retries), [relay]


def milvus(_: str, asynchronous: bool, exits: ExitStack, run: Callable[[Any], Any], path: Any) -> Any:
    from pymilvus import AsyncMilvusClient, MilvusClient

    from muvera_adapters.milvus import AsyncMilvusMuvera, MilvusMuvera
    from servers.milvus_server import LiteServer

    server = LiteServer(path)
    server.start()
    exits.callback(server.stop)
    relay = Relay(server.port)
    exits.callback(relay.close)
    uri = f"http://127.0.0.1:{relay.port}"

    async def connect() -> Any:
        client = AsyncMilvusClient(uri, timeout=10)
        return client, await AsyncMilvusMuvera.create(client, "c", ENCODER)

    if asynchronous:
        _client, store = run(connect())
    else:
        store = MilvusMuvera.create(MilvusClient(uri, timeout=10, dedicated=True), "c", ENCODER)
    return store, [relay]


def weaviate(_: str, asynchronous: bool, exits: ExitStack, run: Callable[[Any], Any], path: Any) -> Any:
    import weaviate

    from muvera_adapters.weaviate import AsyncWeaviateMuvera, WeaviateMuvera
    from servers.weaviate_server import WeaviateServer, binary

    server = WeaviateServer(binary(), path)
    server.start()
    exits.callback(server.stop)
    rest, grpc = Relay(server.port), Relay(server.grpc_port)
    exits.callback(rest.close)
    exits.callback(grpc.close)

    async def connect() -> Any:
        client = weaviate.use_async_with_local("127.0.0.1", rest.port, grpc.port)
        await client.connect()
        return client, await AsyncWeaviateMuvera.create(client, "C", ENCODER)

    if asynchronous:
        client, store = run(connect())
        exits.callback(lambda: run(client.close()))
    else:
        client = weaviate.connect_to_local("127.0.0.1", rest.port, grpc.port)
        exits.callback(client.close)
        store = WeaviateMuvera.create(client, "C", ENCODER)

    return store, [rest, grpc]


MAKE: dict[str, Callable[..., Any]] = {"qdrant-rest": qdrant, "qdrant-grpc": qdrant}
MAKE |= {"milvus": milvus, "weaviate": weaviate}


@pytest.fixture(params=[f"{name}-{kind}" for name in SERVERS for kind in ("sync", "async")])
def hanging(request, tmp_path) -> Iterator[Any]:
    """A store of a server that does not answer any more."""
    name, _, kind = request.param.rpartition("-")
    loop = asyncio.new_event_loop()
    ENCODER.encode_query(QUERIES[0])  # compiles, which no limit counts
    with ExitStack() as exits:
        try:
            made, relays = MAKE[name](name, kind == "async", exits, loop.run_until_complete, tmp_path)
        except CannotStart as problem:
            pytest.skip(str(problem))
        store = Blocking(made, loop) if kind == "async" else made
        if not name.startswith("qdrant"):
            store.upsert(IDS, DOCUMENTS[:5])
            assert store.ping() < 5.0
            assert len(store.search(QUERIES[0], limit=3, timeout=30.0)) == 3
        for relay in relays:
            relay.fall_silent()
        yield store, relays
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_every_call_ends_in_time(hanging, monkeypatch):
    store, relays = hanging
    monkeypatch.setattr(operations, "SEARCH_SECONDS", 0.4)
    monkeypatch.setattr(operations, "QUERY_SECONDS", 0.1)
    calls: list[tuple[float, Callable[[], Any]]] = [
        (0.4, lambda: store.search(QUERIES[0], limit=3)),
        (0.5, lambda: store.search_batch(QUERIES[:2], limit=3)),
        (0.3, lambda: store.search(QUERIES[0], limit=3, count_missing=False, timeout=0.3)),
        (0.3, lambda: store.exact_search(QUERIES[0], limit=3, timeout=0.3)),
        (0.3, lambda: store.get(IDS[:2], timeout=0.3)),
        (0.3, lambda: store.count(timeout=0.3)),
        (0.3, lambda: store.ping(0.3)),
    ]
    for limit, call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=rf"at http://.* did not answer within {limit:g} s \(timeout=\)"):
            call()
        assert 0.9 * limit < time.monotonic() - began < limit + 1.0
    for relay in relays:
        relay.close()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="at http://"):
        store.ping(3.0)
    # pymilvus repeats within the time that it is given
    assert time.monotonic() - began < (4.0 if "Milvus" in repr(store) else 2.0), "the client repeats nothing"
