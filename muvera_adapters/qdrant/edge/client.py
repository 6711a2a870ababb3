"""Requests carried out by an embedded shard, and its configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from muvera_adapters.errors import CollectionNotFound, InvalidInput, MuveraError, Rejected, StoreUnavailable
from muvera_adapters.qdrant import requests as r
from muvera_adapters.qdrant.collection import TOKEN_PRESETS, Preset, auto_preset
from muvera_adapters.qdrant.conditions import FilterTypes
from muvera_adapters.stores.ids import ID_KEY
from muvera_adapters.stores.token_precision import check_precision
from muvera_core import Encoder

EdgeQuantization: TypeAlias = (
    edge.ScalarQuantizationConfig
    | edge.ProductQuantizationConfig
    | edge.BinaryQuantizationConfig
    | edge.TurboQuantQuantizationConfig
)
#: quantization of FDEs, which may be left to the store
Quantization: TypeAlias = Literal["auto"] | Preset | EdgeQuantization | None
#: how tokens are stored: a preset, or an object of the engine
Tokens: TypeAlias = Literal["float32", "float16", "turbo8", "turbo4"] | edge.VectorStorageDatatype

ENGINE = f"Qdrant Edge {version('qdrant-edge-py')}"


def _match(value: str | int | bool) -> edge.MatchValue:
    # the engine reads Python's booleans as the numbers 0 and 1, and numpy's as booleans
    return edge.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]


#: filters and conditions of the engine
FILTERS = FilterTypes(
    group=edge.Filter,
    value=lambda path, value: edge.FieldCondition(path, match=_match(value)),
    values=lambda path, texts: edge.FieldCondition(path, match=edge.MatchAny(texts)),
    text=lambda path, text: edge.FieldCondition(path, match=edge.MatchSubstring(text)),
    numbers=lambda path, **bounds: edge.FieldCondition(path, range=edge.RangeFloat(**bounds)),
    times=lambda path, **bounds: edge.FieldCondition(path, range=edge.RangeDateTime(**bounds)),
    empty=edge.IsEmptyCondition,
    ids=lambda ids: edge.HasIdCondition(set(ids)),
)

# size of one file of the write-ahead log; a larger write gets its own file
_LOG_FILE = 64 << 10
#: settings of the write-ahead log, named as in a shard's configuration file
LOG_OPTIONS = {"segment_capacity": _LOG_FILE, "segment_queue_len": 0, "retain_closed": 1}
# the log is emptied during a load where it has grown so far, and made small after a flush where it is larger than this
_LOG_MOST = 64 << 20
_LOG_SMALL = 1 << 20
# a batch in the write-ahead log, in the vectors, and the engine's files that grow by 32 MB
_RESERVE = 128 << 20


class Shard:
    """An open shard that carries out requests.

    Attributes:
        path: directory of the shard.
        short_log: whether the files of the log have the size in :data:`LOG_OPTIONS`, so that it can be made small.
        owner: id of the process that opened it; a forked child has a copy that must not be used.
    """

    def __init__(
        self,
        shard: edge.EdgeShard,
        path: Path,
        fde_bytes: float,
        code_bits: float,
        vectors: tuple[str, ...],
        *,
        short_log: bool,
    ) -> None:
        self._shard: edge.EdgeShard | None = shard
        self._dirty = True
        self._sizes = (fde_bytes, code_bits)
        self._vectors = vectors
        self.path = path
        self.short_log = short_log
        self.owner = os.getpid()

    def send(self, request: Any) -> Any:
        """The reply to a request; the collection's name in it is ignored.

        Raises:
            StoreUnavailable: the shard is closed or belongs to another process, or the disk is full.
            Rejected: the engine rejected the request.
        """
        if self.owner != os.getpid():
            raise StoreUnavailable(
                f"{self.path} was opened by process {self.owner}, of which this one is a fork, and one process at a "
                "time may use it: open it after the fork, in one of them"
            )
        if self._shard is None:
            raise StoreUnavailable(f"{self.path} is closed")
        try:
            return self._carry_out(self._shard, request)
        except MuveraError:
            raise
        except Exception as error:  # the engine raises nothing more specific
            raise translate(error, self.path) from error

    def close(self) -> None:
        """Flushes and releases the directory; does nothing in a fork of the process that opened it."""
        if self.owner != os.getpid():
            return
        if self._shard is not None:
            self._flush(self._shard)
            self._shard.close()
            self._shard = None

    def _carry_out(self, shard: edge.EdgeShard, request: Any) -> Any:
        match request:
            case r.Find():
                return _rows(shard.query(_query(request)))
            case r.FindMany():
                batch = edge.QueryBatchRequest([_query(find) for find in request.finds])
                return [_rows(points) for points in shard.query_batch(batch)]
            case r.Sample():
                sample = edge.QueryRequest(
                    request.limit,
                    query=edge.Sample.Random,
                    filter=_filter(request.where),
                    with_payload=[ID_KEY],
                    with_vector=list(request.vectors),
                )
                return _rows(shard.query(sample))
            case r.Page():
                records, following = shard.scroll(
                    edge.ScrollRequest(
                        offset=request.offset,
                        limit=request.limit,
                        filter=_filter(request.where),
                        with_payload=request.payload,
                        with_vector=list(request.vectors) or False,
                    )
                )
                return _rows(records), following
            case r.Fetch():
                return _rows(shard.retrieve(list(request.ids), request.payload, list(request.vectors) or False))
            case r.Count():
                return shard.count(edge.CountRequest(exact=request.exact, filter=_filter(request.where)))
            case r.GetStatus():
                return self._status(shard)
            case r.Settle():
                return None
            case r.Flush():
                return self._flush(shard)
            case r.Optimize():
                _need_space(self.path)
                shard.optimize()
                # removes the segments that were replaced, and their part of the log
                self._flush(shard)
                self._dirty = False
                return None
            case r.Delete():
                self._dirty = True
                return shard.update(_delete(request))
            case r.Upsert():
                return self._change(shard, [r.PutPoints(request.points)])
            case r.Update():
                return self._change(shard, request.changes)
        raise TypeError(f"{request!r} is not a request")

    def _change(self, shard: edge.EdgeShard, changes: Sequence[r.Change]) -> None:
        _need_space(self.path)
        self._dirty = True
        # converted first, so that errors are found before anything is written
        for operation in [_operation(change) for change in changes]:
            shard.update(operation)
            if self._log_bytes() > _LOG_MOST:
                shard.flush()

    def _flush(self, shard: edge.EdgeShard) -> None:
        """Writes everything to disk; of the log, the engine then needs only the number of the last write.

        It keeps the last two files even so. Two writes without points, each filling most of a file, replace them.
        """
        shard.flush()
        if self.short_log and self._log_bytes() > _LOG_SMALL:
            for _ in range(2):
                shard.update(edge.UpdateOperation.set_payload([], {"": "0" * (_LOG_FILE * 3 // 4)}))
            shard.flush()

    def _log_bytes(self) -> int:
        return sum(map(_on_disk, (self.path / "wal").iterdir()))

    def _status(self, shard: edge.EdgeShard) -> r.Status:
        info = shard.info()
        disk = sum(_on_disk(Path(folder, name)) for folder, _, names in os.walk(self.path) for name in names)
        colour = "grey" if self._dirty else "green"
        counts = (info.points_count, info.segments_count, self._vectors, info.indexed_vectors_count)
        return r.Status(ENGINE, colour, *counts, *self._sizes, disk)


def translate(error: Exception, path: Path) -> MuveraError:
    """The error of this library for an error of the engine; only their texts tell them apart."""
    text = str(error)
    if "WouldBlock" in text:
        return StoreUnavailable(f"{path}: another process (or another object of this one) has it open")
    if any(sign in text for sign in ("No space left", "StorageFull", "os error 28")):
        return StoreUnavailable(f"no space left on the disk of {path}: {text}")
    if any(sign in text for sign in ("Service internal error", "Service runtime error", "os error", "IO Error")):
        return StoreUnavailable(f"{ENGINE} failed on {path}: {text}")
    if "Not found" in text:
        return CollectionNotFound(f"{path}: {text}")
    return Rejected(f"{ENGINE} refused the request on {path}: {text}")


def quantization_config(quantization: Quantization, dim: int) -> EdgeQuantization | None:
    """A quantization preset in the engine's type, for FDEs of ``dim`` dimensions; codes are kept in memory.

    Raises:
        InvalidInput: there is no such preset.
    """
    cached = edge.Memory.Cached
    if quantization is None or isinstance(quantization, get_args(EdgeQuantization)):
        return quantization
    preset = auto_preset(dim) if quantization == "auto" else quantization
    presets: dict[str, Callable[[], EdgeQuantization]] = {
        "int8": lambda: edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=cached),
        "turbo4": lambda: edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4, memory=cached),
        "turbo2": lambda: edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits2, memory=cached),
        "binary": lambda: edge.BinaryQuantizationConfig(
            encoding=edge.BinaryQuantizationEncoding.TwoBits,
            query_encoding=edge.BinaryQuantizationQueryEncoding.Scalar8Bits,
            memory=cached,
        ),
        "product": lambda: edge.ProductQuantizationConfig(edge.CompressionRatio.X16, memory=cached),
    }
    if not isinstance(preset, str) or preset not in presets:
        raise InvalidInput(
            f"quantization must be one of auto, {', '.join(get_args(Preset))}, None or an object of the engine, "
            f"got {quantization!r}"
        )
    return presets[preset]()


def check_datatype(datatype: edge.VectorStorageDatatype, what: str) -> None:
    """Raises InvalidInput for a data type that rounds such vectors too coarsely.

    Args:
        datatype: data type of the stored vectors.
        what: name of the argument, ``datatype`` (of FDEs) or ``tokens``.
    """
    names = ["Float16", "Float32", *(["Turbo8", "Turbo4"] if what == "tokens" else [])]
    if datatype not in [getattr(edge.VectorStorageDatatype, name) for name in names]:
        raise InvalidInput(
            f"{what} must be one of {', '.join(names)}, got {datatype!r}: values of other types are rounded too "
            "coarsely to be compared, Uint8 to whole numbers of 0 to 255"
        )


def fde_params(
    encoder: Encoder,
    quantization: Quantization,
    datatype: edge.VectorStorageDatatype,
    hnsw_config: edge.HnswIndexConfig | None,
) -> edge.EdgeVectorParams:
    """Parameters of the FDE vector: a graph, and codes in memory."""
    check_datatype(datatype, "datatype")
    codes = quantization_config(quantization, encoder.dim)
    return edge.EdgeVectorParams(
        encoder.dim,
        edge.Distance.Dot,
        datatype=datatype,
        quantization_config=codes,
        hnsw_config=hnsw_config or edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
        # with codes in memory, the originals are read only when a search rescores
        memory=edge.Memory.Cold if codes else edge.Memory.Cached,
    )


def token_datatype(tokens: Tokens) -> edge.VectorStorageDatatype:
    """A preset in the engine's type.

    Raises:
        InvalidInput: there is no such preset, or MaxSim over such values means nothing.
    """
    if not isinstance(tokens, edge.VectorStorageDatatype):
        check_precision(tokens, TOKEN_PRESETS, " or a VectorStorageDatatype")
        stored: edge.VectorStorageDatatype = getattr(edge.VectorStorageDatatype, tokens.capitalize())
        return stored
    check_datatype(tokens, "tokens")
    return tokens


def token_params(encoder: Encoder, datatype: edge.VectorStorageDatatype) -> edge.EdgeVectorParams:
    """Parameters of the tokens: no graph (m=0)."""
    return edge.EdgeVectorParams(
        encoder.token_dim,
        edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=datatype,
        hnsw_config=edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000),
        memory=edge.Memory.Cached,
    )


def _need_space(path: Path) -> None:
    # the engine writes through memory maps: on a full disk, the whole process is killed by a bus error
    free = shutil.disk_usage(path).free
    if free < _RESERVE:
        raise StoreUnavailable(
            f"only {free >> 20} MB are free on the disk of {path}, and the engine needs {_RESERVE >> 20} MB to write "
            "safely: free some, then repeat the call"
        )


def _on_disk(file: Path) -> int:
    """Bytes that a file occupies on disk: the engine allocates more than it writes, and may remove files meanwhile."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return 0
    return 512 * stat.st_blocks if hasattr(stat, "st_blocks") else stat.st_size


