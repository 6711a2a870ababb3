"""What the retrievers of all frameworks share: a query's text in, texts with metadata out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId, Hits
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core.tokens import ArrayLike

#: a query's text -> its (m, token_dim) matrix
EmbedQuery: TypeAlias = Callable[[str], ArrayLike] | Callable[[str], Awaitable[ArrayLike]]

ID, SCORE = "muvera_id", "muvera_score"


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

    def search(self, query: str, limit: int, options: Mapping[str, Any]) -> list[Text]:
        """The ``limit`` best documents; ``options`` go before those of the constructor.

        Raises:
            InvalidInput: the store or ``embed_query`` is asynchronous, or a document has no text.
        """
        for name, function in (("store", self.store.search), ("embed_query", self.embed_query)):
            if inspect.iscoroutinefunction(function):
                raise InvalidInput(f"{name} is asynchronous: use the retriever's asynchronous method")
        tokens = self.embed_query(query)
        return self._texts(self.store.search(tokens, limit=limit, **{**self.options, **options}))

    async def asearch(self, query: str, limit: int, options: Mapping[str, Any]) -> list[Text]:
        """:meth:`search` without blocking the event loop; what is synchronous runs in a thread."""
        tokens = await _called(self.embed_query, query)
        return self._texts(await _called(self.store.search, tokens, limit=limit, **{**self.options, **options}))

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


async def _called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
