"""Clients of the wrong kind, servers that are stopped or killed, and collections that are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException

from integration_tests.milvus.conftest import IDS, STRONG, filled
from muvera_adapters.errors import InvalidInput, MuveraError, StoreUnavailable, WriteInterrupted
from muvera_adapters.milvus import AsyncMilvusMuvera, MilvusMuvera, requests
from muvera_adapters.stores.operations import ONCE
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES
from muvera_core import maxsim
from servers.milvus_server import LiteServer


def patiently(uri: str) -> MilvusClient:
    """gRPC does not try an address again for a while after it has refused connections."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return MilvusClient(uri, timeout=10, dedicated=True)
        except MilvusException:
            if time.monotonic() > deadline:
                raise


class TestErrors:
    def test_the_wrong_client(self, lite, tmp_path):
        for make in (MilvusMuvera.open, partial(MilvusMuvera.adopt, encoder=ENCODER)):
            with pytest.raises(InvalidInput, match="MilvusClient"):
                make("http://localhost:19530", "c")

    def test_the_clients_of_the_other_kind(self, lite, tmp_path):
        async def wrongly() -> None:
            waiting = AsyncMilvusClient(str(tmp_path / "one.db"))
            with pytest.raises(InvalidInput, match="use AsyncMilvusMuvera"):
                MilvusMuvera.create(waiting, "c", ENCODER)
            with pytest.raises(InvalidInput, match="use MilvusMuvera"):
                await AsyncMilvusMuvera.create(lite, "c", ENCODER)
            await waiting.close()

        asyncio.run(wrongly())

    def test_an_outage_names_the_address(self, tmp_path):
        server = LiteServer(tmp_path)
        server.start()
        client = MilvusClient(server.uri, timeout=5, dedicated=True)
        store = MilvusMuvera.create(client, "c", ENCODER, timeout=2, retry=ONCE)
        server.stop()
        with pytest.raises(StoreUnavailable, match=server.uri):
            store.count()
        client.close()


class TestFaults:
    @pytest.fixture
    def server(self, tmp_path) -> Iterator[LiteServer]:
        made = LiteServer(tmp_path)
        made.start()
        yield made
        made.stop()

    def test_an_outage_is_reported_and_a_rerun_completes(self, server, monkeypatch):
        monkeypatch.setattr(requests, "WRITE_BYTES", 20_000)
        client = MilvusClient(server.uri, timeout=5)
        store = MilvusMuvera.create(client, "c", ENCODER, timeout=3, retry=ONCE, write_retry=ONCE, **STRONG)
        call, calls = client.insert, []

        def dying(**arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                server.kill()
            return call(**arguments)

        monkeypatch.setattr(client, "insert", dying)
        with pytest.raises(WriteInterrupted) as caught:
            store.upsert(IDS, DOCUMENTS)
        report = caught.value.report
        assert 0 < report.written < COUNT
        assert report.written + len(report.failed) == COUNT
        assert not isinstance(caught.value.__cause__, MuveraError), "the client's own error is kept"
        with pytest.raises(StoreUnavailable):
            store.count()
        client.close()
        server.start()
        client = patiently(server.uri)
        again = MilvusMuvera.open(client, "c", **STRONG)
        acknowledged = {i for i in IDS if i not in report.failed}
        assert acknowledged <= {d.id for d in again.scroll()}, "reported as written means stored, through a kill"
        assert again.upsert(IDS, DOCUMENTS).written == COUNT
        assert again.count() == COUNT
        assert again.search(QUERIES[2], 5, COUNT)[0].id == int(np.argmax(maxsim(QUERIES[2], DOCUMENTS)))
        client.close()

    def test_a_collection_that_is_gone_is_no_failure_of_documents(self, lite):
        store = filled(lite, "c")
        lite.drop_collection("c")
        with pytest.raises(MuveraError, match="c"):
            store.upsert(IDS[:3], DOCUMENTS[:3])
