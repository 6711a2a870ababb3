"""What the Milvus stores ask for, without a server."""

from __future__ import annotations

import uuid
from functools import partial
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pymilvus")

from pymilvus import DataType
from pymilvus import exceptions as m
from pymilvus.client.connection_manager import ConnectionConfig
from pymilvus.client.types import LoadState

from muvera_adapters.errors import (
    AccessDenied,
    CollectionNotFound,
    InvalidInput,
    MuveraError,
    Rejected,
    StoreUnavailable,
    Unsupported,
)
from muvera_adapters.milvus import blobs
from muvera_adapters.milvus.client import Call, Connection, address_of, send
from muvera_adapters.milvus.collection import Collection, Server
from muvera_adapters.milvus.errors import translate
from muvera_adapters.milvus.expressions import among, both, checked, literal
from muvera_adapters.milvus.lifecycle import add_fde, connect
from muvera_adapters.milvus.merging import merge
from muvera_adapters.milvus.requests import count, fetch, near_fde, near_tokens, page, to_row
from muvera_adapters.milvus.schema import Plan, check, describe, fde_index
from muvera_adapters.stores.keys import from_key, to_key
from muvera_adapters.stores.operations import Retry, run
from muvera_core import FDEConfig, FDEEncoder

ENCODER = FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4))

ids = st.one_of(st.integers(0, 2**64 - 1), st.text(max_size=60), st.uuids())


class TestIds:
    @given(ids)
    def test_every_id_comes_back(self, document_id):
        found = from_key(to_key(document_id, 0))
        assert (type(found), found) == (type(document_id), document_id)

    @given(ids, ids)
    def test_different_ids_have_different_keys(self, a, b):
        if (type(a), a) != (type(b), b):
            assert to_key(a, 0) != to_key(b, 0)

    def test_keys_of_others_stay_as_they_are(self):
        assert (to_key("#7", 0, "string"), from_key("#7", "string")) == ("#7", "#7")
        assert to_key(7, 0, "integer") == 7
        for document_id, keys in ((7, "string"), ("7.0", "integer"), (2**63, "integer"), (uuid.uuid4(), "integer")):
            with pytest.raises(InvalidInput, match="position 3"):
                to_key(document_id, 3, keys)

    @pytest.mark.parametrize(("document_id", "key"), [("7", 7), ("-7", -7), (-7, -7), (np.int64(7), 7), ("007", 7)])
    def test_integer_keys_of_others_are_spelled_as_the_client_takes_them(self, document_id, key):
        assert to_key(document_id, 0, "integer") == key

    @pytest.mark.parametrize("document_id", [True, "", "-", "1e3", "٣", "9" * 19, " 7"])
    def test_what_is_no_integer_key(self, document_id):
        with pytest.raises(InvalidInput, match="int64"):
            to_key(document_id, 0, "integer")

    def test_an_id_that_does_not_fit_is_refused(self):
        with pytest.raises(InvalidInput, match="600 bytes"):
            to_key("é" * 300, 0)


class TestExpressions:
    @given(st.text())
    def test_literals_end_where_they_end(self, text):
        written = literal(text)
        assert checked(f"a == {written}") == f"a == {written}"
        inside = written[1:-1].replace("\\\\", "").replace('\\"', "")
        assert '"' not in inside
        assert "\n" not in written

    @pytest.mark.parametrize("good", ["a > 1", "(a in [1, 2]) and b == ')'", 'a == "x\\"y("', "json['k'] == 1", " "])
    def test_whole_expressions_pass(self, good):
        assert checked(good) == good.strip()

    @pytest.mark.parametrize("bad", ["a)", "(a", "a == 'x", 'a == "x\\"', "[1)", "a) or (b", "a]"])
    def test_others_do_not(self, bad):
        with pytest.raises(InvalidInput, match="filter"):
            checked(bad)

    def test_a_users_expression_stays_in_parentheses(self):
        assert among("id", ["a", 'q"'], "x == 1 or y == 2") == '(x == 1 or y == 2) and id in ["a", "q\\""]'
        assert both("", "a") == "a"


