"""The vector store, in an index of LlamaIndex, over Qdrant's local mode."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import Document, IndexNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from qdrant_client import AsyncQdrantClient, QdrantClient

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.frameworks.llamaindex import MuveraRetriever, MuveraVectorStore
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder

DIM = 32
ENCODER = FDEEncoder(FDEConfig(dim=DIM, r_reps=6, k_sim=3, d_proj=8))


def embed_query(text):
    """One vector for each word, so that texts with the same words are alike."""
    seeds = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") for word in text.split() or ["-"]]
    rows = np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embed_documents(texts):
    return [embed_query(text) for text in texts]


TEXTS = ["red apples grow", "green pears fall", "blue plums rot", "red cars drive"]


def nodes():
    made = [
        TextNode(id_=f"node-{i}", text=text, metadata={"n": i, "kind": "fc"[i == 3]}) for i, text in enumerate(TEXTS)
    ]
    for i, node in enumerate(made):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{i % 2}", metadata={"a": 1})
        node.excluded_llm_metadata_keys = ["n"]
    made[0].metadata["tags"] = ["x", "y"]
    made[0].relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="node-1")
    return made


@pytest.fixture
def store():
    client = QdrantClient(":memory:")
    yield QdrantMuvera.create(client, "nodes", ENCODER)
    client.close()


@pytest.fixture
def vectors(store):
    made = MuveraVectorStore(store, embed_documents, embed_query)
    assert made.add(nodes()) == [f"node-{i}" for i in range(4)]
    return made


def filters(*each, condition="and"):
    return MetadataFilters(
        filters=[
            e if isinstance(e, MetadataFilters) else MetadataFilter(key=e[0], operator=e[1], value=e[2]) for e in each
        ],
        condition=condition,
    )


def found(vectors, chosen):
    return sorted(node.node_id[-1] for node in vectors.get_nodes(filters=chosen))


def test_nodes_come_back_whole(vectors):
    expected = {node.node_id: node for node in nodes()}
    for node in vectors.get_nodes():
        assert node.to_dict() == expected[node.node_id].to_dict()
    assert [node.node_id for node in vectors.get_nodes(["node-2", "node-0", "nobody"])] == ["node-2", "node-0"]
    link = IndexNode(id_="link", text="a link", index_id="elsewhere")
    vectors.add([link])
    assert vectors.get_nodes(["link"])[0].to_dict() == link.to_dict()


def test_a_node_that_is_added_again_is_replaced(vectors):
    vectors.add([TextNode(id_="node-0", text="violet figs", metadata={"new": 1})])
    (node,) = vectors.get_nodes(["node-0"])
    assert (node.text, node.metadata, node.ref_doc_id) == ("violet figs", {"new": 1}, None)
    assert found(vectors, filters(("tags", "contains", "x"))) == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (filters(("n", "==", 2)), "2"),
        (filters(("n", "!=", 2)), "013"),
        (filters(("n", ">", 1)), "23"),
        (filters(("n", ">=", 1), ("n", "<", 3)), "12"),
        (filters(("n", "<=", 0.5)), "0"),
        (filters(("n", "in", [0, 3])), "03"),
        (filters(("kind", "nin", ["c"])), "012"),
        (filters(("tags", "contains", "y")), "0"),
        (filters(("tags", "any", ["z", "y"])), "0"),
        (filters(("tags", "all", ["z", "y"])), ""),
        (filters(("tags", "is_empty", None)), "123"),
        (filters(("kind", "text_match", "c")), "3"),
        (filters(("n", "==", 0), ("kind", "==", "c"), condition="or"), "03"),
        (filters(("n", "==", 0), ("kind", "==", "c"), condition="not"), "12"),
        (filters(("n", ">", 0), filters(("kind", "==", "c"), ("n", "==", 1), condition="or")), "13"),
        (filters(), "0123"),
    ],
)
def test_filters(vectors, chosen, expected):
    assert found(vectors, chosen) == list(expected)
    query = VectorStoreQuery(query_str="red", similarity_top_k=10, filters=chosen)
    assert sorted(i[-1] for i in vectors.query(query).ids) == list(expected)


def test_what_cannot_be_filtered_by_is_named(vectors):
    with pytest.raises(Unsupported, match=r"'kind'.*'text_match_insensitive'"):
        found(vectors, filters(("kind", "text_match_insensitive", "C")))
    with pytest.raises(InvalidInput, match=r"'kind'.*'>'.*'c'"):
        found(vectors, filters(("kind", ">", "c")))
    with pytest.raises(InvalidInput, match=r"'tags'.*'any'"):
        found(vectors, filters(("tags", "any", "x")))


def test_queries(vectors, store):
    result = vectors.query(VectorStoreQuery(query_str="red apples", similarity_top_k=2))
    hits = store.search(embed_query("red apples"), limit=2)
    assert (result.ids, result.similarities) == ([h.id for h in hits], [h.score for h in hits])
    assert result.nodes[0].to_dict() == nodes()[0].to_dict()
    some = VectorStoreQuery(
        query_str="red apples", similarity_top_k=9, doc_ids=["doc-1"], node_ids=["node-0", "node-1"]
    )
    assert vectors.query(some, prefetch=3).ids == ["node-1"]
    with pytest.raises(InvalidInput, match="hybrid"):
        vectors.query(VectorStoreQuery(query_str="red", mode=VectorStoreQueryMode.HYBRID))
    with pytest.raises(InvalidInput, match="no query_str"):
        vectors.query(VectorStoreQuery(query_embedding=[1.0]))


def test_unknown_arguments_are_named(vectors, store):
    query = VectorStoreQuery(query_str="red")
    for call in (
        lambda: vectors.query(query, prefetsh=3),
        lambda: vectors.add([], prefetsh=3),
        lambda: vectors.delete("doc-0", prefetsh=3),
        lambda: vectors.delete_nodes(["node-0"], prefetsh=3),
        lambda: MuveraVectorStore(store, None, embed_query, search_options={"prefetsh": 3}),
        lambda: MuveraRetriever(store, embed_query, prefetsh=3),
    ):
        with pytest.raises(InvalidInput, match="prefetsh"):
            call()
    assert len(vectors.get_nodes()) == 4


def test_deleting(vectors):
    with pytest.raises(InvalidInput, match="clear"):
        vectors.delete_nodes()
    with pytest.raises(InvalidInput, match="clear"):
        vectors.delete_nodes(filters=filters())
    vectors.delete("doc-1")
    assert found(vectors, None) == ["0", "2"]
    vectors.delete_nodes(["node-0", "node-2"], filters(("n", ">", 1)))
    assert found(vectors, None) == ["0"]
    vectors.clear()
    assert found(vectors, None) == []


async def test_an_asynchronous_store():
    client = AsyncQdrantClient(":memory:")
    store = await AsyncQdrantMuvera.create(client, "nodes", ENCODER)

    async def embed(texts):
        return embed_documents(texts)

    vectors = MuveraVectorStore(store, embed, embed_query)
    with pytest.raises(InvalidInput, match="asynchronous"):
        vectors.add(nodes())
    await vectors.async_add(nodes())
    chosen = filters(("n", "in", [0, 1, 2]))
    result = await vectors.aquery(VectorStoreQuery(query_str="red apples", similarity_top_k=2, filters=chosen))
    assert result.ids[0] == "node-0"
    await vectors.adelete("doc-1")
    await vectors.adelete_nodes(["node-0"])
    assert [node.node_id for node in await vectors.aget_nodes()] == ["node-2"]
    await vectors.aclear()
    assert await vectors.aget_nodes() == []
    await client.close()


def test_in_an_index(store):
    vectors = MuveraVectorStore(store, embed_documents, embed_query)
    documents = [Document(text=text, doc_id=f"doc-{i}", metadata={"n": i}) for i, text in enumerate(TEXTS)]
    context = StorageContext.from_defaults(vector_store=vectors)
    embedding = MockEmbedding(embed_dim=1)
    VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embedding)
    index = VectorStoreIndex.from_vector_store(vectors, embed_model=embedding)
    retriever = index.as_retriever(
        similarity_top_k=1, filters=filters(("n", ">", 0)), vector_store_kwargs={"prefetch": 100}
    )
    assert [n.node.get_content() for n in retriever.retrieve("red apples")] == ["red cars drive"]
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=2)
    assert [n.node.ref_doc_id for n in engine.query("red apples").source_nodes] == ["doc-0", "doc-3"]
    index.delete_ref_doc("doc-0")
    assert len(vectors.get_nodes()) == 3


def test_our_keys_are_no_text_of_a_node(vectors, store):
    (found,) = MuveraRetriever(store, embed_query, similarity_top_k=1).retrieve("red apples")
    assert found.node.metadata["muvera_id"] == "node-0"
    assert found.node.ref_doc_id == "doc-0"
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "muvera" not in found.node.get_content(metadata_mode=mode)
        assert "_node" not in found.node.get_content(metadata_mode=mode)
    assert "n: 0" in found.node.get_content(metadata_mode=MetadataMode.EMBED)
    vectors.add([found.node])
    assert "muvera_score" not in store.get(["node-0"])[0].payload
    store.upsert(["plain"], [embed_query("black ink")], [{"text": "black ink", "page": 7}])
    (plain,) = vectors.query(VectorStoreQuery(query_str="black ink")).nodes
    assert (plain.node_id, plain.text, plain.metadata) == ("plain", "black ink", {"page": 7})
