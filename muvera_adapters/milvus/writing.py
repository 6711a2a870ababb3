"""Operations that write and delete documents, and wait until they are indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from muvera_adapters.errors import MuveraError
from muvera_adapters.milvus import requests
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import among, checked
from muvera_adapters.milvus.expressions import everything as all_documents
from muvera_adapters.milvus.ids import to_key
from muvera_adapters.milvus.merging import merge
from muvera_adapters.milvus.prepare import intake, to_rows, unfit
from muvera_adapters.milvus.reading import indexes, is_indexed, unindexed
from muvera_adapters.milvus.requests import FILTER_KEYS, Description
from muvera_adapters.results import DocumentId, WriteReport
from muvera_adapters.stores import writing
from muvera_adapters.stores.checks import ZeroRows, need_fde, prepare
from muvera_adapters.stores.writing import WriteAccess, check_named, slices, wait_until_idle


async def upsert(
    collection: Collection,
    ids: Sequence[DocumentId],
    tokens: Any,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    progress: bool,
    vectors: Mapping[str, Sequence[Any]] | None = None,
    replace: bool = False,
    zero_rows: ZeroRows = "refuse",
) -> WriteReport:
    """Encodes and writes documents, batch after batch; unless ``replace``, fields that they do not name stay."""
    need_fde(collection)
    prepared = prepare(collection, ids, tokens, payloads, intake(collection), vectors=vectors, zero_rows=zero_rows)
    whole = replace or await _is_empty(collection, prepared.sizes)

    async def write(rows: Sequence[dict[str, Any]], _: bool) -> dict[int, MuveraError]:
        await (requests.upsert(collection, rows) if whole else merge(collection, rows))
        collection.seen.without_fde.forget()
        return {}

    access = WriteAccess(
        requests.WRITE_BYTES, partial(to_rows, collection, prepared), write, partial(unfit, collection)
    )
    return await writing.upsert(prepared, collection, access, progress)


async def delete(
    collection: Collection, ids: Sequence[DocumentId] | None, chosen: str | None, everything: bool = False
) -> None:
    """Deletes documents by ids or by filter; all of them only with ``everything``."""
    expression = checked(chosen)
    check_named(ids, chosen, everything, matches_all=chosen is not None and not expression)
    collection.seen.without_fde.forget()
    if ids is None:
        await requests.delete(collection, expression or all_documents(collection))
        return
    keys = [to_key(document_id, i, collection.keys, collection.max_key) for i, document_id in enumerate(ids)]
    for i in range(0, len(keys), FILTER_KEYS):
        await requests.delete(collection, among(collection.key, keys[i : i + FILTER_KEYS]))


async def wait_indexed(collection: Collection, timeout: float | None) -> int | None:
    """Writes documents in memory to segments, and waits until all segments have their indexes.

    Returns the number of documents without index, as :func:`reading.unindexed`.
    """
    await requests.flush(collection.name)
    found = await wait_until_idle(collection.name, partial(_index_state, collection.name), timeout)
    return unindexed(collection, found, await requests.count(collection))


async def _index_state(name: str) -> tuple[list[Description], str | None]:
    """The indexes, and the current activity of the server (None: nothing)."""
    found = await indexes(name)
    return found, None if is_indexed(found) else "indexing"


async def _is_empty(collection: Collection, sizes: Sequence[int]) -> bool:
    """Whether the collection is empty. For a single batch it is not checked, as that takes as long as the batch."""
    if len(list(islice(slices(sizes, requests.WRITE_BYTES), 2))) < 2:
        return False
    return not await requests.count(collection)