class TestBlobs:
    @pytest.mark.parametrize("kind", ["float16", "float32"])
    @pytest.mark.parametrize("tokens", [1, 5, 3_071, 3_072, 4_096])
    def test_matrices_come_back(self, kind, tokens):
        matrix = np.random.default_rng(tokens).normal(size=(tokens, 8)).astype(kind)
        fields = blobs.fields_for(tokens, 8, kind)
        texts = blobs.pack(matrix, kind, fields + 1)
        assert texts[-1] == ""
        assert all(0 < len(text) <= 65_535 for text in texts[:-1])
        assert sum(map(len, texts)) == blobs.text_length(tokens, 8, kind)
        assert np.array_equal(blobs.unpack(texts, "x"), matrix.astype(np.float32))
        assert tokens <= blobs.capacity(fields, 8, kind)

    def test_capacity_is_what_fits(self):
        for fields in (1, 2, 5):
            full = blobs.capacity(fields, 128, "float16")
            assert blobs.fields_for(full, 128, "float16") == fields
            assert blobs.fields_for(full + 1, 128, "float16") == fields + 1

    @pytest.mark.parametrize("broken", ["###", "AAAA", "CQEIAAEAAAA="])
    def test_what_is_no_matrix_is_named(self, broken):
        with pytest.raises(MuveraError, match="document 7"):
            blobs.unpack([broken], "document 7")
        assert blobs.unpack(["", None], "document 7") is None


class _Recorder:
    """A client that keeps the arguments of a call."""

    def search(self, **arguments):
        return arguments

    query = search


def sent(call: Call) -> dict:
    """The arguments that a request gives the client."""
    return call.send(_Recorder(), 5.0)


class TestRequests:
    def test_the_second_stage_asks_for_every_candidate(self):
        collection = Collection("c", ENCODER, storage="struct", capacity=4_096, token_index={"index_type": "HNSW"})
        asked = sent(near_tokens(collection, np.eye(8, dtype=np.float16), 50, "x"))
        assert (asked["limit"], asked["timeout"]) == (50, 5.0)
        assert asked["search_params"]["params"]["retrieval_ann_ratio"] == 100.0, "more is refused by 2.6.4"
        assert asked["data"][0].to_flat_array().dtype == np.float32
        assert asked["output_fields"] == ["muvera_id"]

    @pytest.mark.parametrize(
        ("index", "params"),
        [("HNSW", {"ef": 400}), ("HNSW_SQ", {"ef": 400}), ("DISKANN", {"search_list": 200}), ("AUTOINDEX", {})],
    )
    def test_the_first_stage_looks_deep_enough(self, index, params):
        collection = Collection("c", ENCODER, index={"index_type": index})
        fde = np.ones(ENCODER.dim, np.float32)
        assert sent(near_fde(collection, fde, 200, "", (), None))["search_params"]["params"] == params
        assert sent(near_fde(collection, fde, 200, "", (), {"a": 1}))["search_params"]["params"] == {"a": 1}

    def test_only_searches_have_the_consistency_of_the_user(self):
        collection = Collection("c", ENCODER, consistency="Eventually")
        fde = np.ones(ENCODER.dim, np.float32)
        for request, level in (
            (near_fde(collection, fde, 1, "", (), None), "Eventually"),
            (fetch(collection, ["a"], ()), "Eventually"),
            (fetch(collection, ["a"], (), strong=True), "Strong"),
            (page(collection, 1, None, ()), "Strong"),
            (count(collection), "Strong"),
        ):
            assert sent(request)["consistency_level"] == level
        assert "consistency_level" not in sent(near_fde(Collection("c", ENCODER), fde, 1, "", (), None))

    @pytest.mark.parametrize(
        "plan",
        [
            Plan(max_tokens=5_000),
            Plan(options={"color": 1}),
            Plan(precision="turbo8"),
            Plan(metric="L2"),
            Plan(datatype=5),
            Plan(quantization="sq4"),
            Plan(quantization="sq8", index_type="DISKANN"),
        ],
    )
    def test_what_no_milvus_makes_is_refused(self, plan):
        with pytest.raises(InvalidInput):
            check(ENCODER, plan)

    @pytest.mark.parametrize(
        ("server", "options", "index"),
        [
            (Server(sq8=True), {}, "HNSW_SQ"),
            (Server(), {}, "HNSW"),
            (Server(known=False), {}, "AUTOINDEX"),
            (Server(sq8=True), {"quantization": None}, "HNSW"),
            (Server(known=False), {"quantization": "sq8"}, "HNSW_SQ"),
            (Server(sq8=True), {"index_type": "DISKANN"}, "DISKANN"),
        ],
    )
    def test_the_index_has_codes_where_the_server_has_them(self, server, options, index):
        assert fde_index(Plan(**options), server)["index_type"] == index


