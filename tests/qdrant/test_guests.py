"""Collections of others: what a write touches, vectors without a name, copies, forks, directories, wrong clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="install the extra: pip install 'muvera-adapters[qdrant]'")
pytest.importorskip("qdrant_edge", reason="install the extra: pip install 'muvera-adapters[edge]'")

import qdrant_edge as edge
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from muvera_adapters.errors import (
    AccessDenied,
    InvalidInput,
    MissingFDEs,
    MuveraError,
    Rejected,
    StoreUnavailable,
    Unsupported,
)
from muvera_adapters.qdrant import AsyncQdrantMuvera, QdrantEdgeMuvera, QdrantMuvera, Retry
from muvera_adapters.qdrant import requests as r
from muvera_adapters.qdrant.client import Connection, send
from muvera_adapters.qdrant.collection import LOCAL, REST, Collection, Wire
from muvera_adapters.qdrant.copying import copy
from muvera_adapters.qdrant.edge.files import read_vectors
from muvera_adapters.qdrant.errors import translate
from muvera_adapters.qdrant.lifecycle import add_fde, open_collection, remove_fde
from muvera_adapters.qdrant.schema import fde_params
from muvera_adapters.qdrant.writing import upsert
from muvera_adapters.stores.operations import asked, run
from muvera_core import FDEConfig, FDEEncoder

DIM = 16
ENCODER = FDEEncoder(FDEConfig(DIM, r_reps=4, k_sim=3, d_proj=8))
TOKENS = list(np.random.default_rng(5).normal(size=(60, 6, DIM)).astype(np.float16).astype(np.float32))
MULTI = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
ONCE = Retry(attempts=1)


def local_hybrid() -> Any:
    """A collection of another program with dense, sparse and pooled vectors beside the tokens."""
    client = QdrantClient(":memory:")
    client.create_collection(
        "hybrid",
        vectors_config={
            "dense": models.VectorParams(size=4, distance=models.Distance.DOT),
            "pooled": models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=MULTI),
            "colbert": models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=MULTI),
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams()},
    )
    points = [
        models.PointStruct(
            id=i,
            vector={
                "dense": [float(i), 1.0, 2.0, 3.0],
                "pooled": TOKENS[i][:2].tolist(),
                "colbert": TOKENS[i].tolist(),
                "bm25": models.SparseVector(indices=[1, 5], values=[0.5, float(i + 1)]),
            },
            payload={"n": i, "text": f"text {i}"},
        )
        for i in range(20)
    ]
    client.upsert("hybrid", points)

    def read(number: int) -> Any:
        (record,) = client.retrieve("hybrid", [number], with_vectors=True)
        return record.payload, record.vector

    store = QdrantMuvera.adopt(client, "hybrid", ENCODER)
    sparse: Callable[..., Any] = lambda indices, values: models.SparseVector(indices=indices, values=values)  # noqa: E731
    return SimpleNamespace(store=store, read=read, sparse=sparse)


def edge_hybrid(directory: Path, *, indexed: bool) -> Any:
    """The same in a shard, whose points lie in an indexed segment or in one that is not."""
    (directory / "hybrid").mkdir()

    def multi() -> Any:
        return edge.EdgeVectorParams(
            DIM,
            edge.Distance.Dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            hnsw_config=edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000),
        )

    vectors = {"dense": edge.EdgeVectorParams(4, edge.Distance.Dot), "pooled": multi(), "colbert": multi()}
    config = edge.EdgeConfig(
        vectors=vectors,
        sparse_vectors={"bm25": edge.EdgeSparseVectorParams()},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
    )
    shard = edge.EdgeShard.create(str(directory / "hybrid"), config)
    points: list[Any] = [
        edge.Point(
            i,
            {
                "dense": [float(i), 1.0, 2.0, 3.0],
                "pooled": TOKENS[i][:2],
                "colbert": TOKENS[i],
                "bm25": edge.SparseVector([1, 5], [0.5, float(i + 1)]),
            },
            {"n": i, "text": f"text {i}"},
        )
        for i in range(20)
    ]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.close()
    store = QdrantEdgeMuvera.adopt(directory, "hybrid", ENCODER)
    if indexed:
        store.backfill()
        store.wait_indexed()

    def read(number: int) -> Any:
        (record,) = store._shard._shard.retrieve([number], True, True)
        return record.payload, record.vector

    return SimpleNamespace(store=store, read=read, sparse=edge.SparseVector)


@pytest.fixture(params=["local", "edge", "edge-indexed"])
def hybrid(request, tmp_path):
    made = local_hybrid() if request.param == "local" else edge_hybrid(tmp_path, indexed=request.param != "edge")
    made.store.backfill()
    yield made
    made.store.close()


def test_a_merged_document_keeps_every_vector_that_is_not_named(hybrid):
    before = hybrid.read(3)[1]
    report = hybrid.store.upsert([3, 50], [TOKENS[40], TOKENS[41]], [{"text": "new"}, {"n": 50}])
    assert (report.written, report.failed) == (2, {})
    payload, vectors = hybrid.read(3)
    assert payload == {"n": 3, "text": "new"}
    assert vectors.keys() == before.keys()
    for name in ("dense", "pooled", "bm25"):
        assert str(vectors[name]) == str(before[name])
    assert np.allclose(vectors["colbert"], TOKENS[40])
    assert np.allclose(vectors["fde"], ENCODER.encode_document(TOKENS[40]), atol=1e-3)
    assert hybrid.read(50)[1].keys() == {"colbert", "fde"}


def test_other_vectors_are_written_along(hybrid):
    vectors = {
        "dense": [[9.0, 9.0, 9.0, 9.0], np.full(4, 8.0, np.float32), None],
        "bm25": [hybrid.sparse([7], [2.0]), None, hybrid.sparse([9], [3.0])],
        "pooled": [None, TOKENS[45][:3], TOKENS[46][:1].tolist()],
    }
    report = hybrid.store.upsert([3, 4, 50], TOKENS[40:43], vectors=vectors)
    assert (report.written, report.failed) == (3, {})
    third, fourth, new = (hybrid.read(i)[1] for i in (3, 4, 50))
    assert np.allclose(third["dense"], 9)
    assert list(third["bm25"].indices) == [7]
    assert np.allclose(third["pooled"], TOKENS[3][:2])
    assert np.allclose(fourth["dense"], 8)
    assert list(fourth["bm25"].indices) == [1, 5]
    assert np.allclose(fourth["pooled"], TOKENS[45][:3])
    assert new.keys() == {"bm25", "pooled", "colbert", "fde"}


def test_a_replaced_document_keeps_nothing(hybrid):
    assert hybrid.store.upsert([3, 4], TOKENS[40:42], [None, {"a": 1}], replace=True).failed == {}
    assert hybrid.read(3)[0] in ({}, None)
    assert hybrid.read(4)[0] == {"a": 1}
    for i in (3, 4):
        assert hybrid.read(i)[1].keys() == {"colbert", "fde"}
    vectors = {"dense": [[1.0, 1.0, 1.0, 1.0]]}
    assert hybrid.store.upsert([5], TOKENS[42:43], vectors=vectors, replace=True).failed == {}
    assert hybrid.read(5)[1].keys() == {"dense", "colbert", "fde"}


def test_a_vector_of_the_wrong_length_fails_alone(hybrid):
    vectors = {"dense": [[1.0, 2.0, 3.0, 4.0], [1.0], [5.0, 6.0, 7.0, 8.0]]}
    report = hybrid.store.upsert([3, 4, 5], TOKENS[40:43], vectors=vectors)
    assert list(report.failed) == [4]
    assert report.written == 2
    assert np.allclose(hybrid.read(5)[1]["dense"], [5, 6, 7, 8])


class Points:
    """What a collection has, for operations without a database: ids alone."""

    def __init__(self, there=()):
        self.there = set(there)
        self.sent: list[Any] = []

    def send(self, request):
        self.sent.append(request)
        match request:
            case r.Page():
                return [r.Row(each, {}, {}) for each in sorted(self.there)][: request.limit], None
            case r.Fetch():
                return [r.Row(each, {}, {}) for each in request.ids if each in self.there]
            case r.Upsert():
                self.there.update(point.id for point in request.points)
            case r.Update():
                for change in request.changes:
                    if isinstance(change, r.PutPoints | r.InsertPoints):
                        self.there.update(point.id for point in change.points)
                    else:
                        ids = [p.id for p in change.points] if isinstance(change, r.PutVectors) else change.ids
                        if not self.there.issuperset(ids):
                            raise Rejected("no point with id")
        return None

    def kinds(self):
        return [type(request).__name__ for request in self.sent]


def write(points, ids, **options):
    collection = Collection("c", ENCODER, wire=Wire(4.0, 8_000))
    return run(upsert(collection, ids, TOKENS[: len(ids)], None, False, **options), points.send, ONCE)


def test_a_fresh_load_reads_nothing_but_that_the_collection_is_empty():
    points = Points()
    assert write(points, range(40)).written == 40
    kinds = points.kinds()
    assert kinds.count("Upsert") > 3
    assert kinds == ["Page", *["Upsert"] * kinds.count("Upsert"), "Settle", "Flush"]


def test_a_load_into_a_collection_reads_ids_once_a_batch():
    points = Points(range(10))
    assert write(points, range(40)).written == 40
    kinds = points.kinds()
    writes = kinds.count("Upsert") + kinds.count("Update")
    assert writes > 3
    assert kinds.count("Fetch") == writes
    assert not any(request.payload or request.vectors for request in points.sent if isinstance(request, r.Fetch))
    assert (kinds.count("Page"), kinds.count("GetStatus")) == (1, 0)


def test_a_document_that_is_deleted_between_reading_and_writing_is_written_whole():
    points = Points([1, 2])
    once = []

    def send(request):
        if isinstance(request, r.Update) and not once:
            once.append(points.there.discard(1))
        return points.send(request)

    collection = Collection("c", ENCODER, wire=LOCAL)
    report = run(upsert(collection, [1, 2], TOKENS[:2], None, False), send, ONCE)
    assert (report.written, report.failed) == (2, {})
    last = [request for request in points.sent if isinstance(request, r.Update)][-1]
    new, old = last.changes
    assert ([p.id for p in new.points], [p.id for p in old.points]) == ([1], [2])


def test_a_replica_that_lacks_a_document_gets_it_whole():
    lacking = Points([1, 3])  # a write failed after another replica, which answers the reads, had it

    def send(request):
        if isinstance(request, r.Fetch):
            return [r.Row(each, {}, {}) for each in request.ids]
        return lacking.send(request)

    # the fake rejects changes of vectors that it lacks, where a server leaves them out
    collection = Collection("c", ENCODER, wire=LOCAL, uneven=True)
    assert run(upsert(collection, [1, 2, 3], TOKENS[:3], None, False), send, ONCE).written == 3
    assert lacking.there == {1, 2, 3}
    (update,) = [request for request in lacking.sent if isinstance(request, r.Update)]
    assert [type(change) for change in update.changes] == [r.InsertPoints, r.PutVectors]


@pytest.mark.parametrize(("factor", "version", "uneven"), [(2, 17, True), (2, 16, False), (1, 19, False)])
def test_replicas_may_differ_where_several_acknowledge_a_write(factor, version, uneven):
    client = QdrantClient(":memory:")
    QdrantMuvera.create(client, "pages", ENCODER)
    info = client.get_collection("pages")
    info.config.params.write_consistency_factor = factor
    answers = SimpleNamespace(get_collection=lambda **_: info)
    connection = Connection("pages", "Qdrant", (1, version), REST, None)
    opened = run(open_collection(connection, None, None), partial(send, answers, connection), ONCE)
    assert opened.uneven is uneven


def test_inserted_points_leave_others_alone(hybrid):
    new = r.Point(50, {"colbert": TOKENS[50]}, {"n": 50})
    update = r.Update("hybrid", [r.InsertPoints([r.Point(7, {"colbert": TOKENS[40]}), new])])
    hybrid.store._do("upsert", asked(update))
    assert np.allclose(hybrid.read(7)[1]["colbert"], TOKENS[7])
    assert np.allclose(hybrid.read(50)[1]["colbert"], TOKENS[50])


def unnamed(distance=models.Distance.COSINE):
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=DIM, distance=distance, multivector_config=MULTI)
    client.create_collection("pages", vectors_config=params)
    client.upsert("pages", [models.PointStruct(id=i, vector=TOKENS[i].tolist(), payload={"n": i}) for i in range(20)])
    return client


def test_a_multivector_without_a_name_is_adopted_in_place():
    client = unnamed()
    store = QdrantMuvera.adopt(client, "pages", ENCODER, tokens_vector="")
    assert store.backfill().written == 20
    for rerank in ("auto", "client", "none"):
        assert [hit.id for hit in store.search(TOKENS[7], 1, 20, rerank=rerank)] == [7]
    assert store.exact_search(TOKENS[7], 1)[0].id == 7
    assert store.upsert([3], TOKENS[30:31]).written == 1
    opened = QdrantMuvera.open(client, "pages")
    assert opened.search(TOKENS[30], 1, 20)[0].id == 3
    assert opened.get([3])[0].payload == {"n": 3}
    assert opened.verify().passed


def test_a_multivector_without_a_name_gets_one_in_a_copy():
    client = unnamed()
    store = QdrantMuvera.adopt(client, "pages", ENCODER, tokens_vector="")
    report = store.backfill(into="copied")
    assert (report.copied, report.written) == (20, 20)
    assert set(client.get_collection("copied").config.params.vectors) == {"tokens", "fde"}
    copied = QdrantMuvera.open(client, "copied")
    assert copied.search(TOKENS[7], 1, 20)[0].id == 7
    # what is done is found to be done
    client.update_collection("copied", metadata={"muvera": {**_state(client, "copied"), "copy_of": "pages"}})
    assert store.backfill(into="copied").copied == 0


def _state(client, name):
    return client.get_collection(name).config.metadata["muvera"]


def test_a_shard_with_a_multivector_without_a_name_is_adopted(tmp_path):
    (tmp_path / "pages").mkdir()
    params = edge.EdgeVectorParams(
        DIM,
        edge.Distance.Cosine,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
    )
    shard = edge.EdgeShard.create(str(tmp_path / "pages"), edge.EdgeConfig(vectors=params))
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(i, TOKENS[i], {"n": i}) for i in range(20)]))
    shard.close()
    with QdrantEdgeMuvera.adopt(tmp_path, "pages", ENCODER, tokens_vector="") as store:
        assert store.backfill().written == 20
        assert store.upsert([3], TOKENS[30:31]).written == 1
        store.wait_indexed()
    with QdrantEdgeMuvera.open(tmp_path, "pages") as store:
        assert store.search(TOKENS[30], 1, 20)[0].id == 3
        assert store.search(TOKENS[7], 1, 20)[0].id == 7
        assert store.verify().passed


def test_a_collection_with_fdes_is_copied(tmp_path):
    made = local_hybrid()
    made.store.backfill()
    made.store.upsert(["text"], TOKENS[40:41], [{"n": "x"}])
    report = made.store.backfill(into="copied")
    assert (report.copied, report.written) == (21, 21)
    copied = QdrantMuvera.open(made.store.client, "copied")
    assert copied.get(["text"])[0].payload == {"n": "x"}
    assert copied.search(TOKENS[40], 1, 20)[0].id == "text"
    assert copied.verify().passed


def test_a_copy_that_changed_loses_what_the_record_has_lost():
    made = local_hybrid()
    client = made.store.client
    made.store.backfill(into="copied")
    client.update_collection("copied", metadata={"muvera": {**_state(client, "copied"), "copy_of": "hybrid"}})
    client.delete_vectors("hybrid", vectors=["dense"], points=[3])
    client.clear_payload("hybrid", points_selector=[4])
    assert made.store.backfill(into="copied").copied == 2
    records = {record.id: record for record in client.retrieve("copied", [3, 4], with_vectors=True)}
    assert "dense" not in records[3].vector
    assert records[4].payload in ({}, None)


def served(info):
    """Answers of a server that describes a collection and refuses everything else with the error given."""

    def send(request):
        class Client:
            def get_collection(self, **_):
                return info

            def collection_exists(self, **_):
                return False

            def __getattr__(self, name):
                def refuse(**arguments):
                    raise Rejected(f"{name} refused")

                return refuse

        return request.read(request.send(Client()))

    return send


def described(client, name, **params):
    info = client.get_collection(name)
    return info.model_copy(
        update={"config": info.config.model_copy(update={"params": info.config.params.model_copy(update=params)})}
    )


PARAMS = fde_params(ENCODER, "int8", models.Datatype.FLOAT16, None, None, (1, 20))
SERVER = Connection("pages", "Qdrant 1.18.3", (1, 18), REST, 60)


def test_a_collection_with_custom_shards_is_not_copied_into_one_without():
    info = described(unnamed(), "pages", sharding_method=models.ShardingMethod.CUSTOM)
    collection = Collection("pages", ENCODER, tokens="", has_fde=False)
    with pytest.raises(Unsupported, match="sharded by custom keys"):
        run(copy(SERVER, collection, "copied", None, PARAMS, False), served(info), ONCE)


def test_a_vector_that_is_there_keeps_its_codes():
    def server(codes):
        fde = models.VectorParams(size=ENCODER.dim, distance=models.Distance.DOT, quantization_config=codes)
        return served(described(unnamed(), "pages", vectors={"fde": fde}))

    operation = partial(add_fde, SERVER, Collection("pages", ENCODER, has_fde=False, kept=False), PARAMS)
    binary = models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
    assert run(operation(), server(binary), ONCE).rescore
    # it may be that of a run which was killed before it gave the vector its codes
    with pytest.raises(Rejected, match="update_collection"):
        run(operation(), server(None), ONCE)


@pytest.mark.parametrize("kept", [True, False])
def test_a_vector_of_a_shard_keeps_its_codes(tmp_path, kept):
    (tmp_path / "pages").mkdir()
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    codes = edge.BinaryQuantizationConfig() if kept else None
    vectors = {
        "colbert": edge.EdgeVectorParams(DIM, edge.Distance.Dot, multivector_config=multi),
        "fde": edge.EdgeVectorParams(ENCODER.dim, edge.Distance.Dot, quantization_config=codes),
    }
    shard = edge.EdgeShard.create(str(tmp_path / "pages"), edge.EdgeConfig(vectors=vectors))
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(1, {"colbert": TOKENS[0]}, {})]))
    shard.close()
    with QdrantEdgeMuvera.adopt(tmp_path, "pages", ENCODER) as store:
        assert store.backfill().written == 1
    assert read_vectors(tmp_path / "pages")["fde"].quantization == ("binary" if kept else "scalar")


def test_a_server_that_takes_no_name_beside_none_is_told_with_the_way_out():
    info = described(unnamed(), "pages")
    collection = Collection("pages", ENCODER, tokens="", has_fde=False)
    with pytest.raises(Unsupported, match="into='NEW_NAME'"):
        run(add_fde(SERVER, collection, PARAMS), served(info), ONCE)


def test_an_old_server_loses_the_values_and_keeps_the_empty_vector():
    made = local_hybrid()
    made.store.backfill()
    client = made.store.client
    old = replace(SERVER, name="hybrid", engine="Qdrant 1.17.1", version=(1, 17))

    def send(request):
        return request.read(request.send(client))

    with pytest.raises(Unsupported, match="'fde'"):
        run(remove_fde(old, made.store._collection), send, ONCE)
    assert "fde" not in made.read(3)[1]
    assert "muvera" not in (client.get_collection("hybrid").config.metadata or {})


def test_a_second_fde_takes_over_when_it_is_filled():
    made = local_hybrid()
    made.store.backfill()
    other = FDEEncoder(FDEConfig(DIM, r_reps=4, k_sim=3, d_proj=8, seed=9))
    second = QdrantMuvera.adopt(made.store.client, "hybrid", other, fde_vector="fde_v2")
    with pytest.raises(InvalidInput, match="backfill"):
        second.search(TOKENS[0])
    assert QdrantMuvera.open(made.store.client, "hybrid").encoder.fingerprint == ENCODER.fingerprint
    second.backfill()
    assert QdrantMuvera.open(made.store.client, "hybrid").encoder.fingerprint == other.fingerprint
    made.store.remove_fde()  # the first goes, and what is kept of the second stays
    assert QdrantMuvera.open(made.store.client, "hybrid").search(TOKENS[7], 1, 20)[0].id == 7


def test_missing_fdes_are_warned_of_once():
    made = local_hybrid()
    made.store.backfill()
    made.store.client.upsert("hybrid", [models.PointStruct(id=70, vector={"colbert": TOKENS[50].tolist()})])
    with pytest.warns(MissingFDEs, match="1 document"):
        assert made.store.search(TOKENS[0]).without_fde == 1
    assert made.store.search(TOKENS[0]).without_fde == 1  # no second warning, which would be an error
    assert made.store.backfill().written == 1
    assert made.store.search(TOKENS[0]).without_fde == 0


def in_child(work: Callable[[], Any], seconds: float = 20.0) -> str:
    """What becomes of ``work`` in a fork: ``done``, ``refused``, ``hangs``, or another error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            said = "done"
        except BaseException as error:
            said = "refused" if isinstance(error, StoreUnavailable) else type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            with os.fdopen(reading) as said:
                return said.read()
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return "hangs"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_may_not_use_the_directory(tmp_path):
    store = QdrantEdgeMuvera.create(tmp_path, "docs", ENCODER)
    store.upsert(range(20), TOKENS[:20])
    store.search(TOKENS[0])
    uses: list[Callable[[], Any]] = [
        lambda: store.search(TOKENS[0]),
        store.count,
        lambda: store.get([1]),
        lambda: list(store.scroll()),
        lambda: store.upsert([100], TOKENS[:1]),
        lambda: store.delete([1]),
        store.verify,
        store.info,
        store.wait_indexed,
        store.remove_fde,
        store.drop,
    ]
    assert [in_child(use) for use in uses] == ["refused"] * len(uses)
    assert in_child(store.close) == "done"
    assert store.upsert([101], TOKENS[:1]).written == 1
    store.close()
    with QdrantEdgeMuvera.open(tmp_path, "docs") as opened:
        assert opened.count() == 21
        assert opened.search(TOKENS[5], 1)[0].id == 5


