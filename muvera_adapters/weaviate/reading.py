"""Operations that read documents and describe a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from weaviate.classes.query import Filter
from weaviate.collections.classes.cluster import Shard
from weaviate.collections.classes.filters import FilterReturn

from muvera_adapters.errors import SchemaMismatch
from muvera_adapters.results import Document, DocumentId, StoreInfo
from muvera_adapters.stores.checks import need_tokens
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.ids import FDE_KEY, from_uuid, to_uuid
from muvera_adapters.weaviate.properties import to_payload
from muvera_adapters.weaviate.requests import Row

_SAMPLE = 32
# number of objects whose vectors are looked at when a collection is opened
_FEW = 4
# bytes of tokens in one reply; half of what the client receives by default
READ_BYTES = 48 << 20
# number of unmarked documents that are looked at one by one; of more, the rest is extrapolated
_LOOK_AT = 1_000


async def check_widths(collection: Collection) -> None:
    """Compares the widths of a few stored vectors with the encoder's.

    A schema has no widths, and a quantized index compares vectors of any width.

    Raises:
        SchemaMismatch: widths differ; the message names each.
    """
    encoder = collection.encoder
    expected = {collection.tokens: (encoder.token_dim, "takes")} if collection.tokens is not None else {}
    if collection.fde_exists:
        expected[collection.fde] = (encoder.dim, "gives")
    for row in await r.page(collection, _FEW, None, None, list(expected)):
        problems = [
            f"{name!r} has {row.vectors[name].shape[-1]} dimensions, the encoder {verb} {dim}"
            for name, (dim, verb) in expected.items()
            if name in row.vectors and row.vectors[name].shape[-1] != dim
        ]
        if problems:
            raise SchemaMismatch(f"{collection.name} does not fit: {'; '.join(problems)}")
        collection.seen.fde_width |= collection.fde in row.vectors


async def sample_fdes(collection: Collection, size: int) -> list[npt.NDArray[np.float32]]:
    """At most ``size`` stored FDEs, the first in the order of ids."""
    rows = await r.page(collection, size, None, None, (collection.fde,))
    return [row.vectors[collection.fde] for row in rows if collection.fde in row.vectors]


def token_names(collection: Collection, wanted: bool) -> tuple[str, ...]:
    """Names of the vectors to request: the tokens, if they are wanted.

    Raises:
        InvalidInput: tokens are wanted, and the collection stores none.
    """
    return (need_tokens(collection),) if wanted else ()


async def get(collection: Collection, ids: Sequence[DocumentId], with_tokens: bool) -> list[Document | None]:
    """Documents in the order of ``ids``; None for an id that does not exist."""
    vectors = token_names(collection, with_tokens)
    objects = [to_uuid(document_id, i)[0] for i, document_id in enumerate(ids)]
    found = {row.id: row for row in await fetch_all(collection, objects, True, vectors)}
    return [_document(collection, found[o]) if o in found else None for o in objects]


async def ping(collection: Collection) -> None:
    """Reads an object that need not exist."""
    await r.fetch(collection, [str(UUID(int=0))], None)


async def fetch_all(
    collection: Collection,
    ids: Sequence[str],
    properties: Any,
    vectors: Sequence[str],
    filters: FilterReturn | None = None,
) -> list[Row]:
    """Rows of any number of ids, in requests whose replies fit into a message."""
    rows: list[Row] = []
    size = await fitting(collection) if vectors else r.FILTER_IDS
    for i in range(0, len(ids), size):
        rows += await r.fetch(collection, ids[i : i + size], properties, vectors, filters)
    remember(collection, rows)
    return rows


async def fitting(collection: Collection) -> int:
    """Number of documents whose tokens safely fit into one reply, by the largest one read so far."""
    assert collection.tokens is not None
    if not collection.seen.token_floats:
        remember(collection, await r.page(collection, 16, None, None, (collection.tokens,)))
    # twice the largest seen, as others may be larger
    each = 8 * (collection.seen.token_floats or 300 * collection.encoder.token_dim)
    return max(1, min(r.FILTER_IDS, min(READ_BYTES, collection.server.max_message // 2) // each))


def remember(collection: Collection, rows: Sequence[Row]) -> None:
    """Records the size of the largest token matrix."""
    sizes = [matrix.size for row in rows if (matrix := tokens_of(collection, row)) is not None]
    collection.seen.token_floats = max([collection.seen.token_floats, *sizes])


async def one_page(
    collection: Collection, chosen: FilterReturn | None, limit: int, after: str | None, with_tokens: bool
) -> tuple[list[Document], str | None]:
    """One page of documents, and the start of the next one (None: this is the last).

    A cursor cannot be combined with a filter, and pages by offset end at 10,000. So each page of ids is filtered
    separately.
    """
    vectors = token_names(collection, with_tokens)
    if chosen is None:
        rows = await r.page(collection, limit, after, True, vectors)
        ids = [row.id for row in rows]
    else:
        ids = [row.id for row in await r.page(collection, limit, after, None)]
        found = {row.id: row for row in await fetch_all(collection, ids, True, vectors, chosen)} if ids else {}
        rows = [found[i] for i in ids if i in found]
    return [_document(collection, row) for row in rows], ids[-1] if len(ids) == limit else None


async def count(filters: FilterReturn | None) -> int:
    """Exact number of documents."""
    return await r.count(filters)


@dataclass(frozen=True, slots=True)
class Unmarked:
    """Documents whose FDE this library did not write.

    Attributes:
        total: number of these documents.
        with_fde: number of these documents that have an FDE nevertheless.
        with_tokens: number of these documents that have tokens.
    """

    total: int
    with_fde: int
    with_tokens: int


async def look_at_unmarked(collection: Collection, total: int) -> Unmarked:
    """Counts documents without our mark; exact up to _LOOK_AT of them, otherwise extrapolated from these."""
    if not collection.keeps_state:
        marked, chosen = 0, None
    else:
        marked = await r.count_marked(collection)
        chosen = Filter.by_property(FDE_KEY).not_equal(collection.fde)  # also true if there is no such property
    if marked >= total:
        return Unmarked(0, 0, 0)
    names = [name for name in (collection.fde if collection.fde_exists else None, collection.tokens) if name]
    seen = with_fde = with_tokens = 0
    size = min(_LOOK_AT, await fitting(collection)) if collection.tokens else _LOOK_AT
    while seen < min(_LOOK_AT, total - marked):
        rows = await r.matching(chosen, size, seen, names)
        if not rows:
            break
        seen += len(rows)
        with_fde += sum(collection.fde in row.vectors for row in rows)
        with_tokens += sum(collection.tokens in row.vectors for row in rows)
    scale = (total - marked) / max(1, seen)
    return Unmarked(total - marked, round(with_fde * scale), round(with_tokens * scale))


async def count_missing(collection: Collection) -> int:
    """Number of documents that have tokens and no FDE; exact up to _LOOK_AT documents without our mark.

    Weaviate has no filter for objects with a vector, so the indexes are asked for those without our mark, without
    reading any vector.
    """
    total = await r.count()
    unmarked = total - await r.count_marked(collection)
    if unmarked <= 0:
        return 0
    chosen = Filter.by_property(FDE_KEY).not_equal(collection.fde)
    ids = [row.id for row in await r.matching(chosen, min(_LOOK_AT, unmarked), 0, ())]
    missing, seen = ids, max(1, len(ids))
    if missing and collection.fde_info.flat_cutoff > len(missing):  # otherwise the index cannot tell
        anything = np.ones(collection.encoder.dim, np.float32)
        found = {row.id for row in await r.near_fde(collection, anything, len(missing), r.by_ids(missing))}
        missing = [i for i in missing if i not in found]
    # a quantized token index fails if one document lacks tokens
    if missing and collection.index != "none" and collection.exact_below > len(missing):
        token = np.ones((1, collection.encoder.token_dim), np.float32)
        found = {row.id for row in await r.near_tokens(collection, token, len(missing), r.by_ids(missing))}
        missing = [i for i in missing if i in found]
    return round(len(missing) * unmarked / seen)


async def info(collection: Collection) -> StoreInfo:
    """State and sizes of the collection; the size of tokens is estimated from a sample."""
    shards = await r.shards(collection)
    total = await r.count()
    unmarked = await look_at_unmarked(collection, total)
    marked = total - unmarked.total
    with_fde = marked + unmarked.with_fde
    with_tokens, token_bytes = 0, 0
    if collection.tokens is not None:
        with_tokens = marked + unmarked.with_tokens
        rows = await r.page(collection, _SAMPLE, None, None, (collection.tokens,))
        sizes = [m.size for row in rows if (m := tokens_of(collection, row)) is not None]
        token_bytes = int(4 * float(np.mean(sizes)) * with_tokens) if sizes else 0
    return StoreInfo(
        name=collection.name,
        engine=collection.server.engine,
        documents=total,
        without_fde=total - with_fde,
        without_tokens=total - with_tokens,
        segments=len(shards),
        indexed=is_indexed(shards),
        fingerprint=collection.encoder.fingerprint,
        fde_dim=collection.encoder.dim,
        fde_bytes=4 * with_fde * collection.encoder.dim,
        code_bytes=int(with_fde * collection.encoder.dim * collection.fde_info.code_bits / 8),
        token_bytes=token_bytes,
        unindexed=unindexed(collection, shards),
        model=collection.model,
        token_error=collection.token_error,
    )


def unindexed(collection: Collection, shards: Sequence[Shard]) -> int:
    """Lower bound of the number of documents that are not indexed yet: a queue counts vectors of all names."""
    return -(-sum(shard.vector_queue_length for shard in shards) // max(1, collection.indexes))


def is_indexed(shards: Sequence[Shard]) -> bool:
    """Whether the queues are empty; without ASYNC_INDEXING they always are."""
    return all(s.vector_indexing_status != "INDEXING" and not s.vector_queue_length for s in shards)


def document_id_of(row: Row) -> DocumentId:
    """The user's id of a row."""
    return from_uuid(row.id, row.properties)


def tokens_of(collection: Collection, row: Row) -> npt.NDArray[np.float32] | None:
    """Stored token matrix (n, token_dim) of a row; None if it has none."""
    return row.vectors.get(collection.tokens) if collection.tokens is not None else None


def _document(collection: Collection, row: Row) -> Document:
    return Document(document_id_of(row), to_payload(row.properties), tokens_of(collection, row))
