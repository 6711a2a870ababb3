"""The operation that gives an existing collection its FDEs in place, where the server can add a vector field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_adapters.documents import check_finite, check_present, cosines, encode_stored, is_plain
from muvera_adapters.errors import EncoderMismatch, InvalidInput, MuveraError, Rejected, Unsupported
from muvera_adapters.milvus.identity import FDE_KEY, Key
from muvera_adapters.milvus.reading import Cursor, document_id_of, fetch_all, fitting, marked_by, next_keys
from muvera_adapters.milvus.requests import Collection, Row, count, fetch, upsert, vector
from muvera_adapters.results import BackfillReport
from muvera_adapters.running import Compute, Operation, seconds

_PAGE = 256
_SAMPLE = 64
_ROUNDS = 5


def backfill(
    collection: Collection,
    add_fde: Callable[[], Operation[Callable[[], Operation[None]]]],
    dry_run: bool,
    progress: bool,
) -> Operation[BackfillReport]:
    """Writes the missing FDEs.

    Passes over the documents without our mark are repeated until one writes nothing, so documents that others add
    meanwhile are done too, and a run after a kill does only what is left.
    """
    report = yield from survey(collection)
    report.dry_run = dry_run
    if dry_run or (collection.has_fde and not collection.marker):
        return report
    started = seconds()
    finish = yield from add_fde()
    with tqdm(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while (yield from _pass(collection, report, bar)):
            pass
    report.verified = yield from verify(collection, report)
    collection.has_fde = True
    yield from finish()
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return report


def check_adopted(collection: Collection) -> Operation[int]:
    """How many of a sample have FDEs, which someone else wrote.

    Raises:
        EncoderMismatch: they are not of this encoder.
    """
    if collection.storage == "none":
        return 1
    rows = [row for row in (yield from sample(collection)) if row.fde is not None]
    if not rows:
        return 0
    fdes = yield Compute(partial(encode, collection, rows))
    similarity = float(np.median(cosines(np.stack([row.fde for row in rows if row.fde is not None]), fdes)))
    # another seed gives about 0; tokens stored with less precision than they were encoded with stay above 0.95
    if similarity < 0.95:
        raise EncoderMismatch(
            f"{collection.name}: the vectors {collection.fde!r} are not what encoder {collection.encoder.fingerprint} "
            f"makes of the stored tokens (median cosine of {len(rows)} documents: {similarity:.3f}); "
            "was another seed, size or library used?"
        )
    return len(rows)


def survey(collection: Collection) -> Operation[BackfillReport]:
    """Counts what is to do, and measures a page."""
    if collection.storage == "none":
        raise InvalidInput(f"{collection.name} stores no tokens: there is nothing to encode")
    report = BackfillReport()
    if not collection.has_fde or collection.marker:
        report.remaining = yield count(collection, _todo(collection))
    report.fde_bytes = 4 * collection.encoder.dim * report.remaining
    started = seconds()
    rows = yield from sample(collection)
    read = seconds() - started
    rows = [row for row in rows if encodable(collection, row, BackfillReport())]
    if rows:
        yield Compute(partial(encode, collection, rows[:1]))  # the first use of an encoder compiles
        compiled = seconds()
        yield Compute(partial(encode, collection, rows))
        per_document = (seconds() - compiled) / len(rows)
        floats = float(np.mean([row.tokens.size for row in rows if row.tokens is not None]))
        report.read_bytes = int(4 * floats * report.remaining)
        # reading, encoding, and a write that is taken to last as long as the reading
        report.seconds = report.remaining * (per_document + 2 * read / len(rows))
    return report


def verify(collection: Collection, report: BackfillReport) -> Operation[int]:
    """Documents of a sample whose FDE is that of their tokens; others are rewritten and a sample taken again.

    Raises:
        MuveraError: samples still disagree after several rounds.
    """
    wrong: list[Row] = []
    for _ in range(_ROUNDS):
        rows = [row for row in (yield from sample(collection)) if row.fde is not None and row.fde.any()]
        rows = [row for row in rows if encodable(collection, row, report)]
        if not rows:
            return 0
        fdes = yield Compute(partial(encode, collection, rows))
        agreement = cosines(np.stack([row.fde for row in rows if row.fde is not None]), fdes)
        wrong = [row for row, cosine in zip(rows, agreement, strict=True) if cosine < 0.999]
        if not wrong:
            return len(rows)
        yield from _fill(collection, wrong, report)
    ids = ", ".join(repr(document_id_of(collection, row)) for row in wrong[:5])
    raise MuveraError(
        f"{collection.name}: tokens of {ids} keep changing without their FDE: another program updates the field "
        f"{collection.tokens!r} alone; make it write through this library"
    )


def sample(collection: Collection) -> Operation[list[Row]]:
    """The first documents with tokens; Milvus has no order but that of keys."""
    fields = [*collection.token_fields, *([collection.fde] if collection.fde_exists else [])]
    size = min(_SAMPLE, (yield from fitting(collection)))
    keys, _ = yield from next_keys(collection, "", size, None)
    rows = yield from fetch_all(collection, keys, fields, consistency_level="Strong")
    return [row for row in rows if row.tokens is not None]


def encodable(collection: Collection, row: Row, report: BackfillReport) -> bool:
    """Whether its tokens can be encoded; if not, the report says why."""
    assert row.tokens is not None
    document_id = document_id_of(collection, row)
    try:
        if not is_plain(row.tokens, np.inf):
            check_finite(row.tokens, f"document {document_id!r}")
            check_present(row.tokens, f"document {document_id!r}")
    except InvalidInput as error:
        report.failed[document_id] = str(error)
        return False
    return True


def encode(collection: Collection, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs of stored tokens."""
    matrices = [row.tokens for row in rows if row.tokens is not None]
    return encode_stored(collection.encoder, matrices, cosine=collection.cosine)


