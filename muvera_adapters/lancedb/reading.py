"""Operations that read documents and describe a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.lancedb import requests as r
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.database import LANCEDB
from muvera_adapters.lancedb.expressions import checked, column
from muvera_adapters.lancedb.requests import FILTER_KEYS, READ_BYTES, TOKENS_AT_ONCE, Index, Row
from muvera_adapters.lancedb.schema import check_current
from muvera_adapters.results import Document, DocumentId, StoreInfo
from muvera_adapters.stores.checks import need_tokens
from muvera_adapters.stores.keys import Key, from_key, to_key

_SAMPLE = 64
#: bits of one dimension in the codes of an index of someone else, with the defaults of its type
_CODES = {"IvfRq": 1.0, "IvfSq": 8.0, "IvfHnswSq": 8.0, "IvfPq": 0.5, "IvfHnswPq": 0.5}
#: smallest number of FDEs that an index is built of; fewer are compared exactly in milliseconds
INDEX_FROM = 1_000

#: where a scroll goes on: with these keys
Cursor = list[Key] | None


async def sample_fdes(collection: Collection, size: int) -> list[npt.NDArray[np.float32]]:
    """At most ``size`` stored FDEs (dim,)."""
    rows = await r.page(collection, size, [collection.fde], f"{column(collection.fde)} IS NOT NULL")
    return [row.fde for row in rows if row.fde is not None]


def token_columns(collection: Collection, wanted: bool) -> list[str]:
    """The column of the tokens, if they are wanted.

    Raises:
        InvalidInput: tokens are wanted and the table stores none.
    """
    return [need_tokens(collection)] if wanted else []


async def get(collection: Collection, ids: Sequence[DocumentId], with_tokens: bool) -> list[Document | None]:
    """Documents in the order of the ids, None where there is none."""
    columns = [*collection.payload_columns, *token_columns(collection, with_tokens)]
    keys = [to_key(document_id, i, collection.keys) for i, document_id in enumerate(ids)]
    found = {row.key: row for row in await fetch_all(collection, keys, columns)}
    return [document(collection, found[key]) if key in found else None for key in keys]


def document_id(collection: Collection, row: Mapping[str, Any]) -> DocumentId:
    """The user's id of a row that somebody else read.

    Raises:
        InvalidInput: it has no key.
    """
    key = row.get(collection.key)
    if key is None:
        raise InvalidInput(f"no column {collection.key!r} in {sorted(map(str, row))}: select it too")
    return from_key(key, collection.keys)


async def refresh(collection: Collection) -> None:
    """Makes the newest version of the table the one that is read, unless its FDEs are gone or of another encoder."""
    await r.refresh(collection)
    check_current(collection, await r.schema(collection.table))


async def ping(collection: Collection) -> None:
    """Looks for the newest version, and for a document that need not exist."""
    await r.refresh(collection)
    await r.fetch(collection, [0 if collection.keys == "integer" else "0"], ())


async def fetch_all(collection: Collection, keys: Sequence[Key], columns: Sequence[str]) -> list[Row]:
    """Documents of any number of keys; those that are not there are left out."""
    rows: list[Row] = []
    size = TOKENS_AT_ONCE if {collection.tokens, collection.fde} & set(columns) else FILTER_KEYS
    for i in range(0, len(keys), size):
        rows += await r.fetch(collection, keys[i : i + size], columns)
    return rows


async def next_keys(collection: Collection, chosen: str, limit: int, cursor: Cursor) -> tuple[list[Key], Cursor]:
    """The keys of the next page, and those of the pages after it (None: there are none)."""
    keys = await r.all_keys(collection, chosen) if cursor is None else cursor
    return keys[:limit], keys[limit:] or None


async def one_page(
    collection: Collection, chosen: str, limit: int, cursor: Cursor, with_tokens: bool
) -> tuple[list[Document], Cursor]:
    """One page of all documents, and where the next begins (None: there is none)."""
    if limit < 1:
        raise InvalidInput(f"page_size must be at least 1, got {limit}")
    columns = [*collection.payload_columns, *token_columns(collection, with_tokens)]
    keys, following = await next_keys(collection, chosen, limit, cursor)
    found = {row.key: row for row in await fetch_all(collection, keys, columns)}
    return [document(collection, found[key]) for key in keys if key in found], following


async def count(collection: Collection, chosen: str | None) -> int:
    """The exact number of documents that pass a user's filter; None: of all."""
    return await r.count(collection, checked(chosen))


async def info(collection: Collection) -> StoreInfo:
    """State and sizes; the size of tokens is estimated from a sample."""
    total = await r.count(collection)
    lacking = await r.count(collection, f"{column(collection.fde)} IS NULL") if collection.fde_exists else total
    lacking = lacking if collection.has_fde else total
    with_tokens, token_bytes = await _tokens(collection, total)
    index = await fde_index(collection)
    with_fde = total - lacking
    without_index = total if index is None else index.unindexed
    return StoreInfo(
        name=collection.name,
        engine=collection.engine,
        documents=total,
        without_fde=lacking,
        without_tokens=total - with_tokens,
        segments=None,
        indexed=not is_waiting(collection, index, with_fde),
        fingerprint=collection.encoder.fingerprint,
        fde_dim=collection.encoder.dim,
        fde_bytes=collection.fde_type.bit_width // 8 * with_fde * collection.encoder.dim,
        code_bytes=int(with_fde * collection.encoder.dim * _bits(collection, index) / 8),
        token_bytes=token_bytes,
        unindexed=without_index,
        model=collection.model,
        token_error=collection.token_error,
    )


async def fde_index(collection: Collection) -> Index | None:
    """The index of the FDEs, None where there is none."""
    found = [each for each in await r.indexes(collection) if each.columns == (collection.fde,)]
    return found[0] if found else None


def is_waiting(collection: Collection, index: Index | None, with_fde: int) -> bool:
    """Whether documents wait for an index that ``wait_indexed`` would build or complete."""
    if index is not None:
        return index.unindexed > 0
    return collection.quantization is not None and with_fde >= INDEX_FROM


def lacks_tokens(collection: Collection) -> str:
    """A filter for documents without tokens."""
    name = column(str(collection.tokens))
    return f"{name} IS NULL OR array_length({name}) = 0"


def document(collection: Collection, row: Row) -> Document:
    """The document of a row."""
    return Document(from_key(row.key, collection.keys), row.payload, row.tokens)


async def _tokens(collection: Collection, total: int) -> tuple[int, int]:
    """The number of documents that have tokens, of a large table by a sample, and the bytes of all tokens."""
    if collection.tokens is None:
        return 0, 0
    rows = await r.page(collection, _SAMPLE, [collection.tokens])
    sizes = [row.tokens.size for row in rows if row.tokens is not None]
    each = float(np.mean(sizes)) * collection.token_type.bit_width / 8 if sizes else 0.0
    if each * total > READ_BYTES:
        with_tokens = round(total * len(sizes) / len(rows))
    else:
        with_tokens = total - await r.count(collection, lacks_tokens(collection))
    return with_tokens, int(each * with_tokens)


def _bits(collection: Collection, index: Index | None) -> float:
    """Bits of one dimension in the codes that FDEs have, or get as soon as they are indexed."""
    if collection.quantization is not None:
        return LANCEDB.quantizations[collection.quantization]
    return 0.0 if index is None else _CODES.get(index.kind, 0.0)
