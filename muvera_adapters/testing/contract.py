"""What every store must do, compared with numpy on the same vectors.

Import everything into a test module that has a fixture ``session`` (see :mod:`muvera_adapters.testing`).
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    EncoderMismatch,
    InvalidInput,
    MissingFDEs,
    MuveraError,
    SchemaMismatch,
    Unsupported,
)
from muvera_adapters.stores.payloads import first_difference
from muvera_adapters.testing import Session
from muvera_adapters.testing.corpus import (
    CONFIG,
    COUNT,
    DIM,
    DOCUMENTS,
    ENCODER,
    FITTED_ENCODER,
    OTHER_ENCODER,
    QUERIES,
    best,
    estimates,
    sample,
    truth,
    two_stage,
    unit_rows,
)
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch, load_encoder

IDS = list(range(COUNT))
PAYLOADS = [{"n": i, "parity": i % 2, "text": f"document {i}"} for i in IDS]
RERANKED = ["auto", "native", "client"]
SPELLINGS: dict[str, Callable[[uuid.UUID], str]] = {
    "hex": lambda u: u.hex,
    "capitals": lambda u: str(u).upper(),
    "urn": lambda u: u.urn,
    "braces": lambda u: f"{{{u}}}",
}
#: vectors of others beside the tokens, (COUNT, 4)
DENSE = np.random.default_rng(12).normal(size=(COUNT, 4)).astype(np.float16).astype(np.float32)


@pytest.fixture(autouse=True)
def native_scoring(request: pytest.FixtureRequest, session: Session) -> None:
    """Skips tests with ``rerank="native"`` where the database does not compute MaxSim."""
    rerank = getattr(request.node, "callspec", None) and request.node.callspec.params.get("rerank")
    if rerank == "native" and not session.scores_natively():
        pytest.skip("the database has no MaxSim")


@pytest.fixture
def filled(session: Session) -> Any:
    """All documents, with FDEs that are not quantized: nothing is approximate, so answers are exact."""
    store = session.create("filled", ENCODER, **session.exact())
    report = store.upsert(IDS, DOCUMENTS, PAYLOADS)
    assert (report.written, report.failed) == (COUNT, {})
    return store


class TestSearch:
    """Searches find what numpy finds on the same vectors."""

    @pytest.mark.parametrize("rerank", RERANKED)
    @pytest.mark.parametrize("prefetch", [12, COUNT])
    def test_reranked_hits_are_the_best_candidates_by_exact_maxsim(
        self, filled: Any, rerank: str, prefetch: int
    ) -> None:
        """A search returns the best of its first-stage candidates by exact MaxSim, with MaxSim as their score."""
        for query in QUERIES:
            hits = filled.search(query, 8, prefetch, rerank=rerank)
            assert [hit.id for hit in hits] == two_stage(query, 8, prefetch)
            assert np.allclose([hit.score for hit in hits], truth(query)[[hit.id for hit in hits]], atol=1e-4)
            assert all(hit.reranked for hit in hits)
            assert hits.unscored == []

    def test_without_reranking_hits_are_ranked_by_fde(self, filled: Any) -> None:
        """With ``rerank="none"``, a search ranks by the dot product of FDEs."""
        for query in QUERIES:
            hits = filled.search(query, 8, rerank="none")
            assert [hit.id for hit in hits] == best(estimates(query), 8)
            assert np.allclose([hit.score for hit in hits], estimates(query)[[hit.id for hit in hits]], atol=1e-4)
            assert all(hit.fde_score == hit.score and not hit.reranked for hit in hits)

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_fde_scores_come_with_the_hits_when_asked_for(self, filled: Any, rerank: str) -> None:
        """With ``with_fde_score=True``, every hit has the dot product of FDEs as ``fde_score``."""
        hits = filled.search(QUERIES[1], 5, 30, rerank=rerank, with_fde_score=True)
        expected = estimates(QUERIES[1])[[hit.id for hit in hits]]
        assert np.allclose([hit.fde_score for hit in hits], expected, atol=1e-4)

    def test_exact_search_ranks_everything(self, filled: Any) -> None:
        """``exact_search`` ranks all documents by MaxSim."""
        for query in QUERIES:
            hits = filled.exact_search(query, 10)
            assert [hit.id for hit in hits] == best(truth(query), 10)
            assert np.allclose([hit.score for hit in hits], np.sort(truth(query))[::-1][:10], atol=1e-4)

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_a_filter_restricts_both_stages(self, session: Session, filled: Any, rerank: str) -> None:
        """A filter restricts the candidates, so that none of them is lost to documents that do not match."""
        odd = session.equals("parity", 1)
        hits = filled.search(QUERIES[2], 6, 15, rerank=rerank, filter=odd)
        scores = np.where(np.arange(COUNT) % 2 == 1, estimates(QUERIES[2]), -np.inf)
        candidates = best(scores, 15)
        final = scores if rerank == "none" else truth(QUERIES[2])
        assert [hit.id for hit in hits] == sorted(candidates, key=lambda i: -final[i])[:6]

    def test_a_filter_restricts_exact_search(self, session: Session, filled: Any) -> None:
        """A filter restricts ``exact_search``."""
        hits = filled.exact_search(QUERIES[2], 6, filter=session.equals("parity", 0))
        assert [hit.id for hit in hits] == best(np.where(np.arange(COUNT) % 2 == 0, truth(QUERIES[2]), -np.inf), 6)

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_pages_by_offset_join_to_one_ranking(self, filled: Any, rerank: str) -> None:
        """Pages by ``offset`` with the same ``prefetch`` join to the ranking that one search returns."""
        whole = filled.search(QUERIES[3], 12, 40, rerank=rerank)
        pages = [filled.search(QUERIES[3], 4, 40, rerank=rerank, offset=offset) for offset in (0, 4, 8)]
        assert [hit.id for page in pages for hit in page] == [hit.id for hit in whole]

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_an_offset_beyond_the_prefetch_still_has_hits(self, filled: Any, rerank: str) -> None:
        """A page that begins beyond ``prefetch`` has hits, as ``prefetch`` is raised where it is too small."""
        hits = filled.search(QUERIES[3], 4, 4, rerank=rerank, offset=8)
        assert len(hits) == 4

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_no_hit_is_below_the_threshold(self, filled: Any, rerank: str) -> None:
        """With ``score_threshold``, a search returns exactly the hits whose score reaches it."""
        whole = filled.search(QUERIES[0], 10, 40, rerank=rerank)
        threshold = (whole[3].score + whole[4].score) / 2
        hits = filled.search(QUERIES[0], 10, 40, rerank=rerank, score_threshold=threshold)
        assert [hit.id for hit in hits] == [hit.id for hit in whole[:4]]

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_payloads_and_tokens_are_selected(self, filled: Any, rerank: str) -> None:
        """``with_payload`` and ``with_tokens`` decide what comes with a hit, unchanged from how it was written."""

        def first(**options: Any) -> Any:
            return filled.search(QUERIES[0], 1, 20, rerank=rerank, **options)[0]

        hit = first(with_tokens=True)
        assert hit.payload == PAYLOADS[hit.id]
        assert np.array_equal(hit.tokens, DOCUMENTS[hit.id])
        assert first().tokens is None
        assert first(with_payload=False).payload is None
        assert first(with_payload=["text"]).payload == {"text": f"document {hit.id}"}

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_a_batch_gives_what_single_searches_give(self, filled: Any, rerank: str) -> None:
        """``search_batch`` returns what ``search`` returns for each query."""
        batch = filled.search_batch(QUERIES, 5, 20, rerank=rerank)
        assert batch == [filled.search(query, 5, 20, rerank=rerank) for query in QUERIES]
        assert filled.search_batch([], 5) == []

    def test_quantized_and_indexed_search_keeps_the_recall_of_the_first_stage(self, session: Session) -> None:
        """With quantized and indexed FDEs, a search finds at least 90 % of what an exact first stage finds."""
        store = session.create("quantized", ENCODER, **session.quantized())
        store.upsert(IDS, DOCUMENTS)
        store.wait_indexed()
        found = [[hit.id for hit in store.search(query, 10, 40)] for query in QUERIES]
        expected = [two_stage(query, 10, 40) for query in QUERIES]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)])
        assert recall >= 0.9

    def test_a_collection_without_tokens_searches_by_fde_alone(self, session: Session) -> None:
        """With ``store_tokens=False``, a search ranks by FDE, and whatever needs tokens raises ``InvalidInput``."""
        store = session.create("fde_only", ENCODER, store_tokens=False, **session.exact())
        store.upsert(IDS, DOCUMENTS)
        assert [hit.id for hit in store.search(QUERIES[0], 5)] == best(estimates(QUERIES[0]), 5)
        calls: list[Callable[[], Any]] = [
            lambda: store.search(QUERIES[0], rerank="native"),
            lambda: store.search(QUERIES[0], rerank="client"),
            lambda: store.exact_search(QUERIES[0]),
            lambda: store.get([1], with_tokens=True),
        ]
        for call in calls:
            with pytest.raises(InvalidInput, match="stores no tokens"):
                call()

    def test_an_empty_collection_has_no_hits(self, session: Session) -> None:
        """An empty collection can be searched and counted."""
        store = session.create("empty", ENCODER)
        assert store.search(QUERIES[0]) == []
        assert store.exact_search(QUERIES[0]) == []
        assert store.count() == 0

    @pytest.mark.parametrize(
        ("query", "problem"),
        [
            (np.full((2, DIM), np.nan), "NaN"),
            (np.zeros((2, DIM)), "all zeros"),
            (np.ones((2, DIM + 1)), "width"),
            (np.ones(DIM), "matrix"),
            (np.empty((0, DIM)), "no tokens"),
        ],
    )
    def test_a_query_that_cannot_be_scored_is_refused(self, filled: Any, query: Any, problem: str) -> None:
        """A query with bad values or a bad shape raises ``InvalidInput``, which says what is wrong."""
        for search in (filled.search, filled.exact_search):
            with pytest.raises(InvalidInput, match=problem):
                search(query)

    @pytest.mark.parametrize("options", [{"limit": 0}, {"prefetch": 0}, {"offset": -1}, {"rerank": "magic"}])
    def test_numbers_and_modes_are_checked(self, filled: Any, options: dict[str, Any]) -> None:
        """Numbers out of range and unknown modes raise ``InvalidInput``."""
        with pytest.raises(InvalidInput):
            filled.search(QUERIES[0], **options)


class TestDocumentsWithoutTokens:
    """A document that has an FDE but no tokens is found, and reported as not reranked."""

    @pytest.fixture
    def store(self, session: Session) -> Any:
        """20 documents, and one that has an FDE only."""
        session.create("lacking", ENCODER, **session.exact()).upsert(IDS[:20], DOCUMENTS[:20], PAYLOADS[:20])
        session.without_tokens("lacking", 99, ENCODER.encode_query(QUERIES[0]) * 10)
        return session.open("lacking")

    @pytest.mark.parametrize("rerank", RERANKED)
    def test_they_are_reported_and_follow_the_reranked_hits(self, store: Any, rerank: str) -> None:
        """Documents without tokens follow the reranked hits, and are listed in ``unscored``."""
        hits = store.search(QUERIES[0], 30, 30, rerank=rerank)
        assert [hit.id for hit in hits[:-1]] == best(truth(QUERIES[0], DOCUMENTS[:20]), 20)
        assert (hits[-1].id, hits[-1].reranked, hits[-1].payload) == (99, False, {"n": 99})
        assert hits[-1].score == hits[-1].fde_score
        assert [hit.id for hit in hits.unscored] == [99]

    @pytest.mark.parametrize("rerank", RERANKED)
    def test_they_are_reported_even_where_there_is_no_room(self, store: Any, rerank: str) -> None:
        """Documents without tokens are listed in ``unscored`` even where ``limit`` leaves no room for them."""
        hits = store.search(QUERIES[0], 3, 10, rerank=rerank)
        assert 99 not in [hit.id for hit in hits]
        assert len(hits) == 3
        assert [hit.id for hit in hits.unscored] == [99]

    @pytest.mark.parametrize("rerank", RERANKED)
    def test_pages_contain_them_once(self, store: Any, rerank: str) -> None:
        """Pages by ``offset`` contain a document without tokens exactly once."""
        pages = [store.search(QUERIES[0], 8, 30, rerank=rerank, offset=offset) for offset in (0, 8, 16)]
        ids = [hit.id for page in pages for hit in page]
        assert sorted(ids) == [*range(20), 99]

    def test_info_counts_them(self, store: Any) -> None:
        """``info`` counts documents without tokens."""
        assert store.info().without_tokens == 1


class TestDocuments:
    """Documents come back as they were written, and bad ones are rejected before anything is written."""

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


class TestCollections:
    """Collections remember their encoder and are protected from any other."""

    def test_open_rebuilds_the_encoder_and_finds_the_same(self, session: Session, filled: Any) -> None:
        """``open`` without an encoder rebuilds it from the collection, and finds the same."""
        expected = filled.search(QUERIES[1], 5, 30)
        opened = session.open("filled")
        assert opened.encoder.fingerprint == ENCODER.fingerprint
        assert opened.search(QUERIES[1], 5, 30) == expected
        assert session.open("filled", ENCODER).search(QUERIES[1], 5, 30) == expected

    def test_a_fitted_encoder_travels_with_the_collection(self, session: Session) -> None:
        """A fitted FDE encoder is kept with the collection, its state included."""
        fitted = FDEEncoder.fit(CONFIG, np.concatenate(DOCUMENTS) + 0.3)
        session.create("fitted", fitted).upsert(IDS[:9], DOCUMENTS[:9])
        opened = session.open("fitted")
        assert opened.encoder.fingerprint == fitted.fingerprint
        assert np.array_equal(opened.encoder.encode_query(QUERIES[0]), fitted.encode_query(QUERIES[0]))

    def test_another_encoder_is_an_error_that_shows_both(self, session: Session, filled: Any) -> None:
        """``open`` with another encoder raises ``EncoderMismatch`` with both fingerprints."""
        with pytest.raises(EncoderMismatch) as caught:
            session.open("filled", OTHER_ENCODER)
        assert ENCODER.fingerprint in str(caught.value)
        assert OTHER_ENCODER.fingerprint in str(caught.value)

    def test_create_never_touches_what_is_there(self, session: Session, filled: Any) -> None:
        """``create`` of a name that is taken raises ``CollectionExists`` and changes nothing."""
        with pytest.raises(CollectionExists):
            session.create("filled", OTHER_ENCODER)
        assert session.open("filled", ENCODER).count() == COUNT

    def test_what_is_not_there_cannot_be_opened(self, session: Session) -> None:
        """``open`` of a collection that does not exist raises ``CollectionNotFound``."""
        with pytest.raises(CollectionNotFound):
            session.open("nothing")

    def test_what_others_made_must_be_adopted(self, session: Session) -> None:
        """``open`` of a collection that another program made raises ``CollectionNotFound``, naming ``adopt``."""
        session.foreign("theirs", IDS[:3], DOCUMENTS[:3])
        with pytest.raises(CollectionNotFound, match=r"adopt|missing"):
            session.open("theirs")

    def test_drop_leaves_nothing(self, session: Session, filled: Any) -> None:
        """``drop`` removes the collection, so that its name can be used with another encoder."""
        filled.drop()
        with pytest.raises(MuveraError):
            session.open("filled")
        assert session.create("filled", OTHER_ENCODER).count() == 0

    def test_info_adds_up(self, session: Session, filled: Any) -> None:
        """``info`` has the true counts and sizes, and says after ``wait_indexed`` that all is indexed."""
        info = filled.info()
        assert (info.documents, info.without_fde, info.without_tokens) == (COUNT, 0, 0)
        assert (info.fde_dim, info.fingerprint) == (ENCODER.dim, ENCODER.fingerprint)
        assert info.fde_bytes == 4 * ENCODER.dim * COUNT
        floats = sum(matrix.size for matrix in DOCUMENTS)  # of two bytes or four; estimated from a sample
        assert floats < info.token_bytes < 8 * floats
        filled.wait_indexed()
        assert filled.info().indexed

    def test_encoders_too_long_for_the_database_are_refused(self, session: Session) -> None:
        """``create`` raises ``InvalidInput`` for an encoder with more dimensions than the database takes."""
        encoder = FDEEncoder(FDEConfig(dim=128, k_sim=7, d_proj=32, r_reps=20))
        with pytest.raises(InvalidInput, match="81920 dimensions"):
            session.create("long", encoder)
        with pytest.raises(CollectionNotFound):
            session.open("long")


class TestPartlyIndexed:
    """The normal state of every growing collection: a part has an index and codes, and what came last has not."""

    def test_documents_without_an_index_are_ranked_like_those_with_one(self, session: Session) -> None:
        """Recall among 20, 50 and 200 candidates is that of the same documents fully indexed, within .02."""
        documents, queries, encoder = sample()
        total, indexed = len(documents), len(documents) - 300
        no_index = session.unindexed(300, total) == total
        if no_index:
            queries = queries[:5]  # there is little to see, and each search goes through everything
        store = session.create("partly", encoder, **session.indexing(), **session.quantized())
        exact = [set(best(truth(query, documents), 10)) for query in queries]

        def recall() -> list[float]:
            """Share of the exact top 10 among 20, 50 and 200 candidates."""
            found = [store.search_batch(queries, n, n, rerank="none", with_payload=False) for n in (20, 50, 200)]
            hits = [[{hit.id for hit in hits} for hits in each] for each in found]
            return [float(np.mean([len(a & b) / 10 for a, b in zip(each, exact, strict=True)])) for each in hits]

        # in random order: the sample's is by module
        order = [int(i) for i in np.random.default_rng(3).permutation(total)]
        store.upsert(order[:indexed], [documents[i] for i in order[:indexed]])
        assert store.wait_indexed() == (indexed if no_index else session.unindexed(0, indexed))
        store.upsert(order[indexed:], [documents[i] for i in order[indexed:]])
        assert store.info().unindexed == session.unindexed(300, total)
        partly = recall()
        session.index_rest("partly")
        store.wait_indexed()
        wholly = recall()
        assert wholly[2] > 0.9
        assert all(a > b - 0.02 for a, b in zip(partly, wholly, strict=True))


class TestEncoderKeptInAFile:
    """A regression encoder, whose state is too large to be kept with the collection, can be used all the same."""

    @pytest.fixture
    def fitted(self, session: Session) -> Any:
        """All documents, with FDEs that are not quantized."""
        store = session.create("fitted", FITTED_ENCODER, **session.exact())
        report = store.upsert(IDS, DOCUMENTS, PAYLOADS)
        assert (report.written, report.failed) == (COUNT, {})
        return store

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_search(self, fitted: Any, rerank: str) -> None:
        """Searches with this encoder are exact too."""
        for query in QUERIES:
            hits = fitted.search(query, 8, 12, rerank=rerank, with_fde_score=True)
            expected = estimates(query, FITTED_ENCODER)
            found = best(expected, 8) if rerank == "none" else two_stage(query, 8, 12, FITTED_ENCODER)
            assert [hit.id for hit in hits] == found
            assert np.allclose([hit.fde_score for hit in hits], expected[found], atol=1e-4)

    def test_quantized_and_indexed_search_keeps_the_recall_of_the_first_stage(self, session: Session) -> None:
        """With quantized and indexed FDEs, a search finds at least 90 % of what an exact first stage finds."""
        store = session.create("quantized", FITTED_ENCODER, **session.quantized())
        store.upsert(IDS, DOCUMENTS)
        store.wait_indexed()
        found = [[hit.id for hit in store.search(query, 10, 40)] for query in QUERIES]
        expected = [two_stage(query, 10, 40, FITTED_ENCODER) for query in QUERIES]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)]) >= 0.9

    def test_it_is_opened_with_the_encoder_or_its_file(self, session: Session, fitted: Any, tmp_path: Path) -> None:
        """``open`` takes the encoder, or the encoder loaded from its file."""
        FITTED_ENCODER.save(tmp_path / "encoder.npz")
        expected = fitted.search(QUERIES[1], 8, 20)
        for encoder in (FITTED_ENCODER, load_encoder(tmp_path / "encoder.npz")):
            store = session.open("fitted", encoder)
            assert store.search(QUERIES[1], 8, 20) == expected
            assert store.info().fingerprint == FITTED_ENCODER.fingerprint
        store.upsert([500], [DOCUMENTS[4]])
        assert {hit.id for hit in store.search(DOCUMENTS[4], 2, COUNT)} == {4, 500}

    def test_without_it_the_error_says_what_to_do(self, session: Session, fitted: Any) -> None:
        """``open`` without the encoder raises ``EncoderMismatch``, which says how to load it."""
        with pytest.raises(EncoderMismatch, match=r"too big to travel.*load_encoder\(path\)") as caught:
            session.open("fitted")
        assert FITTED_ENCODER.fingerprint in str(caught.value)
        assert session.open("fitted", FITTED_ENCODER).count() == COUNT

    def test_another_encoder_is_refused(self, session: Session, fitted: Any) -> None:
        """``open`` with another encoder of any kind raises ``EncoderMismatch`` with both fingerprints."""
        other = RegressionEncoder.fit(DOCUMENTS, dim=64, features=128, seed=7)
        for encoder in (other, ENCODER):
            with pytest.raises(EncoderMismatch) as caught:
                session.open("fitted", encoder)
            assert encoder.fingerprint in str(caught.value)
            assert FITTED_ENCODER.fingerprint in str(caught.value)

    def test_an_existing_collection_is_backfilled(self, session: Session) -> None:
        """An adopted collection can be backfilled with this encoder."""
        session.foreign("pages", IDS, DOCUMENTS)
        store = session.adopt("pages", FITTED_ENCODER)
        report = store.backfill(**session.exact())
        assert (report.written, report.remaining, report.failed) == (COUNT, 0, {})
        assert report.verified > 0
        found = [hit.id for hit in session.adopt("pages", FITTED_ENCODER).search(QUERIES[2], 6, 12)]
        assert found == two_stage(QUERIES[2], 6, 12, FITTED_ENCODER)


class TestAdoption:
    """A collection that another program made gets two-stage search, and keeps everything that it had."""

    @pytest.mark.parametrize("cosine", [False, True])
    def test_an_existing_collection_gets_two_stage_search(self, session: Session, cosine: bool) -> None:
        """After ``adopt`` and ``backfill``, searches are exact, and payloads and tokens are as they were."""
        scaled = [3 * matrix for matrix in DOCUMENTS]
        session.foreign("pages", IDS, scaled, cosine=cosine)
        before = session.content("pages")
        store = session.adopt("pages", ENCODER)
        with pytest.raises(InvalidInput, match="backfill"):
            store.search(QUERIES[0])
        report = store.backfill(**session.exact())
        assert (report.written, report.remaining, report.without_tokens, report.failed) == (COUNT, 0, 0, {})
        assert report.verified > 0

        for query in QUERIES:
            query = query * np.linspace(1, 4, len(query), dtype=np.float32)[:, None]
            hits = store.search(query, 10, COUNT)
            unit = query / np.linalg.norm(query, axis=1, keepdims=True)
            documents = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in scaled] if cosine else scaled
            expected = truth(unit if cosine else query, documents)
            assert [hit.id for hit in hits] == best(expected, 10)
            assert np.allclose([hit.score for hit in hits], np.sort(expected)[::-1][:10], rtol=1e-3)
            client = store.search(query, 10, COUNT, rerank="client")
            assert np.allclose([hit.score for hit in client], [hit.score for hit in hits], rtol=1e-3)

        after = session.content("pages")
        assert after.keys() == before.keys()
        for point, (payload, vectors) in before.items():
            assert after[point][0] == payload
            # local mode normalises again whatever it writes under cosine distance
            assert np.allclose(after[point][1]["colbert"], vectors["colbert"], rtol=0, atol=1e-6 if cosine else 0)
            assert after[point][1].keys() == {"colbert", "fde"}
        assert session.open("pages").search(QUERIES[0], 3, COUNT) == session.adopt("pages", ENCODER).search(
            QUERIES[0], 3, COUNT
        )

    def test_documents_added_later_are_like_those_backfilled(self, session: Session) -> None:
        """An upsert after the backfill gives a document the FDE that the backfill gives it."""
        longest = max(IDS, key=lambda i: len(DOCUMENTS[i]))
        # under cosine distance it is the same document, however long its vectors are
        scaled = DOCUMENTS[longest] * np.linspace(1, 5, len(DOCUMENTS[longest]))[:, None]
        session.foreign("pages", IDS, DOCUMENTS, cosine=True)
        store = session.adopt("pages", ENCODER)
        store.backfill(**session.exact())
        store.upsert([500], [scaled])
        hits = {hit.id: hit for hit in store.search(DOCUMENTS[longest], 2, COUNT, with_fde_score=True)}
        assert hits.keys() == {longest, 500}
        assert hits[longest].fde_score == pytest.approx(hits[500].fde_score, rel=1e-3)

    def test_a_dry_run_writes_nothing_and_gives_sizes(self, session: Session) -> None:
        """``backfill(dry_run=True)`` writes nothing, and estimates bytes and time."""
        session.foreign("pages", IDS, DOCUMENTS)
        before = session.content("pages")
        report = session.adopt("pages", ENCODER).backfill(dry_run=True)
        assert report.dry_run
        assert (report.written, report.remaining) == (0, COUNT)
        assert report.fde_bytes == 4 * ENCODER.dim * COUNT
        assert 0.3 < report.read_bytes / (4 * sum(m.size for m in DOCUMENTS)) < 3
        assert report.seconds > 0
        after = session.content("pages")
        assert all(vectors.keys() == {"colbert"} for _, vectors in after.values())
        assert after.keys() == before.keys()
        with pytest.raises(CollectionNotFound):
            session.open("pages")

    def test_backfill_does_only_what_is_missing(self, session: Session) -> None:
        """A repeated backfill writes only documents that have no FDE."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector, so no document can lack it")
        session.foreign("pages", IDS[:50], DOCUMENTS[:50])
        assert session.adopt("pages", ENCODER).backfill().written == 50
        assert session.open("pages").backfill().written == 0
        session.foreign_write("pages", IDS[45:60], DOCUMENTS[45:60])  # 45 to 49 are replaced, which drops their FDE
        store = session.open("pages")
        assert store.info().without_fde == 15
        assert store.backfill().written == 15
        assert store.info().without_fde == 0

    def test_documents_that_cannot_be_encoded_are_reported(self, session: Session) -> None:
        """A backfill reports documents whose tokens cannot be encoded, and fills all others."""
        broken = DOCUMENTS[4].copy()
        broken[0, 3] = np.inf
        try:
            session.foreign("pages", [10, 11, 12, 13, 14], [*DOCUMENTS[:4], broken])
        except Exception as error:  # whatever a client raises
            pytest.skip(f"the database stores no infinite values: {error}")
        report = session.adopt("pages", ENCODER).backfill()
        assert report.written == 4
        assert list(report.failed) == [14]
        assert "NaN or infinite" in report.failed[14]

    def test_fdes_of_the_same_encoder_are_taken_over(self, session: Session) -> None:
        """``adopt`` takes over FDEs that were computed with the same encoder."""
        fdes = ENCODER.encode_documents(DOCUMENTS)
        session.foreign("theirs", IDS, DOCUMENTS, fdes=fdes)
        store = session.adopt("theirs", ENCODER)
        assert [hit.id for hit in store.search(QUERIES[2], 6, COUNT)] == best(truth(QUERIES[2]), 6)
        assert store.backfill().written == 0

    def test_fdes_of_fastembed_are_taken_over(self, session: Session) -> None:
        """``adopt`` takes over the FDEs of fastembed with its configuration, and rejects them with another."""
        muvera = pytest.importorskip("fastembed.postprocess").Muvera(dim=DIM, k_sim=3, dim_proj=8, r_reps=6)
        fdes = np.stack([muvera.process_document(matrix) for matrix in DOCUMENTS])
        session.foreign("theirs", IDS, DOCUMENTS, fdes=fdes)
        with pytest.raises(EncoderMismatch, match="median cosine"):
            session.adopt("theirs", ENCODER)
        same = FDEEncoder(FDEConfig.fastembed(DIM, k_sim=3, dim_proj=8, r_reps=6))
        assert len(session.adopt("theirs", same).search(QUERIES[0], 5)) == 5
        assert session.open("theirs").encoder.fingerprint == same.fingerprint

    @pytest.mark.parametrize(
        ("options", "dim", "problem"),
        [
            ({"tokens_vector": "wrong"}, DIM, "no vector 'wrong'; there are: 'colbert'"),
            ({}, 2 * DIM, f"'colbert' has {DIM} dimensions, the encoder takes {2 * DIM}"),
            ({"fde_vector": "colbert"}, DIM, "multivector, FDEs are single"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, session: Session, options: dict[str, Any], dim: int, problem: str
    ) -> None:
        """``adopt`` raises ``SchemaMismatch``, which names the vector that does not fit."""
        session.foreign("theirs", IDS[:3], DOCUMENTS[:3])
        encoder = FDEEncoder(FDEConfig(dim=dim, r_reps=6, k_sim=3, d_proj=8))
        with pytest.raises(SchemaMismatch, match=problem):
            session.adopt("theirs", encoder, **options)

    def test_an_adopted_collection_cannot_be_adopted_with_another_encoder(self, session: Session) -> None:
        """A second ``adopt`` with another encoder raises ``EncoderMismatch``."""
        session.foreign("theirs", IDS[:9], DOCUMENTS[:9])
        session.adopt("theirs", ENCODER).backfill()
        with pytest.raises(EncoderMismatch):
            session.adopt("theirs", OTHER_ENCODER)


def test_results_are_plain_values(filled: Any) -> None:
    """Hits contain plain Python values that JSON can express."""
    hit = filled.search(QUERIES[0], 1, with_fde_score=True)[0]
    assert json.dumps([hit.id, hit.score, hit.fde_score, dict(hit.payload)])
    assert type(hit.score) is float


def test_large_loads_are_split_and_complete(session: Session) -> None:
    """An upsert larger than one request of the database is split, and every document is stored."""
    generator = np.random.default_rng(5)
    tokens = [unit_rows(generator, 1500) for _ in range(40)]  # 0.1 MB each as float32, 0.5 MB as JSON
    store = session.create("large", ENCODER)
    report = store.upsert([f"d{i}" for i in range(40)], tokens)
    assert (report.written, report.failed, store.count()) == (40, {}, 40)
    assert len(store.get([f"d{i}" for i in range(40)], with_tokens=True)[39].tokens) == 1500


class TestWritesTouchOnlyWhatTheyName:
    """An upsert of a stored document changes what the call names, and nothing else, in every store by the same rule."""

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
        """With ``replace=True``, the document is what the call names."""
        if indexed:
            filled.wait_indexed()
        assert filled.upsert([3], [DOCUMENTS[4]], payloads, replace=True).failed == {}
        (document,) = filled.get([3], with_tokens=True)
        assert document.payload == expected
        assert np.array_equal(document.tokens, DOCUMENTS[4])
        assert filled.count() == COUNT

    def test_new_and_stored_documents_in_one_call(self, filled: Any) -> None:
        """Documents that are there are merged, and the others of the same call are written as they are."""
        report = filled.upsert([3, 500, "new"], DOCUMENTS[:3], [{"a": 1}, {"a": 2}, None])
        assert (report.written, report.failed, filled.count()) == (3, {}, COUNT + 2)
        found = filled.get([3, 500, "new"])
        assert [document.payload for document in found] == [{**PAYLOADS[3], "a": 1}, {"a": 2}, {}]

    @pytest.fixture
    def hybrid(self, session: Session) -> Any:
        """An adopted collection with a vector "dense" beside the tokens."""
        if not session.has_other_vectors():
            pytest.skip("the database keeps no other vectors beside FDEs")
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
        """``vectors=`` writes other vectors of the collection, and leaves those alone for which it has None."""
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
    """Documents that other programs write beside the store are found, or their number is told."""

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
        """``hits.without_fde`` counts documents that no search finds, and the first search warns of them."""
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
        """``fde_name`` and ``tokens_name`` are the names under which other programs write."""
        assert (pages.fde_name, pages.tokens_name) == ("fde", "colbert")

    def test_tokens_that_others_replaced_are_found_and_refreshed(self, session: Session, pages: Any) -> None:
        """``verify`` names documents whose FDE is of other tokens, and ``backfill(refresh=True)`` repairs them."""
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
        """``verify`` changes nothing, and ``limit`` restricts it to some documents."""
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


class TestStoredTokens:
    """What is strict for new documents is lenient for tokens that are stored already."""

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
        """``upsert`` refuses all-zero token vectors and names the argument, which drops and counts them."""
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


class TestSpellingsOfIds:
    """Every spelling of a UUID that the database accepts names the same document."""

    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    def test_they_name_the_same_document(self, session: Session, spell: Callable[[uuid.UUID], str]) -> None:
        """``get``, ``upsert`` and ``delete`` take any spelling, and the document shows the one it was written with."""
        if not session.takes_uuids():
            pytest.skip("the ids of the database are no UUIDs")
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


class TestPayloadsComeOutAsTheyWentIn:
    """Keys and values survive unchanged, or the document is refused and the key named."""

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({"text": "0b7f6c1e-9d0e-4b1a-8a56-3c5d9f1e2a47"}, {"text": "page 2"}),
            ({"text": "2024-01-02T03:04:05Z"}, {"text": "page 2"}),
            ({"text": "2024-01-02"}, {"text": ""}),
            ({"price": 0.1}, {"price": 1e300}),
            ({"flag": True}, {"flag": False}),
            ({"tags": ["a", "b"]}, {"tags": ["c"]}),
            ({"text": "straße \U0001f600 \u0000 \n"}, {"text": "x" * 3000}),
        ],
    )
    def test_plain_payloads(self, session: Session, first: dict[str, Any], second: dict[str, Any]) -> None:
        """Text, numbers, booleans and lists of text are stored by every store."""
        store = session.create("plain", ENCODER)
        for i, payload in enumerate((first, second)):
            assert store.upsert([i], DOCUMENTS[i : i + 1], [payload]).failed == {}
        found = store.get([0, 1])
        assert [first_difference(p, d.payload) for p, d in zip((first, second), found, strict=True)] == [None, None]

    @pytest.mark.parametrize(
        "payload",
        [
            {"Title": "x"},
            {"Title": "x", "title": "y"},
            {"id": "x"},
            {"vector": "x"},
            {"page-number": 3},
            {"file name": "x"},
            {"größe": 3},
            {"a.b": 1},
            {"_x": 1},
            {"number": 2**53 + 1},
            {"number": 2**63 - 1},
            {"number": -(2**63)},
            {"nested": {"a": {"b": [1, {"c": None}]}}},
            {"nested": {}},
            {"nothing": None},
            {"empty": []},
            {"mixed": [1, "a", None]},
            {"lists": [[1, 2], [3]]},
            {"objects": [{"a": 1}, {"b": "x"}]},
        ],
        ids="-".join,
    )
    def test_unusual_payloads(self, session: Session, payload: dict[str, Any]) -> None:
        """A payload comes back as it was given, or the document is refused with the key named."""
        self._check(session, payload, payload)

    @pytest.mark.parametrize(
        ("payload", "expected"),
        [
            (
                {"day": datetime.date(2024, 1, 2), "at": datetime.datetime(2024, 1, 2, 3, 4, 5)},
                {"day": "2024-01-02", "at": "2024-01-02T03:04:05"},
            ),
            ({"owner": uuid.UUID(int=7)}, {"owner": "00000000-0000-0000-0000-000000000007"}),
            (
                {"array": np.arange(3), "half": np.float16(0.5), "whole": np.int64(7)},
                {"array": [0, 1, 2], "half": 0.5, "whole": 7},
            ),
        ],
        ids=["dates", "uuid", "numpy"],
    )
    def test_payloads_that_are_converted(
        self, session: Session, payload: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        """Values that are not JSON come back as documented."""
        self._check(session, payload, expected)

    def _check(self, session: Session, payload: dict[str, Any], expected: dict[str, Any]) -> None:
        store = session.create("unusual", ENCODER)
        try:
            report = store.upsert([1, 2], DOCUMENTS[:2], [payload, {"n": 2}])
        except InvalidInput as error:
            refused = str(error)
        else:
            refused = report.failed.get(1, "")
            assert 2 not in report.failed
        if refused:
            assert any(key in refused for key in payload), refused
            return
        found = store.get([1])[0].payload
        assert found == expected
        # as text, 2.0 is not 2 and true is not 1
        assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)

    def test_a_second_type_under_the_same_key(self, session: Session) -> None:
        """A key may have a number in one document and text in the next, or the second is refused with the key named."""
        store = session.create("types", ENCODER)
        assert store.upsert([1], DOCUMENTS[:1], [{"page": 3}]).failed == {}
        try:
            refused = store.upsert([2], DOCUMENTS[1:2], [{"page": "iv"}]).failed.get(2, "")
        except InvalidInput as error:
            refused = str(error)
        if refused:
            assert "page" in refused
        else:
            assert [document.payload for document in store.get([1, 2])] == [{"page": 3}, {"page": "iv"}]

    @pytest.mark.parametrize("value", [b"x", {"a", "b"}, {1: "x"}, datetime.timedelta(1)])
    def test_what_is_no_json_is_refused_before_anything_is_sent(self, session: Session, value: Any) -> None:
        """The error names the document and the path of the key."""
        store = session.create("refused", ENCODER)
        with pytest.raises(InvalidInput, match=r"payload of document 1 \(id 'b'\), key 'a\.b\[1\]'"):
            store.upsert(["a", "b"], DOCUMENTS[:2], [{"n": 1}, {"a": {"b": [0, value]}}])
        assert store.count() == 0

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, "a \ud83d b"])
    def test_a_value_that_cannot_be_stored_is_its_documents_fault(self, session: Session, value: Any) -> None:
        """The document is in ``failed`` with the path of the key, and the others are written."""
        store = session.create("values", ENCODER)
        report = store.upsert(["a", "b", "c"], DOCUMENTS[:3], [{"n": 1}, {"a": {"b": [0, value]}}, {"n": 3}])
        assert report.written == 2
        assert list(report.failed) == ["b"]
        assert "key 'a.b[1]'" in report.failed["b"]
        assert [document and document.payload for document in store.get(["a", "b", "c"])] == [{"n": 1}, None, {"n": 3}]


