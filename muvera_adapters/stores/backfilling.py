"""Backfills that all databases share: FDEs of stored tokens are written, read again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import EncoderMismatch, InvalidInput, MuveraError
from muvera_adapters.logs import LOG
from muvera_adapters.progress import progress_bar
from muvera_adapters.results import BackfillReport, DocumentId, VerifyReport
from muvera_adapters.stores.checks import cosines, encode_stored, has_zero_rows, without_zero_rows
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.operations import Compute, Operation, seconds
from muvera_adapters.stores.shared_direction import warn_of_shared_direction

_SAMPLE = 64
_ROUNDS = 5
# another seed gives about 0; tokens stored with less precision than they were encoded with stay above 0.95
_SAME_ENCODER = 0.95
_SAME_TOKENS = 0.999
# tokens are rounded after they were encoded, which moves a few of them to other partitions: random roundings show how
# much that can change the FDE. Three times as much is allowed; half as much again where the rounding moves so many
# tokens that all draws are alike
_ROUNDINGS = 32
_FINE, _COARSE, _COARSE_FROM = 3.0, 1.5, 0.05
_FLOAT16_STEP = 2.0**-11
# of the encoder's length
_SAME_LENGTH = 0.05


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that has tokens, as it was read.

    Attributes:
        key: the database's key.
        id: the user's id.
        tokens: token matrix (n, token_dim).
        fde: FDE (dim,), None where there is none or none was asked for.
        problem: why the tokens cannot be read, which are empty then; "" where they can.
    """

    key: Any
    id: DocumentId
    tokens: npt.NDArray[Any]
    fde: npt.NDArray[np.float32] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BackfillAccess:
    """The database-specific reads and writes that a backfill needs.

    Attributes:
        collection: the collection that is filled.
        check: check of a token matrix; it raises InvalidInput for one that cannot be encoded, and is told whose it is.
        sample: at most so many documents that have tokens, with the FDEs that are there.
        read: documents of these keys, without FDEs; those that are gone or have no tokens are left out.
        write: writes FDEs by key and gives the number written; documents deleted meanwhile are left out.
        page: next page of all documents that have tokens, with the FDEs that are there, and the cursor of the page
            after it (None: there is none); it is given the cursor, None for the first page.
        same: whether tokens that were read twice are equal.
        exclusive: nobody else can write.
    """

    collection: Described
    check: Callable[[npt.NDArray[Any], str], None]
    sample: Callable[[int], Operation[list[Stored]]]
    read: Callable[[list[Any]], Operation[list[Stored]]]
    write: Callable[[list[tuple[Any, npt.NDArray[np.float32]]]], Operation[int]]
    page: Callable[[Any], Operation[tuple[list[Stored], Any]]]
    same: Callable[[npt.NDArray[Any], npt.NDArray[Any]], bool] = np.array_equal
    exclusive: bool = False


