"""A vector store for LangChain."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from muvera_adapters.databases import Database
from muvera_adapters.errors import (
    InvalidInput,
    Rejected,
    StoreUnavailable,
    Unsupported,
    WriteInterrupted,
)
from muvera_adapters.frameworks.calling import Call, awaiting, blocking, check_options, run
from muvera_adapters.frameworks.langchain.opening import TokenEmbeddings, open_store
from muvera_adapters.frameworks.retrieval import (
    EmbedQuery,
    Retrieval,
)
from muvera_adapters.results import DocumentId, Hit, Hits, WriteReport
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.writing import interrupted
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

V = TypeVar("V", bound="MuveraVectorStore")

# text that may have been an integer id before LangChain converted it
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
# how far rounding of stored tokens can raise the mean of MaxSim above 1
_ROUNDING = 0.01
_PROBLEMS_SHOWN = 3


class MuveraVectorStore(VectorStore):
    """Two-stage search as a LangChain vector store, over any store of this library.

    Scores are MaxSim: the sum, over the query's tokens, of the largest dot product with a token of the document. Higher
    is better. With m query tokens, and all tokens of unit length, scores lie between -m and m.

    Ids are text. A document without an id gets a new UUID. A document whose id exists is replaced: its text, metadata
    and tokens. Without ``metadata_key``, the rest of it is dropped as well, including other vectors, because its whole
    payload is metadata. With ``metadata_key``, other payload keys and other vectors stay. ``add_documents(...,
    vectors=...)`` also writes other vectors. Metadata is stored as plain JSON values;
    :mod:`muvera_adapters.stores.payloads` lists them.

    An unknown argument of any method raises :class:`~muvera_adapters.errors.InvalidInput` with its name; other errors
    are those of the store.

    Args:
        store: any store of this library; with an asynchronous one, use the asynchronous methods.
        embed_documents: function from n texts to their token matrices, (n_i, token_dim) each; may be a coroutine
            function, for the asynchronous methods.
        embed_query: function from a query's text to its (m, token_dim) matrix; may be a coroutine function as well.
        text_key: payload key with a document's text.
        metadata_key: payload key with a dictionary of the metadata; None: the metadata is the rest of the payload.
        model: model of the embeddings, which must be the one stored with the collection, if there is one.

    Raises:
        ModelMismatch: the collection stores another model.

    Attributes:
        store: store with the documents.
    """

    def __init__(
        self,
        store: Any,
        embed_documents: Callable[[list[str]], Any],
        embed_query: EmbedQuery,
        *,
        text_key: str = "text",
        metadata_key: str | None = None,
        model: TokenModel | str | None = None,
    ) -> None:
        self.store = store
        self._embed_documents = embed_documents
        self._retrieval = Retrieval(store, embed_query, text_key, {}, model, metadata_key)
        self._layout = self._retrieval.layout
        self._database: Database | None = None

    @classmethod
    def from_texts(
        cls: type[V],
        texts: list[str],
        embedding: TokenEmbeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        store: Any = None,
        target: str | None = None,
        collection_name: str | None = None,
        encoder: Encoder | None = None,
        text_key: str = "text",
        metadata_key: str | None = None,
        model: TokenModel | str | None = None,
        batch_size: int = 64,
    ) -> V:
        """Writes texts to a given store, or to a collection that is created if it does not exist.

        Texts are added to an existing collection. Nothing in it is dropped, but documents whose ids are given again
        are replaced. ``from_documents`` takes the same arguments.

        Args:
            texts: texts of the documents.
            embedding: object with the functions ``embed_documents`` and ``embed_query``.
            metadatas: metadata of each text.
            ids: id of each text; None: a new UUID.
            store: store to write to, as for the class.
            target: database to connect to instead, as on the command line: ``"scheme:URL"`` or
                ``"scheme:DIRECTORY"``.
            collection_name: name of the collection there.
            encoder: encoder of a new collection, which an existing one must have. None: an ``FDEEncoder`` of the
                default size, or the one stored with the collection.
            text_key: as for the class.
            metadata_key: as for the class.
            model: as for the class; it is stored with a new collection.
            batch_size: number of texts to embed and write at a time.

        Raises:
            InvalidInput: not exactly one is given: ``store``, or ``target`` and ``collection_name``.
            CollectionExists: this library did not create the collection: adopt it, and pass the store.
            EncoderMismatch: the collection was filled with another encoder.
            ModelMismatch: the collection stores another model.
        """
        opened, database = run(open_store(blocking, texts, embedding, store, target, collection_name, encoder, model))
        made = cls._over(opened, database, embedding, text_key, metadata_key, model)
        made.add_texts(texts, metadatas, ids=ids, batch_size=batch_size)
        return made

    @classmethod
    async def afrom_texts(
        cls: type[V],
        texts: list[str],
        embedding: TokenEmbeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        store: Any = None,
        target: str | None = None,
        collection_name: str | None = None,
        encoder: Encoder | None = None,
        text_key: str = "text",
        metadata_key: str | None = None,
        model: TokenModel | str | None = None,
        batch_size: int = 64,
    ) -> V:
        """:meth:`from_texts` without blocking the event loop; the store may be asynchronous."""
        opened, database = await open_store(awaiting, texts, embedding, store, target, collection_name, encoder, model)
        made = cls._over(opened, database, embedding, text_key, metadata_key, model)
        await made.aadd_texts(texts, metadatas, ids=ids, batch_size=batch_size)
        return made

    @classmethod
    def _over(
        cls: type[V],
        store: Any,
        database: Database | None,
        embedding: TokenEmbeddings,
        text_key: str,
        metadata_key: str | None,
        model: TokenModel | str | None,
    ) -> V:
        made = cls(
            store,
            embedding.embed_documents,
            embedding.embed_query,
            text_key=text_key,
            metadata_key=metadata_key,
            model=model,
        )
        made._database = database
        return made

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> list[str]:
        """Embeds and writes texts; ``add_documents`` takes the same keyword arguments.

        Args:
            texts: n texts.
            metadatas: n dictionaries, or None.
            ids: n ids, or None; texts without an id get a new UUID.
            batch_size: number of texts to embed and write at a time.
            **options: keyword arguments of the store's ``upsert``; ``vectors`` has n entries for each name.

        Returns:
            The n ids.

        Raises:
            InvalidInput: numbers differ, an id is given twice, or a text or its metadata cannot be stored.
            Rejected: the database rejected single documents; the others are written. The message names the first.
            WriteInterrupted: the database stopped answering; ``report`` has the ids of what was not written.
        """
        return run(self._add(blocking, texts, metadatas, ids, batch_size, options))

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> list[str]:
        """:meth:`add_texts` without blocking the event loop."""
        return await self._add(awaiting, texts, metadatas, ids, batch_size, options)

    def delete(self, ids: Sequence[str] | None = None, **options: Any) -> bool:
        """Deletes documents; ids that do not exist are ignored.

        Args:
            ids: ids of the documents.
            **options: keyword arguments of the store's ``delete``: ``filter``, or ``everything=True``, without which
                ``delete()`` raises InvalidInput.

        Returns:
            True.
        """
        return run(self._delete(blocking, ids, options))

    async def adelete(self, ids: Sequence[str] | None = None, **options: Any) -> bool:
        """:meth:`delete` without blocking the event loop."""
        return await self._delete(awaiting, ids, options)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Returns documents in the order of ``ids``, without those that do not exist."""
        return run(self._get(blocking, ids))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """:meth:`get_by_ids` without blocking the event loop."""
        return await self._get(awaiting, ids)

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Finds the documents most similar to a query.

        Args:
            query: text of the query.
            k: maximum number of documents to return.
            **options: keyword arguments of the store's ``search`` except ``limit``.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """:meth:`similarity_search` without blocking the event loop."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """Like :meth:`similarity_search`, with the score (MaxSim) of each document."""
        return self._scored(self._search(query, k, options)[1])

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """:meth:`similarity_search_with_score` without blocking the event loop."""
        return self._scored((await self._asearch(query, k, options))[1])

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        return self._relevant(*self._search(query, k, options))

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        return self._relevant(*await self._asearch(query, k, options))

    def max_marginal_relevance_search(self, *args: Any, **kwargs: Any) -> list[Document]:
        """Not supported.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(
            "maximal marginal relevance compares documents by one vector each, which documents of token vectors do not "
            "have: use similarity_search, or search_type='similarity'"
        )

    async def amax_marginal_relevance_search(self, *args: Any, **kwargs: Any) -> list[Document]:
        """Not supported, like :meth:`max_marginal_relevance_search`."""
        return self.max_marginal_relevance_search()

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Returns LangChain's retriever over this vector store.

        Args:
            **kwargs: ``search_kwargs``, a dictionary of ``k`` and keyword arguments of the store's ``search``;
                ``search_type``: ``"similarity"``, or ``"similarity_score_threshold"`` with a ``score_threshold`` from 0
                to 1 in ``search_kwargs``; ``tags``, ``metadata`` and ``name`` as in LangChain.
        """
        unknown = [name for name in kwargs if name not in VectorStoreRetriever.model_fields]
        if unknown:
            raise InvalidInput(
                f"unknown argument {', '.join(unknown)}: arguments of a search belong in search_kwargs={{...}}"
            )
        return super().as_retriever(**kwargs)

    def close(self) -> None:
        """Closes the store, and the connection to the database if :meth:`from_texts` made it from a ``target``."""
        if self._database is not None:
            self._database.close()
        else:
            run(blocking(self.store.close))

    async def _add(
        self,
        call: Call,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None,
        ids: Sequence[str | None] | None,
        batch_size: int,
        options: Mapping[str, Any],
    ) -> list[str]:
        check_options(self.store.upsert, options, "upsert of the store", ("ids", "tokens", "payloads"))
        contents = list(texts)
        names = _ids(ids, len(contents))
        metadatas = [{}] * len(contents) if metadatas is None else metadatas
        if len(metadatas) != len(contents):
            raise InvalidInput(f"{len(contents)} texts, {len(metadatas)} metadatas: the numbers must be equal")
        pairs = zip(names, contents, metadatas, strict=True)
        payloads = [self._layout.write(name, text, metadata or {}) for name, text, metadata in pairs]
        stored = names if ids is None else await self._stored_ids(call, names)
        # without a metadata key, the whole payload is metadata: keys that are no longer given must be removed
        options = {"replace": self._layout.metadata_key is None, **options}
        vectors = options.pop("vectors", None)
        report = WriteReport()
        for i in range(0, len(contents), batch_size):
            batch = slice(i, i + batch_size)
            matrices = await call(self._embed_documents, contents[batch])
            others = vectors and {name: values[batch] for name, values in vectors.items()}
            try:
                written = await call(
                    self.store.upsert, stored[batch], matrices, payloads[batch], vectors=others, **options
                )
            except WriteInterrupted as error:
                cause = StoreUnavailable(str(error.__cause__ or error))
                advice = "add those of report.failed again, with their ids"
                raise interrupted(cause, report, stored, i, advice) from (error.__cause__ or error)
            report.failed.update(written.failed)
        if report.failed:
            shown = [f"{name!r}: {why}" for name, why in report.failed.items()][:_PROBLEMS_SHOWN]
            raise Rejected(f"{len(report.failed)} of {len(names)} documents were not written: {'; '.join(shown)}")
        return names

    async def _delete(self, call: Call, ids: Sequence[str] | None, options: Mapping[str, Any]) -> bool:
        check_options(self.store.delete, options, "delete of the store", ("ids",))
        await call(self.store.delete, None if ids is None else await self._stored_ids(call, ids), **options)
        return True

    async def _get(self, call: Call, ids: Sequence[str]) -> list[Document]:
        found = await call(self.store.get, await self._stored_ids(call, ids))
        return [self._document(each.id, each.payload) for each in found if each is not None]

    async def _stored_ids(self, call: Call, ids: Sequence[str]) -> list[DocumentId]:
        """Ids as the store has them: LangChain turns integers of an adopted collection into text."""
        digits = [each for each in ids if isinstance(each, str) and _INTEGER.fullmatch(each)]
        found = await call(self.store.get, digits) if digits else []
        absent = [each for each, document in zip(digits, found, strict=True) if document is None]
        found = await call(self.store.get, [int(each) for each in absent]) if absent else []
        numbers = {each for each, document in zip(absent, found, strict=True) if document is not None}
        return [int(each) if each in numbers else each for each in ids]

    def _search(self, query: str, k: int, options: Mapping[str, Any]) -> tuple[ArrayLike, Hits]:
        return run(self._retrieval.hits(blocking, query, k, options))

    async def _asearch(self, query: str, k: int, options: Mapping[str, Any]) -> tuple[ArrayLike, Hits]:
        return await self._retrieval.hits(awaiting, query, k, options)

    def _document(self, document_id: DocumentId, payload: Mapping[str, Any] | None) -> Document:
        text, metadata = self._layout.read(document_id, payload)
        return Document(id=str(document_id), page_content=text, metadata=metadata)

    def _scored(self, hits: Iterable[Hit]) -> list[tuple[Document, float]]:
        return [(self._document(hit.id, hit.payload), hit.score) for hit in hits]

    def _relevant(self, tokens: ArrayLike, hits: Hits) -> list[tuple[Document, float]]:
        """Documents with the mean of MaxSim over the query's tokens, at least 0."""
        count = len(tokens)
        scored = []
        for hit in hits:
            mean = hit.score / count
            if not hit.reranked:
                raise Unsupported(
                    f"document {hit.id!r} was not scored by MaxSim, from which relevance scores are made: use "
                    "similarity_search_with_score"
                )
            if mean > 1 + _ROUNDING:
                raise Unsupported(
                    f"MaxSim of document {hit.id!r} is {mean:.3g} a token of the query, above 1: relevance scores need "
                    "tokens of unit length; use similarity_search_with_score"
                )
            scored.append((self._document(hit.id, hit.payload), min(max(mean, 0.0), 1.0)))
        return scored


def _ids(given: Sequence[str | None] | None, count: int) -> list[str]:
    """Ids of texts, with new ones for those without."""
    if given is not None and len(given) != count:
        raise InvalidInput(f"{count} texts, {len(given)} ids: the numbers must be equal")
    ids = [str(uuid.uuid4()) if each is None else each for each in given or [None] * count]
    places: dict[str, int] = {}
    for i, each in enumerate(ids):
        if places.setdefault(each, i) != i:
            raise InvalidInput(f"id {each!r} is given twice, at positions {places[each]} and {i}")
    return ids