def _operation(change: r.Change) -> edge.UpdateOperation:
    match change:
        case r.PutPoints():
            points = [edge.Point(p.id, _all_vectors(p), p.payload) for p in change.points]
            return edge.UpdateOperation.upsert_points(points)
        case r.InsertPoints():
            points = [edge.Point(p.id, _all_vectors(p), p.payload) for p in change.points]
            return edge.UpdateOperation.upsert_points(points, update_mode=edge.UpdateMode.InsertOnly)
        case r.PutVectors():
            vectors = [edge.PointVectors(p.id, _all_vectors(p)) for p in change.points]
            return edge.UpdateOperation.update_vectors(vectors)
        case r.PutPayload():
            return edge.UpdateOperation.set_payload(list(change.ids), change.payload)
        case r.DropVectors():
            return edge.UpdateOperation.delete_vectors(list(change.ids), list(change.names))
        case r.ClearPayload():
            return edge.UpdateOperation.clear_payload(list(change.ids))


def _delete(request: r.Delete) -> edge.UpdateOperation:
    if request.ids is not None:
        return edge.UpdateOperation.delete_points(list(request.ids))
    return edge.UpdateOperation.delete_points_by_filter(_filter(request.where) or edge.Filter())


def _all_vectors(point: r.Point) -> Any:
    return {**{name: _plain(values) for name, values in point.vectors.items()}, **point.others}


