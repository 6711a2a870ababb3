"""The operation that copies a collection into a new one with FDEs, where a vector cannot be added in place."""

from __future__ import annotations

import types
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from qdrant_client import models
from tqdm import tqdm

from muvera_adapters.errors import CollectionExists, InvalidInput, MuveraError
from muvera_adapters.qdrant.backfilling import access, to_stored
from muvera_adapters.qdrant.client_calls import Call, to_call, to_rows
from muvera_adapters.qdrant.client_errors import Target
from muvera_adapters.qdrant.client_schema import optimizers
from muvera_adapters.qdrant.description import STATE_KEY
from muvera_adapters.qdrant.requests import Collection, Count, Where
from muvera_adapters.results import BackfillReport
from muvera_adapters.stores.backfilling import encodable, encode, verify
from muvera_adapters.stores.kept import new_state
from muvera_adapters.stores.operations import Compute, Operation, seconds

_FIRST_PAGE = 16
_LARGEST_PAGE = 500
_PASSES = 10


async def copy(
    target: Target,
    collection: Collection,
    into: str,
    alias: str | None,
    fde: models.VectorParams,
    progress: bool,
) -> BackfillReport:
    """Copies points, vectors, payloads and payload indexes, with FDEs, and then switches the alias.

    A pass compares every point with its copy and writes those that are new or changed, and deletes copies of points
    that are gone; passes are repeated until one changes nothing. So a killed run is completed by another, and writes
    to the old collection during the copy are not lost.
    """
    assert collection.tokens is not None
    started, report = seconds(), BackfillReport()
    info = await Call("get_collection", {"collection_name": target.name})
    await _make(target, collection, info, into, fde)
    if alias is not None and (await Call("collection_exists", {"collection_name": alias})):
        names = await Call("get_aliases", {})
        if alias not in [a.alias_name for a in names.aliases]:
            raise InvalidInput(f"{alias!r} is a collection; an alias needs a name of its own")
    for _ in range(_PASSES):
        changed = await _pass(target, collection, into, report, progress)
        changed += await _prune(target, into)
        if not changed:
            break
    else:
        raise MuveraError(
            f"{target.name} changed during each of {_PASSES} passes; pause its writers and repeat the call"
        )
    copied = replace(collection, name=into, has_fde=True)
    report.verified = await _redirected(verify(access(copied), report), replace(target, name=into))
    # finished: from now on the copy may have points of its own, which another run must not delete
    state = new_state(collection.encoder, collection.fde, collection.tokens)
    await Call("update_collection", {"collection_name": into, "metadata": {STATE_KEY: state}})
    if alias is not None:
        await _switch(alias, into)
    report.without_tokens = await Count(Where(lacks=(collection.tokens,)))
    report.seconds = seconds() - started
    return report


async def _make(
    target: Target, collection: Collection, info: models.CollectionInfo, into: str, fde: models.VectorParams
) -> None:
    state = new_state(collection.encoder, collection.fde, collection.tokens) | {"copy_of": target.name}
    if await Call("collection_exists", {"collection_name": into}):
        there = await Call("get_collection", {"collection_name": into})
        if (there.config.metadata or {}).get(STATE_KEY) != state:
            raise CollectionExists(f"{into} exists and is no unfinished copy of {target.name} with this encoder")
        return
    config, params = info.config, info.config.params
    if not isinstance(params.vectors, dict):
        raise InvalidInput(f"{target.name} has an unnamed vector, which cannot be searched beside FDEs")
    vectors = {**params.vectors, collection.fde: fde}
    arguments = {
        "vectors_config": vectors,
        "sparse_vectors_config": params.sparse_vectors,
        "shard_number": params.shard_number,
        "replication_factor": params.replication_factor,
        "write_consistency_factor": params.write_consistency_factor,
        "on_disk_payload": params.on_disk_payload,
        "optimizers_config": optimizers(vectors),
        "hnsw_config": models.HnswConfigDiff(**config.hnsw_config.model_dump()) if config.hnsw_config else None,
        "quantization_config": config.quantization_config,
        "metadata": {**(config.metadata or {}), STATE_KEY: state},
    }
    await Call("create_collection", {"collection_name": into, **{k: v for k, v in arguments.items() if v is not None}})
    for field, schema in (info.payload_schema or {}).items():
        index = {"field_name": field, "field_schema": schema.params or schema.data_type}
        await Call("create_payload_index", {"collection_name": into, **index})


