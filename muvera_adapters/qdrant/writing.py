"""Operations that write documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from muvera_adapters.documents import interrupted, slices
from muvera_adapters.errors import InvalidInput, Rejected, StoreUnavailable
from muvera_adapters.ids import to_point_id
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import overflowing, prepare, to_points
from muvera_adapters.qdrant.reading import need_fde
from muvera_adapters.qdrant.requests import Delete, Flush, GetStatus, Optimize, Point, Upsert, Where
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores.operations import Compute, Pause, seconds


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
    documents = prepare(collection, ids, tokens, payloads)
    report = WriteReport()
    with tqdm(total=len(documents.ids), unit="doc", desc="upsert", disable=not progress) as bar:
        for i, j in slices(documents.sizes, collection.wire.target):
            fdes = await Compute(partial(collection.encoder.encode_documents, documents.tokens[i:j]))
            points, written_ids = to_points(collection, documents, i, j, fdes), documents.ids[i:j]
            for k in reversed(overflowing(collection, fdes)):
                report.failed[written_ids.pop(k)] = "its FDE exceeds float16: normalize tokens, or datatype=float32"
                points.pop(k)
            # the database applies writes in order: waiting for the last is waiting for all
            last = j == len(documents.ids)
            try:
                await _write(collection.name, points, written_ids, report, last, shard_key)
            except StoreUnavailable as error:
                raise interrupted(error, report, documents.ids, i) from (error.__cause__ or error)
            bar.update(j - i)
    await Flush(collection.name)
    return report


async def delete(collection: Collection, ids: Sequence[DocumentId] | None, chosen: Any, shard_key: Any = None) -> None:
    """Deletes documents by ids or by filter."""
    if (ids is None) == (chosen is None):
        raise InvalidInput("give either ids or filter=, and not both: what is deleted must be named")
    if ids is not None and not len(ids):
        return
    points = None if ids is None else [to_point_id(document_id, i)[0] for i, document_id in enumerate(ids)]
    await Delete(collection.name, points, Where(chosen), shard_key)
    await Flush(collection.name)


async def wait_indexed(collection: Collection, timeout: float | None) -> None:
    """Returns when nothing is left to index."""
    deadline = None if timeout is None else seconds() + timeout
    pause = 0.1
    while (state := (await GetStatus(collection.name, collection.fde))).status != "green":
        if state.status == "red":
            raise StoreUnavailable(f"{collection.name} is in state red: the server's log says why it cannot index")
        if state.status == "grey":  # nothing is being done until it is asked for
            await Optimize(collection.name)
            continue
        if deadline is not None and seconds() + pause > deadline:
            raise StoreUnavailable(f"{collection.name} is still {state.status} after {timeout:g} s of indexing")
        await Pause(pause)
        pause = min(2 * pause, 2.0)


async def _write(
    name: str, points: list[Point], ids: list[DocumentId], report: WriteReport, wait: bool, shard_key: Any
) -> None:
    """Writes a batch; where the database refuses it, halves it until the refused documents stand alone."""
    if not points:
        return
    try:
        await Upsert(name, points, wait, shard_key)
    except Rejected as error:
        if len(points) == 1:
            report.failed[ids[0]] = str(error)
            return
        half = len(points) // 2
        await _write(name, points[:half], ids[:half], report, wait, shard_key)
        await _write(name, points[half:], ids[half:], report, wait, shard_key)
    else:
        report.written += len(points)
