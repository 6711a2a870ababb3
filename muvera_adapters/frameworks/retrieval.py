"""Shared by the retrievers of all frameworks: searches by a query's text, and returns texts with metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.frameworks.calling import Call, awaiting, blocking, check_options, run
from muvera_adapters.frameworks.payloads import PayloadLayout
from muvera_adapters.results import DocumentId, Hit, Hits
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core.tokens import ArrayLike

#: function from a query's text to its (m, token_dim) matrix
EmbedQuery: TypeAlias = Callable[[str], ArrayLike] | Callable[[str], Awaitable[ArrayLike]]

ID, SCORE = "muvera_id", "muvera_score"

# arguments of ``search`` that retrievers pass themselves
_OWN = ("query_tokens", "limit")


class Text(NamedTuple):
    """A document that was found.

    Attributes:
        id: id as it was given to ``upsert``.
        text: ``payload[text_key]``.
        score: score of the hit.
        metadata: metadata of the document, with the id under ``muvera_id`` and the score under ``muvera_score``.
    """

    id: DocumentId
    text: str
    score: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Retrieval:
    """Searches a store by text.

    Args:
        store: any store of this library. An asynchronous one works only with :meth:`asearch`.
        embed_query: function from a query's text to its (m, token_dim) matrix; may be a coroutine function, for
            :meth:`asearch`.
        text_key: payload key with a document's text.
        options: keyword arguments of the store's ``search`` (``prefetch``, ``filter``, ``rerank``, ...).
        model: model of ``embed_query``; it is compared with the one stored with the collection. None: not compared.
        metadata_key: payload key with a document's metadata; None: the metadata is the rest of the payload.

    Raises:
        InvalidInput: ``options`` has a name that is not an argument of the store's ``search``.
        ModelMismatch: the collection stores another model.
    """

    store: Any
    embed_query: EmbedQuery
    text_key: str = "text"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: TokenModel | str | None = None
    metadata_key: str | None = None

    def __post_init__(self) -> None:
        check_model(self.store.name, self.store.model, self.model)
        check_options(self.store.search, self.options, "search of the store", _OWN)

    @property
    def layout(self) -> PayloadLayout:
        """Payload keys of the text and the metadata."""
        return PayloadLayout(self.text_key, self.metadata_key)

    def search(
        self, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None = None
    ) -> list[Text]:
        """Finds the ``limit`` best documents; ``options`` override those of the constructor.

        Args:
            query: text of the query.
            limit: maximum number of documents.
            options: keyword arguments of the store's ``search``.
            condition: condition that documents pass, instead of the option ``filter``.

        Raises:
            InvalidInput: the store or ``embed_query`` is asynchronous, an option is unknown, both a condition and a
                filter are given, or a document has no text.
            Unsupported: the database's filters cannot express the condition.
        """
        return run(self._search(blocking, query, limit, options, condition))

    async def asearch(
        self, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None = None
    ) -> list[Text]:
        """:meth:`search` without blocking the event loop; synchronous functions run in a thread."""
        return await self._search(awaiting, query, limit, options, condition)

    async def hits(
        self, call: Call, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None = None
    ) -> tuple[ArrayLike, Hits]:
        """The query's (m, token_dim) matrix, and the hits of the store."""
        chosen = {**self.options, **options}
        check_options(self.store.search, chosen, "search of the store", _OWN)
        if condition is not None:
            if chosen.get("filter") is not None:
                raise InvalidInput("pass a condition of the framework, or filter= of the store's search, not both")
            chosen["filter"] = await filter_of(call, self.store, condition)
        tokens = await call(self.embed_query, query)
        return tokens, await call(self.store.search, tokens, limit=limit, **chosen)

    async def _search(
        self, call: Call, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None
    ) -> list[Text]:
        _, hits = await self.hits(call, query, limit, options, condition)
        return [self._text(hit) for hit in hits]

    def _text(self, hit: Hit) -> Text:
        text, metadata = self.layout.read(hit.id, hit.payload)
        return Text(hit.id, text, hit.score, {**metadata, ID: hit.id, SCORE: hit.score})


async def filter_of(call: Call, store: Any, condition: Condition | None) -> Any:
    """Translates a condition into the store's own filter; None for None.

    Raises:
        Unsupported: the database's filters cannot express it, or the store, of another distribution, has no
            ``filter_of``.
    """
    if condition is None:
        return None
    if not hasattr(store, "filter_of"):
        raise Unsupported(f"{type(store).__name__} has no filter_of(condition): pass its own filters by search_options")
    return await call(store.filter_of, condition)