class TestErrors:
    """Wrong arguments are InvalidInput, which says what to do."""

    def test_a_config_is_not_an_encoder(self, session: Session) -> None:
        """``create``, ``open`` and ``adopt`` say how to make an encoder of a config."""
        session.foreign("theirs", IDS[:3], DOCUMENTS[:3])
        calls: list[Callable[[], Any]] = [
            lambda: session.create("new", CONFIG),
            lambda: session.adopt("theirs", CONFIG),
        ]
        session.create("own", ENCODER)
        calls.append(lambda: session.open("own", CONFIG))
        for call in calls:
            with pytest.raises(InvalidInput, match=r"FDEEncoder\(config\)"):
                call()
        with pytest.raises(CollectionNotFound):
            session.open("new")

    @pytest.mark.parametrize("options", [{"prefetch": "many"}, {"limit": 2.5}, {"offset": None}])
    def test_numbers_are_numbers(self, filled: Any, options: dict[str, Any]) -> None:
        """Options that are not integers raise ``InvalidInput``."""
        with pytest.raises(InvalidInput):
            filled.search(QUERIES[0], **options)

    def test_another_encoder_is_told_by_what_differs(self, session: Session, filled: Any) -> None:
        """``EncoderMismatch`` names the fields that differ, with both values."""
        with pytest.raises(EncoderMismatch, match="seed=42 there, 7 given"):
            session.open("filled", OTHER_ENCODER)


