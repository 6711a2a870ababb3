"""The operation that gives an existing multivector collection its FDEs, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import CollectionNotFound, MuveraError, Rejected
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import check_matrix
from muvera_adapters.qdrant.reading import count_vectors, read_page, user_payload
from muvera_adapters.qdrant.requests import Fetch, Flush, Page, Point, PutVectors, Row, Sample, Update, Where
from muvera_adapters.results import BackfillReport, VerifyReport
from muvera_adapters.stores import backfilling
from muvera_adapters.stores.backfilling import BackfillAccess, Stored, backfill_passes, verify_all
from muvera_adapters.stores.checks import need_tokens
from muvera_adapters.stores.ids import ID_KEY
from muvera_adapters.stores.operations import Operation, seconds
from muvera_adapters.stores.writing import halving, slices

_FIRST_PAGE = 16
_LARGEST_PAGE = 1_000


async def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Collection]],
    keep: Callable[[Collection], Operation[Collection]],
    dry_run: bool,
    progress: bool,
    shard_key: Any = None,
    *,
    refresh: bool = False,
) -> tuple[BackfillReport, Collection]:
    """Writes the missing FDEs; also returns the new description of the collection.

    ``keep`` stores this encoder in the collection, after a new FDE vector beside another one has been filled.

    Every pass goes through the points without an FDE, in the order of ids. Passes are repeated until one finds none, so
    points that others add meanwhile are included, and a run after a kill does only what is left.
    """
    need_tokens(collection, ": there is nothing to encode")
    report = await _survey(collection, shard_key)
    report.dry_run = dry_run
    if dry_run:
        return report, collection
    started = seconds()
    if not collection.has_fde:
        collection = await add_fde()
    one_pass = partial(_pass, collection, report, shard_key)
    await backfill_passes(access(collection, shard_key), one_pass, report, progress, refresh=refresh)
    await Flush(collection.name)
    if not collection.kept:
        collection = await keep(collection)
    report.remaining = await count_vectors(collection, _todo(collection), shard_key)
    report.seconds = seconds() - started
    return report, collection


async def check_adopted(collection: Collection) -> None:
    """Raises EncoderMismatch unless the FDEs of another program are those of this encoder."""
    if collection.tokens is not None and collection.has_fde:
        await backfilling.check_adopted(access(collection), by_cosine=collection.fde_cosine)


async def verify(collection: Collection, limit: int | None, progress: bool, shard_key: Any = None) -> VerifyReport:
    """Compares FDEs with the stored tokens."""
    need_tokens(collection, ": there is nothing to compare FDEs with")
    return await verify_all(access(collection, shard_key), limit, progress)


def access(collection: Collection, shard_key: Any = None) -> BackfillAccess:
    """The reads and writes of a backfill of the collection."""
    assert collection.tokens is not None
    tokens = collection.tokens

    async def sample(size: int) -> list[Stored]:
        both = (collection.fde, tokens)
        return [to_stored(collection, row) for row in (await Sample(collection.name, Where(has=both), size, both))]

    async def read(keys: list[Any]) -> list[Stored]:
        rows = await Fetch(collection.name, keys, [ID_KEY], (tokens,), shard_key)
        return [to_stored(collection, row) for row in rows if tokens in row.vectors]

    async def page(cursor: Any) -> tuple[list[Stored], Any]:
        offset, limit = (None, _FIRST_PAGE) if cursor is None else cursor
        names = (collection.fde, tokens) if collection.has_fde else (tokens,)
        rows, offset = await read_page(collection, Where(has=(tokens,)), limit, offset, [ID_KEY], names, shard_key)
        following = None if offset is None else (offset, _next_limit(collection, rows, limit))
        return [to_stored(collection, row) for row in rows], following

    async def write(fdes: list[tuple[Any, npt.NDArray[np.float32]]]) -> int:
        points = [Point(key, {collection.fde: fde}) for key, fde in fdes]
        sizes = [int(collection.encoder.dim * collection.wire.bytes_per_float)] * len(points)
        wrote = 0
        for i, j in slices(sizes, collection.wire.target):
            wrote += await _set(collection, points[i:j], shard_key)
        return wrote

    return BackfillAccess(
        collection,
        partial(check_matrix, half=False),
        sample,
        read,
        write,
        page,
        _equal,
        collection.exclusive,
    )


def to_stored(collection: Collection, row: Row) -> Stored:
    """A row that has tokens."""
    assert collection.tokens is not None
    return Stored(row.id, user_payload(row)[0], row.vectors[collection.tokens], row.vectors.get(collection.fde))


async def _survey(collection: Collection, shard_key: Any) -> BackfillReport:
    """Counts what is left to do, and measures the first page."""
    assert collection.tokens is not None
    report = BackfillReport()
    todo = _todo(collection)
    report.remaining = await count_vectors(collection, todo, shard_key)
    report.without_tokens = await count_vectors(collection, Where(lacks=(collection.tokens,)), shard_key)
    started = seconds()
    rows, _ = await Page(collection.name, todo, _FIRST_PAGE, None, [ID_KEY], (collection.tokens,), shard_key)
    read = seconds() - started
    documents = [to_stored(collection, row) for row in rows]
    await backfilling.estimate(access(collection, shard_key), documents, read, report)
    return report


async def _pass(collection: Collection, report: BackfillReport, shard_key: Any, bar: Any) -> int:
    assert collection.tokens is not None
    wrote, offset, limit = 0, None, _FIRST_PAGE
    while True:
        rows, offset = await read_page(
            collection, _todo(collection), limit, offset, [ID_KEY], (collection.tokens,), shard_key
        )
        documents = [to_stored(collection, row) for row in rows]
        done = await backfilling.fill(access(collection, shard_key), documents, report)
        report.written += done
        wrote += done
        bar.update(done)
        if offset is None:
            return wrote
        limit = _next_limit(collection, rows, limit)


def _next_limit(collection: Collection, rows: Sequence[Row], limit: int) -> int:
    """Number of points of the next page, for a reply of about as many bytes as a batch of a write."""
    if not rows:
        return limit
    floats = max(sum(each.size for each in row.vectors.values()) for row in rows)
    fitting = int(collection.wire.target / (max(1, floats) * collection.wire.bytes_per_float))
    return max(1, min(fitting, 2 * limit, _LARGEST_PAGE))


async def _set(collection: Collection, points: list[Point], shard_key: Any) -> int:
    """Writes vectors of points; points that were deleted meanwhile are left out after the database's error."""

    async def write(some: Sequence[Point]) -> dict[int, MuveraError]:
        await Update(collection.name, [PutVectors(some)], True, shard_key)
        return {}

    rejected = await halving(write, points, (CollectionNotFound, Rejected), collection.seen.written_at_once)
    for position, error in rejected.items():
        if await Fetch(collection.name, [points[position].id], False, (), shard_key):
            raise error
    return len(points) - len(rejected)


def _todo(collection: Collection) -> Where:
    assert collection.tokens is not None
    return Where(has=(collection.tokens,), lacks=(collection.fde,) if collection.has_fde else ())


def _equal(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    # under cosine distance, local mode normalises vectors at every write, which may change their last bits
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6)
