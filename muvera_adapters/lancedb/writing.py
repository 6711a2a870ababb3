"""Operations that write and delete documents, and build their indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from muvera_adapters.errors import MuveraError, StoreUnavailable
from muvera_adapters.lancedb import requests as r
from muvera_adapters.lancedb.collection import ID, Collection
from muvera_adapters.lancedb.expressions import among, checked, column
from muvera_adapters.lancedb.prepare import Item, intake, to_items, to_table, unfit
from muvera_adapters.lancedb.reading import INDEX_FROM, fde_index, fetch_all
from muvera_adapters.lancedb.requests import FILTER_KEYS
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import ZeroRows, need_fde, prepare
from muvera_adapters.stores.keys import to_key
from muvera_adapters.stores.operations import seconds
from muvera_adapters.stores.writing import WriteAccess, check_named


async def upsert(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    progress: bool,
    vectors: Mapping[str, Sequence[Any]] | None,
    replace: bool,
    zero_rows: ZeroRows,
) -> WriteReport:
    """Encodes and writes documents, batch after batch; unless ``replace``, what they do not name stays."""
    need_fde(collection)
    prepared = prepare(collection, ids, tokens, payloads, intake(collection), vectors=vectors, zero_rows=zero_rows)

    async def write(items: Sequence[Item], _: bool) -> dict[int, MuveraError]:
        collection.seen.without_fde.forget()
        await (_replace(collection, items) if replace else _merge(collection, items))
        return {}

    access = WriteAccess(r.WRITE_BYTES, partial(to_items, collection, prepared), write, partial(unfit, collection))
    return await writing.upsert(prepared, collection, access, progress)


async def delete(
    collection: Collection, ids: Sequence[DocumentId] | None, chosen: str | None, everything: bool
) -> None:
    """Deletes documents by ids or by filter; all of them only with ``everything``."""
    expression = checked(chosen)
    check_named(ids, chosen, everything, matches_all=chosen is not None and not expression)
    collection.seen.without_fde.forget()
    if ids is None:
        await r.delete(collection, expression or "true")
        return
    keys = [to_key(document_id, i, collection.keys) for i, document_id in enumerate(ids)]
    for i in range(0, len(keys), FILTER_KEYS):
        await r.delete(collection, among(collection.key, keys[i : i + FILTER_KEYS]))


async def wait_indexed(collection: Collection, timeout: float | None) -> int | None:
    """Builds the indexes that are missing, takes new rows into those that are there, and joins small files.

    Returns the number of documents without an index, as ``unindexed``.
    """
    started = seconds()
    if collection.fde_exists and collection.quantization is not None and await fde_index(collection) is None:
        with_fde = await r.count(collection, f"{column(collection.fde)} IS NOT NULL")
        if with_fde >= INDEX_FROM:
            await r.build_index(collection, collection.quantization)
    own = collection.key == ID and collection.keys == "any"
    keyed = [each for each in await r.indexes(collection) if each.columns == (collection.key,)]
    if own and not keyed and await r.count(collection) >= INDEX_FROM:
        await r.build_key_index(collection)
    await r.optimize(collection)
    if timeout is not None and seconds() - started > timeout:
        raise StoreUnavailable(f"{collection.name} was indexed, but it took longer than {timeout:g} s")
    index = await fde_index(collection)
    return await r.count(collection) if index is None else index.unindexed


async def _merge(collection: Collection, items: Sequence[Item]) -> None:
    """Writes the columns that each document names, documents of the same columns in one version of the table."""
    await _complete(collection, [item for item in items if collection.json in item])
    groups: dict[frozenset[str], list[Item]] = {}
    for item in items:
        groups.setdefault(frozenset(item), []).append(item)
    for alike in groups.values():
        await r.merge(collection, to_table(collection, alike))


async def _complete(collection: Collection, items: Sequence[Item]) -> None:
    """Adds the keys of the JSON column that the documents have beside those that are named."""
    if not items or collection.json is None:
        return
    rows = await fetch_all(collection, [item[collection.key] for item in items], [collection.json])
    there = {row.key: row.payload for row in rows}
    for item in items:
        item[collection.json] = {**there.get(item[collection.key], {}), **item[collection.json]}


async def _replace(collection: Collection, items: Sequence[Item]) -> None:
    """Writes whole documents: columns that they do not name become null."""
    columns = [*collection.payload_columns, *collection.strangers]
    whole = [{**dict.fromkeys(columns), **item} for item in items]
    await r.merge(collection, to_table(collection, whole))
