"""The operation that gives an existing multi-vector collection its FDEs, in place."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_adapters.documents import cosines, encode_stored
from muvera_adapters.errors import EncoderMismatch, InvalidInput, MuveraError
from muvera_adapters.results import BackfillReport
from muvera_adapters.running import Compute, Operation, Together, seconds
from muvera_adapters.weaviate.documents import check_matrix
from muvera_adapters.weaviate.identity import FDE_KEY
from muvera_adapters.weaviate.reading import document_id_of, fetch_all, fitting, look_at_unmarked
from muvera_adapters.weaviate.requests import Collection, Row, Write, count, count_marked, page
from muvera_adapters.weaviate.writing import AT_ONCE, patch

_PAGE = 1_000
_WRITE = 64
_SAMPLE = 64
_ROUNDS = 5


def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Callable[[], Operation[None]]]],
    dry_run: bool,
    progress: bool,
) -> Operation[BackfillReport]:
    """Writes the missing FDEs.

    Every pass goes through the objects without our mark in the order of ids; passes are repeated until one writes
    nothing, so objects that others add meanwhile are done too, and a run after a kill does only what is left.
    """
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to encode")
    report = yield from _survey(collection)
    report.dry_run = dry_run
    if dry_run:
        return report
    started = seconds()
    finish = yield from add_fde()
    with tqdm(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while (yield from _pass(collection, report, bar)):
            pass
    report.verified = yield from _verify(collection, report)
    yield from finish()
    collection.has_fde = True
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return report


def check_adopted(collection: Collection) -> Operation[int]:
    """How many of a sample have FDEs, which someone else wrote.

    Raises:
        EncoderMismatch: they are not of this encoder.
    """
    if collection.tokens is None:
        return 1
    rows = [row for row in (yield from _sample(collection)) if collection.fde in row.vectors]
    if not rows:
        return 0
    fdes = yield Compute(partial(_encode, collection, rows))
    similarity = float(np.median(cosines(np.stack([row.vectors[collection.fde] for row in rows]), fdes)))
    # another seed gives about 0; tokens stored with less precision than they were encoded with stay above 0.95
    if similarity < 0.95:
        raise EncoderMismatch(
            f"{collection.name}: the vectors {collection.fde!r} are not what encoder {collection.encoder.fingerprint} "
            f"makes of the stored tokens (median cosine of {len(rows)} documents: {similarity:.3f}); "
            "was another seed, size or library used?"
        )
    return len(rows)


def _survey(collection: Collection) -> Operation[BackfillReport]:
    """Counts what is to do, and measures a page."""
    assert collection.tokens is not None
    report = BackfillReport()
    total = yield count()
    unmarked = yield from look_at_unmarked(collection, total)
    report.without_tokens = unmarked.total - unmarked.with_tokens
    report.remaining = unmarked.with_tokens - unmarked.with_fde
    report.fde_bytes = 4 * collection.encoder.dim * report.remaining
    started = seconds()
    rows = yield from _sample(collection)
    read = seconds() - started
    rows = [row for row in rows if _encodable(collection, row, BackfillReport())]
    if rows:
        yield Compute(partial(_encode, collection, rows[:1]))  # the first use of an encoder compiles
        compiled = seconds()
        yield Compute(partial(_encode, collection, rows))
        per_document = (seconds() - compiled) / len(rows)
        floats = float(np.mean([row.vectors[collection.tokens].size for row in rows]))
        report.read_bytes = int(4 * floats * report.remaining)
        # reading, encoding, and a write that is taken to last as long as the reading
        report.seconds = report.remaining * (per_document + 2 * read / len(rows))
    return report


def _pass(collection: Collection, report: BackfillReport, bar: Any) -> Operation[int]:
    """Goes through all objects; returns how many FDEs were written."""
    assert collection.tokens is not None
    report.without_tokens, wrote, after = 0, 0, None
    while True:
        rows = yield page(collection, _PAGE, after, [FDE_KEY])
        todo = [row.id for row in rows if row.properties.get(FDE_KEY) != collection.fde]
        step = min(_WRITE, (yield from fitting(collection)))
        for i in range(0, len(todo), step):
            full = yield from fetch_all(collection, todo[i : i + step], False, (collection.tokens, collection.fde))
            # FDEs of someone else were compared with this encoder's when the collection was adopted
            lacking = [row for row in full if not (collection.has_fde and collection.fde in row.vectors)]
            with_tokens = [row for row in lacking if collection.tokens in row.vectors]
            report.without_tokens += len(lacking) - len(with_tokens)
            good = [row for row in with_tokens if _encodable(collection, row, report)]
            done = yield from _fill(collection, good, report)
            report.written += done
            wrote += done
            bar.update(done)
        if len(rows) < _PAGE:
            break
        after = rows[-1].id
    if wrote and (yield count_marked(collection)) == (yield count()):
        return 0
    return wrote


def _fill(collection: Collection, rows: Sequence[Row], report: BackfillReport) -> Operation[int]:
    """Writes the FDEs of rows; returns how many.

    A writer may replace a document between our reading and our writing, whose new tokens would then stand beside the
    old FDE. So tokens are read again after the write, until they are those that were encoded.
    """
    assert collection.tokens is not None
    wrote = 0
    for _ in range(_ROUNDS):
        if not rows:
            break
        fdes = yield Compute(partial(_encode, collection, rows))
        # a patch keeps properties, references and other vectors; it has no form for many objects
        patches = [
            patch(Write(row.id, {FDE_KEY: collection.fde}, {collection.fde: fde}))
            for row, fde in zip(rows, fdes, strict=True)
        ]
        wrote += sum((yield Together(patches, AT_ONCE)))
        encoded = {row.id: row.vectors[collection.tokens] for row in rows}
        again = yield from fetch_all(collection, list(encoded), False, (collection.tokens,))
        rows = [
            row
            for row in again
            if collection.tokens in row.vectors and not np.array_equal(row.vectors[collection.tokens], encoded[row.id])
        ]
        wrote -= len(rows)
        rows = [row for row in rows if _encodable(collection, row, report)]
    return wrote


def _verify(collection: Collection, report: BackfillReport) -> Operation[int]:
    """Documents of a sample whose FDE is that of their tokens; others are rewritten and a sample taken again.

    Raises:
        MuveraError: samples still disagree after several rounds.
    """
    wrong: list[Row] = []
    for _ in range(_ROUNDS):
        rows = [row for row in (yield from _sample(collection)) if collection.fde in row.vectors]
        rows = [row for row in rows if _encodable(collection, row, report)]
        if not rows:
            return 0
        fdes = yield Compute(partial(_encode, collection, rows))
        agreement = cosines(np.stack([row.vectors[collection.fde] for row in rows]), fdes)
        wrong = [row for row, cosine in zip(rows, agreement, strict=True) if cosine < 0.999]
        if not wrong:
            return len(rows)
        yield from _fill(collection, wrong, report)
    ids = ", ".join(repr(document_id_of(row)) for row in wrong[:5])
    raise MuveraError(
        f"{collection.name}: tokens of {ids} keep changing without their FDE: another program updates the vector "
        f"{collection.tokens!r} alone; make it write through this library"
    )


def _sample(collection: Collection) -> Operation[list[Row]]:
    """Objects with tokens after an id drawn at random, or the first where there are few."""
    assert collection.tokens is not None
    names = (collection.tokens, collection.fde) if collection.fde_exists else (collection.tokens,)
    size = min(_SAMPLE, (yield from fitting(collection)))
    rows = yield page(collection, size, str(uuid.uuid4()), None, names)
    if len(rows) < size:
        rows = yield page(collection, size, None, None, names)
    return [row for row in rows if collection.tokens in row.vectors]


def _encodable(collection: Collection, row: Row, report: BackfillReport) -> bool:
    """Whether its tokens can be encoded; if not, the report says why."""
    assert collection.tokens is not None
    document_id = document_id_of(row)
    try:
        check_matrix(row.vectors[collection.tokens], f"document {document_id!r}")
    except InvalidInput as error:
        report.failed[document_id] = str(error)
        return False
    return True


def _encode(collection: Collection, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs of stored tokens."""
    assert collection.tokens is not None
    matrices = [row.vectors[collection.tokens] for row in rows]
    return encode_stored(collection.encoder, matrices, cosine=collection.cosine)
