"""Operations that read documents and describe a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from weaviate.classes.query import Filter

from muvera_adapters.errors import InvalidInput, SchemaMismatch
from muvera_adapters.results import Document, DocumentId, StoreInfo
from muvera_adapters.weaviate.identity import FDE_KEY, from_uuid, to_uuid, user_properties
from muvera_adapters.weaviate.requests import (
    FILTER_IDS,
    Call,
    Collection,
    Row,
    count_marked,
    fetch,
    nodes,
    page,
    to_rows,
)
from muvera_adapters.weaviate.requests import count as count_call

_SAMPLE = 32
# objects whose vectors are looked at when a collection is opened
_FEW = 4
# bytes of tokens in one reply; half of what the client receives by default
READ_BYTES = 48 << 20
# documents of other writers that are looked at one by one; beyond, their share is taken for that of all
_LOOK_AT = 1_000


def need_fde(collection: Collection) -> None:
    """Raises InvalidInput where there are no FDEs to search or to write."""
    if not collection.has_fde:
        raise InvalidInput(
            f"{collection.name} has no filled vector {collection.fde!r} yet: run backfill() first; it was adopted as "
            "it is"
        )


async def check_widths(collection: Collection) -> None:
    """Looks at a few stored vectors, as a schema does not tell widths, and a quantized index compares any with any.

    Raises:
        SchemaMismatch: they are not as long as the encoder's.
    """
    encoder = collection.encoder
    expected = {collection.tokens: (encoder.token_dim, "takes")} if collection.tokens is not None else {}
    if collection.fde_exists:
        expected[collection.fde] = (encoder.dim, "gives")
    for row in await page(collection, _FEW, None, None, list(expected)):
        problems = [
            f"{name!r} has {row.vectors[name].shape[-1]} dimensions, the encoder {verb} {dim}"
            for name, (dim, verb) in expected.items()
            if name in row.vectors and row.vectors[name].shape[-1] != dim
        ]
        if problems:
            raise SchemaMismatch(f"{collection.name} does not fit: {'; '.join(problems)}")
        collection.width_seen = collection.width_seen or collection.fde in row.vectors


async def sample_fdes(collection: Collection, size: int) -> list[npt.NDArray[np.float32]]:
    """At most so many stored FDEs, the first in the order of ids."""
    rows = await page(collection, size, None, None, (collection.fde,))
    return [row.vectors[collection.fde] for row in rows if collection.fde in row.vectors]


def token_names(collection: Collection, wanted: bool) -> tuple[str, ...]:
    """Vectors to ask for.

    Raises:
        InvalidInput: tokens are wanted and the collection stores none.
    """
    if not wanted:
        return ()
    if collection.tokens is None:
        raise InvalidInput(f"{collection.name} stores no tokens")
    return (collection.tokens,)


async def get(collection: Collection, ids: Sequence[DocumentId], with_tokens: bool) -> list[Document | None]:
    """Documents by id, in the order of the ids, None where there is none."""
    vectors = token_names(collection, with_tokens)
    objects = [to_uuid(document_id, i)[0] for i, document_id in enumerate(ids)]
    found = {row.id: row for row in (await fetch_all(collection, objects, True, vectors))}
    return [_document(collection, found[o]) if o in found else None for o in objects]


async def fetch_all(
    collection: Collection, ids: Sequence[str], properties: Any, vectors: Sequence[str], filters: Any = None
) -> list[Row]:
    """Any number of ids, in requests whose replies stay within what a message holds."""
    rows: list[Row] = []
    size = (await fitting(collection)) if vectors else FILTER_IDS
    for i in range(0, len(ids), size):
        rows += await fetch(collection, ids[i : i + size], properties, vectors, filters)
    remember(collection, rows)
    return rows


async def fitting(collection: Collection) -> int:
    """How many documents' tokens one reply safely holds, from the largest that was read."""
    assert collection.tokens is not None
    if not collection.token_floats:
        remember(collection, (await page(collection, 16, None, None, (collection.tokens,))))
    # twice the largest seen, as others may be larger
    each = 8 * (collection.token_floats or 300 * collection.encoder.token_dim)
    return max(1, min(FILTER_IDS, min(READ_BYTES, collection.server.max_message // 2) // each))


def remember(collection: Collection, rows: Sequence[Row]) -> None:
    """Keeps the size of the largest token matrix."""
    sizes = [matrix.size for row in rows if (matrix := tokens_of(collection, row)) is not None]
    collection.token_floats = max([collection.token_floats, *sizes])


async def one_page(
    collection: Collection, chosen: Any, limit: int, after: str | None, with_tokens: bool
) -> tuple[list[Document], str | None]:
    """One page of all documents and where the next begins (None: nowhere).

    A cursor takes no filter, and pages by offset end at 10,000: so every page of ids is filtered on its own.
    """
    vectors = token_names(collection, with_tokens)
    if chosen is None:
        rows = await page(collection, limit, after, True, vectors)
        ids = [row.id for row in rows]
    else:
        ids = [row.id for row in (await page(collection, limit, after, None))]
        found = {row.id: row for row in (await fetch_all(collection, ids, True, vectors, chosen))} if ids else {}
        rows = [found[i] for i in ids if i in found]
    return [_document(collection, row) for row in rows], ids[-1] if len(ids) == limit else None


async def count(filters: Any) -> int:
    """Documents, exactly."""
    return await count_call(filters)


@dataclass(frozen=True, slots=True)
class Unmarked:
    """Documents whose FDE this library did not write: how many have an FDE nevertheless, and how many have tokens."""

    total: int
    with_fde: int
    with_tokens: int


async def look_at_unmarked(collection: Collection, total: int) -> Unmarked:
    """Exact for at most _LOOK_AT of them, else scaled up from so many."""
    if not collection.keeps_state:
        marked, chosen = 0, None
    else:
        marked = await count_marked(collection)
        chosen = Filter.by_property(FDE_KEY).not_equal(collection.fde)  # true also where there is no such property
    if marked >= total:
        return Unmarked(0, 0, 0)
    names = [name for name in (collection.fde if collection.fde_exists else None, collection.tokens) if name]
    seen = with_fde = with_tokens = 0
    size = min(_LOOK_AT, (await fitting(collection))) if collection.tokens else _LOOK_AT
    while seen < min(_LOOK_AT, total - marked):
        arguments = {"filters": chosen, "limit": size, "offset": seen, "include_vector": names}
        rows = await Call[Any]("query.fetch_objects", {**arguments, "return_properties": []}, to_rows)
        if not rows:
            break
        seen += len(rows)
        with_fde += sum(collection.fde in row.vectors for row in rows)
        with_tokens += sum(collection.tokens in row.vectors for row in rows)
    scale = (total - marked) / max(1, seen)
    return Unmarked(total - marked, round(with_fde * scale), round(with_tokens * scale))


async def info(collection: Collection) -> StoreInfo:
    """State and sizes; sizes of tokens are estimated from a sample."""
    shards = await nodes(collection)
    total = await count_call()
    unmarked = await look_at_unmarked(collection, total)
    marked = total - unmarked.total
    with_fde = marked + unmarked.with_fde
    with_tokens, token_bytes = 0, 0
    if collection.tokens is not None:
        with_tokens = marked + unmarked.with_tokens
        rows = await page(collection, _SAMPLE, None, None, (collection.tokens,))
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
    )


def unindexed(collection: Collection, shards: Sequence[Any]) -> int:
    """Least number of documents that wait for an index: queues count the vectors of all names together."""
    return -(-sum(shard.vector_queue_length for shard in shards) // max(1, collection.indexes))


def is_indexed(shards: Sequence[Any]) -> bool:
    """Whether nothing waits in a queue (without ASYNC_INDEXING nothing ever does)."""
    return all(s.vector_indexing_status != "INDEXING" and not s.vector_queue_length for s in shards)


def document_id_of(row: Row) -> DocumentId:
    """The user's."""
    return from_uuid(row.id, row.properties)


def tokens_of(collection: Collection, row: Row) -> npt.NDArray[np.float32] | None:
    """(n, token_dim) as stored, None where there are none."""
    return row.vectors.get(collection.tokens) if collection.tokens is not None else None


def _document(collection: Collection, row: Row) -> Document:
    return Document(document_id_of(row), user_properties(row.properties), tokens_of(collection, row))
