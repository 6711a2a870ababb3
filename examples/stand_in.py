"""Embeddings without a model, so that the examples run anywhere: equal words get equal vectors, others random ones."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

DIM = 128


def embed(texts: Iterable[str]) -> Iterator[np.ndarray]:
    """One (n_words, 128) float32 matrix of unit vectors for each text; what models call `embed` and `query_embed`."""
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        rows = np.stack([np.random.default_rng(zlib.crc32(w.encode())).normal(size=DIM) for w in words])
        yield (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
