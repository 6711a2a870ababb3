"""Requests that a Qdrant client would send, checked without a server."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("qdrant_client", reason="install the extra: pip install 'muvera-adapters[qdrant]'")

from qdrant_client import QdrantClient, models
from qdrant_client.conversions.conversion import RestToGrpc

from muvera_adapters.errors import InvalidInput, MuveraError, Rejected, Unsupported
from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.qdrant import collection as c
from muvera_adapters.qdrant import requests as r
from muvera_adapters.qdrant.client import Connection, send, wire_of
from muvera_adapters.qdrant.collection import Collection, Seen
from muvera_adapters.qdrant.prepare import intake, to_points
from muvera_adapters.qdrant.schema import check_version, plan, vector_infos
from muvera_adapters.qdrant.searching import Options, search
from muvera_adapters.stores.checks import prepare
from muvera_adapters.stores.collection import Counted
from muvera_adapters.stores.operations import Compute, seconds
from muvera_adapters.stores.writing import slices
from muvera_core import FDEConfig, FDEEncoder

ENCODER = FDEEncoder(FDEConfig(dim=128, r_reps=20, k_sim=5, d_proj=16))  # 10,240 dimensions
SMALL = FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4))
REST = Connection("passages", "Qdrant 1.19", (1, 19), c.REST, 60)
GRPC = Connection("passages", "Qdrant 1.19", (1, 19), c.GRPC, None)


def planned(encoder=ENCODER, version=(1, 19), **options):
    defaults = {
        "quantization": "auto",
        "store_tokens": True,
        "datatype": models.Datatype.FLOAT16,
        "on_disk": None,
        "hnsw_config": None,
        "tokens": "float16",
        "tokens_quantization": None,
        "tokens_on_disk": True,
        "optimizers_config": None,
        "model": None,
    }
    return plan(encoder, version, **{**defaults, **options})


class Recorded(Exception):
    """Raised in place of a call of the client."""

    def __init__(self, method, arguments):
        self.method, self.arguments = method, arguments


class Recorder:
    """A client that sends nothing."""

    def __getattr__(self, method):
        def call(**arguments):
            raise Recorded(method, arguments)

        return call


def call_of(request, connection) -> Recorded:
    with pytest.raises(MuveraError) as caught:
        send(Recorder(), connection, request)
    assert isinstance(caught.value.__cause__, Recorded)
    return caught.value.__cause__


def first_request(operation):
    """The first request that goes to a database; computations before it are done."""
    request = operation.send(None)
    while isinstance(request, Compute):
        request = operation.send(request.call())
    return request


def counted():
    """What is known of a collection whose documents all have tokens and FDEs."""
    return Seen(lacking=Counted(0, seconds()), without_fde=Counted(0, seconds()))


class TestSchema:
    def test_tokens_never_get_a_graph(self):
        tokens = planned().vectors["tokens"]
        assert (tokens.hnsw_config.m, tokens.hnsw_config.payload_m) == (0, 0)
        assert tokens.multivector_config.comparator == models.MultiVectorComparator.MAX_SIM
        assert tokens.datatype == models.Datatype.FLOAT16

    @pytest.mark.parametrize("codes", ["foo", 5, ["int8"], {}, True])
    def test_what_is_no_quantization_is_refused(self, codes):
        with pytest.raises(InvalidInput, match="quantization must be one of auto"):
            planned(quantization=codes)

    @pytest.mark.parametrize("preset", ["int8", "turbo4", "turbo2", "binary", "product"])
    def test_quantization_is_set_on_the_fde_vector_alone(self, preset):
        made = planned(quantization=preset)
        assert made.vectors["fde"].quantization_config is not None
        assert made.vectors["tokens"].quantization_config is None
        assert "quantization_config" not in made.arguments

    @pytest.mark.parametrize(
        ("encoder", "version", "codes"),
        [
            (ENCODER, (1, 18), models.TurboQuantization),
            (ENCODER, (1, 17), models.ScalarQuantization),
            (SMALL, (1, 18), models.ScalarQuantization),
        ],
    )
    def test_codes_are_chosen_by_dimensions_and_the_servers_version(self, encoder, version, codes):
        made = planned(encoder, version)
        assert isinstance(made.vectors["fde"].quantization_config, codes)
        check_version(version, made.vectors)

    def test_no_quantization_keeps_fdes_in_memory(self):
        assert planned(quantization=None).vectors["fde"].on_disk is False
        assert planned().vectors["fde"].on_disk is True

    def test_qdrants_own_objects_pass_through(self):
        codes = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
        graph = models.HnswConfigDiff(m=0, payload_m=16)
        made = planned(quantization=codes, hnsw_config=graph, shard_number=3, replication_factor=None)
        assert made.vectors["fde"].quantization_config is codes
        assert made.vectors["fde"].hnsw_config is graph
        assert made.arguments["shard_number"] == 3
        assert "replication_factor" not in made.arguments

    def test_unknown_presets_are_named(self):
        with pytest.raises(InvalidInput, match="int8, turbo4"):
            planned(quantization="int4")

    @pytest.mark.parametrize(("encoder", "kilobytes"), [(ENCODER, 40_000), (SMALL, 10_000)])
    def test_segments_are_indexed_by_the_size_of_fdes(self, encoder, kilobytes):
        assert planned(encoder).arguments["optimizers_config"].indexing_threshold == kilobytes

    def test_everything_of_ours_is_under_one_key_of_the_metadata(self):
        metadata = planned().arguments["metadata"]
        assert list(metadata) == ["muvera"]
        assert metadata["muvera"]["encoder"]["fingerprint"] == ENCODER.fingerprint

    def test_features_are_gated_by_the_servers_version(self):
        with pytest.raises(Unsupported, match="metadata"):
            check_version((1, 15), planned(version=(1, 15)).vectors)
        check_version((1, 16), planned(version=(1, 16)).vectors)
        with pytest.raises(Unsupported, match="TurboQuant"):
            check_version((1, 17), planned(quantization="turbo4").vectors)
        check_version((1, 18), planned(quantization="turbo4").vectors)
        for preset, before, since in (("turbo4", (1, 18), (1, 19)), ("turbo8", (1, 19), (1, 20))):
            with pytest.raises(
                Unsupported, match=f"1.{before[1]} cannot store the vector 'tokens' as {preset}; 1.{since[1]}"
            ):
                check_version(before, planned(tokens=preset).vectors)
            check_version(since, planned(tokens=preset).vectors)

    def test_quantization_of_the_collection_is_seen_as_inherited(self):
        client = QdrantClient(":memory:")
        client.create_collection("c", {"v": models.VectorParams(size=4, distance=models.Distance.DOT)})
        info = client.get_collection("c")
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        info.config.quantization_config = models.ScalarQuantization(scalar=scalar)
        assert vector_infos(info)["v"].quantization == "scalar"
        assert vector_infos(info)["v"].code_bits == 8
        client.close()


class TestBatches:
    @given(st.lists(st.integers(1, 50)), st.integers(1, 100))
    def test_slices_cover_everything_once_within_the_target(self, sizes, target):
        ranges = list(slices(sizes, target))
        assert [k for i, j in ranges for k in range(i, j)] == list(range(len(sizes)))
        assert all(sum(sizes[i:j]) <= target or j == i + 1 for i, j in ranges)

    @given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 100))
    def test_no_two_neighbours_would_fit_together(self, sizes, target):
        ranges = list(slices(sizes, target))
        for (i, _), (_, k) in itertools.pairwise(ranges):
            assert sum(sizes[i:k]) > target

    def test_sizes_bound_what_rest_really_sends(self):
        collection = Collection("c", ENCODER, wire=c.REST)
        generator = np.random.default_rng(0)
        tokens = generator.normal(size=(300, 128)).astype(np.float32)
        documents = prepare(collection, [1], [tokens], [{"text": "x" * 5_000}], intake(collection))
        points = to_points(collection, documents, 0, 1, ENCODER.encode_documents([tokens]))
        sent = len(call_of(r.Upsert("c", points), REST).arguments["points"][0].model_dump_json())
        assert 0.8 * documents.sizes[0] < sent <= documents.sizes[0]

    def test_sizes_bound_what_grpc_really_sends(self):
        collection = Collection("c", ENCODER, wire=c.GRPC)
        tokens = np.random.default_rng(0).normal(size=(300, 128)).astype(np.float32)
        documents = prepare(collection, [1], [tokens], None, intake(collection))
        points = to_points(collection, documents, 0, 1, ENCODER.encode_documents([tokens]))
        sent = call_of(r.Upsert("c", points), GRPC).arguments["points"][0].ByteSize()
        assert 0.9 * documents.sizes[0] < sent <= documents.sizes[0]

    def test_a_document_over_the_rest_limit_is_refused_with_the_ways_out(self):
        collection = Collection("c", FDEEncoder(FDEConfig(dim=1024, r_reps=10, k_sim=6, d_proj=64)), wire=c.REST)
        tokens = np.ones((1_020, 1024), np.float32)
        with pytest.raises(InvalidInput, match=r"document 0 .*28 MB.*prefer_grpc"):
            prepare(collection, [1], [tokens], [{"text": "x" * 10_000_000}], intake(collection))
        larger = replace(collection, wire=c.GRPC)
        prepare(larger, [1], [tokens], [{"text": "x" * 10_000_000}], intake(larger))

    @pytest.mark.parametrize("half", [False, True])
    def test_grpc_messages_are_those_of_the_client(self, half):
        generator = np.random.default_rng(1)
        tokens = generator.normal(size=(7, 8)).astype(np.float16 if half else np.float32)
        fde = generator.normal(size=300).astype(np.float32)  # a length whose varint has two bytes
        payload = {"a": [1, "x", None, {"b": 2.5}]}
        (ours,) = call_of(r.Upsert("c", [r.Point(3, {"fde": fde, "tokens": tokens}, payload)]), GRPC).arguments[
            "points"
        ]
        theirs = RestToGrpc.convert_point_struct(
            models.PointStruct(id=3, vector={"fde": fde.tolist(), "tokens": tokens.tolist()}, payload=payload)
        )
        assert ours == theirs


class TestSearchRequests:
    def collection(self):
        return Collection("passages", SMALL, seen=counted(), wire=c.REST)

    def find(self, **options):
        query = np.ones((2, 8), np.float32)
        return first_request(search(self.collection(), [query], Options(**options)))

    def test_two_stages_are_one_request(self):
        find = self.find(limit=10, prefetch=200)
        call = call_of(find, REST)
        assert call.method == "query_points"
        assert (call.arguments["using"], call.arguments["limit"]) == ("tokens", 10)
        first = call.arguments["prefetch"]
        assert (first.using, first.limit) == ("fde", 200)
        assert first.params.hnsw_ef == 400
        assert first.params.quantization.rescore is False
        assert (call.arguments["collection_name"], call.arguments["timeout"]) == ("passages", 60)

    def test_the_prefetch_covers_what_the_offset_skips(self):
        assert self.find(limit=10, prefetch=20, offset=50).prefetches[0].limit == 60

    def test_the_beam_is_never_narrow(self):
        assert self.find(limit=5, prefetch=10).prefetches[0].params.hnsw_ef == 128

    def test_the_filter_is_at_the_root_which_applies_it_everywhere(self):
        chosen = models.Filter(must=[models.FieldCondition(key="a", match=models.MatchValue(value=1))])
        call = call_of(self.find(filter=chosen), REST)
        assert call.arguments["query_filter"] is chosen
        assert call.arguments["prefetch"].filter is None

    def test_a_query_of_one_token_stays_a_matrix(self):
        find = first_request(search(self.collection(), [np.ones((1, 8))], Options()))
        assert np.shape(call_of(find, REST).arguments["query"]) == (1, 8)

    def test_tokens_with_codes_or_a_graph_are_scored_without_them(self):
        collection = replace(self.collection(), tokens_indexed=True)
        find = first_request(search(collection, [np.ones((2, 8))], Options()))
        params = call_of(find, REST).arguments["search_params"]
        assert (params.exact, params.quantization.ignore) == (True, True)

    def test_batches_of_queries_are_split_by_bytes(self):
        collection = Collection("passages", ENCODER, seen=counted(), wire=c.REST)
        queries = [np.ones((32, 128), np.float32)] * 60
        operation = search(collection, queries, Options())
        request, sizes = first_request(operation), []
        while True:
            sizes.append(len(request.finds))
            body = call_of(request, REST).arguments["requests"]
            assert sum(len(query.model_dump_json()) for query in body) < 8 << 20
            try:
                request = operation.send([[] for _ in request.finds])
            except StopIteration:
                break
        assert sum(sizes) == 60
        assert len(sizes) > 1

    def test_shard_keys_reach_every_request(self):
        call = call_of(self.find(shard_key="eu"), REST)
        assert call.arguments["shard_key_selector"] == "eu"

    def test_points_with_and_without_vectors_are_told_by_filters(self):
        own = models.Filter(must=[models.HasIdCondition(has_id=[1])])
        made = call_of(r.Count("c", r.Where(own, has=("fde",), lacks=("tokens",))), REST).arguments["count_filter"]
        assert made.must == [models.HasVectorCondition(has_vector="fde"), own]
        assert made.must_not == [models.HasVectorCondition(has_vector="tokens")]


def test_the_transport_is_read_from_the_clients_options(tmp_path):
    memory, disk = QdrantClient(":memory:"), QdrantClient(path=str(tmp_path))
    assert wire_of(memory) is c.LOCAL
    assert wire_of(disk) is c.LOCAL
    memory.close()
    disk.close()
    for grpc, wire in ((False, c.REST), (True, c.GRPC)):
        client = QdrantClient("http://127.0.0.1:1", check_compatibility=False, prefer_grpc=grpc)
        assert wire_of(client) is wire
        client.close()


@pytest.mark.parametrize("change", [r.PutPoints, r.InsertPoints, r.PutVectors])
def test_changes_over_grpc_are_what_the_client_would_send(change):
    sent = []
    client = SimpleNamespace(
        grpc_points=SimpleNamespace(UpdateBatch=lambda message, timeout: sent.append(message)),
        init_options={},
        batch_update_points=lambda update_operations, **_: sent.append(update_operations),
    )
    update = r.Update("c", [change([r.Point(3, {"fde": np.arange(4, dtype=np.float32)})])])
    for connection in (GRPC, REST):
        send(client, connection, update)
    ours, theirs = sent[0].operations[0], RestToGrpc.convert_update_operation(sent[1][0])
    for message in (ours, theirs):
        for points in (message.upsert.points, message.update_vectors.points):
            for point in points:
                point.ClearField("vectors")  # numbers, or bytes that mean them
    assert ours == theirs


def test_every_request_goes_to_the_collection_that_it_names():
    one = np.ones(4, np.float32)
    requests = [
        r.Find("other", one, "fde", 1),
        r.FindMany("other", [r.Find("other", one, "fde", 1)]),
        r.Sample("other", r.Where(), 1, ()),
        r.Page("other", r.Where(), 1),
        r.Fetch("other", [1]),
        r.Count("other", r.Where()),
        r.Upsert("other", []),
        r.Update("other", [r.PutVectors([])]),
        r.Delete("other", [1]),
        r.Optimize("other"),
        r.GetStatus("other", "fde"),
    ]
    assert {call_of(request, REST).arguments["collection_name"] for request in requests} == {"other"}


def test_sizes_are_those_of_the_vector_that_has_the_fdes():
    client = QdrantClient(":memory:")
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vectors = {
        "colbert": models.VectorParams(size=8, distance=models.Distance.DOT, multivector_config=comparator),
        "mine": models.VectorParams(size=SMALL.dim, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16),
    }
    client.create_collection("pages", vectors)
    client.upsert("pages", [models.PointStruct(id=1, vector={"colbert": [[1.0] * 8]})])
    adopted = QdrantMuvera.adopt(client, "pages", SMALL, fde_vector="mine")
    adopted.backfill()
    for store in (adopted, QdrantMuvera.open(client, "pages")):
        assert store.info().fde_bytes == 2 * SMALL.dim
    client.close()


def test_what_the_client_cannot_take_is_an_error_of_this_library():
    client = QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "passages", SMALL)
    with pytest.raises(Rejected):
        store.search_batch([np.ones((2, 8))] * 2, filter="year = 1980")
    client.close()


def test_tenants_get_a_tenant_index(monkeypatch):
    client = QdrantClient(":memory:")
    seen = []
    monkeypatch.setattr(client, "create_payload_index", lambda **arguments: seen.append(arguments))  # local mode warns
    QdrantMuvera.create(client, "tenants", SMALL, tenant_field="customer")
    assert (seen[0]["field_name"], seen[0]["field_schema"].is_tenant) == ("customer", True)
    client.close()


@pytest.mark.parametrize(
    ("missing", "works", "fails", "extra"),
    [
        ("qdrant_client", "QdrantEdgeMuvera", "QdrantMuvera", "qdrant"),
        ("qdrant_client", "QdrantEdgeMuvera", "AsyncQdrantMuvera", "qdrant"),
        ("qdrant_edge", "QdrantMuvera", "QdrantEdgeMuvera", "edge"),
    ],
)
def test_one_extra_is_enough(missing, works, fails, extra):
    program = f"""
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(name, name=name.split(".")[0])
sys.meta_path.insert(0, Block())
import muvera_adapters.qdrant as q
from muvera_adapters.errors import MissingExtra
assert q.{works}
try:
    q.{fails}
except MissingExtra as error:
    assert "muvera-adapters[{extra}]" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
