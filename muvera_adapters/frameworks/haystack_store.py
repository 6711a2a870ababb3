"""A document store for Haystack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from haystack import Document, default_from_dict, default_to_dict
from haystack.core.errors import SerializationError
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import deserialize_callable, serialize_callable

from muvera_adapters.errors import InvalidInput
from muvera_adapters.frameworks.calling import Call, awaiting, blocking, run
from muvera_adapters.frameworks.documents import Documents, EmbedDocuments, StoreAt
from muvera_adapters.frameworks.haystack_filters import to_condition
from muvera_adapters.frameworks.retrieval import EmbedQuery, Retrieval, Text, filter_of
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.token_model import TokenModel

# payload key of a document's other fields, beside content and metadata, as JSON
_REST = "muvera_document"
_KEPT_AS_REST = ("blob", "embedding", "sparse_embedding")
_FUNCTIONS = ("embed_query", "embed_documents")


class MuveraDocumentStore:
    """Two-stage search as a Haystack document store.

    The functions given here make the token matrices. A document's ``embedding`` is stored and not searched. Metadata
    are payload keys, so that filters and other programs find them. Methods whose names end in ``_async`` do the same
    asynchronously; use only them with an asynchronous store or asynchronous functions.

    Args:
        store: any store of this library, or a :class:`~muvera_adapters.frameworks.documents.StoreAt`, with which the
            document store can be serialized.
        embed_query: function from a query's text to its (m, token_dim) matrix; None: nothing can be searched.
        embed_documents: function from n texts to their n token matrices, each (n_i, token_dim); None: documents cannot
            be written.
        text_key: payload key with a document's content.
        model: model of the functions, which must be the one stored with the collection, if there is one.
    """

    def __init__(
        self,
        store: Any,
        embed_query: EmbedQuery | None = None,
        embed_documents: EmbedDocuments | None = None,
        *,
        text_key: str = "text",
        model: str | TokenModel | None = None,
    ) -> None:
        self._store = store
        self._embed_query = embed_query
        self._embed_documents = embed_documents
        self._text_key = text_key
        self._model = model

    def to_dict(self) -> dict[str, Any]:
        """Serializes the document store: functions by their import paths, the collection by its target.

        Raises:
            SerializationError: the document store has an open store, or functions without an import path.
        """
        if not isinstance(self._store, StoreAt):
            raise SerializationError(
                f"{type(self._store).__name__} holds a connection and cannot be serialized: make the document store "
                "with StoreAt(target, collection) of muvera_adapters.frameworks.documents"
            )
        if isinstance(self._model, TokenModel):
            raise SerializationError("give model= as text to serialize the document store")
        functions = (self._embed_query, self._embed_documents)
        paths = [None if function is None else serialize_callable(function) for function in functions]
        made: dict[str, Any] = default_to_dict(
            self,
            store={"target": self._store.target, "collection": self._store.collection},
            **dict(zip(_FUNCTIONS, paths, strict=True)),
            text_key=self._text_key,
            model=self._model,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MuveraDocumentStore:
        """Makes the document store from a dictionary; its collection is opened on first use."""
        parameters = dict(data["init_parameters"])
        parameters["store"] = StoreAt(**parameters["store"])
        for name in _FUNCTIONS:
            if parameters.get(name) is not None:
                parameters[name] = deserialize_callable(parameters[name])
        made: MuveraDocumentStore = default_from_dict(cls, {**data, "init_parameters": parameters})
        return made

    def count_documents(self) -> int:
        """Returns the number of documents."""
        return run(self._count(blocking, None))

    async def count_documents_async(self) -> int:
        """:meth:`count_documents` without blocking the event loop."""
        return await self._count(awaiting, None)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Returns the number of documents that pass filters; the errors are those of :meth:`filter_documents`."""
        return run(self._count(blocking, filters))

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """:meth:`count_documents_by_filter` without blocking the event loop."""
        return await self._count(awaiting, filters)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Returns the documents that pass filters, in the order of the database.

        Args:
            filters: filters in Haystack's language; None or empty: all documents.

        Raises:
            FilterError: the filters are not valid.
            Unsupported: the database's filters cannot express them; the message names the operator.
        """
        return run(self._filter(blocking, filters))

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """:meth:`filter_documents` without blocking the event loop."""
        return await self._filter(awaiting, filters)

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Embeds and writes documents.

        Args:
            documents: documents with content.
            policy: what to do with documents whose ids exist, or occur twice in the list: ``FAIL`` (and ``NONE``) write
                nothing at all, ``SKIP`` keeps the existing document, ``OVERWRITE`` replaces it as a whole. Concurrent
                writes of another program are not noticed.

        Returns:
            Number of documents written; with ``OVERWRITE`` the length of the list.

        Raises:
            DuplicateDocumentError: ids exist, or occur twice in the list, and the policy is ``FAIL`` or ``NONE``.
            InvalidInput: ``documents`` is not a list of documents, a document has no content, or its metadata has the
                key of the content.
            Rejected: the database rejected documents; the others are written.
        """
        return run(self._write(blocking, documents, policy))

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """:meth:`write_documents` without blocking the event loop."""
        return await self._write(awaiting, documents, policy)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Deletes documents by ids; ids that do not exist are ignored."""
        run(self._delete(blocking, ids=document_ids))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """:meth:`delete_documents` without blocking the event loop."""
        await self._delete(awaiting, ids=document_ids)

    def delete_all_documents(self) -> None:
        """Deletes all documents; the collection stays."""
        run(self._delete(blocking, everything=True))

    async def delete_all_documents_async(self) -> None:
        """:meth:`delete_all_documents` without blocking the event loop."""
        await self._delete(awaiting, everything=True)

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Deletes the documents that pass filters; returns their number.

        Raises:
            InvalidInput: the filters are empty.
            FilterError: the filters are not valid.
            Unsupported: the database's filters cannot express them; the message names the operator.
        """
        return run(self._delete_by_filter(blocking, filters))

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """:meth:`delete_by_filter` without blocking the event loop."""
        return await self._delete_by_filter(awaiting, filters)

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Sets metadata keys of the documents that pass filters; returns their number.

        Raises:
            InvalidInput: the filters are empty, or ``meta`` has the key of the content.
            FilterError: the filters are not valid.
            Unsupported: the database's filters cannot express them, or the collection stores no tokens.
        """
        return run(self._update(blocking, filters, meta))

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """:meth:`update_by_filter` without blocking the event loop."""
        return await self._update(awaiting, filters, meta)

    async def _opened(self, call: Call) -> Any:
        return await call(self._store.open, self._model) if isinstance(self._store, StoreAt) else self._store

    async def _documents(self, call: Call) -> Documents:
        return Documents(await self._opened(call), self._embed_documents, self._text_key)

    def _condition(self, filters: dict[str, Any] | None) -> Condition | None:
        return to_condition(filters, self._text_key)

    async def _count(self, call: Call, filters: dict[str, Any] | None) -> int:
        store, condition = await self._opened(call), self._condition(filters)
        return int(await call(store.count, filter=await filter_of(call, store, condition)))

    async def _filter(self, call: Call, filters: dict[str, Any] | None) -> list[Document]:
        found = await (await self._documents(call)).read(call, self._condition(filters))
        return [_document(str(each.id), dict(each.payload), self._text_key) for each in found]

    async def _write(self, call: Call, documents: list[Document], policy: DuplicatePolicy) -> int:
        if not isinstance(documents, list) or any(not isinstance(each, Document) for each in documents):
            raise InvalidInput("write_documents takes a list of Haystack's documents")
        core = await self._documents(call)
        given, chosen = len(documents), {document.id: document for document in documents}
        if policy != DuplicatePolicy.OVERWRITE:
            stored = await call(core.store.get, list(chosen)) if chosen else []
            there = {str(document.id) for document in stored if document is not None}
            if policy != DuplicatePolicy.SKIP:
                _refuse_duplicates(documents, there)
            first = {document.id: document for document in reversed(documents)}
            chosen = {key: first[key] for key in chosen if key not in there}
        await core.write(
            call,
            list(chosen),
            [_content(each) for each in chosen.values()],
            [_payload(each) for each in chosen.values()],
        )
        return given if policy == DuplicatePolicy.OVERWRITE else len(chosen)

    async def _delete(self, call: Call, **which: Any) -> None:
        await call((await self._opened(call)).delete, **which)

    async def _delete_by_filter(self, call: Call, filters: dict[str, Any]) -> int:
        return await (await self._documents(call)).delete(call, self._some(filters))

    async def _update(self, call: Call, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        if self._text_key in meta:
            raise InvalidInput(f"{self._text_key!r} is the key of the content: write the document again to change it")
        return await (await self._documents(call)).update(call, self._some(filters), meta)

    def _some(self, filters: dict[str, Any]) -> Condition:
        condition = self._condition(filters)
        if condition is None:
            raise InvalidInput("the filters are empty; delete_all_documents() deletes all documents")
        return condition

    async def search_by(
        self, call: Call, query: str, top_k: int, options: Mapping[str, Any], filters: dict[str, Any] | None
    ) -> list[Document]:
        """The documents most similar to a query, for the retriever and its way of calling functions."""
        if self._embed_query is None:
            raise InvalidInput("searching needs embed_query= of the document store, which was not given")
        store, condition = await self._opened(call), self._condition(filters)
        retrieval = Retrieval(store, self._embed_query, self._text_key, {}, self._model)
        search = retrieval.search if call is blocking else retrieval.asearch
        found: list[Text] = await call(search, query, top_k, options, condition)
        return [_hit(text, self._text_key) for text in found]


def _refuse_duplicates(documents: list[Document], there: set[str]) -> None:
    twice = [document_id for document_id, n in Counter(document.id for document in documents).items() if n > 1]
    if there or twice:
        some = ", ".join(map(repr, [*sorted(there), *twice][:3]))
        raise DuplicateDocumentError(
            f"{len(there)} documents exist already and {len(twice)} are given twice ({some}); nothing was written: "
            "choose policy=DuplicatePolicy.SKIP or OVERWRITE"
        )


def _content(document: Document) -> str:
    if document.content is None:
        raise InvalidInput(f"document {document.id!r} has no content: its content is the text that is embedded")
    content: str = document.content
    return content


def _payload(document: Document) -> dict[str, Any]:
    if _REST in document.meta:
        raise InvalidInput(f"the metadata of document {document.id!r} has the key {_REST!r}, which is reserved")
    whole = document.to_dict(flatten=False)
    rest = {key: whole[key] for key in _KEPT_AS_REST if whole.get(key) is not None}
    return {**document.meta, **({_REST: json.dumps(rest)} if rest else {})}


def _document(document_id: str, payload: dict[str, Any], text_key: str, score: float | None = None) -> Document:
    content, rest = payload.pop(text_key, None), json.loads(payload.pop(_REST, "{}"))
    text = content if isinstance(content, str) else None
    return Document.from_dict({"id": document_id, "content": text, "meta": payload, "score": score, **rest})


def _hit(text: Text, text_key: str) -> Document:
    return _document(str(text.id), {**text.metadata, text_key: text.text}, text_key, text.score)
