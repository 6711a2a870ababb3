"""A retriever component for Haystack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muvera_adapters.errors import MissingExtra
from muvera_adapters.frameworks.retrieval import EmbedQuery, Retrieval, Text
from muvera_adapters.stores.token_model import TokenModel

try:
    from haystack import Document, component
except ModuleNotFoundError as error:
    raise MissingExtra("haystack-ai", "haystack") from error


@component
class MuveraRetriever:
    """Two-stage search as a Haystack component.

    A store holds a connection, so a pipeline with this component cannot be serialized.

    Args:
        store: any store of this library; with an asynchronous one, use an asynchronous pipeline.
        embed_query: a query's text -> its (m, token_dim) matrix; may be a coroutine function, for ``run_async``.
        top_k: documents to return.
        text_key: payload key with a document's text.
        search_options: keyword arguments of the store's ``search``.
        model: model of ``embed_query``, which must be that of the collection where it keeps one.
    """

    def __init__(
        self,
        store: Any,
        embed_query: EmbedQuery,
        *,
        top_k: int = 10,
        text_key: str = "text",
        search_options: Mapping[str, Any] | None = None,
        model: TokenModel | str | None = None,
    ) -> None:
        self._retrieval = Retrieval(store, embed_query, text_key, search_options or {}, model)
        self._top_k = top_k

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, search_options: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """The documents most similar to a query.

        Args:
            query: its text.
            top_k: None: that of the constructor.
            search_options: keyword arguments of the store's ``search`` for this query, ``filter`` for example.
        """
        found = self._retrieval.search(query, self._top_k if top_k is None else top_k, search_options or {})
        return {"documents": [_document(text) for text in found]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, top_k: int | None = None, search_options: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """:meth:`run` for asynchronous pipelines."""
        limit = self._top_k if top_k is None else top_k
        found = await self._retrieval.asearch(query, limit, search_options or {})
        return {"documents": [_document(text) for text in found]}


def _document(text: Text) -> Document:
    return Document(id=str(text.id), content=text.text, meta=text.metadata, score=text.score)
