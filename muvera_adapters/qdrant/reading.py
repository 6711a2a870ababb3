"""Operations that read documents and describe a collection."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, Rejected
from muvera_adapters.logs import LOG
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.requests import Count, Fetch, GetStatus, Page, PointId, Row, Sample, Status, Where
from muvera_adapters.results import Document, DocumentId, StoreInfo
from muvera_adapters.stores.checks import need_tokens
from muvera_adapters.stores.ids import ID_KEY, from_point_id, to_point_id

T = TypeVar("T")

# number of ids in one request of get(); their tokens, at 300 x 128 a document, are 80 MB of JSON
_FETCH = 100
_SAMPLE = 32
# number of ids in one page, when documents are counted one by one
_COUNT_PAGE = 1_000
# a page with so few documents is rejected for another reason than its size
_LEAST_PAGE = 10


async def sample_fdes(collection: Collection, size: int) -> list[npt.NDArray[np.float32]]:
    """At most ``size`` stored FDEs, chosen at random."""
    rows = await Sample(collection.name, Where(has=(collection.fde,)), size, (collection.fde,))
    return [row.vectors[collection.fde] for row in rows]


def token_names(collection: Collection, wanted: bool) -> tuple[str, ...]:
    """Names of the vectors to request.

    Raises:
        InvalidInput: tokens are wanted, and the collection stores none.
    """
    return (need_tokens(collection),) if wanted else ()


async def get(
    collection: Collection, ids: Sequence[DocumentId], with_tokens: bool, shard_key: Any = None
) -> list[Document | None]:
    """Documents in the order of the ids; None for an id that does not exist."""
    vectors = token_names(collection, with_tokens)
    points = [to_point_id(document_id, i)[0] for i, document_id in enumerate(ids)]
    rows = await fetch(collection, points, True, vectors, shard_key)
    found = {str(point): row for point, row in rows.items()}
    return [_document(collection, found[str(p)]) if str(p) in found else None for p in points]


async def fetch(
    collection: Collection, points: Sequence[PointId], payload: Any, vectors: tuple[str, ...], shard_key: Any = None
) -> dict[PointId, Row]:
    """The existing points, by id."""
    found: dict[PointId, Row] = {}
    for i in range(0, len(points), _FETCH):
        rows = await Fetch(collection.name, points[i : i + _FETCH], payload, vectors, shard_key)
        found.update((row.id, row) for row in rows)
    return found


async def ping(collection: Collection) -> None:
    """Reads a point that need not exist."""
    await Fetch(collection.name, (0,), False, ())


async def page(
    collection: Collection, chosen: Any, limit: int, offset: Any, with_tokens: bool, shard_key: Any = None
) -> tuple[list[Document], Any]:
    """One page of all documents, and the start of the next (None: there is none)."""
    vectors = token_names(collection, with_tokens)
    rows, following = await read_page(collection, Where(chosen), limit, offset, True, vectors, shard_key)
    return [_document(collection, row) for row in rows], following


async def read_page(
    collection: Collection,
    where: Where,
    limit: int,
    offset: Any,
    payload: Any,
    vectors: tuple[str, ...] = (),
    shard_key: Any = None,
) -> tuple[list[Row], Any]:
    """A page in the order of ids, of ``limit`` points or as many as strict mode allows, and the start of the next."""

    def read(size: int) -> Page:
        return Page(collection.name, where, size, offset, payload, vectors, shard_key)

    return await allowed_page(collection, limit, read)


async def allowed_page(collection: Collection, limit: int, read: Callable[[int], Awaitable[T]]) -> T:
    """Result of ``read`` for ``limit`` points, or for fewer if the database rejects so many."""
    allowed = collection.seen.read_at_once
    size = limit if allowed.most is None else min(limit, allowed.most)
    try:
        return await read(size)
    except Rejected:
        if size <= _LEAST_PAGE:
            raise
    smaller = max(_LEAST_PAGE, size // 2)
    page = await allowed_page(collection, smaller, read)
    allowed.learn(smaller)
    return page


async def count(collection: Collection, chosen: Any, shard_key: Any = None) -> int:
    """Exact number of documents; if strict mode rejects such a count, their ids are read and counted."""
    seen, total, offset = collection.seen, 0, None
    if not seen.counts_are_refused:
        try:
            return await Count(collection.name, Where(chosen), shard_key)
        except Rejected as error:
            LOG.info("%s: documents are counted by reading ids, as counting is rejected: %s", collection.name, error)
    while True:
        rows, offset = await read_page(collection, Where(chosen), _COUNT_PAGE, offset, False, (), shard_key)
        seen.counts_are_refused = True  # the reason is not the filter
        total += len(rows)
        if offset is None:
            return total


async def count_vectors(collection: Collection, where: Where, shard_key: Any = None) -> int:
    """Number of documents that have or lack vectors; if strict mode rejects an exact count, the server's estimate.

    The estimate adds up the numbers of all segments, so it is wrong only while documents are being written.
    """
    seen = collection.seen
    if not seen.counts_are_refused:
        try:
            return await Count(collection.name, where, shard_key)
        except Rejected as error:
            LOG.info("%s: documents are estimated, as counting is rejected: %s", collection.name, error)
    estimate = await Count(collection.name, where, shard_key, exact=False)
    seen.counts_are_refused = True
    return estimate


async def info(collection: Collection) -> StoreInfo:
    """State and sizes; sizes of tokens are estimated from a sample."""
    state = await GetStatus(collection.name, collection.fde)
    total = await count_vectors(collection, Where())
    without_fde = (await count_vectors(collection, Where(lacks=(collection.fde,)))) if collection.has_fde else total
    without_tokens, token_bytes = total, 0
    if collection.tokens is not None:
        without_tokens = await count_vectors(collection, Where(lacks=(collection.tokens,)))
        rows = await Sample(collection.name, Where(has=(collection.tokens,)), _SAMPLE, (collection.tokens,))
        if rows:
            floats = float(np.mean([row.vectors[collection.tokens].size for row in rows]))
            token_bytes = int(floats * collection.token_float_bytes * (total - without_tokens))
    with_fde = total - without_fde
    return StoreInfo(
        name=collection.name,
        engine=state.engine,
        documents=total,
        without_fde=without_fde,
        without_tokens=without_tokens,
        segments=state.segments,
        indexed=state.status == "green",
        fingerprint=collection.encoder.fingerprint,
        fde_dim=collection.encoder.dim,
        fde_bytes=int(with_fde * collection.encoder.dim * state.fde_float_bytes),
        code_bytes=int(with_fde * collection.encoder.dim * state.code_bits / 8),
        token_bytes=token_bytes,
        disk_bytes=state.disk_bytes,
        unindexed=(await unindexed(collection, state)),
        model=collection.model,
        token_error=collection.token_error,
    )


async def unindexed(collection: Collection, state: Status) -> int | None:
    """Lower bound of the number of documents without index and codes; None if exact counts are forbidden.

    The database counts the indexed vectors of all names together (in an indexed segment, that is every vector,
    including tokens without a graph), and deleted ones until their segment is rebuilt.
    """
    if collection.seen.counts_are_refused:
        return None
    try:
        stored = 0
        for name in state.vectors:
            stored += await Count(collection.name, Where(has=(name,)))
    except Rejected as error:  # strict mode
        LOG.info("%s: documents without index are not counted, as counting is rejected: %s", collection.name, error)
        return None
    missing = max(0, stored - state.indexed_vectors)
    return -(-missing // max(1, len(state.vectors)))


def document_id(point: int | str | uuid.UUID, payload: Mapping[str, Any] | None) -> DocumentId:
    """The user's id of a point that the client returned.

    Raises:
        InvalidInput: the point was returned without its payload, which may have the id.
    """
    if payload is None and not isinstance(point, int):
        raise InvalidInput(
            f"point {point} came without its payload, which may have the id: ask for with_payload=True, or [{ID_KEY!r}]"
        )
    return from_point_id(point, payload)


def user_payload(row: Row) -> tuple[DocumentId, Mapping[str, Any]]:
    """The user's id and payload of a point."""
    document_id = from_point_id(row.id, row.payload)
    return document_id, {key: value for key, value in row.payload.items() if key != ID_KEY}


def tokens_of(collection: Collection, row: Row) -> npt.NDArray[np.float32] | None:
    """(n, token_dim) as stored, None where there are none."""
    return row.vectors.get(collection.tokens) if collection.tokens is not None else None


def _document(collection: Collection, row: Row) -> Document:
    document_id, payload = user_payload(row)
    return Document(document_id, payload, tokens_of(collection, row))
