"""What the contract suite runs against: one line for every kind of store."""

from __future__ import annotations

from integration_tests.engines import lancedb, milvus, qdrant, weaviate
from muvera_adapters.testing import Engine

ENGINES: list[Engine] = [
    *qdrant.ENGINES,
    *weaviate.ENGINES,
    *milvus.ENGINES,
    *lancedb.ENGINES,
]
