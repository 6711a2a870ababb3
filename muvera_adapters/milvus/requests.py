"""The requests that operations make: every request, its arguments, and how its reply is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pymilvus import AnnSearchRequest, CollectionSchema, DataType
from pymilvus.client.embedding_list import EmbeddingList
from pymilvus.milvus_client import IndexParams

from muvera_adapters.errors import MuveraError
from muvera_adapters.milvus.blobs import unpack
from muvera_adapters.milvus.client import Call
from muvera_adapters.milvus.collection import Collection
from muvera_adapters.milvus.expressions import after, among, everything
from muvera_adapters.milvus.ids import Key
from muvera_adapters.stores.operations import Request
from muvera_adapters.stores.payloads import to_plain

T = TypeVar("T")

#: a collection's schema and properties, or an index, as the client describes them
Description: TypeAlias = Mapping[str, Any]

#: bytes of one write; a server takes messages of 67,108,864 (proxy.grpc.serverMaxRecvSize)
WRITE_BYTES = 16 << 20
MAX_MESSAGE = 67_108_864
#: bytes of tokens in one reply; half of a server's maximum (quotaAndLimits.limits.maxOutputSize, 100 MB)
READ_BYTES = 48 << 20
#: maximum number of keys in one expression
FILTER_KEYS = 1_000
#: maximum offset + limit of a query, and maximum number of results of a search
MAX_RESULTS = 16_384
#: maximum retrieval_ann_ratio of Milvus 2.6.4
_MAX_RATIO = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A document that was read.

    Attributes:
        key: primary key.
        payload: payload, or the requested part of it.
        tokens: token matrix (n, token_dim); None if none is stored or requested.
        fde: FDE (dim,); None if none is stored or requested.
        distance: score of a search; None if the request gives none.
        problem: reason why the stored text of its tokens cannot be read; "" if it can.
    """

    key: Key
    payload: dict[str, Any]
    tokens: npt.NDArray[np.float32] | None = None
    fde: npt.NDArray[np.float32] | None = None
    distance: float | None = None
    problem: str = ""


def server_version() -> Request[str]:
    """The version of the server; Unsupported for milvus-lite before 3, which has none."""
    return Call(lambda client, timeout: client.get_server_version(timeout=timeout), str)


def exists(name: str) -> Request[bool]:
    """Whether there is a collection, or an alias, of this name."""
    return Call(lambda client, timeout: client.has_collection(collection_name=name, timeout=timeout), bool)


def describe(name: str) -> Request[Description]:
    """The schema and the properties of a collection."""
    return Call(lambda client, timeout: client.describe_collection(collection_name=name, timeout=timeout), _as_it_is)


def create(
    name: str, schema: CollectionSchema, properties: Mapping[str, Any], consistency: str, options: Mapping[str, Any]
) -> Request[None]:
    """Creates a collection without indexes; ``options``: num_shards, num_partitions."""
    return Call(
        lambda client, timeout: client.create_collection(
            collection_name=name,
            schema=schema,
            properties=dict(properties),
            consistency_level=consistency,
            timeout=timeout,
            **options,
        ),
        _nothing,
    )


def drop(name: str) -> Request[None]:
    """Deletes a collection."""
    return Call(lambda client, timeout: client.drop_collection(collection_name=name, timeout=timeout), _nothing)


def set_properties(name: str, properties: Mapping[str, Any]) -> Request[None]:
    """Sets properties of a collection; others stay."""
    return Call(
        lambda client, timeout: client.alter_collection_properties(
            collection_name=name, properties=dict(properties), timeout=timeout
        ),
        _nothing,
    )


def drop_property(name: str, key: str) -> Request[None]:
    """Removes a property of a collection."""
    return Call(
        lambda client, timeout: client.drop_collection_properties(
            collection_name=name, property_keys=[key], timeout=timeout
        ),
        _nothing,
    )


def drop_field(name: str, field: str) -> Request[None]:
    """Removes a field of a collection with its values (Milvus >= 3.0)."""
    return Call(
        lambda client, timeout: client.drop_collection_field(collection_name=name, field_name=field, timeout=timeout),
        _nothing,
    )


