"""Explanations of scores, shared by all stores: tokens are read by id and compared in this process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.explanation import Explanation, Match
from muvera_adapters.results import Document, DocumentId, Hit
from muvera_adapters.stores.checks import check_finite, check_weights, normalised, query_matrix
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.operations import Compute, Operation
from muvera_core.tokens import ArrayLike, to_matrix

#: what can be explained: ids, and hits of a search
Explained: TypeAlias = DocumentId | Hit


async def explain(
    collection: Described,
    query_tokens: ArrayLike,
    documents: Explained | Sequence[Explained],
    check: Callable[[npt.NDArray[Any], str], None],
    read: Callable[[Sequence[DocumentId]], Operation[list[Document | None]]],
    *,
    weights: ArrayLike | None = None,
    best: int = 1,
) -> list[Explanation | None]:
    """An explanation for each document; None where there is no such document, or it has no tokens.

    Args:
        collection: the collection of the documents.
        query_tokens: tokens of the query, (m, token_dim).
        documents: an id or a hit, or a list of ids and hits. Documents of hits with tokens are not read.
        check: raises InvalidInput for a query that the database cannot take.
        read: reads documents with their tokens by id, None for ids that do not exist.
        weights: (m,) weights of the query tokens; None: 1 each.
        best: number of document tokens to return for each query token.

    Raises:
        InvalidInput: the query cannot be encoded, a weight or ``best`` is out of range, an id is not valid, the
            collection stores no tokens, or the tokens of a document cannot be compared.
    """
    query = query_matrix(collection, query_tokens, check)
    factors = np.ones(len(query)) if weights is None else check_weights(weights, len(query))
    if isinstance(best, bool) or not hasattr(best, "__index__") or best < 1:
        raise InvalidInput(f"best must be an integer of at least 1, got {best!r}")
    listed = _listed(documents)
    unread = [one.id if isinstance(one, Hit) else one for one in listed if not _has_tokens(one)]
    rows = iter(await read(unread)) if unread else iter(())
    found: list[Hit | Document | None] = [
        one if isinstance(one, Hit) and one.tokens is not None else next(rows) for one in listed
    ]
    return await Compute(partial(_explain_all, collection, query, factors, best, found))


def _listed(documents: Explained | Sequence[Explained]) -> list[Explained]:
    listed: list[Any] = [documents] if isinstance(documents, Hit | str | uuid.UUID) else []
    if not listed:
        listed = list(documents) if hasattr(documents, "__iter__") else [documents]
    for position, one in enumerate(listed):
        number = hasattr(one, "__index__") and not isinstance(one, bool)
        if not (number or isinstance(one, Hit | str | uuid.UUID)):
            raise InvalidInput(
                f"document {position} is a {type(one).__name__}: pass ids (integers, strings or UUIDs) or hits"
            )
    return listed


def _has_tokens(one: Explained) -> bool:
    return isinstance(one, Hit) and one.tokens is not None


def _explain_all(
    collection: Described,
    query: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    best: int,
    documents: Sequence[Hit | Document | None],
) -> list[Explanation | None]:
    return [
        None
        if one is None or one.tokens is None or not len(one.tokens)
        else explanation_of(one.id, query, _matrix(collection, one, position), weights, best)
        for position, one in enumerate(documents)
    ]


def _matrix(collection: Described, one: Hit | Document, position: int) -> npt.NDArray[np.float32]:
    """The tokens as MaxSim compares them; all-zero tokens (padding) are kept, as they are stored."""
    where = f"document {position} (id {one.id!r})"
    try:
        matrix = to_matrix(one.tokens, dim=collection.encoder.token_dim, what=where)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    check_finite(matrix, where)
    return normalised(matrix) if collection.cosine else matrix.astype(np.float32, copy=False)


def explanation_of(
    document_id: DocumentId,
    query: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    best: int,
) -> Explanation:
    """The explanation for a query (m, dim) and the tokens (n, dim) of a document, compared by dot product."""
    similarities = query @ tokens.T
    if best == 1:
        order = similarities.argmax(axis=1)[:, None]
    else:
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :best]
    values = np.take_along_axis(similarities, order, axis=1)
    contributions = weights * values[:, 0]
    score = float(contributions.sum())
    matches = [
        Match(
            query_token=i,
            document_token=int(order[i, 0]),
            similarity=float(values[i, 0]),
            weight=float(weights[i]),
            contribution=float(contributions[i]),
            share=float(contributions[i]) / score if score > 0 else None,
            best=tuple(zip(order[i].tolist(), values[i].tolist(), strict=True)),
        )
        for i in range(len(query))
    ]
    return Explanation(document_id, score, matches, similarities)
