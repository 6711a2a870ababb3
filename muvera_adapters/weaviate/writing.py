"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from weaviate.collections.classes.filters import FilterReturn
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from muvera_adapters.errors import (
    AccessDenied,
    CollectionNotFound,
    InvalidInput,
    MuveraError,
    Rejected,
    StoreUnavailable,
)
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import ZeroRows, need_fde, prepare
from muvera_adapters.stores.operations import Together
from muvera_adapters.stores.writing import WriteAccess, check_named, halving, wait_until_idle
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.errors import refused_write
from muvera_adapters.weaviate.ids import JSON_KEY, RESERVED, to_uuid
from muvera_adapters.weaviate.prepare import intake, to_writes
from muvera_adapters.weaviate.properties import Kind, kinds, merged, to_payload, to_property, undeclared
from muvera_adapters.weaviate.reading import fetch_all, is_indexed, unindexed
from muvera_adapters.weaviate.requests import Write

#: maximum number of simultaneous writes of single objects
AT_ONCE = 4
# number of objects deleted per request without a filter of the user
_PAGE = 1_000


async def upsert(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    progress: bool,
    *,
    vectors: Mapping[str, Sequence[Any]] | None = None,
    replace: bool = False,
    zero_rows: ZeroRows = "refuse",
) -> WriteReport:
    """Encodes and writes documents, batch after batch."""
    need_fde(collection)
    prepared = prepare(collection, ids, tokens, payloads, intake(collection), vectors=vectors, zero_rows=zero_rows)
    await declare(collection, prepared.payloads)
    # if there is nothing to merge with, nothing is looked up
    merge = not replace and bool(prepared.ids) and await r.count() > 0
    access = WriteAccess(
        min(r.WRITE_BYTES, collection.server.max_message),
        partial(to_writes, collection, prepared),
        partial(_write, collection, merge),
        advice="repeat the call to complete it, and call repair() if the server was killed",
        halved=(),  # _write isolates rejected objects itself: errors of its other requests concern no single object
    )
    return await writing.upsert(prepared, collection, access, progress)


async def declare(collection: Collection, payloads: Sequence[Mapping[str, Any]]) -> None:
    """Adds the properties that payloads need, before the server guesses their types from the first values."""
    if not undeclared(payloads, collection.seen.kinds):
        return
    collection.seen.kinds = kinds(await r.config())
    for name, kind in undeclared(payloads, collection.seen.kinds).items():
        await _declare_one(collection, name, kind)


async def _declare_one(collection: Collection, name: str, kind: Kind) -> None:
    try:
        await r.add_property(to_property(name, kind))
    except (InvalidInput, Rejected):
        collection.seen.kinds = kinds(await r.config())
        if name not in collection.seen.kinds:  # otherwise another writer was faster
            raise
    else:
        collection.seen.kinds = {**collection.seen.kinds, name: kind}


async def delete(
    collection: Collection, ids: Sequence[DocumentId] | None, chosen: FilterReturn | None, everything: bool
) -> None:
    """Deletes documents by ids, by a filter that has conditions, or all."""
    conditions = None if chosen is None or not has_conditions(chosen) else chosen
    check_named(ids, chosen, everything, matches_all=chosen is not None and conditions is None)
    if conditions is not None:
        await _delete_all(conditions)
    elif ids is None:
        await _delete_everything(collection)
    objects = [to_uuid(document_id, i)[0] for i, document_id in enumerate(ids or ())]
    for i in range(0, len(objects), r.FILTER_IDS):
        await _delete_all(r.by_ids(objects[i : i + r.FILTER_IDS]))
    collection.seen.without_fde.forget()


def has_conditions(chosen: Any) -> bool:
    """Whether a filter, which may be nested, has a condition."""
    nested = getattr(chosen, "filters", None)
    return True if nested is None else any(map(has_conditions, nested))


async def wait_indexed(collection: Collection, timeout: float | None) -> int:
    """Waits until everything is indexed; returns the number of documents that are not, 0."""

    async def poll() -> tuple[int, str | None]:
        shards = await r.shards(collection)
        return unindexed(collection, shards), None if is_indexed(shards) else "indexing"

    return await wait_until_idle(collection.name, poll, timeout)


async def patch(write: Write) -> bool:
    """Writes the given parts of one object; False if it no longer exists."""
    try:
        await r.patch(write)
    except CollectionNotFound:  # the server's 404 does not say what is missing
        return False
    return True


async def _write(collection: Collection, merge: bool, writes: Sequence[Write], last: bool) -> dict[int, MuveraError]:
    """Writes objects; returns errors of rejected ones, by position.

    An insert replaces the whole object. So an object that exists is patched where it has something that this write
    does not name: properties, or vectors, references and blobs, which are not looked at one by one. Properties are read
    because an insert of many objects is several times as fast as patches.
    """
    ids = [write.id for write in writes]
    there = {row.id: row.properties for row in await fetch_all(collection, ids, True, ())} if merge else {}

    def loses(write: Write) -> bool:
        found = there.get(write.id)
        return found is not None and (collection.foreign or not _keys(found) <= _keys(write.properties))

    whole = [k for k, write in enumerate(writes) if not loses(write)]
    rejected = await halving(partial(_insert, collection), [writes[k] for k in whole])
    errors = {whole[k]: error for k, error in rejected.items()}
    parts, patches = [], []
    for k, write in enumerate(writes):
        if loses(write):
            try:
                patches.append(
                    _patch(collection, dataclasses.replace(write, properties=merged(write.properties, there[write.id])))
                )
                parts.append(k)
            except InvalidInput as error:
                errors[k] = error
    if patches:
        patched = await Together(patches, AT_ONCE)
        errors.update({k: error for k, error in zip(parts, patched, strict=True) if error is not None})
    return errors


def _keys(properties: Mapping[str, Any]) -> set[str]:
    """The user's keys of an object, and this library's except the one that contains keys of the user."""
    return {*to_payload(properties), *(properties.keys() & set(RESERVED) - {JSON_KEY})}


async def _insert(collection: Collection, writes: Sequence[Write]) -> dict[int, MuveraError]:
    """Writes whole objects; returns errors of rejected ones, by position. Raises Rejected if the request is."""
    try:
        messages = await r.insert(writes)
    except Rejected as error:
        if isinstance(error.__cause__, WeaviateInsertManyAllFailedError):  # every object was rejected on its own
            return dict.fromkeys(range(len(writes)), error)
        raise
    errors = {k: refused_write(message, collection.name) for k, message in messages.items()}
    for problem in errors.values():
        if isinstance(problem, StoreUnavailable | AccessDenied):
            raise problem
    return errors


async def _patch(collection: Collection, write: Write) -> MuveraError | None:
    """Writes the given parts of one object, or all of it if it is gone; returns the error of a rejected one."""
    try:
        if await patch(write):
            return None
        errors = await _insert(collection, [write])
    except Rejected as error:
        return error
    return errors.get(0)


async def _delete_everything(collection: Collection) -> None:
    after = None
    while ids := [row.id for row in await r.page(collection, _PAGE, after, None)]:
        await _delete_all(r.by_ids(ids))
        after = ids[-1]


async def _delete_all(filters: FilterReturn) -> None:
    """One request deletes at most QUERY_MAXIMUM_RESULTS objects."""
    while True:
        matches, failed = await r.delete(filters)
        if failed:
            raise Rejected(f"Weaviate did not delete {failed} of {matches} objects")
        if not matches:
            return
