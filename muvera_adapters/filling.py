"""What backfills of every database do alike: FDEs of stored tokens are made, written, read again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.documents import cosines, encode_stored
from muvera_adapters.errors import EncoderMismatch, InvalidInput, MuveraError
from muvera_adapters.results import BackfillReport, DocumentId
from muvera_adapters.stores.operations import Compute, Operation, seconds
from muvera_core import Encoder

_SAMPLE = 64
_ROUNDS = 5
# another seed gives about 0; tokens stored with less precision than they were encoded with stay above 0.95
_SAME_ENCODER = 0.95
_SAME_TOKENS = 0.999


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that has tokens, as it was read.

    Attributes:
        key: the database's.
        id: the user's.
        tokens: (n, token_dim).
        fde: (dim,), None where there is none or none was asked for.
    """

    key: Any
    id: DocumentId
    tokens: npt.NDArray[Any]
    fde: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A collection, and what a backfill does with it in its database's way.

    Attributes:
        name: of the collection.
        encoder: of its FDEs.
        fde: name of the FDEs there.
        tokens: name of the tokens there.
        cosine: tokens count as normalised.
        check: raises InvalidInput for a matrix that cannot be encoded; it is told where that is.
        sample: at most so many documents that have tokens, with the FDEs that are there.
        read: documents of these keys, without FDEs; those that are gone, or have no tokens, are left out.
        write: writes FDEs by key; how many were written, as those deleted meanwhile are left out.
        same: whether tokens that were read twice are equal.
        exclusive: nobody else can write.
    """

    name: str
    encoder: Encoder
    fde: str
    tokens: str
    cosine: bool
    check: Callable[[npt.NDArray[Any], str], None]
    sample: Callable[[int], Operation[list[Stored]]]
    read: Callable[[list[Any]], Operation[list[Stored]]]
    write: Callable[[list[tuple[Any, npt.NDArray[np.float32]]]], Operation[int]]
    same: Callable[[npt.NDArray[Any], npt.NDArray[Any]], bool] = np.array_equal
    exclusive: bool = False


def encodable(place: Place, documents: Sequence[Stored], report: BackfillReport) -> list[Stored]:
    """Those whose tokens can be encoded; the report says why others cannot."""
    good = []
    for document in documents:
        try:
            place.check(document.tokens, f"document {document.id!r}")
        except InvalidInput as error:  # noqa: PERF203
            report.failed[document.id] = str(error)
        else:
            good.append(document)
    return good


def encode(place: Place, documents: Sequence[Stored]) -> npt.NDArray[np.float32]:
    """(n, dim) FDEs."""
    return encode_stored(place.encoder, [document.tokens for document in documents], cosine=place.cosine)


async def estimate(place: Place, documents: Sequence[Stored], read: float, report: BackfillReport) -> None:
    """Bytes and seconds of what remains, from some documents and the seconds that reading them took."""
    report.fde_bytes = 4 * place.encoder.dim * report.remaining
    documents = encodable(place, documents, BackfillReport())
    if not documents:
        return
    await Compute(partial(encode, place, documents[:1]))  # the first use of an encoder compiles
    compiled = seconds()
    await Compute(partial(encode, place, documents))
    each = (seconds() - compiled) / len(documents)
    floats = float(np.mean([document.tokens.size for document in documents]))
    report.read_bytes = int(4 * floats * report.remaining)
    # reading, encoding, and a write that is taken to last as long as the reading
    report.seconds = report.remaining * (each + 2 * read / len(documents))


async def fill(place: Place, documents: Sequence[Stored], report: BackfillReport) -> int:
    """Writes the FDEs of documents; returns how many.

    A writer may replace a document between our reading and our writing, whose new tokens would then stand beside the
    old FDE. So tokens are read again after the write, until they are those that were encoded.
    """
    wrote = 0
    documents = encodable(place, documents, report)
    for _ in range(_ROUNDS):
        if not documents:
            break
        fdes = await Compute(partial(encode, place, documents))
        wrote += await place.write([(each.key, fde) for each, fde in zip(documents, fdes, strict=True)])
        if place.exclusive:
            break
        encoded = {each.key: each.tokens for each in documents}
        again = await place.read(list(encoded))
        changed = [each for each in again if not place.same(each.tokens, encoded[each.key])]
        wrote -= len(changed)
        documents = encodable(place, changed, report)
    return wrote


async def check_adopted(place: Place) -> int:
    """How many documents of a sample have FDEs, which someone else wrote.

    Raises:
        EncoderMismatch: they are not of this encoder.
    """
    documents = [each for each in (await place.sample(_SAMPLE)) if each.fde is not None]
    if not documents:
        return 0
    similarity = float(np.median(await Compute(partial(_agreement, place, documents))))
    if similarity < _SAME_ENCODER:
        raise EncoderMismatch(
            f"{place.name}: the vectors {place.fde!r} are not what encoder {place.encoder.fingerprint} "
            f"makes of the stored tokens (median cosine of {len(documents)} documents: {similarity:.3f}); "
            "was another seed, size or library used?"
        )
    return len(documents)


async def verify(place: Place, report: BackfillReport) -> int:
    """Documents of a sample whose FDE is that of their tokens; others are rewritten and a sample taken again.

    Raises:
        MuveraError: samples still disagree after several rounds.
    """
    wrong: list[Stored] = []
    for _ in range(_ROUNDS):
        documents = [each for each in (await place.sample(_SAMPLE)) if each.fde is not None]
        documents = encodable(place, documents, report)
        if not documents:
            return 0
        agreement = await Compute(partial(_agreement, place, documents))
        wrong = [each for each, cosine in zip(documents, agreement, strict=True) if cosine < _SAME_TOKENS]
        if not wrong:
            return len(documents)
        await fill(place, wrong, report)
    ids = ", ".join(repr(each.id) for each in wrong[:5])
    raise MuveraError(
        f"{place.name}: tokens of {ids} keep changing without their FDE: another program updates "
        f"{place.tokens!r} alone; make it write through this library"
    )


def _agreement(place: Place, documents: Sequence[Stored]) -> npt.NDArray[np.float32]:
    """(n,) cosines of the FDEs that are there and those of the tokens."""
    return cosines(np.stack([each.fde for each in documents if each.fde is not None]), encode(place, documents))
