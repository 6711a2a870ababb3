"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from muvera_adapters.documents import interrupted, slices
from muvera_adapters.errors import InvalidInput, Rejected, StoreUnavailable
from muvera_adapters.milvus import requests
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import among, checked
from muvera_adapters.milvus.ids import to_key
from muvera_adapters.milvus.prepare import overflowing, prepare, to_rows
from muvera_adapters.milvus.reading import is_indexed, need_fde
from muvera_adapters.milvus.requests import FILTER_KEYS
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores.operations import Compute, Pause, seconds


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
        for i, j in slices(documents.sizes, requests.WRITE_BYTES):
            fdes = await Compute(partial(collection.encoder.encode_documents, documents.tokens[i:j]))
            rows, written_ids = to_rows(collection, documents, i, j, fdes), documents.ids[i:j]
            for k in reversed(overflowing(collection, fdes)):
                report.failed[written_ids.pop(k)] = (
                    "its FDE exceeds float16: normalize tokens, or datatype=FLOAT_VECTOR"
                )
                rows.pop(k)
            try:
                await _keep_strangers(collection, rows)
                await _write(collection, rows, written_ids, report)
            except StoreUnavailable as error:
                raise interrupted(error, report, documents.ids, i) from (error.__cause__ or error)
            bar.update(j - i)
    return report


async def delete(collection: Collection, ids: Sequence[DocumentId] | None, chosen: str | None) -> None:
    """Deletes documents by ids or by filter."""
    if (ids is None) == (chosen is None):
        raise InvalidInput("give either ids or filter=, and not both: what is deleted must be named")
    if ids is None:
        expression = checked(chosen)
        if not expression:
            raise InvalidInput("an empty filter names nothing to delete")
        await requests.delete(collection, expression)
        return
    keys = [to_key(document_id, i, collection.keys, collection.max_key) for i, document_id in enumerate(ids)]
    for i in range(0, len(keys), FILTER_KEYS):
        await requests.delete(collection, among(collection.key, keys[i : i + FILTER_KEYS]))


async def wait_indexed(collection: Collection, timeout: float | None) -> None:
    """Writes what is in memory to segments, of which alone there are indexes, and returns when all have theirs."""
    deadline = None if timeout is None else seconds() + timeout
    await requests.flush(collection.name)
    pause = 0.1
    while not (await is_indexed(collection)):
        if deadline is not None and seconds() + pause > deadline:
            raise StoreUnavailable(f"{collection.name} is still indexing after {timeout:g} s")
        await Pause(pause)
        pause = min(2 * pause, 2.0)


async def _keep_strangers(collection: Collection, rows: Sequence[dict[str, Any]]) -> None:
    """An upsert replaces whole documents, so other vectors that a payload does not name are read and written again."""
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


async def _write(
    collection: Collection, rows: list[dict[str, Any]], ids: list[DocumentId], report: WriteReport
) -> None:
    """Writes a batch; where the database refuses it, halves it until the refused documents stand alone."""
    if not rows:
        return
    try:
        await requests.upsert(collection, rows)
    except Rejected as error:
        if len(rows) == 1:
            report.failed[ids[0]] = str(error)
            return
        half = len(rows) // 2
        await _write(collection, rows[:half], ids[:half], report)
        await _write(collection, rows[half:], ids[half:], report)
    else:
        report.written += len(rows)
