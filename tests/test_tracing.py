"""The hook around calls of a store."""

import asyncio
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from muvera_adapters.errors import InvalidInput
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantMuvera
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER, QUERIES
from muvera_adapters.tracing import trace_calls


@pytest.fixture(autouse=True)
def unhooked():
    yield
    trace_calls(None)


@pytest.fixture
def store():
    made = QdrantMuvera.create(QdrantClient(":memory:"), "passages", ENCODER)
    made.upsert(range(5), DOCUMENTS[:5])
    return made


@pytest.fixture
def spans():
    """What a hook saw: name, collection, database, number of results, error."""
    seen = []

    @contextmanager
    def span(call):
        try:
            yield
        except Exception as error:
            seen.append((call.name, call.collection, call.database, call.result, type(error)))
            raise
        else:
            seen.append((call.name, call.collection, call.database, call.result, None))

    trace_calls(span)
    return seen


def test_every_call_is_seen_with_its_result(store, spans):
    hits = store.search(QUERIES[0], limit=3)
    store.search_batch(QUERIES[:2], limit=3)
    store.count()
    list(store.scroll(page_size=3))
    store.delete([0])
    store.ping()
    assert [name for name, *_ in spans] == ["search", "search_batch", "count", "scroll", "scroll", "delete", "ping"]
    assert {(collection, error) for _, collection, _, _, error in spans} == {("passages", None)}
    assert "Qdrant" in spans[0][2] or "qdrant" in spans[0][2]
    assert spans[0][3] == [hits]
    assert spans[2][3] == 5


def test_an_error_reaches_the_span_and_the_caller(store, spans):
    with pytest.raises(InvalidInput):
        store.search(np.full((2, 3), np.nan), limit=3)
    assert (spans[0][0], spans[0][3:]) == ("search", (None, InvalidInput))


def test_calls_of_an_asynchronous_store_are_seen(spans):
    async def go():
        store = await AsyncQdrantMuvera.create(AsyncQdrantClient(":memory:"), "passages", ENCODER)
        await store.upsert(range(5), DOCUMENTS[:5])
        return await asyncio.gather(store.count(), store.search(QUERIES[0], limit=3))

    asyncio.run(go())
    assert sorted(name for name, *_ in spans) == ["count", "search", "upsert"]


def failing(where):
    @contextmanager
    def span(call):
        if where == "before":
            raise RuntimeError("no tracer")
        yield
        raise RuntimeError("no exporter")

    return span


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_failing_hook_loses_no_result(store, caplog, where):
    trace_calls(failing(where))
    assert len(store.search(QUERIES[0], limit=3)) == 3
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "trace_calls() failed in search" in record.getMessage()
    assert record.exc_info is not None


def test_a_hook_cannot_hide_an_error(store):
    class Swallows:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return True

    trace_calls(lambda _: Swallows())
    with pytest.raises(InvalidInput):
        store.search(np.full((2, 3), np.nan), limit=3)


def test_a_hook_holds_nothing_once_it_is_gone(store, spans):
    trace_calls(None)
    hits = store.search(QUERIES[0], limit=3)
    assert spans == []
    assert sys.getrefcount(hits) <= 2, "no result is kept"
