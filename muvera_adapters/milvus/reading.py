"""Operations that read documents and describe a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pymilvus import DataType

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.milvus import requests
from muvera_adapters.milvus.blobs import token_bytes
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import literal
from muvera_adapters.milvus.ids import Key, from_key, to_key
from muvera_adapters.milvus.requests import FILTER_KEYS, MAX_RESULTS, READ_BYTES, Description, Row
from muvera_adapters.results import Document, DocumentId, StoreInfo
from muvera_adapters.stores.checks import need_tokens

_SAMPLE = 32
# number of documents whose struct arrays info() looks at; the share among them is extrapolated to all
_LOOK_AT = 1_000
# bytes per dimension of the codes in an index
_CODES = {"HNSW_SQ": 1.0, "IVF_SQ8": 1.0, "IVF_RABITQ": 0.125, "SCANN": 0.5}
_WIDTH = {DataType.FLOAT_VECTOR: 4, DataType.FLOAT16_VECTOR: 2, DataType.BFLOAT16_VECTOR: 2}

#: where a scroll continues: after this key or, in milvus-lite, with these keys
Cursor: TypeAlias = Key | list[Key] | None


async def sample_fdes(collection: Collection, size: int) -> list[npt.NDArray[np.float32]]:
    """At most ``size`` stored FDEs (dim,), the first in the order of keys."""
    chosen = marked_by(collection) if collection.marker else ""
    rows = await requests.page(collection, size, None, [collection.fde], chosen)
    return [row.fde for row in rows if row.fde is not None]


def token_fields(collection: Collection, wanted: bool) -> list[str]:
    """Names of the fields to request.

    Raises:
        InvalidInput: tokens are wanted, and the collection stores none.
    """
    if not wanted:
        return []
    need_tokens(collection)
    return collection.token_fields


async def get(collection: Collection, ids: Sequence[DocumentId], with_tokens: bool) -> list[Document | None]:
    """Documents in the order of the ids; None for an id that does not exist."""
    fields = [*collection.payload_fields, *token_fields(collection, with_tokens)]
    keys = [to_key(document_id, i, collection.keys, collection.max_key) for i, document_id in enumerate(ids)]
    rows = await fetch_all(collection, keys, fields, strong=True)
    found = {row.key: row for row in rows}
    return [_document(collection, found[key]) if key in found else None for key in keys]


def document_id(collection: Collection, point: Mapping[str, Any]) -> DocumentId:
    """The user's id of a hit or row that the client returned.

    Raises:
        InvalidInput: ``point`` has no primary key.
    """
    entity = point.get("entity") or {}
    for key in (point.get(collection.key), entity.get(collection.key), point.get("id")):
        if key is not None:
            return from_key(key, collection.keys)
    raise InvalidInput(f"no primary key {collection.key!r} in {sorted(map(str, point))}: ask for it in output_fields")


async def ping(collection: Collection) -> None:
    """Reads a document that need not exist; the collection must be loaded."""
    await requests.fetch(collection, [0 if collection.keys == "integer" else "0"], ())


async def fetch_all(
    collection: Collection, keys: Sequence[Key], fields: Sequence[str], *, strong: bool = False
) -> list[Row]:
    """Documents of any number of keys, in requests whose replies fit into a message."""
    rows: list[Row] = []
    tokens = collection.storage != "none" and set(collection.token_fields) & set(fields)
    size = (await fitting(collection)) if tokens else FILTER_KEYS
    for i in range(0, len(keys), size):
        found = await requests.fetch(collection, keys[i : i + size], fields, strong=strong)
        remember(collection, found)
        rows += found
    return rows


async def fitting(collection: Collection) -> int:
    """Number of documents whose tokens safely fit into one reply, by the largest one read so far."""
    if not collection.seen.token_bytes:
        remember(collection, await requests.page(collection, 16, None, collection.token_fields))
    # twice the largest seen, as others may be larger
    each = 2 * (collection.seen.token_bytes or 4 * 300 * collection.encoder.token_dim)
    return max(1, min(FILTER_KEYS, READ_BYTES // each))


def remember(collection: Collection, rows: Sequence[Row]) -> None:
    """Records the size on the wire of the largest token matrix."""
    floats = max((row.tokens.size for row in rows if row.tokens is not None), default=0)
    seen = collection.seen
    seen.token_bytes = max(seen.token_bytes, int(floats * _bytes_per_float(collection)))


async def next_keys(collection: Collection, chosen: str, limit: int, cursor: Cursor) -> tuple[list[Key], Cursor]:
    """The keys of the next page, and the start of the page after it (None: there is none)."""
    if collection.server.lite:
        keys = cursor if isinstance(cursor, list) else (await requests.all_keys(collection, chosen))
        return keys[:limit], keys[limit:] or None
    last = None if isinstance(cursor, list) else cursor
    rows = await requests.page(collection, min(limit, MAX_RESULTS), last, [], chosen)
    return [row.key for row in rows], rows[-1].key if len(rows) == min(limit, MAX_RESULTS) else None


async def one_page(
    collection: Collection, chosen: str, limit: int, cursor: Cursor, with_tokens: bool
) -> tuple[list[Document], Cursor]:
    """One page of all documents, and the start of the next (None: there is none)."""
    if limit < 1:
        raise InvalidInput(f"page_size must be at least 1, got {limit}")
    fields = [*collection.payload_fields, *token_fields(collection, with_tokens)]
    keys, following = await next_keys(collection, chosen, limit, cursor)
    found = {row.key: row for row in (await fetch_all(collection, keys, fields, strong=True))}
    return [_document(collection, found[key]) for key in keys if key in found], following


async def count(collection: Collection, chosen: str) -> int:
    """The exact number of documents that pass ``chosen``; "": all documents."""
    return await requests.count(collection, chosen)


async def info(collection: Collection) -> StoreInfo:
    """State and sizes; sizes of tokens are estimated from a sample."""
    total = await requests.count(collection)
    marked = (
        await requests.count(collection, marked_by(collection)) if collection.marker and collection.has_fde else total
    )
    with_fde = marked if collection.has_fde else 0
    with_tokens, token_bytes = await _tokens(collection, total)
    found = await indexes(collection.name)
    width = _WIDTH[collection.datatype]
    codes = _CODES.get(str(collection.index.get("index_type")), 0.0)
    return StoreInfo(
        name=collection.name,
        engine=collection.server.engine,
        documents=total,
        without_fde=total - with_fde,
        without_tokens=total - with_tokens,
        segments=None,
        indexed=is_indexed(found),
        fingerprint=collection.encoder.fingerprint,
        fde_dim=collection.encoder.dim,
        fde_bytes=width * with_fde * collection.encoder.dim,
        code_bytes=int(with_fde * collection.encoder.dim * codes),
        token_bytes=token_bytes,
        unindexed=unindexed(collection, found, total),
        model=collection.model,
        token_error=collection.token_error,
    )


def unindexed(collection: Collection, found: Sequence[Description], total: int) -> int | None:
    """Lower bound of the number of documents whose FDE has no index; None for milvus-lite, which does not report it.

    A server counts replaced and deleted versions as indexed until it has compacted their segment.
    """
    if collection.server.lite:
        return None
    ours = [index for index in found if index["field_name"] == collection.fde and "indexed_rows" in index]
    return max(0, total - int(ours[0]["indexed_rows"])) if ours else None


def marked_by(collection: Collection) -> str:
    """An expression for the documents whose FDE this library wrote, if FDEs were added later."""
    return f"{collection.mark} == {literal(collection.fde)}"


def is_indexed(found: Sequence[Description]) -> bool:
    """Whether no document waits for one of these indexes."""
    return not any(
        int(index.get("pending_index_rows", 0)) or index.get("state", "Finished") != "Finished" for index in found
    )


async def indexes(name: str) -> list[Description]:
    """All indexes of a collection."""
    found = [await requests.describe_index(name, index) for index in await requests.index_names(name)]
    return [index for index in found if index]


def document_id_of(collection: Collection, row: Row) -> DocumentId:
    """The user's id of a document."""
    return from_key(row.key, collection.keys)


