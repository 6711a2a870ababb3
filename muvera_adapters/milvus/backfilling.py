"""The operation that gives an existing collection its FDEs in place, where the server can add a vector field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import MuveraError, Rejected, Unsupported
from muvera_adapters.milvus import requests
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import both
from muvera_adapters.milvus.merging import update
from muvera_adapters.milvus.reading import Cursor, document_id_of, fetch_all, fitting, marked_by, next_keys
from muvera_adapters.milvus.requests import Row, vector
from muvera_adapters.results import BackfillReport, VerifyReport
from muvera_adapters.stores import backfilling
from muvera_adapters.stores.backfilling import BackfillAccess, Stored, backfill_passes
from muvera_adapters.stores.checks import check_encodable, need_fde, need_tokens
from muvera_adapters.stores.operations import Operation, seconds
from muvera_adapters.stores.writing import halving

_PAGE = 256
_FIRST = 64


async def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Collection]],
    write_state: Callable[[Collection], Operation[None]],
    dry_run: bool,
    progress: bool,
    refresh: bool = False,
) -> tuple[BackfillReport, Collection]:
    """Adds the FDE field, writes the missing FDEs and then the state; also returns the new collection.

    Passes go over the documents without our mark, so a run after a kill does only what is left. ``refresh`` compares
    the FDEs of all documents with their tokens.
    """
    report = await survey(collection)
    report.dry_run = dry_run
    complete = collection.has_fde and not collection.marker  # FDEs were written with the documents
    if dry_run or (complete and not refresh):
        return report, collection
    started = seconds()
    if complete:
        await backfill_passes(access(collection), _nothing_missing, report, progress, refresh=True)
    else:
        collection = await add_fde()
        one_pass = partial(_pass, collection, report)
        await backfill_passes(access(collection), one_pass, report, progress, refresh=refresh)
        await write_state(collection)
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return report, replace(collection, has_fde=True)


async def check_adopted(collection: Collection) -> int:
    """Number of documents in a sample that have FDEs of another program.

    Raises:
        EncoderMismatch: the FDEs are not those of this encoder.
    """
    if collection.tokens is None:
        return 1
    return await backfilling.check_adopted(access(collection), by_cosine=collection.fde_metric == "COSINE")


async def verify(collection: Collection, limit: int | None, progress: bool) -> VerifyReport:
    """Compares FDEs with stored tokens, and writes nothing."""
    need_tokens(collection, ": there is nothing to compare")
    need_fde(collection)
    return await backfilling.verify_all(access(collection), limit, progress)


async def without_fde(collection: Collection) -> int:
    """Number of documents that no search finds.

    Raises:
        Unsupported: no expression can count them, as the FDE field may be empty and has no mark of ours.
    """
    if collection.marker:
        missing = _todo(collection)
        # no expression is known that finds empty struct arrays in every version
        return await requests.count(
            collection, both(missing, f'{collection.blobs[0]} != ""') if collection.storage == "blob" else missing
        )
    if collection.nullable:
        raise Unsupported(f"{collection.name}: no filter of Milvus finds empty vectors")
    return 0  # every document must have one


async def clear(collection: Collection) -> bool:
    """Removes our FDEs and marks, if their fields may be empty; returns whether that was possible."""
    empty = {collection.fde: None, collection.mark: None}
    try:
        while True:
            keys, _ = await next_keys(collection, f"{collection.mark} is not null", _PAGE, None)
            if not keys:
                rows = await requests.page(collection, _FIRST, None, [collection.fde])
                return not any(row.fde is not None and row.fde.any() for row in rows)
            await requests.patch(collection, [{collection.key: key, **empty} for key in keys])
    except (Rejected, Unsupported):
        return False


async def survey(collection: Collection) -> BackfillReport:
    """Counts what is left to do, and measures a page."""
    need_tokens(collection, ": there is nothing to encode")
    report = BackfillReport()
    if not collection.has_fde or collection.marker:
        report.remaining = await requests.count(collection, _todo(collection))
    started = seconds()
    documents = await _sample(collection, _FIRST)
    read = seconds() - started
    await backfilling.estimate(access(collection), documents, read, report)
    return report


def access(collection: Collection) -> BackfillAccess:
    """The reads and writes of a backfill of the collection."""

    async def read(keys: list[Any]) -> list[Stored]:
        rows = await fetch_all(collection, keys, collection.token_fields, strong=True)
        return to_stored(collection, rows)

    async def write(fdes: list[tuple[Any, npt.NDArray[np.float32]]]) -> int:
        marks = {collection.mark: collection.fde} if collection.marker else {}
        values = [{collection.key: key, collection.fde: vector(collection, fde), **marks} for key, fde in fdes]
        if collection.marker or collection.server.merges:
            return await _patch(collection, values)
        return await update(collection, values)

    async def page(cursor: Cursor) -> tuple[list[Stored], Cursor]:
        size = min(_PAGE, await fitting(collection))
        keys, following = await next_keys(collection, "", size, cursor)
        fields = [*collection.token_fields, collection.fde]
        rows = await fetch_all(collection, keys, fields, strong=True)
        return to_stored(collection, rows), following

    return BackfillAccess(collection, check_encodable, partial(_sample, collection), read, write, page)


def to_stored(collection: Collection, rows: Sequence[Row]) -> list[Stored]:
    """The rows that have tokens, which may be unreadable.

    A document without a valid FDE gets a zero FDE, as some fields cannot be null.
    """
    documents = []
    for row in rows:
        if row.tokens is None and not row.problem:
            continue
        tokens = np.empty((0, collection.encoder.token_dim), np.float32) if row.tokens is None else row.tokens
        fde = row.fde if row.fde is not None and row.fde.any() else None
        documents.append(Stored(row.key, document_id_of(collection, row), tokens, fde, row.problem))
    return documents


async def _sample(collection: Collection, size: int) -> list[Stored]:
    """The first documents; the order of keys is the only order in Milvus."""
    fields = [*collection.token_fields, *([collection.fde] if collection.fde_exists else [])]
    size = min(size, await fitting(collection))
    keys, _ = await next_keys(collection, "", size, None)
    rows = await fetch_all(collection, keys, fields, strong=True)
    return to_stored(collection, rows)


async def _pass(collection: Collection, report: BackfillReport, bar: Any) -> int:
    """Goes through all documents without our mark; returns how many FDEs were written."""
    cursor: Cursor = None
    report.without_tokens, wrote = 0, 0
    while True:
        size = min(_PAGE, await fitting(collection))
        keys, cursor = await next_keys(collection, _todo(collection), size, cursor)
        rows = await fetch_all(collection, keys, collection.token_fields, strong=True)
        documents = to_stored(collection, rows)
        report.without_tokens += len(rows) - len(documents)
        done = await backfilling.fill(access(collection), documents, report)
        report.written += done
        wrote += done
        bar.update(done)
        if cursor is None:
            return wrote


async def _patch(collection: Collection, values: Sequence[dict[str, Any]]) -> int:
    """Writes fields of documents; documents that were deleted meanwhile are left out after the server's error."""

    async def write(some: Sequence[dict[str, Any]]) -> dict[int, MuveraError]:
        try:
            await requests.patch(collection, some)
        except Rejected as error:
            keys = [each[collection.key] for each in some]
            if len(keys) == 1 and await requests.fetch(collection, keys, (), strong=True):
                raise Unsupported(
                    f"{collection.server.engine} does not update single fields of {collection.name} (struct arrays: "
                    f"since 2.6.20): use backfill(into=...); {error}"
                ) from error
            raise
        return {}

    return len(values) - len(await halving(write, values))


async def _nothing_missing(_: Any) -> int:
    return 0


def _todo(collection: Collection) -> str:
    """Expression for documents without our mark; "" (all) if there are no marks."""
    if not (collection.marker and collection.fde_exists):
        return ""
    return f"{collection.mark} is null or not ({marked_by(collection)})"
