"""Schema and indexes of a collection, in pymilvus's types: makes and reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from pymilvus import CollectionSchema, DataType, FieldSchema, MilvusClient

from muvera_adapters.errors import InvalidInput, SchemaMismatch, Unsupported
from muvera_adapters.milvus import blobs
from muvera_adapters.milvus.blobs import TokenType
from muvera_adapters.milvus.collection import (
    FDE,
    MAX_CAPACITY,
    SUB,
    TOKENS,
    Collection,
    Metric,
    Server,
    TokenStorage,
    mark_of,
)
from muvera_adapters.milvus.ids import ID, MAX_KEY
from muvera_adapters.milvus.requests import Description
from muvera_adapters.stores.checks import check_dimensions
from muvera_adapters.stores.kept import new_state
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.token_precision import check_precision
from muvera_core import Encoder

#: property of a collection with its state
STATE_KEY = "muvera.config"

#: maximum number of dimensions of a vector
MAX_DIM = 32_768
#: maximum number of fields of a collection
MAX_FIELDS = 64

#: quantization of FDEs in the index; ``"auto"``: the store chooses
Quantization: TypeAlias = Literal["auto", "sq8"] | None

#: index of FDEs without quantization, on a server whose version is known
DEFAULT_INDEX: dict[str, Any] = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
#: index of FDEs with 8-bit codes
SQ8_INDEX: dict[str, Any] = {"index_type": "HNSW_SQ", "params": {**DEFAULT_INDEX["params"], "sq_type": "SQ8"}}
# a managed service chooses its own index
_AUTO_INDEX: dict[str, Any] = {"index_type": "AUTOINDEX", "params": {}}
_TOKEN_INDEX: dict[str, Any] = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 100}}

_VECTORS = {
    DataType.FLOAT_VECTOR,
    DataType.FLOAT16_VECTOR,
    DataType.BFLOAT16_VECTOR,
    DataType.BINARY_VECTOR,
    DataType.SPARSE_FLOAT_VECTOR,
    DataType.INT8_VECTOR,
}
_FDE_TYPES = (DataType.FLOAT_VECTOR, DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR)
_OPTIONS = {"num_partitions", "num_shards", "properties"}


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of ``create``; the stores document them.

    Attributes:
        storage: how tokens are to be stored; None: in struct arrays if the server has them, otherwise as text.
    """

    storage: TokenStorage | None = None
    max_tokens: int = 2_048
    precision: TokenType | None = None
    metric: Metric = "IP"
    datatype: DataType = DataType.FLOAT_VECTOR
    quantization: Quantization = "auto"
    index_type: str | None = None
    index_params: Mapping[str, Any] = field(default_factory=dict)
    token_index_type: str | None = None
    token_index_params: Mapping[str, Any] = field(default_factory=dict)
    fields: Sequence[FieldSchema] = ()
    dynamic: bool = True
    consistency: str = "Session"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: TokenModel | None = None

    @property
    def text_precision(self) -> TokenType:
        """How tokens are stored in text."""
        return self.precision or "float16"

    @property
    def preferred_storage(self) -> TokenStorage:
        """How tokens are to be stored if the server can; struct arrays have float32 values."""
        return self.storage or ("struct" if self.precision in (None, "float32") else "blob")


def check(encoder: Encoder, plan: Plan) -> None:
    """Raises InvalidInput for a plan that no Milvus supports."""
    check_dimensions(encoder, MAX_DIM, "Milvus")
    check_codes(plan)
    unknown = sorted(set(plan.options) - _OPTIONS)
    if unknown:
        raise InvalidInput(f"no option {', '.join(unknown)}; of Milvus's there are {', '.join(sorted(_OPTIONS))}")
    if plan.storage not in (None, "struct", "blob", "none"):
        raise InvalidInput(f"token_storage must be 'struct', 'blob' or None, got {plan.storage!r}")
    if plan.precision is not None:
        check_precision(plan.precision, get_args(TokenType))
    if plan.storage == "struct" and plan.precision not in (None, "float32"):
        raise Unsupported(
            f"struct arrays have float32 values, not {plan.precision}: leave out token_storage='struct', "
            "so that tokens are stored as text"
        )
    if plan.metric not in ("IP", "COSINE"):
        raise InvalidInput(f"tokens_metric must be 'IP' or 'COSINE', got {plan.metric!r}")
    if plan.datatype not in _FDE_TYPES:
        raise InvalidInput(
            f"datatype must be one of {', '.join(kind.name for kind in _FDE_TYPES)}, got {plan.datatype!r}"
        )
    if not 1 <= plan.max_tokens <= MAX_CAPACITY:
        raise InvalidInput(f"max_tokens must be from 1 to {MAX_CAPACITY}, got {plan.max_tokens}")
    texts = blobs.fields_for(plan.max_tokens, encoder.token_dim, plan.text_precision)
    names = {own.name for own in plan.fields}
    if plan.storage != "struct" and texts + len(names) + 3 > MAX_FIELDS:
        raise InvalidInput(
            f"{plan.max_tokens} tokens of {encoder.token_dim} dimensions take {texts} text fields, a collection has "
            f"at most {MAX_FIELDS} in all: lower max_tokens"
        )
    taken = sorted(name for name in names if is_reserved(name))
    if taken:
        raise InvalidInput(f"fields {', '.join(taken)} are reserved for this library")


