"""Qdrant: local mode in memory and on disk, Edge, a server, a container; synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantEdgeMuvera, QdrantMuvera
from muvera_adapters.qdrant.client import wire_of
from muvera_adapters.qdrant.collection import LOCAL, TOKEN_PRESETS
from muvera_adapters.qdrant.schema import TURBO_STORAGE_VERSIONS
from muvera_adapters.testing import Blocking, CannotStart, Engine, Session
from servers import containers

DIM = 16
OVER_LIMITS = [(np.full((2, DIM), 1e5), "float16"), (np.ones((1_048_576 // DIM, DIM)), "1048576")]


class ClientSession:
    """Through qdrant-client."""

    def __init__(self, client: Any, prefix: str = "", loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.client = client
        self._prefix = prefix
        self._loop = loop
        self._names: set[str] = set()

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        return self._make("create", self._name(name), encoder, **options)

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        return self._make("open", self._name(name), encoder, **options)

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        return self._make("adopt", self._name(name), encoder, **options)

    def equals(self, key: str, value: Any) -> Any:
        return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])

    def exact(self) -> dict[str, Any]:
        return {"quantization": None, "datatype": models.Datatype.FLOAT32}

    def fdes_are_float16(self) -> bool:
        return True

    def token_presets(self) -> tuple[str, ...]:
        if wire_of(self.client) is LOCAL:
            return TOKEN_PRESETS
        version = tuple(int(part) for part in self._call("info").version.split(".")[:2])
        lacks = {datatype.value for datatype, needed in TURBO_STORAGE_VERSIONS.items() if version < needed}
        return tuple(preset for preset in TOKEN_PRESETS if preset not in lacks)

    def scores_natively(self) -> bool:
        return True

    def backfills_in_place(self) -> bool:
        return True

    def has_other_vectors(self) -> bool:
        return True

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        return models.Prefetch(query=vector.tolist(), using="dense", limit=limit, filter=filter)

    def removes_fdes(self) -> bool:
        return True

    def takes_uuids(self) -> bool:
        return True

    def foreign_id(self, number: int) -> int:
        return number

    def empty_filter(self) -> Any:
        return models.Filter()

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        return OVER_LIMITS

    def indexing(self) -> dict[str, Any]:
        # a segment is indexed from 5 MB of tokens on
        return {"optimizers_config": models.OptimizersConfigDiff(indexing_threshold=5_120, default_segment_number=2)}

    def index_rest(self, name: str) -> None:
        config = models.OptimizersConfigDiff(indexing_threshold=100)
        self._call("update_collection", self._name(name), optimizers_config=config)

    def unindexed(self, added: int, total: int) -> int | None:
        # local mode has no index
        return total if wire_of(self.client) is LOCAL else added

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
        vectors = {
            "colbert": models.VectorParams(
                size=DIM,
                distance=models.Distance.COSINE if cosine else models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
                hnsw_config=models.HnswConfigDiff(m=0),
            )
        }
        if fdes is not None:
            vectors["fde"] = models.VectorParams(size=fdes.shape[1], distance=models.Distance.COSINE)
        if dense is not None:
            vectors["dense"] = models.VectorParams(size=dense.shape[1], distance=models.Distance.DOT)
        self._call("create_collection", self._name(name), vectors_config=vectors, metadata={"owner": "someone"})
        points = [
            models.PointStruct(
                id=i,
                vector={
                    "colbert": t.tolist(),
                    **({} if fdes is None else {"fde": fdes[k].tolist()}),
                    **({} if dense is None else {"dense": dense[k].tolist()}),
                },
                payload={"n": i},
            )
            for k, (i, t) in enumerate(zip(ids, tokens, strict=True))
        ]
        self._call("upsert", self._name(name), points)

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        points = [
            models.PointStruct(id=i, vector={"colbert": t.tolist()}, payload={"n": i})
            for i, t in zip(ids, tokens, strict=True)
        ]
        self._call("upsert", self._name(name), points)

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        points = [models.PointVectors(id=i, vector={"colbert": t.tolist()}) for i, t in zip(ids, tokens, strict=True)]
        self._call("update_vectors", self._name(name), points)

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        point = models.PointStruct(id=document_id, vector={"fde": fde.tolist()}, payload={"n": document_id})
        self._call("upsert", self._name(name), [point])

    def content(self, name: str) -> dict[Any, Any]:
        records, _ = self._call("scroll", self._name(name), limit=10_000, with_vectors=True)
        return {r.id: (r.payload, {key: np.asarray(v, np.float32) for key, v in r.vector.items()}) for r in records}

    def close(self) -> None:
        for name in self._names:
            self._call("delete_collection", name)

    def _name(self, name: str) -> str:
        self._names.add(self._prefix + name)
        return self._prefix + name

    def _make(self, method: str, *args: Any, **options: Any) -> Any:
        if self._loop is None:
            return getattr(QdrantMuvera, method)(self.client, *args, **options)
        made = getattr(AsyncQdrantMuvera, method)(self.client, *args, **options)
        return Blocking(self._loop.run_until_complete(made), self._loop)

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        result = getattr(self.client, method)(*args, **options)
        return self._loop.run_until_complete(result) if self._loop is not None else result


class EdgeSession:
    """Embedded, in a directory that one object at a time may have open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, QdrantEdgeMuvera] = {}

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        return self._keep(name, QdrantEdgeMuvera.create(self._directory, name, encoder, **options))

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        self._release(name)
        return self._keep(name, QdrantEdgeMuvera.open(self._directory, name, encoder, **options))

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        self._release(name)
        return self._keep(name, QdrantEdgeMuvera.adopt(self._directory, name, encoder, **options))

    def equals(self, key: str, value: Any) -> Any:
        return edge.Filter(must=[edge.FieldCondition(key=key, match=edge.MatchValue(value))])

    def exact(self) -> dict[str, Any]:
        return {"quantization": None, "datatype": edge.VectorStorageDatatype.Float32}

    def fdes_are_float16(self) -> bool:
        return True

    def token_presets(self) -> tuple[str, ...]:
        return TOKEN_PRESETS

    def scores_natively(self) -> bool:
        return True

    def backfills_in_place(self) -> bool:
        return True

    def has_other_vectors(self) -> bool:
        return True

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        return edge.Prefetch(limit, query=edge.Query.Nearest(vector.tolist(), using="dense"), filter=filter)

    def removes_fdes(self) -> bool:
        return True

    def takes_uuids(self) -> bool:
        return True

    def foreign_id(self, number: int) -> int:
        return number

    def empty_filter(self) -> Any:
        return edge.Filter()

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        return OVER_LIMITS

    def indexing(self) -> dict[str, Any]:
        return {"optimizers": edge.EdgeOptimizersConfig(indexing_threshold=1_000)}

    def index_rest(self, name: str) -> None:
        """Nothing is indexed before ``wait_indexed``, and all of it then."""

    def unindexed(self, added: int, total: int) -> int | None:
        return added

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
        vectors = {
            "colbert": edge.EdgeVectorParams(
                DIM,
                edge.Distance.Cosine if cosine else edge.Distance.Dot,
                multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
                hnsw_config=edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000),
            )
        }
        if fdes is not None:
            vectors["fde"] = edge.EdgeVectorParams(fdes.shape[1], edge.Distance.Cosine)
        if dense is not None:
            vectors["dense"] = edge.EdgeVectorParams(dense.shape[1], edge.Distance.Dot)
        (self._directory / name).mkdir()
        shard = edge.EdgeShard.create(str(self._directory / name), edge.EdgeConfig(vectors=vectors))
        points: list[Any] = [
            edge.Point(
                i,
                {
                    "colbert": t,
                    **({} if fdes is None else {"fde": fdes[k]}),
                    **({} if dense is None else {"dense": dense[k]}),
                },
                {"n": i},
            )
            for k, (i, t) in enumerate(zip(ids, tokens, strict=True))
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
        shard.close()

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        points: list[Any] = [edge.Point(i, {"colbert": t}, {"n": i}) for i, t in zip(ids, tokens, strict=True)]
        self._update(name, edge.UpdateOperation.upsert_points(points))

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        vectors: list[Any] = [edge.PointVectors(i, {"colbert": t}) for i, t in zip(ids, tokens, strict=True)]
        self._update(name, edge.UpdateOperation.update_vectors(vectors))

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        point = edge.Point(document_id, {"fde": fde}, {"n": document_id})
        self._update(name, edge.UpdateOperation.upsert_points([point]))

    def content(self, name: str) -> dict[Any, Any]:
        self._release(name)
        shard = edge.EdgeShard.load(str(self._directory / name))
        records, _ = shard.scroll(edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True))
        shard.close()
        content = {}
        for r in records:
            assert isinstance(r.vector, dict)
            content[r.id] = (r.payload, {key: np.asarray(v, np.float32) for key, v in r.vector.items()})
        return content

    def close(self) -> None:
        for name in list(self._open):
            self._release(name)

    def _update(self, name: str, operation: Any) -> None:
        self._release(name)
        shard = edge.EdgeShard.load(str(self._directory / name))
        shard.update(operation)
        shard.close()

    def _keep(self, name: str, store: QdrantEdgeMuvera) -> QdrantEdgeMuvera:
        self._open[name] = store
        return store

    def _release(self, name: str) -> None:
        if name in self._open:
            self._open.pop(name).close()


