"""The operation that copies a collection into a new one with FDEs, where a vector cannot be added in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from qdrant_client import models

from muvera_adapters.errors import CollectionExists, InvalidInput, MuveraError, Unsupported
from muvera_adapters.progress import progress_bar
from muvera_adapters.qdrant.backfilling import access, to_stored
from muvera_adapters.qdrant.client import Connection, ask, tell, to_rows
from muvera_adapters.qdrant.collection import STATE_KEY, TOKENS, Collection, Seen
from muvera_adapters.qdrant.lifecycle import exists, fetch_info, index_payload, write_state
from muvera_adapters.qdrant.reading import allowed_page, count_vectors
from muvera_adapters.qdrant.requests import Delete, PointId, Where
from muvera_adapters.qdrant.schema import optimizers
from muvera_adapters.results import BackfillReport
from muvera_adapters.stores.backfilling import count_padded, encodable, encode, verify
from muvera_adapters.stores.checks import need_tokens
from muvera_adapters.stores.kept import new_state
from muvera_adapters.stores.operations import Compute, Request, seconds
from muvera_adapters.stores.shared_direction import warn_of_shared_direction

_FIRST_PAGE = 16
_LARGEST_PAGE = 500
_PASSES = 10


async def copy(
    connection: Connection,
    collection: Collection,
    into: str,
    alias: str | None,
    fde: models.VectorParams,
    progress: bool,
) -> BackfillReport:
    """Copies points, vectors, payloads and payload indexes, with FDEs, and then switches the alias.

    A pass compares every point with its copy, writes those that are new or changed, and deletes copies of points that
    no longer exist. Passes are repeated until one changes nothing. So another run completes a killed one, and writes
    to the old collection during the copy are not lost. A multivector without a name gets one in the copy.
    """
    tokens = need_tokens(collection, ": there is nothing to encode")
    started, report = seconds(), BackfillReport()
    copied = replace(collection, name=into, tokens=tokens or TOKENS, has_fde=True, kept=True, seen=Seen())
    await _make(connection, collection, await fetch_info(collection.name), copied, fde)
    if alias is not None and (await exists(alias)) and alias not in await _aliases():
        raise InvalidInput(f"{alias!r} is a collection; an alias needs another name")
    for _ in range(_PASSES):
        changed = await _pass(connection, collection, copied, report, progress)
        changed += await _prune(connection, collection, copied)
        if not changed:
            break
    else:
        raise MuveraError(
            f"{collection.name} changed during each of {_PASSES} passes; pause its writers and repeat the call"
        )
    report.verified = await verify(access(copied), report)
    # finished: from now on the copy may get new points, which another run must not delete
    await write_state(connection, copied)
    if alias is not None:
        await _switch(connection, alias, into)
    report.without_tokens += await count_vectors(collection, Where(lacks=(tokens,)))
    report.seconds = seconds() - started
    return report


async def _make(
    connection: Connection,
    collection: Collection,
    info: models.CollectionInfo,
    copied: Collection,
    fde: models.VectorParams,
) -> None:
    into = copied.name
    state = new_state(copied.encoder, copied.fde, copied.tokens, copied.model) | {"copy_of": collection.name}
    if await exists(into):
        there = await fetch_info(into)
        if (there.config.metadata or {}).get(STATE_KEY) != state:
            raise CollectionExists(
                f"{into} exists and is not an unfinished copy of {collection.name} with this encoder"
            )
        return
    config, params = info.config, info.config.params
    if params.sharding_method == models.ShardingMethod.CUSTOM:
        raise Unsupported(
            f"{collection.name} is sharded by custom keys, which a copy would not have, and an id under two keys "
            "would become one document: add FDEs in place (server 1.18 or later), or create a collection with keys "
            "and upsert the documents of each key with shard_key_selector"
        )
    named = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
    vectors = {_new_name(copied, name): vector for name, vector in named.items() if vector is not None}
    if len(vectors) < len(named):
        raise InvalidInput(
            f"{collection.name} has an unnamed vector and one named {copied.tokens!r}; both cannot be copied"
        )
    vectors[collection.fde] = fde
    graph = models.HnswConfigDiff(**config.hnsw_config.model_dump()) if config.hnsw_config else None
    await tell(
        lambda client: client.create_collection(
            collection_name=into,
            vectors_config=vectors,
            sparse_vectors_config=params.sparse_vectors,
            shard_number=params.shard_number,
            replication_factor=params.replication_factor,
            write_consistency_factor=params.write_consistency_factor,
            on_disk_payload=params.on_disk_payload,
            optimizers_config=optimizers(fde),
            hnsw_config=graph,
            quantization_config=config.quantization_config,
            metadata={**(config.metadata or {}), STATE_KEY: state},
            timeout=connection.timeout,
        )
    )
    for field, schema in (info.payload_schema or {}).items():
        await index_payload(connection, into, field, schema.params or schema.data_type)


async def _pass(
    connection: Connection, collection: Collection, copied: Collection, report: BackfillReport, progress: bool
) -> int:
    changed, offset, limit = 0, None, _FIRST_PAGE
    total = await count_vectors(collection, Where())
    with progress_bar(total=total, unit="doc", desc="copy", disable=not progress) as bar:
        while True:
            records, offset = await _page(connection, collection, limit, offset, content=True)
            copies = await _records(connection, copied.name, [record.id for record in records], content=True)
            known = {copy.id: copy for copy in copies}
            new = [record for record in records if not _same(copied, record, known.get(record.id))]
            old = [record.id for record in new if record.id in known]
            if old:
                # deleted and written again: a point that is only written may keep vectors and keys that the record no
                # longer has
                await Delete(copied.name, old)
            if new:
                await _write(connection, collection, copied, new, report)
            changed += len(new)
            bar.update(len(records))
            if offset is None:
                return changed
            floats = max((sum(map(_floats, _named(copied, record).values())) for record in records), default=1)
            fitting = int(
                collection.wire.target / ((floats + collection.encoder.dim) * collection.wire.bytes_per_float)
            )
            limit = max(1, min(fitting, 2 * limit, _LARGEST_PAGE))


async def _write(
    connection: Connection,
    collection: Collection,
    copied: Collection,
    records: Sequence[Any],
    report: BackfillReport,
) -> None:
    there = access(collection)
    stored = [to_stored(collection, row) for row in to_rows(records) if collection.tokens in row.vectors]
    documents = encodable(there, stored, report)
    report.zero_rows += count_padded(documents)
    await warn_of_shared_direction(copied, [each.tokens for each in documents])
    fdes = (await Compute(partial(encode, there, documents))) if documents else []
    by_id = {each.key: fde.tolist() for each, fde in zip(documents, fdes, strict=True)}
    with_tokens = {each.key for each in stored}
    points = []
    for record in records:
        vector = _named(copied, record)
        if record.id in by_id:
            vector[collection.fde] = by_id[record.id]
        elif record.id in with_tokens:
            vector.pop(collection.fde, None)  # it is the FDE of other tokens
        points.append(models.PointStruct(id=record.id, vector=vector, payload=record.payload or {}))
    await tell(
        lambda client: client.upsert(collection_name=copied.name, points=points, wait=True, timeout=connection.timeout)
    )
    report.copied += len(points)
    report.written += len(by_id)


async def _prune(connection: Connection, collection: Collection, copied: Collection) -> int:
    """Deletes copies of points that no longer exist."""
    deleted, offset = 0, None
    while True:
        records, offset = await _page(connection, copied, 1_000, offset, content=False)
        by_text = {str(record.id): record.id for record in records}
        found = await _records(connection, collection.name, list(by_text.values()), content=False)
        gone = sorted(by_text.keys() - {str(record.id) for record in found})
        if gone:
            await Delete(copied.name, [by_text[text] for text in gone])
            deleted += len(gone)
        if offset is None:
            return deleted


async def _page(
    connection: Connection, collection: Collection, limit: int, offset: Any, *, content: bool
) -> tuple[list[Any], Any]:
    """Records in the client's type, with sparse vectors, and the start of the next page (None: there is none)."""

    def read(size: int) -> Request[tuple[list[Any], Any]]:
        return ask(
            lambda client: client.scroll(
                collection_name=collection.name,
                limit=size,
                offset=offset,
                with_payload=content,
                with_vectors=content,
                timeout=connection.timeout,
            )
        )

    return await allowed_page(collection, limit, read)


