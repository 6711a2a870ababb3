"""The document store, by Haystack's own tests and in pipelines that are written to YAML, over Qdrant and its Edge."""

from __future__ import annotations

import asyncio

import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.core.errors import SerializationError
from haystack.dataclasses import ByteStream
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing.document_store import CountDocumentsByFilterTest, DocumentStoreBaseExtendedTests
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
)
from qdrant_client import AsyncQdrantClient, QdrantClient

from ecosystem_tests.test_llamaindex_store import ENCODER, embed_documents, embed_query
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.frameworks.haystack import MuveraDocumentStore, MuveraRetriever, StoreAt
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantEdgeMuvera, QdrantMuvera


class InAnyOrder:
    """A store has its documents in the order of the database's keys."""

    def assert_documents_are_equal(self, received, expected):
        assert sorted(received, key=lambda each: each.id) == sorted(expected, key=lambda each: each.id)


class TestHaystacksOwn(InAnyOrder, DocumentStoreBaseExtendedTests, CountDocumentsByFilterTest):
    @pytest.fixture(params=["local", "edge"])
    def document_store(self, request, tmp_path):
        if request.param == "edge":
            with QdrantEdgeMuvera.create(tmp_path, "documents", ENCODER) as store:
                yield MuveraDocumentStore(store, embed_query, embed_documents)
            return
        client = QdrantClient(":memory:")
        store = QdrantMuvera.create(client, "documents", ENCODER)
        yield MuveraDocumentStore(store, embed_query, embed_documents)
        client.close()

    def test_write_documents(self, document_store):
        """The test that Haystack leaves to each store: without a policy, duplicates are refused."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError, match="SKIP or OVERWRITE"):
            document_store.write_documents([document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])


class TestHaystacksOwnAsync(
    InAnyOrder,
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
):
    @pytest.fixture(params=["asynchronous", "in threads"])
    async def document_store(self, request):
        if request.param == "in threads":
            client = QdrantClient(":memory:")
            store = QdrantMuvera.create(client, "documents", ENCODER)
            yield MuveraDocumentStore(store, embed_query, embed_documents)
            client.close()
            return
        client = AsyncQdrantClient(":memory:")
        store = await AsyncQdrantMuvera.create(client, "documents", ENCODER)

        async def embed(texts):
            return embed_documents(texts)

        yield MuveraDocumentStore(store, embed_query, embed)
        await client.close()

    async def test_write_documents_async(self, document_store):
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError, match="SKIP or OVERWRITE"):
            await document_store.write_documents_async([document])


DOCUMENTS = [
    Document(id="a", content="red apples", meta={"year": 2020, "who": "x"}, embedding=[0.1, 0.2]),
    Document(id="b", content="red cars", meta={"year": 2021, "who": None, "nested": {"deep": [1]}}),
    Document(id="c", content="red ink", meta={"year": 2022, "who": "y"}, blob=ByteStream(b"x", {"k": 1}, "text/plain")),
]


@pytest.fixture
def place(tmp_path):
    """A collection by its target."""
    QdrantEdgeMuvera.create(tmp_path, "documents", ENCODER).close()
    made = StoreAt(f"qdrant-edge:{tmp_path}", "documents")
    yield made
    made.close()


def equals(field, value):
    return {"field": field, "operator": "==", "value": value}


def test_filters_of_a_retriever(place):
    store = MuveraDocumentStore(place, embed_query, embed_documents)
    store.write_documents(DOCUMENTS)
    later = {"field": "meta.year", "operator": ">", "value": 2020}
    retriever = MuveraRetriever(store, filters=later)
    found = retriever.run("red apples")["documents"]
    assert {document.id for document in found} == {"b", "c"}
    assert {"muvera_id", "muvera_score"} < found[0].meta.keys()
    assert [d.id for d in retriever.run("red", filters=equals("meta.who", "x"))["documents"]] == ["a"]
    merging = MuveraRetriever(store, filters=later, filter_policy=FilterPolicy.MERGE)
    assert merging.run("red", filters=equals("meta.who", "x"))["documents"] == []
    awaited = asyncio.run(merging.run_async("red", filters=equals("meta.who", "y")))["documents"]
    assert [d.id for d in awaited] == ["c"]
    assert awaited[0].blob == DOCUMENTS[2].blob
    for filters, expected in (
        (equals("id", "b"), "b"),
        (equals("content", "red ink"), "c"),
        ({"field": "id", "operator": "not in", "value": ["a", "b"]}, "c"),
        ({"field": "meta.who", "operator": "in", "value": ["x", None]}, "ab"),
    ):
        assert sorted(d.id for d in store.filter_documents(filters)) == list(expected)
    with pytest.raises(FilterError, match="'=>'"):
        store.filter_documents({"field": "meta.year", "operator": "=>", "value": 1})
    with pytest.raises(InvalidInput, match="not both"):
        retriever.run("red", search_options={"filter": object()})
    with pytest.raises(InvalidInput, match="prefetsh"):
        retriever.run("red", search_options={"prefetsh": 1})
    with pytest.raises(InvalidInput, match="empty"):
        store.delete_by_filter({})


def test_duplicates(place):
    store = MuveraDocumentStore(place, embed_query, embed_documents)
    assert store.write_documents([DOCUMENTS[0]]) == 1
    again = Document(id="a", content="violet figs", meta={"new": 1})
    with pytest.raises(DuplicateDocumentError, match="1 documents exist already and 0 are given twice"):
        store.write_documents([DOCUMENTS[1], again], DuplicatePolicy.FAIL)
    assert store.write_documents([DOCUMENTS[1], again, DOCUMENTS[1]], DuplicatePolicy.SKIP) == 1
    assert store.filter_documents(equals("id", "a")) == [DOCUMENTS[0]]
    assert store.write_documents([DOCUMENTS[1], again], DuplicatePolicy.OVERWRITE) == 2
    assert store.filter_documents(equals("id", "a")) == [again]
    with pytest.raises(InvalidInput, match=r"'d'.*'text'"):
        store.write_documents([Document(id="d", content="x", meta={"text": "y"})])
    with pytest.raises(InvalidInput, match=r"'d'.*no content"):
        store.write_documents([Document(id="d", blob=ByteStream(b"x"))])


def test_pipelines_are_written_to_yaml_and_back(place):
    store = MuveraDocumentStore(place, embed_query, embed_documents)
    writing, searching = Pipeline(), Pipeline()
    writing.add_component("writer", DocumentWriter(store, DuplicatePolicy.OVERWRITE))
    options = {"prefetch": 50}
    searching.add_component(
        "retriever", MuveraRetriever(store, filters=equals("meta.who", "x"), search_options=options)
    )
    modules = ["muvera_adapters.*", "ecosystem_tests.*"]
    texts = [pipeline.dumps() for pipeline in (writing, searching)]
    assert "embed_documents: ecosystem_tests.test_llamaindex_store.embed_documents" in texts[0]
    writing, searching = (Pipeline.loads(text, allowed_modules=modules) for text in texts)
    writing.run({"writer": {"documents": DOCUMENTS}})
    writing.get_component("writer").document_store._store.close()
    found = searching.run({"retriever": {"query": "red apples"}})["retriever"]["documents"]
    assert [(d.id, d.content, d.embedding) for d in found] == [("a", "red apples", [0.1, 0.2])]
    assert searching.dumps() == texts[1]
    searching.get_component("retriever")._store._store.close()


def test_what_cannot_be_serialized_says_why(place):
    client = QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "documents", ENCODER)
    with pytest.raises(SerializationError, match="StoreAt"):
        MuveraRetriever(store, embed_query).to_dict()
    with pytest.raises(SerializationError, match="lambdas"):
        MuveraDocumentStore(place, lambda text: text).to_dict()
    with pytest.raises(WrongUsage, match="secrets"):
        StoreAt("qdrant:http://me:secret@localhost", "documents")
    with pytest.raises(InvalidInput, match="leave them out"):
        MuveraRetriever(MuveraDocumentStore(place), embed_query)
    client.close()
