"""The operation that gives an existing table its FDEs, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muvera_adapters.errors import SchemaMismatch, Unsupported
from muvera_adapters.lancedb import arrow
from muvera_adapters.lancedb import requests as r
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.expressions import both, column
from muvera_adapters.lancedb.reading import Cursor, fetch_all, lacks_tokens, next_keys
from muvera_adapters.lancedb.requests import READ_BYTES, TOKENS_AT_ONCE, Row
from muvera_adapters.results import BackfillReport, VerifyReport
from muvera_adapters.stores import backfilling
from muvera_adapters.stores.backfilling import BackfillAccess, Stored, backfill_passes
from muvera_adapters.stores.checks import check_encodable, need_fde, need_tokens
from muvera_adapters.stores.keys import from_key
from muvera_adapters.stores.operations import Operation, seconds

_PAGE = TOKENS_AT_ONCE
_FIRST = 64


async def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Collection]],
    keep_state: Callable[[Collection], Operation[None]],
    dry_run: bool,
    progress: bool,
    refresh: bool,
) -> tuple[BackfillReport, Collection]:
    """Adds the FDE column, writes the missing FDEs and then the state; returns the collection as it is then, too."""
    need_tokens(collection, ": there is nothing to encode")
    report = await _survey(collection)
    report.dry_run = dry_run
    if dry_run:
        return report, collection
    started = seconds()
    collection = await add_fde()
    await backfill_passes(_access(collection), partial(_pass, collection, report), report, progress, refresh=refresh)
    await keep_state(collection)
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return report, collection


async def check_adopted(collection: Collection) -> int:
    """The number of documents of a sample that have FDEs, which someone else wrote.

    Raises:
        EncoderMismatch: they are not of this encoder.
    """
    if collection.tokens is None:
        return 1
    return await backfilling.check_adopted(_access(collection), by_cosine=False)


async def verify(collection: Collection, limit: int | None, progress: bool) -> VerifyReport:
    """Compares FDEs with stored tokens, and writes nothing."""
    need_tokens(collection, ": there is nothing to compare")
    need_fde(collection)
    return await backfilling.verify_all(_access(collection), limit, progress)


async def without_fde(collection: Collection) -> int:
    """Number of documents that no search finds though they have tokens.

    Raises:
        Unsupported: the FDEs, which have to be read for it, are too large to be read beside a search.
    """
    size = await r.count(collection) * collection.encoder.dim * collection.fde_type.bit_width // 8
    if size > READ_BYTES:
        raise Unsupported(f"{collection.name}: {size / 1e9:.1f} GB of FDEs would have to be read")
    lacking = await r.count(collection, f"{column(collection.fde)} IS NULL")
    return await r.count(collection, _todo(collection)) if lacking else 0


def stored(collection: Collection, rows: Sequence[Row]) -> list[Stored]:
    """Those that have tokens."""
    return [
        Stored(row.key, from_key(row.key, collection.keys), row.tokens, row.fde)
        for row in rows
        if row.tokens is not None
    ]


async def _survey(collection: Collection) -> BackfillReport:
    """Counts what is to do, and measures a page."""
    report = BackfillReport()
    report.remaining = await r.count(collection, _todo(collection))
    started = seconds()
    documents = await _sample(collection, _FIRST)
    read = seconds() - started
    await backfilling.estimate(_access(collection), documents, read, report)
    return report


def _access(collection: Collection) -> BackfillAccess:
    async def read(keys: list[Any]) -> list[Stored]:
        return stored(collection, await fetch_all(collection, keys, [str(collection.tokens)]))

    async def write(fdes: list[tuple[Any, npt.NDArray[np.float32]]]) -> int:
        kind = arrow.fde_type(collection.fde_type, collection.encoder.dim)
        keys = pa.array([key for key, _ in fdes], pa.int64() if collection.keys == "integer" else pa.string())
        columns = {collection.key: keys, collection.fde: arrow.vectors(np.stack([fde for _, fde in fdes]), kind)}
        return await r.merge(collection, arrow.keyed(columns, collection.key), insert=False)

    async def page(cursor: Cursor) -> tuple[list[Stored], Cursor]:
        keys, following = await next_keys(collection, "", _PAGE, cursor)
        rows = await fetch_all(collection, keys, [str(collection.tokens), collection.fde])
        return stored(collection, rows), following

    return BackfillAccess(collection, check_encodable, partial(_sample, collection), read, write, page)


async def _sample(collection: Collection, size: int) -> list[Stored]:
    """Documents of all parts of the table, in the order of keys."""
    keys = await r.all_keys(collection, "")
    twice = next((key for key, following in pairwise(keys) if key == following), None)
    if twice is not None:
        raise SchemaMismatch(
            f"{collection.name}: several rows have the id {twice!r:.80} in the column {collection.key!r}: make ids "
            "unique, or adopt the table with another id_column="
        )
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, min(size, len(keys)), dtype=int))]
    columns = [str(collection.tokens), *([collection.fde] if collection.fde_exists else [])]
    return stored(collection, await fetch_all(collection, chosen, columns))


async def _pass(collection: Collection, report: BackfillReport, bar: Any) -> int:
    """Goes through all documents without an FDE; returns how many FDEs were written."""
    cursor: Cursor = None
    lacking = await r.count(collection, both(f"{column(collection.fde)} IS NULL", lacks_tokens(collection)))
    report.without_tokens, wrote = lacking, 0
    while True:
        keys, cursor = await next_keys(collection, _todo(collection), _PAGE, cursor)
        documents = stored(collection, await fetch_all(collection, keys, [str(collection.tokens)]))
        done = await backfilling.fill(_access(collection), documents, report)
        report.written += done
        wrote += done
        bar.update(done)
        if cursor is None:
            return wrote


def _todo(collection: Collection) -> str:
    """A filter for documents that have tokens and no FDE."""
    lacking = f"{column(collection.fde)} IS NULL" if collection.fde_exists else "true"
    return lacking if collection.tokens is None else both(lacking, f"NOT ({lacks_tokens(collection)})")
