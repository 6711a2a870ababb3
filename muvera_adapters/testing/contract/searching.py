"""Tests of searches, compared with numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS, PAYLOADS, RERANKED
from muvera_adapters.testing.corpus import (
    COUNT,
    DIM,
    DOCUMENTS,
    ENCODER,
    QUERIES,
    best,
    estimates,
    sample,
    truth,
    two_stage,
)


class TestSearch:
    """Searches find what numpy finds on the same vectors, and bad queries and options are rejected."""

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
        """A filter restricts the candidates, so that no candidates are wasted on documents that do not match."""
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
        """A page that begins beyond ``prefetch`` has hits, because ``prefetch`` is raised if it is too small."""
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
        """``with_payload`` and ``with_tokens`` select what a hit contains, and it is unchanged."""

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
        """With the codes that ``create`` chooses, an indexed search finds 90 % of the hits of an exact first stage."""
        store = session.create("quantized", ENCODER)
        store.upsert(IDS, DOCUMENTS)
        store.wait_indexed()
        found = [[hit.id for hit in store.search(query, 10, 40)] for query in QUERIES]
        expected = [two_stage(query, 10, 40) for query in QUERIES]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)])
        assert recall >= 0.9

    def test_a_collection_without_tokens_searches_by_fde_alone(self, session: Session) -> None:
        """With ``store_tokens=False``, a search ranks by FDE, and all uses of tokens raise ``InvalidInput``."""
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
    """A document that has an FDE but no tokens is found, counted, and reported as not reranked."""

    @pytest.fixture
    def store(self, session: Session) -> Any:
        """A collection with 20 documents, and one document that has only an FDE."""
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


class TestPartlyIndexed:
    """A growing collection is only partly indexed: the latest documents have no index and no codes yet."""

    def test_documents_without_an_index_are_ranked_like_those_with_one(self, session: Session) -> None:
        """Recall among 20, 50 and 200 candidates is within .02 of the recall after everything is indexed.

        FDEs have the codes that ``create`` chooses for 2,560 dimensions.
        """
        documents, queries, encoder = sample()
        total, indexed = len(documents), len(documents) - 300
        no_index = session.unindexed(300, total) == total
        if no_index:
            queries = queries[:5]  # every search is exact and slow there, so a few queries are enough
        store = session.create("partly", encoder, **session.indexing())
        exact = [set(best(truth(query, documents), 10)) for query in queries]

        def recall() -> list[float]:
            """Share of the exact top 10 among 20, 50 and 200 candidates."""
            found = [store.search_batch(queries, n, n, rerank="none", with_payload=False) for n in (20, 50, 200)]
            hits = [[{hit.id for hit in hits} for hits in each] for each in found]
            return [float(np.mean([len(a & b) / 10 for a, b in zip(each, exact, strict=True)])) for each in hits]

        # in random order, because the sample is ordered by module
        order = [int(i) for i in np.random.default_rng(3).permutation(total)]
        store.upsert(order[:indexed], [documents[i] for i in order[:indexed]])
        expected, left = indexed if no_index else session.unindexed(0, indexed), store.wait_indexed()
        # a server indexes during a load, and may leave the last few documents for the next segment
        few = 0 if expected is None or left is None else left - expected
        assert (left is None, 0 <= few < 50) == (expected is None, True)
        store.upsert(order[indexed:], [documents[i] for i in order[indexed:]])
        expected, left = session.unindexed(300, total), store.info().unindexed
        assert left == expected or (left is not None and expected is not None and expected <= left <= expected + few)
        partly = recall()
        session.index_rest("partly")
        store.wait_indexed()
        wholly = recall()
        assert wholly[2] > 0.9
        assert all(a > b - 0.02 for a, b in zip(partly, wholly, strict=True))


def test_results_are_plain_values(filled: Any) -> None:
    """Hits contain plain Python values that JSON can express."""
    hit = filled.search(QUERIES[0], 1, with_fde_score=True)[0]
    assert json.dumps([hit.id, hit.score, hit.fde_score, dict(hit.payload)])
    assert type(hit.score) is float
