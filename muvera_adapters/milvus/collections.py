"""Operations on whole collections: create, open, adopt, drop."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
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
from muvera_adapters.milvus import schema
from muvera_adapters.milvus.backfilling import check_adopted
from muvera_adapters.milvus.identity import FDE_KEY
from muvera_adapters.milvus.requests import Call, Collection, Metric, Server, TokenStorage, page
from muvera_adapters.milvus.schema import STATE_KEY, Plan
from muvera_adapters.stores.kept import choose_encoder, read_state
from muvera_adapters.stores.operations import Operation
from muvera_core import Encoder


async def connect() -> Server:
    """Asks for the version: a hint for defaults; what the server can do is seen in schemas."""
    try:
        version = await Call[Any]("get_server_version")
    except Unsupported:  # milvus-lite before 3
        return Server("milvus-lite", lite=True)
    lite = version.startswith("milvus_lite")
    known = lite or re.match(r"v?\d+\.\d+", version) is not None
    return Server(version.replace("_", "-") if lite else f"Milvus {version}", lite, known)


async def create(name: str, encoder: Encoder, plan: Plan) -> Collection:
    """Makes an empty collection.

    A server without struct arrays takes the schema and drops the field, so what was made is read back.
    """
    schema.check(encoder, plan)
    server = await connect()
    if await Call("has_collection", {"collection_name": name}):
        raise CollectionExists(f"{name} exists: open or adopt it, or drop it first; nothing was changed")
    first: TokenStorage = plan.storage or "struct"
    description = await _make(name, encoder, plan, first, server)
    try:
        if first == "struct" and not schema.has_struct(description, schema.TOKENS):
            await drop(name)
            if plan.storage == "struct":
                raise Unsupported(f"{server.engine} has no arrays of structs (Milvus has since 2.6.4): use 'blob'")
            description = await _make(name, encoder, plan, "blob", server)
        if schema.kept_state(description) is None:
            raise Unsupported(f"{server.engine} keeps no properties of collections, where the encoder has to be kept")
        collection = _opened(description, name, encoder, server)
        await _index(collection, plan)
        return await ready(collection)
    except MuveraError:
        await drop(name)  # empty, and made by this call
        raise


async def open_collection(name: str, encoder: Encoder | None, consistency: str | None) -> Collection:
    """A collection that this library made or adopted."""
    server = await connect()
    description = await Call[Any]("describe_collection", {"collection_name": name})
    state = read_state(name, schema.kept_state(description))
    if "copy_of" in state:
        raise CollectionNotFound(f"{name} is an unfinished copy of {state['copy_of']}: repeat its backfill(into=...)")
    collection = _opened(description, name, choose_encoder(name, state["encoder"], encoder), server)
    collection.consistency = consistency
    return await ready(collection)


async def adopt(
    name: str, encoder: Encoder, fde: str, tokens: str | None, metric: Metric, consistency: str | None
) -> Collection:
    """A collection of someone else, or another FDE field for one of ours; state is written only where FDEs are."""
    server = await connect()
    description = await Call[Any]("describe_collection", {"collection_name": name})
    kept = schema.kept_state(description)
    own: dict[str, Any] = {"metric": metric}
    if kept is not None:
        state = read_state(name, kept)
        own = _own(state)
        if state["fde"] == fde:
            choose_encoder(name, kept["encoder"], encoder)
    collection = schema.describe(description, name, encoder, fde, tokens, server, **own)
    collection.consistency = consistency
    await ready(collection)
    await _check_width(collection)
    if kept is not None and kept["fde"] != fde:
        collection.has_fde = False  # searches go on with the old field until backfill() has filled this one
    elif collection.has_fde and kept is None:
        if not (await check_adopted(collection)):
            collection.has_fde = False
            return collection
        await write_state(collection)
    return collection


async def write_state(collection: Collection) -> None:
    """The encoder and the names, as a property."""
    properties = {STATE_KEY: schema.state_of(collection)}
    await Call("alter_collection_properties", {"collection_name": collection.name, "properties": properties})
    description = await Call[Any]("describe_collection", {"collection_name": collection.name})
    if schema.kept_state(description) is None:
        raise Unsupported(f"{collection.server.engine} keeps no properties of collections")


async def drop(name: str) -> None:
    """Deletes the collection."""
    await Call("drop_collection", {"collection_name": name})


async def _make(name: str, encoder: Encoder, plan: Plan, storage: TokenStorage, server: Server) -> Any:
    """A collection with its state and without indexes; returns its description."""
    made = schema.schema_of(encoder, plan, storage)
    tokens = None if storage == "none" else schema.TOKENS
    planned = Collection(
        name, encoder, storage=storage, tokens=tokens, metric=plan.metric, precision=plan.precision, server=server
    )
    options = dict(plan.options)
    properties = {**options.pop("properties", {}), STATE_KEY: schema.state_of(planned)}
    arguments = {"schema": made, "consistency_level": plan.consistency, "properties": properties, **options}
    try:
        await Call("create_collection", {"collection_name": name, **arguments})
    except CollectionExists:
        # a lost reply, after which the request was repeated; or someone else was faster
        there = await Call[Any]("describe_collection", {"collection_name": name})
        if (there.get("properties") or {}).get(STATE_KEY) != properties[STATE_KEY]:
            raise
        return there
    return await Call("describe_collection", {"collection_name": name})


async def _index(collection: Collection, plan: Plan) -> None:
    await make_index(collection, collection.fde, metric_type="IP", **schema.fde_index(plan, collection.server))
    if collection.storage == "struct":
        field, metric = f"{collection.tokens}[{collection.sub}]", f"MAX_SIM_{collection.metric}"
        name = f"{collection.tokens}_{collection.sub}"
        await make_index(collection, field, index_name=name, metric_type=metric, **schema.token_index(plan))


async def make_index(collection: Collection, field: str, **options: Any) -> None:
    """Makes an index and does not wait for it; the asynchronous client does, for which milvus-lite has no answer."""
    params = MilvusClient.prepare_index_params()
    params.add_index(field, **options)
    try:
        await Call("create_index", {"collection_name": collection.name, "index_params": params, "sync": False})
    except Unsupported:
        if options.get("index_name", field) not in (await Call("list_indexes", {"collection_name": collection.name})):
            raise


def _opened(description: Mapping[str, Any], name: str, encoder: Encoder, server: Server) -> Collection:
    state = read_state(name, schema.kept_state(description))
    collection = schema.describe(description, name, encoder, state["fde"], state["tokens"], server, **_own(state))
    if state["storage"] != collection.storage:
        raise SchemaMismatch(f"{name} was made with tokens as {state['storage']}, its schema has {collection.storage}")
    if not collection.fde_exists:
        raise SchemaMismatch(f"{name} has no field {collection.fde!r}")
    return collection


def _own(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: state[key] for key in ("keys", "marker", "metric", "precision") if key in state}


async def ready(collection: Collection) -> Collection:
    """Reads what the indexes are, and loads the collection where it is not (a reopened file of milvus-lite)."""
    names = await Call[Any]("list_indexes", {"collection_name": collection.name})
    for index in names:
        found = await Call[Any]("describe_index", {"collection_name": collection.name, "index_name": index})
        if not found:
            continue
        if found["field_name"] == collection.fde:
            collection.index, collection.fde_metric = found, found.get("metric_type", "IP")
        elif collection.storage == "struct" and found["field_name"] == f"{collection.tokens}[{collection.sub}]":
            _note_token_index(collection, found)
    if collection.fde_exists and collection.fde_metric not in ("IP", "COSINE"):
        raise SchemaMismatch(
            f"{collection.name}: FDEs are compared by IP or COSINE, {collection.fde!r} has another metric"
        )
    state = await Call[Any]("get_load_state", {"collection_name": collection.name})
    if getattr(state["state"], "name", "") != "Loaded":
        await Call("load_collection", {"collection_name": collection.name})
    return collection


def _note_token_index(collection: Collection, found: Mapping[str, Any]) -> None:
    metric = str(found.get("metric_type", "")).removeprefix("MAX_SIM").removeprefix("_") or "COSINE"
    if metric not in ("IP", "COSINE"):
        raise SchemaMismatch(
            f"{collection.name}: its tokens are compared by MAX_SIM_{metric}, MaxSim needs IP or COSINE"
        )
    collection.metric = metric  # type: ignore[assignment]
    collection.token_index = found
    collection.strategy = str(found.get("emb_list_strategy", "tokenann"))


async def _check_width(collection: Collection) -> None:
    """Texts tell their width only themselves."""
    if collection.storage != "blob":
        return
    for row in await page(collection, 1, None, collection.token_fields):
        width = collection.encoder.token_dim
        if row.tokens is not None and row.tokens.shape[1] != width:
            raise SchemaMismatch(
                f"{collection.name} does not fit: {collection.tokens!r} has {row.tokens.shape[1]} dimensions, the "
                f"encoder takes {width}"
            )


def fde_adder(collection: Collection, plan: Plan) -> Callable[[], Operation[Callable[[], Operation[None]]]]:
    """Adds the FDE field and our mark to a live collection; returns what writes the state.

    A first state is written at once, so that a killed run can be opened and resumed; a state that another field has is
    written when the new field is filled.
    """

    async def add() -> Callable[[], Operation[None]]:
        name = {"collection_name": collection.name}
        description = await Call[Any]("describe_collection", name)
        there = {each["name"] for each in description["fields"]}
        try:
            if collection.fde not in there:
                field = {"field_name": collection.fde, "data_type": plan.datatype, "dim": collection.encoder.dim}
                await Call("add_collection_field", {**name, **field, "nullable": True})
            if FDE_KEY not in there:
                mark = {"field_name": FDE_KEY, "data_type": DataType.VARCHAR, "max_length": 255, "nullable": True}
                await Call("add_collection_field", {**name, **mark})
        except (Rejected, Unsupported) as error:
            raise Unsupported(
                f"{collection.server.engine} cannot add a vector to {collection.name} (Milvus can since 2.6.18): use "
                f"backfill(into=NEW_NAME, alias=NAME), which copies it; {error}"
            ) from error
        indexes = await Call[Any]("list_indexes", name)
        if collection.fde not in indexes:
            index = schema.fde_index(plan, collection.server)
            await make_index(collection, collection.fde, metric_type="IP", **index)
            await Call("load_collection", name)
        collection.fde_exists, collection.marker, collection.datatype = True, True, plan.datatype
        await ready(collection)
        kept = schema.kept_state(description)
        if kept is None or kept["fde"] == collection.fde:
            await write_state(collection)
            return _nothing
        return partial(write_state, collection)

    return add


async def _nothing() -> None:
    """The state stays as it is."""
