"""Tests of explanations of scores, compared with searches and with numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER, QUERIES, truth


class TestExplanations:
    """``explain`` breaks down the score of a document, from its stored tokens."""

    def test_contributions_sum_to_the_score_of_a_search(self, filled: Any) -> None:
        """For hits with and without tokens, contributions sum to ``score``, and matches are those that numpy finds."""
        for query in QUERIES:
            hits = filled.search(query, 6, COUNT, with_tokens=True)
            hits[1::2] = [replace(hit, tokens=None) for hit in hits[1::2]]
            explained = filled.explain(query, hits, best=3)
            assert [one.id for one in explained] == [hit.id for hit in hits]
            for one, hit in zip(explained, hits, strict=True):
                similarities = query @ DOCUMENTS[hit.id].T
                assert sum(match.contribution for match in one.matches) == pytest.approx(hit.score, abs=1e-4)
                assert one.score == pytest.approx(hit.score, abs=1e-4)
                assert sum(match.share for match in one.matches) == pytest.approx(1)
                assert one.similarities.dtype == np.float32
                assert np.allclose(one.similarities, similarities, atol=1e-5)
                assert [match.query_token for match in one.matches] == list(range(len(query)))
                assert [match.document_token for match in one.matches] == similarities.argmax(axis=1).tolist()
                assert all(len(match.best) == min(3, len(DOCUMENTS[hit.id])) for match in one.matches)

    def test_ids_hits_and_weights(self, filled: Any) -> None:
        """Lists of ids (also repeated ones) and hits are explained in order, and single ones too; None for unknown ids.

        Weights multiply similarities, and do not change which tokens match.
        """
        hit = filled.search(QUERIES[1], 1)[0]
        explained = filled.explain(QUERIES[1], [7, hit, 5_000, 7])
        assert [one and one.id for one in explained] == [7, hit.id, None, 7]
        assert explained[0] == explained[3]
        assert filled.explain(QUERIES[1], 7) == explained[:1]
        assert filled.explain(QUERIES[1], hit) == explained[1:2]
        assert filled.explain(QUERIES[1], []) == []

        weights = [0, 0.5, 2]
        (one,) = filled.explain(QUERIES[1], 7, weights=weights)
        expected = [weight * match.similarity for weight, match in zip(weights, explained[0].matches, strict=True)]
        assert [match.contribution for match in one.matches] == pytest.approx(expected)
        assert one.score == pytest.approx(sum(expected))
        assert [match.best for match in one.matches] == [match.best for match in explained[0].matches]

    @pytest.mark.parametrize("cosine", [False, True])
    def test_tokens_of_other_programs(self, session: Session, cosine: bool) -> None:
        """Contributions sum to the score in an adopted collection, also with padding that other programs stored."""
        scaled = [3 * matrix for matrix in DOCUMENTS[:20]]
        scaled[4] = np.vstack([scaled[4], np.zeros((2, DIM), np.float32)])
        session.foreign("pages", IDS[:20], scaled, cosine=cosine)
        store = session.adopt("pages", ENCODER)
        # other lengths, which float16 still represents exactly
        query = QUERIES[2] * np.array([1, 2, 4, 1, 2, 4], np.float32)[:, None]
        hits = store.exact_search(query, 20)
        assert len(hits) == 20
        ids = [session.foreign_id(hit.id) for hit in hits]
        for one, document_id, hit in zip(store.explain(query, ids), ids, hits, strict=True):
            assert one.id == document_id
            assert sum(match.contribution for match in one.matches) == pytest.approx(hit.score, abs=1e-4)
            if cosine:
                assert np.abs(one.similarities).max() <= 1 + 1e-5

    def test_a_document_without_tokens_has_no_explanation(self, session: Session) -> None:
        """The list has None for a document without tokens, and explanations for the others."""
        session.create("lacking", ENCODER, **session.exact()).upsert(IDS[:3], DOCUMENTS[:3])
        session.without_tokens("lacking", 99, ENCODER.encode_query(QUERIES[0]))
        first, second = session.open("lacking").explain(QUERIES[0], [99, 2])
        assert first is None
        assert second.score == pytest.approx(truth(QUERIES[0])[2], abs=1e-4)

    def test_what_cannot_be_explained_is_an_error(self, session: Session, filled: Any) -> None:
        """Bad queries, weights, numbers, ids and tokens raise ``InvalidInput``, which says what is wrong."""
        query = QUERIES[1]
        foreign = replace(filled.search(query, 1)[0], tokens=np.ones((2, DIM + 1), np.float32))
        fde_only = session.create("fde_only", ENCODER, store_tokens=False)
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("width", lambda: filled.explain(np.ones((2, DIM + 1)), 1)),
            ("3 tokens", lambda: filled.explain(query, 1, weights=[1, 1])),
            ("token 2 is -1", lambda: filled.explain(query, 1, weights=[1, 1, -1])),
            ("token 0 is nan", lambda: filled.explain(query, 1, weights=[np.nan, 1, 1])),
            ("all weights are 0", lambda: filled.explain(query, 1, weights=[0, 0, 0])),
            ("best must be", lambda: filled.explain(query, 1, best=0)),
            ("document 1 is a float", lambda: filled.explain(query, [1, 2.5])),
            (r"document 1 .*width", lambda: filled.explain(query, [1, foreign])),
            ("stores no tokens", lambda: fde_only.explain(query, 1)),
        ]
        for problem, call in calls:
            with pytest.raises(InvalidInput, match=problem):
                call()
