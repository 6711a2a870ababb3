"""What a migration will take, before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from muvera_adapters.databases import spec_of
from muvera_adapters.errors import InvalidInput
from muvera_adapters.sources.base import TokenSource
from muvera_adapters.stores.checks import without_zero_rows
from muvera_adapters.stores.database import Target
from muvera_adapters.stores.sizes import Part, Planned, disk_of, ram_of
from muvera_core import Encoder

_SAMPLE = 256


@dataclass(frozen=True, slots=True)
class MigrationEstimate:
    """Sizes are those of a collection made with the defaults, without payloads.

    Attributes:
        documents: number of documents to migrate, those that conditions leave out included.
        tokens: number of their tokens.
        exact: ``tokens`` is known, not scaled up from the first documents.
        dim: dimensions of an FDE.
        token_dim: dimensions of a token vector.
        source_bytes: bytes of the source's files, 0 for a collection.
        parts: parts of the collection in the target.
        encode_seconds: seconds to read and encode the documents, from a timed first batch; the database's time comes
            on top.
        longest: number of tokens of the longest document of that batch.
    """

    documents: int
    tokens: int
    exact: bool
    dim: int
    token_dim: int
    source_bytes: int
    parts: list[Part]
    encode_seconds: float
    longest: int

    @property
    def fde_bytes(self) -> int:
        """Bytes of the FDEs on disk."""
        return disk_of(self.parts, "encodings")

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of the FDEs on disk."""
        return disk_of(self.parts, "codes")

    @property
    def token_bytes(self) -> int:
        """Bytes of the token vectors on disk."""
        return disk_of(self.parts, "tokens")

    @property
    def other_bytes(self) -> int:
        """Bytes of everything else on disk: indexes, ids, logs."""
        return disk_of(self.parts, "other")

    @property
    def total_bytes(self) -> int:
        """Bytes of all parts on disk."""
        return disk_of(self.parts)

    @property
    def ram_bytes(self) -> int:
        """Bytes of all parts in memory."""
        return ram_of(self.parts)

    def into(self, target: Target, quantization: str | None = None) -> MigrationEstimate:
        """The estimate for another target.

        Args:
            target: database to migrate to.
            quantization: preset of the FDEs; None: the default of the store.

        Raises:
            WrongUsage: the database has no such preset.
        """
        return replace(self, parts=_parts(target, quantization, self.documents, self.tokens, self.dim, self.token_dim))

    def sizes(self) -> dict[str, int]:
        """All sizes in the target, by name."""
        names = ("fde_bytes", "code_bytes", "token_bytes", "other_bytes", "total_bytes", "ram_bytes")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "exact": self.exact,
            "source_bytes": self.source_bytes,
            "encode_seconds": self.encode_seconds,
            "longest": self.longest,
            **self.sizes(),
        }


def estimate(
    source: TokenSource,
    encoder: Encoder,
    target: Target,
    *,
    quantization: str | None = None,
    limit: int | None = None,
) -> MigrationEstimate:
    """Reads and encodes the first 256 documents that have tokens; nothing is written.

    Args:
        source: source of the documents.
        encoder: encoder for them.
        target: database to migrate to; it is not reached.
        quantization: preset of the FDEs; None: the default of the store.
        limit: maximum number of documents.

    Raises:
        InvalidInput: the source has no documents.
        WrongUsage: the database has no such preset.
    """
    started = time.perf_counter()
    first = list(islice((d for d in source.documents() if len(d.tokens)), _SAMPLE))
    reading = time.perf_counter() - started
    if not first:
        raise InvalidInput(f"{source.place} has no documents with tokens")
    documents = len(source) if limit is None else min(limit, len(source))
    lengths = [len(d.tokens) for d in first]
    exact = source.n_tokens is not None and documents == len(source)
    tokens = source.n_tokens if exact and source.n_tokens is not None else round(documents * sum(lengths) / len(first))
    # only what can be encoded; the first use compiles
    present = [without_zero_rows(d.tokens) for d in first if np.isfinite(d.tokens).all()]
    good = [tokens for tokens in present if len(tokens)]
    encoding = 0.0
    if good:
        encoder.encode_documents(good[:1])
        started = time.perf_counter()
        encoder.encode_documents(good)
        encoding = time.perf_counter() - started
    return MigrationEstimate(
        documents=documents,
        tokens=tokens,
        exact=exact,
        dim=encoder.dim,
        token_dim=source.dim,
        source_bytes=sum(file.stat().st_size for file in source.files),
        parts=_parts(target, quantization, documents, tokens, encoder.dim, source.dim),
        encode_seconds=tokens * (reading + encoding) / sum(lengths),
        longest=max(lengths),
    )


def _parts(
    target: Target, quantization: str | None, documents: int, tokens: int, dim: int, token_dim: int
) -> list[Part]:
    spec = spec_of(target.scheme)
    chosen = quantization or spec.default_quantization
    spec.check_quantization(chosen)
    return spec.two_stages(Planned(documents, tokens / max(1, documents), dim, token_dim, chosen, target.place))