class _Resumed:
    """A client of a collection whose FDE field, of float16, was added by a run that was killed."""

    def __init__(self):
        self.properties = {}

    def describe_collection(self, **_):
        fields = [{"name": "fde", "type": DataType.FLOAT16_VECTOR}, {"name": "muvera_fde", "type": DataType.VARCHAR}]
        return {"fields": fields, "properties": self.properties}

    def list_indexes(self, **_):
        return ["fde"]

    def describe_index(self, **_):
        return {"field_name": "fde", "index_type": "HNSW", "metric_type": "IP"}

    def get_load_state(self, **_):
        return {"state": LoadState.Loaded}

    def alter_collection_properties(self, *, properties, **_):
        self.properties.update(properties)


class TestLifecycle:
    def test_a_resumed_backfill_keeps_the_datatype_of_the_field_that_is_there(self):
        collection = Collection("c", ENCODER, has_fde=False)
        operation = add_fde(collection, Plan(datatype=DataType.FLOAT_VECTOR))
        send_to = partial(send, _Resumed(), Connection("c"))
        added = run(operation, lambda call: call.read(send_to(call)), Retry(attempts=1))
        assert (added.datatype, added.marker) == (DataType.FLOAT16_VECTOR, True)
        assert collection.datatype == DataType.FLOAT_VECTOR, "what was known stays as it was"
        assert added.seen is collection.seen


class _Rpc(grpc.RpcError):
    def __init__(self, code):
        self._code = code

    def code(self):
        return self._code

    def details(self):
        return "larger than max"


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "kind", "transient"),
        [
            (m.MilvusException(100, "can't find collection"), CollectionNotFound, None),
            (m.MilvusException(1100, "invalid parameter"), Rejected, None),
            (m.MilvusException(8, "rate limit exceeded"), StoreUnavailable, True),
            (m.MilvusException(9, "disk quota exceeded"), StoreUnavailable, False),
            (m.MilvusException(101, "collection not loaded"), StoreUnavailable, False),
            (m.MilvusException(2, "Fail connecting to server on h:1"), StoreUnavailable, True),
            (m.MilvusException(grpc.StatusCode.UNAVAILABLE, "gone"), StoreUnavailable, True),
            (_Rpc(grpc.StatusCode.RESOURCE_EXHAUSTED), Rejected, None),
            (_Rpc(grpc.StatusCode.DEADLINE_EXCEEDED), StoreUnavailable, True),
            (_Rpc(grpc.StatusCode.UNIMPLEMENTED), Unsupported, None),
            (_Rpc(grpc.StatusCode.UNAUTHENTICATED), AccessDenied, None),
            (_Rpc(grpc.StatusCode.PERMISSION_DENIED), AccessDenied, None),
            (m.MilvusException(grpc.StatusCode.UNAUTHENTICATED, "auth check failure"), AccessDenied, None),
            (m.MilvusException(1401, "privilege not permitted"), AccessDenied, None),
            (m.MilvusException(65535, "auth check failure, please check username and password"), AccessDenied, None),
            (KeyError("a reply without its field"), Rejected, None),
        ],
    )
    def test_both_kinds_of_the_clients_errors_are_ours(self, error, kind, transient):
        found = translate(error, "c")
        assert type(found) is kind
        assert transient is None or found.transient is transient

    @pytest.mark.parametrize(
        "error", [_Rpc(grpc.StatusCode.UNAVAILABLE), m.MilvusException(2, "Fail connecting to server"), OSError("gone")]
    )
    def test_the_address_is_named(self, error):
        assert "http://host:19530" in str(translate(error, "c", "http://host:19530"))

    def test_a_secret_is_no_part_of_the_address(self):
        client = SimpleNamespace(_config=ConnectionConfig.from_uri("https://me:secret@host:19530/db"))
        assert address_of(client) == "https://host:19530"


