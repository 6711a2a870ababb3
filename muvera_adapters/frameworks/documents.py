"""Shared by the document stores of all frameworks: writes and reads texts with metadata in a store of this library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

from muvera_adapters.databases import Database, parse_target
from muvera_adapters.errors import InvalidInput, Rejected, Unsupported
from muvera_adapters.frameworks.calling import Call
from muvera_adapters.frameworks.payloads import PayloadLayout
from muvera_adapters.frameworks.retrieval import ID, SCORE, filter_of
from muvera_adapters.results import Document, DocumentId
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.token_model import TokenModel

#: function of n texts that returns their n token matrices, each (n_i, token_dim), in any form that ``upsert`` takes
EmbedDocuments: TypeAlias = Callable[[list[str]], Any] | Callable[[list[str]], Awaitable[Any]]

# number of documents whose tokens are in memory at a time
_PAGE = 100


class StoreAt:
    """A collection named by its target, which is opened on first use, by the process that uses it.

    Secrets are read from the environment variable of the database, as on the command line.

    Args:
        target: target of the database, as on the command line; it cannot contain secrets.
        collection: name of the collection.

    Raises:
        WrongUsage: ``target`` is not a valid target.
    """

    def __init__(self, target: str, collection: str) -> None:
        parse_target(target)
        self.target = target
        self.collection = collection
        self._exits = ExitStack()
        self._opened: Any = None

    def open(self, model: TokenModel | str | None = None) -> Any:
        """Returns the store, the same one at every call; arguments and errors are those of ``Database.open``."""
        if self._opened is None:
            self._opened = self._exits.enter_context(Database(self.target)).open(self.collection, model=model)
        return self._opened

    def close(self) -> None:
        """Closes the store and its client, if they are open; the next use opens them again."""
        self._opened = None
        self._exits.close()


@dataclass(frozen=True)
class Documents:
    """Writes, reads and deletes documents; each coroutine takes the :class:`Call` for its calls.

    Attributes:
        store: any store of this library.
        embed_documents: function from n texts to n token matrices; None: documents cannot be written.
        text_key: payload key of a document's text.
    """

    store: Any
    embed_documents: EmbedDocuments | None
    text_key: str = "text"

    async def write(
        self,
        call: Call,
        ids: Sequence[DocumentId],
        texts: Sequence[str],
        payloads: Sequence[Mapping[str, Any]],
        embedded: Sequence[str] | None = None,
    ) -> None:
        """Writes n documents; an existing one is replaced as a whole.

        Args:
            call: how functions are called.
            ids: n ids.
            texts: n texts to store.
            payloads: n payloads, without the texts; keys that a retriever adds to metadata are left out.
            embedded: n texts to embed; None: ``texts``.

        Raises:
            InvalidInput: ``embed_documents`` is missing, or a payload has the key of the text.
            Rejected: the database rejected documents; the message names them, and the others are written.
        """
        if not ids:
            return
        if self.embed_documents is None:
            raise InvalidInput("writing documents needs embed_documents=, which was not given")
        layout = PayloadLayout(self.text_key)
        own = ({key: value for key, value in payload.items() if key not in (ID, SCORE)} for payload in payloads)
        whole = [layout.write(*each) for each in zip(ids, texts, own, strict=True)]
        tokens = await call(self.embed_documents, list(texts if embedded is None else embedded))
        await self.upsert(call, ids, tokens, whole, replace=True)

    async def upsert(
        self, call: Call, ids: Sequence[DocumentId], tokens: Any, payloads: Any, *, replace: bool = False
    ) -> None:
        """Writes n documents with their tokens.

        Raises:
            Rejected: the database rejected documents; the message names them, and the others are written.
        """
        report = await call(self.store.upsert, ids, tokens, payloads, replace=replace)
        if report.failed:
            some = "; ".join(f"{i!r}: {reason}" for i, reason in list(report.failed.items())[:3])
            raise Rejected(f"{len(report.failed)} of {len(ids)} documents were not written ({some}); the others were")

    async def read(self, call: Call, condition: Condition | None) -> list[Document]:
        """All documents that pass a condition; None: all documents."""
        found = await call(self.store.scroll, filter=await filter_of(call, self.store, condition))
        return list(found)

    async def delete(self, call: Call, condition: Condition) -> int:
        """Deletes the documents that pass a condition; returns their number."""
        ids = [document.id for document in await self.read(call, condition)]
        if ids:
            await call(self.store.delete, ids)
        return len(ids)

    async def update(self, call: Call, condition: Condition, metadata: Mapping[str, Any]) -> int:
        """Sets payload keys of all documents that pass a condition; returns their number.

        Raises:
            Unsupported: a document has no stored tokens, which are needed to write it again.
        """
        ids = [document.id for document in await self.read(call, condition)]
        for i in range(0, len(ids), _PAGE):
            found = await call(self.store.get, ids[i : i + _PAGE], with_tokens=True)
            there = [document for document in found if document is not None]
            for document in there:
                if document.tokens is None:
                    raise Unsupported(f"document {document.id!r} has no stored tokens, so it cannot be updated")
            some = [document.id for document in there]
            await self.upsert(call, some, [document.tokens for document in there], [dict(metadata)] * len(some))
        return len(ids)