async def _tokens(collection: Collection, total: int) -> tuple[int, int]:
    """The number of documents that have tokens, and the bytes of all tokens."""
    if collection.storage == "none":
        return 0, 0
    keys, _ = await next_keys(collection, "", _SAMPLE if collection.storage == "blob" else _LOOK_AT, None)
    rows = await fetch_all(collection, keys, collection.token_fields)
    sizes = [row.tokens.size if row.tokens is not None else 0 for row in rows]
    present = [size for size in sizes if size]
    if collection.storage == "blob":
        lacking = await requests.count(collection, f'{collection.blobs[0]} == ""')
        with_tokens = total - lacking
    else:
        # no expression is known that finds empty struct arrays in every version
        with_tokens = round(len(present) / max(1, len(sizes)) * total)
    floats = float(np.mean(present)) if present else 0.0
    return with_tokens, int(floats * _bytes_per_float(collection) * with_tokens)


def _bytes_per_float(collection: Collection) -> float:
    if collection.storage == "struct":
        return 4.0
    width = collection.encoder.token_dim
    return token_bytes(width, collection.precision) / width * 4 / 3


def _document(collection: Collection, row: Row) -> Document:
    if row.problem:
        raise MuveraError(row.problem)
    return Document(document_id_of(collection, row), row.payload, row.tokens)
