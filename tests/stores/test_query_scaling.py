"""Query FDEs are sent with the length of document FDEs; scores, and what is found, stay what they were."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.operations import Retry, run
from muvera_adapters.stores.query_scaling import Query, scaled, typical_length
from muvera_adapters.testing.corpus import best, sample, truth
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder

PAPER = FDEConfig(dim=16, r_reps=6, k_sim=3, d_proj=8, normalize=False)
QUERY_LENGTH = 37.5


@pytest.fixture
def fde():
    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    return vector * np.float32(QUERY_LENGTH / np.linalg.norm(vector))


def tokens(n, dim=16, seed=1):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(int(m), dim)).astype(np.float32) for m in generator.integers(2, 12, n)]


@pytest.mark.parametrize("length", [1.0, 22.0, 1e-3])
def test_a_query_gets_the_length_and_its_scores_come_back(fde, length):
    query = scaled(fde, length)
    assert np.linalg.norm(query.vector) == pytest.approx(length, rel=1e-6)
    assert query.vector.dtype == np.float32
    for document in np.random.default_rng(1).normal(size=(9, 64)):
        assert query.score(float(document @ query.vector)) == pytest.approx(float(document @ fde), rel=1e-5)


@pytest.mark.parametrize("least", [12.5, -3.0, 0.0])
def test_a_threshold_admits_every_score_that_is_not_below_it(fde, least):
    query = scaled(fde, 1.0)
    # a score as the database computes and compares it, in float32
    assert np.float32(least / query.factor) >= np.float32(query.threshold(least))
    assert query.threshold(None) is None
    assert query.threshold(least) * query.factor == pytest.approx(least, rel=1e-4)


def test_what_cannot_or_need_not_be_scaled_is_sent_as_it_is(fde):
    zeros = np.zeros(64, np.float32)
    assert scaled(zeros, 1.0).vector is zeros
    assert scaled(fde, None).vector is fde
    unit = (fde / np.linalg.norm(fde)).astype(np.float32)
    assert scaled(unit, 1.0).vector is unit  # those of the regression encoder
    assert scaled(fde, None).threshold(7.3) == 7.3


def test_the_typical_length_is_the_median_of_those_that_are_there():
    rows = [np.full(4, value, np.float32) for value in (0.0, 1.0, 2.0, 9.0)]
    assert typical_length(rows) == pytest.approx(4.0)
    assert typical_length([np.zeros(4, np.float32)]) is None
    assert typical_length([]) is None


def test_encoders_know_the_length_where_there_is_one():
    assert FDEEncoder(FDEConfig(dim=16)).document_norm == 1.0
    assert FDEEncoder(PAPER).document_norm is None
    assert RegressionEncoder.fit(tokens(40), dim=8, features=16).document_norm == 1.0


class SixMembers:
    """An encoder of someone else: the protocol and nothing more."""

    def __init__(self, encoder):
        for name in ("token_dim", "dim", "fingerprint", "encode_documents", "encode_queries", "to_dict"):
            setattr(self, name, getattr(encoder, name))


@pytest.mark.parametrize(
    ("encoder", "cosine", "reads"),
    [
        (FDEEncoder(FDEConfig(dim=16)), False, 0),
        (FDEEncoder(PAPER), False, 1),
        (FDEEncoder(PAPER), True, 0),
        (SixMembers(FDEEncoder(PAPER)), False, 1),
    ],
)
def test_stored_fdes_are_read_once_and_only_where_they_must_be(encoder, cosine, reads):
    collection, asked = SimpleNamespace(encoder=encoder, seen=Seen()), []
    stored = []

    async def read(size):
        asked.append(size)
        return stored

    def search() -> Any:
        operation = query_scaling.encode(collection, [Query(each) for each in tokens(2)], read, cosine=cosine)
        return run(operation, lambda request: request, Retry(attempts=1))

    own = encoder.encode_queries(tokens(2))
    if reads:
        assert [query.factor for query in search()] == [1.0, 1.0]  # an empty collection
        assert collection.seen.fde_length is None
        asked.clear()
    stored = list(encoder.encode_documents(tokens(3)))
    for _ in range(2):
        for query, fde in zip(search(), own, strict=True):
            assert np.allclose(query.vector * query.factor, fde, rtol=1e-5)
            if not cosine:
                assert np.linalg.norm(query.vector) == pytest.approx(collection.seen.fde_length, rel=1e-5)
    assert asked == [query_scaling.SAMPLE] * reads


@pytest.mark.parametrize("normalize", [True, False])
def test_scores_and_thresholds_of_a_store_are_those_of_the_encoder(tmp_path, normalize):
    encoder = FDEEncoder(FDEConfig(dim=16, r_reps=6, k_sim=3, d_proj=8, normalize=normalize))
    documents, query = tokens(50), tokens(1, seed=5)[0]
    expected = encoder.encode_documents(documents) @ encoder.encode_query(query)
    options = {"quantization": None, "datatype": edge.VectorStorageDatatype.Float32}
    with QdrantEdgeMuvera.create(tmp_path, "c", encoder, **options) as store:
        assert store.search(query) == []
        store.upsert(range(50), documents)
        for rerank in ("none", "client", "native"):
            hits = store.search(query, 10, 50, rerank=rerank, with_fde_score=True)
            assert np.allclose([hit.fde_score for hit in hits], expected[[hit.id for hit in hits]], rtol=1e-5)
        ranked = store.search(query, 10, rerank="none")
        for i in range(10):  # the score itself is not below it
            assert len(store.search(query, 10, rerank="none", score_threshold=ranked[i].score)) == i + 1


@pytest.mark.parametrize(
    ("quantization", "normalize"),
    [("int8", False), ("binary", True), ("turbo4", True), ("turbo2", True)],
)
def test_no_kind_of_codes_loses_recall_to_documents_without_codes(tmp_path, quantization, normalize):
    documents, queries, _ = sample()
    encoder = FDEEncoder(FDEConfig(dim=128, r_reps=10, k_sim=4, d_proj=16, normalize=normalize))
    exact = [set(best(truth(query, documents), 10)) for query in queries]
    order = [int(i) for i in np.random.default_rng(0).permutation(len(documents))]
    optimizers = edge.EdgeOptimizersConfig(indexing_threshold=1_000)
    with QdrantEdgeMuvera.create(tmp_path, "c", encoder, quantization=quantization, optimizers=optimizers) as store:

        def recall(candidates):
            found = store.search_batch(queries, candidates, rerank="none", with_payload=False)
            return np.mean([len({hit.id for hit in hits} & top) / 10 for hits, top in zip(found, exact, strict=True)])

        store.upsert(order[:1300], [documents[i] for i in order[:1300]])
        assert store.wait_indexed() == 0
        store.upsert(order[1300:], [documents[i] for i in order[1300:]])
        assert store.info().unindexed == 300
        partly = [recall(n) for n in (20, 50, 200)]
        assert store.wait_indexed() == 0
        wholly = [recall(n) for n in (20, 50, 200)]
    assert all(a > b - 0.02 for a, b in zip(partly, wholly, strict=True)), (partly, wholly)