def _query(find: r.Find | r.FindOwn) -> edge.QueryRequest:
    if isinstance(find, r.FindOwn):
        own = _own_prefetch(find.own)
        both = [each for each in (own.filter, find.where.filter) if each is not None]
        where = replace(find.where, filter=edge.Filter(must=both) if len(both) > 1 else next(iter(both), None))
        return edge.QueryRequest(
            own.limit,
            query=own.query,
            prefetches=own.prefetches or None,
            with_payload=find.payload,
            filter=_filter(where),
            score_threshold=own.score_threshold,
            params=own.params,
        )
    prefetches = [_own_prefetch(p) if isinstance(p, r.OwnPrefetch) else to_prefetch(p) for p in find.prefetches]
    return edge.QueryRequest(
        find.limit,
        offset=find.offset,
        query=_nearest(find.vector, find.using),
        prefetches=prefetches or None,
        with_vector=list(find.vectors) or False,
        with_payload=find.payload,
        filter=_filter(find.where),
        score_threshold=find.score_threshold,
        params=_params(find.params),
    )


def to_prefetch(prefetch: r.Prefetch) -> edge.Prefetch:
    """The first stage in the engine's type."""
    nearest, params = _nearest(prefetch.vector, prefetch.using), _params(prefetch.params)
    return edge.Prefetch(prefetch.limit, query=nearest, params=params, filter=prefetch.filter)


