"""Tests that writes keep everything they do not name, and that changes by other programs are noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, MissingFDEs
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS, PAYLOADS
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER, QUERIES, best, truth

#: (COUNT, 4) vectors of another model
DENSE = np.random.default_rng(12).normal(size=(COUNT, 4)).astype(np.float16).astype(np.float32)


class TestWritesTouchOnlyWhatTheyName:
    """An upsert of a stored document changes only what the call names, by the same rule in every store."""

    @pytest.mark.parametrize("indexed", [False, True])
    @pytest.mark.parametrize(
        ("payloads", "expected"),
        [
            (None, PAYLOADS[3]),
            ([None], PAYLOADS[3]),
            ([{}], PAYLOADS[3]),
            ([{"n": 30, "new": "x"}], {**PAYLOADS[3], "n": 30, "new": "x"}),
        ],
    )
    def test_payload_keys_that_are_not_named_stay(
        self, filled: Any, payloads: Any, expected: dict[str, Any], indexed: bool
    ) -> None:
        """The payload keeps the keys that the call does not name, and the tokens and the FDE are replaced."""
        if indexed:
            filled.wait_indexed()
        report = filled.upsert([3], [DOCUMENTS[4]], payloads)
        assert (report.written, report.failed, filled.count()) == (1, {}, COUNT)
        (document,) = filled.get([3], with_tokens=True)
        assert document.payload == expected
        assert np.array_equal(document.tokens, DOCUMENTS[4])
        hits = filled.search(DOCUMENTS[4], 2, COUNT, with_fde_score=True)
        assert {hit.id for hit in hits} == {3, 4}
        assert hits[0].fde_score == pytest.approx(hits[1].fde_score, rel=1e-3)

    @pytest.mark.parametrize("indexed", [False, True])
    @pytest.mark.parametrize(("payloads", "expected"), [(None, {}), ([{}], {}), ([{"new": "x"}], {"new": "x"})])
    def test_a_whole_document_is_replaced_by_name(
        self, filled: Any, payloads: Any, expected: dict[str, Any], indexed: bool
    ) -> None:
        """With ``replace=True``, the document has only what the call names."""
        if indexed:
            filled.wait_indexed()
        assert filled.upsert([3], [DOCUMENTS[4]], payloads, replace=True).failed == {}
        (document,) = filled.get([3], with_tokens=True)
        assert document.payload == expected
        assert np.array_equal(document.tokens, DOCUMENTS[4])
        assert filled.count() == COUNT

    def test_new_and_stored_documents_in_one_call(self, filled: Any) -> None:
        """Existing documents are merged, and new documents in the same call are written as they are."""
        report = filled.upsert([3, 500, "new"], DOCUMENTS[:3], [{"a": 1}, {"a": 2}, None])
        assert (report.written, report.failed, filled.count()) == (3, {}, COUNT + 2)
        found = filled.get([3, 500, "new"])
        assert [document.payload for document in found] == [{**PAYLOADS[3], "a": 1}, {"a": 2}, {}]

    @pytest.fixture
    def hybrid(self, session: Session) -> Any:
        """An adopted collection that has a vector "dense" in addition to the tokens."""
        if not session.has_other_vectors():
            pytest.skip("the database cannot store other vectors than FDEs")
        session.foreign("hybrid", IDS[:9], DOCUMENTS[:9], dense=DENSE[:9])
        store = session.adopt("hybrid", ENCODER)
        assert store.backfill().written == 9
        return store

    def test_other_vectors_stay(self, session: Session, hybrid: Any) -> None:
        """An upsert into an adopted collection keeps vectors that it does not name."""
        report = hybrid.upsert([session.foreign_id(i) for i in (2, 5)], DOCUMENTS[20:22])
        assert (report.written, report.failed, hybrid.count()) == (2, {}, 9)
        content = session.content("hybrid")
        for i in range(9):
            assert content[i][0] == {"n": i}
            assert np.allclose(content[i][1]["dense"], DENSE[i])
        assert np.allclose(content[5][1]["colbert"], DOCUMENTS[21])
        assert np.allclose(content[5][1]["fde"], ENCODER.encode_document(DOCUMENTS[21]), atol=1e-3)

    def test_other_vectors_are_written_along(self, session: Session, hybrid: Any) -> None:
        """``vectors=`` writes other vectors of the collection; None leaves the vector of a document unchanged."""
        ids = [session.foreign_id(i) for i in (2, 5, 100)]
        vectors = {"dense": [None, DENSE[40].tolist(), DENSE[41].tolist()]}
        report = hybrid.upsert(ids, DOCUMENTS[20:23], [{"n": 2}, None, {"n": 100}], vectors=vectors)
        assert (report.written, report.failed) == (3, {})
        content = session.content("hybrid")
        assert np.allclose(content[2][1]["dense"], DENSE[2])
        assert np.allclose(content[5][1]["dense"], DENSE[40])
        assert np.allclose(content[100][1]["dense"], DENSE[41])
        assert content[100][0] == {"n": 100}

    @pytest.mark.parametrize(
        ("vectors", "problem"),
        [
            ({"nothing": [[1.0]]}, "'nothing'"),
            ({"fde": [[1.0]]}, "'fde' is written by the library"),
            ({"dense": []}, "'dense' has 0 entries for 1 documents"),
        ],
    )
    def test_vectors_that_cannot_be_written_are_refused(
        self, session: Session, hybrid: Any, vectors: Any, problem: str
    ) -> None:
        """Unknown names, the library's own names and wrong numbers raise ``InvalidInput``."""
        with pytest.raises(InvalidInput, match=problem):
            hybrid.upsert([session.foreign_id(2)], DOCUMENTS[20:21], vectors=vectors)
        assert np.allclose(session.content("hybrid")[2][1]["colbert"], DOCUMENTS[2])


