"""Clients of milvus-lite, of a standalone server and of the stub with struct arrays, and a filled collection."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymilvus import MilvusClient

from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.testing import CannotStart
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER
from servers import milvus_server, milvus_stub, shared

IDS = list(range(COUNT))
STRONG: dict[str, Any] = {"consistency_level": "Strong"}


def connect(kind: str, path: Any) -> MilvusClient:
    if kind == "file":
        return MilvusClient(str(path / "one.db"))
    try:
        return MilvusClient(shared(milvus_server.standalone), timeout=60)
    except CannotStart as problem:
        pytest.skip(str(problem))


@pytest.fixture
def stub(tmp_path) -> Iterator[tuple[MilvusClient, milvus_stub.StructServicer]]:
    with milvus_stub.serving(tmp_path / "stub") as (uri, servicer):
        client = MilvusClient(uri, timeout=60)
        yield client, servicer
        client.close()


@pytest.fixture(params=["file", "standalone"])
def client(request, tmp_path) -> Iterator[MilvusClient]:
    connected = connect(request.param, tmp_path)
    yield connected
    connected.close()


@pytest.fixture
def lite(tmp_path) -> Iterator[MilvusClient]:
    connected = connect("file", tmp_path)
    yield connected
    connected.close()


@pytest.fixture
def name(client) -> Iterator[str]:
    made = f"muvera_test_{uuid.uuid4().hex[:8]}"
    yield made
    for alias in client.list_aliases("")["aliases"]:
        if alias.startswith(made):
            client.drop_alias(alias)
    for each in client.list_collections():
        if each.startswith(made):
            client.drop_collection(each)


def filled(client: MilvusClient, name: str, **options: Any) -> MilvusMuvera:
    store = MilvusMuvera.create(client, name, ENCODER, **{**STRONG, **options})
    assert store.upsert(IDS, DOCUMENTS, [{"n": i, "parity": i % 2} for i in IDS]).written == COUNT
    return store
