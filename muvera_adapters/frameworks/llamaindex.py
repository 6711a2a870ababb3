"""A retriever and a vector store for LlamaIndex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.frameworks.calling import Call, awaiting, blocking, check_options, refuse, run
from muvera_adapters.frameworks.documents import Documents, EmbedDocuments
from muvera_adapters.frameworks.retrieval import ID, SCORE, EmbedQuery, Retrieval, Text
from muvera_adapters.results import Document
from muvera_adapters.stores.conditions import All, Compare, Condition, Ids
from muvera_adapters.stores.token_model import TokenModel

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ModuleNotFoundError as error:
    raise MissingExtra("llama-index-core", "llamaindex") from error

from muvera_adapters.frameworks.llamaindex_filters import to_condition

# keys under which node_to_metadata_dict stores a node beside its metadata
_CONTENT, _DOCUMENT = "_node_content", "doc_id"


class MuveraRetriever(BaseRetriever):
    """Two-stage search as a LlamaIndex retriever.

    Nodes that :class:`MuveraVectorStore` wrote come back whole. The keys ``muvera_id`` and ``muvera_score`` of the
    metadata are left out of what language models and embedding models read.

    Args:
        store: any store of this library; with an asynchronous one, use ``aretrieve``.
        embed_query: function from a query's text to its (m, token_dim) matrix; may be a coroutine function, for
            ``aretrieve``.
        similarity_top_k: maximum number of nodes to return.
        text_key: payload key with a document's text.
        search_options: keyword arguments of the store's ``search``.
        model: model of ``embed_query``, which must be the one stored with the collection, if there is one.
        base: keyword arguments of LlamaIndex's ``BaseRetriever``.

    Raises:
        InvalidInput: the store's ``search`` or ``BaseRetriever`` does not take an option; the message names it.
        ModelMismatch: the collection stores another model.
    """

    def __init__(
        self,
        store: Any,
        embed_query: EmbedQuery,
        *,
        similarity_top_k: int = 10,
        text_key: str = "text",
        search_options: Mapping[str, Any] | None = None,
        model: TokenModel | str | None = None,
        **base: Any,
    ) -> None:
        check_options(BaseRetriever.__init__, base, "MuveraRetriever", ["self"])
        self._retrieval = Retrieval(store, embed_query, text_key, search_options or {}, model)
        self._limit = similarity_top_k
        super().__init__(**base)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_with_score(text) for text in self._retrieval.search(query_bundle.query_str, self._limit, {})]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_with_score(text) for text in await self._retrieval.asearch(query_bundle.query_str, self._limit, {})]


class MuveraVectorStore(BasePydanticVectorStore):
    """Two-stage search as a LlamaIndex vector store.

    Token matrices are made by the two functions given here, and never by an embedding model of LlamaIndex. An index
    asks for such a model and runs it when nodes are added, so give it ``MockEmbedding(embed_dim=1)``; queries do not
    run it. Nodes keep their relationships and metadata. A node that is added again is replaced as a whole.

    Methods with a leading ``a`` or ``async_`` do the same asynchronously; use only them with an asynchronous store or
    asynchronous functions.

    Args:
        store: any store of this library.
        embed_documents: function from n texts of nodes (with the metadata that LlamaIndex embeds) to their n token
            matrices, each (n_i, token_dim); None: nodes cannot be added.
        embed_query: function from a query's text to its (m, token_dim) matrix.
        text_key: payload key with a node's text.
        search_options: keyword arguments of the store's ``search``.
        model: model of the functions, which must be the one stored with the collection, if there is one.

    Raises:
        InvalidInput: the store's ``search`` does not take an option; the message names it.
        ModelMismatch: the collection stores another model.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _documents: Documents = PrivateAttr()
    _retrieval: Retrieval = PrivateAttr()

    def __init__(
        self,
        store: Any,
        embed_documents: EmbedDocuments | None,
        embed_query: EmbedQuery,
        *,
        text_key: str = "text",
        search_options: Mapping[str, Any] | None = None,
        model: TokenModel | str | None = None,
    ) -> None:
        super().__init__(stores_text=True, is_embedding_query=False)
        self._documents = Documents(store, embed_documents, text_key)
        self._retrieval = Retrieval(store, embed_query, text_key, search_options or {}, model)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "MuveraVectorStore"

    @property
    def client(self) -> Any:
        """Client of the store; the store itself if its engine has no client."""
        return getattr(self._documents.store, "client", self._documents.store)

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Embeds and writes nodes; returns their ids.

        Raises:
            InvalidInput: an argument is unknown, ``embed_documents`` is missing, or metadata has the key of the text.
            Rejected: the database rejected nodes; the others are written.
        """
        refuse(add_kwargs, "add")
        return run(self._add(blocking, nodes))

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """:meth:`add` without blocking the event loop."""
        refuse(kwargs, "async_add")
        return await self._add(awaiting, nodes)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes of a document."""
        refuse(delete_kwargs, "delete")
        run(self._documents.delete(blocking, Compare(_DOCUMENT, "==", ref_doc_id)))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """:meth:`delete` without blocking the event loop."""
        refuse(delete_kwargs, "adelete")
        await self._documents.delete(awaiting, Compare(_DOCUMENT, "==", ref_doc_id))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Deletes nodes by ids or filters; if both are given, those that match both.

        Raises:
            InvalidInput: neither is given (:meth:`clear` deletes all), or an argument is unknown.
            Unsupported: the database's filters cannot express the filters; the message names the operator.
        """
        refuse(delete_kwargs, "delete_nodes")
        run(self._documents.delete(blocking, _named(node_ids, filters)))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """:meth:`delete_nodes` without blocking the event loop."""
        refuse(delete_kwargs, "adelete_nodes")
        await self._documents.delete(awaiting, _named(node_ids, filters))

    def clear(self) -> None:
        """Deletes all nodes; the collection stays."""
        self._documents.store.delete(everything=True)

    async def aclear(self) -> None:
        """:meth:`clear` without blocking the event loop."""
        await awaiting(self._documents.store.delete, everything=True)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Returns nodes by ids, in their order, or by filters, or those that match both; without either, all nodes.

        Raises:
            Unsupported: the database's filters cannot express the filters; the message names the operator.
        """
        return run(self._get_nodes(blocking, node_ids, filters))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """:meth:`get_nodes` without blocking the event loop."""
        return await self._get_nodes(awaiting, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Finds the nodes most similar to the text of a query.

        Args:
            query: query, whose ``query_str`` is embedded; its ``filters``, ``node_ids`` and ``doc_ids`` select nodes.
            kwargs: keyword arguments of the store's ``search``, for example ``prefetch``.

        Raises:
            InvalidInput: ``query_str`` is missing, the mode is not the default, or an argument is unknown.
            Unsupported: the database's filters cannot express the filters; the message names the operator.
        """
        limit, condition = query.similarity_top_k, _chosen(query)
        return self._result(self._retrieval.search(_text_of(query), limit, kwargs, condition))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """:meth:`query` without blocking the event loop."""
        limit, condition = query.similarity_top_k, _chosen(query)
        return self._result(await self._retrieval.asearch(_text_of(query), limit, kwargs, condition))

    async def _add(self, call: Call, nodes: Sequence[BaseNode]) -> list[str]:
        ids = [node.node_id for node in nodes]
        embedded = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        payloads = [node_to_metadata_dict(node, remove_text=True) for node in nodes]
        await self._documents.write(call, ids, texts, payloads, embedded)
        return ids

    async def _get_nodes(
        self, call: Call, node_ids: list[str] | None, filters: MetadataFilters | None
    ) -> list[BaseNode]:
        nothing = node_ids is None and to_condition(filters) is None
        condition = None if nothing else _named(node_ids, filters)
        found = [_node(document, self._documents.text_key) for document in await self._documents.read(call, condition)]
        if node_ids is None:
            return found
        place = {node_id: i for i, node_id in enumerate(node_ids)}
        return sorted(found, key=lambda node: place[node.node_id])

    def _result(self, found: Sequence[Text]) -> VectorStoreQueryResult:
        nodes = [_rebuilt(str(text.id), text.text, _without_ours(text.metadata)) for text in found]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[text.score for text in found], ids=[node.node_id for node in nodes]
        )


def _named(node_ids: list[str] | None, filters: MetadataFilters | None) -> Condition:
    condition = to_condition(filters)
    both = [*([] if node_ids is None else [Ids(node_ids)]), *([] if condition is None else [condition])]
    if not both:
        raise InvalidInput("pass node_ids or filters; clear() deletes all nodes")
    return All(both)


def _chosen(query: VectorStoreQuery) -> Condition | None:
    condition = to_condition(query.filters)
    some: list[Condition] = [] if condition is None else [condition]
    # an index made from the vector store passes an empty list of nodes for all nodes
    some += [Ids(query.node_ids)] if query.node_ids else []
    some += [Compare(_DOCUMENT, "in", query.doc_ids)] if query.doc_ids else []
    return All(some) if some else None


def _text_of(query: VectorStoreQuery) -> str:
    if query.mode != VectorStoreQueryMode.DEFAULT:
        raise InvalidInput(f"mode={query.mode.value!r} is not supported: searches have the mode 'default'")
    if query.query_str is None:
        raise InvalidInput("the query has no query_str: its text is embedded here, and query_embedding is not used")
    return query.query_str


def _without_ours(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in (ID, SCORE)}


def _node(document: Document, text_key: str) -> BaseNode:
    payload = dict(document.payload)
    text = payload.pop(text_key, "")
    return _rebuilt(str(document.id), text if isinstance(text, str) else "", payload)


def _rebuilt(node_id: str, text: str, metadata: dict[str, Any]) -> BaseNode:
    """The node that was written; for a document that another program wrote, a node with its text and metadata."""
    if _CONTENT in metadata:
        return metadata_dict_to_node(metadata, text=text)
    return TextNode(id_=node_id, text=text, metadata=metadata)


def _with_score(text: Text) -> NodeWithScore:
    node = _rebuilt(str(text.id), text.text, _without_ours(text.metadata))
    node.metadata = {**node.metadata, ID: text.id, SCORE: text.score}
    # neither language models nor embedding models are to read these keys
    node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, ID, SCORE]
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, ID, SCORE]
    return NodeWithScore(node=node, score=text.score)
