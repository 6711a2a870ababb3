from __future__ import annotations

import asyncio

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests
from qdrant_client import AsyncQdrantClient, models

from ecosystem_tests.conftest import QUESTION, embed_query
from muvera_adapters.errors import InvalidInput
from muvera_adapters.frameworks.langchain import MuveraRetriever
from muvera_adapters.qdrant import AsyncQdrantMuvera


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own tests of retrievers."""

    @pytest.fixture(autouse=True)
    def _with_store(self, store):
        self._store = store

    @property
    def retriever_constructor(self):
        return MuveraRetriever

    @property
    def retriever_constructor_params(self):
        return {"store": self._store, "embed_query": embed_query}

    @property
    def retriever_query_example(self):
        return QUESTION


def test_documents_are_the_hits(store, filled):
    found = MuveraRetriever(store=store, embed_query=embed_query, k=4).invoke(QUESTION)
    hits = store.search(embed_query(QUESTION), limit=4)
    assert [d.id for d in found] == [h.id for h in hits]
    assert found[0].page_content == hits[0].payload["text"]
    assert found[0].metadata == {
        "module": hits[0].payload["module"],
        "muvera_id": hits[0].id,
        "muvera_score": hits[0].score,
    }
    assert found[0].id in filled[0]


def test_search_options_reach_the_store(store):
    condition = models.FieldCondition(key="module", match=models.MatchValue(value="tempfile"))
    retriever = MuveraRetriever(store=store, embed_query=embed_query, search_options={"rerank": "none"})
    found = retriever.invoke(QUESTION, filter=models.Filter(must=[condition]), k=50)
    assert 0 < len(found) < 50
    assert {d.metadata["module"] for d in found} == {"tempfile"}
    assert found[0].metadata["muvera_score"] == store.search(embed_query(QUESTION), limit=1, rerank="none")[0].score


def test_unknown_arguments_are_named(store):
    with pytest.raises(ValueError, match=r"top_k\n  Extra inputs are not permitted"):
        MuveraRetriever(store=store, embed_query=embed_query, top_k=3)
    with pytest.raises(InvalidInput, match=r"does not take fetch; it takes prefetch"):
        MuveraRetriever(store=store, embed_query=embed_query).invoke(QUESTION, fetch=3)
    with pytest.raises(ValueError, match="does not take fetch"):  # pydantic's, which has our message
        MuveraRetriever(store=store, embed_query=embed_query, search_options={"fetch": 3})


def test_a_document_without_text_is_named(store):
    with pytest.raises(InvalidInput, match=r"no text under 'body'.*keys: text, module"):
        MuveraRetriever(store=store, embed_query=embed_query, text_key="body").invoke(QUESTION)


def test_asynchronous_store(store, filled):
    async def embed(text):
        return embed_query(text)

    async def run():
        client = AsyncQdrantClient(":memory:")
        made = await AsyncQdrantMuvera.create(client, "texts", store.encoder)
        await made.upsert(*filled[1:])
        retriever = MuveraRetriever(store=made, embed_query=embed, k=3)
        found = await retriever.ainvoke(QUESTION)
        with pytest.raises(InvalidInput, match="asynchronous"):
            retriever.invoke(QUESTION)
        await client.close()
        return found

    expected = MuveraRetriever(store=store, embed_query=embed_query, k=3).invoke(QUESTION)
    assert [d.id for d in asyncio.run(run())] == [d.id for d in expected]