def add_field(name: str, field: str, datatype: DataType, **options: Any) -> Request[None]:
    """Adds a field, empty in all documents, to a collection; ``options``: dim, max_length."""
    return Call(
        lambda client, timeout: client.add_collection_field(
            collection_name=name, field_name=field, data_type=datatype, nullable=True, timeout=timeout, **options
        ),
        _nothing,
    )


def create_index(name: str, params: IndexParams) -> Request[None]:
    """Creates an index without waiting for it: the asynchronous client would, which milvus-lite does not support."""
    return Call(
        lambda client, timeout: client.create_index(
            collection_name=name, index_params=params, sync=False, timeout=timeout
        ),
        _nothing,
    )


def index_names(name: str) -> Request[list[str]]:
    """The names of all indexes of a collection."""
    return Call(lambda client, timeout: client.list_indexes(collection_name=name, timeout=timeout), list)


def describe_index(name: str, index: str) -> Request[Description]:
    """Type, parameters and progress of an index; empty if it no longer exists."""
    return Call(
        lambda client, timeout: client.describe_index(collection_name=name, index_name=index, timeout=timeout),
        lambda reply: reply or {},
    )


def is_loaded(name: str) -> Request[bool]:
    """Whether a collection is loaded, so that it can be searched."""
    return Call(
        lambda client, timeout: client.get_load_state(collection_name=name, timeout=timeout),
        lambda reply: getattr(reply["state"], "name", "") == "Loaded",
    )


def load(name: str) -> Request[None]:
    """Loads a collection."""
    return Call(lambda client, timeout: client.load_collection(collection_name=name, timeout=timeout), _nothing)


def flush(name: str) -> Request[None]:
    """Writes documents in memory to segments; only segments have indexes."""
    return Call(lambda client, timeout: client.flush(collection_name=name, timeout=timeout), _nothing)


def aliases() -> Request[list[str]]:
    """All aliases."""
    return Call(
        lambda client, timeout: client.list_aliases(collection_name="", timeout=timeout),
        lambda reply: list(reply["aliases"]),
    )


def create_alias(alias: str, name: str) -> Request[None]:
    """Creates an alias of a collection."""
    return Call(
        lambda client, timeout: client.create_alias(collection_name=name, alias=alias, timeout=timeout), _nothing
    )


def alter_alias(alias: str, name: str) -> Request[None]:
    """Points an existing alias to another collection."""
    return Call(
        lambda client, timeout: client.alter_alias(collection_name=name, alias=alias, timeout=timeout), _nothing
    )


def near_fde(
    collection: Collection,
    fde: npt.NDArray[np.float32],
    limit: int,
    chosen: str,
    fields: Sequence[str],
    params: Mapping[str, Any] | None,
) -> Request[list[Row]]:
    """At most ``limit`` nearest FDEs of a query's (dim,), best first.

    ``params`` are search parameters of the index; None: as deep as ``limit`` needs.
    """
    param = _fde_params(collection, limit, params)
    return _search(collection, collection.fde, vector(collection, fde), limit, chosen, fields, param)


def first_stage(
    collection: Collection,
    fde: npt.NDArray[np.float32],
    limit: int,
    chosen: str,
    params: Mapping[str, Any] | None,
) -> AnnSearchRequest:
    """The search of :func:`near_fde` as a part of the client's ``hybrid_search``."""
    param = _fde_params(collection, limit, params)
    return AnnSearchRequest([vector(collection, fde)], collection.fde, param, limit, expr=chosen or None)


def near_own(collection: Collection, search: AnnSearchRequest, chosen: str) -> Request[list[Row]]:
    """Documents that a user's search finds and that pass ``chosen``, without payloads, best first."""
    options = {} if search.expr_params is None else {"filter_params": search.expr_params}
    return Call(
        lambda client, timeout: client.search(
            collection_name=collection.name,
            data=search.data,
            anns_field=search.anns_field,
            limit=search.limit,
            filter=chosen,
            search_params=search.param,
            output_fields=_asked(collection, ()),
            timeout=timeout,
            **_consistency(collection.consistency),
            **options,
        ),
        partial(_hits, collection),
    )


