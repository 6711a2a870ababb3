"""Adapters that bring MUVERA two-stage search to Qdrant, Weaviate and Milvus."""
