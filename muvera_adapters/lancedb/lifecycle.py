"""Operations on whole tables: create, open, adopt, add the FDE column, keep the state, drop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from muvera_adapters.errors import CollectionNotFound
from muvera_adapters.lancedb import requests as r
from muvera_adapters.lancedb import schema
from muvera_adapters.lancedb.backfilling import check_adopted
from muvera_adapters.lancedb.collection import Collection, Metric, Quantization
from muvera_adapters.lancedb.schema import STATE_KEY, Plan
from muvera_adapters.stores.kept import adopted_model, choose_encoder, kept_model, read_state
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core import Encoder


async def create(name: str, encoder: Encoder, plan: Plan) -> Collection:
    """Makes an empty table."""
    schema.check_name(name)
    schema.check(encoder, plan)
    made = schema.planned(name, encoder, plan)
    table = await r.create_table(name, schema.schema_of(made, plan))
    described = await r.schema(table)
    return _opened(table, described, name, encoder, schema.kept_state(described))


async def open_collection(name: str, encoder: Encoder | None, model: TokenModel | None) -> Collection:
    """A table that this library made or adopted."""
    schema.check_name(name)
    table = await r.open_table(name)
    described = await r.schema(table)
    state = read_state(name, schema.kept_state(described))
    check_model(name, kept_model(state), model)
    return _opened(table, described, name, choose_encoder(name, state["encoder"], encoder), state)


async def adopt(
    name: str,
    encoder: Encoder,
    fde: str,
    tokens: str | None,
    metric: Metric,
    key: str,
    model: TokenModel | None,
) -> Collection:
    """A table of someone else, or another FDE column for one of ours; state is kept only where FDEs are."""
    schema.check_name(name)
    schema.check_metric(metric)
    table = await r.open_table(name)
    described = await r.schema(table)
    kept = schema.states(described)
    first = None if not kept else read_state(name, next(iter(kept.values())))
    state = None if fde not in kept else read_state(name, kept[fde])
    if state is not None:
        choose_encoder(name, state["encoder"], encoder)
    model, named = adopted_model(name, first if state is None else state, model)
    own: dict[str, Any] = {"metric": metric} if first is None else _own(first)
    collection = schema.describe(table, described, name, encoder, fde, tokens, own.pop("key", key), **own)
    collection = replace(collection, model=model)
    if named is not None and state is not None:
        await r.set_state(collection, STATE_KEY, json.dumps(named))
    if state is None and collection.has_fde:
        if not await check_adopted(collection):
            return replace(collection, has_fde=False)
        await keep_state(collection)
    return collection


async def add_fde(collection: Collection, quantization: Quantization) -> Collection:
    """Adds the FDE column where there is none; FDEs can be written then, and the state is kept later."""
    if collection.fde_exists:
        return replace(collection, has_fde=True)
    await r.add_column(collection, schema.fde_field(collection))
    codes = schema.codes(quantization, collection.encoder)
    return replace(collection, fde_exists=True, has_fde=True, quantization=codes)


async def keep_state(collection: Collection) -> None:
    """Keeps the encoder and the names with the FDE column."""
    await r.set_state(collection, STATE_KEY, schema.snapshot_of(collection))


async def remove_fde(collection: Collection) -> None:
    """Removes the FDE column, with the state in its metadata and its index."""
    if collection.fde_exists:
        await r.drop_column(collection, collection.fde)


async def drop(collection: Collection) -> None:
    """Deletes the table; one that is gone is no error."""
    try:
        await r.drop_table(collection.name)
    except CollectionNotFound:
        return


def _opened(table: Any, described: Any, name: str, encoder: Encoder, state: Mapping[str, Any]) -> Collection:
    own = _own(state)
    collection = schema.describe(table, described, name, encoder, state["fde"], state["tokens"], own.pop("key"), **own)
    return replace(collection, model=kept_model(state))


def _own(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: state[key] for key in ("key", "keys", "json", "metric", "quantization")}