async def _records(connection: Connection, name: str, ids: Sequence[PointId], *, content: bool) -> list[Any]:
    return await ask(
        lambda client: client.retrieve(
            collection_name=name, ids=ids, with_payload=content, with_vectors=content, timeout=connection.timeout
        )
    )


async def _aliases() -> list[str]:
    reply = await ask(lambda client: client.get_aliases())
    return [alias.alias_name for alias in reply.aliases]


async def _switch(connection: Connection, alias: str, into: str) -> None:
    """Switches in one request, so that the alias always exists."""
    operations: list[Any] = []
    if alias in await _aliases():
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    new = models.CreateAlias(collection_name=into, alias_name=alias)
    operations.append(models.CreateAliasOperation(create_alias=new))
    await tell(
        lambda client: client.update_collection_aliases(
            change_aliases_operations=operations, timeout=connection.timeout
        )
    )


def _new_name(copied: Collection, name: str) -> str:
    """Name of a vector in the copy, where every vector has one."""
    assert copied.tokens is not None
    return name or copied.tokens


def _named(copied: Collection, record: Any) -> dict[str, Any]:
    """Vectors of a record by their names in the copy."""
    vectors = record.vector if isinstance(record.vector, dict) else {"": record.vector}
    return {_new_name(copied, name): vector for name, vector in vectors.items() if vector is not None}


def _same(copied: Collection, record: Any, copy: Any) -> bool:
    if copy is None or (record.payload or {}) != (copy.payload or {}):
        return False
    # FDEs are not copied but computed from the tokens, which are compared
    theirs, ours = _named(copied, record), _named(copied, copy)
    theirs.pop(copied.fde, None)
    ours.pop(copied.fde, None)
    return ours.keys() == theirs.keys() and all(
        _close(vector, ours[name], copied.token_error if name == copied.tokens else 0.0)
        for name, vector in theirs.items()
    )


def _close(a: Any, b: Any, error: float) -> bool:
    if hasattr(a, "indices"):
        return bool(a.indices == b.indices and np.allclose(a.values, b.values, rtol=1e-3, atol=1e-5))
    x, y = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if x.shape == y.shape and error:
        # tokens are rounded a second time, which changes them less than the first time
        return bool((np.linalg.norm(x - y, axis=1) <= error * np.linalg.norm(x, axis=1)).all())
    # a vector normalised twice differs in its last bits
    return x.shape == y.shape and np.allclose(x, y, rtol=1e-3, atol=1e-5)


def _floats(vector: Any) -> int:
    return 2 * len(vector.indices) if hasattr(vector, "indices") else int(np.asarray(vector).size)