def check_codes(plan: Plan) -> None:
    """Raises InvalidInput for a quantization that does not exist, or that conflicts with an index type."""
    if plan.quantization not in ("auto", "sq8", None):
        raise InvalidInput(f"quantization must be 'auto', 'sq8' or None, got {plan.quantization!r}")
    if plan.index_type is not None and plan.quantization != "auto":
        raise InvalidInput(
            f"index_type={plan.index_type!r} determines the quantization: leave out quantization={plan.quantization!r}"
        )


def is_reserved(name: str) -> bool:
    """Whether this key is reserved in payloads of collections that this library creates."""
    return name == FDE or name.startswith("muvera_")


def schema_of(encoder: Encoder, plan: Plan, storage: TokenStorage) -> CollectionSchema:
    """Key, FDE, tokens and payload."""
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=plan.dynamic)
    made.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY)
    made.add_field(FDE, plan.datatype, dim=encoder.dim)
    if storage == "struct":
        struct = MilvusClient.create_struct_field_schema()
        struct.add_field(SUB, DataType.FLOAT_VECTOR, dim=encoder.token_dim)
        made.add_field(
            TOKENS,
            DataType.ARRAY,
            element_type=DataType.STRUCT,
            struct_schema=struct,
            max_capacity=plan.max_tokens,
        )
    elif storage == "blob":
        for i in range(blobs.fields_for(plan.max_tokens, encoder.token_dim, plan.text_precision)):
            made.add_field(f"{TOKENS}_{i}", DataType.VARCHAR, max_length=blobs.FIELD_LENGTH)
    for own in plan.fields:
        copied = own.to_dict()
        kept = {key: value for key, value in copied.items() if key not in ("name", "type", "params")}
        made.add_field(own.name, own.dtype, **kept, **copied.get("params", {}))
    return made


def fde_index(plan: Plan, server: Server) -> dict[str, Any]:
    """The index of the FDEs, as arguments of ``add_index``."""
    if plan.index_type is not None:
        return {"index_type": plan.index_type, "params": dict(plan.index_params)}
    if plan.quantization == "sq8" or (plan.quantization == "auto" and server.sq8):
        default = SQ8_INDEX
    else:
        default = DEFAULT_INDEX if server.known else _AUTO_INDEX
    return {"index_type": default["index_type"], "params": {**default["params"], **plan.index_params}}


def token_index(plan: Plan) -> dict[str, Any]:
    """The index of the struct array's vectors."""
    if plan.token_index_type is None:
        return {**_TOKEN_INDEX, "params": {**_TOKEN_INDEX["params"], **plan.token_index_params}}
    return {"index_type": plan.token_index_type, "params": dict(plan.token_index_params)}


def snapshot_of(collection: Collection, **more: Any) -> str:
    """The text that is stored in the collection's properties, with ``more`` added."""
    state = new_state(collection.encoder, collection.fde, collection.tokens, collection.model)
    own = {
        "storage": collection.storage,
        "keys": collection.keys,
        "metric": collection.metric,
        "precision": collection.precision,
    }
    return json.dumps({**state, **own, **more})


def kept_state(description: Description) -> Any:
    """The state that a collection stores; None if it has none."""
    text = (description.get("properties") or {}).get(STATE_KEY)
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def has_struct(description: Description, name: str) -> bool:
    """Whether the server created the struct array; servers without struct arrays drop it silently."""
    return any(each["name"] == name and _is_struct(each) for each in description["fields"])


