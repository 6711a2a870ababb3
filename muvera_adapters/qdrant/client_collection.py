"""Operations on whole collections of a client: create, open, adopt, add the FDE vector, drop."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from qdrant_client import models

from muvera_adapters.errors import CollectionExists, Rejected, SchemaMismatch, Unsupported
from muvera_adapters.qdrant import client_schema as schema
from muvera_adapters.qdrant.backfilling import check_adopted
from muvera_adapters.qdrant.client_calls import Call
from muvera_adapters.qdrant.client_errors import Target
from muvera_adapters.qdrant.description import STATE_KEY, describe
from muvera_adapters.qdrant.requests import LOCAL, Collection, Count, Where, Wire
from muvera_adapters.stores.kept import choose_encoder, new_state, read_state
from muvera_adapters.stores.operations import Operation
from muvera_core import Encoder


async def connect(name: str, wire: Wire, timeout: int | None, fde: str) -> Target:
    """Asks for the version; what a server can do depends on it, never on the client's."""
    info = await Call("info", {})
    version = tuple(int(part) for part in re.findall(r"\d+", info.version)[:2])
    local = wire is LOCAL
    engine = f"qdrant-client {info.version}, local mode" if local else f"Qdrant {info.version}"
    return Target(name, engine, version, wire, timeout, fde)


async def create(target: Target, encoder: Encoder, plan: schema.Plan, tenant_field: str | None) -> Collection:
    """Makes an empty collection."""
    schema.check_version(target.version, plan.vectors)
    if await Call("collection_exists", {"collection_name": target.name}):
        raise CollectionExists(f"{target.name} exists: open or adopt it, or drop it first; nothing was changed")
    # it was not there a moment ago: a conflict is a repeated request whose first reply was lost; opening checks it
    with contextlib.suppress(CollectionExists):
        await Call("create_collection", {"collection_name": target.name, **plan.arguments})
    if tenant_field is not None:
        index = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await Call(
            "create_payload_index",
            {"collection_name": target.name, "field_name": tenant_field, "field_schema": index},
        )
    return await open_collection(target, encoder)


async def open_collection(target: Target, encoder: Encoder | None) -> Collection:
    """A collection that this library made or adopted."""
    info = await _get(target)
    state = read_state(target.name, (info.config.metadata or {}).get(STATE_KEY))
    chosen = choose_encoder(target.name, state["encoder"], encoder)
    vectors = schema.vector_infos(info)
    return describe(target.name, vectors, chosen, state["fde"], state["tokens"], target.wire, need_fde=True)


async def adopt(target: Target, encoder: Encoder, fde: str, tokens: str | None) -> Collection:
    """A collection of someone else; only metadata is written, and only where there are FDEs already."""
    if target.version < schema.MINIMUM_VERSION:
        raise Unsupported(f"{target.engine} keeps no collection metadata; 1.16 does")
    info = await _get(target)
    kept = (info.config.metadata or {}).get(STATE_KEY)
    if kept is not None:
        choose_encoder(target.name, read_state(target.name, kept)["encoder"], encoder)
    if tokens == "":
        raise SchemaMismatch(f"{target.name}: an unnamed multivector cannot be searched beside FDEs; name its vector")
    vectors = schema.vector_infos(info)
    collection = describe(target.name, vectors, encoder, fde, tokens, target.wire, need_fde=tokens is None)
    if collection.has_fde and kept is None:
        if tokens is not None and (await Count(Where(has=(fde,)))) == 0:
            collection.has_fde = False  # added, and nothing written: backfill() finishes what was begun
            return collection
        await check_adopted(collection)
        await write_state(target, collection)
    return collection


def fde_adder(
    target: Target,
    collection: Collection,
    params: models.VectorParams,
) -> Callable[[], Operation[None]]:
    """Adds the FDE vector to a live collection, and then the state, so that a killed run can be opened and resumed."""

    async def add() -> None:
        if target.version < schema.ADD_VECTOR_VERSION:
            raise Unsupported(
                f"{target.engine} cannot add a vector to a collection; 1.18 can. Give into='NEW_NAME' to copy "
                "everything into a new collection, and alias= to switch an alias to it"
            )
        if collection.fde not in schema.vector_infos(await _get(target)):
            datatype = models.VectorStorageDatatype(params.datatype.value) if params.datatype else None
            vector = models.DenseVectorConfig(size=params.size, distance=params.distance, datatype=datatype)
            arguments = {
                "collection_name": target.name,
                "vector_name": collection.fde,
                "vector_name_config": models.DenseVectorNameConfig(dense=vector),
            }
            try:
                await Call("create_vector_name", arguments)
            except Rejected:  # a repeated request whose first reply was lost, perhaps
                if collection.fde not in schema.vector_infos(await _get(target)):
                    raise
        diff = models.VectorParamsDiff(
            hnsw_config=params.hnsw_config,
            quantization_config=params.quantization_config,
            on_disk=params.on_disk,
        )
        await Call("update_collection", {"collection_name": target.name, "vectors_config": {collection.fde: diff}})
        collection.rescore = schema.vector_infos(await _get(target))[collection.fde].rescore
        await write_state(target, collection)

    return add


async def write_state(target: Target, collection: Collection) -> None:
    """Writes our key of the metadata; the server leaves other keys as they are."""
    state = new_state(collection.encoder, collection.fde, collection.tokens)
    await Call("update_collection", {"collection_name": target.name, "metadata": {STATE_KEY: state}})


async def drop(target: Target) -> None:
    """Deletes the collection."""
    await Call("delete_collection", {"collection_name": target.name})


async def _get(target: Target) -> models.CollectionInfo:
    return await Call("get_collection", {"collection_name": target.name})
