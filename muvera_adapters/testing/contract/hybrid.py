"""Tests of searches with several lists of candidates, weights, groups and ``stop_after``, compared with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.fusion import RRF
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS, RERANKED
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES, best, estimates, truth, unit_rows

# unit length, so that dot product, cosine and Euclidean distance rank alike
_DENSE = unit_rows(np.random.default_rng(21), COUNT)[:, :4]
DENSE = (_DENSE / np.linalg.norm(_DENSE, axis=1, keepdims=True)).astype(np.float32)
#: query vectors of other searches
WANTED = DENSE[[7, 30, 51]]
#: numbers of candidates of the search over FDEs and of another search
PREFETCH, OTHERS = 12, 9


def lists(query: np.ndarray, vector: np.ndarray) -> tuple[list[int], list[int]]:
    """Documents that the search over FDEs finds, and those that the search in "dense" finds, best first."""
    return best(estimates(query), PREFETCH), best(DENSE @ vector, OTHERS)


def fused(ranks: list[list[int]], weights: tuple[float, ...]) -> dict[int, float]:
    """Scores by reciprocal ranks, with the constant 60."""
    scores: dict[int, float] = {}
    for ranking, weight in zip(ranks, weights, strict=True):
        for i, document in enumerate(ranking):
            scores[document] = scores.get(document, 0.0) + weight / (61 + i)
    return scores


class TestSeveralLists:
    """``also`` adds candidates of other searches, reranked, fused, filtered and reported like those of FDEs."""

    @pytest.fixture
    def store(self, session: Session) -> Any:
        """A collection of another program with FDEs, tokens, and a vector "dense"."""
        if not session.has_other_vectors():
            pytest.skip("the database cannot store other vectors than FDEs")
        session.foreign("lists", IDS, DOCUMENTS, fdes=ENCODER.encode_documents(DOCUMENTS), dense=DENSE)
        return session.adopt("lists", ENCODER, fde_vector="fde")

    @pytest.mark.parametrize("rerank", RERANKED)
    def test_the_union_is_reranked(self, session: Session, store: Any, rerank: str) -> None:
        """Hits are the best of all candidates by exact MaxSim, and say which searches found them."""
        for query, vector in zip(QUERIES, WANTED, strict=False):
            ours, others = lists(query, vector)
            also = [session.near_dense(vector, OTHERS)]
            hits = store.search(query, 8, PREFETCH, rerank=rerank, also=also, with_fde_score=True)
            scores = truth(query)
            expected = sorted({*ours, *others}, key=lambda i: -scores[i])[:8]
            assert [hit.payload["n"] for hit in hits] == expected
            assert np.allclose([hit.score for hit in hits], scores[expected], atol=1e-4)
            assert all(hit.reranked for hit in hits)
            found_by = [("fde",) * (i in ours) + ("dense",) * (i in others) for i in expected]
            known = [tuple(name for name in hit.found_by if name == "fde") for hit in hits]
            assert known == [names[:1] if names[0] == "fde" else () for names in found_by]
            assert [len(hit.found_by) for hit in hits] == [len(names) for names in found_by]
            assert [hit.fde_score is not None for hit in hits] == [i in ours for i in expected]
            assert hits.timings.candidates == len({*ours, *others})

    def test_pages_join_to_one_ranking(self, session: Session, store: Any) -> None:
        """Pages by ``offset`` join to the ranking that one search returns."""
        also = [session.near_dense(WANTED[0], OTHERS)]
        whole = store.search(QUERIES[1], 12, PREFETCH, also=also)
        pages = [store.search(QUERIES[1], 4, PREFETCH, also=also, offset=offset) for offset in (0, 4, 8)]
        assert [hit.id for page in pages for hit in page] == [hit.id for hit in whole]

    def test_the_filter_holds_for_all_lists(self, session: Session, store: Any) -> None:
        """A filter restricts every list; the filter of a further search restricts only its own list."""
        query, vector = QUERIES[2], WANTED[1]
        alone = store.search(
            query, 5, PREFETCH, filter=session.equals("n", 3), also=[session.near_dense(vector, OTHERS)]
        )
        assert [hit.payload["n"] for hit in alone] == [3]
        own = [session.near_dense(vector, OTHERS, session.equals("n", 30))]
        both = store.search(query, PREFETCH, PREFETCH, also=own)
        scores = truth(query)
        expected = sorted({*lists(query, vector)[0], 30}, key=lambda i: -scores[i])[:PREFETCH]
        assert [hit.payload["n"] for hit in both] == expected

    @pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.25)])
    @pytest.mark.parametrize("rerank", ["none", "client"])
    def test_ranks_are_fused(self, session: Session, store: Any, rerank: str, weights: tuple[float, ...]) -> None:
        """With ``fusion``, scores come from ranks: by FDEs, or by MaxSim if candidates are reranked."""
        query, vector = QUERIES[1], WANTED[2]
        ours, others = lists(query, vector)
        scores = truth(query)
        first = ours if rerank == "none" else sorted({*ours, *others}, key=lambda i: -scores[i])
        expected = fused([first, others], weights)
        fusion = "rrf" if weights == (1.0, 1.0) else RRF(weights=weights)
        also = [session.near_dense(vector, OTHERS)]
        hits = store.search(query, 8, PREFETCH, rerank=rerank, also=also, fusion=fusion)
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:8])
        assert [hit.score for hit in hits] == pytest.approx([expected[hit.payload["n"]] for hit in hits])
        assert all(hit.mean_score is None for hit in hits)

    def test_a_batch_has_searches_of_each_query(self, session: Session, store: Any) -> None:
        """``search_batch`` takes a list of searches, or None, for each query."""
        also = [[session.near_dense(WANTED[0], OTHERS)], None, [session.near_dense(WANTED[1], 4)]]
        options: dict[str, Any] = {"rerank": "none", "fusion": "rrf", "offset": 2}
        pages = store.search_batch(QUERIES[:2], 3, PREFETCH, also=also[:2], **options)
        first = store.search(QUERIES[0], 3, PREFETCH, also=also[0], **options)
        assert [hit.id for hit in pages[0]] == [hit.id for hit in first]
        assert [hit.payload["n"] for hit in pages[1]] == best(estimates(QUERIES[1]), 5)[2:]
        batch = store.search_batch(QUERIES[:3], 6, PREFETCH, also=also)
        single = [store.search(q, 6, PREFETCH, also=each) for q, each in zip(QUERIES, also, strict=False)]
        assert [[hit.id for hit in hits] for hits in batch] == [[hit.id for hit in hits] for hits in single]

    def test_what_makes_no_sense_is_refused(self, session: Session, store: Any) -> None:
        """Lists that cannot be joined, things that are not searches and wrong weights raise ``InvalidInput``."""
        also = [session.near_dense(WANTED[0], OTHERS)]
        calls: list[tuple[dict[str, Any], str]] = [
            ({"also": also, "rerank": "none"}, "fusion='rrf'"),
            ({"fusion": "rrf"}, "also"),
            ({"also": also, "fusion": "sum"}, "fusion must be"),
            ({"also": also, "fusion": RRF(weights=(1, 1, 1))}, "3 weights for 2 lists"),
            ({"with_payload": "n"}, "with_payload"),
            ({"also": [{"query": "text"}]}, r"also\[0\]"),
            ({"also": {"query": "text"}}, "also must be a list"),
        ]
        for options, problem in calls:
            with pytest.raises(InvalidInput, match=problem):
                store.search(QUERIES[0], **options)


class TestWeights:
    """``weights`` multiply the contribution of each query token to the score, in both stages."""

    WEIGHTS = (2.0, 0.0, 0.5)

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_scores_are_weighted(self, filled: Any, rerank: str) -> None:
        """Candidates come from the weighted FDE, scores are weighted MaxSim, and a weight of 0 drops a token."""
        query, weights = QUERIES[1], np.array(self.WEIGHTS)
        each = np.array([truth(token[None]) for token in query])
        first = np.array([estimates(token[None]) for token in query])
        hits = filled.search(query, 8, PREFETCH, rerank=rerank, weights=weights)
        candidates = best(weights @ first, PREFETCH)
        final = weights @ (first if rerank == "none" else each)
        expected = sorted(candidates, key=lambda i: -final[i])[:8]
        assert [hit.id for hit in hits] == expected
        assert np.allclose([hit.score for hit in hits], final[expected], atol=1e-4)
        assert np.allclose([hit.mean_score for hit in hits], final[expected] / 2.5, atol=1e-4)

    def test_exact_search_and_batches_take_weights(self, filled: Any) -> None:
        """``exact_search`` and each query of a batch can have weights."""
        weights = np.array(self.WEIGHTS)
        final = weights @ np.array([truth(token[None]) for token in QUERIES[1]])
        assert [hit.id for hit in filled.exact_search(QUERIES[1], 6, weights=weights)] == best(final, 6)
        batch = filled.search_batch([QUERIES[0], QUERIES[1]], 6, COUNT, weights=[None, weights])
        assert [hit.id for hit in batch[0]] == best(truth(QUERIES[0]), 6)
        assert [hit.id for hit in batch[1]] == best(final, 6)

    def test_tokens_compared_by_cosine_are_weighted_too(self, session: Session) -> None:
        """If tokens are compared by cosine, ``"auto"`` scores weighted queries in the client."""
        session.foreign("cosine", IDS, DOCUMENTS, cosine=True)
        store = session.adopt("cosine", ENCODER)
        store.backfill()
        weights = np.array(self.WEIGHTS)
        normal = [d / np.linalg.norm(d, axis=1, keepdims=True) for d in DOCUMENTS]
        query = QUERIES[1] / np.linalg.norm(QUERIES[1], axis=1, keepdims=True)
        final = weights @ np.array([truth(token[None], normal) for token in query])
        hits = store.search(QUERIES[1], 5, COUNT, weights=weights)
        assert np.allclose([hit.score for hit in hits], np.sort(final)[::-1][:5], atol=1e-3)

    @pytest.mark.parametrize(
        ("weights", "problem"),
        [
            ([1.0, 1.0], "3 tokens"),
            ([1.0, -1.0, 1.0], "token 1 is -1"),
            ([1.0, np.nan, 1.0], "token 1 is nan"),
            ([0.0, 0.0, 0.0], "all weights are 0"),
            (["a", 1, 1], "numbers"),
        ],
    )
    def test_bad_weights_are_refused(self, filled: Any, weights: Any, problem: str) -> None:
        """Weights that do not fit the query raise ``InvalidInput``, which says what is wrong."""
        with pytest.raises(InvalidInput, match=problem):
            filled.search(QUERIES[1], weights=weights)


class TestGroups:
    """``group_by`` returns the best hits for each value of a payload key."""

    @pytest.fixture
    def store(self, session: Session) -> Any:
        """A collection with ten documents for each of eight values of "document", and one document without the key."""
        store = session.create("groups", ENCODER, **session.exact())
        payloads = [{"document": f"d{i % 8}", "n": i} for i in IDS]
        payloads[5] = {"n": 5}
        assert store.upsert(IDS, DOCUMENTS, payloads).failed == {}
        return store

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    @pytest.mark.parametrize("size", [1, 2])
    def test_the_best_of_each_value(self, store: Any, rerank: str, size: int) -> None:
        """Groups are those of the ranked candidates, each of at most ``group_size``, and ``limit`` counts them."""
        query = QUERIES[2]
        ranking = store.search(query, COUNT, COUNT, rerank=rerank)
        expected: dict[Any, list[int]] = {}
        for hit in ranking:
            expected.setdefault(hit.payload.get("document", hit.id), []).append(hit.id)
        hits = store.search(query, 4, COUNT, rerank=rerank, group_by="document", group_size=size)
        assert [[hit.id for hit in group.hits] for group in hits.groups] == [e[:size] for e in expected.values()][:4]
        assert sorted(hit.id for hit in hits) == sorted(hit.id for group in hits.groups for hit in group.hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        lone = [group for group in hits.groups if group.hits[0].id == 5]
        assert all(group.value is None for group in lone)

    def test_all_candidates_make_groups(self, session: Session) -> None:
        """Groups are made from all candidates, including those of other searches."""
        if not session.has_other_vectors():
            pytest.skip("the database cannot store other vectors than FDEs")
        session.foreign("grouped", IDS, DOCUMENTS, fdes=ENCODER.encode_documents(DOCUMENTS), dense=DENSE)
        store = session.adopt("grouped", ENCODER, fde_vector="fde")
        also = [session.near_dense(WANTED[0], 30)]
        hits = store.search(QUERIES[0], COUNT, 5, also=also, group_by="n")
        ours = {*best(estimates(QUERIES[0]), 20), *best(DENSE @ WANTED[0], 30)}
        assert {hit.payload["n"] for hit in hits} >= ours

    def test_pages_and_payloads(self, store: Any) -> None:
        """``offset`` counts groups, and payloads are those that were asked for."""
        whole = store.search(QUERIES[0], 6, COUNT, group_by="document")
        pages = [store.search(QUERIES[0], 3, COUNT, group_by="document", offset=offset) for offset in (0, 3)]
        assert [hit.id for page in pages for hit in page] == [hit.id for hit in whole]
        assert store.search(QUERIES[0], 1, COUNT, group_by="document", with_payload=False)[0].payload is None
        shown = store.search(QUERIES[0], 1, COUNT, group_by="document", with_payload=["n"])[0]
        assert shown.payload == {"n": shown.id}

    def test_more_candidates_are_taken_where_groups_are_few(self, store: Any) -> None:
        """If the candidates have too few groups, the search takes more candidates until there are enough groups."""
        assert len(store.search(QUERIES[3], 8, 8, group_by="document").groups) >= 7

    def test_an_unknown_key_is_refused(self, store: Any) -> None:
        """A key that no candidate has raises ``InvalidInput``, which names the keys that there are."""
        with pytest.raises(InvalidInput, match=r"documnet.*document"):
            store.search(QUERIES[0], group_by="documnet")
        with pytest.raises(InvalidInput, match="group_size"):
            store.search(QUERIES[0], group_by="document", group_size=0)


class TestEarlyEnd:
    """``stop_after`` ends the second stage when further candidates do not change the best hits."""

    def test_slices_end_by_their_rule(self, filled: Any) -> None:
        """Candidates are scored in slices until a slice has none of the best hits; all scores are exact."""
        for query in QUERIES:
            scores, order = truth(query), best(estimates(query), COUNT)
            seen: list[int] = order[:6]
            position = 6
            while position < COUNT:
                some = order[position : position + 6]
                least = sorted((scores[i] for i in seen), reverse=True)[4]
                seen, position = [*seen, *some], position + 6
                if max(scores[i] for i in some) <= least:
                    break
            hits = filled.search(query, 5, COUNT, rerank="client", stop_after=6)
            assert [hit.id for hit in hits] == sorted(seen, key=lambda i: -scores[i])[:5]
            assert hits.timings.reranked == len(seen)
            assert hits.timings.token_bytes == sum(DOCUMENTS[i].nbytes for i in seen)

    def test_without_it_everything_is_scored(self, filled: Any) -> None:
        """Without ``stop_after``, or with a large one, all candidates are scored."""
        for options in ({}, {"stop_after": COUNT}):
            hits = filled.search(QUERIES[4], 5, 40, rerank="client", **options)
            assert (hits.timings.candidates, hits.timings.reranked) == (40, 40)
        assert filled.search(QUERIES[4], 5, 40, stop_after=4).timings.token_bytes  # "auto" became client
        with pytest.raises(InvalidInput, match="rerank='client'"):
            filled.search(QUERIES[4], stop_after=4, rerank="none")


class TestTimings:
    """``Hits.timings`` has the times of the stages of a search."""

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_stages_and_numbers(self, filled: Any, rerank: str) -> None:
        """The stages of a search have times, and candidates and requests are counted."""
        hits = filled.search(QUERIES[0], 5, 20, rerank=rerank, count_missing=False)
        timings = hits.timings
        assert timings.encode > 0
        assert timings.total > timings.encode
        assert timings.requests >= 1
        if rerank == "none":
            assert (timings.reranked, timings.second_stage) == (0, None)
        else:
            assert timings.candidates == timings.reranked
            assert timings.candidates in (20, None)  # None: the database does both stages in one request
            assert timings.second_stage

    def test_an_id_and_its_own_name_in_the_database(self, filled: Any) -> None:
        """``point_id`` returns the database's id of a document, a different one for each document."""
        assert len({filled.point_id(i) for i in IDS}) == COUNT
        with pytest.raises(InvalidInput):
            filled.point_id(1.5)
