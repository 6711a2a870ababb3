"""Small documents and queries, the same in every test, and what the right answers are."""

from __future__ import annotations

from typing import Any

import numpy as np

from muvera_core import FDEConfig, FDEEncoder, maxsim

DIM = 16
COUNT = 80
CONFIG = FDEConfig(dim=DIM, r_reps=6, k_sim=3, d_proj=8)


def unit_rows(generator: np.random.Generator, n: int) -> np.ndarray:
    """(n, DIM) of about unit length, and exact in float16, as which stores keep tokens."""
    rows = generator.normal(size=(n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


_generator = np.random.default_rng(11)
DOCUMENTS = [unit_rows(_generator, int(n)) for n in _generator.integers(1, 12, COUNT)]
QUERIES = [unit_rows(_generator, int(n)) for n in (1, 3, 6, 4, 2)]
ENCODER = FDEEncoder(CONFIG)
OTHER_ENCODER = FDEEncoder(FDEConfig(dim=DIM, r_reps=6, k_sim=3, d_proj=8, seed=7))


def truth(query: np.ndarray, documents: Any = None) -> np.ndarray:
    """(n,) exact scores."""
    return maxsim(query, DOCUMENTS if documents is None else documents)


def estimates(query: np.ndarray) -> np.ndarray:
    """(n,) dot products of FDEs."""
    return ENCODER.encode_documents(DOCUMENTS) @ ENCODER.encode_query(query)


def best(scores: np.ndarray, k: int) -> list[int]:
    """Positions of the k largest, best first."""
    return [int(i) for i in np.argsort(-scores, kind="stable")[:k]]


def two_stage(query: np.ndarray, k: int, prefetch: int) -> list[int]:
    """What a search has to find when the first stage is exact."""
    candidates = best(estimates(query), prefetch)
    scores = truth(query)
    return sorted(candidates, key=lambda i: -scores[i])[:k]
