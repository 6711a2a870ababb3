"""Options that are Qdrant's own, on the real engine and in local mode."""

from __future__ import annotations

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import InvalidInput, SchemaMismatch, Unsupported
from muvera_adapters.qdrant import QdrantEdgeMuvera, QdrantMuvera
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER, QUERIES, best, truth, two_stage

PRESETS = ["int8", "turbo4", "turbo2", "binary", "product", None]
BITS = {"int8": 8, "turbo4": 4, "turbo2": 2, "binary": 2, "product": 2, None: 0}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_on_the_engine(tmp_path, preset):
    # the engine's threshold is 10 MB; with it, nothing so small would be quantized and nothing tested
    optimizers = edge.EdgeOptimizersConfig(indexing_threshold=1)
    with QdrantEdgeMuvera.create(tmp_path, "c", ENCODER, quantization=preset, optimizers=optimizers) as store:
        store.upsert(range(COUNT), DOCUMENTS)
        store.wait_indexed()
        info = store.info()
        assert info.code_bytes == COUNT * ENCODER.dim * BITS[preset] / 8
        assert info.indexed
        recalls = []
        for query in QUERIES:
            found = {hit.id for hit in store.search(query, 10, 40)}
            recalls.append(len(found & set(two_stage(query, 10, 40))) / 10)
            assert [hit.id for hit in store.search(query, 10, COUNT)] == best(truth(query), 10)
        assert np.mean(recalls) >= 0.8
    with QdrantEdgeMuvera.open(tmp_path, "c") as store:
        assert store.info().code_bytes == info.code_bytes


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_for_a_client(preset):
    client = QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "c", ENCODER, quantization=preset)
    store.upsert([1], DOCUMENTS[:1])
    assert store.count() == 1
    client.close()


def test_an_unknown_preset_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InvalidInput, match="int8, turbo4"):
        QdrantEdgeMuvera.create(tmp_path, "c", ENCODER, quantization="int3")
    QdrantEdgeMuvera.create(tmp_path, "c", ENCODER).close()


def test_the_engines_own_objects_pass_through(tmp_path):
    codes = edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits1)
    graph = edge.HnswIndexConfig(m=8, ef_construct=64, full_scan_threshold=1)
    with QdrantEdgeMuvera.create(tmp_path, "c", ENCODER, quantization=codes, hnsw_config=graph) as store:
        store.upsert(range(COUNT), DOCUMENTS)
        assert store.info().code_bytes == COUNT * ENCODER.dim / 8
        exact = edge.SearchParams(exact=True)
        hits = store.search(QUERIES[0], 5, 20, search_params=exact)
        assert [hit.id for hit in hits] == two_stage(QUERIES[0], 5, 20)


def test_backfilled_fdes_on_the_engine_get_an_index_and_codes(tmp_path):
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    # an owner who took the defaults has a graph over MaxSim, whose answers are approximate
    vectors = {"colbert": edge.EdgeVectorParams(DIM, edge.Distance.Dot, multivector_config=multi)}
    (tmp_path / "c").mkdir()
    shard = edge.EdgeShard.create(str(tmp_path / "c"), edge.EdgeConfig(vectors=vectors))
    shard.update(
        edge.UpdateOperation.upsert_points([edge.Point(i, {"colbert": m}, {}) for i, m in enumerate(DOCUMENTS)])
    )
    shard.close()
    with QdrantEdgeMuvera.adopt(tmp_path, "c", ENCODER) as store:
        store.backfill(quantization="turbo4")
        store.wait_indexed()
        assert store.info().code_bytes == COUNT * ENCODER.dim / 2
        for query in QUERIES:
            expected = best(truth(query), 10)
            assert [hit.id for hit in store.search(query, 10, COUNT)] == expected
            assert [hit.id for hit in store.exact_search(query, 10)] == expected


def test_shard_keys_are_passed_to_the_client_which_says_what_it_lacks():
    client = QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "c", ENCODER)
    seen = []
    original = client.query_points

    def query_points(**arguments):
        seen.append(arguments.pop("shard_key_selector", None))
        return original(**arguments)

    client.query_points = query_points
    store.search(QUERIES[0], shard_key_selector="eu")
    assert seen == ["eu"]
    client.close()


@pytest.mark.parametrize("distance", [models.Distance.EUCLID, models.Distance.MANHATTAN])
def test_distances_without_maxsim_are_refused(distance):
    client = QdrantClient(":memory:")
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vector = models.VectorParams(size=DIM, distance=distance, multivector_config=comparator)
    client.create_collection("c", {"colbert": vector})
    with pytest.raises(SchemaMismatch, match="dot or cosine"):
        QdrantMuvera.adopt(client, "c", ENCODER)
    client.close()


def test_what_local_mode_cannot_do_is_unsupported():
    client = QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "c", ENCODER)

    def refuse(**_):
        raise NotImplementedError("no such thing in local mode")

    client.count = refuse
    with pytest.raises(Unsupported, match="local mode") as caught:
        store.count()
    assert isinstance(caught.value.__cause__, NotImplementedError)
    client.close()
