"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from weaviate.collections.classes.filters import FilterReturn
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from muvera_adapters.errors import CollectionNotFound, MuveraError, Rejected, StoreUnavailable
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import need_fde, prepare
from muvera_adapters.stores.operations import Together
from muvera_adapters.stores.writing import WriteAccess, check_named, halving, wait_until_idle
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.errors import refused_write
from muvera_adapters.weaviate.ids import to_uuid
from muvera_adapters.weaviate.prepare import intake, to_writes
from muvera_adapters.weaviate.reading import fetch_all, is_indexed, unindexed
from muvera_adapters.weaviate.requests import Write

#: maximum number of simultaneous writes of single objects
AT_ONCE = 4


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
    access = WriteAccess(
        min(r.WRITE_BYTES, collection.server.max_message),
        partial(to_writes, collection, prepared),
        partial(_write, collection),
        advice="repeat the call to complete it, and call repair() if the server was killed",
        halved=(),  # _write isolates rejected objects itself: an error of its other requests is no object's fault
    )
    return await writing.upsert(prepared, collection.encoder, access, progress)


async def delete(collection: Collection, ids: Sequence[DocumentId] | None, chosen: FilterReturn | None) -> None:
    """Deletes documents by ids or by filter."""
    check_named(ids, chosen)
    if chosen is not None:
        await _delete_all(chosen)
    objects = [to_uuid(document_id, i)[0] for i, document_id in enumerate(ids or ())]
    for i in range(0, len(objects), r.FILTER_IDS):
        await _delete_all(r.by_ids(objects[i : i + r.FILTER_IDS]))


async def wait_indexed(collection: Collection, timeout: float | None) -> int:
    """Waits until nothing is left to index; returns the number of documents without an index, 0."""

    async def poll() -> tuple[int, str | None]:
        shards = await r.shards(collection)
        return unindexed(collection, shards), None if is_indexed(shards) else "indexing"

    return await wait_until_idle(collection.name, poll, timeout)


async def patch(write: Write) -> bool:
    """Writes what is named of one object; False where it is gone."""
    try:
        await r.patch(write)
    except CollectionNotFound:  # the server's 404 does not say of what
        return False
    return True


async def _write(collection: Collection, writes: Sequence[Write], last: bool) -> dict[int, MuveraError]:
    """Position -> error of rejected objects.

    An insert replaces the whole object. So an object that exists is patched where it has something that this write
    does not name: properties, or vectors, references and blobs, which are not looked at one by one.
    """
    there = {row.id: row for row in await fetch_all(collection, [write.id for write in writes], True, ())}

    def loses(write: Write) -> bool:
        found = there.get(write.id)
        return found is not None and (collection.foreign or not found.properties.keys() <= write.properties.keys())

    whole = [k for k, write in enumerate(writes) if not loses(write)]
    parts = [k for k, write in enumerate(writes) if loses(write)]
    rejected = await halving(partial(_insert, collection), [writes[k] for k in whole])
    errors = {whole[k]: error for k, error in rejected.items()}
    if parts:
        patched = await Together([_patch(collection, writes[k]) for k in parts], AT_ONCE)
        errors.update({k: error for k, error in zip(parts, patched, strict=True) if error is not None})
    return errors


async def _insert(collection: Collection, writes: Sequence[Write]) -> dict[int, MuveraError]:
    """Writes whole objects. Position -> error of rejected ones; raises Rejected where the request is."""
    try:
        messages = await r.insert(writes)
    except Rejected as error:
        if isinstance(error.__cause__, WeaviateInsertManyAllFailedError):  # each for itself
            return dict.fromkeys(range(len(writes)), error)
        raise
    errors = {k: refused_write(message, collection.name) for k, message in messages.items()}
    for problem in errors.values():
        if isinstance(problem, StoreUnavailable):
            raise problem
    return errors


async def _patch(collection: Collection, write: Write) -> MuveraError | None:
    """Writes what is named of one object, or the whole object if it is gone; returns why it was rejected."""
    try:
        if await patch(write):
            return None
        errors = await _insert(collection, [write])
    except Rejected as error:
        return error
    return errors.get(0)


async def _delete_all(filters: FilterReturn) -> None:
    """One request deletes at most QUERY_MAXIMUM_RESULTS objects."""
    while True:
        matches, failed = await r.delete(filters)
        if failed:
            raise Rejected(f"Weaviate did not delete {failed} of {matches} objects")
        if not matches:
            return
