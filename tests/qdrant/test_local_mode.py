"""What qdrant-client's local mode needs of this library."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="install the extra: pip install 'muvera-adapters[qdrant]'")

from qdrant_client import QdrantClient
from qdrant_client.local.qdrant_local import QdrantLocal

from muvera_adapters.qdrant import QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder


def test_threads_never_meet_in_its_arrays(monkeypatch):
    """They know no threads: searches beside writes failed, and documents were lost and brought back."""
    inside = []

    def watched(name):
        original = getattr(QdrantLocal, name)

        def call(self, *arguments, **options):
            inside.append(name)
            time.sleep(0.005)
            try:
                assert len(inside) == 1, inside
                return original(self, *arguments, **options)
            finally:
                inside.remove(name)

        monkeypatch.setattr(QdrantLocal, name, call)

    tokens = list(np.random.default_rng(3).normal(size=(12, 4, 8)).astype(np.float32))
    store = QdrantMuvera.create(
        QdrantClient(":memory:"), "d", FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4))
    )
    store.upsert([100], [tokens[0]])
    for name in ("upsert", "query_points", "delete"):
        watched(name)

    def work(number):
        for i in range(number, 12, 4):
            assert store.upsert([i], [tokens[i]]).written == 1
            assert store.search(tokens[i], 3)
        store.delete([number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert {d.id for d in store.scroll()} == {100, *range(4, 12)}
