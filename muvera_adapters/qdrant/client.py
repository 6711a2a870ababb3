"""Sends requests as calls of qdrant-client, and translates its replies."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import RestToGrpc
from qdrant_client.qdrant_remote import QdrantRemote

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.qdrant import requests as r
from muvera_adapters.qdrant.collection import GRPC, LOCAL, REST, Wire
from muvera_adapters.qdrant.conditions import FilterTypes
from muvera_adapters.qdrant.errors import translate
from muvera_adapters.qdrant.schema import vector_infos
from muvera_adapters.stores.checks import check_client
from muvera_adapters.stores.ids import ID_KEY
from muvera_adapters.stores.operations import Request

# vectors that are sent as they are; the client computes those of other classes, for instance from a text
_VECTORS = (list, tuple, np.ndarray, models.SparseVector)

#: time limit of one request in seconds: qdrant-client's default of 5 is too short for writes of megabytes and for exact
#: search
TIMEOUT = 60

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """What all calls of a store have in common.

    Attributes:
        name: name of the collection, or an alias of it.
        engine: name and version of the database.
        version: major and minor version of the server.
        wire: limits of one write.
        timeout: time limit of one request in seconds; None: that of the client.
        address: URL and port of the server.
    """

    name: str
    engine: str
    version: tuple[int, ...]
    wire: Wire
    timeout: int | None
    address: str = ""

    @property
    def database(self) -> str:
        """Name, version and address of the database."""
        return f"{self.engine} at {self.address}" if self.address else self.engine

    def limited(self, seconds: float) -> Connection:
        """The same with a lower time limit for requests, rounded to whole seconds as client and server need them."""
        if math.isinf(seconds):
            return self
        most = max(1, math.ceil(seconds))
        return replace(self, timeout=most if self.timeout is None else min(most, self.timeout))


@dataclass(frozen=True, slots=True)
class Call(Request[T], Generic[R, T]):
    """A call of the client and how its reply is read; also a request that only clients can answer.

    Attributes:
        send: calls the synchronous client. The arguments are made here too, so that an object of the user that the
            client's types reject is an error of this library. The asynchronous client has the same methods.
        read: turns the client's reply (awaited, if the client is asynchronous) into that of the request.
    """

    send: Callable[[QdrantClient], R]
    read: Callable[[R], T]


#: oldest server that can search for a part of a text
SUBSTRING_VERSION = (1, 20)

#: filters and conditions of qdrant-client
FILTERS = FilterTypes(
    group=models.Filter,
    value=lambda path, value: models.FieldCondition(key=path, match=models.MatchValue(value=value)),
    values=lambda path, texts: models.FieldCondition(key=path, match=models.MatchAny(any=texts)),
    text=lambda path, text: models.FieldCondition(key=path, match=models.MatchSubstring(substring=text)),
    numbers=lambda path, **bounds: models.FieldCondition(key=path, range=models.Range(**bounds)),
    times=lambda path, **bounds: models.FieldCondition(key=path, range=models.DatetimeRange(**bounds)),
    empty=lambda path: models.IsEmptyCondition(is_empty=models.PayloadField(key=path)),
    ids=lambda ids: models.HasIdCondition(has_id=ids),
)


def filters_of(connection: Connection) -> FilterTypes:
    """Filters and conditions that the database supports; older servers have fewer."""
    return FILTERS if connection.version >= SUBSTRING_VERSION else replace(FILTERS, text=None)


def ask(send: Callable[[QdrantClient], R]) -> Call[R, R]:
    """A call whose reply is read as it is."""
    return Call(send, lambda reply: reply)


def tell(send: Callable[[QdrantClient], object]) -> Call[object, None]:
    """A call whose reply is ignored."""
    return Call(send, lambda _: None)


def send(client: QdrantClient, connection: Connection, request: Any) -> Any:
    """The reply to a request.

    Raises:
        MuveraError: the client failed, or cannot send a value; its own error is the ``__cause__``.
    """
    try:
        call = to_call(request, connection)
        if call is None:
            return None
        with _LOCAL_MODE if connection.wire is LOCAL else nullcontext():
            reply = call.send(client)
        return call.read(reply)
    except MuveraError:
        raise
    except Exception as error:  # the client raises what its transport raises
        raise _translated(error, connection) from error


async def send_async(client: AsyncQdrantClient, connection: Connection, request: Any) -> Any:
    """Like :func:`send`, through an asynchronous client."""
    try:
        call = to_call(request, connection)
        return None if call is None else call.read(await call.send(cast(QdrantClient, client)))
    except MuveraError:
        raise
    except Exception as error:  # the client raises what its transport raises
        raise _translated(error, connection) from error


def _translated(error: Exception, connection: Connection) -> MuveraError:
    return translate(
        error,
        engine=connection.engine,
        name=connection.name,
        timeout=connection.timeout,
        address=connection.address,
    )


def check_kind(client: Any, kind: type) -> None:
    """Raises InvalidInput unless the client is of the class that the store works with."""
    check_client(client, kind, {other: store for other, store in _STORES.items() if other is not kind})


# local mode is not thread-safe: a search during a write fails, and concurrent writes are lost
_LOCAL_MODE = threading.RLock()

_STORES: dict[type, str] = {QdrantClient: "QdrantMuvera", AsyncQdrantClient: "AsyncQdrantMuvera"}


def wire_of(client: Any) -> Wire:
    """The protocol of a client (local, REST or gRPC), from the options that it was made with."""
    options = client.init_options
    if options.get("location") == ":memory:" or options.get("path") is not None:
        return LOCAL
    return GRPC if options.get("prefer_grpc") else REST


def address_of(client: Any) -> str:
    """URL and port of a client's server, and its gRPC port if the client uses gRPC."""
    wire = wire_of(client)
    if wire is LOCAL:
        return ""
    url = str(client.http.client.host)
    return f"{url}, gRPC port {client.init_options.get('grpc_port')}" if wire is GRPC else url


