from __future__ import annotations

import zlib

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_qdrant import QdrantVectorStore
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from muvera_adapters.errors import (
    CollectionExists,
    EncoderMismatch,
    InvalidInput,
    ModelMismatch,
    Rejected,
    Unsupported,
    WriteInterrupted,
)
from muvera_adapters.frameworks.langchain import MuveraVectorStore
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder, maxsim

DIM = 32
ENCODER = FDEEncoder(FDEConfig(dim=DIM))


class Words:
    """A unit vector for each word."""

    def embed_query(self, text):
        rows = [np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM) for word in text.split()]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


class AsyncWords:
    """:class:`Words`, as a model behind a service has it."""

    async def embed_query(self, text):
        return Words().embed_query(text)

    async def embed_documents(self, texts):
        return Words().embed_documents(texts)


WORDS = Words()
FUNCTIONS = (WORDS.embed_documents, WORDS.embed_query)
LANGCHAIN = {"text_key": "page_content", "metadata_key": "metadata"}


@pytest.fixture
def client():
    made = QdrantClient(":memory:")
    yield made
    made.close()


@pytest.fixture
def muvera(client):
    return QdrantMuvera.create(client, "texts", ENCODER)


@pytest.fixture
def store(muvera):
    return MuveraVectorStore(muvera, *FUNCTIONS)


class TestStandard(VectorStoreIntegrationTests):
    """LangChain's own tests of vector stores, synchronous and asynchronous, over a synchronous store."""

    @pytest.fixture(params=[{}, LANGCHAIN], ids=["flat", "nested"])
    def vectorstore(self, muvera, request):
        return MuveraVectorStore(muvera, *FUNCTIONS, **request.param)


class TestStandardAsynchronous(VectorStoreIntegrationTests):
    """... and over an asynchronous store, whose embedding is asynchronous too."""

    @property
    def has_sync(self):
        return False  # an asynchronous store has no synchronous methods

    @pytest.fixture
    async def vectorstore(self):
        client = AsyncQdrantClient(":memory:")
        muvera = await AsyncQdrantMuvera.create(client, "texts", ENCODER)
        yield MuveraVectorStore(muvera, AsyncWords().embed_documents, AsyncWords().embed_query)
        await client.close()


async def test_synchronous_methods_refuse_what_is_asynchronous(store):
    mixed = MuveraVectorStore(store.store, AsyncWords().embed_documents, AsyncWords().embed_query)
    with pytest.raises(InvalidInput, match="embed_documents is asynchronous"):
        mixed.add_texts(["red"])
    with pytest.raises(InvalidInput, match="embed_query is asynchronous"):
        mixed.similarity_search("red")
    assert await mixed.aadd_texts(["red"], ids=["r"]) == ["r"]
    assert [d.id for d in await mixed.asimilarity_search("red")] == ["r"]


def test_scores_are_maxsim(store):
    texts = ["red green", "green blue", "blue red white"]
    ids = store.add_texts(texts, [{"n": i} for i in range(3)])
    expected = maxsim(WORDS.embed_query("red white"), WORDS.embed_documents(texts))
    found = store.similarity_search_with_score("red white", k=3)
    assert [d.id for d, _ in found] == [ids[i] for i in np.argsort(-expected)]
    assert [score for _, score in found] == pytest.approx(sorted(expected, reverse=True), abs=1e-2)
    means = store.similarity_search_with_relevance_scores("red white", k=3)
    assert [score for _, score in means] == pytest.approx([max(s / 2, 0) for _, s in found], abs=1e-2)
    assert means[0][1] == 1.0
    chosen = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9})
    assert [d.page_content for d in chosen.invoke("red white")] == ["blue red white"]
    with pytest.raises(Unsupported, match="not scored by MaxSim"):
        store.similarity_search_with_relevance_scores("red", rerank="none")
    with pytest.raises(Unsupported, match="marginal relevance"):
        store.as_retriever(search_type="mmr").invoke("red")


def test_relevance_needs_tokens_of_unit_length(muvera):
    long = MuveraVectorStore(muvera, *FUNCTIONS[:1], lambda text: 3 * WORDS.embed_query(text))
    long.add_texts(["red"])
    with pytest.raises(Unsupported, match=r"is 3 a token of the query.*unit length"):
        long.similarity_search_with_relevance_scores("red")


def test_arguments_of_the_search_reach_the_store(store):
    store.add_texts(["red green", "red blue", "red"], [{"n": i} for i in range(3)])
    first = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=1))])
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": first, "prefetch": 50})
    assert [d.metadata["n"] in (1, 2) for d in retriever.invoke("red green")] == [True]
    assert {d.metadata["n"] for d in store.similarity_search("red green", filter=first)} == {1, 2}
    with pytest.raises(InvalidInput, match=r"does not take fetch; it takes .*prefetch"):
        store.similarity_search("red", fetch=3)
    with pytest.raises(InvalidInput, match="does not take limit"):
        store.similarity_search("red", limit=3)
    with pytest.raises(InvalidInput, match=r"does not take top; it takes"):
        store.add_texts(["red"], top=1)
    with pytest.raises(InvalidInput, match="does not take where"):
        store.delete(where="x")
    with pytest.raises(InvalidInput, match=r"unknown argument k: .*search_kwargs"):
        store.as_retriever(k=3)


