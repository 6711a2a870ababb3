"""What the retrievers of all frameworks share: a query's text in, texts with metadata out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.frameworks.calling import Call, awaiting, blocking, check_options, run
from muvera_adapters.results import DocumentId, Hits
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core.tokens import ArrayLike

#: a query's text -> its (m, token_dim) matrix
EmbedQuery: TypeAlias = Callable[[str], ArrayLike] | Callable[[str], Awaitable[ArrayLike]]

ID, SCORE = "muvera_id", "muvera_score"

# arguments of a store's search that are no options of a retriever
_GIVEN = ("query_tokens", "limit")


class Text(NamedTuple):
    """A document that was found.

    Attributes:
        id: as it was given to ``upsert``.
        text: ``payload[text_key]``.
        score: of the hit.
        metadata: the rest of the payload, with the id under ``muvera_id`` and the score under ``muvera_score``.
    """

    id: DocumentId
    text: str
    score: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Retrieval:
    """Searches a store by text.

    Args:
        store: any store of this library. An asynchronous one serves :meth:`asearch` only.
        embed_query: a query's text -> its (m, token_dim) matrix; may be a coroutine function, for :meth:`asearch`.
        text_key: payload key with a document's text.
        options: keyword arguments of the store's ``search`` (``prefetch``, ``filter``, ``rerank``, ...).
        model: model of ``embed_query``; None: it is not compared with the one that the store's collection keeps.

    Raises:
        ModelMismatch: the collection keeps another model.
    """

    store: Any
    embed_query: EmbedQuery
    text_key: str = "text"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: TokenModel | str | None = None

    def __post_init__(self) -> None:
        check_model(self.store.name, self.store.model, self.model)
        check_options(self.store.search, self.options, "search of the store", _GIVEN)

    def search(
        self, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None = None
    ) -> list[Text]:
        """The ``limit`` best documents; ``options`` go before those of the constructor.

        Args:
            query: text of the query.
            limit: maximum number of documents.
            options: keyword arguments of the store's ``search``.
            condition: condition that documents pass, instead of the option ``filter``.

        Raises:
            InvalidInput: the store or ``embed_query`` is asynchronous, an option is unknown, there are a condition and
                a filter, or a document has no text.
            Unsupported: the database's filters cannot express the condition.
        """
        for name, function in (("store", self.store.search), ("embed_query", self.embed_query)):
            if inspect.iscoroutinefunction(function):
                raise InvalidInput(f"{name} is asynchronous: use the retriever's asynchronous method")
        return run(self._search(blocking, query, limit, options, condition))

    async def asearch(
        self, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None = None
    ) -> list[Text]:
        """:meth:`search` without blocking the event loop; what is synchronous runs in a thread."""
        return await self._search(awaiting, query, limit, options, condition)

    async def _search(
        self, call: Call, query: str, limit: int, options: Mapping[str, Any], condition: Condition | None
    ) -> list[Text]:
        chosen = {**self.options, **options}
        check_options(self.store.search, chosen, "search of the store", _GIVEN)
        if condition is not None:
            if chosen.get("filter") is not None:
                raise InvalidInput("pass a condition of the framework, or filter= of the store's search, not both")
            chosen["filter"] = await filter_of(call, self.store, condition)
        tokens = await call(self.embed_query, query)
        return self._texts(await call(self.store.search, tokens, limit=limit, **chosen))

    def _texts(self, hits: Hits) -> list[Text]:
        texts = []
        for hit in hits:
            payload = dict(hit.payload or {})
            text = payload.pop(self.text_key, None)
            if not isinstance(text, str):
                keys = ", ".join(map(str, payload)) or "none"
                raise InvalidInput(
                    f"document {hit.id!r} has no text under {self.text_key!r} in its payload (keys: {keys}); "
                    "set text_key, or write the text with upsert(payloads=...)"
                )
            texts.append(Text(hit.id, text, hit.score, {**payload, ID: hit.id, SCORE: hit.score}))
        return texts


async def filter_of(call: Call, store: Any, condition: Condition | None) -> Any:
    """A store's own filter of a condition; None for None.

    Raises:
        Unsupported: the database's filters cannot express it, or another distribution's store makes none.
    """
    if condition is None:
        return None
    if not hasattr(store, "filter_of"):
        raise Unsupported(f"{type(store).__name__} has no filter_of(condition): pass its own filters by search_options")
    return await call(store.filter_of, condition)
