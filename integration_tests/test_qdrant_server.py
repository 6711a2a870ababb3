"""What only a Qdrant server shows: strict mode, shards and their keys. Run where QDRANT_URL names a server."""

from __future__ import annotations

import os
import uuid

import pytest
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import Rejected
from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES, two_stage

URL = os.environ.get("QDRANT_URL")
pytestmark = pytest.mark.skipif(not URL, reason="set QDRANT_URL to a Qdrant server, version 1.18 or later")


@pytest.fixture(params=["rest", "grpc"])
def client(request):
    client = QdrantClient(
        url=URL,
        grpc_port=int(os.environ.get("QDRANT_GRPC_PORT", "6334")),
        api_key=os.environ.get("QDRANT_API_KEY"),
        prefer_grpc=request.param == "grpc",
        timeout=60,
        check_compatibility=False,
    )
    yield client
    client.close()


@pytest.fixture
def make(client):
    """Makes stores of a new collection, which is dropped at the end."""
    name = f"muvera_test_{uuid.uuid4().hex[:8]}"
    yield lambda **options: QdrantMuvera.create(client, name, ENCODER, **options)
    client.delete_collection(name)


def test_a_strict_mode_forbids_no_two_stage_search(make, client):
    store = make()
    strict = models.StrictModeConfig(
        enabled=True, search_allow_exact=False, search_max_batchsize=3, upsert_max_batchsize=50
    )
    client.update_collection(store.name, strict_mode_config=strict)
    assert store.upsert(range(COUNT), DOCUMENTS, [{"n": i} for i in range(COUNT)]).written == COUNT
    client.upsert(store.name, [models.PointStruct(id=COUNT, vector={"fde": ENCODER.encode_document(DOCUMENTS[0])})])
    assert [hits[0].id for hits in store.search_batch(QUERIES, 10, 40)] == [two_stage(q, 1, 40)[0] for q in QUERIES]
    assert store.search(DOCUMENTS[0], 3, 40).unscored[0].id == COUNT
    assert store.count() == COUNT + 1
    info = store.info()
    assert (info.documents, info.without_tokens) == (COUNT + 1, 1)


def test_a_load_into_several_shards_can_be_searched_at_its_end(make):
    store = make(shard_number=4)
    many = 20
    documents = [tokens for tokens in DOCUMENTS for _ in range(many)]
    for i in range(0, len(documents), 500):
        store.upsert(range(i, min(i + 500, len(documents))), documents[i : i + 500])
        assert store.count() == min(i + 500, len(documents))


def test_shard_keys_that_are_wrong_or_missing_raise(make, client):
    if client.http.distributed_api.cluster_status().result.status == "disabled":
        pytest.skip("the server is not a cluster")
    store = make(sharding_method=models.ShardingMethod.CUSTOM)
    assert client.create_shard_key(store.name, "a")
    for options in ({}, {"shard_key_selector": "b"}):
        with pytest.raises(Rejected, match=r"[Ss]hard key"):
            store.upsert([1], DOCUMENTS[:1], **options)
    assert store.upsert([1], DOCUMENTS[:1], shard_key_selector="a").written == 1