async def backfill_passes(
    access: BackfillAccess,
    one_pass: Callable[[Any], Operation[int]],
    report: BackfillReport,
    progress: bool,
    *,
    refresh: bool = False,
) -> None:
    """Repeats passes until one writes nothing, and then compares FDEs with tokens: all, or those of a sample.

    So documents that others add meanwhile are done too, and a run after a kill does only what is left. A sample with
    FDEs of other tokens leads to a comparison of all.

    Args:
        access: reads and writes of the database.
        one_pass: goes through all documents that may lack an FDE and gives the number of FDEs written; it is given the
            progress bar.
        report: report of the backfill, which is filled in.
        progress: show a bar.
        refresh: compare all documents.
    """
    without_tokens = report.without_tokens
    with progress_bar(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while True:
            report.without_tokens = without_tokens  # a pass counts documents of all-zero tokens, each pass anew
            if not await one_pass(bar):
                break
    access.collection.seen.without_fde.forget()
    if refresh:
        await refresh_all(access, report, progress)
    report.verified = await verify(access, report, progress)


def encodable(access: BackfillAccess, documents: Sequence[Stored], report: BackfillReport) -> list[Stored]:
    """Those whose tokens can be encoded; the report says why others cannot, or counts them as without tokens."""
    good = []
    for document in documents:
        if document.problem:
            report.failed[document.id] = document.problem
            continue
        present = without_zero_rows(document.tokens)
        if not len(present):
            report.without_tokens += 1
            continue
        try:
            access.check(present, f"document {document.id!r}")
        except InvalidInput as error:
            report.failed[document.id] = str(error)
        else:
            good.append(document)
    return good


def count_padded(documents: Sequence[Stored]) -> int:
    """Number of documents with all-zero tokens (padding)."""
    return sum(has_zero_rows(document.tokens) for document in documents)


def encode(access: BackfillAccess, documents: Sequence[Stored]) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs."""
    return encode_stored(
        access.collection.encoder, [document.tokens for document in documents], cosine=access.collection.cosine
    )


async def estimate(access: BackfillAccess, documents: Sequence[Stored], read: float, report: BackfillReport) -> None:
    """Bytes and seconds of what remains, from some documents and the seconds that reading them took."""
    report.fde_bytes = 4 * access.collection.encoder.dim * report.remaining
    documents = encodable(access, documents, BackfillReport())
    if not documents:
        return
    await Compute(partial(encode, access, documents[:1]))  # the first use of an encoder compiles
    compiled = seconds()
    await Compute(partial(encode, access, documents))
    each = (seconds() - compiled) / len(documents)
    floats = float(np.mean([document.tokens.size for document in documents]))
    report.read_bytes = int(4 * floats * report.remaining)
    # reading, encoding, and a write that is taken to last as long as the reading
    report.seconds = report.remaining * (each + 2 * read / len(documents))


async def fill(access: BackfillAccess, documents: Sequence[Stored], report: BackfillReport) -> int:
    """Writes the FDEs of documents; returns how many.

    A writer may replace a document between our reading and our writing, whose new tokens would then stand beside the
    old FDE. So tokens are read again after the write, until they are those that were encoded.
    """
    wrote = 0
    documents = encodable(access, documents, report)
    report.zero_rows += count_padded(documents)
    await warn_of_shared_direction(access.collection, [each.tokens for each in documents])
    for _ in range(_ROUNDS):
        if not documents:
            break
        fdes = await Compute(partial(encode, access, documents))
        wrote += await access.write([(each.key, fde) for each, fde in zip(documents, fdes, strict=True)])
        if access.exclusive:
            break
        encoded = {each.key: each.tokens for each in documents}
        again = await access.read(list(encoded))
        changed = [each for each in again if not access.same(each.tokens, encoded[each.key])]
        wrote -= len(changed)
        documents = encodable(access, changed, report)
    return wrote


async def check_adopted(access: BackfillAccess, *, by_cosine: bool = False) -> int:
    """How many documents of a sample have FDEs, which someone else wrote.

    Args:
        access: reads of the database.
        by_cosine: whether FDEs are compared by cosine, so that their lengths do not matter.

    Raises:
        EncoderMismatch: they are not of this encoder, or of another length than its FDEs.
    """
    documents = [each for each in (await access.sample(_SAMPLE)) if each.fde is not None]
    documents = encodable(access, documents, BackfillReport())
    if not documents:
        return 0
    stored = np.stack([each.fde for each in documents if each.fde is not None])
    ours = await Compute(partial(encode, access, documents))
    similarity = float(np.median(cosines(stored, ours)))
    if similarity < _SAME_ENCODER and not await _explained_by_rounding(access, documents, ours, similarity):
        raise EncoderMismatch(
            f"{access.collection.name}: the vectors {access.collection.fde!r} are not what encoder "
            f"{access.collection.encoder.fingerprint} makes of the stored tokens (median cosine of {len(documents)} "
            f"documents: {similarity:.3f}); was another seed, size or library used?"
        )
    if not by_cosine:
        _check_length(access.collection, stored, ours)
    return len(documents)


async def _explained_by_rounding(
    access: BackfillAccess, documents: Sequence[Stored], ours: npt.NDArray[np.float32], similarity: float
) -> bool:
    """Whether FDEs differ no more from those of the stored tokens than the store's rounding of tokens explains."""
    if not access.collection.token_error:
        return False
    again = await Compute(partial(_encode_unrounded, access, documents, np.random.default_rng(0)))
    return 1 - similarity <= _FINE * (1 - float(np.median(cosines(ours, again))))


def _check_length(collection: Described, stored: npt.NDArray[np.float32], ours: npt.NDArray[np.float32]) -> None:
    """Raises EncoderMismatch where the lengths of stored FDEs (n, dim) are not those of the encoder's."""
    lengths, expected = np.linalg.norm(stored, axis=1), np.linalg.norm(ours, axis=1)
    ratio = float(np.median(lengths / np.maximum(expected, np.float32(1e-30))))
    if abs(ratio - 1) > _SAME_LENGTH:
        unit = abs(float(np.median(lengths)) - 1) < _SAME_LENGTH
        raise EncoderMismatch(
            f"{collection.name}: the vectors {collection.fde!r} have the direction of FDEs of encoder "
            f"{collection.encoder.fingerprint}, but a median length of {np.median(lengths):.4g} instead of "
            f"{np.median(expected):.4g}: pass an encoder with normalize={unit}, as they were made with"
        )


async def verify(access: BackfillAccess, report: BackfillReport, progress: bool = False) -> int:
    """Documents of a sample whose FDE is that of their tokens.

    Where it is not, all documents are compared and stale FDEs are written again, and then another sample is taken.

    Raises:
        MuveraError: that sample disagrees, too.
    """
    for last in (False, True):
        documents = [each for each in (await access.sample(_SAMPLE)) if each.fde is not None]
        scratch = BackfillReport()
        documents = encodable(access, documents, scratch)
        report.failed.update(scratch.failed)
        if not documents:
            return 0
        stale = await _stale(access, documents)
        if not stale:
            return len(documents)
        if not last:
            await refresh_all(access, report, progress)
    ids = ", ".join(repr(each.id) for each in stale[:5])
    raise MuveraError(
        f"{access.collection.name}: documents were replaced while their FDEs were compared, among them {ids}; their "
        "FDEs are those of the old tokens: repeat backfill(refresh=True), and pause writers if this comes again"
    )


async def refresh_all(access: BackfillAccess, report: BackfillReport, progress: bool) -> None:
    """Compares the FDE of every document with its tokens, and writes the FDEs that are stale or missing."""
    scratch = BackfillReport()  # documents that cannot be encoded have been counted by the passes
    with progress_bar(unit="doc", desc="refresh", disable=not progress) as bar:
        cursor = None
        while True:
            documents, cursor = await access.page(cursor)
            bar.update(len(documents))
            documents = encodable(access, documents, scratch)
            lacking = [each for each in documents if each.fde is None]
            stale = await _stale(access, [each for each in documents if each.fde is not None])
            if stale:
                LOG.info("%d documents have the FDE of other tokens, and get it anew", len(stale))
            report.refreshed += await fill(access, stale, report)
            report.written += await fill(access, lacking, report)
            if cursor is None:
                break
    report.failed.update(scratch.failed)
    access.collection.seen.without_fde.forget()


async def verify_all(access: BackfillAccess, limit: int | None, progress: bool) -> VerifyReport:
    """Compares the FDE of every document with its stored tokens; nothing is written.

    Args:
        access: reads of the database.
        limit: number of documents to read; None: all of them.
        progress: show a bar.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit must be at least 1, got {limit}")
    report, seen, cursor = VerifyReport(), 0, None
    with progress_bar(total=limit, unit="doc", desc="verify", disable=not progress) as bar:
        while True:
            documents, cursor = await access.page(cursor)
            if limit is not None:
                documents = documents[: limit - seen]
            seen += len(documents)
            bar.update(len(documents))
            scratch = BackfillReport()
            documents = encodable(access, documents, scratch)
            report.unreadable.update(scratch.failed)
            report.zero_rows += count_padded(documents)
            with_fde = [each for each in documents if each.fde is not None]
            report.without_fde += len(documents) - len(with_fde)
            report.checked += len(with_fde)
            report.stale += [each.id for each in await _stale(access, with_fde)]
            if cursor is None or seen == limit:
                return report


async def _stale(access: BackfillAccess, documents: Sequence[Stored]) -> list[Stored]:
    """Documents whose FDE is that of other tokens, beyond what rounding tokens after encoding explains."""
    if not documents:
        return []
    ours = await Compute(partial(encode, access, documents))
    stored = np.stack([each.fde for each in documents if each.fde is not None])
    found = cosines(stored, ours)
    doubtful = [k for k in range(len(documents)) if not found[k] >= _SAME_TOKENS]
    coarse = access.collection.token_error > 0
    factor = _COARSE if access.collection.token_error >= _COARSE_FROM else _FINE
    rounded = [k for k in doubtful if coarse or _is_float16(documents[k].tokens)]
    explained: set[int] = set()
    draws = np.random.default_rng(0)
    for _ in range(_ROUNDINGS):
        rounded = [k for k in rounded if k not in explained]
        if not rounded:
            break
        again = await Compute(partial(_encode_unrounded, access, [documents[k] for k in rounded], draws))
        alike = cosines(ours[rounded], again)
        explained |= {k for k, cosine in zip(rounded, alike, strict=True) if 1 - found[k] <= factor * (1 - cosine)}
    return [documents[k] for k in doubtful if k not in explained]


def _is_float16(tokens: npt.NDArray[Any]) -> bool:
    with np.errstate(over="ignore"):
        return tokens.dtype == np.float16 or bool((tokens == tokens.astype(np.float16)).all())


def _encode_unrounded(
    access: BackfillAccess, documents: Sequence[Stored], draws: np.random.Generator
) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs of random tokens that are about as far from the stored ones as those that were given."""
    error = access.collection.token_error
    tokens = [_unrounded(each.tokens, error, draws) for each in documents]
    return encode_stored(access.collection.encoder, tokens, cosine=access.collection.cosine)


def _unrounded(tokens: npt.NDArray[Any], error: float, draws: np.random.Generator) -> npt.NDArray[np.float32]:
    """Random tokens that may have been rounded to these: to the same float16 values where ``error`` is 0."""
    if not error:
        values: npt.NDArray[np.float32] = tokens * (
            1 + _FLOAT16_STEP * draws.uniform(-1, 1, tokens.shape).astype(np.float32)
        )
        return values
    noise = draws.standard_normal(tokens.shape, dtype=np.float32)
    lengths = np.linalg.norm(tokens, axis=1) / np.linalg.norm(noise, axis=1)
    moved: npt.NDArray[np.float32] = tokens + np.float32(error) * lengths[:, None] * noise
    return moved
