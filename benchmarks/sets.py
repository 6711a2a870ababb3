"""Sets of documents and queries for measurements of recall, each described by one line of text.

``pydocs`` (the docstrings that come with the package) or an .npz file with ``doc_tokens``, ``doc_offsets``,
``query_tokens`` and ``query_offsets``; then, after a colon, changes in the order of writing, each with one number:

- ``cut=40``: passages of 40 tokens of one document; a rest of less than half of that is left out.
- ``join=5``: five consecutive documents become one.
- ``draw=3000``: three thousand documents in random order. More than there are: each again in another random order.
- ``direction=1.5``: 1.5 times the direction of the documents' mean is added to every token of documents and queries,
  which are scaled back to unit length: vectors that share a direction.
- ``noise=0.5``: a random vector of that length is added to every token of documents and queries, and tokens are scaled
  back to unit length.
- ``ask=200``: the queries are 12 consecutive tokens of each of 200 random documents, which leave the set.

``pydocs:cut=40,ask=200`` is a set of passages with 200 queries, for example. The truth is exact MaxSim, computed anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.evidence.measuring import exact_top
from muvera_adapters.samples import load_pydocs
from muvera_core import TokenBatch

BEST = 10
_ASKED_TOKENS = 12
_SEED = 20260


@dataclass(frozen=True, eq=False)
class Data:
    """A set with its truth.

    Attributes:
        documents: the documents' tokens.
        queries: the queries' tokens.
        best: positions of each query's :data:`BEST` best documents by exact MaxSim.
        name: text that names it, short enough for a table.
    """

    documents: TokenBatch
    queries: TokenBatch
    best: list[list[Any]]
    name: str = ""

    def __str__(self) -> str:
        values = self.documents.values
        mean = values.mean(axis=0)
        return (
            f"{self.name}: {len(self.documents):,} documents of {len(values) / len(self.documents):.0f} tokens, "
            f"{len(self.queries)} queries, squared norm of the mean {mean @ mean:.2f}"
        )


def load(name: str) -> Data:
    """The set of that name."""
    place, _, changes = name.partition(":")
    documents, queries = read(place)
    for change in filter(None, changes.split(",")):
        what, _, amount = change.partition("=")
        documents, queries = CHANGES[what](documents, queries, float(amount))
    short = f"{Path(place).stem}{':' if changes else ''}{changes}"
    return with_truth(documents, queries, short)


def with_truth(documents: TokenBatch, queries: TokenBatch, name: str = "") -> Data:
    """A set of these, with its exact MaxSim."""
    return Data(documents, queries, exact_top(queries, documents, range(len(documents)), BEST), name)


def read(place: str) -> tuple[TokenBatch, TokenBatch]:
    """Documents and queries of the sample or of a file, as they are."""
    if place == "pydocs":
        sample = load_pydocs()
        return TokenBatch.from_list(d.tokens for d in sample.source.documents()), sample.queries
    with np.load(place) as file:
        documents, queries = (
            TokenBatch(file[f"{kind}_tokens"].astype(np.float32), file[f"{kind}_offsets"]) for kind in ("doc", "query")
        )
    return documents, queries


Pair = tuple[TokenBatch, TokenBatch]


def cut(documents: TokenBatch, queries: TokenBatch, tokens: float) -> Pair:
    """Cuts documents into passages of the given number of tokens."""
    size = int(tokens)
    passages = [d[i : i + size] for d in each(documents) for i in range(0, len(d), size)]
    return TokenBatch.from_list(p for p in passages if 2 * len(p) >= size), queries


def join(documents: TokenBatch, queries: TokenBatch, count: float) -> Pair:
    """Joins the given number of consecutive documents to one."""
    offsets = np.unique([*documents.offsets[:: int(count)], documents.offsets[-1]])
    return TokenBatch(documents.values, offsets), queries


def drawn(documents: TokenBatch, queries: TokenBatch, count: float) -> Pair:
    """The given number of documents in random order; all of them several times if there are fewer."""
    rng = np.random.default_rng(_SEED)
    rounds = -(-int(count) // len(documents))
    order = np.concatenate([rng.permutation(len(documents)) for _ in range(rounds)])[: int(count)]
    return TokenBatch.from_list(documents[int(i)] for i in order), queries


def direction(documents: TokenBatch, queries: TokenBatch, strength: float) -> Pair:
    """Documents and queries with a common direction."""
    mean = documents.values.mean(axis=0)
    added = np.float32(strength) * mean / np.linalg.norm(mean)
    return _moved(documents, added), _moved(queries, added)


def noise(documents: TokenBatch, queries: TokenBatch, length: float) -> Pair:
    """Documents and queries with noise of this length at every token."""
    rng = np.random.default_rng(_SEED)

    def noisy(batch: TokenBatch) -> TokenBatch:
        return _moved(batch, np.float32(length) * unit(rng.standard_normal(batch.values.shape, dtype=np.float32)))

    return noisy(documents), noisy(queries)


def ask(documents: TokenBatch, queries: TokenBatch, count: float) -> Pair:
    """Replaces the queries by a few tokens each of documents that are removed from the set."""
    rng = np.random.default_rng(_SEED)
    long_enough = np.flatnonzero(documents.lengths >= _ASKED_TOKENS)
    asking = rng.choice(long_enough, int(count), replace=False)
    starts = rng.integers(documents.lengths[asking] - _ASKED_TOKENS + 1)
    asked = [documents[int(i)][s : s + _ASKED_TOKENS] for i, s in zip(asking, starts, strict=True)]
    kept = np.setdiff1d(np.arange(len(documents)), asking)
    return TokenBatch.from_list(documents[int(i)] for i in kept), TokenBatch.from_list(asked)


CHANGES: dict[str, Callable[[TokenBatch, TokenBatch, float], Pair]] = {
    "cut": cut,
    "join": join,
    "draw": drawn,
    "direction": direction,
    "noise": noise,
    "ask": ask,
}


def each(batch: TokenBatch) -> list[npt.NDArray[Any]]:
    """The matrices of a batch."""
    return [batch[i] for i in range(len(batch))]


def unit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of unit length."""
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _moved(batch: TokenBatch, by: npt.NDArray[np.float32]) -> TokenBatch:
    return TokenBatch(unit(batch.values + by), batch.offsets)
