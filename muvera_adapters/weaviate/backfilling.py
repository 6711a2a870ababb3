"""The operation that gives an existing multi-vector collection its FDEs, in place."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from weaviate.collections.classes.config_vector_index import VectorIndexConfigCreate

from muvera_adapters.results import BackfillReport, VerifyReport
from muvera_adapters.stores import backfilling
from muvera_adapters.stores.backfilling import BackfillAccess, Stored, backfill_passes
from muvera_adapters.stores.checks import need_fde, need_tokens
from muvera_adapters.stores.operations import Together, seconds
from muvera_adapters.weaviate import lifecycle
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.ids import FDE_KEY
from muvera_adapters.weaviate.prepare import check_matrix
from muvera_adapters.weaviate.reading import document_id_of, fetch_all, fitting, look_at_unmarked, tokens_of
from muvera_adapters.weaviate.requests import Row, Write, count, count_marked, page
from muvera_adapters.weaviate.schema import Quantization
from muvera_adapters.weaviate.writing import AT_ONCE, patch

_PAGE = 1_000
_WRITE = 64
_FIRST = 64


async def backfill(
    collection: Collection,
    quantization: Quantization,
    index: VectorIndexConfigCreate | None,
    dry_run: bool,
    progress: bool,
    refresh: bool,
) -> tuple[Collection, BackfillReport]:
    """Writes the missing FDEs; returns the collection with its FDE vector."""
    need_tokens(collection, ": there is nothing to encode")
    collection = await lifecycle.refreshed(collection)
    report = await _survey(collection)
    report.dry_run = dry_run
    if dry_run:
        return collection, report
    started = seconds()
    collection = await lifecycle.add_fde(collection, quantization, index)
    one_pass = partial(_pass, collection, report)
    await backfill_passes(_access(collection), one_pass, report, progress, refresh=refresh)
    collection = await lifecycle.finish(collection)
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return collection, report


async def check_adopted(collection: Collection) -> int:
    """Number of FDEs of another program in a sample; 1 if there are no tokens to compare them with.

    Raises:
        EncoderMismatch: the FDEs are those of another encoder.
    """
    if collection.tokens is None:
        return 1
    return await backfilling.check_adopted(_access(collection), by_cosine=collection.fde_info.distance == "cosine")


async def verify(collection: Collection, limit: int | None, progress: bool) -> VerifyReport:
    """Compares the FDE of every document with its tokens; nothing is written."""
    need_tokens(collection, ": there is nothing to compare with")
    need_fde(collection)
    return await backfilling.verify_all(_access(collection), limit, progress)


def _access(collection: Collection) -> BackfillAccess:
    """The reads and writes that a backfill needs."""

    async def read(keys: list[Any]) -> list[Stored]:
        return with_tokens(collection, await fetch_all(collection, keys, False, _tokens(collection)))

    async def write(fdes: list[tuple[Any, npt.NDArray[np.float32]]]) -> int:
        # a patch keeps properties, references and other vectors; there is no patch of many objects
        patches = [patch(Write(key, {FDE_KEY: collection.fde}, {collection.fde: fde})) for key, fde in fdes]
        return sum(await Together(patches, AT_ONCE))

    async def next_page(after: Any) -> tuple[list[Stored], Any]:
        size = min(_WRITE, await fitting(collection))
        rows = await page(collection, size, after, False, (*_tokens(collection), collection.fde))
        return with_tokens(collection, rows), rows[-1].id if len(rows) == size else None

    return BackfillAccess(collection, check_matrix, partial(_sample, collection), read, write, next_page)


async def _sample(collection: Collection, size: int) -> list[Stored]:
    """Objects after a random id; the first ones if too few follow it."""
    names = [*_tokens(collection), *([collection.fde] if collection.fde_exists else [])]
    size = min(size, await fitting(collection))
    rows = await page(collection, size, str(uuid.uuid4()), False, names)
    if len(rows) < size:
        rows = await page(collection, size, None, False, names)
    return with_tokens(collection, rows)


def _tokens(collection: Collection) -> Sequence[str]:
    return () if collection.tokens is None else (collection.tokens,)


def with_tokens(collection: Collection, rows: Sequence[Row]) -> list[Stored]:
    """Rows that have tokens."""
    return [
        Stored(row.id, document_id_of(row), tokens, row.vectors.get(collection.fde))
        for row in rows
        if (tokens := tokens_of(collection, row)) is not None
    ]


async def _survey(collection: Collection) -> BackfillReport:
    """Counts what is left to do, and measures a page."""
    report = BackfillReport()
    unmarked = await look_at_unmarked(collection, await count())
    report.without_tokens = unmarked.total - unmarked.with_tokens
    report.remaining = unmarked.with_tokens - unmarked.with_fde
    started = seconds()
    documents = await _sample(collection, _FIRST)
    read = seconds() - started
    await backfilling.estimate(_access(collection), documents, read, report)
    return report


async def _pass(collection: Collection, report: BackfillReport, bar: Any) -> int:
    """Goes through objects without our mark, in the order of ids; returns the number of FDEs written."""
    report.without_tokens, wrote, after = 0, 0, None
    while True:
        rows = await page(collection, _PAGE, after, [FDE_KEY])
        todo = [row.id for row in rows if row.properties.get(FDE_KEY) != collection.fde]
        step = min(_WRITE, await fitting(collection))
        for i in range(0, len(todo), step):
            full = await fetch_all(collection, todo[i : i + step], False, (*_tokens(collection), collection.fde))
            # FDEs of another program were compared with this encoder's when the collection was adopted
            lacking = [row for row in full if not (collection.has_fde and collection.fde in row.vectors)]
            documents = with_tokens(collection, lacking)
            report.without_tokens += len(lacking) - len(documents)
            done = await backfilling.fill(_access(collection), documents, report)
            report.written += done
            wrote += done
            bar.update(done)
        if len(rows) < _PAGE:
            break
        after = rows[-1].id
    if wrote and await count_marked(collection) == await count():
        return 0
    return wrote
