"""Sources: anything that holds token embeddings, read as a stream of documents."""

from muvera_adapters.sources.base import SourceDocument, TokenSource
from muvera_adapters.sources.names import SourceWarning
from muvera_adapters.sources.opening import open_queries, open_source

__all__ = ["SourceDocument", "SourceWarning", "TokenSource", "open_queries", "open_source"]
