"""Operations on whole collections of a client: create, open, adopt, add the FDE vector, write the state, drop."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import Any

from qdrant_client import models

from muvera_adapters.errors import CollectionExists, Rejected, Unsupported
from muvera_adapters.qdrant import schema
from muvera_adapters.qdrant.backfilling import check_adopted
from muvera_adapters.qdrant.client import Connection, ask, tell
from muvera_adapters.qdrant.collection import LOCAL, STATE_KEY, Collection, Wire, describe
from muvera_adapters.qdrant.database import QDRANT, WORTH_TRYING
from muvera_adapters.qdrant.reading import count_vectors
from muvera_adapters.qdrant.requests import Where
from muvera_adapters.stores import choosing
from muvera_adapters.stores.checks import check_encoder_type
from muvera_adapters.stores.choosing import Chosen, EncoderOption
from muvera_adapters.stores.kept import adopted_model, choose_encoder, kept_model, new_state, read_state
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core import Encoder


async def connect(name: str, wire: Wire, timeout: int | None, address: str) -> Connection:
    """Asks for the server's version, which determines what is supported; the client's version does not."""
    info = await ask(lambda client: client.info())
    version = tuple(int(part) for part in re.findall(r"\d+", info.version)[:2])
    local = wire is LOCAL
    engine = f"qdrant-client {info.version}, local mode" if local else f"Qdrant {info.version}"
    return Connection(name, engine, version, wire, timeout, address)


async def choose(connection: Connection, encoder: EncoderOption, sample: Any, quantization: Any) -> Chosen:
    """Chooses encoder and quantization of a new collection; older servers have fewer presets."""
    auto = WORTH_TRYING if connection.version >= schema.TURBO_VERSION else ("int8",)
    return await choosing.choose(encoder, sample, quantization, QDRANT.quantizations, auto)


async def create(
    connection: Connection,
    encoder: Encoder,
    plan: schema.Plan,
    tenant_field: str | None,
    model: TokenModel | None,
) -> Collection:
    """Makes an empty collection."""
    name, timeout = connection.name, connection.timeout
    schema.check_version(connection.version, plan.vectors)
    if await exists(name):
        raise CollectionExists(f"{name} exists: open or adopt it, or drop it first; nothing was changed")
    # it did not exist a moment ago: a conflict means that the first reply was lost and the request repeated; open
    # checks
    with contextlib.suppress(CollectionExists):
        await tell(lambda client: client.create_collection(collection_name=name, timeout=timeout, **plan.arguments))
    if tenant_field is not None:
        index = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await index_payload(connection, name, tenant_field, index)
    return await open_collection(connection, encoder, model)


async def open_collection(connection: Connection, encoder: Encoder | None, model: TokenModel | None) -> Collection:
    """Opens a collection that this library created or adopted."""
    name = connection.name
    info = await fetch_info(name)
    state = read_state(name, (info.config.metadata or {}).get(STATE_KEY))
    chosen = choose_encoder(name, state["encoder"], encoder)
    check_model(name, kept_model(state), model)
    vectors = schema.vector_infos(info)
    opened = describe(name, vectors, chosen, state["fde"], state["tokens"], connection.wire, need_fde=True)
    return replace(opened, model=kept_model(state), uneven=_uneven(connection, info))


def _uneven(connection: Connection, info: models.CollectionInfo) -> bool:
    """Whether replicas may differ after a write that failed, and the server has the means to even them out."""
    factor = info.config.params.write_consistency_factor
    return factor is not None and factor > 1 and connection.version >= schema.INSERT_ONLY_VERSION


async def adopt(
    connection: Connection, encoder: Encoder, fde: str, tokens: str | None, model: TokenModel | None
) -> Collection:
    """Adopts a collection, or gives one of ours another FDE vector.

    Only metadata is written, and only if there are FDEs already, or if a collection of ours gets a model's name. If the
    collection has another FDE vector, other searches use that one until this one has been filled and :func:`keep` is
    called.
    """
    check_encoder_type(encoder)
    name = connection.name
    if connection.version < schema.MINIMUM_VERSION:
        raise Unsupported(f"{connection.engine} stores no collection metadata; upgrade it to 1.16 or later")
    info = await fetch_info(name)
    kept = (info.config.metadata or {}).get(STATE_KEY)
    state = None if kept is None else read_state(name, kept)
    beside = state is not None and state["fde"] != fde
    if state is not None and not beside:
        choose_encoder(name, state["encoder"], encoder)
    model, named = adopted_model(name, state, model)
    vectors = schema.vector_infos(info)
    collection = describe(name, vectors, encoder, fde, tokens, connection.wire, need_fde=tokens is None)
    collection = replace(collection, model=model, uneven=_uneven(connection, info))
    if named is not None:
        await put_state(connection, name, named)
    if beside:
        # a vector that was added is filled by backfill() before it can be searched
        return replace(collection, has_fde=False, kept=False)
    if collection.has_fde and kept is None:
        if tokens is not None and (await count_vectors(collection, Where(has=(fde,)))) == 0:
            return replace(collection, has_fde=False)  # the vector was added and nothing written: backfill() continues
        await check_adopted(collection)
        await write_state(connection, collection)
    return collection


async def add_fde(connection: Connection, collection: Collection, params: models.VectorParams) -> Collection:
    """Adds the FDE vector to a live collection, and then the state, so that a killed run can be opened and resumed."""
    name, timeout = connection.name, connection.timeout
    there = schema.vector_infos(await fetch_info(name))
    if connection.version < schema.ADD_VECTOR_VERSION and collection.fde not in there:
        raise Unsupported(
            f"{connection.engine} cannot add a vector to a collection; 1.18 and later can. Give into='NEW_NAME' to "
            "copy everything into a new collection, and alias= to switch an alias to it"
        )
    if collection.fde not in there:
        datatype = models.VectorStorageDatatype(params.datatype.value) if params.datatype else None
        vector = models.DenseVectorConfig(size=params.size, distance=params.distance, datatype=datatype)
        config = models.DenseVectorNameConfig(dense=vector)
        try:
            await tell(
                lambda client: client.create_vector_name(
                    collection_name=name, vector_name=collection.fde, vector_name_config=config, timeout=timeout
                )
            )
        except Rejected as error:  # perhaps a repeated request whose first reply was lost
            if collection.fde not in schema.vector_infos(await fetch_info(name)):
                if "" not in there:
                    raise
                raise Unsupported(
                    f"{connection.engine} adds no vector beside the unnamed one of {name} ({error}): give "
                    "into='NEW_NAME', which copies everything into a collection where it has a name"
                ) from error
    # an existing vector keeps its codes; one without codes may be left by a run that was killed here
    if collection.fde not in there or there[collection.fde].quantization is None:
        diff = models.VectorParamsDiff(
            hnsw_config=params.hnsw_config,
            quantization_config=params.quantization_config,
            on_disk=params.on_disk,
        )
        await tell(
            lambda client: client.update_collection(
                collection_name=name, vectors_config={collection.fde: diff}, timeout=timeout
            )
        )
    if collection.kept:
        await write_state(connection, collection)
    added = schema.vector_infos(await fetch_info(name))[collection.fde]
    half, cosine = added.datatype == "float16", added.distance == "cosine"
    return replace(collection, has_fde=True, rescore=added.rescore, fde_half=half, fde_cosine=cosine)


async def keep(connection: Connection, collection: Collection) -> Collection:
    """Stores this encoder and FDE vector in the collection, instead of others."""
    await write_state(connection, collection)
    return replace(collection, kept=True)


async def remove_fde(connection: Connection, collection: Collection) -> Collection:
    """Removes the FDE vector and its metadata; the rest of the collection stays."""
    name, fde, timeout = connection.name, collection.fde, connection.timeout
    info = await fetch_info(name)
    state = (info.config.metadata or {}).get(STATE_KEY)
    there = fde in schema.vector_infos(info)
    removable = connection.version >= schema.ADD_VECTOR_VERSION
    if there and removable:
        await tell(lambda client: client.delete_vector_name(collection_name=name, vector_name=fde, timeout=timeout))
    elif there:
        has_fde = models.Filter(must=[models.HasVectorCondition(has_vector=fde)])
        await tell(
            lambda client: client.delete_vectors(
                collection_name=name, vectors=[fde], points=has_fde, wait=True, timeout=timeout
            )
        )
    if isinstance(state, dict) and state.get("fde") == fde:
        # null removes the key; other keys stay
        nothing = {STATE_KEY: None}
        await tell(lambda client: client.update_collection(collection_name=name, metadata=nothing, timeout=timeout))
    if there and not removable:
        raise Unsupported(
            f"{connection.engine} cannot remove a vector from a collection; 1.18 and later can. The values of {fde!r} "
            "and the metadata are gone, and its empty vector stays"
        )
    return replace(collection, has_fde=False)


async def write_state(connection: Connection, collection: Collection) -> None:
    """Writes the current state of the collection."""
    state = new_state(collection.encoder, collection.fde, collection.tokens, collection.model)
    await put_state(connection, collection.name, state)


async def put_state(connection: Connection, name: str, state: dict[str, Any]) -> None:
    """Writes our key of the metadata; other keys stay."""
    metadata = {STATE_KEY: state}
    await tell(
        lambda client: client.update_collection(collection_name=name, metadata=metadata, timeout=connection.timeout)
    )


async def drop(connection: Connection) -> None:
    """Deletes the collection."""
    await tell(lambda client: client.delete_collection(collection_name=connection.name, timeout=connection.timeout))


async def index_payload(connection: Connection, name: str, field: str, schema: models.PayloadFieldSchema) -> None:
    """Creates an index of a payload key."""
    await tell(
        lambda client: client.create_payload_index(
            collection_name=name, field_name=field, field_schema=schema, timeout=connection.timeout
        )
    )


async def exists(name: str) -> bool:
    """Whether there is a collection or an alias of that name."""
    return await ask(lambda client: client.collection_exists(collection_name=name))


async def fetch_info(name: str) -> models.CollectionInfo:
    """The configuration and state of a collection, in the client's type."""
    return await ask(lambda client: client.get_collection(collection_name=name))
