"""The columns of a new table, and how a schema is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import pyarrow as pa

from muvera_adapters.errors import InvalidInput, SchemaMismatch
from muvera_adapters.lancedb import arrow
from muvera_adapters.lancedb.client import engine
from muvera_adapters.lancedb.collection import FDE, ID, PAYLOAD, TOKENS, Collection, Metric, Quantization, TokenType
from muvera_adapters.lancedb.database import LANCEDB
from muvera_adapters.stores.checks import check_dimensions
from muvera_adapters.stores.kept import choose_encoder, new_state
from muvera_adapters.stores.keys import Keys
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.token_precision import check_precision
from muvera_core import Encoder

#: key of the FDE column's metadata that has the state
STATE_KEY = "muvera.config"
#: largest number of dimensions of an FDE
MAX_DIM = 65_536

# with it, LanceDB repeats a write that would add a key which another writer has just added; without it, both are added
_PRIMARY = {"lance-schema:unenforced-primary-key": "true"}
_RESERVED = (ID, FDE, TOKENS, PAYLOAD)
# columns of results of searches
_RESULTS = ("_distance", "_score")


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``create`` was asked for; the stores document the arguments."""

    store_tokens: bool = True
    tokens: TokenType = "float16"
    metric: Metric = "dot"
    quantization: Quantization = "auto"
    columns: pa.Schema | None = None
    model: TokenModel | None = None


def check_name(name: object) -> None:
    """Raises InvalidInput for what is not the name of a table."""
    if not isinstance(name, str):
        raise InvalidInput(f"the name of a table is a text, got {name!r:.80}")


def check(encoder: Encoder, plan: Plan) -> None:
    """Raises InvalidInput for what LanceDB cannot make."""
    check_dimensions(encoder, MAX_DIM, "this library in LanceDB")
    check_codes(plan.quantization)
    check_precision(plan.tokens, get_args(TokenType))
    check_metric(plan.metric)
    if plan.columns is None:
        return
    if not isinstance(plan.columns, pa.Schema):
        raise InvalidInput(f"columns must be a pyarrow.Schema, got a {type(plan.columns).__name__}")
    for each in plan.columns:
        if each.name in _RESERVED:
            raise InvalidInput(f"columns: {each.name!r} is the name of a column of this library")
        if not _can_be_named(each.name) or each.name in _RESULTS:
            raise InvalidInput(
                f"columns: LanceDB cannot write or search a column with the name {each.name!r}: rename it"
            )
        if plan.columns.names.count(each.name) > 1:
            raise InvalidInput(f"columns: there are several columns {each.name!r}: leave one")
        if not arrow.takes_json(each.type):
            raise InvalidInput(
                f"columns: {each.name!r} is a {each.type}, which cannot have payload values: use text or numbers, or "
                "leave the key to the JSON column"
            )
        if not each.nullable:
            raise InvalidInput(f"columns: {each.name!r} must be nullable, as payloads need not have every key")


def check_codes(quantization: object) -> None:
    """Raises InvalidInput for codes that there are not."""
    known = ("auto", *(name for name in LANCEDB.quantizations if name != "none"))
    if quantization is not None and quantization not in known:
        raise InvalidInput(
            f"quantization must be {', '.join(repr(name) for name in known)} or None, got {quantization!r}"
        )


def check_metric(metric: object) -> None:
    """Raises InvalidInput for an unknown similarity of tokens."""
    if metric not in get_args(Metric):
        raise InvalidInput(f"tokens_metric must be 'dot' or 'cosine', got {metric!r}")


def codes(quantization: Quantization, encoder: Encoder) -> str | None:
    """The codes that an index of this encoder's FDEs gets; None: no index."""
    chosen = LANCEDB.quantization(quantization or "none", encoder.dim, "directory")
    return None if chosen == "none" else chosen


def schema_of(collection: Collection, plan: Plan) -> pa.Schema:
    """Ids, FDEs with the state, tokens, the payload's own columns, and the payload's other keys as JSON."""
    state = {STATE_KEY: snapshot_of(collection)}
    fields = [pa.field(ID, pa.string(), nullable=False, metadata=_PRIMARY), fde_field(collection).with_metadata(state)]
    if collection.tokens is not None:
        fields.append(pa.field(TOKENS, arrow.tokens_type(collection.token_type, collection.encoder.token_dim)))
    fields += list(plan.columns or ())
    return pa.schema([*fields, pa.field(PAYLOAD, pa.json_(pa.string()))])


def fde_field(collection: Collection) -> pa.Field:
    """The column of the FDEs."""
    return pa.field(collection.fde, arrow.fde_type(collection.fde_type, collection.encoder.dim))


def planned(name: str, encoder: Encoder, plan: Plan) -> Collection:
    """The collection that a plan makes, without its table."""
    return Collection(
        None,
        name,
        encoder,
        engine(),
        tokens=TOKENS if plan.store_tokens else None,
        token_type=pa.float32() if plan.tokens == "float32" else pa.float16(),
        cosine=plan.metric == "cosine",
        quantization=codes(plan.quantization, encoder),
        model=plan.model,
    )


