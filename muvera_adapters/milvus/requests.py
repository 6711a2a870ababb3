"""What operations ask of a Milvus: calls of its client, whose synchronous and asynchronous kinds name them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pymilvus import DataType
from pymilvus.client.embedding_list import EmbeddingList

from muvera_adapters.milvus.blobs import TokenType, unpack
from muvera_adapters.milvus.expressions import after, among
from muvera_adapters.milvus.identity import FDE_KEY, Key, Keys
from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.operations import Request
from muvera_core import Encoder

TokenStorage: TypeAlias = Literal["struct", "blob", "none"]
Metric: TypeAlias = Literal["IP", "COSINE"]

T = TypeVar("T")

#: bytes of one write; a server takes messages of 67,108,864 (proxy.grpc.serverMaxRecvSize)
WRITE_BYTES = 16 << 20
MAX_MESSAGE = 67_108_864
#: bytes of tokens in one reply; half of what a server gives at most (quotaAndLimits.limits.maxOutputSize, 100 MB)
READ_BYTES = 48 << 20
#: keys in one expression
FILTER_KEYS = 1_000
#: offset + limit of a query, and results of a search
MAX_RESULTS = 16_384
#: retrieval_ann_ratio that Milvus 2.6.4 takes at most
_MAX_RATIO = 100

#: the field that Milvus keeps a payload's undeclared keys in
_DYNAMIC = "$meta"


@dataclass(frozen=True, slots=True)
class Call(Request[T]):
    """A method of the client, and how its reply is read."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    read: Callable[[Any], T] = lambda reply: reply


@dataclass(frozen=True, slots=True)
class Server:
    """What is on the other end.

    Attributes:
        engine: and its version, for people.
        lite: milvus-lite, which gives pages in no order.
        known: its version is that of a Milvus; managed services have others.
    """

    engine: str = "Milvus"
    lite: bool = False
    known: bool = True


@dataclass(slots=True)
class Collection:
    """A collection as the operations see it.

    Attributes:
        name: of the collection, or an alias.
        encoder: of its FDEs.
        key: name of the primary key.
        keys: what primary keys are made of.
        max_key: bytes of a string key.
        fde: name of the FDE field.
        datatype: of the FDE field.
        fde_metric: FDEs are compared by.
        seen: what operations have learned of it.
        index: of the FDEs: its type and parameters.
        fde_exists: the collection has such a field.
        has_fde: it can be searched and written (False: adopted, to be backfilled).
        marker: the collection got its FDEs later, and FDE_KEY says which documents have one.
        storage: of tokens.
        tokens: name of the struct array, or what the names of the text fields begin with; None without tokens.
        sub: the vector in the struct.
        blobs: the text fields.
        precision: of tokens in text.
        metric: tokens are compared by; under COSINE queries and FDEs are made of tokens of unit length.
        capacity: tokens that one document may have.
        strategy: emb_list_strategy of the struct's index.
        token_index: of the struct's vector: its type and parameters; None: there is none.
        fields: declared fields of the payload.
        dynamic: the payload may have other keys.
        strangers: vectors and other fields that are neither ours nor shown in payloads.
        server: it is kept in.
        consistency: of searches; None: the collection's.
        token_bytes: of the largest token matrix read so far, on the wire; 0: none was.
    """

    name: str
    encoder: Encoder
    key: str = "muvera_id"
    keys: Keys = "any"
    max_key: int = 512
    fde: str = "fde"
    datatype: DataType = DataType.FLOAT_VECTOR
    fde_metric: str = "IP"
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)
    index: Mapping[str, Any] = field(default_factory=dict)
    fde_exists: bool = True
    has_fde: bool = True
    marker: bool = False
    storage: TokenStorage = "blob"
    tokens: str | None = "muvera_tokens"
    sub: str = "vector"
    blobs: tuple[str, ...] = ()
    precision: TokenType = "float16"
    metric: Metric = "IP"
    capacity: int = 4_096
    strategy: str = "tokenann"
    token_index: Mapping[str, Any] | None = None
    fields: tuple[str, ...] = ()
    dynamic: bool = True
    strangers: tuple[str, ...] = ()
    server: Server = Server()
    consistency: str | None = None
    token_bytes: int = 0

    @property
    def cosine(self) -> bool:
        """Tokens are compared by cosine."""
        return self.metric == "COSINE"

    @property
    def token_fields(self) -> list[str]:
        """Fields to ask for to get the tokens."""
        if self.storage == "struct":
            assert self.tokens is not None
            return [self.tokens]
        return list(self.blobs)

    @property
    def payload_fields(self) -> list[str]:
        """Fields to ask for to get the whole payload."""
        return [*self.fields, *([_DYNAMIC] if self.dynamic else [])]