class TestServers:
    """What the version tells."""

    @pytest.mark.parametrize(
        ("version", "merges", "sq8", "known"),
        [
            ("v2.3.5", False, False, True),
            ("2.6.19", False, True, True),
            ("v2.6.20-dev", True, True, True),
            ("3.0", True, True, True),
            ("milvus_lite-3.2.2", True, True, True),
            ("Zilliz Cloud Vector Database(Compatible with Milvus 2.6)", False, False, False),
        ],
    )
    def test_what_servers_can_do(self, version, merges, sq8, known):
        server = run(connect(), lambda call: call.read(version), Retry(attempts=1))
        assert (server.merges, server.sq8, server.known) == (merges, sq8, known)


class TestSchema:
    def test_what_the_server_computes_is_neither_a_vector_to_write_nor_payload(self):
        fields = [
            {"name": "pk", "type": DataType.INT64, "is_primary": True},
            {"name": "text", "type": DataType.VARCHAR},
            {"name": "bm25", "type": DataType.SPARSE_FLOAT_VECTOR, "is_function_output": True},
            {"name": "dense", "type": DataType.FLOAT_VECTOR},
            {"name": "old", "type": DataType.FLOAT_VECTOR},
            {"name": "muvera_old", "type": DataType.VARCHAR},
            {"name": "fde", "type": DataType.FLOAT_VECTOR, "params": {"dim": ENCODER.dim}, "nullable": True},
            {"name": "muvera_fde", "type": DataType.VARCHAR},
        ]
        collection = describe({"fields": fields, "enable_dynamic_field": True}, "c", ENCODER, "fde", None, Server())
        assert (collection.fields, set(collection.strangers)) == (("text",), {"dense", "old"})
        assert set(collection.hidden) == {"bm25", "muvera_old"}
        assert (collection.marker, collection.nullable) == (True, True)
        row = to_row(collection, 1, {"pk": 1, "text": "x", "muvera_old": "old", "muvera_fde": "fde", "n": 1})
        assert row.payload == {"text": "x", "n": 1}


class TestMerges:
    """Rows of one partial update name the same declared fields; keys of the dynamic field may differ."""

    def test_rows_are_sent_by_the_fields_that_they_name(self):
        collection = Collection("c", ENCODER, fields=("year",), strangers=("dense",), server=Server(merges=True))
        sizes = []

        class Client:
            def upsert(self, *, data, partial_update, **_):
                assert partial_update
                sizes.append([sorted(row) for row in data])

        rows = [{"muvera_id": "a", "year": 1}, {"muvera_id": "b", "k": 1}, {"muvera_id": "c", "year": 2, "x": 0}]
        send_to = partial(send, Client(), Connection("c"))
        run(merge(collection, rows), lambda call: call.read(send_to(call)), Retry(attempts=1))
        assert sizes == [[["muvera_id", "year"], ["muvera_id", "x", "year"]], [["k", "muvera_id"]]]
