"""Writes, shared by all stores: batches by bytes, isolation of rejected documents, reports, and waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MuveraError, Rejected, StoreUnavailable, WriteInterrupted
from muvera_adapters.logs import LOG, short
from muvera_adapters.progress import progress_bar
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores.checks import Prepared
from muvera_adapters.stores.collection import BatchLimit, Described
from muvera_adapters.stores.operations import Compute, Operation, Pause, seconds
from muvera_adapters.stores.shared_direction import warn_of_shared_direction

K = TypeVar("K")
S = TypeVar("S")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class WriteAccess(Generic[W]):
    """The database-specific parts of an upsert.

    Attributes:
        batch_bytes: bytes of one batch; a larger document is sent alone.
        items: converts documents i to j to the database's types, from i, j and their (j - i, dim) FDEs.
        write: writes items. It raises Rejected if the database wrote none of them, or returns position -> error of the
            items that were rejected while the others were written. It is told whether this is the last batch.
        unfit: finds the FDEs (n, dim) that the collection's datatype cannot hold, as position -> reason.
        advice: what to do after an interruption.
        halved: errors of ``write`` that reject a whole batch, which is then halved; none if ``write`` itself does that.
    """

    batch_bytes: int
    items: Callable[[int, int, npt.NDArray[np.float32]], Sequence[W]]
    write: Callable[[Sequence[W], bool], Operation[dict[int, MuveraError]]]
    unfit: Callable[[npt.NDArray[np.float32]], dict[int, str]] = lambda _: {}
    advice: str = "repeat the call to complete it"
    halved: tuple[type[MuveraError], ...] = (Rejected,)


async def upsert(prepared: Prepared[K], collection: Described, access: WriteAccess[W], progress: bool) -> WriteReport:
    """Encodes and writes documents, batch after batch; every document is in the report as written or as failed.

    The warning :class:`~muvera_adapters.errors.SharedDirection` is given once for each store.

    Raises:
        WriteInterrupted: the database cannot be reached any more.
    """
    report = WriteReport(zero_rows=prepared.zero_rows)
    ids = prepared.ids
    await warn_of_shared_direction(collection, prepared.tokens)
    with progress_bar(total=len(ids), unit="doc", desc="upsert", disable=not progress) as bar:
        for i, j in slices(prepared.sizes, access.batch_bytes):
            fdes = await Compute(partial(collection.encoder.encode_documents, prepared.tokens[i:j]))
            unfit = {**access.unfit(fdes), **{k - i: why for k, why in prepared.unfit.items() if i <= k < j}}
            report.failed.update({ids[i + k]: reason for k, reason in unfit.items()})
            positions = [k for k in range(j - i) if k not in unfit]
            items = access.items(i, j, fdes)
            try:
                write = partial(_write, access, j == len(ids))
                wanted = [items[k] for k in positions]
                rejected = await halving(write, wanted, access.halved, collection.seen.written_at_once)
            except StoreUnavailable as error:
                raise interrupted(error, report, ids, i, access.advice) from (error.__cause__ or error)
            report.failed.update({ids[i + positions[k]]: str(error) for k, error in rejected.items()})
            report.written += len(positions) - len(rejected)
            bar.update(j - i)
    return report


def _write(access: WriteAccess[W], last: bool, items: Sequence[W]) -> Operation[dict[int, MuveraError]]:
    return access.write(items, last)


async def halving(
    write: Callable[[Sequence[W]], Operation[dict[int, MuveraError]]],
    items: Sequence[W],
    errors: tuple[type[MuveraError], ...] = (Rejected,),
    limit: BatchLimit | None = None,
) -> dict[int, MuveraError]:
    """Writes items, and isolates those that the database rejects by halving the batch; returns position -> error.

    If the database rejects all n items, about n requests are sent: after a half in which all items are rejected, the
    following items are sent one by one until one is accepted.

    Args:
        write: writes items; raises one of ``errors`` if the database rejects the whole request, or returns position ->
            error if it rejects single items.
        items: items to write.
        errors: errors that reject a request.
        limit: number of items that a request may have, as far as it is known; this function updates it.
    """
    limit = BatchLimit() if limit is None else limit
    if not items:
        return {}
    if limit.most is not None and len(items) > limit.most:
        return await _one_after_the_other(write, items, limit.most, errors, limit)
    try:
        return await write(items)
    except errors as error:
        if len(items) == 1:
            return {0: error}
        LOG.info("%d documents were rejected together, and are sent again in halves: %s", len(items), short(error))
    half = len(items) // 2
    first = await halving(write, items[:half], errors, limit)
    rest = items[half:]
    if len(first) < half:
        second = await halving(write, rest, errors, limit)
    else:  # perhaps the database rejects everything
        second = {}
        for k, item in enumerate(rest):
            rejected = await halving(write, [item], errors, limit)
            if not rejected:
                others = await halving(write, rest[k + 1 :], errors, limit)
                second |= {k + 1 + j: error for j, error in others.items()}
                break
            second[k] = rejected[0]
    if not first and not second:
        limit.learn(half)
    return {**first, **{half + k: error for k, error in second.items()}}


async def _one_after_the_other(
    write: Callable[[Sequence[W]], Operation[dict[int, MuveraError]]],
    items: Sequence[W],
    size: int,
    errors: tuple[type[MuveraError], ...],
    limit: BatchLimit,
) -> dict[int, MuveraError]:
    rejected: dict[int, MuveraError] = {}
    for i in range(0, len(items), size):
        some = await halving(write, items[i : i + size], errors, limit)
        rejected |= {i + k: error for k, error in some.items()}
    return rejected


def check_named(
    ids: Sequence[DocumentId] | None, chosen: Any, everything: bool = False, *, matches_all: bool = False
) -> None:
    """Raises InvalidInput unless a delete names its documents in exactly one way.

    Args:
        ids: ids of the documents.
        chosen: filter of the documents; it may be None if ``everything`` is true.
        everything: confirms that all documents are to be deleted.
        matches_all: whether ``chosen`` has no conditions, so that it matches all documents.
    """
    if ids is not None and (chosen is not None or everything):
        raise InvalidInput("pass exactly one of ids and filter; everything=True goes with a filter only")
    if ids is None and chosen is None and not everything:
        raise InvalidInput("pass exactly one of ids and filter, or everything=True to delete all documents")
    if matches_all and not everything:
        raise InvalidInput("the filter is empty, so it matches every document: pass everything=True to delete them all")


async def wait_until_idle(name: str, poll: Callable[[], Operation[tuple[S, str | None]]], timeout: float | None) -> S:
    """Waits until a collection is idle, and returns its state.

    Args:
        name: name of the collection.
        poll: returns the state, and the current activity of the collection ("indexing"; None: idle).
        timeout: maximum seconds to wait; None: no limit.

    Raises:
        StoreUnavailable: the collection is still busy after ``timeout`` seconds.
    """
    deadline = None if timeout is None else seconds() + timeout
    pause = 0.1
    while True:
        state, doing = await poll()
        if doing is None:
            return state
        if deadline is not None and seconds() + pause > deadline:
            raise StoreUnavailable(f"{name} is still {doing} after {timeout:g} s")
        LOG.info("waiting for %s, which is %s", name, doing)
        await Pause(pause)
        pause = min(2 * pause, 2.0)


def slices(sizes: Sequence[int], target: int) -> Iterator[tuple[int, int]]:
    """Ranges i, j whose sizes sum to at most ``target``; a larger item is alone in its range."""
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if total + size > target and i > start:
            yield start, i
            start, total = i, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)


def interrupted(
    error: StoreUnavailable,
    report: WriteReport,
    ids: Sequence[DocumentId],
    begun: int,
    advice: str = "repeat the call to complete it",
) -> WriteInterrupted:
    """The error of a write that was interrupted in the batch that begins at position ``begun`` of ``ids``.

    A part of that batch may have been written; all its documents count as not acknowledged.
    """
    report.written = begun - sum(document_id in report.failed for document_id in ids[:begun])
    for document_id in ids[begun:]:
        report.failed.setdefault(document_id, f"not acknowledged: {error}")
    return WriteInterrupted(f"{error}; {report.written} of {len(ids)} documents are written, {advice}", report)
