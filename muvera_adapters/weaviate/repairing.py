"""Finds documents that a killed server has lost from its indexes, and has them indexed again.

Weaviate 1.39 writes objects and indexes to separate logs. After a kill, an object may exist, counted and listed,
while no filter and no vector search finds it, even if its batch was acknowledged. Writing it again does not help,
because unchanged objects are skipped (shard_write_put.go, compareObjsForInsertStatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from muvera_adapters.logs import LOG
from muvera_adapters.progress import progress_bar
from muvera_adapters.stores.checks import need_fde
from muvera_adapters.stores.operations import Together
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.reading import fitting
from muvera_adapters.weaviate.requests import Row, Write, by_ids, count, near_fde, near_tokens, page
from muvera_adapters.weaviate.writing import AT_ONCE, patch, wait_indexed

_PAGE = 1_000


async def repair(collection: Collection, progress: bool) -> int:
    """Has lost documents indexed again; returns their number."""
    need_fde(collection)
    await wait_indexed(collection, None)  # what waits in a queue is not lost
    repaired, after = 0, None
    with progress_bar(total=await count(), unit="doc", desc="repair", disable=not progress) as bar:
        while True:
            # unlike filters, a cursor reads the objects themselves
            ids = [row.id for row in await page(collection, _PAGE, after, None)]
            if not ids:
                return repaired
            lost = await _lost(collection, ids)
            if any(lost.values()):
                repaired += await _index_anew(collection, lost, after, ids[-1])
            bar.update(len(ids))
            after = ids[-1]


async def _lost(collection: Collection, ids: Sequence[str]) -> dict[str, set[str]]:
    """Ids that the index of each vector lacks, or may lack, by name; they include objects without the vector."""
    found: set[str] = set()
    if collection.fde_info.flat_cutoff > len(ids):  # otherwise the index cannot tell
        anything = np.ones(collection.encoder.dim, np.float32)
        found = {row.id for row in await near_fde(collection, anything, len(ids), by_ids(ids))}
    lost = {collection.fde: set(ids) - found}
    # a quantized token index fails if one document lacks tokens, so it is not searched
    if collection.tokens is not None and collection.index != "none" and collection.exact_below > len(ids):
        token = np.ones((1, collection.encoder.token_dim), np.float32)
        found = {row.id for row in await near_tokens(collection, token, len(ids), by_ids(ids))}
        lost[collection.tokens] = set(ids) - found
    return lost


async def _index_anew(collection: Collection, lost: Mapping[str, set[str]], after: str | None, last: str) -> int:
    """Reads a page again, with vectors, and rewrites the FDEs of lost documents; returns their number.

    An FDE is written with its last bit changed, and then unchanged. A changed vector gives the object a new internal
    number, under which the whole object is indexed again.
    """
    done = 0
    names = [name for name in (collection.fde, collection.tokens) if name is not None]
    size = _PAGE if collection.tokens is None else min(_PAGE, await fitting(collection))
    while after is None or after < last:
        rows: list[Row] = await page(collection, size, after, None, names)
        if not rows:
            break
        after = rows[-1].id
        broken = [
            row
            for row in rows
            if collection.fde in row.vectors
            and any(row.id in ids and name in row.vectors for name, ids in lost.items())
        ]
        await Together([_touch(collection, row) for row in broken], AT_ONCE)
        done += len(broken)
        if broken:
            LOG.info("%d documents that the server had lost from its indexes are indexed again", len(broken))
    return done


async def _touch(collection: Collection, row: Row) -> None:
    fde = row.vectors[collection.fde]
    other = fde.copy()
    other[0] = np.nextafter(fde[0], np.float32(np.inf))
    for vector in (other, fde):
        await patch(Write(row.id, {}, {collection.fde: vector}))
