"""Operations on whole collections: create, open, adopt, add the FDE field, write the state, drop."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pymilvus import DataType, MilvusClient

from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    MuveraError,
    Rejected,
    SchemaMismatch,
    Unsupported,
)
from muvera_adapters.milvus import requests, schema
from muvera_adapters.milvus.backfilling import check_adopted, clear
from muvera_adapters.milvus.collection import TOKENS, Collection, Metric, Server, TokenStorage
from muvera_adapters.milvus.reading import indexes
from muvera_adapters.milvus.requests import Description
from muvera_adapters.milvus.schema import STATE_KEY, Plan
from muvera_adapters.stores.kept import adopted_model, choose_encoder, kept_model, read_state
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core import Encoder

# first version that updates single fields, including struct arrays
_MERGES = (2, 6, 20)
# first version with HNSW_SQ
_SQ8 = (2, 5, 0)

# suffix after MAX_SIM in the name of an index's metric
_TOKEN_METRICS: dict[str, Metric] = {"": "COSINE", "IP": "IP", "COSINE": "COSINE"}


async def connect() -> Server:
    """Asks for the version, which only sets defaults; capabilities are read from schemas."""
    try:
        version = await requests.server_version()
    except Unsupported:  # milvus-lite before 3
        return Server("milvus-lite", lite=True, merges=True)
    lite = version.startswith("milvus_lite")
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    number = tuple(int(part or 0) for part in found.groups()) if found else ()
    return Server(
        version.replace("_", "-") if lite else f"Milvus {version}",
        lite,
        known=lite or bool(number),
        merges=lite or number >= _MERGES,
        sq8=lite or number >= _SQ8,
    )


async def create(name: str, encoder: Encoder, plan: Plan) -> Collection:
    """Creates an empty collection.

    A server without struct arrays accepts the schema and drops the field, so the schema is read back.
    """
    schema.check(encoder, plan)
    server = await connect()
    if await requests.exists(name):
        raise CollectionExists(f"{name} exists: open or adopt it, or drop it first; nothing was changed")
    first = plan.preferred_storage
    description = await _make(name, encoder, plan, first, server)
    try:
        if first == "struct" and not schema.has_struct(description, TOKENS):
            await drop(name)
            if plan.storage == "struct":
                raise Unsupported(f"{server.engine} has no arrays of structs (Milvus has them since 2.6.4): use 'blob'")
            description = await _make(name, encoder, plan, "blob", server)
        if schema.kept_state(description) is None:
            raise Unsupported(f"{server.engine} stores no properties of collections, which the encoder needs")
        collection = _opened(description, name, encoder, server)
        await _index(collection, plan)
        return await ready(collection)
    except MuveraError:
        await drop(name)  # empty, and created by this call
        raise


async def open_collection(
    name: str, encoder: Encoder | None, model: TokenModel | None, consistency: str | None
) -> Collection:
    """Opens a collection that this library created or adopted."""
    server = await connect()
    description = await requests.describe(name)
    state = read_state(name, schema.kept_state(description))
    if "copy_of" in state:
        raise CollectionNotFound(f"{name} is an unfinished copy of {state['copy_of']}: repeat its backfill(into=...)")
    check_model(name, kept_model(state), model)
    collection = _opened(description, name, choose_encoder(name, state["encoder"], encoder), server)
    return await ready(replace(collection, consistency=consistency))


async def adopt(
    name: str,
    encoder: Encoder,
    fde: str,
    tokens: str | None,
    metric: Metric,
    model: TokenModel | None,
    consistency: str | None,
) -> Collection:
    """Adopts a collection, or gives one of ours another FDE field; state is written only if there are FDEs."""
    server = await connect()
    description = await requests.describe(name)
    kept = schema.kept_state(description)
    state = None if kept is None else read_state(name, kept)
    if state is not None and state["fde"] == fde:
        choose_encoder(name, state["encoder"], encoder)
    model, named = adopted_model(name, state, model)
    own: dict[str, Any] = {"metric": metric} if state is None else _own(state)
    collection = schema.describe(description, name, encoder, fde, tokens, server, **own)
    collection = await ready(replace(collection, model=model, consistency=consistency))
    await _check_width(collection)
    if named is not None:
        await requests.set_properties(name, {STATE_KEY: json.dumps(named)})
    if state is not None and state["fde"] != fde:
        # searches go on with the old field until backfill() has filled this one
        return replace(collection, has_fde=False)
    if collection.has_fde and state is None:
        if not (await check_adopted(collection)):
            return replace(collection, has_fde=False)
        await write_state(collection)
    return collection


async def write_state(collection: Collection) -> None:
    """Stores the encoder and the names as a property of the collection."""
    await requests.set_properties(collection.name, {STATE_KEY: schema.snapshot_of(collection)})
    if schema.kept_state(await requests.describe(collection.name)) is None:
        raise Unsupported(f"{collection.server.engine} stores no properties of collections")


async def remove_fde(collection: Collection) -> Unsupported | None:
    """Removes the FDE field, our mark and the state; returns the error of a server that cannot remove a field.

    In that case, values are removed if the field may be empty.
    """
    name = collection.name
    description = await requests.describe(name)
    there = {each["name"] for each in description["fields"]}
    kept, problem = schema.kept_state(description), None
    try:
        if collection.fde in there:
            await requests.drop_field(name, collection.fde)
        if collection.mark in there:
            await requests.drop_field(name, collection.mark)
    except (Rejected, Unsupported) as error:
        emptied = await clear(collection) if collection.marker else False
        left = "is empty now" if emptied else "keeps its values"
        problem = Unsupported(
            f"{collection.server.engine} cannot remove a field (Milvus can since 3.0): {collection.fde!r} of {name} "
            f"stays, and {left}. Nothing else of this library is left there. If {name} is a copy made by "
            "backfill(into=...), the original has none of it"
        )
        problem.__cause__ = error
    if kept is not None and kept.get("fde") == collection.fde:
        try:
            await requests.drop_property(name, STATE_KEY)
        except (Rejected, Unsupported):  # Milvus 2.3
            await requests.set_properties(name, {STATE_KEY: ""})
    return problem


async def drop(name: str) -> None:
    """Deletes the collection."""
    await requests.drop(name)


async def make_index(name: str, field: str, **options: Any) -> None:
    """Creates an index of a field, without waiting for it."""
    params = MilvusClient.prepare_index_params()
    params.add_index(field, **options)
    try:
        await requests.create_index(name, params)
    except Unsupported:
        # the asynchronous client waits, which milvus-lite does not support
        if options.get("index_name", field) not in (await requests.index_names(name)):
            raise


async def ready(collection: Collection) -> Collection:
    """Reads the indexes, and loads the collection if it is not loaded (a reopened file of milvus-lite)."""
    for index in await indexes(collection.name):
        if index["field_name"] == collection.fde:
            collection = replace(collection, index=index, fde_metric=index.get("metric_type", "IP"))
        elif collection.storage == "struct" and index["field_name"] == f"{collection.tokens}[{collection.sub}]":
            collection = _with_token_index(collection, index)
    if collection.fde_exists and collection.fde_metric not in ("IP", "COSINE"):
        raise SchemaMismatch(
            f"{collection.name}: FDEs are compared by IP or COSINE, {collection.fde!r} has another metric"
        )
    if not (await requests.is_loaded(collection.name)):
        await requests.load(collection.name)
    return collection


async def add_fde(collection: Collection, plan: Plan) -> Collection:
    """Adds the FDE field and our mark to a live collection.

    A state is written immediately, so that a killed run can be opened and resumed, unless the collection keeps one that
    names another field: searches go on with that field until the new one is filled and :func:`write_state` is called.
    """
    name = collection.name
    description = await requests.describe(name)
    types = {each["name"]: each["type"] for each in description["fields"]}
    try:
        if collection.fde not in types:
            await requests.add_field(name, collection.fde, plan.datatype, dim=collection.encoder.dim)
        if collection.mark not in types:
            await requests.add_field(name, collection.mark, DataType.VARCHAR, max_length=255)
    except (Rejected, Unsupported) as error:
        raise Unsupported(
            f"{collection.server.engine} cannot add a vector to {name} (Milvus can since 2.6.18): use "
            f"backfill(into=NEW_NAME, alias=NAME), which copies it; {error}"
        ) from error
    if collection.fde not in (await requests.index_names(name)):
        await make_index(name, collection.fde, metric_type="IP", **schema.fde_index(plan, collection.server))
        await requests.load(name)
    datatype = types.get(collection.fde, plan.datatype)
    added = await ready(replace(collection, fde_exists=True, nullable=True, marker=True, datatype=datatype))
    kept = schema.kept_state(description)
    if kept is None or kept["fde"] == added.fde:
        await write_state(added)
    return added


async def _make(name: str, encoder: Encoder, plan: Plan, storage: TokenStorage, server: Server) -> Description:
    """A collection with its state and without indexes; returns its description."""
    made = schema.schema_of(encoder, plan, storage)
    tokens = None if storage == "none" else TOKENS
    planned = Collection(
        name,
        encoder,
        storage=storage,
        tokens=tokens,
        metric=plan.metric,
        precision=plan.text_precision,
        server=server,
        model=plan.model,
    )
    options = dict(plan.options)
    properties = {**options.pop("properties", {}), STATE_KEY: schema.snapshot_of(planned)}
    try:
        await requests.create(name, made, properties, plan.consistency, options)
    except CollectionExists:
        # a lost reply, after which the request was repeated; or someone else was faster
        there = await requests.describe(name)
        if (there.get("properties") or {}).get(STATE_KEY) != properties[STATE_KEY]:
            raise
        return there
    return await requests.describe(name)


async def _index(collection: Collection, plan: Plan) -> None:
    name = collection.name
    await make_index(name, collection.fde, metric_type="IP", **schema.fde_index(plan, collection.server))
    if collection.storage == "struct":
        field, metric = f"{collection.tokens}[{collection.sub}]", f"MAX_SIM_{collection.metric}"
        index_name = f"{collection.tokens}_{collection.sub}"
        await make_index(name, field, index_name=index_name, metric_type=metric, **schema.token_index(plan))


def _opened(description: Description, name: str, encoder: Encoder, server: Server) -> Collection:
    state = read_state(name, schema.kept_state(description))
    collection = schema.describe(description, name, encoder, state["fde"], state["tokens"], server, **_own(state))
    if state["storage"] != collection.storage:
        raise SchemaMismatch(f"{name} was made with tokens as {state['storage']}, its schema has {collection.storage}")
    if not collection.fde_exists:
        raise SchemaMismatch(f"{name} has no field {collection.fde!r}")
    return replace(collection, model=kept_model(state))


def _own(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: state[key] for key in ("keys", "metric", "precision") if key in state}


def _with_token_index(collection: Collection, index: Description) -> Collection:
    told = str(index.get("metric_type", "")).removeprefix("MAX_SIM").removeprefix("_")
    metric = _TOKEN_METRICS.get(told)
    if metric is None:
        raise SchemaMismatch(f"{collection.name}: its tokens are compared by MAX_SIM_{told}, MaxSim needs IP or COSINE")
    strategy = str(index.get("emb_list_strategy", "tokenann"))
    return replace(collection, metric=metric, token_index=index, strategy=strategy)


async def _check_width(collection: Collection) -> None:
    """Checks the width of tokens in texts, which is not in the schema."""
    if collection.storage != "blob":
        return
    for row in await requests.page(collection, 1, None, collection.token_fields):
        width = collection.encoder.token_dim
        if row.tokens is not None and row.tokens.shape[1] != width:
            raise SchemaMismatch(
                f"{collection.name} does not fit: {collection.tokens!r} has {row.tokens.shape[1]} dimensions, the "
                f"encoder takes {width}"
            )
