"""Small documents and queries that are the same in every test, and the expected answers, computed with numpy."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, maxsim

DIM = 16
COUNT = 80
CONFIG = FDEConfig(dim=DIM, r_reps=6, k_sim=3, d_proj=8)


def unit_rows(generator: np.random.Generator, n: int) -> np.ndarray:
    """(n, DIM) tokens of nearly unit length, with values that are exact in float16, which stores may use."""
    rows = generator.normal(size=(n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


_generator = np.random.default_rng(11)
DOCUMENTS = [unit_rows(_generator, int(n)) for n in _generator.integers(1, 12, COUNT)]
QUERIES = [unit_rows(_generator, int(n)) for n in (1, 3, 6, 4, 2)]
ENCODER = FDEEncoder(CONFIG)
OTHER_ENCODER = FDEEncoder(FDEConfig(dim=DIM, r_reps=6, k_sim=3, d_proj=8, seed=7))
# an encoder whose state is too large to be kept with a collection
FITTED_ENCODER = RegressionEncoder.fit(DOCUMENTS, dim=64, features=128)


@cache
def sample() -> tuple[list[np.ndarray], list[np.ndarray], FDEEncoder]:
    """1,600 docstrings and 55 questions of the sample, cut to 40 tokens for speed, and an encoder for them."""
    pydocs = load_pydocs()
    documents = [np.asarray(document.tokens, np.float32)[:40] for document in pydocs.source.documents()][:1600]
    queries = [pydocs.queries[i] for i in range(len(pydocs.queries))]
    return documents, queries, FDEEncoder(FDEConfig(dim=128, r_reps=10, k_sim=4, d_proj=16))


def truth(query: np.ndarray, documents: Any = None) -> np.ndarray:
    """(n,) exact MaxSim scores of all documents; by default, of ``DOCUMENTS``."""
    return maxsim(query, DOCUMENTS if documents is None else documents)


def estimates(query: np.ndarray, encoder: Any = ENCODER) -> np.ndarray:
    """(n,) dot products of the query's FDE and the FDEs of ``DOCUMENTS``."""
    return encoder.encode_documents(DOCUMENTS) @ encoder.encode_query(query)


def best(scores: np.ndarray, k: int) -> list[int]:
    """Positions of the k largest scores, best first; ties in order of position."""
    return [int(i) for i in np.argsort(-scores, kind="stable")[:k]]


def two_stage(query: np.ndarray, k: int, prefetch: int, encoder: Any = ENCODER) -> list[int]:
    """Positions that a search must return, best first, if its first stage is exact."""
    candidates = best(estimates(query, encoder), prefetch)
    scores = truth(query)
    return sorted(candidates, key=lambda i: -scores[i])[:k]
