"""Writes that keep everything that they do not name: other vectors, payload fields, keys of the dynamic field.

milvus-lite, and servers that update single fields, do that themselves. For others, documents are read and written
again; an update by another program between the two is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from muvera_adapters.milvus import requests
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.ids import Key
from muvera_adapters.milvus.requests import FILTER_KEYS

# number of documents read at a time, with their payloads (at most 64 kB) and other vectors (at most 128 kB each)
_READ = 200

_Row = dict[str, Any]


async def merge(collection: Collection, rows: Sequence[_Row]) -> None:
    """Writes documents whose other fields stay; rows of new documents are written unchanged."""
    if not collection.server.merges:
        await requests.upsert(collection, await _completed(collection, rows))
        return
    for alike in _alike(collection, rows):
        await requests.patch(collection, alike)


async def update(collection: Collection, rows: Sequence[_Row]) -> int:
    """Reads and writes existing documents again, for servers that do not merge; returns their number."""
    there = await _present(collection, [row[collection.key] for row in rows])
    rows = [row for row in rows if row[collection.key] in there]
    if rows:
        await requests.upsert(collection, await _completed(collection, rows, there))
    return len(rows)


def _alike(collection: Collection, rows: Sequence[_Row]) -> Iterable[list[_Row]]:
    """Rows that name the same declared fields, as one request needs; keys of the dynamic field may differ."""
    declared = {*collection.fields, *collection.strangers}
    groups: dict[frozenset[str], list[_Row]] = {}
    for row in rows:
        groups.setdefault(frozenset(declared.intersection(row)), []).append(row)
    return groups.values()


async def _completed(collection: Collection, rows: Sequence[_Row], there: set[Key] | None = None) -> list[_Row]:
    """The rows, completed with the other fields of their documents."""
    if there is None:
        there = await _present(collection, [row[collection.key] for row in rows])
    keys = [row[collection.key] for row in rows if row[collection.key] in there]
    named = set.intersection(*(set(row) for row in rows)) if rows else set()
    own = [*collection.token_fields, collection.fde, *([collection.mark] if collection.marker else [])]
    fields = [name for name in (*collection.payload_fields, *collection.strangers, *own) if name not in named]
    old: dict[Key, _Row] = {}
    if fields:
        for i in range(0, len(keys), _READ):
            old.update(
                {row[collection.key]: row for row in await requests.raw(collection, keys[i : i + _READ], fields)}
            )
    return [{**old.get(row[collection.key], {}), **row} for row in rows]


async def _present(collection: Collection, keys: Sequence[Key]) -> set[Key]:
    found: set[Key] = set()
    for i in range(0, len(keys), FILTER_KEYS):
        rows = await requests.fetch(collection, keys[i : i + FILTER_KEYS], (), strong=True)
        found.update(row.key for row in rows)
    return found