@contextmanager
def _local(path: Path, *, on_disk: bool) -> Iterator[Session]:
    client = QdrantClient(path=str(path)) if on_disk else QdrantClient(":memory:")
    try:
        yield ClientSession(client)
    finally:
        client.close()


@contextmanager
def _local_async(path: Path, *, on_disk: bool) -> Iterator[Session]:
    loop = asyncio.new_event_loop()
    client = AsyncQdrantClient(path=str(path)) if on_disk else AsyncQdrantClient(":memory:")
    try:
        yield ClientSession(client, loop=loop)
    finally:
        loop.run_until_complete(client.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def _edge(path: Path) -> Iterator[Session]:
    session = EdgeSession(path)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def _server(path: Path, *, grpc: bool = False, asynchronous: bool = False) -> Iterator[Session]:
    url = os.environ.get("QDRANT_URL")
    if not url:
        raise CannotStart("set QDRANT_URL (QDRANT_GRPC_PORT, QDRANT_API_KEY) to a Qdrant server, version 1.18 or later")
    port = int(os.environ.get("QDRANT_GRPC_PORT", "6334"))
    with _connected(url, port, os.environ.get("QDRANT_API_KEY"), grpc, asynchronous) as session:
        yield session


@contextmanager
def _container(path: Path) -> Iterator[Session]:
    at = containers.address("qdrant")
    with _connected(f"http://{at.host}:{at.port}", at.grpc_port, None, False, False) as session:
        yield session


@contextmanager
def _connected(url: str, port: int, key: str | None, grpc: bool, asynchronous: bool) -> Iterator[Session]:
    prefix = f"muvera_test_{uuid.uuid4().hex[:8]}_"
    # the client warns of servers two versions older, which the suite shall pass on
    options: dict[str, Any] = {"url": url, "grpc_port": port, "api_key": key, "prefer_grpc": grpc, "timeout": 60}
    options["check_compatibility"] = False
    if not asynchronous:
        client = QdrantClient(**options)
        session = ClientSession(client, prefix)
        try:
            yield session
        finally:
            session.close()
            client.close()
        return
    loop = asyncio.new_event_loop()
    async_client = AsyncQdrantClient(**options)
    session = ClientSession(async_client, prefix, loop)
    try:
        yield session
    finally:
        session.close()
        loop.run_until_complete(async_client.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


ENGINES = [
    Engine("qdrant-memory", partial(_local, on_disk=False)),
    Engine("qdrant-path", partial(_local, on_disk=True)),
    Engine("qdrant-memory-async", partial(_local_async, on_disk=False)),
    Engine("qdrant-path-async", partial(_local_async, on_disk=True)),
    Engine("qdrant-edge", _edge),
    Engine("qdrant-server-rest", _server),
    Engine("qdrant-server-grpc", partial(_server, grpc=True)),
    Engine("qdrant-server-async", partial(_server, asynchronous=True)),
    Engine("qdrant-server-async-grpc", partial(_server, asynchronous=True, grpc=True)),
    Engine("qdrant-container", _container),
]
