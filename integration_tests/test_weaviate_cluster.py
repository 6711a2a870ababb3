"""Weaviate servers of other shapes: three nodes with replicas and shards, and one that indexes in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from weaviate.classes.config import Configure, ConsistencyLevel

from muvera_adapters.errors import Rejected
from muvera_adapters.testing import CannotStart
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES, best, truth, two_stage
from muvera_adapters.weaviate import WeaviateMuvera
from servers.weaviate_server import WeaviateServer, binary, start_cluster

IDS = list(range(COUNT))


def executable() -> str:
    try:
        return binary()
    except CannotStart as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[WeaviateServer]]:
    with ExitStack() as stack:
        yield stack.enter_context(start_cluster(executable(), tmp_path_factory.mktemp("cluster"), 3))


@pytest.mark.parametrize("level", list(ConsistencyLevel), ids=lambda level: level.value)
@pytest.mark.parametrize("replicas", [1, 3])
def test_every_node_of_a_cluster_gives_the_same(nodes, level, replicas):
    name = f"Cluster{level.value.title()}{replicas}"
    options = {
        "replication_config": Configure.replication(factor=replicas),
        "sharding_config": Configure.sharding(desired_count=3),
    }
    with nodes[0].connect() as client:
        store = WeaviateMuvera.create(
            client, name, ENCODER, quantization=None, consistency_level=ConsistencyLevel.ALL, **options
        )
        assert store.upsert(IDS, DOCUMENTS, [{"n": i} for i in IDS]).written == COUNT
        assert store.info().segments == 3 * replicas
    for node in nodes:
        with node.connect() as client:
            store = WeaviateMuvera.open(client, name, consistency_level=level)
            assert store.count() == COUNT
            for query in QUERIES:
                for rerank in ("native", "client"):
                    assert [hit.id for hit in store.search(query, 8, 20, rerank=rerank)] == two_stage(query, 8, 20)
                assert [hit.id for hit in store.exact_search(query, 8)] == best(truth(query), 8)
            assert store.repair() == 0


def test_a_server_that_indexes_in_the_background_takes_a_dynamic_index(tmp_path):
    server = WeaviateServer(executable(), tmp_path, ASYNC_INDEXING="true")
    server.start()
    try:
        with server.connect() as client:
            # from 100 documents on it is a graph
            index = Configure.VectorIndex.dynamic(threshold=100)
            store = WeaviateMuvera.create(client, "Dynamic", ENCODER, vector_index_config=index)
            made = client.collections.use("Dynamic").config.get().vector_config["fde"].vector_index_config
            assert (made.hnsw.max_connections, made.hnsw.quantizer.bits) == (32, 8)
            assert (made.flat.quantizer.bits, made.flat.quantizer.rescore_limit) == (8, 0)
            many = [DOCUMENTS[i % COUNT] + np.float32(0.001) * (i // COUNT) for i in range(4 * COUNT)]
            for ids in (range(50), range(50, 4 * COUNT)):
                store.upsert(ids, many[ids.start : ids.stop])
                store.wait_indexed(timeout=120)
                assert store.info().indexed
                for query in QUERIES:
                    expected = best(truth(query, many[: ids.stop]), 5)
                    hits = store.search(query, 5, ids.stop)
                    assert len({hit.id for hit in hits} & set(expected)) >= 4, "a graph may miss one"
                    fdes = ENCODER.encode_documents([many[hit.id] for hit in hits]) @ ENCODER.encode_query(query)
                    assert np.allclose([hit.fde_score for hit in hits], fdes, atol=0.01)
    finally:
        server.stop()


def test_a_server_that_does_not_refuses_a_dynamic_index(nodes):
    with nodes[0].connect() as client, pytest.raises(Rejected, match=r"(?i)async"):
        WeaviateMuvera.create(client, "Refused", ENCODER, vector_index_config=Configure.VectorIndex.dynamic())
