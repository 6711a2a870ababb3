"""Reads PLAID-family indexes (ColBERT) without torch and without the model that made them."""

from muvera_adapters.plaid.errors import IndexDamaged, UnknownFormat
from muvera_adapters.plaid.source import Document, Source, open_index

__all__ = ["Document", "IndexDamaged", "Source", "UnknownFormat", "open_index"]
