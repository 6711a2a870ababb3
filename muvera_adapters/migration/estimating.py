"""What a migration will take, before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

from muvera_adapters.errors import InvalidInput
from muvera_adapters.sources.base import TokenSource
from muvera_adapters.targets import Layout
from muvera_core import Encoder

_SAMPLE = 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """Sizes are those of a collection made with the defaults, without its graph, payloads and logs.

    Attributes:
        documents: to migrate; conditions are not counted in.
        tokens: of them.
        exact: ``tokens`` is known, not scaled up from the first documents.
        source_bytes: of the source's files, 0 for a collection.
        fde_bytes: of the FDEs.
        code_bytes: of their codes.
        token_bytes: of the token vectors.
        encode_seconds: to read and encode them, from a timed first batch; what the database takes comes on top.
        longest: tokens of the longest document of that batch.
    """

    documents: int
    tokens: int
    exact: bool
    source_bytes: int
    fde_bytes: int
    code_bytes: int
    token_bytes: int
    encode_seconds: float
    longest: int

    @property
    def total_bytes(self) -> int:
        """Of all parts in the target."""
        return self.fde_bytes + self.code_bytes + self.token_bytes


def estimate(source: TokenSource, encoder: Encoder, layout: Layout, *, limit: int | None = None) -> Estimate:
    """Reads and encodes the first 256 documents; nothing is written.

    Args:
        source: of the documents.
        encoder: for them.
        layout: bytes of the target.
        limit: at most so many documents.

    Raises:
        InvalidInput: the source has no documents.
    """
    started = time.perf_counter()
    first = [d for d in islice(source.documents(), _SAMPLE) if len(d.tokens)]
    reading = time.perf_counter() - started
    if not first:
        raise InvalidInput(f"{source.place} has no documents with tokens")
    documents = len(source) if limit is None else min(limit, len(source))
    lengths = [len(d.tokens) for d in first]
    exact = source.n_tokens is not None and documents == len(source)
    tokens = source.n_tokens if exact and source.n_tokens is not None else round(documents * sum(lengths) / len(first))
    # only what can be encoded; the first use compiles
    good = [d.tokens for d in first if d.tokens.any(axis=1).all()]
    encoding = 0.0
    if good:
        encoder.encode_documents(good[:1])
        started = time.perf_counter()
        encoder.encode_documents(good)
        encoding = time.perf_counter() - started
    return Estimate(
        documents=documents,
        tokens=tokens,
        exact=exact,
        source_bytes=sum(file.stat().st_size for file in source.files),
        fde_bytes=int(documents * encoder.dim * layout.fde),
        code_bytes=int(documents * encoder.dim * layout.code),
        token_bytes=int(tokens * source.dim * layout.token),
        encode_seconds=tokens * (reading + encoding) / sum(lengths),
        longest=max(lengths),
    )
