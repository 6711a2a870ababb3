"""Backfill while others write, and into a new collection, over qdrant-client's local mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import CollectionExists, InvalidInput, MuveraError, Unsupported
from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.stores import backfilling
from muvera_adapters.testing.corpus import DIM, DOCUMENTS, ENCODER, OTHER_ENCODER, QUERIES, best, truth, unit_rows

N = 60


class Watched:
    """A client that lets a test act before and after its calls."""

    def __init__(self, client: QdrantClient, version: str | None = None) -> None:
        self.client = client
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.calls: list[str] = []
        self.version = version

    def info(self, **arguments: Any) -> Any:
        found = self.client.info()
        return found if self.version is None else found.model_copy(update={"version": self.version})

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if not callable(found):
            return found

        def call(**arguments: Any) -> Any:
            self.calls.append(name)
            self.before.get(name, lambda _: None)(arguments)
            result = found(**arguments)
            self.after.get(name, lambda _: None)(arguments)
            return result

        return call


@pytest.fixture
def client():
    made = QdrantClient(":memory:")
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vectors = {
        "colbert": models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=comparator),
        "dense": models.VectorParams(size=4, distance=models.Distance.COSINE),
    }
    made.create_collection(
        "pages", vectors, sparse_vectors_config={"words": models.SparseVectorParams()}, metadata={"owner": "someone"}
    )
    made.upsert("pages", [point(i, DOCUMENTS[i]) for i in range(N)])
    yield made
    made.close()


def point(i: int, tokens: np.ndarray) -> models.PointStruct:
    vector: dict[str, Any] = {
        "colbert": tokens.tolist(),
        "dense": [i + 1.0, 2, 3, 4],
        "words": models.SparseVector(indices=[i], values=[1.0]),
    }
    return models.PointStruct(id=i, vector=vector, payload={"n": i})


def check_fdes(client: QdrantClient, name: str) -> None:
    """Every point's FDE is that of its own tokens."""
    records, _ = client.scroll(name, limit=10_000, with_vectors=True)
    for record in records:
        expected = ENCODER.encode_document(np.asarray(record.vector["colbert"], np.float32))
        assert np.allclose(record.vector["fde"], expected, atol=1e-5), record.id


def test_documents_that_arrive_are_picked_up_wherever_their_ids_lie(client):
    watched = Watched(client)
    arrivals = iter([(1000, 0), (1001, 1), (N, 2)])

    def arrive(_: Any) -> None:
        for new, source in arrivals:
            client.upsert("pages", [point(new, DOCUMENTS[source])])
            break

    watched.after["batch_update_points"] = arrive
    store = QdrantMuvera.adopt(watched, "pages", ENCODER)
    report = store.backfill(quantization=None)
    assert report.remaining == 0
    assert store.count() == N + 3
    check_fdes(client, "pages")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_document_replaced_meanwhile_gets_the_fde_of_its_new_tokens(client, monkeypatch, moment):
    monkeypatch.setattr(backfilling, "_SAMPLE", 1)  # or the closing verification would repair what this is about
    watched = Watched(client)
    versions = iter([unit_rows(np.random.default_rng(seed), 5) for seed in range(3)])

    def replace(arguments: Any) -> None:
        for tokens in versions:
            # the owner updates tokens alone, so the point keeps whatever FDE it has
            written = arguments["update_operations"][0].update_vectors.points[0]
            vector = models.PointVectors(id=written.id, vector={"colbert": tokens.tolist()})
            client.update_vectors("pages", [vector])
            break

    getattr(watched, moment)["batch_update_points"] = replace
    report = QdrantMuvera.adopt(watched, "pages", ENCODER).backfill(quantization=None)
    assert report.written == N
    check_fdes(client, "pages")


def test_the_closing_verification_repairs_what_it_finds(client):
    store = QdrantMuvera.adopt(client, "pages", ENCODER)
    store.backfill(quantization=None)
    stale = models.PointVectors(id=5, vector={"colbert": DOCUMENTS[6].tolist()})
    client.update_vectors("pages", [stale])
    report = store.backfill()  # 60 documents: all of them are in the sample
    assert (report.written, report.verified) == (0, N)
    check_fdes(client, "pages")


def test_documents_deleted_meanwhile_are_left_out(client):
    watched = Watched(client)

    def delete(_: Any) -> None:
        client.delete("pages", models.PointIdsList(points=[3, 7]))

    watched.before["batch_update_points"] = delete
    report = QdrantMuvera.adopt(watched, "pages", ENCODER).backfill(quantization=None)
    assert (report.written, report.remaining, client.count("pages").count) == (N - 2, 0, N - 2)
    check_fdes(client, "pages")


