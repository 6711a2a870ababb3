"""What the retrievers share; each framework's own tests are in ecosystem_tests."""

from __future__ import annotations

import asyncio
import importlib
import sys

import pytest

from muvera_adapters.errors import InvalidInput, MissingExtra, ModelMismatch
from muvera_adapters.frameworks.payloads import PayloadLayout
from muvera_adapters.frameworks.retrieval import Retrieval
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.stores.conditions import Ids
from muvera_core import FDEConfig, FDEEncoder


@pytest.fixture
def store(pydocs, pydocs_documents, tmp_path):
    with QdrantEdgeMuvera.create(tmp_path, "texts", FDEEncoder(FDEConfig(dim=128))) as made:
        made.upsert(pydocs.ids[:100], pydocs_documents[:100], [{"text": f"about {i}"} for i in pydocs.ids[:100]])
        yield made


def test_texts_are_the_hits(store, pydocs):
    retrieval = Retrieval(store, lambda text: pydocs.queries[int(text)], options={"rerank": "none"})
    hits = store.search(pydocs.queries[3], limit=5, rerank="none")
    found = retrieval.search("3", 5, {})
    assert [(t.id, t.score, t.text) for t in found] == [(h.id, h.score, h.payload["text"]) for h in hits]
    reranked = retrieval.search("3", 5, {"rerank": "native"})
    assert [t.score for t in reranked] == [h.score for h in store.search(pydocs.queries[3], limit=5)]
    assert asyncio.run(retrieval.asearch("3", 5, {})) == found


def test_asynchronous_embedding_is_refused_where_nothing_awaits_it(store):
    async def embed(text):
        raise AssertionError

    with pytest.raises(InvalidInput, match="embed is asynchronous"):
        Retrieval(store, embed).search("3", 5, {})


def test_unknown_options_are_named(store):
    with pytest.raises(InvalidInput, match=r"does not take limit, prefetsh; it takes prefetch, rerank"):
        Retrieval(store, list, options={"prefetsh": 1, "limit": 3})
    with pytest.raises(InvalidInput, match="prefetsh"):
        Retrieval(store, list).search("3", 5, {"prefetsh": 1})


def test_a_condition_becomes_the_filter_of_the_store(store, pydocs):
    retrieval = Retrieval(store, lambda text: pydocs.queries[int(text)])
    some = pydocs.ids[2:4]
    assert {text.id for text in retrieval.search("3", 5, {}, Ids(some))} == set(some)
    with pytest.raises(InvalidInput, match="not both"):
        retrieval.search("3", 5, {"filter": store.filter_of(Ids(some))}, Ids(some))


def test_a_query_of_another_model_is_refused(store, tmp_path):
    Retrieval(store, list, model="org/other")  # nobody named the model of this collection
    with QdrantEdgeMuvera.create(tmp_path, "named", store.encoder, model="org/model") as named:
        Retrieval(named, list)
        Retrieval(named, list, model="org/model@1")
        with pytest.raises(ModelMismatch, match=r"named were made by org/model, .*org/other"):
            Retrieval(named, list, model="org/other")


def test_metadata_under_a_key():
    layout = PayloadLayout("page_content", "metadata")
    payload = layout.write("a", "red", {"page_content": 1})
    assert payload == {"page_content": "red", "metadata": {"page_content": 1}}
    assert layout.read("a", {**payload, "theirs": 2}) == ("red", {"page_content": 1})
    assert layout.read("a", {"page_content": "red", "metadata": None}) == ("red", {})
    with pytest.raises(InvalidInput, match="'a' has a str under 'metadata'"):
        layout.read("a", {"page_content": "red", "metadata": "x"})
    with pytest.raises(InvalidInput, match="both 'text'"):
        PayloadLayout("text", "text")


@pytest.mark.parametrize(
    ("module", "imported"), [("langchain", "langchain_core"), ("llamaindex", "llama_index"), ("haystack", "haystack")]
)
def test_missing_framework_names_the_extra(module, imported, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == imported]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"muvera_adapters.frameworks.{module}", raising=False)

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == imported:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=rf"muvera-adapters\[{module}\]"):
        importlib.import_module(f"muvera_adapters.frameworks.{module}")
