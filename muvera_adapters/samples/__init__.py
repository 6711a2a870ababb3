"""Data that comes with the package, for the quickstart, the tests and the benchmarks."""

from __future__ import annotations

import json
import pydoc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid import Source, open_index
from muvera_core import TokenBatch


@dataclass(frozen=True)
class Question:
    """A question and the documents that answer it.

    Attributes:
        text: in English.
        relevant: ids of right answers.
    """

    text: str
    relevant: frozenset[str]


@dataclass(frozen=True)
class Sample:
    """Docstrings of the Python standard library, as a PLAID index written by colbert-ai 0.2.22 (2 bits a dimension).

    Token vectors: all-MiniLM-L6-v2's last hidden state of "name. docstring", reduced to 128 dims and scaled to unit
    length. No text is kept: a document's text is the docstring of the Python that runs.

    Attributes:
        source: the index.
        ids: dotted names, by position.
        questions: 55.
        queries: their tokens.
    """

    source: Source
    ids: list[str]
    questions: list[Question]
    queries: TokenBatch


def load_pydocs() -> Sample:
    """Opens the sample; nothing is decoded yet."""
    directory = Path(__file__).parent / "pydocs"
    ids = json.loads((directory / "ids.json").read_text(encoding="utf-8"))
    questions = json.loads((directory / "queries.json").read_text(encoding="utf-8"))
    with np.load(directory / "queries.npz") as archive:
        queries = TokenBatch(archive["tokens"].astype(np.float32), archive["offsets"])
    return Sample(
        open_index(directory / "index"),
        ids,
        [Question(q["text"], frozenset(q["relevant"])) for q in questions],
        queries,
    )


def anisotropic(tokens: TokenBatch, mean: npt.NDArray[np.float32], strength: float) -> TokenBatch:
    """Tokens as of a model whose vectors share a direction: made by adding a multiple of it, at unit length.

    Args:
        tokens: of documents or queries.
        mean: (dim,) the direction, such as the mean of the documents' tokens; its length does not matter.
        strength: times a unit vector; 1.5 turns the sample's squared mean norm of .08 into .77.
    """
    moved = tokens.values + np.float32(strength) * mean / np.linalg.norm(mean)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return TokenBatch(moved.astype(np.float32), tokens.offsets)


def docstring(name: str) -> str | None:
    """The docstring of a dotted name of the standard library, None where this Python has none."""
    try:
        text = getattr(pydoc.locate(name), "__doc__", None)
    except pydoc.ErrorDuringImport:  # a module of another platform
        return None
    return text.strip() if isinstance(text, str) else None
