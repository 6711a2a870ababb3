"""A real index (Qdrant Edge: HNSW over quantized encodings) of a sample, in a temporary directory."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from muvera_core import Encoder, TokenBatch
from muvera_core.encoder import Float32
from muvera_core.tokens import ArrayLike, to_batch

if TYPE_CHECKING:
    from muvera_adapters.targets import Store

#: HNSW links a node of the presets
LINKS = 16


def have_index() -> bool:
    """Whether the extra ``edge`` is installed."""
    return importlib.util.find_spec("qdrant_edge") is not None


@contextmanager
def local_index(encoder: Encoder, documents: TokenBatch, quantization: Any, *, store_tokens: bool) -> Iterator[Store]:
    """A collection of the documents, whose ids are their positions; gone at the end.

    The graph is built and used however few the documents are: small segments would be scanned, which hides what a
    graph loses in a large collection. The engine draws the levels of the graph anew each time, so a candidate in a
    thousand may differ from run to run; nothing else does.

    Raises:
        MissingExtra: qdrant-edge-py is not installed.
    """
    from muvera_adapters.qdrant import QdrantEdgeMuvera

    edge: Any = importlib.import_module("qdrant_edge") if have_index() else None
    with tempfile.TemporaryDirectory(prefix="muvera-index-") as directory:
        store: Any = QdrantEdgeMuvera.create(
            directory,
            "sample",
            encoder,
            quantization=quantization,
            store_tokens=store_tokens,
            hnsw_config=edge
            and edge.HnswIndexConfig(
                m=LINKS,
                ef_construct=100,
                full_scan_threshold=1,
                max_indexing_threads=1,  # several link nodes in the order in which they come to it
            ),
            optimizers=edge and edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
        )
        with store:
            store.upsert(range(len(documents)), documents)
            store.wait_indexed()
            yield store


class Remembering:
    """An encoder that encodes each matrix once, for several indexes over the same documents.

    Documents and queries that it has seen are found by their content; everything else of it is the encoder's.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._rows: dict[bytes, Float32] = {}

    @property
    def token_dim(self) -> int:
        """The encoder's."""
        return self.encoder.token_dim

    @property
    def dim(self) -> int:
        """The encoder's."""
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        """The encoder's."""
        return self.encoder.fingerprint

    @property
    def document_norm(self) -> float | None:
        """The encoder's, where it knows."""
        norm: float | None = getattr(self.encoder, "document_norm", None)
        return norm

    def to_dict(self) -> dict[str, Any]:
        """The encoder's."""
        return self.encoder.to_dict()

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """The encoder's rows."""
        return self._encode(docs, mask, b"d")

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """The encoder's rows."""
        return self._encode(queries, mask, b"q")

    def _encode(self, docs: Any, mask: ArrayLike | None, side: bytes) -> Float32:
        batch = to_batch(docs, mask, dim=self.token_dim)
        keys = [side + _digest(batch[i]) for i in range(len(batch))]
        new = [i for i, key in enumerate(keys) if key not in self._rows]
        if new:
            encode = self.encoder.encode_documents if side == b"d" else self.encoder.encode_queries
            for i, row in zip(new, encode([batch[i] for i in new]), strict=True):
                self._rows[keys[i]] = row
        if not keys:
            return np.empty((0, self.dim), np.float32)
        return np.stack([self._rows[key] for key in keys])


def _digest(matrix: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(matrix).tobytes(), digest_size=16).digest() + str(matrix.dtype).encode()
