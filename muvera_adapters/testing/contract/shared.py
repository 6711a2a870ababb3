"""Ids and payloads of the documents, and fixtures for the tests of several modules."""

from __future__ import annotations

from typing import Any

import pytest

from muvera_adapters.testing import Session
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER

IDS = list(range(COUNT))
PAYLOADS = [{"n": i, "parity": i % 2, "text": f"document {i}"} for i in IDS]
RERANKED = ["auto", "native", "client"]


@pytest.fixture(autouse=True)
def native_scoring(request: pytest.FixtureRequest, session: Session) -> None:
    """Skips tests with ``rerank="native"`` where the database does not compute MaxSim."""
    rerank = getattr(request.node, "callspec", None) and request.node.callspec.params.get("rerank")
    if rerank == "native" and not session.scores_natively():
        pytest.skip("the database has no MaxSim")


@pytest.fixture
def filled(session: Session) -> Any:
    """A collection of all documents with FDEs that are not quantized, so that answers are exact."""
    store = session.create("filled", ENCODER, **session.exact())
    report = store.upsert(IDS, DOCUMENTS, PAYLOADS)
    assert (report.written, report.failed) == (COUNT, {})
    return store
