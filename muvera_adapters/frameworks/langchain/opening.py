"""Opens the store that ``from_texts`` writes to: one of the user, or a collection that is opened or created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from muvera_adapters.databases import Database
from muvera_adapters.errors import CollectionNotFound, InvalidInput
from muvera_adapters.frameworks.calling import Call
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import Encoder, FDEConfig, FDEEncoder


class TokenEmbeddings(Protocol):
    """Interface of the argument ``embedding`` of ``from_texts`` and ``from_documents``.

    The methods have the names of LangChain's ``Embeddings`` and return a matrix for each text. They may be coroutine
    functions, for ``afrom_texts`` and ``afrom_documents``.
    """

    def embed_documents(self, texts: list[str]) -> Any:
        """Token matrices of n texts, (n_i, token_dim) each."""
        ...

    def embed_query(self, text: str) -> Any:
        """Token matrix of a query, (m, token_dim)."""
        ...


async def open_store(
    call: Call,
    texts: Sequence[str],
    embedding: TokenEmbeddings,
    store: Any,
    target: str | None,
    name: str | None,
    encoder: Encoder | None,
    model: TokenModel | str | None,
) -> tuple[Any, Database | None]:
    """The store that ``from_texts`` writes to, and the database that must be closed with it.

    Args:
        call: how functions are called.
        texts: texts that will be written.
        embedding: embedding of the texts; without an encoder, it tells the width of tokens, from the first text.
        store: store of the user, or None.
        target: target of the database, or None.
        name: name of the collection in the database, or None.
        encoder: encoder of the collection, or None.
        model: model of the embedding, or None.

    Raises:
        InvalidInput: not exactly one is given: a store, or a database and a collection.
    """
    if store is not None and (target, name, encoder) == (None, None, None):
        return store, None
    if store is not None or target is None or name is None:
        raise InvalidInput("give either store, or target and collection_name with or without an encoder")
    database = Database(target)
    try:
        try:
            return await call(database.open, name, encoder, model=model), database
        except CollectionNotFound:
            if encoder is None:
                if not texts:
                    raise InvalidInput(
                        f"without texts, the width of tokens is unknown: give the encoder of {name}"
                    ) from None
                encoder = FDEEncoder(FDEConfig(dim=_width(await call(embedding.embed_documents, list(texts[:1])))))
            named = {} if model is None else {"model": model}
            return await call(database.create, name, encoder, **named), database
    except BaseException:
        database.close()
        raise


def _width(matrices: Any) -> int:
    """Width of the tokens of the first text."""
    try:
        return len(matrices[0][0])
    except (TypeError, IndexError):
        raise InvalidInput("embed_documents must give a matrix (n, token_dim) for each text, one row a token") from None
