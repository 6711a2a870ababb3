"""The embedded store on the real engine."""

import subprocess
import sys
import uuid
from dataclasses import replace

import numpy as np
import pytest

from muvera_adapters.errors import CollectionExists, CollectionNotFound, EncoderMismatch, InvalidInput, StoreUnavailable
from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.qdrant.collection import Wire
from muvera_adapters.qdrant.requests import Upsert
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim
from tests.drawn import gaussian

DIM = 24


@pytest.fixture
def encoder():
    return FDEEncoder(FDEConfig(DIM, r_reps=8, k_sim=3, d_proj=8))


@pytest.fixture
def documents():
    return [gaussian(i, 3 + i % 20, DIM) for i in range(60)]


@pytest.fixture
def store(tmp_path, encoder):
    with QdrantEdgeMuvera.create(tmp_path, "docs", encoder) as made:
        yield made


def test_two_stages_over_all_candidates_are_exact(store, documents):
    ids = [f"doc-{i}" for i in range(60)]
    report = store.upsert(ids, documents, [{"n": i} for i in range(60)])
    assert (report.written, report.failed, store.count()) == (60, {}, 60)
    store.wait_indexed()
    query = gaussian(99, 6, DIM)
    scores = maxsim(query, [d.astype(np.float16) for d in documents])
    order = np.argsort(-scores)[:10]
    for hits in (store.search(query, limit=10, prefetch=60), store.exact_search(query, limit=10)):
        assert [h.id for h in hits] == [ids[i] for i in order]
        np.testing.assert_allclose([h.score for h in hits], scores[order], rtol=1e-3)
        assert [h.payload for h in hits] == [{"n": int(i)} for i in order]


def test_first_stage_alone_ranks_by_the_encoders_estimate(tmp_path, encoder, documents):
    with QdrantEdgeMuvera.create(tmp_path, "docs", encoder, quantization=None, store_tokens=False) as store:
        store.upsert(range(60), documents)
        query = gaussian(99, 6, DIM)
        estimates = encoder.encode_documents(documents) @ encoder.encode_query(query)
        hits = store.search(query, limit=5)
        assert [h.id for h in hits] == np.argsort(-estimates)[:5].tolist()
        assert [h.fde_score for h in hits] == [h.score for h in hits]
        with pytest.raises(InvalidInput, match="stores no tokens"):
            store.search(query, rerank="native")
        with pytest.raises(InvalidInput, match="stores no tokens"):
            store.exact_search(query)


def test_ids_of_every_kind_come_back(store, documents):
    ids = [7, 2**64 - 1, "a", "ü/ %", "0", uuid.UUID(int=5), str(uuid.UUID(int=6))]
    store.upsert(ids, documents[:7])
    found = [h.id for h in store.exact_search(documents[0], limit=7, with_payload=False)]
    assert sorted(map(repr, found)) == sorted(map(repr, ids))


def test_writing_again_replaces(store, documents):
    store.upsert(["a", "b"], documents[:2], [{"v": 1}, {"v": 1}])
    store.upsert(["b"], documents[2:3], [{"v": 2}])
    assert store.count() == 2
    (best,) = store.exact_search(documents[2], limit=1)
    assert (best.id, best.payload) == ("b", {"v": 2})


def test_survives_closing(tmp_path, encoder, documents):
    with QdrantEdgeMuvera.create(tmp_path, "docs", encoder) as store:
        store.upsert(range(60), documents)
    with QdrantEdgeMuvera.open(tmp_path, "docs") as store:
        assert store.encoder.fingerprint == encoder.fingerprint
        assert store.count() == 60
        assert store.search(documents[5], limit=1)[0].id == 5
    with pytest.raises(StoreUnavailable, match="is closed"):
        store.count()