def matching(collection: Collection, chosen: str, limit: int) -> Request[list[Row]]:
    """At most ``limit`` documents that pass ``chosen``, without payloads."""
    return _query(collection, chosen, (), partial(_rows, collection), limit=limit)


def near_tokens(
    collection: Collection, query: npt.NDArray[np.float32], limit: int, chosen: str, ratio: float | None = None
) -> Request[list[Row]]:
    """At most ``limit`` documents by MaxSim with (m, token_dim), best first; some may be missing.

    The server first searches the nearest limit * ratio tokens of every query token, and scores the documents with one
    of them (knowhere, emb_list_strategy/token_ann.cc). Ratio None: so large that hardly any document is left out.
    """
    params: dict[str, Any] = {"retrieval_ann_ratio": float(ratio or min(collection.capacity, _MAX_RATIO))}
    if _family(collection.token_index) == "HNSW":
        params["ef"] = max(128, limit)
    field = f"{collection.tokens}[{collection.sub}]"
    search_params = {"metric_type": f"MAX_SIM_{collection.metric}", "params": params}
    matrix = EmbeddingList(np.ascontiguousarray(query, np.float32))
    return _search(collection, field, matrix, limit, chosen, (), search_params)


def fetch(
    collection: Collection, keys: Sequence[Key], fields: Sequence[str], *, strong: bool = False
) -> Request[list[Row]]:
    """Existing documents of at most FILTER_KEYS keys, in any order; ``strong``: sees all acknowledged writes."""
    return _query(collection, among(collection.key, keys), fields, partial(_rows, collection), strong=strong)


def raw(collection: Collection, keys: Sequence[Key], fields: Sequence[str]) -> Request[list[dict[str, Any]]]:
    """Like ``fetch``, with the fields in the client's form."""
    chosen = among(collection.key, keys)
    return _query(collection, chosen, fields, lambda reply: [dict(row) for row in reply], strong=True)


def page(
    collection: Collection, limit: int, last: Key | None, fields: Sequence[str], chosen: str = ""
) -> Request[list[Row]]:
    """At most ``limit`` documents after key ``last``, in the order of keys (milvus-lite has no order)."""
    expression = chosen if last is None else after(collection.key, last, chosen)
    return _query(collection, expression, fields, partial(_rows, collection), strong=True, limit=limit)


def all_keys(collection: Collection, chosen: str) -> Request[list[Key]]:
    """All keys, in order; for milvus-lite, which returns any number in one reply."""
    # an empty filter would need a limit
    read = lambda reply: sorted(row[collection.key] for row in reply)  # noqa: E731
    return _query(collection, chosen or everything(collection), (), read)


def count(collection: Collection, chosen: str = "") -> Request[int]:
    """The exact number of documents that pass ``chosen``; "": all documents."""
    return _query(collection, chosen, ["count(*)"], lambda reply: int(reply[0]["count(*)"]), strong=True)


def upsert(collection: Collection, rows: Sequence[Mapping[str, Any]]) -> Request[None]:
    """Writes whole documents, replacing existing ones."""
    data = list(rows)
    if collection.server.lite:
        # its upsert always keeps fields that are not named, and its insert replaces
        return Call(
            lambda client, timeout: client.insert(collection_name=collection.name, data=data, timeout=timeout), _nothing
        )
    return Call(
        lambda client, timeout: client.upsert(collection_name=collection.name, data=data, timeout=timeout), _nothing
    )


def patch(collection: Collection, rows: Sequence[Mapping[str, Any]]) -> Request[None]:
    """Writes only the given fields and keys of the dynamic field; all rows name the same declared fields."""
    data = list(rows)
    return Call(
        lambda client, timeout: client.upsert(
            collection_name=collection.name, data=data, partial_update=True, timeout=timeout
        ),
        _nothing,
    )


def delete(collection: Collection, chosen: str) -> Request[None]:
    """Deletes the documents that pass ``chosen``."""
    return Call(
        lambda client, timeout: client.delete(collection_name=collection.name, filter=chosen, timeout=timeout), _nothing
    )