def _own_prefetch(own: r.OwnPrefetch) -> edge.Prefetch:
    if not isinstance(own.prefetch, edge.Prefetch):
        raise InvalidInput(f"{own.what} must be a Prefetch of qdrant_edge, got a {type(own.prefetch).__name__}")
    return _whole(own.prefetch)


def _whole(prefetch: edge.Prefetch) -> edge.Prefetch:
    """A prefetch whose filters stay whole: the engine joins a request's with those of prefetches clause by clause."""
    return edge.Prefetch(
        prefetch.limit,
        query=prefetch.query,
        prefetches=[_whole(each) for each in prefetch.prefetches or ()] or None,
        params=prefetch.params,
        filter=None if prefetch.filter is None else edge.Filter(must=[prefetch.filter]),
        score_threshold=prefetch.score_threshold,
    )


def _nearest(vector: npt.NDArray[Any], using: str) -> edge.Query:
    return edge.Query.Nearest(_plain(vector), using=using)


def _plain(vector: npt.NDArray[Any]) -> Any:
    """A vector or multivector as lists: the engine accepts arrays too, but takes twice as long to read them."""
    return vector.tolist()


def _params(params: Any) -> Any:
    if not isinstance(params, r.Params):
        return params
    codes = None
    if params.exact:
        codes = edge.QuantizationSearchParams(ignore=True)
    elif params.rescore is not None:
        codes = edge.QuantizationSearchParams(rescore=params.rescore)
    return edge.SearchParams(hnsw_ef=params.hnsw_ef, exact=params.exact, quantization=codes)


def _filter(where: r.Where) -> edge.Filter | None:
    if not where.has and not where.lacks and where.ids is None:
        return where.filter
    must: list[Any] = [edge.HasVectorCondition(name) for name in where.has]
    must += [] if where.ids is None else [edge.HasIdCondition(set(where.ids))]
    must += [where.filter] if where.filter is not None else []
    lacks: list[Any] = [edge.HasVectorCondition(name) for name in where.lacks]
    return edge.Filter(must=must or None, must_not=lacks or None)


def _rows(records: Sequence[Any]) -> list[r.Row]:
    return [
        r.Row(record.id, dict(record.payload or {}), _vectors(record.vector), float(getattr(record, "score", 0.0)))
        for record in records
    ]


def _vectors(vector: Any) -> r.Vectors:
    if vector is None:
        return {}
    named: Mapping[str, Any] = vector if isinstance(vector, Mapping) else {"": vector}
    return {name: np.asarray(v, np.float32) for name, v in named.items() if isinstance(v, list)}