def to_call(request: Any, connection: Connection) -> Call[Any, Any] | None:
    """The call that carries out a request; None if there is nothing to do."""
    timeout = connection.timeout
    match request:
        case Call():
            return request
        case r.Find():
            return _find(request, connection)
        case r.FindMany():
            return _find_many(request, connection)
        case r.Sample():
            return _sample(request, timeout)
        case r.Page():
            return _page(request, timeout)
        case r.Fetch():
            return _fetch(request, timeout)
        case r.Count():
            return _count(request, timeout)
        case r.GetStatus():
            return _get_status(request, connection)
        case r.Upsert():
            return _upsert(request, connection)
        case r.Update():
            return _update(request, connection)
        case r.Delete():
            return _delete(request, timeout)
        case r.Optimize():
            return _optimize(request, timeout)
        case r.Settle():
            return None if connection.wire is LOCAL else _settle(request, timeout)
        case r.Flush():
            return None
    raise TypeError(f"{request!r} is not a request")


def _find(find: r.Find, connection: Connection) -> Call[models.QueryResponse, list[r.Row]]:
    return Call(
        lambda client: client.query_points(
            collection_name=find.collection,
            query=find.vector.tolist(),
            using=find.using,
            prefetch=_prefetches(find, connection.wire),
            query_filter=to_filter(find.where),
            search_params=_params(find.params, connection.wire),
            limit=find.limit,
            offset=find.offset or None,
            with_payload=_payload(find.payload),
            with_vectors=list(find.vectors) or False,
            score_threshold=find.score_threshold,
            shard_key_selector=find.shard_key,
            timeout=connection.timeout,
        ),
        lambda reply: to_rows(reply.points),
    )


def _find_many(request: r.FindMany, connection: Connection) -> Call[list[models.QueryResponse], list[list[r.Row]]]:
    return Call(
        lambda client: client.query_batch_points(
            collection_name=request.collection,
            requests=[_query(find, connection.wire) for find in request.finds],
            timeout=connection.timeout,
        ),
        lambda replies: [to_rows(reply.points) for reply in replies],
    )


def _query(find: r.Find | r.FindOwn, wire: Wire) -> models.QueryRequest:
    if isinstance(find, r.FindOwn):
        own = _own_prefetch(find.own)
        both = [each for each in (own.filter, find.where.filter) if each is not None]
        where = replace(find.where, filter=models.Filter(must=both) if len(both) > 1 else next(iter(both), None))
        return models.QueryRequest(
            query=own.query,
            using=own.using,
            prefetch=own.prefetch,
            filter=to_filter(where),
            params=own.params,
            limit=own.limit,
            with_payload=_payload(find.payload),
            score_threshold=own.score_threshold,
            lookup_from=own.lookup_from,
            shard_key=find.shard_key,
        )
    return models.QueryRequest(
        query=find.vector.tolist(),
        using=find.using,
        prefetch=_prefetches(find, wire),
        filter=to_filter(find.where),
        params=_params(find.params, wire),
        limit=find.limit,
        offset=find.offset or None,
        with_payload=_payload(find.payload),
        with_vector=list(find.vectors) or False,
        score_threshold=find.score_threshold,
        shard_key=find.shard_key,
    )