def test_nothing_is_deleted_that_is_not_named(store):
    store.add_texts(["red", "green", "blue"], [{"n": i} for i in range(3)], ids=["r", "g", "b"])
    with pytest.raises(InvalidInput, match="everything=True"):
        store.delete()
    store.delete(filter=models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=1))]))
    assert [d.id for d in store.get_by_ids(["r", "g", "b"])] == ["r", "b"]
    assert store.delete(everything=True)
    assert store.similarity_search("red") == []


def test_a_document_that_is_there_is_replaced(client):
    dense = {"dense": models.VectorParams(size=2, distance=models.Distance.DOT)}
    for layout, stays in (({}, False), (LANGCHAIN, True)):
        client.delete_collection("mixed")
        client.create_collection("mixed", vectors_config={**dense, **_colbert()})
        muvera = QdrantMuvera.adopt(client, "mixed", ENCODER)
        muvera.backfill()
        store = MuveraVectorStore(muvera, *FUNCTIONS, **layout)
        store.add_texts(["red"], [{"old": 1, "both": 1}], ids=["a"], vectors={"dense": [[1.0, 2.0]]})
        (point,), _ = client.scroll("mixed")
        client.set_payload("mixed", {"theirs": 1}, [point.id])
        store.add_texts(["green"], [{"both": 2}], ids=["a"])
        (point,), _ = client.scroll("mixed", with_vectors=True)
        assert store.get_by_ids(["a"]) == [Document(id="a", page_content="green", metadata={"both": 2})]
        assert ("theirs" in point.payload, "dense" in point.vector) == (stays, stays)


