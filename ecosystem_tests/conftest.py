"""The sample's documents in a store, and its questions as texts that can be embedded without a model."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from qdrant_client import QdrantClient

from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.samples import docstring, load_pydocs
from muvera_core import FDEConfig, FDEEncoder

QUESTION = "create a temporary file that is removed when closed"
COUNT = 300


@cache
def questions() -> dict[str, Any]:
    sample = load_pydocs()
    return {question.text: sample.queries[i] for i, question in enumerate(sample.questions)}


def embed_query(text: str) -> Any:
    """What the sample's model made of one of the sample's questions."""
    return questions()[text]


@pytest.fixture(scope="session")
def filled() -> Any:
    """A function that fills an empty store of the sample's size."""
    sample = load_pydocs()
    relevant = load_pydocs().questions
    wanted = next(q.relevant for q in relevant if q.text == QUESTION)
    documents = list(sample.source.documents())
    chosen = [d for d in documents if sample.ids[d.position] in wanted]
    chosen += [d for d in documents if sample.ids[d.position] not in wanted][: COUNT - len(chosen)]
    ids = [sample.ids[d.position] for d in chosen]
    payloads = [{"text": docstring(i) or i, "module": i.split(".")[0]} for i in ids]
    return wanted, ids, [d.tokens for d in chosen], payloads


@pytest.fixture(scope="session")
def store(filled):
    client = QdrantClient(":memory:")
    made = QdrantMuvera.create(client, "texts", FDEEncoder(FDEConfig(dim=128)))
    _, ids, tokens, payloads = filled
    assert not made.upsert(ids, tokens, payloads).failed
    yield made
    client.close()