def vector(collection: Collection, fde: npt.NDArray[np.float32]) -> Any:
    """An FDE (dim,) in the data type of its field."""
    if collection.datatype == DataType.FLOAT16_VECTOR:
        return fde.astype(np.float16)
    if collection.datatype == DataType.BFLOAT16_VECTOR:
        from ml_dtypes import bfloat16

        return fde.astype(bfloat16)
    return np.ascontiguousarray(fde, np.float32)


def to_row(collection: Collection, key: Key, values: Mapping[str, Any], distance: float | None = None) -> Row:
    """A document, from the fields that the client returned."""
    hidden = {collection.key, collection.fde, collection.mark, *collection.token_fields}
    hidden.update(collection.strangers, collection.hidden)
    declared = set(collection.fields)
    payload = to_plain(
        {
            name: value
            for name, value in values.items()
            if name not in hidden and not (value is None and name in declared)
        }
    )
    fde = values.get(collection.fde) if collection.fde_exists else None
    tokens, problem = None, ""
    try:
        tokens = _tokens(collection, key, values)
    except MuveraError as error:  # another program wrote it, and it must not end a search or a backfill
        problem = str(error)
    return Row(key, payload, tokens, None if fde is None else np.asarray(fde, np.float32), distance, problem)


def _search(
    collection: Collection,
    field: str,
    query: Any,
    limit: int,
    chosen: str,
    fields: Sequence[str],
    params: Mapping[str, Any],
) -> Request[list[Row]]:
    return Call(
        lambda client, timeout: client.search(
            collection_name=collection.name,
            data=[query],
            anns_field=field,
            limit=limit,
            filter=chosen,
            search_params=params,
            output_fields=_asked(collection, fields),
            timeout=timeout,
            **_consistency(collection.consistency),
        ),
        partial(_hits, collection),
    )


def _query(
    collection: Collection,
    chosen: str,
    fields: Sequence[str],
    read: Callable[[Any], T],
    *,
    strong: bool = False,
    limit: int | None = None,
) -> Request[T]:
    return Call(
        lambda client, timeout: client.query(
            collection_name=collection.name,
            filter=chosen,
            output_fields=_asked(collection, fields),
            timeout=timeout,
            **_consistency("Strong" if strong else collection.consistency),
            **({} if limit is None else {"limit": limit}),
        ),
        read,
    )


def _fde_params(collection: Collection, limit: int, params: Mapping[str, Any] | None) -> dict[str, Any]:
    depth = _depth(collection, limit) if params is None else dict(params)
    return {"metric_type": collection.fde_metric, "params": depth}


def _asked(collection: Collection, fields: Sequence[str]) -> list[str]:
    # without output_fields, milvus-lite returns all fields, including vectors
    return list(fields) or [collection.key]


def _consistency(level: str | None) -> dict[str, str]:
    return {} if level is None else {"consistency_level": level}


def _depth(collection: Collection, limit: int) -> dict[str, Any]:
    """Search depth of an index for ``limit`` results; for other families, search_params sets it."""
    family = _family(collection.index)
    if family == "HNSW":
        return {"ef": max(128, 2 * limit)}
    if family == "DISKANN":
        return {"search_list": max(100, limit)}
    return {}


def _family(index: Description | None) -> str:
    return str((index or {}).get("index_type", "")).partition("_")[0]


def _hits(collection: Collection, reply: Any) -> list[Row]:
    rows = []
    for hit in reply[0]:
        # milvus-lite uses the key's name in the schema, others "id"
        key = hit[collection.key] if collection.key in hit else hit["id"]
        rows.append(to_row(collection, key, hit["entity"], float(hit["distance"])))
    return rows


def _rows(collection: Collection, reply: Any) -> list[Row]:
    return [to_row(collection, values[collection.key], values) for values in reply]


def _tokens(collection: Collection, key: Key, values: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    if collection.storage == "none" or not any(name in values for name in collection.token_fields):
        return None
    if collection.storage == "blob":
        return unpack([values.get(name) for name in collection.blobs], f"{collection.name}, document {key!r}")
    structs = values.get(str(collection.tokens))
    return np.asarray([each[collection.sub] for each in structs], np.float32) if structs else None


def _as_it_is(reply: Description) -> Description:
    return reply


def _nothing(_: Any) -> None:
    """Ignores the reply."""
