"""Sources: anything that holds token embeddings, read as a stream of documents."""

from muvera_adapters.plaid.source import Document
from muvera_adapters.sources.base import TokenSource
from muvera_adapters.sources.opening import open_queries, open_source

__all__ = ["Document", "TokenSource", "open_queries", "open_source"]
