"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from muvera_adapters.errors import MuveraError, StoreUnavailable
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import intake, to_points, unfit
from muvera_adapters.qdrant.reading import unindexed
from muvera_adapters.qdrant.requests import Delete, Flush, GetStatus, Optimize, Point, Status, Upsert, Where
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import need_fde, prepare
from muvera_adapters.stores.ids import to_point_id
from muvera_adapters.stores.writing import WriteAccess, check_named, wait_until_idle


async def upsert(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    progress: bool,
    shard_key: Any = None,
) -> WriteReport:
    """Encodes and writes documents, batch after batch; searches see all of them when it returns."""
    need_fde(collection)
    prepared = prepare(collection, ids, tokens, payloads, intake(collection))

    async def write(points: Sequence[Point], last: bool) -> dict[int, MuveraError]:
        # the database applies writes in order: waiting for the last is waiting for all
        await Upsert(collection.name, points, last, shard_key)
        return {}

    access = WriteAccess(
        collection.wire.target, partial(to_points, collection, prepared), write, partial(unfit, collection)
    )
    report = await writing.upsert(prepared, collection.encoder, access, progress)
    await Flush(collection.name)
    return report


async def delete(collection: Collection, ids: Sequence[DocumentId] | None, chosen: Any, shard_key: Any = None) -> None:
    """Deletes documents by ids or by filter."""
    check_named(ids, chosen)
    if ids is not None and not len(ids):
        return
    points = None if ids is None else [to_point_id(document_id, i)[0] for i, document_id in enumerate(ids)]
    await Delete(collection.name, points, Where(chosen), shard_key)
    await Flush(collection.name)


async def wait_indexed(collection: Collection, timeout: float | None) -> int | None:
    """Returns when the database indexes no more: the number of documents that it leaves without index."""
    return await unindexed(collection, await wait_until_idle(collection.name, partial(_status, collection), timeout))


async def _status(collection: Collection) -> tuple[Status, str | None]:
    """The status, and what the database is doing (None: nothing)."""
    state = await GetStatus(collection.name, collection.fde)
    if state.status == "grey":  # nothing is being done until it is asked for
        await Optimize(collection.name)
        state = await GetStatus(collection.name, collection.fde)
    if state.status == "red":
        raise StoreUnavailable(f"{collection.name} is in state red: the server's log says why it cannot index")
    return state, None if state.status == "green" else f"{state.status} (indexing)"
