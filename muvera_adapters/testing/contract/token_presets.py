"""Tests of tokens that are stored in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.stores.token_precision import ROUNDINGS
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES, best, estimates, truth

# maximum length of a rounding, as a multiple of the typical length
_LONGEST = 3


class TestTokenPresets:
    """Stored tokens may be rounded. FDEs are made from the exact tokens, and rounded tokens do not count as changed."""

    def test_every_way_of_storing_tokens(self, session: Session) -> None:
        """Scores, stored tokens and explanations are right up to the rounding, and ``verify`` finds nothing stale."""
        assert "float32" in session.token_presets()
        for preset in session.token_presets():
            allowed = _LONGEST * ROUNDINGS[preset].error or 1e-3  # type: ignore[index]  # a preset
            store = session.create(f"as_{preset}", ENCODER, **session.exact(), tokens=preset)
            assert store.upsert(IDS, DOCUMENTS).written == COUNT
            store = session.open(f"as_{preset}")
            for stored, given in zip(store.get(IDS, with_tokens=True), DOCUMENTS, strict=True):
                difference = np.linalg.norm(stored.tokens - given, axis=1)
                assert (difference <= allowed * np.linalg.norm(given, axis=1)).all(), preset
            assert store.verify().stale == []
            assert store.info().token_error == ROUNDINGS[preset].error  # type: ignore[index]  # a preset
            for query in QUERIES:
                first = store.search(query, 10, COUNT, rerank="none")
                assert [hit.id for hit in first] == best(estimates(query), 10), (
                    "FDEs must be made from the given tokens"
                )
                hits = store.search(query, 10, COUNT)
                expected = truth(query)[[hit.id for hit in hits]]
                # the rounding of the matched token changes the dot product of each query token
                assert np.allclose([hit.score for hit in hits], expected, rtol=0, atol=allowed * len(query)), preset
                client = store.search(query, 10, COUNT, rerank="client")
                by_id = {hit.id: hit.score for hit in client}
                shared = [hit for hit in hits if hit.id in by_id]
                assert len(shared) >= 8
                ours = [by_id[hit.id] for hit in shared]
                assert np.allclose([hit.score for hit in shared], ours, rtol=0, atol=allowed * len(query))
            explained = store.explain(QUERIES[2], hits[0])[0]
            assert explained is not None

    def test_other_ways_are_refused_before_anything_is_made(self, session: Session) -> None:
        """Values that no store has and values that this store does not have are both rejected."""
        with pytest.raises(InvalidInput, match="tokens must be one of float32"):
            session.create("other", ENCODER, tokens="float12")
        for preset in ROUNDINGS.keys() - set(session.token_presets()):
            with pytest.raises((InvalidInput, Unsupported), match=preset):
                session.create("other", ENCODER, tokens=preset)
        store = session.create("other", ENCODER, tokens="float32")
        assert store.count() == 0