def _prefetches(find: r.Find, wire: Wire) -> Any:
    each = [_own_prefetch(p) if isinstance(p, r.OwnPrefetch) else to_prefetch(p, wire) for p in find.prefetches]
    return each[0] if len(each) == 1 else each or None


def to_prefetch(prefetch: r.Prefetch, wire: Wire) -> models.Prefetch:
    """The first stage in the client's type."""
    return models.Prefetch(
        query=prefetch.vector.tolist(),
        using=prefetch.using,
        limit=prefetch.limit,
        params=_params(prefetch.params, wire),
        filter=prefetch.filter,
    )


def _own_prefetch(own: r.OwnPrefetch) -> models.Prefetch:
    if not isinstance(own.prefetch, models.Prefetch):
        raise InvalidInput(f"{own.what} must be a models.Prefetch, got a {type(own.prefetch).__name__}")
    return _whole(own.prefetch).model_copy(update={"limit": own.limit})


def _whole(prefetch: models.Prefetch) -> models.Prefetch:
    """A prefetch whose filters stay whole.

    The server joins a request's filter with those of its prefetches clause by clause, so that the alternatives
    (``should``) of one would become alternatives to those of the other.
    """
    nested = prefetch.prefetch
    inner = None if nested is None else [_whole(each) for each in (nested if isinstance(nested, list) else [nested])]
    chosen = None if prefetch.filter is None else models.Filter(must=[prefetch.filter])
    return prefetch.model_copy(update={"filter": chosen, "prefetch": inner})


def _sample(request: r.Sample, timeout: int | None) -> Call[models.QueryResponse, list[r.Row]]:
    return Call(
        lambda client: client.query_points(
            collection_name=request.collection,
            query=models.SampleQuery(sample=models.Sample.RANDOM),
            query_filter=to_filter(request.where),
            limit=request.limit,
            with_payload=[ID_KEY],
            with_vectors=list(request.vectors) or False,
            timeout=timeout,
        ),
        lambda reply: to_rows(reply.points),
    )


def _page(request: r.Page, timeout: int | None) -> Call[tuple[list[models.Record], Any], tuple[list[r.Row], Any]]:
    return Call(
        lambda client: client.scroll(
            collection_name=request.collection,
            scroll_filter=to_filter(request.where),
            limit=request.limit,
            offset=request.offset,
            with_payload=_payload(request.payload),
            with_vectors=list(request.vectors) or False,
            shard_key_selector=request.shard_key,
            timeout=timeout,
        ),
        lambda reply: (to_rows(reply[0]), reply[1]),
    )


def _fetch(request: r.Fetch, timeout: int | None) -> Call[list[models.Record], list[r.Row]]:
    return Call(
        lambda client: client.retrieve(
            collection_name=request.collection,
            ids=list(request.ids),
            with_payload=_payload(request.payload),
            with_vectors=list(request.vectors) or False,
            shard_key_selector=request.shard_key,
            timeout=timeout,
        ),
        to_rows,
    )


def _count(request: r.Count, timeout: int | None) -> Call[models.CountResult, int]:
    return Call(
        lambda client: client.count(
            collection_name=request.collection,
            count_filter=to_filter(request.where),
            exact=request.exact,
            shard_key_selector=request.shard_key,
            timeout=timeout,
        ),
        lambda reply: reply.count,
    )


def _get_status(request: r.GetStatus, connection: Connection) -> Call[models.CollectionInfo, r.Status]:
    return Call(
        lambda client: client.get_collection(collection_name=request.collection),
        lambda info: _status(info, request.fde, connection),
    )


def _upsert(request: r.Upsert, connection: Connection) -> Call[object, None]:
    points = [_point(point, connection.wire) for point in request.points]
    return tell(
        lambda client: client.upsert(
            collection_name=request.collection,
            points=points,
            wait=request.wait,
            shard_key_selector=request.shard_key,
            timeout=connection.timeout,
        )
    )


def _update(request: r.Update, connection: Connection) -> Call[object, None]:
    if connection.wire is GRPC and not any(_inferred(point) for point in _points_of(request.changes)):
        return _update_by_grpc(request, connection)
    operations = [_operation(change, request.shard_key) for change in request.changes]
    return tell(
        lambda client: client.batch_update_points(
            collection_name=request.collection,
            update_operations=operations,
            wait=request.wait,
            timeout=connection.timeout,
        )
    )


