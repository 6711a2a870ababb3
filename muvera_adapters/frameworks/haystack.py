"""A document store and a retriever component for Haystack."""

from __future__ import annotations

from typing import Any

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.frameworks.calling import Call, awaiting, blocking, run
from muvera_adapters.frameworks.documents import StoreAt
from muvera_adapters.frameworks.retrieval import EmbedQuery, Retrieval
from muvera_adapters.stores.token_model import TokenModel

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
except ModuleNotFoundError as error:
    raise MissingExtra("haystack-ai", "haystack") from error

from muvera_adapters.frameworks.haystack_store import MuveraDocumentStore

__all__ = ["MuveraDocumentStore", "MuveraRetriever", "StoreAt"]


@component
class MuveraRetriever:
    """Two-stage search as a Haystack component.

    Args:
        store: any store of this library, a :class:`~muvera_adapters.frameworks.documents.StoreAt`, or a
            :class:`MuveraDocumentStore`. An asynchronous store needs an asynchronous pipeline. The component can be
            serialized unless it has an open store.
        embed_query: function from a query's text to its (m, token_dim) matrix; may be a coroutine function, for
            ``run_async``. With a document store, its own is used.
        filters: filters in Haystack's language.
        top_k: maximum number of documents to return.
        text_key: payload key with a document's text.
        search_options: keyword arguments of the store's ``search``.
        model: model of ``embed_query``, which must be the one stored with the collection, if there is one.
        filter_policy: whether filters of a run replace those given here, or are merged with them as in Haystack.

    Raises:
        InvalidInput: ``embed_query`` is missing; or it, ``text_key`` or ``model`` is given with a document store, which
            has its own.
    """

    def __init__(
        self,
        store: Any,
        embed_query: EmbedQuery | None = None,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        text_key: str = "text",
        search_options: dict[str, Any] | None = None,
        model: TokenModel | str | None = None,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(store, MuveraDocumentStore):
            if embed_query is None:
                raise InvalidInput("embed_query is missing: a function from a query's text to its token matrix")
            if not isinstance(store, StoreAt):
                Retrieval(store, embed_query, text_key, search_options or {}, model)  # raises for what does not fit
            store = MuveraDocumentStore(store, embed_query, text_key=text_key, model=model)
        elif embed_query is not None or text_key != "text" or model is not None:
            raise InvalidInput("embed_query, text_key and model are those of the document store: leave them out here")
        self._store: MuveraDocumentStore = store
        self._filters = filters
        self._top_k = top_k
        self._search_options = search_options or {}
        self._filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Serializes the component to a dictionary; errors are those of ``MuveraDocumentStore.to_dict``."""
        made: dict[str, Any] = default_to_dict(
            self,
            store=self._store.to_dict(),
            filters=self._filters,
            top_k=self._top_k,
            search_options=self._search_options,
            filter_policy=self._filter_policy.value,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MuveraRetriever:
        """Makes the component from a dictionary."""
        parameters = dict(data["init_parameters"])
        parameters["store"] = MuveraDocumentStore.from_dict(parameters["store"])
        parameters["filter_policy"] = FilterPolicy.from_str(parameters["filter_policy"])
        made: MuveraRetriever = default_from_dict(cls, {**data, "init_parameters": parameters})
        return made

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_options: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Finds the documents most similar to a query.

        Args:
            query: text of the query.
            filters: filters in Haystack's language, used according to ``filter_policy``.
            top_k: maximum number of documents to return; None: that of the constructor.
            search_options: keyword arguments of the store's ``search``, which override those of the constructor.

        Raises:
            FilterError: the filters are not valid.
            InvalidInput: an option is unknown, or both filters and the option ``filter`` are given.
            Unsupported: the database's filters cannot express the filters; the message names the operator.
        """
        return {"documents": run(self._found(blocking, query, filters, top_k, search_options))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_options: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Like :meth:`run`, for asynchronous pipelines."""
        return {"documents": await self._found(awaiting, query, filters, top_k, search_options)}

    async def _found(
        self,
        call: Call,
        query: str,
        filters: dict[str, Any] | None,
        top_k: int | None,
        search_options: dict[str, Any] | None,
    ) -> list[Document]:
        options = {**self._search_options, **(search_options or {})}
        chosen = apply_filter_policy(self._filter_policy, self._filters, filters)
        return await self._store.search_by(call, query, self._top_k if top_k is None else top_k, options, chosen)
