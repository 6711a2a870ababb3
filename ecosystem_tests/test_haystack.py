from __future__ import annotations

import asyncio

from haystack import Pipeline
from haystack.components.builders import PromptBuilder
from qdrant_client import models

from ecosystem_tests.conftest import QUESTION, embed_query
from muvera_adapters.frameworks.haystack import MuveraRetriever


def test_documents_are_the_hits(store):
    retriever = MuveraRetriever(store, embed_query, top_k=4)
    hits = store.search(embed_query(QUESTION), limit=4)
    found = retriever.run(query=QUESTION)["documents"]
    assert [(d.id, d.score, d.content) for d in found] == [(h.id, h.score, h.payload["text"]) for h in hits]
    awaited = asyncio.run(retriever.run_async(query=QUESTION, top_k=2))["documents"]
    assert [d.id for d in awaited] == [h.id for h in hits[:2]]


def test_filter_of_one_query(store):
    condition = models.FieldCondition(key="module", match=models.MatchValue(value="tempfile"))
    options = {"filter": models.Filter(must=[condition])}
    found = MuveraRetriever(store, embed_query).run(query=QUESTION, search_options=options)["documents"]
    assert {d.meta["module"] for d in found} == {"tempfile"}


def test_in_a_pipeline(store):
    pipeline = Pipeline()
    pipeline.add_component("retriever", MuveraRetriever(store, embed_query, top_k=3))
    template = "{% for d in documents %}{{ d.id }} {% endfor %}"
    pipeline.add_component("prompt", PromptBuilder(template, required_variables=["documents"]))
    pipeline.connect("retriever.documents", "prompt.documents")
    prompt = pipeline.run({"retriever": {"query": QUESTION}})["prompt"]["prompt"]
    assert prompt.split() == [h.id for h in store.search(embed_query(QUESTION), limit=3)]