async def _pass(target: Target, collection: Collection, into: str, report: BackfillReport, progress: bool) -> int:
    assert collection.tokens is not None
    changed, offset, limit = 0, None, _FIRST_PAGE
    total = await Count(Where())
    with tqdm(total=total, unit="doc", desc="copy", disable=not progress) as bar:
        while True:
            page = {"collection_name": target.name, "limit": limit, "offset": offset, "with_vectors": True}
            records, offset = await Call("scroll", page)
            ids = [record.id for record in records]
            copies = await Call("retrieve", {"collection_name": into, "ids": ids, "with_vectors": True})
            known = {copy.id: copy for copy in copies}
            new = [record for record in records if not _same(record, known.get(record.id), collection.fde)]
            if new:
                await _write(collection, into, new, report)
            changed += len(new)
            bar.update(len(records))
            if offset is None:
                return changed
            floats = max((sum(_floats(v) for v in record.vector.values()) for record in records), default=1)
            fitting = int(
                collection.wire.target / ((floats + collection.encoder.dim) * collection.wire.bytes_per_float)
            )
            limit = max(1, min(fitting, 2 * limit, _LARGEST_PAGE))


async def _write(collection: Collection, into: str, records: Sequence[Any], report: BackfillReport) -> None:
    there = access(collection)
    documents = [to_stored(collection, row) for row in to_rows(records) if collection.tokens in row.vectors]
    documents = encodable(there, documents, report)
    fdes = (await Compute(partial(encode, there, documents))) if documents else []
    by_id = {each.key: fde.tolist() for each, fde in zip(documents, fdes, strict=True)}
    points = []
    for record in records:
        vector = dict(record.vector)
        if record.id in by_id:
            vector[collection.fde] = by_id[record.id]
        points.append(models.PointStruct(id=record.id, vector=vector, payload=record.payload))
    await Call("upsert", {"collection_name": into, "points": points, "wait": True})
    report.copied += len(points)
    report.written += len(by_id)


async def _prune(target: Target, into: str) -> int:
    """Deletes copies of points that are gone."""
    deleted, offset = 0, None
    while True:
        page = {"collection_name": into, "limit": 1_000, "offset": offset, "with_payload": False}
        records, offset = await Call("scroll", page)
        ids = [record.id for record in records]
        found = await Call("retrieve", {"collection_name": target.name, "ids": ids, "with_payload": False})
        gone = sorted({str(i): i for i in ids}.keys() - {str(record.id) for record in found})
        if gone:
            by_text = {str(i): i for i in ids}
            selector = models.PointIdsList(points=[by_text[text] for text in gone])
            await Call("delete", {"collection_name": into, "points_selector": selector})
            deleted += len(gone)
        if offset is None:
            return deleted


async def _switch(alias: str, into: str) -> None:
    """One request, so that the alias never points nowhere."""
    names = await Call("get_aliases", {})
    operations: list[Any] = []
    if alias in [a.alias_name for a in names.aliases]:
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    new = models.CreateAlias(collection_name=into, alias_name=alias)
    operations.append(models.CreateAliasOperation(create_alias=new))
    await Call("update_collection_aliases", {"change_aliases_operations": operations})


@types.coroutine
def _redirected(operation: Operation[int], target: Target) -> Generator[Any, Any, int]:
    """The same operation on another collection of the client."""
    try:
        request = operation.send(None)
        while True:
            try:
                reply = yield (request if isinstance(request, Compute) else to_call(request, target))
            except MuveraError as error:  # noqa: PERF203
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as done:
        return done.value


def _same(record: Any, copy: Any, fde: str) -> bool:
    if copy is None or (record.payload or {}) != (copy.payload or {}):
        return False
    ours = {name: vector for name, vector in copy.vector.items() if name != fde}
    return ours.keys() == record.vector.keys() and all(
        _close(vector, ours[name]) for name, vector in record.vector.items()
    )


def _close(a: Any, b: Any) -> bool:
    if hasattr(a, "indices"):
        return bool(a.indices == b.indices and np.allclose(a.values, b.values, rtol=1e-3, atol=1e-5))
    x, y = np.asarray(a, np.float32), np.asarray(b, np.float32)
    # a vector normalised twice differs in its last bits
    return x.shape == y.shape and np.allclose(x, y, rtol=1e-3, atol=1e-5)


def _floats(vector: Any) -> int:
    return 2 * len(vector.indices) if hasattr(vector, "indices") else int(np.asarray(vector).size)
