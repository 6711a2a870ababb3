"""Backfills that all databases share: FDEs of stored tokens are written, read again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_adapters.errors import EncoderMismatch, InvalidInput, MuveraError
from muvera_adapters.results import BackfillReport, DocumentId
from muvera_adapters.stores.checks import cosines, encode_stored
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.operations import Compute, Operation, seconds

_SAMPLE = 64
_ROUNDS = 5
# another seed gives about 0; tokens stored with less precision than they were encoded with stay above 0.95
_SAME_ENCODER = 0.95
_SAME_TOKENS = 0.999


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that has tokens, as it was read.

    Attributes:
        key: the database's key.
        id: the user's id.
        tokens: token matrix (n, token_dim).
        fde: FDE (dim,), None where there is none or none was asked for.
    """

    key: Any
    id: DocumentId
    tokens: npt.NDArray[Any]
    fde: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class BackfillAccess:
    """The database-specific reads and writes that a backfill needs.

    Attributes:
        collection: the collection that is filled.
        check: check of a token matrix; it raises InvalidInput for one that cannot be encoded, and is told whose it is.
        sample: at most so many documents that have tokens, with the FDEs that are there.
        read: documents of these keys, without FDEs; those that are gone or have no tokens are left out.
        write: writes FDEs by key and gives the number written; documents deleted meanwhile are left out.
        same: whether tokens that were read twice are equal.
        exclusive: nobody else can write.
    """

    collection: Described
    check: Callable[[npt.NDArray[Any], str], None]
    sample: Callable[[int], Operation[list[Stored]]]
    read: Callable[[list[Any]], Operation[list[Stored]]]
    write: Callable[[list[tuple[Any, npt.NDArray[np.float32]]]], Operation[int]]
    same: Callable[[npt.NDArray[Any], npt.NDArray[Any]], bool] = np.array_equal
    exclusive: bool = False


async def backfill_passes(
    access: BackfillAccess, one_pass: Callable[[Any], Operation[int]], report: BackfillReport, progress: bool
) -> None:
    """Repeats passes until one writes nothing, and then verifies a sample.

    So documents that others add meanwhile are done too, and a run after a kill does only what is left.

    Args:
        access: reads and writes of the database.
        one_pass: goes through all documents that may lack an FDE and gives the number of FDEs written; it is given the
            progress bar.
        report: report of the backfill, which is filled in.
        progress: show a bar.
    """
    with tqdm(total=report.remaining, unit="doc", desc="backfill", disable=not progress) as bar:
        while await one_pass(bar):
            pass
    report.verified = await verify(access, report)


def encodable(access: BackfillAccess, documents: Sequence[Stored], report: BackfillReport) -> list[Stored]:
    """Those whose tokens can be encoded; the report says why others cannot."""
    good = []
    for document in documents:
        try:
            access.check(document.tokens, f"document {document.id!r}")
        except InvalidInput as error:  # noqa: PERF203
            report.failed[document.id] = str(error)
        else:
            good.append(document)
    return good


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


async def check_adopted(access: BackfillAccess) -> int:
    """How many documents of a sample have FDEs, which someone else wrote.

    Raises:
        EncoderMismatch: they are not of this encoder.
    """
    documents = [each for each in (await access.sample(_SAMPLE)) if each.fde is not None]
    if not documents:
        return 0
    similarity = float(np.median(await Compute(partial(_agreement, access, documents))))
    if similarity < _SAME_ENCODER:
        raise EncoderMismatch(
            f"{access.collection.name}: the vectors {access.collection.fde!r} are not what encoder "
            f"{access.collection.encoder.fingerprint} makes of the stored tokens (median cosine of {len(documents)} "
            f"documents: {similarity:.3f}); was another seed, size or library used?"
        )
    return len(documents)


async def verify(access: BackfillAccess, report: BackfillReport) -> int:
    """Documents of a sample whose FDE is that of their tokens; others are rewritten and a sample taken again.

    Raises:
        MuveraError: samples still disagree after several rounds.
    """
    wrong: list[Stored] = []
    for _ in range(_ROUNDS):
        documents = [each for each in (await access.sample(_SAMPLE)) if each.fde is not None]
        documents = encodable(access, documents, report)
        if not documents:
            return 0
        agreement = await Compute(partial(_agreement, access, documents))
        wrong = [each for each, cosine in zip(documents, agreement, strict=True) if cosine < _SAME_TOKENS]
        if not wrong:
            return len(documents)
        await fill(access, wrong, report)
    ids = ", ".join(repr(each.id) for each in wrong[:5])
    raise MuveraError(
        f"{access.collection.name}: tokens of {ids} keep changing without their FDE: another program updates "
        f"{access.collection.tokens!r} alone; make it write through this library"
    )


def _agreement(access: BackfillAccess, documents: Sequence[Stored]) -> npt.NDArray[np.float32]:
    """(n,) cosines of the FDEs that are there and those of the tokens."""
    return cosines(np.stack([each.fde for each in documents if each.fde is not None]), encode(access, documents))