def test_nothing_that_was_not_named_is_touched(client):
    before, _ = client.scroll("pages", limit=100, with_vectors=True)
    watched = Watched(client)
    QdrantMuvera.adopt(watched, "pages", ENCODER).backfill()
    after, _ = client.scroll("pages", limit=100, with_vectors=True)
    for old, new in zip(before, after, strict=True):
        assert new.payload == old.payload
        assert new.vector.keys() == old.vector.keys() | {"fde"}
        assert new.vector["colbert"] == old.vector["colbert"]
        assert new.vector["words"] == old.vector["words"]
    assert client.get_collection("pages").config.metadata["owner"] == "someone"
    assert {call for call in watched.calls if not call.startswith(("get", "scroll", "retrieve", "count", "query"))} == {
        "create_vector_name",
        "update_collection",
        "batch_update_points",
    }


def test_adopting_alone_writes_nothing(client):
    watched = Watched(client)
    QdrantMuvera.adopt(watched, "pages", ENCODER).backfill(dry_run=True)
    assert set(watched.calls) <= {"get_collection", "scroll", "count", "query_points"}


class TestIntoANewCollection:
    def test_an_old_server_says_what_to_do(self, client):
        store = QdrantMuvera.adopt(Watched(client, "1.17.1"), "pages", ENCODER)
        with pytest.raises(Unsupported, match="into="):
            store.backfill()

    def test_a_server_without_metadata_is_refused(self, client):
        with pytest.raises(Unsupported, match=r"1\.16"):
            QdrantMuvera.adopt(Watched(client, "1.15.4"), "pages", ENCODER)

    def copied(self, client, watched, **options):
        return QdrantMuvera.adopt(watched, "pages", ENCODER).backfill(
            into="pages_v2", alias="current", quantization=None, **options
        )

    def test_everything_is_copied_and_the_alias_switched(self, client):
        client.update_collection_aliases(
            [
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(collection_name="pages", alias_name="current")
                )
            ]
        )
        before, _ = client.scroll("pages", limit=100, with_vectors=True)
        report = self.copied(client, Watched(client, "1.17.1"))
        assert (report.copied, report.written, report.failed) == (N, N, {})
        assert report.verified > 0
        check_fdes(client, "pages_v2")
        after, _ = client.scroll("pages_v2", limit=100, with_vectors=True)
        for old, new in zip(before, after, strict=True):
            assert (new.id, new.payload) == (old.id, old.payload)
            assert new.vector["colbert"] == old.vector["colbert"]
            assert new.vector["words"] == old.vector["words"]
            assert np.allclose(new.vector["dense"], old.vector["dense"], atol=1e-6)
        assert client.scroll("pages", limit=100, with_vectors=True)[0] == before, "the old one is as it was"
        store = QdrantMuvera.open(client, "current")
        assert [hit.id for hit in store.search(QUERIES[0], 5, N)] == best(truth(QUERIES[0], DOCUMENTS[:N]), 5)
        assert client.get_collection("pages_v2").config.metadata["owner"] == "someone"

    def test_writes_to_the_old_one_meanwhile_are_not_lost(self, client):
        watched = Watched(client, "1.17.1")
        new = unit_rows(np.random.default_rng(2), 4)
        once = iter([1])

        def write(arguments: Any) -> None:
            for _ in once:
                client.upsert("pages", [point(0, new), point(700, new)])
                client.delete("pages", models.PointIdsList(points=[1]))

        watched.after["upsert"] = write
        self.copied(client, watched)
        ids = {record.id for record in client.scroll("pages_v2", limit=100)[0]}
        assert ids == ({*range(N)} - {1}) | {700}
        check_fdes(client, "pages_v2")

    def test_a_killed_copy_is_completed(self, client):
        watched = Watched(client, "1.17.1")
        writes = iter(range(2))

        def kill(_: Any) -> None:
            if next(writes, None) is None:
                raise KeyboardInterrupt

        watched.before["upsert"] = kill
        with pytest.raises(KeyboardInterrupt):
            self.copied(client, watched)
        done = client.count("pages_v2").count
        assert 0 < done < N
        with pytest.raises(CollectionExists):
            QdrantMuvera.adopt(client, "pages", OTHER_ENCODER).backfill(into="pages_v2")
        report = self.copied(client, Watched(client, "1.17.1"))
        assert report.copied == N - done
        assert client.count("pages_v2").count == N
        check_fdes(client, "pages_v2")

    def test_a_finished_copy_is_not_synchronised_again(self, client):
        self.copied(client, Watched(client))
        client.upsert("pages_v2", [point(900, DOCUMENTS[0])])
        with pytest.raises(CollectionExists):
            self.copied(client, Watched(client))
        assert client.count("pages_v2").count == N + 1

    def test_an_alias_cannot_take_the_place_of_a_collection(self, client):
        with pytest.raises(InvalidInput, match="is a collection"):
            QdrantMuvera.adopt(client, "pages", ENCODER).backfill(into="pages_v2", alias="pages")

    def test_writers_that_never_rest_are_reported(self, client):
        watched = Watched(client)
        numbers = iter(range(10_000))

        def write(_: Any) -> None:
            client.upsert("pages", [point(2000 + next(numbers), DOCUMENTS[0])])

        watched.after["upsert"] = write
        with pytest.raises(MuveraError, match="pause its writers"):
            self.copied(client, watched)
