"""Backfills, shared by all databases: FDEs of stored tokens are written, read again and compared."""

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
# tokens are rounded after they were encoded, which moves a few of them to other partitions. Random roundings show how
# much this can change the FDE. Three times this change is allowed, or 1.5 times where the rounding moves so many tokens
# that all random roundings change the FDE by about the same amount
_ROUNDINGS = 32
_FINE, _COARSE, _COARSE_FROM = 3.0, 1.5, 0.05
_FLOAT16_STEP = 2.0**-11
# allowed difference of the median length of FDEs, as a share of the encoder's length
_SAME_LENGTH = 0.05


@dataclass(frozen=True, slots=True)
class Stored:
    """A document with tokens, as it was read from the database.

    Attributes:
        key: key of the document in the database.
        id: id of the document, as the user gave it.
        tokens: (n, token_dim) token matrix; empty if it cannot be read.
        fde: (dim,) FDE, None where it is missing or was not requested.
        problem: reason why the tokens cannot be read; "" if they can.
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
        sample: reads at most the given number of documents that have tokens, with their FDEs as far as they have one.
        read: reads documents by key, without FDEs; deleted documents and those without tokens are left out.
        write: writes FDEs by key and returns the number written; documents that were deleted meanwhile are left out.
        page: reads the next page of all documents that have tokens, with their FDEs as far as they have one. It takes
            the cursor of the page (None for the first) and returns that of the next one (None: this is the last).
        same: whether tokens that were read twice are equal.
        exclusive: whether nobody else can write to the collection.
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
    """Repeats passes until one writes nothing, and then compares FDEs with tokens: of all documents, or of a sample.

    Documents that others add meanwhile are therefore filled too, and a run after a crash only does what is left. If the
    FDE of a document of the sample does not match its tokens, all documents are compared.

    Args:
        access: reads and writes of the database.
        one_pass: fills all documents that may lack an FDE and returns the number of FDEs written; it takes the progress
            bar.
        report: report of the backfill, which this function fills in.
        progress: whether to show a progress bar.
        refresh: whether to compare all documents.
    """
    without_tokens = report.without_tokens
    with progress_bar(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while True:
            report.without_tokens = without_tokens  # every pass counts documents with only all-zero tokens again
            if not await one_pass(bar):
                break
    access.collection.seen.without_fde.forget()
    if refresh:
        await refresh_all(access, report, progress)
    report.verified = await verify(access, report, progress)


def encodable(access: BackfillAccess, documents: Sequence[Stored], report: BackfillReport) -> list[Stored]:
    """The documents whose tokens can be encoded; the report gets the reasons of the others, or counts their number."""
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
    """(n, dim) FDEs of documents."""
    return encode_stored(
        access.collection.encoder, [document.tokens for document in documents], cosine=access.collection.cosine
    )


async def estimate(access: BackfillAccess, documents: Sequence[Stored], read: float, report: BackfillReport) -> None:
    """Estimates bytes and seconds of the remaining work from some documents and the seconds to read them."""
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
    # time to read, encode and write; writing is assumed to take as long as reading
    report.seconds = report.remaining * (each + 2 * read / len(documents))


async def fill(access: BackfillAccess, documents: Sequence[Stored], report: BackfillReport) -> int:
    """Writes the FDEs of documents and returns their number.

    Another writer may replace a document between the read and the write here, so that its new tokens would have the old
    FDE. Tokens are therefore read again after the write, until they equal those that were encoded.
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
    """Checks FDEs that another program wrote, and returns how many documents of a sample have one.

    Args:
        access: reads of the database.
        by_cosine: whether FDEs are compared by cosine, so that their lengths do not matter.

    Raises:
        EncoderMismatch: the FDEs are not of this encoder, or have another length.
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
            f"{access.collection.name}: the vectors {access.collection.fde!r} are not the FDEs of encoder "
            f"{access.collection.encoder.fingerprint} for the stored tokens (median cosine of {len(documents)} "
            f"documents: {similarity:.3f}); was another seed, size or library used?"
        )
    if not by_cosine:
        _check_length(access.collection, stored, ours)
    return len(documents)


async def _explained_by_rounding(
    access: BackfillAccess, documents: Sequence[Stored], ours: npt.NDArray[np.float32], similarity: float
) -> bool:
    """Whether the store's rounding of tokens explains the difference between FDEs and those of the stored tokens."""
    if not access.collection.token_error:
        return False
    again = await Compute(partial(_encode_unrounded, access, documents, np.random.default_rng(0)))
    return 1 - similarity <= _FINE * (1 - float(np.median(cosines(ours, again))))


