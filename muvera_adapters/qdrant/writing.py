"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from muvera_adapters.errors import CollectionNotFound, MuveraError, Rejected, StoreUnavailable
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import intake, to_points, unfit
from muvera_adapters.qdrant.reading import unindexed
from muvera_adapters.qdrant.requests import (
    Change,
    ClearPayload,
    Delete,
    DropVectors,
    Fetch,
    Flush,
    GetStatus,
    InsertPoints,
    Optimize,
    Page,
    Point,
    PointId,
    PutPayload,
    PutPoints,
    PutVectors,
    Settle,
    Status,
    Update,
    Upsert,
    Where,
)
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import ZeroRows, need_fde, prepare
from muvera_adapters.stores.ids import to_point_id
from muvera_adapters.stores.writing import WriteAccess, check_named, wait_until_idle

# number of attempts to write a batch whose documents were deleted meanwhile
_ROUNDS = 3


class _NoDocumentsFault(Exception):
    """Raised if the database rejects the batch for another reason than its documents."""

    def __init__(self, error: Rejected) -> None:
        super().__init__(str(error))
        self.error = error


async def upsert(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    progress: bool,
    shard_key: Any = None,
    *,
    vectors: Mapping[str, Sequence[Any]] | None = None,
    replace: bool = False,
    zero_rows: ZeroRows = "refuse",
) -> WriteReport:
    """Encodes and writes documents, batch after batch; searches see all of them when it returns.

    An existing document keeps what the call does not name; with ``replace`` it keeps nothing. Only new documents are
    written whole: for an existing point, the segment that it is in determines whether the database keeps or drops
    its other vectors and its payload.

    Raises:
        Rejected: the database also rejects requests without documents, for example because of a shard key.
    """
    need_fde(collection)
    names = (await GetStatus(collection.name, collection.fde)).vectors if vectors else ()
    takes = intake(collection, names)
    prepared = prepare(collection, ids, tokens, payloads, takes, vectors=vectors, zero_rows=zero_rows)
    # for an empty collection, no batch needs a read of ids; for a single batch, the check would cost as much
    empty = None if sum(prepared.sizes) > collection.wire.target else False
    asked, waited = False, True

    async def write(points: Sequence[Point], last: bool) -> dict[int, MuveraError]:
        nonlocal asked
        try:
            return await attempt(points, last)
        except Rejected:
            if not asked:
                asked = True
                try:
                    await Settle(collection.name, shard_key)
                except Rejected as error:
                    raise _NoDocumentsFault(error) from error
            raise

    async def attempt(points: Sequence[Point], last: bool) -> dict[int, MuveraError]:
        nonlocal names, waited, empty
        if empty is None:
            empty = await _is_empty(collection, shard_key)
        there = frozenset[str]() if empty else await _there(collection, points, shard_key)
        if there and replace and not names:
            names = (await GetStatus(collection.name, collection.fde)).vectors
        # a shard applies writes in order, and reports errors of the user's vectors only to requests that wait
        wait = last or bool(vectors)
        waited = waited and wait
        for turn in range(_ROUNDS):
            if not there:
                await Upsert(collection.name, points, wait, shard_key)
                return {}
            try:
                changes = _replaced(points, there, names) if replace else _merged(points, there, collection.uneven)
                await Update(collection.name, changes, wait, shard_key)
            except (CollectionNotFound, Rejected):
                # perhaps a document was deleted meanwhile
                still = await _there(collection, points, shard_key)
                if still == there or turn == _ROUNDS - 1:
                    raise
                there = still
            else:
                collection.seen.without_fde.forget()
                return {}
        return {}

    access = WriteAccess(
        collection.wire.target, partial(to_points, collection, prepared), write, partial(unfit, collection)
    )
    try:
        report = await writing.upsert(prepared, collection, access, progress)
    except _NoDocumentsFault as refusal:
        raise refusal.error from refusal.error.__cause__
    if not waited:  # the last batch may have had documents of only some shards
        await Settle(collection.name, shard_key)
    await Flush(collection.name)
    return report


async def _is_empty(collection: Collection, shard_key: Any) -> bool:
    # a page, as strict mode may forbid exact counts
    rows, _ = await Page(collection.name, Where(), 1, None, False, (), shard_key)
    return not rows


async def _there(collection: Collection, points: Sequence[Point], shard_key: Any) -> frozenset[str]:
    """Ids of existing points, as text."""
    rows = await Fetch(collection.name, [point.id for point in points], False, (), shard_key)
    return frozenset(str(row.id) for row in rows)


def _merged(points: Sequence[Point], there: frozenset[str], uneven: bool) -> list[Change]:
    """New points whole; of existing ones, the given vectors and top-level keys of the payload."""
    new = [point for point in points if str(point.id) not in there]
    old = [point for point in points if str(point.id) in there]
    changes: list[Change] = [PutPoints(new)] if new else []
    if uneven:  # a replica that lacks a point leaves out the changes of its vectors without a word
        changes.append(InsertPoints(old))
    changes.append(PutVectors(old))
    changes += [PutPayload([point.id], point.payload) for point in old if point.payload]
    return changes


def _replaced(points: Sequence[Point], there: frozenset[str], names: Sequence[str]) -> list[Change]:
    """Whole points, after other vectors and keys of the old ones are removed."""
    old = [point for point in points if str(point.id) in there]
    dropped: dict[tuple[str, ...], list[PointId]] = {}
    for point in old:
        unnamed = tuple(name for name in names if name not in point.vectors and name not in point.others)
        dropped.setdefault(unnamed, []).append(point.id)
    changes: list[Change] = [DropVectors(ids, unnamed) for unnamed, ids in dropped.items() if unnamed]
    return [*changes, ClearPayload([point.id for point in old]), PutPoints(points)]


async def delete(
    collection: Collection,
    ids: Sequence[DocumentId] | None,
    chosen: Any,
    shard_key: Any = None,
    *,
    everything: bool = False,
) -> None:
    """Deletes documents by ids or by filter, or all of them."""
    check_named(ids, chosen, everything, matches_all=chosen is not None and _matches_all(chosen))
    if ids is not None and not len(ids):
        return
    points = None if ids is None else [to_point_id(document_id, i)[0] for i, document_id in enumerate(ids)]
    await Delete(collection.name, points, Where(chosen), shard_key)
    collection.seen.without_fde.forget()
    await Flush(collection.name)


def _matches_all(chosen: Any) -> bool:
    """Whether a filter of the database's own type has no conditions."""
    return not any(getattr(chosen, part, None) for part in ("must", "should", "must_not", "min_should"))


async def wait_indexed(collection: Collection, timeout: float | None) -> int | None:
    """Waits until the database has finished indexing; returns the number of documents without index."""
    return await unindexed(collection, await wait_until_idle(collection.name, partial(_status, collection), timeout))


async def _status(collection: Collection) -> tuple[Status, str | None]:
    """The status, and what the database is doing (None: nothing)."""
    state = await GetStatus(collection.name, collection.fde)
    if state.status == "grey":  # indexing waits for a request
        await Optimize(collection.name)
        state = await GetStatus(collection.name, collection.fde)
    if state.status == "red":
        raise StoreUnavailable(f"{collection.name} is in state red: the server's log says why it cannot index")
    return state, None if state.status == "green" else f"{state.status} (indexing)"
