"""Tests of fits of query FDEs to the documents of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import EncoderMismatch, InvalidInput, Unsupported
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS
from muvera_adapters.testing.corpus import (
    DOCUMENTS,
    ENCODER,
    FITTED_ENCODER,
    OTHER_ENCODER,
    QUERIES,
    best,
    sample,
    truth,
)
from muvera_core import FDEConfig, FDEEncoder, QueryFit


class TestQueryFits:
    """A fit corrects the first stage without changing the collection; fits that are impossible are rejected."""

    def test_a_fit_changes_the_first_stage_and_nothing_else(self, session: Session, tmp_path: Path) -> None:
        """A fit raises recall on held-out data, and ranks as numpy does with its vectors, also after save and load."""
        documents, queries, _ = sample()
        asked, documents = [document[:12] for document in documents[2::8]], documents[::4]
        # small and not scaled, as collections of other programs can be, so that there is a lot to correct
        encoder = FDEEncoder(FDEConfig(dim=128, r_reps=5, k_sim=3, d_proj=8, normalize=False))
        store = session.create("fitted", encoder, **session.exact())
        store.upsert(range(len(documents)), documents)
        before = store.search_batch(queries[:3], 10, len(documents))

        fit = store.fit_queries(asked, documents=len(documents))
        assert fit.report.gained
        assert (fit.report.fitted_documents, fit.report.judged_documents) == (200, 200)
        assert (fit.report.fitted_queries, fit.report.judged_queries) == (100, 100)
        assert fit.report.corrected[0] > fit.report.plain[0]
        fit.save(tmp_path / "fit.npz")
        loaded = QueryFit.load(tmp_path / "fit.npz")

        assert store.search_batch(queries[:3], 10, len(documents)) == before
        vectors = encoder.encode_documents(documents)
        for query, hits in zip(queries[:3], before, strict=True):
            first = store.search(query, 10, rerank="none", query_fit=fit)
            estimates = vectors @ fit.encode_queries(encoder, [query])[0]
            assert [hit.id for hit in first] == best(estimates, 10)
            assert np.allclose([hit.fde_score for hit in first], estimates[[hit.id for hit in first]], atol=1e-3)
            assert [hit.id for hit in first] != [hit.id for hit in store.search(query, 10, rerank="none")]
            assert store.search(query, 10, rerank="none", query_fit=loaded) == first
            # with all documents as candidates, MaxSim decides alone
            reranked = store.search(query, 10, len(documents), query_fit=fit)
            assert [(hit.id, hit.score) for hit in reranked] == [(hit.id, hit.score) for hit in hits]
            assert np.allclose(
                [hit.score for hit in hits], truth(query, documents)[[hit.id for hit in hits]], atol=1e-3
            )
        batch = store.search_batch(queries[:3], 5, 30, query_fit=fit)
        assert batch == [store.search(query, 5, 30, query_fit=fit) for query in queries[:3]]

    def test_a_fit_of_another_encoder_is_refused(self, filled: Any) -> None:
        """A search with a fit for another encoder raises ``EncoderMismatch``, which shows both fingerprints."""
        vectors = OTHER_ENCODER.encode_documents(DOCUMENTS)
        fit = QueryFit.fit(OTHER_ENCODER, DOCUMENTS, vectors, features=64, sample_tokens=200)
        both = f"{OTHER_ENCODER.fingerprint}.*{ENCODER.fingerprint}"
        with pytest.raises(EncoderMismatch, match=both):
            filled.search(QUERIES[0], query_fit=fit)
        with pytest.raises(EncoderMismatch, match=both):
            filled.search_batch(QUERIES, query_fit=fit)
        with pytest.raises(InvalidInput, match="query_fit must be a QueryFit"):
            filled.search(QUERIES[0], query_fit=OTHER_ENCODER)

    def test_what_cannot_be_fitted_is_refused(self, session: Session, filled: Any) -> None:
        """``fit_queries`` says what is missing: documents, queries, tokens, FDEs, or an encoder that sums tokens."""
        with pytest.raises(InvalidInput, match="only 80 documents"):
            filled.fit_queries()
        with pytest.raises(InvalidInput, match="5 queries are too few"):
            filled.fit_queries(QUERIES)
        with pytest.raises(InvalidInput, match="documents must be at least 100"):
            filled.fit_queries(documents=80)
        with pytest.raises(InvalidInput, match=r"query 3.*width"):
            filled.fit_queries([*[QUERIES[1]] * 3, QUERIES[0][:, 1:], *[QUERIES[1]] * 20])
        bare = session.create("fde_only", ENCODER, store_tokens=False)
        with pytest.raises(Unsupported, match="stores no tokens"):
            bare.fit_queries()
        regression = session.create("regression", FITTED_ENCODER)
        regression.upsert(range(120), [*DOCUMENTS, *DOCUMENTS[:40]])
        with pytest.raises(Unsupported, match="not sums over tokens"):
            regression.fit_queries()
        session.foreign("pages", IDS, DOCUMENTS)
        with pytest.raises(InvalidInput, match="backfill"):
            session.adopt("pages", ENCODER).fit_queries()
