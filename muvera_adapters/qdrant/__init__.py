"""Qdrant: a server, qdrant-client's local mode, or the embedded engine Qdrant Edge."""

from muvera_adapters.qdrant.edge import QdrantEdgeMuvera

__all__ = ["QdrantEdgeMuvera"]