@dataclass(frozen=True, slots=True)
class Row:
    """A document read. Distance is None where the request gave none; an absent field is None or {}."""

    key: Key
    payload: dict[str, Any]
    tokens: npt.NDArray[np.float32] | None = None
    fde: npt.NDArray[np.float32] | None = None
    marker: str | None = None
    distance: float | None = None


def near_fde(
    collection: Collection, fde: npt.NDArray[np.float32], limit: int, chosen: str, fields: Sequence[str], params: Any
) -> Call[list[Row]]:
    """Nearest FDEs of a query's (dim,), best first. Reply: rows."""
    search_params = {
        "metric_type": collection.fde_metric,
        "params": _depth(collection, limit) if params is None else params,
    }
    arguments = {
        "data": [vector(collection, fde)],
        "anns_field": collection.fde,
        "limit": limit,
        "filter": chosen,
        "search_params": search_params,
        **_returned(collection, fields),
    }
    return Call("search", arguments, partial(_hits, collection))


def near_tokens(
    collection: Collection, query: npt.NDArray[np.float32], limit: int, chosen: str, ratio: float | None = None
) -> Call[list[Row]]:
    """Documents by MaxSim with (m, token_dim), best first. Reply: rows, of which some may be missing.

    The server first looks for the nearest limit * ratio tokens of every query token, and scores the documents that own
    one of them (knowhere, emb_list_strategy/token_ann.cc). Ratio None: so many that hardly any document is left out.
    """
    params: dict[str, Any] = {"retrieval_ann_ratio": float(ratio or min(collection.capacity, _MAX_RATIO))}
    if _family(collection.token_index) == "HNSW":
        params["ef"] = max(128, limit)
    arguments = {
        "data": [EmbeddingList(np.ascontiguousarray(query, np.float32))],
        "anns_field": f"{collection.tokens}[{collection.sub}]",
        "limit": limit,
        "filter": chosen,
        "search_params": {"metric_type": f"MAX_SIM_{collection.metric}", "params": params},
        **_returned(collection, ()),
    }
    return Call("search", arguments, partial(_hits, collection))


def fetch(
    collection: Collection, keys: Sequence[Key], fields: Sequence[str], chosen: str = "", **options: Any
) -> Call[list[Row]]:
    """Those of at most FILTER_KEYS keys that exist and pass ``chosen``, in any order. Reply: rows."""
    arguments = {"filter": among(collection.key, keys, chosen), **_returned(collection, fields), **options}
    return Call("query", arguments, partial(_rows, collection))


def raw(collection: Collection, keys: Sequence[Key], fields: Sequence[str]) -> Call[list[dict[str, Any]]]:
    """As ``fetch``. Reply: dictionaries of the fields as the client gives and takes them."""
    arguments = {"collection_name": collection.name, "filter": among(collection.key, keys)}
    options = {"output_fields": list(fields), "consistency_level": "Strong"}
    return Call("query", {**arguments, **options}, lambda reply: [dict(row) for row in reply])


def page(
    collection: Collection, limit: int, last: Key | None, fields: Sequence[str], chosen: str = ""
) -> Call[list[Row]]:
    """A page in the order of keys, of a server (milvus-lite has no order). Reply: rows."""
    expression = chosen if last is None else after(collection.key, last, chosen)
    arguments = {"filter": expression, "limit": limit, "consistency_level": "Strong", **_returned(collection, fields)}
    return Call("query", arguments, partial(_rows, collection))


