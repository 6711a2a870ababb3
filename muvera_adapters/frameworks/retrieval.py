"""What the retrievers of all frameworks share: a query's text in, texts with metadata out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

from muvera_adapters.errors import InvalidInput
from muvera_adapters.frameworks.payloads import PayloadLayout
from muvera_adapters.results import DocumentId, Hit, Hits
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core.tokens import ArrayLike

T = TypeVar("T")

#: a query's text -> its (m, token_dim) matrix
EmbedQuery: TypeAlias = Callable[[str], ArrayLike] | Callable[[str], Awaitable[ArrayLike]]
#: how a function is called: ``await call(function, *args, **kwargs)``
Call: TypeAlias = Callable[..., Awaitable[Any]]

ID, SCORE = "muvera_id", "muvera_score"

# what retrievers themselves pass to ``search``
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
        store: any store of this library. An asynchronous one serves :meth:`asearch` only.
        embed_query: a query's text -> its (m, token_dim) matrix; may be a coroutine function, for :meth:`asearch`.
        text_key: payload key with a document's text.
        options: keyword arguments of the store's ``search`` (``prefetch``, ``filter``, ``rerank``, ...).
        model: model of ``embed_query``; None: it is not compared with the one that the store's collection keeps.
        metadata_key: payload key with a document's metadata; None: the metadata is the rest of the payload.

    Raises:
        InvalidInput: ``options`` has a name that is not an argument of the store's ``search``.
        ModelMismatch: the collection keeps another model.
    """

    store: Any
    embed_query: EmbedQuery
    text_key: str = "text"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: TokenModel | str | None = None
    metadata_key: str | None = None

    def __post_init__(self) -> None:
        check_model(self.store.name, self.store.model, self.model)
        check_arguments(self.store.search, self.options, _OWN)

    @property
    def layout(self) -> PayloadLayout:
        """Payload keys of the text and the metadata."""
        return PayloadLayout(self.text_key, self.metadata_key)

    def search(self, query: str, limit: int, options: Mapping[str, Any]) -> list[Text]:
        """The ``limit`` best documents; ``options`` go before those of the constructor.

        Raises:
            InvalidInput: the store or ``embed_query`` is asynchronous, a document has no text, or ``options`` has a
                name that is not an argument of the store's ``search``.
        """
        check_synchronous(store=self.store.search, embed_query=self.embed_query)
        return finished(self._search(directly, query, limit, options))

    async def asearch(self, query: str, limit: int, options: Mapping[str, Any]) -> list[Text]:
        """:meth:`search` without blocking the event loop; what is synchronous runs in a thread."""
        return await self._search(in_thread, query, limit, options)

    async def hits(self, call: Call, query: str, limit: int, options: Mapping[str, Any]) -> tuple[ArrayLike, Hits]:
        """The query's (m, token_dim) matrix, and what the store finds with it."""
        check_arguments(self.store.search, options, _OWN)
        tokens = await call(self.embed_query, query)
        return tokens, await call(self.store.search, tokens, limit=limit, **{**self.options, **options})

    async def _search(self, call: Call, query: str, limit: int, options: Mapping[str, Any]) -> list[Text]:
        _, hits = await self.hits(call, query, limit, options)
        return [self._text(hit) for hit in hits]

    def _text(self, hit: Hit) -> Text:
        text, metadata = self.layout.read(hit.id, hit.payload)
        return Text(hit.id, text, hit.score, {**metadata, ID: hit.id, SCORE: hit.score})


def check_arguments(function: Callable[..., Any], names: Iterable[str], own: Collection[str] = ()) -> None:
    """Raises InvalidInput for names that are not arguments of ``function``, and for those that the caller passes.

    Args:
        function: method of a store.
        names: names of keyword arguments.
        own: names of arguments that cannot be given because the caller passes them.
    """
    takes = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        takes = {**takes, **dict.fromkeys(names)}  # type: ignore[assignment]
    known = [name for name in takes if name not in own]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"unknown argument {', '.join(unknown)}: {function.__qualname__} takes {', '.join(known)}")


def check_synchronous(**functions: Callable[..., Any]) -> None:
    """Raises InvalidInput for functions, by the name of what they belong to, that are asynchronous."""
    for name, function in functions.items():
        if inspect.iscoroutinefunction(function):
            raise InvalidInput(f"{name} is asynchronous: use the asynchronous method")


async def directly(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls a synchronous function where it stands."""
    return function(*args, **kwargs)


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Awaits a coroutine function; calls any other in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that calls everything :func:`directly`, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for something that is not there yet")
