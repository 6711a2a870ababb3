"""Reads indexes of the PLAID family (ColBERT) without torch and without the model that made them."""

from muvera_adapters.plaid.detect import detect, open_index
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning, UnknownFormat
from muvera_adapters.plaid.source import IndexDocument, Source

__all__ = ["IndexDamaged", "IndexDocument", "IndexWarning", "Source", "UnknownFormat", "detect", "open_index"]