def test_written_documents_survive_a_killed_process(tmp_path, encoder, documents):
    code = f"""
import os, sys
sys.path.insert(0, {str(sys.path[0])!r})
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_core import FDEConfig, FDEEncoder
import numpy as np
encoder = FDEEncoder(FDEConfig({DIM}, r_reps=8, k_sim=3, d_proj=8))
store = QdrantEdgeMuvera.create({str(tmp_path)!r}, "docs", encoder)
store.upsert(range(20), [np.random.default_rng(i).standard_normal((5, {DIM})) for i in range(20)])
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with QdrantEdgeMuvera.open(tmp_path, "docs", encoder) as store:
        assert store.count() == 20


def test_another_encoder_is_refused(tmp_path, encoder):
    QdrantEdgeMuvera.create(tmp_path, "docs", encoder).close()
    other = FDEEncoder(FDEConfig(DIM, r_reps=8, k_sim=3, d_proj=8, seed=1))
    with pytest.raises(EncoderMismatch, match=f"{encoder.fingerprint}.*{other.fingerprint}"):
        QdrantEdgeMuvera.open(tmp_path, "docs", other)


def test_nothing_is_overwritten(store, tmp_path, encoder):
    with pytest.raises(CollectionExists, match="docs exists"):
        QdrantEdgeMuvera.create(tmp_path, "docs", encoder)
    with pytest.raises(StoreUnavailable, match="has it open"):
        QdrantEdgeMuvera.open(tmp_path, "docs")
    with pytest.raises(CollectionNotFound, match="is not a collection of this library"):
        QdrantEdgeMuvera.open(tmp_path, "other")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(CollectionExists):
        QdrantEdgeMuvera.create(tmp_path, "taken", encoder)
    with pytest.raises(InvalidInput, match="not a valid collection name"):
        QdrantEdgeMuvera.create(tmp_path, "../outside", encoder)


def test_a_creation_that_is_killed_can_be_repeated(tmp_path, encoder, documents, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", killed)
        with pytest.raises(KeyboardInterrupt):
            QdrantEdgeMuvera.create(tmp_path, "docs", encoder)
    with pytest.raises(CollectionNotFound, match="its creation was interrupted"):
        QdrantEdgeMuvera.open(tmp_path, "docs")
    # what is left may belong to a directory that was moved away
    with pytest.raises(CollectionExists, match=r"docs\.muvera\.json exists"):
        QdrantEdgeMuvera.create(tmp_path, "docs", FDEEncoder(FDEConfig(encoder.token_dim, seed=3)))
    with QdrantEdgeMuvera.create(tmp_path, "docs", encoder) as store:
        store.upsert([1], documents[:1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["docs", "docs.muvera.json"]


def test_drop(tmp_path, encoder):
    QdrantEdgeMuvera.create(tmp_path, "docs", encoder).drop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "change", "payloads", "message"),
    [
        ([0, 1], {}, None, "2 ids, 3 token matrices"),
        ([0, 1, 2], {}, [None], "3 ids, 3 token matrices, 1 payloads"),
        ([0, 1, 0], {}, None, "id 0 is given twice, at positions 0 and 2"),
        ([0, -1, 2], {}, None, "id -1 at position 1 is outside"),
        ([0, 1.5, 2], {}, None, "id 1.5 at position 1 is a float"),
        ([0, 1, 2], {1: np.full((2, DIM), np.nan)}, None, r"document 1 \(id 1\), token 0 has a NaN"),
        ([0, 1, 2], {2: np.zeros((0, DIM))}, None, "document 2 has no tokens"),
        ([0, 1, 2], {2: np.zeros((2, DIM + 1))}, None, "document 2 has token vectors of width 25"),
        ([0, 1, 2], {}, [None, {"_muvera_id": 1}, None], "payload at position 1 has the reserved key"),
    ],
)
def test_bad_writes_write_nothing(store, documents, ids, change, payloads, message):
    tokens = [change.get(i, d) for i, d in enumerate(documents[:3])]
    with pytest.raises(InvalidInput, match=message):
        store.upsert(ids, tokens, payloads)
    assert store.count() == 0


def test_bad_searches(store):
    for query, message in ((np.zeros((0, DIM)), "query has no tokens"), (np.ones((1, 3)), "width 3")):
        with pytest.raises(InvalidInput, match=message):
            store.search(query)
    with pytest.raises(InvalidInput, match="at least 1"):
        store.search(np.ones((1, DIM)), limit=0)


def test_recall_on_real_vectors(tmp_path, pydocs, pydocs_documents):
    """Through the real index: int8 codes, HNSW, 200 candidates."""
    encoder = FDEEncoder(FDEConfig(128))
    exact = exact_top(pydocs.queries, pydocs_documents, pydocs.ids, 10)
    with QdrantEdgeMuvera.create(tmp_path, "pydocs", encoder) as store:
        store.upsert(pydocs.ids, pydocs_documents)
        store.wait_indexed()
        relevant = [q.relevant for q in pydocs.questions]
        two_stage = measure(lambda q: store.search(q, prefetch=200), pydocs.queries, exact, relevant)
        alone = measure(lambda q: store.search(q, rerank="none"), pydocs.queries, exact, relevant)
    assert two_stage.recall_at_10 >= 0.975
    assert two_stage.success_at_10 >= 50 / 55
    assert alone.recall_at_10 < two_stage.recall_at_10


def test_long_documents_are_split_by_bytes(store, monkeypatch):
    store._collection = replace(store._collection, wire=Wire(4.0, 4 * (8 * 8 * 8 + 30 * DIM)))
    sizes, send = [], store._shard.send

    def record(request):
        if isinstance(request, Upsert):
            sizes.append(len(request.points))
        return send(request)

    monkeypatch.setattr(store._shard, "send", record)
    batch = TokenBatch.from_list([gaussian(i, n, DIM) for i, n in enumerate((30, 1, 1, 1, 100, 5))])
    assert store.upsert(range(6), batch).written == store.count() == 6
    assert sizes == [1, 2, 1, 1, 1]


@pytest.mark.parametrize("codes", ["foo", 5, ["int8"], {}, True])
def test_what_is_no_quantization_is_refused(tmp_path, codes):
    encoder = FDEEncoder(FDEConfig(8, r_reps=2, k_sim=2, d_proj=4))
    with pytest.raises(InvalidInput, match="quantization must be one of auto"):
        QdrantEdgeMuvera.create(tmp_path, "docs", encoder, quantization=codes)
    assert not list(tmp_path.iterdir())


def test_files_that_the_engine_removes_while_they_are_measured_count_nothing(store, documents, tmp_path):
    (log,) = tmp_path.rglob("wal")
    (log / "open-999").symlink_to("gone")
    assert store.upsert(range(3), documents[:3]).written == 3
    store.wait_indexed()
    assert store.info().disk_bytes > 0
