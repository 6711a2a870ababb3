"""The operation that gives an existing multivector collection its FDEs, in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_adapters import filling
from muvera_adapters.documents import slices
from muvera_adapters.errors import CollectionNotFound, InvalidInput, Rejected
from muvera_adapters.filling import Place, Stored
from muvera_adapters.ids import ID_KEY
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.prepare import check_matrix
from muvera_adapters.qdrant.reading import user_payload
from muvera_adapters.qdrant.requests import Count, Fetch, Flush, Page, Point, Row, Sample, SetVectors, Where
from muvera_adapters.results import BackfillReport
from muvera_adapters.stores.operations import Operation, seconds

_FIRST_PAGE = 16
_LARGEST_PAGE = 1_000


async def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Collection]],
    dry_run: bool,
    progress: bool,
    shard_key: Any = None,
) -> tuple[BackfillReport, Collection]:
    """Writes the missing FDEs; returns also what is then known of the collection.

    Every pass goes through the points without an FDE in the order of ids; passes are repeated until one finds none, so
    points that others add meanwhile are done too, and a run after a kill does only what is left.
    """
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to encode")
    report = await _survey(collection, shard_key)
    report.dry_run = dry_run
    if dry_run:
        return report, collection
    started = seconds()
    if not collection.has_fde:
        collection = await add_fde()
    with tqdm(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while await _pass(collection, report, bar, shard_key):
            pass
    report.verified = await filling.verify(place(collection, shard_key), report)
    await Flush(collection.name)
    report.remaining = await Count(collection.name, _todo(collection), shard_key)
    report.seconds = seconds() - started
    return report, collection


async def check_adopted(collection: Collection) -> None:
    """Raises EncoderMismatch unless FDEs that someone else wrote are those of this encoder."""
    if collection.tokens is not None and collection.has_fde:
        await filling.check_adopted(place(collection))


def place(collection: Collection, shard_key: Any = None) -> Place:
    """The collection, as a backfill reads and writes it."""
    assert collection.tokens is not None
    tokens = collection.tokens

    async def sample(size: int) -> list[Stored]:
        both = (collection.fde, tokens)
        return [to_stored(collection, row) for row in (await Sample(collection.name, Where(has=both), size, both))]

    async def read(keys: list[Any]) -> list[Stored]:
        rows = await Fetch(collection.name, keys, [ID_KEY], (tokens,), shard_key)
        return [to_stored(collection, row) for row in rows if tokens in row.vectors]

    async def write(fdes: list[tuple[Any, npt.NDArray[np.float32]]]) -> int:
        points = [Point(key, {collection.fde: fde}) for key, fde in fdes]
        sizes = [int(collection.encoder.dim * collection.wire.bytes_per_float)] * len(points)
        wrote = 0
        for i, j in slices(sizes, collection.wire.target):
            wrote += await _set(collection.name, points[i:j], shard_key)
        return wrote

    return Place(
        collection.name,
        collection.encoder,
        collection.fde,
        tokens,
        collection.cosine,
        partial(check_matrix, half=False),
        sample,
        read,
        write,
        _equal,
        collection.exclusive,
    )


def to_stored(collection: Collection, row: Row) -> Stored:
    """A row that has tokens."""
    assert collection.tokens is not None
    return Stored(row.id, user_payload(row)[0], row.vectors[collection.tokens], row.vectors.get(collection.fde))


async def _survey(collection: Collection, shard_key: Any) -> BackfillReport:
    """Counts what is to do, and measures the first page."""
    assert collection.tokens is not None
    report = BackfillReport()
    todo = _todo(collection)
    report.remaining = await Count(collection.name, todo, shard_key)
    report.without_tokens = await Count(collection.name, Where(lacks=(collection.tokens,)), shard_key)
    started = seconds()
    rows, _ = await Page(collection.name, todo, _FIRST_PAGE, None, [ID_KEY], (collection.tokens,), shard_key)
    read = seconds() - started
    documents = [to_stored(collection, row) for row in rows]
    await filling.estimate(place(collection, shard_key), documents, read, report)
    return report


async def _pass(collection: Collection, report: BackfillReport, bar: Any, shard_key: Any) -> int:
    assert collection.tokens is not None
    wrote, offset, limit = 0, None, _FIRST_PAGE
    while True:
        todo = _todo(collection)
        rows, offset = await Page(collection.name, todo, limit, offset, [ID_KEY], (collection.tokens,), shard_key)
        documents = [to_stored(collection, row) for row in rows]
        done = await filling.fill(place(collection, shard_key), documents, report)
        report.written += done
        wrote += done
        bar.update(done)
        if offset is None:
            return wrote
        if rows:
            floats = max(row.vectors[collection.tokens].size for row in rows)
            fitting = int(collection.wire.target / (floats * collection.wire.bytes_per_float))
            limit = max(1, min(fitting, 2 * limit, _LARGEST_PAGE))


async def _set(name: str, points: list[Point], shard_key: Any) -> int:
    """Writes vectors of points; those deleted meanwhile, which the database complains about, are left out."""
    try:
        await SetVectors(name, points, shard_key)
    except (CollectionNotFound, Rejected):
        if len(points) == 1:
            if await Fetch(name, [points[0].id], False, (), shard_key):
                raise
            return 0
        half = len(points) // 2
        first = await _set(name, points[:half], shard_key)
        return first + (await _set(name, points[half:], shard_key))
    return len(points)


def _todo(collection: Collection) -> Where:
    assert collection.tokens is not None
    return Where(has=(collection.tokens,), lacks=(collection.fde,) if collection.has_fde else ())


def _equal(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    # local mode normalises vectors under cosine distance again at every write, which may turn their last bits
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6)
