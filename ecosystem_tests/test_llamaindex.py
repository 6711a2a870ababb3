from __future__ import annotations

import asyncio

from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer

from ecosystem_tests.conftest import QUESTION, embed_query
from muvera_adapters.frameworks.llamaindex import MuveraRetriever


def test_nodes_are_the_hits(store):
    retriever = MuveraRetriever(store, embed_query, similarity_top_k=5, search_options={"prefetch": 100})
    hits = store.search(embed_query(QUESTION), limit=5, prefetch=100)
    found = retriever.retrieve(QUESTION)
    assert [(n.node.node_id, n.score, n.node.text) for n in found] == [(h.id, h.score, h.payload["text"]) for h in hits]
    assert found[0].node.metadata["module"] == hits[0].payload["module"]
    awaited = asyncio.run(retriever.aretrieve(QUESTION))
    assert [n.node.node_id for n in awaited] == [n.node.node_id for n in found]


def test_in_a_query_engine(store):
    Settings.llm = MockLLM()  # never asked; the default is a client of OpenAI
    synthesizer = get_response_synthesizer(response_mode="no_text")
    engine = RetrieverQueryEngine(MuveraRetriever(store, embed_query, similarity_top_k=2), synthesizer)
    assert [n.node.node_id for n in engine.query(QUESTION).source_nodes] == [
        h.id for h in store.search(embed_query(QUESTION), limit=2)
    ]