def _check_length(collection: Described, stored: npt.NDArray[np.float32], ours: npt.NDArray[np.float32]) -> None:
    """Raises EncoderMismatch if stored (n, dim) FDEs have another length than those of the encoder."""
    lengths, expected = np.linalg.norm(stored, axis=1), np.linalg.norm(ours, axis=1)
    ratio = float(np.median(lengths / np.maximum(expected, np.float32(1e-30))))
    if abs(ratio - 1) > _SAME_LENGTH:
        unit = abs(float(np.median(lengths)) - 1) < _SAME_LENGTH
        raise EncoderMismatch(
            f"{collection.name}: the vectors {collection.fde!r} have the direction of FDEs of encoder "
            f"{collection.encoder.fingerprint}, but a median length of {np.median(lengths):.4g} instead of "
            f"{np.median(expected):.4g}: pass an encoder with normalize={unit}, as for the stored FDEs"
        )


async def verify(access: BackfillAccess, report: BackfillReport, progress: bool = False) -> int:
    """Compares the FDEs of a sample with the tokens, and returns how many documents match.

    If one does not match, all documents are compared, stale FDEs are written again, and another sample is taken.

    Raises:
        MuveraError: a document of that sample does not match either.
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
        "FDEs are those of the old tokens: repeat backfill(refresh=True), and pause writers if this happens again"
    )


async def refresh_all(access: BackfillAccess, report: BackfillReport, progress: bool) -> None:
    """Compares the FDE of every document with its tokens, and writes the FDEs that are stale or missing."""
    scratch = BackfillReport()  # the passes have already counted documents that cannot be encoded
    with progress_bar(unit="doc", desc="refresh", disable=not progress) as bar:
        cursor = None
        while True:
            documents, cursor = await access.page(cursor)
            bar.update(len(documents))
            documents = encodable(access, documents, scratch)
            lacking = [each for each in documents if each.fde is None]
            stale = await _stale(access, [each for each in documents if each.fde is not None])
            if stale:
                LOG.info("%d documents have FDEs that do not match their tokens; these are written again", len(stale))
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
        limit: maximum number of documents to read; None: all of them.
        progress: whether to show a progress bar.
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
    """Documents whose FDE does not match their tokens, where rounding of the tokens does not explain the difference."""
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
    """(n, dim) FDEs of random tokens that could have been rounded to the stored tokens."""
    error = access.collection.token_error
    tokens = [_unrounded(each.tokens, error, draws) for each in documents]
    return encode_stored(access.collection.encoder, tokens, cosine=access.collection.cosine)


def _unrounded(tokens: npt.NDArray[Any], error: float, draws: np.random.Generator) -> npt.NDArray[np.float32]:
    """Random tokens that could have been rounded to ``tokens``: to the same float16 values where ``error`` is 0."""
    if not error:
        values: npt.NDArray[np.float32] = tokens * (
            1 + _FLOAT16_STEP * draws.uniform(-1, 1, tokens.shape).astype(np.float32)
        )
        return values
    noise = draws.standard_normal(tokens.shape, dtype=np.float32)
    lengths = np.linalg.norm(tokens, axis=1) / np.linalg.norm(noise, axis=1)
    moved: npt.NDArray[np.float32] = tokens + np.float32(error) * lengths[:, None] * noise
    return moved