def describe(
    description: Description,
    name: str,
    encoder: Encoder,
    fde: str,
    tokens: str | None,
    server: Server,
    **state: Any,
) -> Collection:
    """Describes a collection, from its schema and its stored state.

    Raises:
        SchemaMismatch: it does not fit the encoder or two-stage search; the message names every reason.
        InvalidInput: no Milvus can store such FDEs.
    """
    check_dimensions(encoder, MAX_DIM, "Milvus")
    fields = {each["name"]: each for each in description["fields"]}
    primary = next(each for each in description["fields"] if each.get("is_primary"))
    own_keys = "any" if primary["name"] == ID else "integer" if primary["type"] == DataType.INT64 else "string"
    collection = Collection(
        name,
        encoder,
        key=primary["name"],
        keys=state.get("keys", own_keys),
        max_key=int(primary.get("params", {}).get("max_length", MAX_KEY)),
        fde=fde,
        fde_exists=fde in fields,
        nullable=bool(fields.get(fde, {}).get("nullable")),
        has_fde=fde in fields,
        marker=mark_of(fde) in fields,
        tokens=tokens,
        storage="none",
        metric=state.get("metric", "IP"),
        precision=state.get("precision", "float16"),
        dynamic=bool(description.get("enable_dynamic_field")),
        server=server,
    )
    collection, problems = _fit_fde(collection, fields)
    collection, more = _fit_tokens(collection, fields)
    problems += more
    if primary.get("auto_id") or description.get("auto_id"):
        problems.append("its primary keys are made by the server (auto_id), so documents cannot be replaced")
    if problems:
        raise SchemaMismatch(f"{name} does not fit: {'; '.join(problems)}")
    ours = {collection.key, fde, collection.mark, *collection.token_fields}
    vectors = [each for each, info in fields.items() if _is_vector(info) and each not in ours]
    hidden = {*_computed(description), *map(mark_of, vectors)} & fields.keys()
    own = tuple(each for each in fields if each not in ours and each not in vectors and each not in hidden)
    return replace(
        collection,
        fields=own,
        types={each: DataType(fields[each]["type"]) for each in own},
        optional=tuple(each for each in own if fields[each].get("nullable")),
        strangers=tuple(each for each in vectors if each not in hidden),
        hidden=tuple(hidden),
    )


def _computed(description: Description) -> set[str]:
    """Names of the fields that a function of the server fills, such as the sparse vectors of BM25."""
    functions = description.get("functions") or []
    named = {name for function in functions for name in function.get("output_field_names") or []}
    return named | {each["name"] for each in description["fields"] if each.get("is_function_output")}


def _fit_fde(collection: Collection, fields: Mapping[str, Any]) -> tuple[Collection, list[str]]:
    """The collection with the properties of its FDE field, and the problems."""
    info, fde = fields.get(collection.fde), collection.fde
    if fde in _multivectors(fields):
        return collection, [f"{fde!r} is a multivector, FDEs are single vectors"]
    if info is None:
        return collection, []
    if info["type"] not in _FDE_TYPES:
        kinds = ", ".join(kind.name for kind in _FDE_TYPES)
        return collection, [f"{fde!r} is a {info['type'].name}, FDEs are {kinds}"]
    dim = int(info["params"]["dim"])
    problems = []
    if dim != collection.encoder.dim:
        problems = [f"{fde!r} has {dim} dimensions, the encoder gives {collection.encoder.dim}"]
    return replace(collection, datatype=info["type"]), problems


def _fit_tokens(collection: Collection, fields: Mapping[str, Any]) -> tuple[Collection, list[str]]:
    """The collection with the properties of its token fields, and the problems."""
    name, width = collection.tokens, collection.encoder.token_dim
    if name is None:
        return collection, []
    texts = sorted((each for each in fields if re.fullmatch(rf"{re.escape(name)}_\d+", each)), key=_number)
    if name in fields and _is_struct(fields[name]):
        vectors = [each for each in fields[name]["struct_fields"] if each["type"] == DataType.FLOAT_VECTOR]
        if len(vectors) != 1:
            return collection, [f"{name!r} has {len(vectors)} float vectors in its struct, one is needed"]
        room = int(fields[name].get("params", {}).get("max_capacity", MAX_CAPACITY))
        dim = int(vectors[0]["params"]["dim"])
        problems = [] if dim == width else [f"{name!r} has {dim} dimensions, the encoder takes {width}"]
        return replace(collection, storage="struct", sub=vectors[0]["name"], capacity=room), problems
    if name not in fields and texts and all(fields[each]["type"] == DataType.VARCHAR for each in texts):
        room = blobs.capacity(len(texts), width, collection.precision)
        return replace(collection, storage="blob", blobs=tuple(texts), capacity=room), []
    if name in fields:
        return collection, [f"{name!r} is not a multivector"]
    there = ", ".join(repr(each) for each in _multivectors(fields)) or "none"
    return collection, [f"there is no vector {name!r}; there are: {there}"]


def _multivectors(fields: Mapping[str, Any]) -> list[str]:
    texts = {match[1] for each in fields if (match := re.fullmatch(r"(.+)_0", each))}
    return sorted({name for name, info in fields.items() if _is_struct(info)} | texts)


def _is_struct(info: Mapping[str, Any]) -> bool:
    return info.get("element_type") == DataType.STRUCT


def _is_vector(info: Mapping[str, Any]) -> bool:
    return info["type"] in _VECTORS or _is_struct(info)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
