"""The operation that gives an existing multi-vector collection its FDEs, in place."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_adapters import filling
from muvera_adapters.errors import InvalidInput
from muvera_adapters.filling import Place, Stored
from muvera_adapters.results import BackfillReport
from muvera_adapters.stores.operations import Operation, Together, seconds
from muvera_adapters.weaviate.documents import check_matrix
from muvera_adapters.weaviate.identity import FDE_KEY
from muvera_adapters.weaviate.reading import document_id_of, fetch_all, fitting, look_at_unmarked
from muvera_adapters.weaviate.requests import Collection, Row, Write, count, count_marked, page
from muvera_adapters.weaviate.writing import AT_ONCE, patch

_PAGE = 1_000
_WRITE = 64
_FIRST = 64


async def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Callable[[], Operation[None]]]],
    dry_run: bool,
    progress: bool,
) -> BackfillReport:
    """Writes the missing FDEs.

    Every pass goes through the objects without our mark in the order of ids; passes are repeated until one writes
    nothing, so objects that others add meanwhile are done too, and a run after a kill does only what is left.
    """
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to encode")
    report = await _survey(collection)
    report.dry_run = dry_run
    if dry_run:
        return report
    started = seconds()
    finish = await add_fde()
    with tqdm(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while await _pass(collection, report, bar):
            pass
    report.verified = await filling.verify(_place(collection), report)
    await finish()
    collection.has_fde = True
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return report


async def check_adopted(collection: Collection) -> int:
    """How many of a sample have FDEs, which someone else wrote.

    Raises:
        EncoderMismatch: they are not of this encoder.
    """
    if collection.tokens is None:
        return 1
    return await filling.check_adopted(_place(collection))


def _place(collection: Collection) -> Place:
    """The collection, as a backfill reads and writes it."""
    assert collection.tokens is not None
    tokens = collection.tokens

    async def read(keys: list[Any]) -> list[Stored]:
        rows = await fetch_all(collection, keys, False, (tokens,))
        return [_to_stored(collection, row) for row in rows if tokens in row.vectors]

    async def write(fdes: list[tuple[Any, npt.NDArray[np.float32]]]) -> int:
        # a patch keeps properties, references and other vectors; it has no form for many objects
        patches = [patch(Write(key, {FDE_KEY: collection.fde}, {collection.fde: fde})) for key, fde in fdes]
        return sum(await Together(patches, AT_ONCE))

    return Place(
        collection.name,
        collection.encoder,
        collection.fde,
        tokens,
        collection.cosine,
        check_matrix,
        partial(_sample, collection),
        read,
        write,
    )


async def _sample(collection: Collection, size: int) -> list[Stored]:
    """Objects after an id drawn at random, or the first where there are few."""
    assert collection.tokens is not None
    names = (collection.tokens, collection.fde) if collection.fde_exists else (collection.tokens,)
    size = min(size, (await fitting(collection)))
    rows = await page(collection, size, str(uuid.uuid4()), False, names)
    if len(rows) < size:
        rows = await page(collection, size, None, False, names)
    return [_to_stored(collection, row) for row in rows if collection.tokens in row.vectors]


def _to_stored(collection: Collection, row: Row) -> Stored:
    """A row that has tokens."""
    assert collection.tokens is not None
    return Stored(row.id, document_id_of(row), row.vectors[collection.tokens], row.vectors.get(collection.fde))


async def _survey(collection: Collection) -> BackfillReport:
    """Counts what is to do, and measures a page."""
    report = BackfillReport()
    total = await count()
    unmarked = await look_at_unmarked(collection, total)
    report.without_tokens = unmarked.total - unmarked.with_tokens
    report.remaining = unmarked.with_tokens - unmarked.with_fde
    started = seconds()
    documents = await _sample(collection, _FIRST)
    read = seconds() - started
    await filling.estimate(_place(collection), documents, read, report)
    return report


async def _pass(collection: Collection, report: BackfillReport, bar: Any) -> int:
    """Goes through all objects; returns how many FDEs were written."""
    assert collection.tokens is not None
    report.without_tokens, wrote, after = 0, 0, None
    while True:
        rows = await page(collection, _PAGE, after, [FDE_KEY])
        todo = [row.id for row in rows if row.properties.get(FDE_KEY) != collection.fde]
        step = min(_WRITE, (await fitting(collection)))
        for i in range(0, len(todo), step):
            full = await fetch_all(collection, todo[i : i + step], False, (collection.tokens, collection.fde))
            # FDEs of someone else were compared with this encoder's when the collection was adopted
            lacking = [row for row in full if not (collection.has_fde and collection.fde in row.vectors)]
            with_tokens = [row for row in lacking if collection.tokens in row.vectors]
            report.without_tokens += len(lacking) - len(with_tokens)
            documents = [_to_stored(collection, row) for row in with_tokens]
            done = await filling.fill(_place(collection), documents, report)
            report.written += done
            wrote += done
            bar.update(done)
        if len(rows) < _PAGE:
            break
        after = rows[-1].id
    if wrote and (await count_marked(collection)) == (await count()):
        return 0
    return wrote
