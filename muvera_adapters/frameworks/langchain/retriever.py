"""A retriever for LangChain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from muvera_adapters.frameworks.retrieval import Retrieval, Text


class MuveraRetriever(BaseRetriever):
    """Two-stage search as a LangChain retriever.

    ``invoke(query, k=..., filter=...)`` takes the keyword arguments of the store's ``search``, with ``k`` as its limit.
    Any other argument raises :class:`~muvera_adapters.errors.InvalidInput` with its name.

    Attributes:
        store: any store of this library; with an asynchronous one, use ``ainvoke``.
        embed_query: function from a query's text to its (m, token_dim) matrix; may be a coroutine function, for
            ``ainvoke``.
        k: maximum number of documents to return.
        text_key: payload key with a document's text.
        metadata_key: payload key with a document's metadata; None: the metadata is the rest of the payload.
        search_options: keyword arguments of the store's ``search``.
        model: model of ``embed_query``, which must be the one stored with the collection, if there is one.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: Any
    embed_query: Callable[[str], Any]
    k: int = 10
    text_key: str = "text"
    metadata_key: str | None = None
    search_options: dict[str, Any] = Field(default_factory=dict)
    model: Any = None

    def model_post_init(self, context: Any) -> None:
        """Raises an error for search options and models that do not fit the store."""
        super().model_post_init(context)
        self._retrieval()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **options: Any
    ) -> list[Document]:
        found = self._retrieval().search(query, self.k if k is None else k, options)
        return [_document(text) for text in found]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, **options: Any
    ) -> list[Document]:
        found = await self._retrieval().asearch(query, self.k if k is None else k, options)
        return [_document(text) for text in found]

    def _retrieval(self) -> Retrieval:
        return Retrieval(
            self.store, self.embed_query, self.text_key, self.search_options, self.model, self.metadata_key
        )


def _document(text: Text) -> Document:
    return Document(id=str(text.id), page_content=text.text, metadata=text.metadata)