class TestOwnership:
    """A store can be closed and shown; the client stays its user's."""

    def test_a_closed_store_leaves_the_database_open(self, session: Session, filled: Any) -> None:
        """``close`` may be called twice, ``with`` closes, and another store goes on afterwards."""
        with session.open("filled") as store:
            assert store.count() == COUNT
        store.close()
        assert session.open("filled").count() == COUNT

    def test_it_is_shown_with_name_and_encoder(self, filled: Any) -> None:
        """``repr`` has the name of the collection, and the fingerprint and size of its encoder."""
        shown = repr(filled)
        assert filled.name in shown
        assert ENCODER.fingerprint[:8] in shown
        assert str(ENCODER.dim) in shown


class TestInAndOutAgain:
    """An adoption can be repeated with another encoder, and undone."""

    def test_a_second_encoder_beside_the_first(self, session: Session) -> None:
        """``adopt`` with another ``fde_vector`` adds FDEs of another encoder beside those that are there."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector")
        session.foreign("pages", IDS, DOCUMENTS)
        first = session.adopt("pages", ENCODER)
        assert first.backfill(**session.exact()).written == COUNT
        second = session.adopt("pages", OTHER_ENCODER, fde_vector="fde_v2")
        report = second.backfill(**session.exact())
        assert (report.written, report.failed) == (COUNT, {})
        assert second.encoder.fingerprint == OTHER_ENCODER.fingerprint
        found = [hit.id for hit in second.search(QUERIES[2], 6, 12)]
        assert found == two_stage(QUERIES[2], 6, 12, OTHER_ENCODER)
        content = session.content("pages")
        assert all({"colbert", "fde", "fde_v2"} <= vectors.keys() for _, vectors in content.values())

    def test_an_adoption_can_be_undone(self, session: Session) -> None:
        """``remove_fde`` leaves the collection as it was, so far as the database can drop a vector."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector")
        session.foreign("pages", IDS[:20], DOCUMENTS[:20])
        before = session.content("pages")
        store = session.adopt("pages", ENCODER)
        store.backfill()
        if session.removes_fdes():
            store.remove_fde()
        else:
            with pytest.raises(Unsupported, match="fde"):
                store.remove_fde()
        with pytest.raises(CollectionNotFound):
            session.open("pages")
        after = session.content("pages")
        assert after.keys() == before.keys()
        for i, (payload, vectors) in before.items():
            assert after[i][0] == payload
            assert np.allclose(after[i][1]["colbert"], vectors["colbert"])
            assert after[i][1].keys() == vectors.keys() or not session.removes_fdes()
        assert session.adopt("pages", OTHER_ENCODER).backfill().written == 20

    def test_a_filter_with_conditions_deletes_its_documents_only(self, session: Session, filled: Any) -> None:
        """``everything=True`` means the documents of the filter, where it has conditions."""
        filled.delete(filter=session.equals("parity", 1), everything=True)
        assert sorted(document.id for document in filled.scroll()) == IDS[::2]

    def test_an_empty_filter_deletes_nothing_unless_everything_is_meant(self, session: Session, filled: Any) -> None:
        """``delete`` refuses a filter without conditions, and ``everything=True`` deletes all documents."""
        empty = session.empty_filter()
        if empty is not None:
            with pytest.raises(InvalidInput, match="everything=True"):
                filled.delete(filter=empty)
        with pytest.raises(InvalidInput):
            filled.delete([1], everything=True)
        assert filled.count() == COUNT
        filled.delete(filter=empty, everything=True)
        assert filled.count() == 0
