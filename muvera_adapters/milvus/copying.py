"""The operation that copies a collection into a new one with FDEs, where a vector cannot be added in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from pymilvus import CollectionSchema, DataType, MilvusClient

from muvera_adapters.errors import CollectionExists, InvalidInput, MuveraError
from muvera_adapters.milvus import requests, schema
from muvera_adapters.milvus.backfilling import access, survey, to_stored
from muvera_adapters.milvus.collection import Collection, Seen
from muvera_adapters.milvus.expressions import among
from muvera_adapters.milvus.lifecycle import make_index, ready, write_state
from muvera_adapters.milvus.reading import Cursor, fitting, indexes, next_keys
from muvera_adapters.milvus.requests import Description, raw, to_row, vector
from muvera_adapters.milvus.schema import STATE_KEY, Plan
from muvera_adapters.progress import progress_bar
from muvera_adapters.results import BackfillReport
from muvera_adapters.stores.backfilling import count_padded, encodable, encode, verify
from muvera_adapters.stores.operations import Compute, seconds
from muvera_adapters.stores.shared_direction import warn_of_shared_direction

_PAGE = 100
_PASSES = 10


async def copy(
    collection: Collection, into: str, alias: str | None, leave_out: Sequence[str], plan: Plan, progress: bool
) -> BackfillReport:
    """Copies documents with all their fields, and FDEs, and then switches the alias.

    A pass compares every document with its copy and writes those that are new or changed, and deletes copies of
    documents that are gone; passes are repeated until one changes nothing. So a killed run is completed by another, and
    writes to the old collection during the copy are not lost.
    """
    started = seconds()
    report = await survey(collection)
    if alias is not None:
        await _check_alias(alias)
    description = await requests.describe(collection.name)
    fields = _fields(collection, description, leave_out)
    copied = await _make(collection, description, fields, into, plan)
    for _ in range(_PASSES):
        changed = await _pass(collection, copied, fields, report, progress)
        changed += await _prune(collection, copied)
        if not changed:
            break
    else:
        raise MuveraError(
            f"{collection.name} changed during each of {_PASSES} passes; pause its writers and repeat the call"
        )
    report.verified = await verify(access(copied), report)
    # finished: from now on the copy may have documents of its own, which another run must not delete
    await write_state(copied)
    if alias is not None:
        await _switch(alias, into)
    report.remaining = len(report.failed)
    report.seconds = seconds() - started
    return report


async def _check_alias(alias: str) -> None:
    if await requests.exists(alias) and alias not in await requests.aliases():
        raise InvalidInput(f"{alias!r} is a collection; an alias needs another name")


def _fields(collection: Collection, description: Description, leave_out: Sequence[str]) -> list[str]:
    """The names of the fields that are copied."""
    names = [each["name"] for each in description["fields"]]
    needed = {collection.key, *collection.token_fields}
    for name in leave_out:
        if name not in names or name in needed:
            raise InvalidInput(f"leave_out: {collection.name} has no field {name!r} that can be left out")
    return [name for name in names if name not in (collection.mark, collection.fde, *leave_out)]


async def _make(
    collection: Collection, description: Description, fields: Sequence[str], into: str, plan: Plan
) -> Collection:
    copied = replace(
        collection,
        name=into,
        fde_exists=True,
        nullable=False,
        has_fde=True,
        marker=False,
        datatype=plan.datatype,
        seen=Seen(),
        strangers=tuple(name for name in collection.strangers if name in fields),
    )
    state = schema.snapshot_of(copied, copy_of=collection.name)
    if await requests.exists(into):
        there = await requests.describe(into)
        if (there.get("properties") or {}).get(STATE_KEY) != state:
            raise CollectionExists(
                f"{into} exists and is not an unfinished copy of {collection.name} with this encoder: nothing was "
                "changed; choose another name"
            )
        return await ready(copied)
    properties = {**(description.get("properties") or {}), STATE_KEY: state}
    made = _schema(collection, description, fields, plan)
    consistency = description.get("consistency_level", plan.consistency)
    await requests.create(into, made, properties, consistency, {"num_shards": description.get("num_shards") or 1})
    await make_index(into, collection.fde, metric_type="IP", **schema.fde_index(plan, collection.server))
    for index in await indexes(collection.name):
        if index["field_name"].partition("[")[0] in fields:
            await make_index(into, index["field_name"], index_name=index["index_name"], **_index(index))
    return await ready(copied)


def _schema(collection: Collection, description: Description, fields: Sequence[str], plan: Plan) -> CollectionSchema:
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=collection.dynamic)
    for each in description["fields"]:
        if each["name"] not in fields:
            continue
        named = {
            key: each[key]
            for key in ("is_primary", "nullable", "is_partition_key", "element_type", "default_value")
            if each.get(key) is not None
        }
        if each.get("element_type") == DataType.STRUCT:
            struct = MilvusClient.create_struct_field_schema()
            for sub in each["struct_fields"]:
                struct.add_field(sub["name"], sub["type"], **sub.get("params", {}))
            named["struct_schema"] = struct
        made.add_field(each["name"], each["type"], **named, **each.get("params", {}))
    made.add_field(collection.fde, plan.datatype, dim=collection.encoder.dim)
    return made


def _index(index: Description) -> dict[str, Any]:
    told = ("field_name", "index_name", "total_rows", "indexed_rows", "pending_index_rows", "state")
    return {key: value for key, value in index.items() if key not in told}


async def _pass(
    collection: Collection, copied: Collection, fields: Sequence[str], report: BackfillReport, progress: bool
) -> int:
    total = await requests.count(collection)
    wanted = [*fields, *(["$meta"] if collection.dynamic else [])]
    changed, without = 0, 0
    cursor: Cursor = None
    with progress_bar(total=total, unit="doc", desc="copy", disable=not progress) as bar:
        while True:
            size = min(_PAGE, await fitting(collection))
            keys, cursor = await next_keys(collection, "", size, cursor)
            if keys:
                rows = await raw(collection, keys, wanted)
                copies = await raw(copied, keys, wanted)
                known = {row[collection.key]: row for row in copies}
                new = [row for row in rows if row != known.get(row[collection.key])]
                without += sum(_has_no_tokens(collection, row) for row in rows)
                await _write(collection, copied, new, report)
                changed += len(new)
                bar.update(len(keys))
            if cursor is None:
                report.without_tokens = without
                return changed


async def _write(
    collection: Collection, copied: Collection, rows: Sequence[dict[str, Any]], report: BackfillReport
) -> None:
    """Copies with FDEs; if tokens cannot be encoded, the FDE is zero, as the field cannot be null."""
    if not rows:
        return
    to = access(collection)
    documents = to_stored(collection, [to_row(collection, row[collection.key], row) for row in rows])
    documents = encodable(to, documents, report)
    report.zero_rows += count_padded(documents)
    await warn_of_shared_direction(copied, [each.tokens for each in documents])
    fdes = (await Compute(partial(encode, to, documents))) if documents else ()
    by_key = {each.key: fde for each, fde in zip(documents, fdes, strict=True)}
    nothing = np.zeros(collection.encoder.dim, np.float32)
    values = [{**row, collection.fde: vector(copied, by_key.get(row[collection.key], nothing))} for row in rows]
    await requests.upsert(copied, values)
    report.copied += len(values)
    report.written += len(by_key)


def _has_no_tokens(collection: Collection, row: dict[str, Any]) -> bool:
    """Whether there is nothing to encode: no tokens, or only all-zero ones."""
    read = to_row(collection, row[collection.key], row)
    return not read.problem and (read.tokens is None or not read.tokens.any())


async def _prune(collection: Collection, copied: Collection) -> int:
    """Deletes copies of documents that are gone."""
    deleted = 0
    cursor: Cursor = None
    while True:
        keys, cursor = await next_keys(copied, "", 1_000, cursor)
        if keys:
            found = {row.key for row in await requests.fetch(collection, keys, (), strong=True)}
            gone = [key for key in keys if key not in found]
            if gone:
                await requests.delete(copied, among(copied.key, gone))
                deleted += len(gone)
        if cursor is None:
            return deleted


async def _switch(alias: str, into: str) -> None:
    """Switches in one request, so that the alias always exists."""
    if alias in await requests.aliases():
        await requests.alter_alias(alias, into)
    else:
        await requests.create_alias(alias, into)
