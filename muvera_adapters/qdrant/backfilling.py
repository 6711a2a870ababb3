"""The operation that gives an existing multivector collection its FDEs, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_adapters.documents import cosines, encode_stored, slices
from muvera_adapters.errors import CollectionNotFound, EncoderMismatch, InvalidInput, MuveraError, Rejected
from muvera_adapters.ids import ID_KEY
from muvera_adapters.qdrant.documents import check_matrix
from muvera_adapters.qdrant.reading import user_payload
from muvera_adapters.qdrant.requests import Collection, Count, Fetch, Flush, Page, Point, Row, Sample, SetVectors, Where
from muvera_adapters.results import BackfillReport
from muvera_adapters.running import Compute, Operation, seconds

_FIRST_PAGE = 16
_LARGEST_PAGE = 1_000
_SAMPLE = 64
_ROUNDS = 5


def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[None]],
    dry_run: bool,
    progress: bool,
    shard_key: Any = None,
) -> Operation[BackfillReport]:
    """Writes the missing FDEs.

    Every pass goes through the points without an FDE in the order of ids; passes are repeated until one finds none, so
    points that others add meanwhile are done too, and a run after a kill does only what is left.
    """
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to encode")
    report = yield from _survey(collection, shard_key)
    report.dry_run = dry_run
    if dry_run:
        return report
    started = seconds()
    if not collection.has_fde:
        yield from add_fde()
        collection.has_fde = True
    with tqdm(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while (yield from _pass(collection, report, bar, shard_key)):
            pass
    report.verified = yield from verify(collection, report, shard_key)
    yield Flush()
    report.remaining = yield Count(_todo(collection), shard_key)
    report.seconds = seconds() - started
    return report


def check_adopted(collection: Collection) -> Operation[None]:
    """Raises EncoderMismatch unless FDEs that someone else wrote are those of this encoder."""
    if collection.tokens is None or not collection.has_fde:
        return
    rows = yield Sample(Where(has=(collection.fde, collection.tokens)), _SAMPLE, (collection.fde, collection.tokens))
    if not rows:
        return
    fdes = yield Compute(partial(encode, collection, rows))
    similarity = float(np.median(cosines(np.stack([row.vectors[collection.fde] for row in rows]), fdes)))
    # another seed gives about 0; tokens stored with less precision than they were encoded with stay above 0.95
    if similarity < 0.95:
        raise EncoderMismatch(
            f"{collection.name}: the vectors {collection.fde!r} are not what encoder {collection.encoder.fingerprint} "
            f"makes of the stored tokens (median cosine of {len(rows)} documents: {similarity:.3f}); "
            "was another seed, size or library used?"
        )


def verify(collection: Collection, report: BackfillReport, shard_key: Any) -> Operation[int]:
    """Documents of a random sample whose FDE is that of their tokens; others are rewritten and a sample taken again.

    Raises:
        MuveraError: samples still disagree after several rounds.
    """
    assert collection.tokens is not None
    both = (collection.fde, collection.tokens)
    wrong: list[Row] = []
    for _ in range(_ROUNDS):
        rows = yield Sample(Where(has=both), _SAMPLE, both)
        rows = [row for row in rows if encodable(collection, row, report)]
        if not rows:
            return 0
        fdes = yield Compute(partial(encode, collection, rows))
        agreement = cosines(np.stack([row.vectors[collection.fde] for row in rows]), fdes)
        wrong = [row for row, cosine in zip(rows, agreement, strict=True) if cosine < 0.999]
        if not wrong:
            return len(rows)
        yield from _fill(collection, wrong, report, shard_key)
    ids = ", ".join(repr(user_payload(row)[0]) for row in wrong[:5])
    raise MuveraError(
        f"{collection.name}: tokens of {ids} keep changing without their FDE: another program updates the vector "
        f"{collection.tokens!r} alone; make it write through this library"
    )


def _survey(collection: Collection, shard_key: Any) -> Operation[BackfillReport]:
    """Counts what is to do, and measures the first page."""
    assert collection.tokens is not None
    report = BackfillReport()
    todo = _todo(collection)
    report.remaining = yield Count(todo, shard_key)
    report.without_tokens = yield Count(Where(lacks=(collection.tokens,)), shard_key)
    report.fde_bytes = 4 * collection.encoder.dim * report.remaining
    started = seconds()
    rows, _ = yield Page(todo, _FIRST_PAGE, None, [ID_KEY], (collection.tokens,), shard_key)
    read = seconds() - started
    rows = [row for row in rows if encodable(collection, row, BackfillReport())]
    if rows:
        yield Compute(partial(encode, collection, rows[:1]))  # the first use of an encoder compiles
        compiled = seconds()
        yield Compute(partial(encode, collection, rows))
        per_document = (seconds() - compiled) / len(rows)
        floats = float(np.mean([row.vectors[collection.tokens].size for row in rows]))
        report.read_bytes = int(4 * floats * report.remaining)
        # reading, encoding, and a write that is taken to last as long as the reading
        report.seconds = report.remaining * (per_document + 2 * read / len(rows))
    return report


def _pass(collection: Collection, report: BackfillReport, bar: Any, shard_key: Any) -> Operation[int]:
    assert collection.tokens is not None
    wrote, offset, limit = 0, None, _FIRST_PAGE
    while True:
        rows, offset = yield Page(_todo(collection), limit, offset, [ID_KEY], (collection.tokens,), shard_key)
        good = [row for row in rows if encodable(collection, row, report)]
        done = yield from _fill(collection, good, report, shard_key)
        report.written += done
        wrote += done
        bar.update(done)
        if offset is None:
            return wrote
        if rows:
            floats = max(row.vectors[collection.tokens].size for row in rows)
            fitting = int(collection.wire.target / (floats * collection.wire.bytes_per_float))
            limit = max(1, min(fitting, 2 * limit, _LARGEST_PAGE))


def _fill(collection: Collection, rows: Sequence[Row], report: BackfillReport, shard_key: Any) -> Operation[int]:
    """Writes the FDEs of rows; returns how many.

    A writer may replace a document between our reading and our writing, whose new tokens would then stand beside the
    old FDE. So tokens are read again after the write, until they are those that were encoded.
    """
    assert collection.tokens is not None
    wrote = 0
    for _ in range(_ROUNDS):
        if not rows:
            break
        fdes = yield Compute(partial(encode, collection, rows))
        points = [Point(row.id, {collection.fde: fde}) for row, fde in zip(rows, fdes, strict=True)]
        sizes = [int(collection.encoder.dim * collection.wire.bytes_per_float)] * len(points)
        for i, j in slices(sizes, collection.wire.target):
            wrote += yield from _set(points[i:j], shard_key)
        if collection.exclusive:
            break
        encoded = {row.id: row.vectors[collection.tokens] for row in rows}
        again = yield Fetch([row.id for row in rows], [ID_KEY], (collection.tokens,), shard_key)
        rows = [
            row
            for row in again
            if collection.tokens in row.vectors and not _equal(row.vectors[collection.tokens], encoded[row.id])
        ]
        wrote -= len(rows)
        rows = [row for row in rows if encodable(collection, row, report)]
    return wrote


def _set(points: list[Point], shard_key: Any) -> Operation[int]:
    """Writes vectors of points; those deleted meanwhile, which the database complains about, are left out."""
    try:
        yield SetVectors(points, shard_key)
    except (CollectionNotFound, Rejected):
        if len(points) == 1:
            if (yield Fetch([points[0].id], False, (), shard_key)):
                raise
            return 0
        half = len(points) // 2
        first = yield from _set(points[:half], shard_key)
        return first + (yield from _set(points[half:], shard_key))
    return len(points)


def _todo(collection: Collection) -> Where:
    assert collection.tokens is not None
    return Where(has=(collection.tokens,), lacks=(collection.fde,) if collection.has_fde else ())


def encodable(collection: Collection, row: Row, report: BackfillReport) -> bool:
    """Whether its tokens can be encoded; if not, the report says why."""
    assert collection.tokens is not None
    document_id, _ = user_payload(row)
    try:
        check_matrix(row.vectors[collection.tokens], f"document {document_id!r}", half=False)
    except InvalidInput as error:
        report.failed[document_id] = str(error)
        return False
    return True


def encode(collection: Collection, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs of stored tokens."""
    assert collection.tokens is not None
    matrices = [row.vectors[collection.tokens] for row in rows]
    return encode_stored(collection.encoder, matrices, cosine=collection.cosine)


def _equal(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    # local mode normalises vectors under cosine distance again at every write, which may turn their last bits
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6)
