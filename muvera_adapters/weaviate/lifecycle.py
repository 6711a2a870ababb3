"""Operations on whole collections: create, open, adopt, add the FDE vector, write the state, drop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from weaviate.classes.config import Configure
from weaviate.collections.classes.config import CollectionConfig
from weaviate.collections.classes.config_vector_index import VectorIndexConfigCreate

from muvera_adapters.errors import CollectionExists, MuveraError, StoreUnavailable, Unsupported
from muvera_adapters.stores.checks import check_encoder_type
from muvera_adapters.stores.kept import adopted_model, choose_encoder, kept_model, new_state, read_state
from muvera_adapters.stores.operations import Operation, Pause, Together
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_adapters.weaviate import requests as r
from muvera_adapters.weaviate import schema
from muvera_adapters.weaviate.collection import Collection, Server
from muvera_adapters.weaviate.ids import FDE_KEY, ID_KEY, JSON_KEY
from muvera_adapters.weaviate.properties import json_property
from muvera_adapters.weaviate.reading import check_widths
from muvera_adapters.weaviate.writing import AT_ONCE, patch
from muvera_core import Encoder

_NO_STATE = "ids of documents"
_PAGE = 1_000
_DROP_SECONDS = 600


async def check_server() -> Server:
    """Version and limits of the server.

    Raises:
        Unsupported: the server is too old.
    """
    meta = await r.meta()
    version = tuple(int(part) for part in re.findall(r"\d+", meta["version"])[:2])
    server = Server(version, f"Weaviate {meta['version']}", int(meta.get("grpcMaxMessageSize") or Server().max_message))
    schema.check_version(server)
    return server


async def create(name: str, encoder: Encoder, arguments: dict[str, Any], tenant: str | None) -> Collection:
    """Creates an empty collection; ``arguments`` are those of :func:`schema.creation`.

    If ``tenant`` is given without a configuration of tenants, the collection gets tenants, and this one is created.
    """
    new_tenant = tenant is not None and "multi_tenancy_config" not in arguments
    if new_tenant:
        arguments = {**arguments, "multi_tenancy_config": Configure.multi_tenancy(True)}
    server = await check_server()
    if await r.exists(name):
        raise CollectionExists(f"{name} exists: open or adopt it, or drop it first; nothing was changed")
    await r.create(name, arguments)
    if tenant is not None and new_tenant:
        await r.create_tenant(name, tenant)
    return await _opened(name, encoder, server)


async def open_collection(name: str, encoder: Encoder | None, model: TokenModel | None) -> Collection:
    """Opens a collection that this library created or adopted."""
    server = await check_server()
    collection = await _opened(name, encoder, server)
    check_model(name, collection.model, model)
    if not collection.tenants:  # otherwise the first search looks: its tenant exists by then
        await check_widths(collection)
    return collection


async def adopt(
    name: str,
    encoder: Encoder,
    fde: str,
    tokens: str | None,
    model: TokenModel | None,
    check: Callable[[Collection], Operation[int]],
) -> Collection:
    """Adopts a collection, or gives one of ours another FDE vector; state is written only if there are FDEs.

    Args:
        name: name of the collection.
        encoder: encoder of the FDEs, existing or future.
        fde: name of the FDE vector, existing or future.
        tokens: name of the multi-vector; None: there is none.
        model: model of the tokens; None: unknown.
        check: function that counts FDEs in a sample, and raises EncoderMismatch if they are of another encoder.
    """
    check_encoder_type(encoder)
    server = await check_server()
    config = await r.config()
    kept = schema.kept_state(config)
    state = None if kept is None else read_state(name, kept)
    if state is not None and state["fde"] == fde:
        choose_encoder(name, state["encoder"], encoder)
    model, named = adopted_model(name, state, model)
    collection = schema.describe(config, encoder, fde, tokens, server, need_fde=tokens is None)
    collection = replace(collection, model=model)
    await check_widths(collection)
    if named is not None:
        await r.describe_property(ID_KEY, json.dumps(named))
    if state is not None:
        # searches go on with another FDE vector until backfill() has filled this one
        return collection if state["fde"] == fde else replace(collection, has_fde=False)
    if not collection.has_fde:
        return collection
    if not await check(collection):
        return replace(collection, has_fde=False)  # the vector was added and nothing written: backfill() finishes it
    return await write_state(collection, config)


async def add_fde(
    collection: Collection, quantization: schema.Quantization, index: VectorIndexConfigCreate | None
) -> Collection:
    """Adds our properties and the FDE vector to a live collection.

    A first state is written now, so that a killed backfill can be opened and resumed. A state that names another FDE
    vector stays until :func:`finish`.
    """
    config = await r.config()
    if FDE_KEY not in schema.property_names(config):
        await r.add_property(schema.fde_property())
    if collection.fde not in schema.vector_infos(config):
        await r.add_vector(schema.fde_vector(collection.fde, quantization, index))
    added = await r.config()
    collection = schema.refreshed(collection, added)
    kept = schema.kept_state(added)
    return await write_state(collection, added) if kept is None or kept["fde"] == collection.fde else collection


async def refreshed(collection: Collection) -> Collection:
    """The collection with its current configuration: another program or a failed run may have added our parts."""
    return schema.refreshed(collection, await r.config())


async def finish(collection: Collection) -> Collection:
    """Switches searches to the FDE vector, after it was filled."""
    config = await r.config()
    kept = schema.kept_state(config)
    if kept is None or kept["fde"] != collection.fde:
        collection = await write_state(collection, config)
    return replace(collection, has_fde=True)


async def write_state(collection: Collection, config: CollectionConfig) -> Collection:
    """Adds our missing properties, and writes the state as the description of one of them."""
    names = schema.property_names(config)
    if FDE_KEY not in names:
        await r.add_property(schema.fde_property())
    if JSON_KEY not in names:
        await r.add_property(json_property())
    state = new_state(collection.encoder, collection.fde, collection.tokens, collection.model)
    if ID_KEY not in names:
        await r.add_property(schema.id_property(state))
    else:
        await r.describe_property(ID_KEY, json.dumps(state))
    return schema.refreshed(collection, await r.config())


async def remove_fde(collection: Collection) -> Collection:
    """Removes the state, the marks and the FDE vector; ids and values that stay keep their properties.

    Raises:
        Unsupported: the server does not drop vectors; the rest has been removed.
    """
    config = await r.config()
    kept = schema.kept_state(config)
    if kept is not None and kept["fde"] == collection.fde:
        await r.describe_property(ID_KEY, _NO_STATE)
    if FDE_KEY in schema.property_names(config):
        await _remove_marks(collection)
    if collection.fde in schema.vector_infos(config):
        try:
            await r.drop_vector(collection.fde)
        except StoreUnavailable:
            raise
        except MuveraError as error:
            raise Unsupported(
                f"{collection.name}: the state and marks of this library are removed, but the server did not drop the "
                f"vector {collection.fde!r}: set ENABLE_EXPERIMENTAL_ALTER_SCHEMA_DROP_VECTOR_INDEX_ENDPOINT=true "
                f"(since 1.39) and call remove_fde() again, or adopt with another fde_vector ({error})"
            ) from error
        await _wait_dropped(collection)
    return replace(schema.refreshed(collection, await r.config()), has_fde=False)


async def _remove_marks(collection: Collection) -> None:
    after = None
    while rows := await r.page(collection, _PAGE, after, [FDE_KEY]):
        marked = [row.id for row in rows if row.properties.get(FDE_KEY) == collection.fde]
        await Together([patch(r.Write(i, {FDE_KEY: None}, {})) for i in marked], AT_ONCE)
        after = rows[-1].id


async def _wait_dropped(collection: Collection) -> None:
    for _ in range(_DROP_SECONDS):
        if collection.fde not in schema.vector_infos(await r.config()):
            return
        await Pause(1)
    raise StoreUnavailable(f"{collection.name}: the server is still dropping {collection.fde!r}; nothing else is left")


async def drop(name: str) -> None:
    """Deletes the collection."""
    await r.drop(name)


async def _opened(name: str, encoder: Encoder | None, server: Server) -> Collection:
    config = await r.config()
    state = read_state(name, schema.kept_state(config))
    chosen = choose_encoder(name, state["encoder"], encoder)
    described = schema.describe(config, chosen, state["fde"], state["tokens"], server, need_fde=True)
    return replace(described, model=kept_model(state))