def _pass(collection: Collection, report: BackfillReport, bar: Any) -> Operation[int]:
    """Goes through all documents without our mark; returns how many FDEs were written."""
    cursor: Cursor = None
    report.without_tokens, wrote = 0, 0
    while True:
        size = min(_PAGE, (yield from fitting(collection)))
        keys, cursor = yield from next_keys(collection, _todo(collection), size, cursor)
        rows = yield from fetch_all(collection, keys, collection.token_fields, consistency_level="Strong")
        with_tokens = [row for row in rows if row.tokens is not None]
        report.without_tokens += len(rows) - len(with_tokens)
        done = yield from _fill(collection, [row for row in with_tokens if encodable(collection, row, report)], report)
        report.written += done
        wrote += done
        bar.update(done)
        if cursor is None:
            return wrote


def _fill(collection: Collection, rows: Sequence[Row], report: BackfillReport) -> Operation[int]:
    """Writes the FDEs of rows; returns how many.

    A writer may replace a document between our reading and our writing, whose new tokens would then stand beside the
    old FDE. So tokens are read again after the write, until they are those that were encoded.
    """
    wrote = 0
    for _ in range(_ROUNDS):
        if not rows:
            break
        fdes = yield Compute(partial(encode, collection, rows))
        marks = {FDE_KEY: collection.fde} if collection.marker else {}
        values = [
            {collection.key: row.key, collection.fde: vector(collection, fde), **marks}
            for row, fde in zip(rows, fdes, strict=True)
        ]
        wrote += yield from _patch(collection, values)
        encoded = {row.key: row.tokens for row in rows}
        again = yield from fetch_all(collection, list(encoded), collection.token_fields, consistency_level="Strong")
        rows = [row for row in again if row.tokens is not None and not np.array_equal(row.tokens, encoded[row.key])]
        wrote -= len(rows)
        rows = [row for row in rows if encodable(collection, row, report)]
    return wrote


def _patch(collection: Collection, values: Sequence[dict[str, Any]]) -> Operation[int]:
    """Writes fields of documents; those deleted meanwhile, which the server complains about, are left out."""
    try:
        yield upsert(collection, values, partial_update=True)
    except Rejected as error:
        if len(values) > 1:
            half = len(values) // 2
            first = yield from _patch(collection, values[:half])
            return first + (yield from _patch(collection, values[half:]))
        key: Key = values[0][collection.key]
        if (yield fetch(collection, [key], (), consistency_level="Strong")):
            raise Unsupported(
                f"{collection.server.engine} does not update single fields of {collection.name} (struct arrays: since "
                f"2.6.20): use backfill(into=...); {error}"
            ) from error
        return 0
    return len(values)


def _todo(collection: Collection) -> str:
    """Documents without our mark; "" for all, where there are no marks."""
    if not (collection.marker and collection.fde_exists):
        return ""
    return f"{FDE_KEY} is null or not ({marked_by(collection)})"
