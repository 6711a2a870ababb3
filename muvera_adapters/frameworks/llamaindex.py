"""A retriever for LlamaIndex."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.frameworks.retrieval import EmbedQuery, Retrieval, Text
from muvera_adapters.stores.token_model import TokenModel

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ModuleNotFoundError as error:
    raise MissingExtra("llama-index-core", "llamaindex") from error


class MuveraRetriever(BaseRetriever):
    """Two-stage search as a LlamaIndex retriever.

    Args:
        store: any store of this library; with an asynchronous one, use ``aretrieve``.
        embed_query: a query's text -> its (m, token_dim) matrix; may be a coroutine function, for ``aretrieve``.
        similarity_top_k: nodes to return.
        text_key: payload key with a document's text.
        search_options: keyword arguments of the store's ``search``.
        model: model of ``embed_query``, which must be that of the collection where it keeps one.
        base: keyword arguments of LlamaIndex's ``BaseRetriever``.
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
        self._retrieval = Retrieval(store, embed_query, text_key, search_options or {}, model)
        self._limit = similarity_top_k
        super().__init__(**base)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(text) for text in self._retrieval.search(query_bundle.query_str, self._limit, {})]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(text) for text in await self._retrieval.asearch(query_bundle.query_str, self._limit, {})]


def _node(text: Text) -> NodeWithScore:
    return NodeWithScore(node=TextNode(id_=str(text.id), text=text.text, metadata=text.metadata), score=text.score)
