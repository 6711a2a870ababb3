"""Weaviate: a server, synchronous and asynchronous, with the token index of either way of reranking."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import weaviate
from weaviate.classes.config import Configure, DataType, Property, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import _FilterAnd

from muvera_adapters.results import BackfillReport, Document, Hit, Hits, VerifyReport
from muvera_adapters.testing import Blocking, Engine, Session
from muvera_adapters.testing.corpus import DIM
from muvera_adapters.weaviate import AsyncWeaviateMuvera, NearVector, WeaviateMuvera
from servers import containers, shared, weaviate_server

_VI = Configure.VectorIndex
_LARGEST_FOREIGN = 10_000


def foreign_id(number: int) -> str:
    """Ids of objects that are written behind the library's back: Weaviate has only UUIDs."""
    return str(uuid.UUID(int=number))


class Numbered:
    """A store whose foreign objects' ids are shown as the numbers that the suite gave."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __repr__(self) -> str:
        return repr(self._store)

    def __enter__(self) -> Numbered:
        self._store.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._store.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: _numbered(found(*args, **kwargs))


def _numbered(result: Any) -> Any:
    if isinstance(result, Hits):
        groups = [replace(group, hits=[_numbered(hit) for hit in group.hits]) for group in result.groups]
        unscored = map(_numbered, result.unscored)
        return Hits(map(_numbered, result), unscored, result.without_fde, result.timings, groups)
    if isinstance(result, Hit | Document):
        return replace(result, id=_number(result.id))
    if isinstance(result, BackfillReport):
        return replace(result, failed={_number(key): value for key, value in result.failed.items()})
    if isinstance(result, VerifyReport):
        unreadable = {_number(key): value for key, value in result.unreadable.items()}
        return replace(result, stale=[_number(key) for key in result.stale], unreadable=unreadable)
    if isinstance(result, list):
        return [_numbered(item) for item in result]
    return result


def _number(document_id: Any) -> Any:
    if isinstance(document_id, str) and len(document_id) == 36 and uuid.UUID(document_id).int <= _LARGEST_FOREIGN:
        return uuid.UUID(document_id).int
    return document_id


class WeaviateSession:
    """Through weaviate-client."""

    def __init__(
        self,
        client: weaviate.WeaviateClient,
        prefix: str,
        tokens_index: Any,
        async_client: Any = None,
        loop: asyncio.AbstractEventLoop | None = None,
        drops_vectors: bool = False,
    ) -> None:
        self._drops_vectors = drops_vectors
        self.client = client
        self._prefix = prefix
        self._tokens_index = tokens_index
        self._async_client = async_client
        self._loop = loop
        self._names: set[str] = set()
        self._foreign: set[str] = set()

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        return self._make("create", name, encoder, **{"tokens_index": self._tokens_index, **options})

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        return self._make("open", name, encoder, **options)

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        return self._make("adopt", name, encoder, **options)

    def equals(self, key: str, value: Any) -> Any:
        return Filter.by_property(key).equal(value)

    def exact(self) -> dict[str, Any]:
        return {"quantization": None}

    def fdes_are_float16(self) -> bool:
        return False

    def token_presets(self) -> tuple[str, ...]:
        return ("float32",)

    def scores_natively(self) -> bool:
        return True

    def backfills_in_place(self) -> bool:
        return True

    def has_other_vectors(self) -> bool:
        return True

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        return NearVector(vector.tolist(), "dense", limit=limit, filters=filter)

    def removes_fdes(self) -> bool:
        return self._drops_vectors

    def takes_uuids(self) -> bool:
        return True

    def empty_filter(self) -> Any:
        return _FilterAnd([])

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        return [(np.ones((65_536, DIM)), "at most 65535")]

    def indexing(self) -> dict[str, Any]:
        return {}

    def index_rest(self, name: str) -> None:
        """Each write is indexed before it is acknowledged (unless the server has ASYNC_INDEXING)."""

    def unindexed(self, added: int, total: int) -> int | None:
        # and has codes then: no documents without them can be made
        return 0

    def foreign(
        self,
        name: str,
        ids: Sequence[int],
        tokens: Sequence[np.ndarray],
        *,
        cosine: bool = False,
        fdes: np.ndarray | None = None,
        dense: np.ndarray | None = None,
    ) -> None:
        self._foreign.add(name)
        metric = VectorDistances.COSINE if cosine else VectorDistances.DOT
        vectors = [
            Configure.MultiVectors.self_provided(name="colbert", vector_index_config=_VI.hnsw(distance_metric=metric))
        ]
        if fdes is not None:
            vectors.append(Configure.Vectors.self_provided(name="fde", vector_index_config=_VI.hnsw()))
        if dense is not None:
            vectors.append(Configure.Vectors.self_provided(name="dense", vector_index_config=_VI.hnsw()))
        own = [Property(name="n", data_type=DataType.INT)]
        self.client.collections.create(self._name(name), vector_config=vectors, properties=own)
        objects = [{"colbert": matrix.tolist()} for matrix in tokens]
        for key, values in (("fde", fdes), ("dense", dense)):
            for made, value in zip(objects, values if values is not None else (), strict=values is not None):
                made[key] = value.tolist()
        self._insert(name, ids, objects)

    def foreign_id(self, number: int) -> Any:
        return foreign_id(number)

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        collection = self.client.collections.use(self._name(name))
        for i, matrix in zip(ids, tokens, strict=True):
            collection.data.update(foreign_id(i), vector={"colbert": matrix.tolist()})

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        self._insert(name, ids, [{"colbert": t.tolist()} for t in tokens])

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        self._foreign.add(name)
        self._insert(name, [document_id], [{"fde": fde.tolist()}])

    def content(self, name: str) -> dict[Any, Any]:
        found = self.client.collections.use(self._name(name)).query.fetch_objects(limit=10_000, include_vector=True)
        return {
            _number(str(o.uuid)): (
                {key: value for key, value in o.properties.items() if not key.startswith("muvera_")},
                {key: np.asarray(v, np.float32) for key, v in o.vector.items()},
            )
            for o in found.objects
        }

    def close(self) -> None:
        for name in self._names:
            self.client.collections.delete(name)

    def _insert(self, name: str, ids: Sequence[int], vectors: Sequence[dict[str, Any]]) -> None:
        objects = [DataObject({"n": i}, foreign_id(i), v) for i, v in zip(ids, vectors, strict=True)]
        assert not self.client.collections.use(self._name(name)).data.insert_many(objects).has_errors

    def _name(self, name: str) -> str:
        self._names.add(self._prefix + name)
        return self._prefix + name

    def _make(self, method: str, name: str, *args: Any, **options: Any) -> Any:
        if self._loop is None:
            store = getattr(WeaviateMuvera, method)(self.client, self._name(name), *args, **options)
        else:
            made = getattr(AsyncWeaviateMuvera, method)(self._async_client, self._name(name), *args, **options)
            store = Blocking(self._loop.run_until_complete(made), self._loop)
        return Numbered(store) if name in self._foreign else store


@contextmanager
def _server(
    path: Path, *, tokens_index: Any = "rerank", asynchronous: bool = False, container: bool = False
) -> Iterator[Session]:
    host, port, grpc_port = containers.address("weaviate") if container else shared(weaviate_server.running)
    prefix = f"MuveraTest{uuid.uuid4().hex[:8]}"
    client = weaviate.connect_to_local(host, port, grpc_port)
    loop = asyncio.new_event_loop() if asynchronous else None
    async_client = weaviate.use_async_with_local(host, port, grpc_port) if loop else None
    if loop and async_client:
        loop.run_until_complete(async_client.connect())
    drops_vectors = not container and "WEAVIATE_URL" not in os.environ  # our own server is told to
    session = WeaviateSession(client, prefix, tokens_index, async_client, loop, drops_vectors)
    try:
        yield session
    finally:
        session.close()
        client.close()
        if loop and async_client:
            loop.run_until_complete(async_client.close())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


ENGINES = [
    Engine("weaviate", _server),
    Engine("weaviate-async", partial(_server, asynchronous=True)),
    Engine("weaviate-hnsw", partial(_server, tokens_index="hnsw")),
    Engine("weaviate-muvera", partial(_server, tokens_index=_VI.MultiVector.Encoding.muvera())),
    Engine("weaviate-container", partial(_server, container=True)),
]