def snapshot_of(collection: Collection) -> str:
    """The text that is kept with the FDE column."""
    state = new_state(collection.encoder, collection.fde, collection.tokens, collection.model)
    own = {
        "key": collection.key,
        "keys": collection.keys,
        "json": collection.json,
        "metric": "cosine" if collection.cosine else "dot",
        "quantization": collection.quantization,
    }
    return json.dumps({**state, **own})


def states(schema: pa.Schema) -> dict[str, Any]:
    """The states that a table keeps, by the name of their FDE column."""
    found = {}
    for each in schema:
        text = (each.metadata or {}).get(STATE_KEY.encode())
        if text:
            found[each.name] = json.loads(text)
    return found


def kept_state(schema: pa.Schema) -> Any:
    """The first state that a table keeps; None: it keeps none."""
    return next(iter(states(schema).values()), None)


def multivectors(schema: pa.Schema) -> dict[str, int]:
    """Widths of the multivectors by name."""
    return {each.name: each.type.value_type.list_size for each in schema if arrow.is_multivector(each.type)}


def describe(
    table: Any,
    schema: pa.Schema,
    name: str,
    encoder: Encoder,
    fde: str,
    tokens: str | None,
    key: str,
    *,
    keys: Keys | None = None,
    json: str | None = None,
    metric: str = "dot",
    quantization: str | None = None,
) -> Collection:
    """What a schema says of a collection.

    Raises:
        SchemaMismatch: columns are missing or do not fit; the message names each.
    """
    types = {each.name: each.type for each in schema}
    problems = [
        f"LanceDB cannot write or search a table with a column {each!r}: rename it"
        for each in types
        if not _can_be_named(each) or each == "_distance"
    ]
    if json is not None and json not in types:
        problems.append(f"there is no column {json!r} with the payloads any more")
    if key not in types:
        problems.append(f"there is no column {key!r} with ids")
    elif not (pa.types.is_string(types[key]) or pa.types.is_large_string(types[key]) or types[key] == pa.int64()):
        problems.append(f"{key!r} is a {types[key]}, ids are strings or int64")
    collection = Collection(
        table,
        name,
        encoder,
        engine(),
        fde=fde,
        tokens=tokens,
        key=key,
        keys=keys or ("integer" if types.get(key) == pa.int64() else "string"),
        json=json,
        cosine=metric == "cosine",
        quantization=quantization,
    )
    for fit in (_fit_fde, _fit_tokens):
        collection, found = fit(collection, types, schema)
        problems += found
    if problems:
        raise SchemaMismatch(f"{name} does not fit: {'; '.join(problems)}")
    own = {key, fde, tokens, json}
    vectors = {
        each: kind
        for each, kind in types.items()
        if each not in own and (arrow.is_vector(kind) or arrow.is_multivector(kind))
    }
    others = states(schema)
    return replace(
        collection,
        fields={each: kind for each, kind in types.items() if each not in own and each not in vectors},
        strangers={each: kind for each, kind in vectors.items() if each not in others},
    )


def check_current(collection: Collection, schema: pa.Schema) -> None:
    """Checks that the newest version of a table is still the collection that a store knows.

    Raises:
        SchemaMismatch: it has no FDE column any more.
        EncoderMismatch: its FDEs are those of another encoder.
    """
    if not (collection.has_fde and collection.fde_exists):
        return
    if collection.fde not in schema.names:
        raise SchemaMismatch(
            f"{collection.name} has no column {collection.fde!r} any more: another program removed or renamed it. "
            "Adopt the table again and run backfill()"
        )
    state = states(pa.schema([schema.field(collection.fde)])).get(collection.fde)
    if state is not None:
        choose_encoder(collection.name, state["encoder"], collection.encoder)


def _can_be_named(name: str) -> bool:
    return bool(name) and not set(name) & set("`.")


def _fit_fde(collection: Collection, types: Mapping[str, pa.DataType], _: pa.Schema) -> tuple[Collection, list[str]]:
    kind, fde = types.get(collection.fde), collection.fde
    if kind is None:
        return replace(collection, fde_exists=False, has_fde=False), []
    if arrow.is_multivector(kind):
        return collection, [f"{fde!r} is a multivector, FDEs are single vectors"]
    if not arrow.is_vector(kind):
        return collection, [f"{fde!r} is a {kind}, FDEs are lists of a fixed size of floats"]
    problems = []
    if kind.list_size != collection.encoder.dim:
        problems = [f"{fde!r} has {kind.list_size} dimensions, the encoder gives {collection.encoder.dim}"]
    return replace(collection, fde_type=kind.value_type), problems


def _fit_tokens(
    collection: Collection, types: Mapping[str, pa.DataType], schema: pa.Schema
) -> tuple[Collection, list[str]]:
    name, width = collection.tokens, collection.encoder.token_dim
    if name is None:
        return collection, []
    there = multivectors(schema)
    if name not in types:
        listed = ", ".join(repr(each) for each in there) or "none"
        return collection, [f"there is no vector {name!r}; there are: {listed}"]
    if name not in there:
        return collection, [f"{name!r} is not a multivector"]
    problems = [] if there[name] == width else [f"{name!r} has {there[name]} dimensions, the encoder takes {width}"]
    return replace(collection, token_type=types[name].value_type.value_type), problems