class TestDocumentsOfOthers:
    """Documents that other programs write or change are counted, verified and backfilled."""

    @pytest.fixture
    def pages(self, session: Session) -> Any:
        """50 adopted documents with FDEs."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector, so no document can lack it")
        session.foreign("pages", IDS[:50], DOCUMENTS[:50])
        store = session.adopt("pages", ENCODER)
        assert store.backfill(**session.exact()).written == 50
        return store

    def test_searches_tell_the_number_of_documents_without_an_fde(self, session: Session, pages: Any) -> None:
        """``hits.without_fde`` counts documents that no search finds, and the first search warns about them."""
        assert pages.search(QUERIES[0]).without_fde == 0
        session.foreign_write("pages", IDS[50:60], DOCUMENTS[50:60])
        store = session.open("pages")
        assert store.search(QUERIES[0], count_missing=False).without_fde is None
        with pytest.warns(MissingFDEs, match=r"10 documents .*backfill\(\)"):
            hits = store.search(QUERIES[0])
        assert hits.without_fde == 10
        assert [hits.without_fde for hits in store.search_batch(QUERIES[:2])] == [10, 10]
        assert store.backfill().written == 10
        assert store.search(QUERIES[0]).without_fde == 0
        assert [hit.id for hit in store.search(QUERIES[0], 5, 60)] == best(truth(QUERIES[0], DOCUMENTS[:60]), 5)

    def test_names_for_programs_that_write_beside_the_store(self, pages: Any) -> None:
        """``fde_name`` and ``tokens_name`` are the names with which other programs write FDEs and tokens."""
        assert (pages.fde_name, pages.tokens_name) == ("fde", "colbert")

    def test_tokens_that_others_replaced_are_found_and_refreshed(self, session: Session, pages: Any) -> None:
        """``verify`` names documents whose FDE does not match their tokens; ``backfill(refresh=True)`` repairs them."""
        changed = [3, 17, 48]
        session.foreign_tokens("pages", changed, [DOCUMENTS[60 + i] for i in range(3)])
        store = session.open("pages")
        report = store.verify()
        assert (report.checked, sorted(report.stale), report.without_fde) == (50, changed, 0)
        assert not report.passed
        report = store.backfill(refresh=True)
        assert (report.refreshed, report.written, report.failed) == (3, 0, {})
        report = store.verify()
        assert (report.checked, report.stale, report.passed) == (50, [], True)
        found = store.search(DOCUMENTS[61], 1, 5, with_fde_score=True)[0]
        assert found.id == 17
        own = ENCODER.encode_document(DOCUMENTS[61]) @ ENCODER.encode_query(DOCUMENTS[61])
        assert found.fde_score == pytest.approx(float(own), rel=1e-2)

    def test_verifying_writes_nothing(self, session: Session, pages: Any) -> None:
        """``verify`` changes nothing, and ``limit`` restricts the number of documents."""
        session.foreign_write("pages", IDS[50:53], DOCUMENTS[50:53])
        before = session.content("pages")
        store = session.open("pages")
        assert store.verify().without_fde == 3
        limited = store.verify(limit=10)
        assert limited.checked + limited.without_fde == 10
        after = session.content("pages")
        assert after.keys() == before.keys()
        assert all(after[i][1].keys() == before[i][1].keys() for i in before)

    def test_a_collection_of_the_store_verifies(self, session: Session) -> None:
        """Documents that the store itself wrote are not stale, however the database rounds their tokens."""
        generator = np.random.default_rng(8)
        tokens = [generator.normal(size=(30, DIM)).astype(np.float32) for _ in range(40)]
        store = session.create("own", ENCODER)
        store.upsert(IDS[:40], [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in tokens])
        report = store.verify()
        assert (report.checked, report.stale, report.passed) == (40, [], True)
