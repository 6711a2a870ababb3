"""Operations on whole collections: create, open, adopt, add the FDE vector, drop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from weaviate.classes.config import Property

from muvera_adapters.errors import CollectionExists
from muvera_adapters.stores.kept import choose_encoder, new_state, read_state
from muvera_adapters.stores.operations import Operation
from muvera_adapters.weaviate import schema
from muvera_adapters.weaviate.backfilling import check_adopted
from muvera_adapters.weaviate.identity import FDE_KEY, ID_KEY
from muvera_adapters.weaviate.reading import check_widths
from muvera_adapters.weaviate.requests import Call, Collection, Server, exists
from muvera_core import Encoder


async def connect() -> Server:
    """Asks for the version and the limit of a message."""
    meta = await Call[Any]("get_meta", of_client=True)
    version = tuple(int(part) for part in re.findall(r"\d+", meta["version"])[:2])
    server = Server(version, f"Weaviate {meta['version']}", int(meta.get("grpcMaxMessageSize") or Server().max_message))
    schema.check_version(server)
    return server


async def create(name: str, encoder: Encoder, arguments: dict[str, Any]) -> Collection:
    """Makes an empty collection."""
    server = await connect()
    if await exists(name):
        raise CollectionExists(f"{name} exists: open or adopt it, or drop it first; nothing was changed")
    await Call("collections.create", {"name": name, **arguments}, of_client=True)
    return await _opened(name, encoder, server)


async def open_collection(name: str, encoder: Encoder | None) -> Collection:
    """A collection that this library made or adopted."""
    server = await connect()
    collection = await _opened(name, encoder, server)
    if not collection.tenants:  # else the first search looks: its tenant is there
        await check_widths(collection)
    return collection


async def adopt(name: str, encoder: Encoder, fde: str, tokens: str | None) -> Collection:
    """A collection of someone else, or another FDE vector for one of ours; state is written only where FDEs are."""
    server = await connect()
    config = await Call[Any]("config.get")
    kept = schema.kept_state(config)
    if kept is not None and read_state(name, kept)["fde"] == fde:
        choose_encoder(name, kept["encoder"], encoder)
    collection = schema.describe(config, encoder, fde, tokens, server, need_fde=tokens is None)
    await check_widths(collection)
    if kept is not None and kept["fde"] != fde:
        collection.has_fde = False  # searches go on with the old vector until backfill() has filled this one
    elif collection.has_fde and kept is None:
        if not (await check_adopted(collection)):
            collection.has_fde = False  # added, and nothing written: backfill() finishes what was begun
            return collection
        await write_state(collection, config)
    return collection


def fde_adder(
    collection: Collection, quantization: schema.Quantization, index: Any
) -> Callable[[], Operation[Callable[[], Operation[None]]]]:
    """Adds our properties and the FDE vector to a live collection; returns what writes the state.

    A first state is written at once, so that a killed run can be opened and resumed; a state that another vector has is
    written when the new vector is filled.
    """

    async def add() -> Callable[[], Operation[None]]:
        config = await Call[Any]("config.get")
        if FDE_KEY not in [own.name for own in config.properties]:
            await Call("config.add_property", {"prop": schema.fde_property()})
        if collection.fde not in schema.vector_infos(config):
            vector = schema.fde_vector(collection.fde, quantization, index)
            await Call("config.add_vector", {"vector_config": vector})
        added = await Call[Any]("config.get")
        collection.fde_exists, collection.fde_info = True, schema.vector_infos(added)[collection.fde]
        kept = schema.kept_state(added)
        if kept is None or kept["fde"] == collection.fde:
            await write_state(collection, added)
            return _nothing

        async def later() -> None:
            await write_state(collection, (await Call("config.get")))

        return later

    return add


async def write_state(collection: Collection, config: Any) -> None:
    """Our properties, and the state as the description of one of them."""
    names = [own.name for own in config.properties]
    if FDE_KEY not in names:
        await Call("config.add_property", {"prop": schema.fde_property()})
    if ID_KEY not in names:
        own: Property = schema.id_property(collection.encoder, collection.fde, collection.tokens)
        await Call("config.add_property", {"prop": own})
    else:
        state = json.dumps(new_state(collection.encoder, collection.fde, collection.tokens))
        await Call("config.update", {"property_descriptions": {ID_KEY: state}})
    collection.keeps_state = True


async def drop(name: str) -> None:
    """Deletes the collection."""
    await Call("collections.delete", {"name": name}, of_client=True)


async def _opened(name: str, encoder: Encoder | None, server: Server) -> Collection:
    config = await Call[Any]("config.get")
    state = read_state(name, schema.kept_state(config))
    chosen = choose_encoder(name, state["encoder"], encoder)
    return schema.describe(config, chosen, state["fde"], state["tokens"], server, need_fde=True)


async def _nothing() -> None:
    """The state stays as it is."""