def all_keys(collection: Collection, chosen: str) -> Call[list[Key]]:
    """Reply: all keys, in order; of milvus-lite, which gives any number in one reply."""

    def read(reply: Any) -> list[Key]:
        return sorted(row[collection.key] for row in reply)

    # an empty filter would need a limit
    everything = f'{collection.key} >= ""' if collection.keys != "integer" else f"{collection.key} >= {-(2**63) + 1}"
    return Call("query", {"filter": chosen or everything, **_returned(collection, ())}, read)


def count(collection: Collection, chosen: str = "") -> Call[int]:
    """Reply: the exact number."""
    arguments = {"collection_name": collection.name, "filter": chosen, "output_fields": ["count(*)"]}
    return Call("query", {**arguments, "consistency_level": "Strong"}, lambda reply: int(reply[0]["count(*)"]))


def upsert(collection: Collection, rows: Sequence[Mapping[str, Any]], *, partial_update: bool = False) -> Call[None]:
    """Writes documents, replacing those that are there, or of those only the fields named."""
    arguments: dict[str, Any] = {"collection_name": collection.name, "data": list(rows)}
    if partial_update:
        return Call("upsert", {**arguments, "partial_update": True})
    # milvus-lite's upsert always keeps the fields that are not named, and its insert replaces
    return Call("insert" if collection.server.lite else "upsert", arguments)


def delete(collection: Collection, chosen: str) -> Call[None]:
    """Deletes what passes."""
    return Call("delete", {"collection_name": collection.name, "filter": chosen})


def vector(collection: Collection, fde: npt.NDArray[np.float32]) -> Any:
    """An FDE as its field takes it."""
    if collection.datatype == DataType.FLOAT16_VECTOR:
        return fde.astype(np.float16)
    if collection.datatype == DataType.BFLOAT16_VECTOR:
        from ml_dtypes import bfloat16

        return fde.astype(bfloat16)
    return np.ascontiguousarray(fde, np.float32)


def _depth(collection: Collection, limit: int) -> dict[str, Any]:
    """How hard an index looks for ``limit`` results; for families not named here, search_params says it."""
    family = _family(collection.index)
    if family == "HNSW":
        return {"ef": max(128, 2 * limit)}
    if family == "DISKANN":
        return {"search_list": max(100, limit)}
    return {}


def _family(index: Mapping[str, Any] | None) -> str:
    return str((index or {}).get("index_type", "")).partition("_")[0]


def _returned(collection: Collection, fields: Sequence[str]) -> dict[str, Any]:
    # without output_fields milvus-lite gives all fields, vectors included
    arguments = {"collection_name": collection.name, "output_fields": list(fields) or [collection.key]}
    return {**arguments, "consistency_level": collection.consistency} if collection.consistency else arguments


def _hits(collection: Collection, reply: Any) -> list[Row]:
    rows = []
    for hit in reply[0]:
        # milvus-lite names the key as the schema does, others "id"
        key = hit[collection.key] if collection.key in hit else hit["id"]
        rows.append(to_row(collection, key, hit["entity"], float(hit["distance"])))
    return rows


def _rows(collection: Collection, reply: Any) -> list[Row]:
    return [to_row(collection, values[collection.key], values) for values in reply]


def to_row(collection: Collection, key: Key, values: Mapping[str, Any], distance: float | None = None) -> Row:
    """A document of what the client gives."""
    hidden = {collection.key, collection.fde, FDE_KEY, *collection.token_fields, *collection.strangers}
    declared = set(collection.fields)
    payload = {
        name: value for name, value in values.items() if name not in hidden and not (value is None and name in declared)
    }
    fde = values.get(collection.fde) if collection.fde_exists else None
    return Row(
        key,
        payload,
        _tokens(collection, key, values),
        None if fde is None else np.asarray(fde, np.float32),
        values.get(FDE_KEY),
        distance,
    )


def _tokens(collection: Collection, key: Key, values: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    if collection.storage == "none" or not any(name in values for name in collection.token_fields):
        return None
    if collection.storage == "blob":
        return unpack([values.get(name) for name in collection.blobs], f"{collection.name}, document {key!r}")
    structs = values.get(str(collection.tokens))
    return np.asarray([each[collection.sub] for each in structs], np.float32) if structs else None
