"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.milvus import requests
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import among, checked
from muvera_adapters.milvus.ids import to_key
from muvera_adapters.milvus.prepare import intake, to_rows, unfit
from muvera_adapters.milvus.reading import indexes, is_indexed, unindexed
from muvera_adapters.milvus.requests import FILTER_KEYS, Description
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import need_fde, prepare
from muvera_adapters.stores.writing import WriteAccess, check_named, wait_until_idle


async def upsert(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    progress: bool,
) -> WriteReport:
    """Encodes and writes documents, batch after batch."""
    need_fde(collection)
    prepared = prepare(collection, ids, tokens, payloads, intake(collection))

    async def write(rows: Sequence[dict[str, Any]], _: bool) -> dict[int, MuveraError]:
        await _keep_strangers(collection, rows)
        await requests.upsert(collection, rows)
        return {}

    access = WriteAccess(
        requests.WRITE_BYTES, partial(to_rows, collection, prepared), write, partial(unfit, collection)
    )
    return await writing.upsert(prepared, collection.encoder, access, progress)


async def delete(collection: Collection, ids: Sequence[DocumentId] | None, chosen: str | None) -> None:
    """Deletes documents by ids or by filter."""
    check_named(ids, chosen)
    if ids is None:
        expression = checked(chosen)
        if not expression:
            raise InvalidInput("an empty filter names nothing to delete")
        await requests.delete(collection, expression)
        return
    keys = [to_key(document_id, i, collection.keys, collection.max_key) for i, document_id in enumerate(ids)]
    for i in range(0, len(keys), FILTER_KEYS):
        await requests.delete(collection, among(collection.key, keys[i : i + FILTER_KEYS]))


async def wait_indexed(collection: Collection, timeout: float | None) -> int | None:
    """Writes what is in memory to segments, the only thing that has indexes, and returns when all segments have theirs.

    Returns the number of documents without index, as ``unindexed``.
    """
    await requests.flush(collection.name)
    found = await wait_until_idle(collection.name, partial(_index_state, collection.name), timeout)
    return unindexed(collection, found, await requests.count(collection))


async def _index_state(name: str) -> tuple[list[Description], str | None]:
    """The indexes, and what the server is doing (None: nothing)."""
    found = await indexes(name)
    return found, None if is_indexed(found) else "indexing"


async def _keep_strangers(collection: Collection, rows: Sequence[dict[str, Any]]) -> None:
    """Adds the vectors of others that rows do not name, as an upsert replaces whole documents."""
    if not collection.strangers:
        return
    there: dict[Any, dict[str, Any]] = {}
    for i in range(0, len(rows), FILTER_KEYS):
        keys = [row[collection.key] for row in rows[i : i + FILTER_KEYS]]
        found = await requests.raw(collection, keys, collection.strangers)
        there.update({old[collection.key]: old for old in found})
    for row in rows:
        kept = there.get(row[collection.key], {})
        row.update({name: kept[name] for name in collection.strangers if name not in row and name in kept})
