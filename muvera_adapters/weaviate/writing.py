"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from muvera_adapters.documents import interrupted, slices
from muvera_adapters.errors import CollectionNotFound, InvalidInput, Rejected, StoreUnavailable
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores.operations import Compute, Pause, Together, seconds
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.client_errors import refused_write
from muvera_adapters.weaviate.documents import prepare, to_writes
from muvera_adapters.weaviate.identity import to_uuid
from muvera_adapters.weaviate.reading import fetch_all, is_indexed, need_fde, unindexed
from muvera_adapters.weaviate.requests import Collection, Write

#: single-object writes that go on at a time
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
    documents = prepare(collection, ids, tokens, payloads)
    report = WriteReport()
    with tqdm(total=len(documents.ids), unit="doc", desc="upsert", disable=not progress) as bar:
        for i, j in slices(documents.sizes, min(r.WRITE_BYTES, collection.server.max_message)):
            fdes = await Compute(partial(collection.encoder.encode_documents, documents.tokens[i:j]))
            writes = to_writes(collection, documents, i, j, fdes)
            try:
                refused = await _write(collection, writes)
            except StoreUnavailable as error:
                advice = "repeat the call to complete it, and call repair() if the server was killed"
                raise interrupted(error, report, documents.ids, i, advice) from (error.__cause__ or error)
            report.failed.update({documents.ids[i + k]: message for k, message in refused.items()})
            report.written += j - i - len(refused)
            bar.update(j - i)
    return report


async def delete(collection: Collection, ids: Sequence[DocumentId] | None, chosen: Any) -> None:
    """Deletes documents by ids or by filter."""
    if (ids is None) == (chosen is None):
        raise InvalidInput("give either ids or filter=, and not both: what is deleted must be named")
    if ids is None:
        await _delete_all(chosen)
        return
    objects = [to_uuid(document_id, i)[0] for i, document_id in enumerate(ids)]
    for i in range(0, len(objects), r.FILTER_IDS):
        await _delete_all(r.by_ids(objects[i : i + r.FILTER_IDS]))


async def wait_indexed(collection: Collection, timeout: float | None) -> int | None:
    """Returns when nothing is left to index: how many documents are without index, 0."""
    deadline = None if timeout is None else seconds() + timeout
    pause = 0.1
    while not is_indexed(shards := (await r.nodes(collection))):
        if deadline is not None and seconds() + pause > deadline:
            raise StoreUnavailable(f"{collection.name} is still indexing after {timeout:g} s")
        await Pause(pause)
        pause = min(2 * pause, 2.0)
    return unindexed(collection, shards)


async def patch(write: Write) -> bool:
    """Writes what is named of one object; False where it is gone."""
    try:
        await r.patch(write)
    except CollectionNotFound:  # the server's 404 does not say of what
        return False
    return True


async def _write(collection: Collection, writes: Sequence[Write]) -> dict[int, str]:
    """Position -> error of those refused.

    An insert replaces the whole object. So objects that are there and have something that this write does not name
    (properties; vectors, references or blobs, which are not looked at one by one) are patched instead.
    """
    there = {row.id: row for row in (await fetch_all(collection, [write.id for write in writes], True, ()))}

    def loses(write: Write) -> bool:
        found = there.get(write.id)
        return found is not None and (collection.foreign or not found.properties.keys() <= write.properties.keys())

    whole = [k for k, write in enumerate(writes) if not loses(write)]
    parts = [k for k, write in enumerate(writes) if loses(write)]
    refused: dict[int, str] = {}
    if whole:
        errors = await _insert(collection, [writes[k] for k in whole])
        refused.update({whole[k]: message for k, message in errors.items()})
    if parts:
        errors_of_parts = await Together([_patch(collection, writes[k]) for k in parts], AT_ONCE)
        refused.update({k: message for k, message in zip(parts, errors_of_parts, strict=True) if message})
    return refused


async def _insert(collection: Collection, writes: Sequence[Write]) -> dict[int, str]:
    """Writes whole objects; where the server refuses the request, halves it until refused objects stand alone."""
    try:
        errors: dict[int, str] = await r.insert(writes)
    except Rejected as error:
        if len(writes) == 1 or isinstance(error.__cause__, WeaviateInsertManyAllFailedError):
            return dict.fromkeys(range(len(writes)), str(error))
        half = len(writes) // 2
        first = await _insert(collection, writes[:half])
        second = await _insert(collection, writes[half:])
        return {**first, **{half + k: message for k, message in second.items()}}
    for message in errors.values():
        problem = refused_write(message, collection.name)
        if isinstance(problem, StoreUnavailable):
            raise problem
    return errors


async def _patch(collection: Collection, write: Write) -> str | None:
    """Writes what is named of one object; an object that is gone is written whole. Returns an error."""
    try:
        if not (await patch(write)):
            errors = await _insert(collection, [write])
            return errors.get(0)
    except Rejected as error:
        return str(error)
    return None


async def _delete_all(filters: Any) -> None:
    """One request deletes at most QUERY_MAXIMUM_RESULTS objects."""
    while True:
        matches, failed = await r.delete(filters)
        if failed:
            raise Rejected(f"Weaviate did not delete {failed} of {matches} objects")
        if not matches:
            return