def _operation(change: r.Change, key: Any) -> models.UpdateOperation:
    match change:
        case r.PutPoints():
            points = [_point_struct(point) for point in change.points]
            return models.UpsertOperation(upsert=models.PointsList(points=points, shard_key=key))
        case r.InsertPoints():
            points = [_point_struct(point) for point in change.points]
            absent = models.PointsList(points=points, shard_key=key, update_mode=models.UpdateMode.INSERT_ONLY)
            return models.UpsertOperation(upsert=absent)
        case r.PutVectors():
            vectors = [models.PointVectors(id=point.id, vector=_all_vectors(point)) for point in change.points]
            return models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=vectors, shard_key=key))
        case r.PutPayload():
            payload = models.SetPayload(payload=change.payload, points=list(change.ids), shard_key=key)
            return models.SetPayloadOperation(set_payload=payload)
        case r.DropVectors():
            drop = models.DeleteVectors(points=list(change.ids), vector=list(change.names), shard_key=key)
            return models.DeleteVectorsOperation(delete_vectors=drop)
        case r.ClearPayload():
            return models.ClearPayloadOperation(
                clear_payload=models.PointIdsList(points=list(change.ids), shard_key=key)
            )


def _update_by_grpc(request: r.Update, connection: Connection) -> Call[object, None]:
    """Sends it as the client would, except our vectors, which the client converts number by number."""
    key = None
    if request.shard_key is not None:
        key = RestToGrpc.convert_shard_key_selector(request.shard_key)
    operations = []
    for change in request.changes:
        if isinstance(change, r.PutPoints | r.InsertPoints):
            points = messages.PointsUpdateOperation.PointStructList(
                points=[_point_message(point) for point in change.points],
                shard_key_selector=key,
                update_mode=messages.InsertOnly if isinstance(change, r.InsertPoints) else None,
            )
            operations.append(messages.PointsUpdateOperation(upsert=points))
        elif isinstance(change, r.PutVectors):
            vectors = messages.PointsUpdateOperation.UpdateVectors(
                points=[_vectors_message(point) for point in change.points], shard_key_selector=key
            )
            operations.append(messages.PointsUpdateOperation(update_vectors=vectors))
        else:
            operations.append(RestToGrpc.convert_update_operation(_operation(change, request.shard_key)))
    message = messages.UpdateBatchPoints(collection_name=request.collection, wait=request.wait, operations=operations)
    return tell(
        lambda client: client.grpc_points.UpdateBatch(
            message, timeout=client.init_options.get("timeout") or QdrantRemote.DEFAULT_GRPC_TIMEOUT
        )
    )


def _points_of(changes: Sequence[r.Change]) -> list[r.Point]:
    kinds = r.PutPoints | r.InsertPoints | r.PutVectors
    return [point for change in changes if isinstance(change, kinds) for point in change.points]


def _inferred(point: r.Point) -> bool:
    """Whether the client computes one of its vectors, for instance from a text."""
    return not all(isinstance(each, _VECTORS) for each in point.others.values())


def _delete(request: r.Delete, timeout: int | None) -> Call[object, None]:
    selector: Any = models.Filter() if request.where.filter is None else request.where.filter
    if request.ids is not None:
        selector = models.PointIdsList(points=list(request.ids))
    return tell(
        lambda client: client.delete(
            collection_name=request.collection,
            points_selector=selector,
            shard_key_selector=request.shard_key,
            timeout=timeout,
        )
    )


def _settle(request: r.Settle, timeout: int | None) -> Call[object, None]:
    # a change by filter goes to all shards, which apply changes in order; no point has this id, and none has this key
    nobody = models.Filter(must=[models.HasIdCondition(has_id=["00000000-0000-0000-0000-000000000000"])])
    return tell(
        lambda client: client.delete_payload(
            collection_name=request.collection,
            keys=[ID_KEY + "_none"],
            points=nobody,
            wait=True,
            shard_key_selector=request.shard_key,
            timeout=timeout,
        )
    )


def _optimize(request: r.Optimize, timeout: int | None) -> Call[object, None]:
    # after a restart, any update makes a server in state grey continue to optimize
    nothing = models.OptimizersConfigDiff()
    return tell(
        lambda client: client.update_collection(
            collection_name=request.collection, optimizers_config=nothing, timeout=timeout
        )
    )


