"""Estimates the space and time of a migration before it begins."""

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
from muvera_adapters.stores.sizes import AUTO, Part, Planned, disk_of, ram_of
from muvera_core import Encoder

_SAMPLE = 256


@dataclass(frozen=True, slots=True)
class MigrationEstimate:
    """Estimated size and time of a migration, for a collection with default settings and without payloads.

    Attributes:
        documents: number of documents to migrate, including those that conditions leave out.
        tokens: number of their tokens.
        exact: whether ``tokens`` is known, not extrapolated from the first documents.
        dim: number of dimensions of an FDE.
        token_dim: number of dimensions of a token vector.
        source_bytes: size of the source's files in bytes; 0 for a collection.
        parts: parts of the collection in the target.
        encode_seconds: seconds to read and encode the documents, measured on a first batch; the database's time comes
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

    def into(self, target: Target, quantization: str = AUTO) -> MigrationEstimate:
        """The estimate for another target.

        Args:
            target: database to migrate to.
            quantization: preset of the FDEs; ``"auto"``: what the store chooses.

        Raises:
            WrongUsage: the database has no such preset.
        """
        return replace(self, parts=_parts(target, quantization, self.documents, self.tokens, self.dim, self.token_dim))

    def sizes(self) -> dict[str, int]:
        """All sizes in the target, in bytes, by name."""
        names = ("fde_bytes", "code_bytes", "token_bytes", "other_bytes", "total_bytes", "ram_bytes")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON values."""
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
    quantization: str = AUTO,
    limit: int | None = None,
) -> MigrationEstimate:
    """Reads and encodes the first 256 documents that have tokens; nothing is written.

    Args:
        source: source of the documents.
        encoder: encoder of the documents.
        target: database to migrate to; it is not contacted.
        quantization: preset of the FDEs; ``"auto"``: what the store chooses.
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
    # only documents that can be encoded; the first use compiles
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


def _parts(target: Target, quantization: str, documents: int, tokens: int, dim: int, token_dim: int) -> list[Part]:
    spec = spec_of(target.scheme)
    chosen = spec.quantization(quantization, dim, target.place)
    return spec.two_stages(Planned(documents, tokens / max(1, documents), dim, token_dim, chosen, target.place))
