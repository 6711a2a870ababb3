"""Tests of writing, reading and deleting documents, and of ids and tokens."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS, PAYLOADS
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER, QUERIES, unit_rows
from muvera_core import FDEConfig, FDEEncoder, TokenBatch

SPELLINGS: dict[str, Callable[[uuid.UUID], str]] = {
    "hex": lambda u: u.hex,
    "capitals": lambda u: str(u).upper(),
    "urn": lambda u: u.urn,
    "braces": lambda u: f"{{{u}}}",
}


class TestDocuments:
    """Documents are read as they were written, only named ones are deleted, and bad ones are rejected or reported."""

    def test_every_kind_of_id_comes_back_as_it_was_given(self, session: Session) -> None:
        """Integers, strings and UUIDs come back as ids of the same type and value."""
        ids = [7, "doc/1", uuid.UUID(int=5), str(uuid.UUID(int=6)), "", "7", 2**64 - 1]
        store = session.create("ids", ENCODER)
        store.upsert(ids, DOCUMENTS[:7], PAYLOADS[:7])
        assert {hit.id for hit in store.search(QUERIES[0], 10, 20)} == set(ids)
        assert {hit.id for hit in store.search(QUERIES[0], 10, 20, with_payload=False)} == set(ids)
        assert {document.id for document in store.scroll()} == set(ids)
        documents = store.get(ids, with_tokens=True)
        assert [document.id for document in documents] == ids
        assert [document.payload for document in documents] == PAYLOADS[:7]
        store.delete(["doc/1", uuid.UUID(int=5)])
        assert {document.id for document in store.scroll()} == set(ids) - {"doc/1", uuid.UUID(int=5)}

    def test_get_keeps_the_order_and_tells_what_is_missing(self, filled: Any) -> None:
        """``get`` returns documents in the order of the ids, and None for ids that are not stored."""
        documents = filled.get([5, 1000, 3], with_tokens=True)
        assert documents[1] is None
        assert [documents[0].id, documents[2].id] == [5, 3]
        assert np.array_equal(documents[0].tokens, DOCUMENTS[5])
        assert filled.get([5])[0].tokens is None
        assert filled.get([]) == []

    def test_scroll_gives_every_document_once(self, session: Session, filled: Any) -> None:
        """``scroll`` yields every document exactly once, or every document that matches a filter."""
        documents = list(filled.scroll(with_tokens=True, page_size=7))
        assert sorted(document.id for document in documents) == IDS
        assert all(np.array_equal(document.tokens, DOCUMENTS[document.id]) for document in documents)
        assert all(document.payload == PAYLOADS[document.id] for document in documents)
        odd = filled.scroll(filter=session.equals("parity", 1), page_size=9)
        assert sorted(document.id for document in odd) == IDS[1::2]

    def test_a_second_upsert_replaces(self, filled: Any) -> None:
        """An upsert of a stored id replaces its tokens, its FDE and the payload keys that it names."""
        filled.upsert([3], [DOCUMENTS[4]], [{"n": 30, "parity": 0, "text": "another", "new": True}])
        assert filled.count() == COUNT
        (document,) = filled.get([3], with_tokens=True)
        assert document.payload == {"n": 30, "parity": 0, "text": "another", "new": True}
        assert np.array_equal(document.tokens, DOCUMENTS[4])
        hits = filled.search(DOCUMENTS[4], 2, COUNT)
        assert {hit.id for hit in hits} == {3, 4}

    def test_delete_by_filter_and_count_by_filter(self, session: Session, filled: Any) -> None:
        """``delete`` and ``count`` take a filter, and deleting an id that is not stored is not an error."""
        odd = session.equals("parity", 1)
        assert filled.count(filter=odd) == COUNT // 2
        filled.delete(filter=odd)
        assert (filled.count(), filled.count(filter=odd)) == (COUNT // 2, 0)
        filled.delete([0, 1000])
        assert filled.count() == COUNT // 2 - 1
        filled.delete([])
        assert filled.count() == COUNT // 2 - 1

    def test_what_is_deleted_must_be_named(self, session: Session, filled: Any) -> None:
        """``delete`` raises ``InvalidInput`` unless it gets exactly one of ids and a filter."""
        with pytest.raises(InvalidInput):
            filled.delete()
        with pytest.raises(InvalidInput):
            filled.delete([1], filter=session.equals("parity", 1))
        assert filled.count() == COUNT

    def test_a_filter_with_conditions_deletes_its_documents_only(self, session: Session, filled: Any) -> None:
        """With a filter that has conditions, ``everything=True`` deletes only the documents of the filter."""
        filled.delete(filter=session.equals("parity", 1), everything=True)
        assert sorted(document.id for document in filled.scroll()) == IDS[::2]

    def test_an_empty_filter_deletes_nothing_unless_everything_is_meant(self, session: Session, filled: Any) -> None:
        """``delete`` rejects a filter without conditions, unless ``everything=True`` says to delete all documents."""
        empty = session.empty_filter()
        if empty is not None:
            with pytest.raises(InvalidInput, match="everything=True"):
                filled.delete(filter=empty)
        with pytest.raises(InvalidInput):
            filled.delete([1], everything=True)
        assert filled.count() == COUNT
        filled.delete(filter=empty, everything=True)
        assert filled.count() == 0

    @pytest.mark.parametrize("kind", ["batch", "half", "lists", "generator"])
    def test_tokens_are_taken_in_every_form(self, session: Session, kind: str) -> None:
        """``upsert`` takes tokens as a ``TokenBatch``, as arrays of any float type, as lists, and from a generator."""
        some = DOCUMENTS[:5]
        tokens = {
            "batch": TokenBatch.from_list(some),
            "half": [matrix.astype(np.float16) for matrix in some],
            "lists": [matrix.tolist() for matrix in some],
            "generator": (matrix for matrix in some),
        }[kind]
        store = session.create("forms", ENCODER)
        assert store.upsert(range(5), tokens).written == 5
        stored = store.get(range(5), with_tokens=True)
        assert all(np.array_equal(d.tokens, matrix) for d, matrix in zip(stored, some, strict=True))

    @pytest.mark.parametrize(
        ("ids", "tokens", "payloads", "problem"),
        [
            ([1, 2], DOCUMENTS[:3], None, "2 ids, 3 token matrices"),
            ([1, 2], DOCUMENTS[:2], [{}], "1 payloads"),
            ([1, 1], DOCUMENTS[:2], None, "given twice, at positions 0 and 1"),
            ([1, -5], DOCUMENTS[:2], None, "position 1"),
            ([1, 2.5], DOCUMENTS[:2], None, "position 1"),
            ([1, 2], [DOCUMENTS[0], np.full((2, DIM), np.inf)], None, "document 1 .*NaN or infinite"),
            ([1, 2], [DOCUMENTS[0], np.zeros((2, DIM))], None, "document 1 .*token 0 is all zeros"),
            ([1, 2], [DOCUMENTS[0], np.ones((2, DIM + 1))], None, "document 1 .*width"),
            ([1, 2], DOCUMENTS[:2], [{}, {"x": object()}], "payload of document 1 .*key 'x'.*object cannot be stored"),
            ([1, 2], DOCUMENTS[:2], {"x": 1}, "payloads must be a list"),
        ],
    )
    def test_bad_documents_are_refused_before_anything_is_written(
        self, session: Session, ids: Any, tokens: Any, payloads: Any, problem: str
    ) -> None:
        """One bad document makes ``upsert`` raise ``InvalidInput`` with its position, and nothing is written."""
        store = session.create("refused", ENCODER)
        with pytest.raises(InvalidInput, match=problem):
            store.upsert(ids, tokens, payloads)
        assert store.count() == 0

    def test_documents_over_a_limit_of_the_database_are_refused_before_anything_is_written(
        self, session: Session
    ) -> None:
        """A document over a limit of the database makes ``upsert`` raise ``InvalidInput``, and nothing is written."""
        store = session.create("refused", ENCODER)
        for tokens, problem in session.over_limits():
            with pytest.raises(InvalidInput, match=f"document 1 .*{problem}"):
                store.upsert([1, 2], [DOCUMENTS[0], tokens])
        assert store.count() == 0

    def test_documents_whose_fde_overflows_are_reported(self, session: Session) -> None:
        """A document whose FDE overflows the stored type is reported as failed, and the others are written."""
        encoder = FDEEncoder(FDEConfig(dim=DIM, r_reps=2, k_sim=0, d_proj=4, normalize=False))
        store = session.create("overflow", encoder)
        huge = np.tile(np.float32(60_000) * np.sign(DOCUMENTS[0][:1] + 1e-9), (3, 1))
        report = store.upsert([1, 2, 3], [DOCUMENTS[0], huge, DOCUMENTS[1]])
        if session.fdes_are_float16():
            assert (report.written, list(report.failed)) == (2, [2])
            assert "float16" in report.failed[2]
        else:
            assert (report.written, report.failed) == (3, {})
        assert store.count() == report.written


class TestSpellingsOfIds:
    """Every spelling of a UUID that the database accepts names the same document."""

    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    def test_they_name_the_same_document(self, session: Session, spell: Callable[[uuid.UUID], str]) -> None:
        """``get``, ``upsert`` and ``delete`` take any spelling, and documents have the id as it was written."""
        if not session.takes_uuids():
            pytest.skip("the ids of the database are not UUIDs")
        one, two = uuid.UUID("1b4e28ba-2fa1-11d2-883f-0016d3cca427"), uuid.UUID(int=2**127 + 5)
        store = session.create("spelled", ENCODER)
        store.upsert([str(one), spell(two)], DOCUMENTS[:2], PAYLOADS[:2])
        assert {document.id for document in store.scroll()} == {str(one), spell(two)}
        assert {hit.id for hit in store.search(QUERIES[0])} == {str(one), spell(two)}
        found = store.get([spell(one), str(two), one])
        assert [None if document is None else document.payload for document in found] == [
            PAYLOADS[0],
            PAYLOADS[1],
            PAYLOADS[0],
        ]
        store.upsert([spell(one)], DOCUMENTS[2:3])
        assert store.count() == 2
        store.delete([spell(one), str(two)])
        assert store.count() == 0


class TestStoredTokens:
    """All-zero token vectors are rejected in new documents, and left out of the FDEs of stored documents."""

    @pytest.mark.parametrize("cosine", [False, True])
    def test_zero_rows_are_left_out_and_counted(self, session: Session, cosine: bool) -> None:
        """A backfill leaves all-zero token vectors out of the FDE, as MaxSim ignores them, and counts the documents."""
        zeros = np.zeros((2, DIM), np.float32)
        padded = [DOCUMENTS[0], np.vstack([DOCUMENTS[1], zeros]), np.vstack([zeros, DOCUMENTS[2]]), *DOCUMENTS[3:9]]
        session.foreign("pages", IDS[:9], padded, cosine=cosine)
        store = session.adopt("pages", ENCODER)
        report = store.backfill(**session.exact())
        assert (report.written, report.zero_rows, report.failed) == (9, 2, {})
        for i in (1, 2):
            for rerank in ("auto", "client", "none"):
                hit = store.search(DOCUMENTS[i], 1, 9, rerank=rerank, with_fde_score=True)[0]
                assert hit.id == i
                assert np.isfinite([hit.score, hit.fde_score]).all()
            own = float(ENCODER.encode_document(DOCUMENTS[i]) @ ENCODER.encode_query(DOCUMENTS[i]))
            assert hit.fde_score == pytest.approx(own, rel=1e-2)
        assert np.allclose(session.content("pages")[1][1]["colbert"][-2:], 0)

    def test_new_documents_choose(self, session: Session) -> None:
        """``upsert`` rejects all-zero token vectors and names the argument with which it drops and counts them."""
        store = session.create("padded", ENCODER)
        padded = [DOCUMENTS[0], np.vstack([DOCUMENTS[1], np.zeros((2, DIM), np.float32)])]
        with pytest.raises(InvalidInput, match=r"document 1 .*all zeros.*zero_rows='drop'"):
            store.upsert(IDS[:2], padded)
        assert store.count() == 0
        report = store.upsert(IDS[:2], padded, zero_rows="drop")
        assert (report.written, report.failed, report.zero_rows) == (2, {}, 2)
        assert np.array_equal(store.get([1], with_tokens=True)[0].tokens, DOCUMENTS[1])
        with pytest.raises(InvalidInput, match="document 0"):
            store.upsert([5], [np.zeros((2, DIM))], zero_rows="drop")


def test_large_loads_are_split_and_complete(session: Session) -> None:
    """An upsert larger than one request of the database is split, and every document is stored."""
    generator = np.random.default_rng(5)
    tokens = [unit_rows(generator, 1500) for _ in range(40)]  # 0.1 MB each as float32, 0.5 MB as JSON
    store = session.create("large", ENCODER)
    report = store.upsert([f"d{i}" for i in range(40)], tokens)
    assert (report.written, report.failed, store.count()) == (40, {}, 40)
    assert len(store.get([f"d{i}" for i in range(40)], with_tokens=True)[39].tokens) == 1500
