"""Stores a document's text and metadata, which are separate in frameworks, as one payload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId


@dataclass(frozen=True)
class PayloadLayout:
    """Payload keys of the text and the metadata.

    Args:
        text_key: payload key with a document's text.
        metadata_key: payload key with a dictionary of the metadata; None: the metadata is the rest of the payload.
    """

    text_key: str = "text"
    metadata_key: str | None = None

    def __post_init__(self) -> None:
        if self.text_key == self.metadata_key:
            raise InvalidInput(f"text_key and metadata_key are both {self.text_key!r}; they must differ")

    def write(self, document_id: DocumentId, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a document.

        Raises:
            InvalidInput: the text is not a string, or the metadata has the key of the text.
        """
        if not isinstance(text, str):
            raise InvalidInput(f"text of document {document_id!r} must be a string, got a {type(text).__name__}")
        if self.metadata_key is not None:
            return {self.text_key: text, self.metadata_key: dict(metadata)}
        if self.text_key in metadata:
            raise InvalidInput(
                f"metadata of document {document_id!r} has the key {self.text_key!r}, which is that of the text in the "
                "payload: rename it, or choose another text_key, or a metadata_key"
            )
        return {self.text_key: text, **metadata}

    def read(self, document_id: DocumentId, payload: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Text and metadata of a document; the metadata is a new dictionary.

        Raises:
            InvalidInput: the payload has no text under ``text_key``, or no dictionary under ``metadata_key``.
        """
        rest = dict(payload or {})
        text = rest.pop(self.text_key, None)
        if not isinstance(text, str):
            keys = ", ".join(map(str, rest)) or "none"
            raise InvalidInput(
                f"document {document_id!r} has no text under {self.text_key!r} in its payload (keys: {keys}); "
                "set text_key, or write the text with upsert(payloads=...)"
            )
        if self.metadata_key is None:
            return text, rest
        metadata = rest.get(self.metadata_key)
        if not isinstance(metadata, Mapping | None):
            raise InvalidInput(
                f"document {document_id!r} has a {type(metadata).__name__} under {self.metadata_key!r} in its payload, "
                "where metadata_key expects a dictionary"
            )
        return text, dict(metadata or {})