def test_directories_that_cannot_be_used_are_errors_of_this_library(tmp_path):
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    for make in (
        lambda: QdrantEdgeMuvera.create(occupied / "data", "docs", ENCODER),
        lambda: QdrantEdgeMuvera.create(tmp_path, "occupied", ENCODER),
        lambda: QdrantEdgeMuvera.open(occupied, "docs"),
        lambda: QdrantEdgeMuvera.adopt(occupied, "docs", ENCODER),
    ):
        with pytest.raises(MuveraError) as caught:
            make()
        assert "occupied" in str(caught.value)
    with pytest.raises(StoreUnavailable) as caught:
        QdrantEdgeMuvera.create(occupied / "data", "docs", ENCODER)
    assert isinstance(caught.value.__cause__, OSError)


def test_the_other_kind_of_client_is_told_by_its_store():
    with pytest.raises(InvalidInput, match="use AsyncQdrantMuvera"):
        QdrantMuvera.create(AsyncQdrantClient(":memory:"), "a", ENCODER)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="connect first"):
        QdrantMuvera.open("http://localhost:6333", "a")  # type: ignore[arg-type]

    async def adopt():
        await AsyncQdrantMuvera.adopt(QdrantClient(":memory:"), "a", ENCODER)  # type: ignore[arg-type]

    with pytest.raises(InvalidInput, match="use QdrantMuvera"):
        asyncio.run(adopt())


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told_with_the_address(status):
    content = json.dumps({"status": {"error": "Invalid API key or JWT"}}).encode()
    error = UnexpectedResponse(status, "Forbidden", content, None)  # type: ignore[arg-type]
    found = translate(error, engine="Qdrant", name="pages", timeout=60, address="http://db:6333")
    assert isinstance(found, AccessDenied)
    assert "http://db:6333" in str(found)
    assert "Invalid API key" in str(found)


def test_text_of_the_user_is_not_taken_for_a_missing_collection():
    """A client's own check repeats the value that it refuses."""
    with pytest.raises(ValueError) as caught:
        models.PointStruct(id=[], vector="not found", payload={})  # type: ignore[arg-type]
    assert isinstance(translate(caught.value, engine="Qdrant", name="pages", timeout=None), Rejected)
    assert isinstance(
        translate(UnicodeEncodeError("utf-8", "not found \ud83d", 10, 11, "no"), engine="Q", name="p", timeout=None),
        Rejected,
    )
