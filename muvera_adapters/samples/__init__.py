"""Sample data that comes with the package, for the quickstart, the tests and the benchmarks."""

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
        text: the question, in English.
        relevant: ids of the documents that answer it.
    """

    text: str
    relevant: frozenset[str]


@dataclass(frozen=True)
class Sample:
    """Docstrings of the Python standard library, as a PLAID index written by colbert-ai 0.2.22 (2 bits a dimension).

    Token vectors are the last hidden state of all-MiniLM-L6-v2 for "name. docstring", reduced to 128 dimensions and
    scaled to unit length. The sample has no texts: the text of a document is the docstring in the running Python.

    Attributes:
        source: the documents, in a PLAID index.
        ids: ids of the documents by position: dotted names of Python.
        questions: 55 questions.
        queries: token matrices of the questions.
    """

    source: Source
    ids: list[str]
    questions: list[Question]
    queries: TokenBatch


def load_pydocs() -> Sample:
    """Opens the sample; documents are decoded only when they are read."""
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
    """Imitates the tokens of a model whose vectors share a direction: adds the direction and scales to unit length.

    Args:
        tokens: tokens of documents or queries.
        mean: (dim,) the direction, such as the mean of the documents' tokens; its length does not matter.
        strength: length of the vector to add; 1.5 raises the sample's squared mean norm from .08 to .77.
    """
    moved = tokens.values + np.float32(strength) * mean / np.linalg.norm(mean)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return TokenBatch(moved.astype(np.float32), tokens.offsets)


def docstring(name: str) -> str | None:
    """The docstring of a dotted name of the standard library; None if this Python has none."""
    try:
        text = getattr(pydoc.locate(name), "__doc__", None)
    except pydoc.ErrorDuringImport:  # a module of another platform
        return None
    return text.strip() if isinstance(text, str) else None
