"""Explanations of MaxSim scores: the document token that each query token matches, and its share of the score."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId

#: order of the rows of a table
Order: TypeAlias = Literal["query", "contribution"]


@dataclass(frozen=True, slots=True)
class Match:
    """The match of one query token, and its contribution to the score.

    Attributes:
        query_token: position of the query token.
        document_token: position of the document token with the highest similarity; of equal ones, the first.
        similarity: dot product of the two tokens; their cosine where the collection compares tokens by cosine.
        weight: weight of the query token, 1 where no weights were given.
        contribution: ``weight * similarity``; the contributions of all query tokens sum to the score.
        share: ``contribution`` divided by the score; the shares of all query tokens sum to 1. Negative where the
            contribution is negative. None where the score is 0 or negative, so that shares have no meaning.
        best: the most similar document tokens as (position, similarity), best first; the first is ``document_token``.
            There are as many as ``best=`` asks for, or fewer if the document has fewer tokens.
    """

    query_token: int
    document_token: int
    similarity: float
    weight: float
    contribution: float
    share: float | None
    best: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The score of one document, broken down by query token. ``str()`` is :meth:`table` without texts.

    Attributes:
        id: id of the document, as it was given to ``upsert``.
        score: weighted MaxSim of the document's stored tokens.
        matches: one match for each query token, in the order of the query.
        similarities: (m, n) float32, similarities of the m query tokens and the n stored tokens of the document.
    """

    id: DocumentId
    score: float
    matches: list[Match]
    similarities: npt.NDArray[np.float32] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.table()

    def table(
        self,
        *,
        query_texts: Sequence[str] | None = None,
        document_texts: Sequence[str] | None = None,
        order: Order = "query",
    ) -> str:
        """Formats the matches as lines of text with aligned columns.

        Args:
            query_texts: text of each of the m query tokens; None: only their positions are shown.
            document_texts: text of each of the n stored document tokens; None: only their positions are shown.
            order: order of the rows: ``"query"``, or ``"contribution"`` with the largest first.

        Raises:
            InvalidInput: there is not one text for each token, or the order is unknown.
        """
        m, n = self.similarities.shape
        queries = _labels("query_texts", query_texts, m, "query tokens")
        documents = _labels("document_texts", document_texts, n, "stored tokens")
        if order not in get_args(Order):
            raise InvalidInput(f"order must be 'query' or 'contribution', got {order!r}")
        rows = self.matches
        if order == "contribution":
            rows = sorted(rows, key=lambda match: -match.contribution)
        columns = [
            _column("query token", [queries[match.query_token] for match in rows]),
            _column("document token", [documents[match.document_token] for match in rows]),
            _column("similarity", [f"{match.similarity:.4f}" for match in rows], right=True),
        ]
        if any(match.weight != 1 for match in rows):
            columns.append(_column("weight", [f"{match.weight:.4g}" for match in rows], right=True))
            columns.append(_column("contribution", [f"{match.contribution:.4f}" for match in rows], right=True))
        shares = ["-" if match.share is None else f"{100 * match.share:.1f} %" for match in rows]
        columns.append(_column("share", shares, right=True))
        if any(len(match.best) > 1 for match in rows):
            others = [
                ", ".join(f"{documents[token].strip()} ({value:.4f})" for token, value in match.best[1:])
                for match in rows
            ]
            columns.append(_column("next best", others))
        lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
        return "\n".join([f"document {self.id!r}, score {self.score:.4f}", *lines])

    def heatmap(
        self, rows: int, columns: int, query_token: int | None = None, first: int = 0
    ) -> npt.NDArray[np.float32]:
        """Computes the similarity map of a page whose tokens are patches in row-major order.

        Args:
            rows: number of rows of patches.
            columns: number of patches in a row.
            query_token: position of a query token; None: the mean over all query tokens, by their weights.
            first: position of the first patch among the stored tokens; tokens before the first and after the last patch
                belong to the prompt.

        Returns:
            (rows, columns) float32 similarities of the patches.

        Raises:
            InvalidInput: a number is out of range, or the document has fewer tokens than the map needs.
        """
        m, n = self.similarities.shape
        _check_number("rows", rows, 1)
        _check_number("columns", columns, 1)
        _check_number("first", first, 0)
        end = first + rows * columns
        if end > n:
            raise InvalidInput(
                f"document {self.id!r} has {n} stored tokens; {rows} rows of {columns} patches from token {first} on "
                f"need {end}"
            )
        if query_token is None:
            weights = np.array([match.weight for match in self.matches])
            values = (weights / weights.sum()) @ self.similarities[:, first:end]
        else:
            _check_number("query_token", query_token, 0)
            if query_token >= m:
                raise InvalidInput(f"query_token must be below {m}, the number of query tokens, got {query_token}")
            values = self.similarities[query_token, first:end]
        return values.astype(np.float32).reshape(rows, columns)


def _labels(name: str, texts: Sequence[str] | None, count: int, what: str) -> list[str]:
    """Position and text of each token; the positions are aligned to the right."""
    digits = len(str(count - 1))
    numbers = [f"{i:{digits}}" for i in range(count)]
    if texts is None:
        return numbers
    if isinstance(texts, str) or not hasattr(texts, "__len__") or len(texts) != count:
        given = f"{len(texts)}" if hasattr(texts, "__len__") and not isinstance(texts, str) else repr(texts)
        raise InvalidInput(f"{name} must be a list of {count} texts, one for each of the {what}; got {given}")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"{name}: the entry at position {position} must be a text, got {text!r}")
    return [f"{number} {_printable(text)}" for number, text in zip(numbers, texts, strict=True)]


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _column(title: str, cells: list[str], *, right: bool = False) -> list[str]:
    """The title and the cells, all equally wide."""
    both = [title, *cells]
    width = max(map(_width, both))
    return [" " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell)) for cell in both]


def _width(text: str) -> int:
    """Number of columns of a text in a terminal: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _check_number(name: str, number: int, least: int) -> None:
    if isinstance(number, bool) or not hasattr(number, "__index__") or number < least:
        raise InvalidInput(f"{name} must be an integer of at least {least}, got {number!r}")