def to_filter(where: r.Where) -> models.Filter | None:
    """One filter for all conditions."""
    if not where.has and not where.lacks and where.ids is None:
        return where.filter
    must: list[Any] = [models.HasVectorCondition(has_vector=name) for name in where.has]
    must += [] if where.ids is None else [models.HasIdCondition(has_id=list(where.ids))]
    must += [where.filter] if where.filter is not None else []
    lacks: list[Any] = [models.HasVectorCondition(has_vector=name) for name in where.lacks]
    return models.Filter(must=must or None, must_not=lacks or None)


def _point(point: r.Point, wire: Wire) -> Any:
    return _point_struct(point) if wire is not GRPC or _inferred(point) else _point_message(point)


def _point_struct(point: r.Point) -> models.PointStruct:
    return models.PointStruct(id=point.id, vector=_all_vectors(point), payload=point.payload)


def _all_vectors(point: r.Point) -> dict[str, Any]:
    ours = {name: values.tolist() for name, values in point.vectors.items()}
    return {**ours, **{name: _native(value) for name, value in point.others.items()}}


def _native(value: Any) -> Any:
    """A vector of the user in the client's type: arrays, and lists of arrays, become lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_native(each) for each in value] if isinstance(value, list | tuple) else value


def _point_message(point: r.Point) -> messages.PointStruct:
    others = {name: _native(value) for name, value in point.others.items()}
    message = RestToGrpc.convert_point_struct(models.PointStruct(id=point.id, vector=others, payload=point.payload))
    _add_ours(message.vectors.vectors.vectors, point)
    return message


def _vectors_message(point: r.Point) -> messages.PointVectors:
    others = {name: _native(value) for name, value in point.others.items()}
    message = RestToGrpc.convert_point_vectors(models.PointVectors(id=point.id, vector=others))
    _add_ours(message.vectors.vectors.vectors, point)
    return message


def _add_ours(named: Any, point: r.Point) -> None:
    for name, values in point.vectors.items():
        floats = np.ascontiguousarray(values, "<f4")
        if floats.ndim == 1:
            named[name].dense.MergeFromString(_floats_field(floats))
        else:
            rows = [messages.DenseVector.FromString(_floats_field(row)) for row in floats]
            named[name].multi_dense.CopyFrom(messages.MultiDenseVector(vectors=rows))


def _floats_field(floats: npt.NDArray[np.float32]) -> bytes:
    """Serialized DenseVector(data=floats): field 1, packed. Fourteen times as fast as through Python floats."""
    size, prefix = floats.nbytes, bytearray(b"\x0a")
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + floats.tobytes()


def _params(params: Any, wire: Wire) -> Any:
    if not isinstance(params, r.Params):
        return params
    if wire is LOCAL:  # it has no index, and warns of every parameter
        return None
    codes = None
    if params.exact:
        codes = models.QuantizationSearchParams(ignore=True)
    elif params.rescore is not None:
        codes = models.QuantizationSearchParams(rescore=params.rescore)
    return models.SearchParams(hnsw_ef=params.hnsw_ef, exact=params.exact or None, quantization=codes)


def _payload(wanted: Any) -> Any:
    if isinstance(wanted, models.PayloadSelectorInclude):
        return models.PayloadSelectorInclude(include=[*wanted.include, ID_KEY])
    return wanted


def to_rows(records: Sequence[Any]) -> list[r.Row]:
    """Rows of records or scored points; sparse vectors are left out."""
    return [
        r.Row(record.id, dict(record.payload or {}), _vectors(record.vector), float(getattr(record, "score", 0.0)))
        for record in records
    ]


def _vectors(vector: Any) -> r.Vectors:
    if vector is None:
        return {}
    named = vector if isinstance(vector, dict) else {"": vector}
    return {name: np.asarray(v, np.float32) for name, v in named.items() if not hasattr(v, "indices")}


def _status(info: models.CollectionInfo, name: str, connection: Connection) -> r.Status:
    fde = vector_infos(info).get(name)
    return r.Status(
        engine=connection.engine,
        status=str(getattr(info.status, "value", info.status)),
        points=info.points_count or 0,
        segments=info.segments_count,
        vectors=(*vector_infos(info), *(info.config.params.sparse_vectors or {})),
        indexed_vectors=info.indexed_vectors_count or 0,
        fde_float_bytes=fde.float_bytes if fde else 4.0,
        # local mode makes no codes, whatever its configuration says
        code_bits=fde.code_bits if fde and connection.wire is not LOCAL else 0.0,
    )
