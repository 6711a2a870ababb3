"""milvus-lite's server with arrays of structs added, over gRPC on loopback: what the stores see of Milvus >= 2.6.4.

It follows what is known of servers: limits are checked, searches of embedding lists first look for the nearest tokens
and leave out documents that own none of them (knowhere, emb_list_strategy/token_ann.cc), ratios over 100 are refused as
2.6.4 does, vectors can be added as 2.6.18 does, single fields updated as 2.6.20 does. It is no proof for any server.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.adapter.grpc.translators.records import fields_data_to_records
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

_MAX_MESSAGE = 67_108_864
_MAX_RATIO = 100.0
_ALLOWED = {"HNSW", "HNSW_SQ", "HNSW_PQ", "HNSW_PRQ", "IVF_FLAT", "IVF_FLAT_CC", "DISKANN"}
_EMBEDDING_LIST = common_pb2.PlaceholderType.EmbListFloatVector
_KINDS = schema_pb2.DataType


class StructServicer(MilvusServicer):
    """Struct arrays are kept in a text field of their name.

    Attributes:
        adds_vectors: as Milvus >= 2.6.18.
        drops_fields: as Milvus >= 3.0.
        updates_structs: partial upserts in collections with structs, as Milvus >= 2.6.20.
        searches: for every search of embedding lists, how many candidates were left out.
        asked: output fields of every search and query.
    """

    def __init__(self, db: MilvusLite) -> None:
        super().__init__(db)
        self.db = db
        self.adds_vectors = True
        self.drops_fields = False
        self.updates_structs = True
        self.structs: dict[str, Any] = {}
        self.added: dict[str, list[Any]] = {}
        self.indexes: dict[str, dict[str, dict[str, str]]] = {}
        self.searches: list[int] = []
        self.asked: list[list[str]] = []

    def CreateCollection(self, request: Any, context: Any) -> Any:
        schema = schema_pb2.CollectionSchema.FromString(request.schema)
        structs = list(schema.struct_array_fields)
        del schema.struct_array_fields[:]
        vectors = [f for f in schema.fields if f.data_type in (_KINDS.FloatVector, _KINDS.Float16Vector)]
        for each in vectors:
            if int(_params(each)["dim"]) > 32_768:
                return _refused("invalid dimension. should be in range 1 ~ 32768")
        for struct in structs:
            if int(_params(struct.fields[0])["max_capacity"]) > 4_096:
                return _refused("the maximum capacity must be in range (0, 4096]")
            text = schema.fields.add(name=struct.name, data_type=_KINDS.VarChar)
            text.type_params.add(key="max_length", value="100000000")
        if not vectors:  # milvus-lite needs one
            schema.fields.add(name="_none", data_type=_KINDS.FloatVector, nullable=True).type_params.add(
                key="dim", value="2"
            )
        changed = milvus_pb2.CreateCollectionRequest()
        changed.CopyFrom(request)
        changed.schema = schema.SerializeToString()
        reply = super().CreateCollection(changed, context)
        if reply.code == 0 and structs:
            self.structs[request.collection_name] = structs[0]
            self.indexes[request.collection_name] = {}
        return reply

    def AddCollectionField(self, request: Any, context: Any) -> Any:
        if not self.adds_vectors:
            return super().AddCollectionField(request, context)
        field = schema_pb2.FieldSchema.FromString(request.schema)
        if not field.nullable:
            return _refused("added field must be nullable")
        self._remake(request, context, add=field)
        return common_pb2.Status()

    def AlterCollectionSchema(self, request: Any, context: Any) -> Any:
        if not self.drops_fields:
            return super().AlterCollectionSchema(request, context)
        if request.action.HasField("add_request"):
            self._remake(request, context, add=request.action.add_request.field_infos[0].field_schema)
        else:
            self._remake(request, context, drop=request.action.drop_request.field_name)
        return milvus_pb2.AlterCollectionSchemaResponse(alter_status=common_pb2.Status())

    def _remake(self, request: Any, context: Any, add: Any = None, drop: str = "") -> None:
        """The collection is made anew, with or without a field, as milvus-lite cannot change a schema."""
        name = request.collection_name
        collection = self._get_collection(request, context)
        described = super().DescribeCollection(milvus_pb2.DescribeCollectionRequest(collection_name=name), context)
        rows = collection.query(
            _everything(collection), output_fields=[f.name for f in collection.schema.fields] + ["$meta"]
        )
        schema = described.schema
        kept = [each for each in schema.fields if each.name != drop]
        del schema.fields[:]
        schema.fields.extend([*kept, *([] if add is None else [add])])
        for row in rows:
            row.pop(drop, None)
        indexes = [
            milvus_pb2.CreateIndexRequest(
                collection_name=name, field_name=each.field_name, index_name=each.index_name, extra_params=each.params
            )
            for each in super()
            .DescribeIndex(milvus_pb2.DescribeIndexRequest(collection_name=name), context)
            .index_descriptions
            if each.field_name != drop
        ]
        super().DropCollection(milvus_pb2.DropCollectionRequest(collection_name=name), context)
        made = milvus_pb2.CreateCollectionRequest(
            collection_name=name, schema=schema.SerializeToString(), properties=described.properties
        )
        assert super().CreateCollection(made, context).code == 0
        self._get_collection(request, context).insert(rows)
        for each in indexes:
            super().CreateIndex(each, context)
        self.LoadCollection(milvus_pb2.LoadCollectionRequest(collection_name=name), context)

    def DescribeCollection(self, request: Any, context: Any) -> Any:
        reply = super().DescribeCollection(request, context)
        struct = self.structs.get(request.collection_name)
        if reply.status.code == 0 and struct is not None:
            kept = [f for f in reply.schema.fields if f.name not in (struct.name, "_none")]
            del reply.schema.fields[:]
            reply.schema.fields.extend(kept)
            reply.schema.struct_array_fields.append(struct)
        return reply

    def DropCollection(self, request: Any, context: Any) -> Any:
        self.structs.pop(request.collection_name, None)
        self.indexes.pop(request.collection_name, None)
        return super().DropCollection(request, context)

    def GetVersion(self, request: Any, context: Any) -> Any:
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version="v2.6.20-stub")

    def Insert(self, request: Any, context: Any) -> Any:
        packed, problem = self._packed(request)
        return milvus_pb2.MutationResult(status=problem) if problem else super().Insert(packed, context)

    def Upsert(self, request: Any, context: Any) -> Any:
        if not request.partial_update:
            return self.Insert(request, context)
        if request.collection_name in self.structs and not self.updates_structs:
            return milvus_pb2.MutationResult(status=_refused("struct fields are not supported in partial update"))
        packed, problem = self._packed(request)
        if problem:
            return milvus_pb2.MutationResult(status=problem)
        empty = [data.field_name for data in request.fields_data if _is_empty_vector(data)]
        if not empty:
            return super().Upsert(packed, context)
        collection = self._get_collection(request, context)
        named = [data for data in packed.fields_data if not _is_empty_vector(data)]
        records = fields_data_to_records(named, request.num_rows)
        collection.upsert([{**record, **dict.fromkeys(empty)} for record in records])
        return milvus_pb2.MutationResult(status=common_pb2.Status(), upsert_cnt=len(records))

    def CreateIndex(self, request: Any, context: Any) -> Any:
        if "[" not in request.field_name:
            return super().CreateIndex(request, context)
        params = _pairs(request.extra_params)
        params = {**json.loads(params.pop("params", "{}")), **params}
        if not params.get("metric_type", "").startswith("MAX_SIM"):
            return _refused(f"metric type {params.get('metric_type')} not found or not supported for ArrayOfVector")
        if params.get("index_type") not in _ALLOWED:
            return _refused(f"data type ArrayOfVector can't build with this index {params.get('index_type')}")
        self.indexes[request.collection_name][request.field_name] = {**params, "name": request.index_name}
        return common_pb2.Status()

    def DescribeIndex(self, request: Any, context: Any) -> Any:
        own = self.indexes.get(request.collection_name, {})
        wanted = {f: p for f, p in own.items() if not request.index_name or p["name"] == request.index_name}
        if request.index_name and wanted:
            reply = milvus_pb2.DescribeIndexResponse(status=common_pb2.Status())
        else:
            reply = super().DescribeIndex(request, context)
            if wanted and reply.status.code:  # no other index
                reply = milvus_pb2.DescribeIndexResponse(status=common_pb2.Status())
        for field, params in wanted.items():
            each = reply.index_descriptions.add(index_name=params["name"], field_name=field, state=3)
            for key, value in params.items():
                if key != "name":
                    each.params.add(key=key, value=str(value))
        return reply

    def LoadCollection(self, request: Any, context: Any) -> Any:
        struct = self.structs.get(request.collection_name)
        if struct is not None and not self.indexes[request.collection_name]:
            return _refused(f"there is no vector index on field: [{struct.name}], please create index firstly")
        collection = self._get_collection(request, context)
        if any(f.name == "_none" for f in collection.schema.fields):
            collection._load_state = "loaded"
            return common_pb2.Status()
        return super().LoadCollection(request, context)

    def Query(self, request: Any, context: Any) -> Any:
        self.asked.append(list(request.output_fields))
        params = _pairs(request.query_params)
        if "limit" in params:
            # milvus-lite's pages are in no order
            collection = self._get_collection(request, context)
            key = next(f.name for f in collection.schema.fields if f.is_primary)
            keys = sorted(
                r[key] for r in collection.query(request.expr or _everything(collection), output_fields=[key])
            )
            changed = milvus_pb2.QueryRequest()
            changed.CopyFrom(request)
            del changed.query_params[:]
            changed.expr = f"{key} in {json.dumps(keys[: int(params['limit'])], ensure_ascii=False)}"
            request = changed
        return self._unpacked(request.collection_name, super().Query(request, context))

    def Search(self, request: Any, context: Any) -> Any:
        self.asked.append(list(request.output_fields))
        group = common_pb2.PlaceholderGroup.FromString(request.placeholder_group)
        if group.placeholders and group.placeholders[0].type == _EMBEDDING_LIST:
            return self._search_lists(request, context, group.placeholders[0].values)
        return self._unpacked(request.collection_name, super().Search(request, context))

    def _search_lists(self, request: Any, context: Any, values: Any) -> Any:
        params = _pairs(request.search_params)
        name, field = request.collection_name, params["anns_field"]
        index = self.indexes.get(name, {}).get(field)
        if index is None:
            return milvus_pb2.SearchResults(status=_refused(f"field {field} not found, or it has no index"))
        if params.get("metric_type", index["metric_type"]) != index["metric_type"]:
            return milvus_pb2.SearchResults(status=_refused(f"metric type not match: expected={index['metric_type']}"))
        limit, ratio = (
            int(params["topk"]),
            float(json.loads(params.get("params", "{}")).get("retrieval_ann_ratio", 3.0)),
        )
        if not 0.01 <= ratio <= _MAX_RATIO:
            return milvus_pb2.SearchResults(status=_refused("Brute force search fail: out of range in json"))
        struct = self.structs[name]
        dim = int(_params(struct.fields[0])["dim"])
        collection = self._get_collection(request, context)
        key = next(f.name for f in collection.schema.fields if f.is_primary)
        rows = collection.query(request.dsl or _everything(collection), output_fields=[key, struct.name])
        matrices = {row[key]: _matrix(row[struct.name], dim) for row in rows}
        matrices = {each: m for each, m in matrices.items() if len(m)}
        results = milvus_pb2.SearchResults(status=common_pb2.Status())
        found = results.results
        found.top_k, found.num_queries, found.primary_field_name = limit, len(values), key
        found.output_fields.append(key)
        for value in values:
            query = np.frombuffer(value, np.float32).reshape(-1, dim)
            scores = _max_sim(query, matrices, int(limit * ratio), index["metric_type"].endswith("COSINE"))
            self.searches.append(len(matrices) - len(scores))
            best = sorted(scores, key=lambda each: -scores[each])[:limit]
            found.topks.append(len(best))
            found.scores.extend(scores[each] for each in best)
            ids = found.ids.int_id if best and isinstance(best[0], int) else found.ids.str_id
            ids.data.extend(best)
        return results

    def _packed(self, request: Any) -> tuple[Any, Any]:
        """The request with structs as text, or why it is refused."""
        struct = self.structs.get(request.collection_name)
        if struct is None:
            return request, None
        packed = type(request)()
        packed.CopyFrom(request)
        del packed.fields_data[:]
        dim, most = (int(_params(struct.fields[0])[each]) for each in ("dim", "max_capacity"))
        for data in request.fields_data:
            if _is_empty_vector(data):
                continue  # all null, which milvus-lite says by leaving the field out
            if data.type != _KINDS.ArrayOfStruct:
                packed.fields_data.append(data)
                continue
            text = packed.fields_data.add(field_name=data.field_name, type=_KINDS.VarChar)
            for vectors in data.struct_arrays.fields[0].vectors.vector_array.data:
                values = np.asarray(vectors.float_vector.data, "<f4")
                if values.size % dim:
                    return None, _refused(f"the length({values.size}) of float data should divide the dim({dim})")
                if values.size // dim > most:
                    return None, _refused(f"array length {values.size // dim} exceeds max capacity {most}")
                text.scalars.string_data.data.append(base64.b64encode(values.tobytes()).decode())
        return packed, None

    def _unpacked(self, name: str, reply: Any) -> Any:
        struct = self.structs.get(name)
        fields = reply.fields_data if hasattr(reply, "fields_data") else reply.results.fields_data
        for data in fields:
            if struct is None or data.field_name != struct.name:
                continue
            texts = list(data.scalars.string_data.data)
            dim = int(_params(struct.fields[0])["dim"])
            data.Clear()
            data.field_name, data.type = struct.name, _KINDS.ArrayOfStruct
            sub = data.struct_arrays.fields.add(field_name=struct.fields[0].name, type=_KINDS.ArrayOfVector)
            sub.vectors.dim = dim
            sub.vectors.vector_array.dim = dim
            sub.vectors.vector_array.element_type = _KINDS.FloatVector
            for text in texts:
                each = sub.vectors.vector_array.data.add(dim=dim)
                each.float_vector.data.extend(np.frombuffer(base64.b64decode(text), "<f4"))
        return reply


def _max_sim(query: np.ndarray, matrices: dict[Any, np.ndarray], nearest: int, cosine: bool) -> dict[Any, float]:
    """Scores of documents that own one of the ``nearest`` tokens of a query token."""
    if not matrices:
        return {}
    if cosine:
        query = query / np.linalg.norm(query, axis=1, keepdims=True)
        norms = {key: np.linalg.norm(m, axis=1, keepdims=True) for key, m in matrices.items()}
        matrices = {key: m / np.where(norms[key] > 0, norms[key], 1) for key, m in matrices.items()}
    keys = list(matrices)
    owners = np.repeat(np.arange(len(keys)), [len(matrices[key]) for key in keys])
    products = query @ np.concatenate([matrices[key] for key in keys]).T
    near = np.argsort(-products, axis=1)[:, : max(1, nearest)]
    chosen = {keys[int(i)] for i in np.unique(owners[near])}
    return {key: float((query @ matrices[key].T).max(axis=1).sum()) for key in chosen}


def _is_empty_vector(data: Any) -> bool:
    return bool(data.type == _KINDS.FloatVector and not data.vectors.float_vector.data)


def _matrix(text: str, dim: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, dim)


def _everything(collection: Any) -> str:
    key = next(f for f in collection.schema.fields if f.is_primary)
    return f'{key.name} >= ""' if key.dtype.value == "varchar" else f"{key.name} > -9223372036854775807"


def _params(field: Any) -> dict[str, str]:
    return _pairs(field.type_params)


def _pairs(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in pairs}


def _refused(reason: str) -> Any:
    return common_pb2.Status(code=1100, error_code=1, reason=f"{reason}: invalid parameter")


@contextmanager
def serving(path: Path) -> Iterator[tuple[str, StructServicer]]:
    """The address of a stub, and the stub."""
    with MilvusLite(str(path)) as db:
        server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", _MAX_MESSAGE)])
        servicer = StructServicer(db)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}", servicer
        finally:
            server.stop(0).wait()
