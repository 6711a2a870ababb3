"""A real index of a sample (a graph over quantized encodings), in a temporary directory."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.databases import local_spec
from muvera_adapters.stores.database import LocalIndex
from muvera_adapters.stores.protocol import Store
from muvera_core import Encoder, TokenBatch
from muvera_core.encoder import Float32
from muvera_core.tokens import ArrayLike, to_batch


def have_index() -> bool:
    """Whether the embedded engine is installed."""
    return importlib.util.find_spec(local_spec().module) is not None


def no_index() -> str:
    """The reason why nothing is measured through an index, in words."""
    return f"{local_spec().package} is not installed"


def quantizations() -> Sequence[str]:
    """Presets of the embedded engine to try; none if the engine is not installed."""
    return _engine().quantizations if have_index() else ()


def auto_quantization(dim: int) -> str:
    """The preset that the embedded engine's store chooses for encodings of ``dim`` dimensions."""
    return local_spec().auto_quantization(dim, "directory")


def first_stage_bytes(dim: int, quantization: str | None) -> float:
    """Bytes of one document in memory in the first stage of the embedded engine; None: without an index."""
    return _engine().first_stage_bytes(dim, quantization)


@contextmanager
def local_index(
    encoder: Encoder, documents: TokenBatch, quantization: str | None, *, store_tokens: bool
) -> Iterator[Store]:
    """A collection of the documents, with their positions as ids. It is deleted at the end of the context.

    The graph is built and used even for few documents.

    Raises:
        MissingExtra: the embedded engine is not installed.
    """
    local_spec().check_installed()
    with (
        tempfile.TemporaryDirectory(prefix="muvera-index-") as directory,
        _engine().create(directory, "sample", encoder, quantization, store_tokens) as store,
    ):
        store.upsert(range(len(documents)), documents)
        store.wait_indexed()
        yield store


def _engine() -> LocalIndex:
    found = local_spec().local_index
    assert found is not None
    return found


class Remembering:
    """Wraps an encoder so that it encodes each matrix only once, for several indexes over the same documents.

    Documents and queries that were encoded before are found by their content.
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
        """The ``document_norm`` of the wrapped encoder, None if it has none."""
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