def test_wrong_documents_are_refused_before_anything_is_written(store):
    for texts, metadatas, ids, problem in (
        (["red", "green"], None, ["a", "a"], "'a' is given twice, at positions 0 and 1"),
        (["red"], None, ["a", "b"], "1 texts, 2 ids"),
        (["red"], [{}, {}], None, "1 texts, 2 metadatas"),
        (["red"], [{"text": "green"}], ["a"], "metadata of document 'a' has the key 'text'"),
        ([None], None, ["a"], "text of document 'a' must be a string"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            store.add_texts(texts, metadatas, ids=ids)
    assert store.store.count() == 0


def test_texts_are_embedded_in_batches(muvera):
    sizes = []

    def embed(texts):
        sizes.append(len(texts))
        return WORDS.embed_documents(texts)

    store = MuveraVectorStore(muvera, embed, WORDS.embed_query)
    ids = store.add_documents([Document(page_content=f"word{i}") for i in range(70)])
    assert sizes == [64, 6]
    assert len(store.get_by_ids(ids)) == 70


def test_documents_that_are_not_written_are_named(store):
    with pytest.raises(Rejected, match=r"1 of 2 documents were not written: 'a': .*key 'x'.*nan"):
        store.add_texts(["red", "green"], [{"x": float("nan")}, {}], ids=["a", "b"])
    assert [d.id for d in store.get_by_ids(["a", "b"])] == ["b"]


def test_an_interrupted_write_counts_all_batches(client, muvera):
    sizes = []

    def embed(texts):
        sizes.append(len(texts))
        if len(sizes) == 2:
            client.close()
        return WORDS.embed_documents(texts)

    store = MuveraVectorStore(muvera, embed, WORDS.embed_query)
    with pytest.raises(WriteInterrupted, match=r"2 of 5 documents are written, add those of report.failed") as caught:
        store.add_texts([f"word{i}" for i in range(5)], ids=list("abcde"), batch_size=2)
    assert (caught.value.report.written, list(caught.value.report.failed)) == (2, ["c", "d", "e"])


def test_langchains_indexing(store):
    records = InMemoryRecordManager("texts")
    records.create_schema()
    documents = [Document(page_content=f"word{i}", metadata={"source": i % 2}) for i in range(4)]

    def indexed(documents):
        return index(
            documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256", batch_size=3
        )

    assert indexed(documents)["num_added"] == 4
    assert indexed(documents[1:]) == {"num_added": 0, "num_updated": 0, "num_skipped": 3, "num_deleted": 1}
    assert {d.page_content for d in store.similarity_search("word1", k=9)} == {"word1", "word2", "word3"}


class TestFromDocuments:
    documents = (Document(id="r", page_content="red", metadata={"n": 0}), Document(page_content="green blue"))

    def test_collection_is_made_and_added_to(self, tmp_path):
        options = {"target": f"qdrant-edge:{tmp_path / 'data'}", "collection_name": "texts", "model": "org/model@1"}
        made = MuveraVectorStore.from_documents(list(self.documents), WORDS, **options)
        assert made.store.encoder.token_dim == DIM
        assert made.get_by_ids(["r"]) == [self.documents[0]]
        made.close()
        other = FDEEncoder(FDEConfig(dim=DIM, seed=1))
        with pytest.raises(EncoderMismatch):
            MuveraVectorStore.from_texts(["x"], WORDS, encoder=other, **options)
        with pytest.raises(ModelMismatch):
            MuveraVectorStore.from_texts(["x"], WORDS, **{**options, "model": "org/other"})
        more = MuveraVectorStore.from_texts(["white"], WORDS, ids=["w"], **options)
        assert more.store.count() == 3
        more.close()

    async def test_in_a_store(self, muvera):
        made = await MuveraVectorStore.afrom_documents(list(self.documents), WORDS, store=muvera, **LANGCHAIN)
        assert made.get_by_ids(["r"]) == [self.documents[0]]
        assert muvera.get(["r"])[0].payload == {"page_content": "red", "metadata": {"n": 0}}

    def test_a_collection_of_someone_else_is_left_alone(self, tmp_path):
        client = QdrantClient(path=str(tmp_path))
        client.create_collection("theirs", vectors_config=models.VectorParams(size=2, distance="Dot"))
        client.close()
        with pytest.raises(CollectionExists):
            MuveraVectorStore.from_texts(["red"], WORDS, target=f"qdrant:{tmp_path}", collection_name="theirs")

    def test_what_is_missing_is_named(self, muvera):
        for options in ({}, {"store": muvera, "target": "qdrant-edge:x"}, {"target": "qdrant-edge:x"}):
            with pytest.raises(InvalidInput, match="give either store, or target and collection_name"):
                MuveraVectorStore.from_texts(["red"], WORDS, **options)

    def test_dense_embeddings_are_refused(self, muvera, tmp_path):
        dense = DeterministicFakeEmbedding(size=DIM)
        with pytest.raises(InvalidInput, match="must give a matrix"):
            MuveraVectorStore.from_texts(["x"], dense, target=f"qdrant-edge:{tmp_path}", collection_name="texts")
        with pytest.raises(InvalidInput, match=r"document 0 must be an \(n, dim\) matrix"):
            MuveraVectorStore.from_texts(["red", "green"], dense, store=muvera)


def _colbert():
    maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return {"colbert": models.VectorParams(size=DIM, distance=models.Distance.COSINE, multivector_config=maxsim)}


def test_collection_of_langchain_qdrant(client):
    """Its dense vector and its payload, with token vectors that its owner added beside them."""
    dense = DeterministicFakeEmbedding(size=4)
    params = {"dense": models.VectorParams(size=4, distance=models.Distance.COSINE), **_colbert()}
    client.create_collection("docs", vectors_config=params)
    theirs = QdrantVectorStore(client=client, collection_name="docs", embedding=dense, vector_name="dense")
    texts = {7: "red green", 8: "blue"}
    named, numbered = "0a3b1c9e-3d45-4d8e-9d2b-3b1f7c9e4a10", list(texts)
    theirs.add_texts(texts.values(), [{"n": i} for i in texts], ids=numbered)
    theirs.add_documents([Document(id=named, page_content="white red", metadata={"deep": {"a": [1]}})])
    for number, text in {**texts, named: "white red"}.items():
        vector = {"colbert": WORDS.embed_query(text).tolist()}
        client.update_vectors("docs", [models.PointVectors(id=number, vector=vector)])

    muvera = QdrantMuvera.adopt(client, "docs", ENCODER)
    muvera.backfill()
    store = MuveraVectorStore(muvera, *FUNCTIONS, **LANGCHAIN)
    first, second = store.similarity_search("white red", k=2)
    assert first == Document(id=named, page_content="white red", metadata={"deep": {"a": [1]}})
    assert second == Document(id="7", page_content="red green", metadata={"n": 7})
    within = models.Filter(must=[models.FieldCondition(key="metadata.n", match=models.MatchValue(value=8))])
    assert [d.page_content for d in store.similarity_search("red", filter=within)] == ["blue"]

    # an integer id is text in LangChain, and names the same document
    assert store.get_by_ids(["7"]) == [second]
    second.metadata["n"] = 70
    assert store.add_documents([second]) == ["7"]
    store.delete(["8"])
    assert {p.id for p in client.scroll("docs")[0]} == {7, named}
    # langchain-qdrant reads what was written, and its vector is still there
    by_dense = theirs.similarity_search("red green", k=1)[0]
    assert (by_dense.page_content, by_dense.metadata["n"]) == ("red green", 70)
