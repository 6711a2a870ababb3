"""Queries for measurements: those of the user, or pseudo-queries drawn from documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.checks import without_zero_rows
from muvera_core import TokenBatch
from muvera_core.tokens import to_batch

#: default number of pseudo-queries
PSEUDO_QUERIES = 200
PSEUDO_NOTE = (
    "These are pseudo-queries: random tokens of one document each, perturbed. Real queries are worded differently from "
    "documents, often have tokens that match nothing well (also the [MASK] tokens of ColBERT), and need not have a "
    "document that answers them; so the exact top 1 of a pseudo-query is nearly always the document it was drawn from, "
    "which is easy to find. Compare settings with them; for the recall of your users, measure with their queries."
)


@dataclass(frozen=True, slots=True)
class Queries:
    """Token matrices of queries.

    Attributes:
        tokens: token matrices of all queries.
        ids: ids of the queries, as in judgements.
        origin: ``"given"``, or ``"pseudo"`` if they were drawn from documents by :func:`pseudo_queries`.
    """

    tokens: TokenBatch
    ids: Sequence[str]
    origin: Literal["given", "pseudo"] = "given"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def label(self) -> str:
        """Number of queries, and whether they are pseudo-queries, for tables and titles."""
        return f"{len(self)} queries" if self.origin == "given" else f"{len(self)} pseudo-queries"

    @property
    def notes(self) -> list[str]:
        """Remarks about the queries that are needed to interpret results."""
        return [PSEUDO_NOTE] if self.origin == "pseudo" else []

    def choose(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> Queries:
        """The queries at ``positions``, in that order."""
        tokens = TokenBatch.from_list(self.tokens[int(i)] for i in positions)
        return Queries(tokens, [self.ids[int(i)] for i in positions], self.origin)

    def halves(self, seed: int) -> tuple[Queries, Queries]:
        """Two random halves, one for choosing settings and one for reporting; the same for the same seed.

        Raises:
            InvalidInput: there are fewer than four queries.
        """
        if len(self) < 4:
            raise InvalidInput(f"{len(self)} queries cannot be split into two halves: give at least 4")
        order = np.random.default_rng(seed).permutation(len(self))
        middle = (len(self) + 1) // 2
        return self.choose(np.sort(order[:middle])), self.choose(np.sort(order[middle:]))


def as_queries(queries: Any, ids: Sequence[Any] | None = None) -> Queries:
    """Converts queries in any form that encoders take; their ids are ``ids``, or their positions."""
    if isinstance(queries, Queries):
        return queries
    tokens = to_batch(queries, what="query")
    if len(tokens) == 0:
        raise InvalidInput("there are no queries: give some, or use pseudo_queries(documents)")
    names = [str(i) for i in (range(len(tokens)) if ids is None else ids)]
    if len(names) != len(tokens):
        raise InvalidInput(f"{len(names)} query ids, {len(tokens)} queries: the numbers must be equal")
    return Queries(tokens, names)


def check_width(queries: Queries, documents: TokenBatch) -> None:
    """Raises InvalidInput where the token vectors of queries are not as wide as those of documents."""
    if queries.tokens.dim != documents.dim:
        raise InvalidInput(
            f"queries have token vectors of width {queries.tokens.dim}, documents of width {documents.dim}: encode "
            "the queries with the model of the documents"
        )


def pseudo_queries(
    documents: TokenBatch, n: int = PSEUDO_QUERIES, *, tokens: int = 16, noise: float = 1.5, seed: int = 42
) -> Queries:
    """Makes queries from documents, for users without queries: each has perturbed tokens of one random document.

    A random multiple (up to ``noise``) of half the difference between two random tokens of other documents is added to
    each token, which is then scaled to its old length. The tokens therefore stay in the region of the model's tokens.

    Args:
        documents: documents from which tokens are drawn.
        n: number of queries; documents are used twice only if there are fewer than this.
        tokens: maximum number of tokens of a query; each has a random number between a quarter of it and this maximum.
        noise: strength of the perturbation; 0: none. At 1.5, pseudo-queries of the sample have the recall of its
            questions.
        seed: seed of all random choices.

    Raises:
        InvalidInput: there are too few documents, or a number is out of range.
    """
    if len(documents) < 2 or n < 1 or tokens < 1 or noise < 0:
        raise InvalidInput(
            f"pseudo-queries need at least 2 documents, n and tokens of at least 1, and noise of at least 0; got "
            f"{len(documents)} documents, n={n}, tokens={tokens} and noise={noise}"
        )
    rng = np.random.default_rng(seed)
    sources = np.concatenate([rng.permutation(len(documents)) for _ in range(-(-n // len(documents)))])[:n]
    values = documents.values
    matrices = []
    for source in sources:
        own = documents[int(source)].astype(np.float32)
        own = without_zero_rows(own)
        if not len(own):
            own = values[values.any(axis=1)][:1].astype(np.float32)
        wanted = int(rng.integers(max(1, tokens // 4), tokens + 1))
        chosen = own[np.sort(rng.permutation(len(own))[:wanted])]
        others = values[rng.integers(len(values), size=(2, len(chosen)))].astype(np.float32)
        strength = noise * rng.random((len(chosen), 1), dtype=np.float32)
        moved = chosen + strength * (others[0] - others[1]) / 2
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        moved *= np.linalg.norm(chosen, axis=1, keepdims=True) / np.where(norms > 0, norms, 1)
        matrices.append(np.where(norms > 0, moved, chosen))
    return Queries(TokenBatch.from_list(matrices), [f"pseudo-{i}" for i in range(n)], "pseudo")
