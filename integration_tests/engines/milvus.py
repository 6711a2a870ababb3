"""Milvus: milvus-lite as a file and over TCP, a standalone 2.3.5, a stub with struct arrays, a server of the user."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import AnnSearchRequest, AsyncMilvusClient, DataType, MilvusClient

from muvera_adapters.errors import Unsupported
from muvera_adapters.milvus import AsyncMilvusMuvera, MilvusMuvera
from muvera_adapters.testing import Blocking, CannotStart, Engine, Session
from muvera_adapters.testing.corpus import DIM
from servers import containers, milvus_server, milvus_stub, shared

_STRONG = {"consistency_level": "Strong"}
_TEXTS = 3


class Copying:
    """A store of a server that cannot add a vector: where the suite fills in place, a filled copy takes its place."""

    def __init__(self, session: MilvusSession, name: str, store: Any) -> None:
        self._session = session
        self._name = name
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def backfill(self, **options: Any) -> Any:
        try:
            return self._store.backfill(**options)
        except Unsupported:  # which says: into=
            pass
        leave_out = ("title",) if "title" in self._session.fields(self._name) else ()
        copy = self._session.copy_name(self._name)
        report = self._store.backfill(into=copy, leave_out=leave_out, **options)
        self._store = self._session.open(self._name, self._store.encoder)
        return report


class MilvusSession:
    """Through pymilvus."""

    def __init__(
        self,
        client: MilvusClient,
        storage: str,
        async_client: Any = None,
        loop: asyncio.AbstractEventLoop | None = None,
        one_vector: bool = False,
    ) -> None:
        self.client = client
        self.storage = storage
        self._prefix = f"muvera_test_{uuid.uuid4().hex[:8]}_"
        self._async_client = async_client
        self._loop = loop
        self._one_vector = one_vector
        self._names: set[str] = set()
        self._copies: dict[str, str] = {}
        self._cosine: set[str] = set()

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        return self._make("create", name, encoder, **{**_STRONG, **options})

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        return self._make("open", name, encoder, **options)

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        metric = {"tokens_metric": "COSINE"} if name in self._cosine else {}
        store = self._make("adopt", name, encoder, **_STRONG, **metric, **options)
        return store if self.backfills_in_place() else Copying(self, name, store)

    def equals(self, key: str, value: Any) -> Any:
        return f"{key} == {value!r}"

    def exact(self) -> dict[str, Any]:
        return {"quantization": None}

    def fdes_are_float16(self) -> bool:
        return False

    def token_presets(self) -> tuple[str, ...]:
        return ("float32", "float16", "int8")  # the last two as text, whatever the server has

    def scores_natively(self) -> bool:
        return self.storage == "struct"

    def backfills_in_place(self) -> bool:
        return self.storage == "struct"

    def has_other_vectors(self) -> bool:
        return not self._one_vector

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        param = {"metric_type": "L2", "params": {"ef": 64}}
        return AnnSearchRequest([vector.tolist()], "dense", param, limit, expr=filter)

    def removes_fdes(self) -> bool:
        return False

    def takes_uuids(self) -> bool:
        return False

    def empty_filter(self) -> str:
        return " "

    def foreign_id(self, number: int) -> int:
        return number

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        if self.storage == "struct":
            return [(np.ones((2_049, DIM)), "at most 2048")]
        return [(np.full((2, DIM), 1e5), "float16"), (np.ones((3_100, DIM)), "at most")]

    def indexing(self) -> dict[str, Any]:
        return {}

    def index_rest(self, name: str) -> None:
        """What is written lies in memory, without an index, until ``wait_indexed`` flushes it."""

    def unindexed(self, added: int, total: int) -> int | None:
        version = self.client.get_server_version()
        if version.endswith("stub"):
            return 0  # built on milvus-lite, which calls all documents indexed
        return None if version.startswith("milvus_lite") else added

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
        if cosine:
            self._cosine.add(name)
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("pk", DataType.INT64, is_primary=True)
        params = MilvusClient.prepare_index_params()
        if self.storage == "struct":
            vector = MilvusClient.create_struct_field_schema()
            vector.add_field("v", DataType.FLOAT_VECTOR, dim=DIM)
            array = {"element_type": DataType.STRUCT, "struct_schema": vector, "max_capacity": 100}
            schema.add_field("colbert", DataType.ARRAY, **array)
            metric = "MAX_SIM_COSINE" if cosine else "MAX_SIM_IP"
            params.add_index("colbert[v]", index_name="c", index_type="HNSW", metric_type=metric)
        else:
            for i in range(_TEXTS):
                schema.add_field(f"colbert_{i}", DataType.VARCHAR, max_length=65_535)
        if fdes is not None:
            schema.add_field("fde", DataType.FLOAT_VECTOR, dim=fdes.shape[1])
            params.add_index("fde", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 100})
        if dense is not None:
            schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dense.shape[1])
            params.add_index("dense", index_type="HNSW", metric_type="L2", params={"M": 4, "efConstruction": 40})
        if fdes is None and dense is None and self.storage != "struct":
            # servers without struct arrays take no collection without a vector
            schema.add_field("title", DataType.FLOAT_VECTOR, dim=2)
            params.add_index("title", index_type="HNSW", metric_type="L2", params={"M": 4, "efConstruction": 40})
        target = self._name(name)
        self.client.create_collection(target, schema=schema, index_params=params, **_STRONG)
        self._insert(name, ids, tokens, fdes, dense)

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        self._insert(name, ids, tokens)

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        rows = [{"pk": i, **self._tokens(matrix)} for i, matrix in zip(ids, tokens, strict=True)]
        self.client.upsert(self._name(name), rows, partial_update=True)

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        target = self._name(name)
        row: dict[str, Any] = {"muvera_id": f"#{document_id}", "fde": fde, "n": document_id}
        for each in self.client.describe_collection(target)["fields"]:
            if each["name"] == "muvera_tokens":
                row["muvera_tokens"] = []
            elif each["name"].startswith("muvera_tokens_"):
                row[each["name"]] = ""
        self.client.upsert(target, [row])

    def content(self, name: str) -> dict[Any, Any]:
        target = self._name(name)
        described = self.client.describe_collection(target)["fields"]
        fields = [each["name"] for each in described]
        vectors = {each["name"] for each in described if each["type"] == DataType.FLOAT_VECTOR} - {"title"}
        asked = {"filter": "pk >= 0", "output_fields": [*fields, "$meta"], "limit": 10_000}
        content = {}
        for row in self.client.query(target, **asked, **_STRONG):
            found = {each: np.array(row[each], np.float32) for each in vectors if row.get(each) is not None}
            if self.storage == "struct":
                found["colbert"] = np.array([each["v"] for each in row["colbert"]], np.float32)
            else:
                found["colbert"] = untext("".join(row[f"colbert_{i}"] for i in range(_TEXTS)))
            content[row["pk"]] = ({key: value for key, value in row.items() if key not in fields}, found)
        return content

    def fields(self, name: str) -> list[str]:
        return [each["name"] for each in self.client.describe_collection(self._name(name))["fields"]]

    def copy_name(self, name: str) -> str:
        self._copies[name] = f"{name}_copy"
        return self._name(name)

    def close(self) -> None:
        for name in self._names:
            if self.client.has_collection(name):
                self.client.drop_collection(name)

    def _insert(
        self,
        name: str,
        ids: Sequence[int],
        tokens: Sequence[np.ndarray],
        fdes: np.ndarray | None = None,
        dense: np.ndarray | None = None,
    ) -> None:
        rows: list[dict[str, Any]] = []
        for k, (i, matrix) in enumerate(zip(ids, tokens, strict=True)):
            row: dict[str, Any] = {"pk": i, "n": i, **self._tokens(matrix)}
            if fdes is not None:
                row["fde"] = fdes[k]
            if dense is not None:
                row["dense"] = dense[k]
            if fdes is None and dense is None and self.storage != "struct":
                row["title"] = [1.0, float(i)]
            rows.append(row)
        self.client.upsert(self._name(name), rows)

    def _tokens(self, matrix: np.ndarray) -> dict[str, Any]:
        if self.storage == "struct":
            return {"colbert": [{"v": token} for token in np.asarray(matrix, np.float32)]}
        return {**{f"colbert_{j}": "" for j in range(_TEXTS)}, "colbert_0": text(matrix)}

    def _name(self, name: str) -> str:
        full = self._prefix + self._copies.get(name, name)
        self._names.add(full)
        return full

    def _make(self, method: str, name: str, *args: Any, **options: Any) -> Any:
        if self._loop is None:
            return getattr(MilvusMuvera, method)(self.client, self._name(name), *args, **options)
        made = getattr(AsyncMilvusMuvera, method)(self._async_client, self._name(name), *args, **options)
        return Blocking(self._loop.run_until_complete(made), self._loop)


def text(matrix: np.ndarray) -> str:
    """A token matrix as docs/milvus.md says that programs other than this library write it."""
    header = struct.pack("<BBHI", 1, 2, matrix.shape[1], len(matrix))
    return base64.b64encode(header + np.asarray(matrix, "<f4").tobytes()).decode()


def untext(stored: str) -> np.ndarray:
    data = base64.b64decode(stored)
    _, kind, dim, _ = struct.unpack_from("<BBHI", data)
    return np.frombuffer(data, "<f2" if kind == 1 else "<f4", offset=8).reshape(-1, dim).astype(np.float32)


@contextmanager
def connected(uri: str, storage: str, asynchronous: bool = False, one_vector: bool = False) -> Iterator[Session]:
    client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=60)
    loop = asyncio.new_event_loop() if asynchronous else None
    async_client = AsyncMilvusClient(uri) if asynchronous else None
    session = MilvusSession(client, storage, async_client, loop, one_vector)
    try:
        yield session
    finally:
        session.close()
        if loop and async_client:
            loop.run_until_complete(async_client.close())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        client.close()


@contextmanager
def _file(path: Path, *, asynchronous: bool = False) -> Iterator[Session]:
    with connected(str(path / "milvus.db"), "blob", asynchronous) as session:
        yield session


@contextmanager
def _shared(path: Path, *, start: Any, asynchronous: bool = False) -> Iterator[Session]:
    with connected(shared(start), "blob", asynchronous, one_vector=start is milvus_server.standalone) as session:
        yield session


@contextmanager
def _struct(path: Path, *, asynchronous: bool = False) -> Iterator[Session]:
    with milvus_stub.serving(path / "stub") as (uri, _), connected(uri, "struct", asynchronous) as session:
        yield session


@contextmanager
def _server(path: Path) -> Iterator[Session]:
    uri = os.environ.get("MILVUS_URI")
    if not uri:
        raise CannotStart("set MILVUS_URI (and MILVUS_TOKEN) to a Milvus, best of version 2.6.18 or later")
    client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=60)
    version = tuple(int(part) for part in re.findall(r"\d+", client.get_server_version())[:3])
    client.close()
    with connected(uri, "struct" if version >= (2, 6, 20) else "blob") as session:
        yield session


@contextmanager
def _container(path: Path) -> Iterator[Session]:
    at = containers.address("milvus")
    with connected(f"http://{at.host}:{at.port}", "struct") as session:
        yield session


ENGINES = [
    Engine("milvus-lite", _file),
    Engine("milvus-lite-async", partial(_file, asynchronous=True)),
    Engine("milvus-lite-tcp", partial(_shared, start=milvus_server.lite)),
    Engine("milvus-2.3", partial(_shared, start=milvus_server.standalone)),
    Engine("milvus-2.3-async", partial(_shared, start=milvus_server.standalone, asynchronous=True)),
    Engine("milvus-struct", _struct),
    Engine("milvus-struct-async", partial(_struct, asynchronous=True)),
    Engine("milvus-server", _server),
    Engine("milvus-container", _container),
]
