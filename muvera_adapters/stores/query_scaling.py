"""Scaling of query FDEs to the length of document FDEs before they are sent, and of scores back.

Some int8 codes clip the coordinates of a query to the range of the documents' coordinates. A query FDE is 15 to 96
times as long as a document FDE of unit length. Without scaling, its scores by codes would be far below the exact ones,
so documents without codes would be ranked before those with codes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import Unsupported
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.operations import Compute, Operation
from muvera_core import Encoder, QueryFit

Float32 = npt.NDArray[np.float32]

#: number of stored FDEs that are read to learn their length; each has up to 0.2 MB of JSON
SAMPLE = 5

# thresholds for the database are lowered by this share, because scaling rounds; the exact one is checked afterwards
_SLACK = 1e-5
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class QueryFDE:
    """The FDE of a query as it is sent to a database.

    Attributes:
        vector: (dim,) float32 scaled FDE.
        factor: factor from scores of ``vector`` to scores of the unscaled FDE.
    """

    vector: Float32
    factor: float = 1.0

    def score(self, sent: float) -> float:
        """Converts a score of ``vector`` to the score of the unscaled FDE."""
        return sent * self.factor

    def threshold(self, least: float | None) -> float | None:
        """Threshold for the database that returns all scores of at least ``least``, and perhaps some below it."""
        if least is None:
            return None
        scaled = least / self.factor
        return scaled if self.factor == 1.0 else scaled - _SLACK * abs(scaled)


@dataclass(frozen=True, slots=True)
class Query:
    """A query that passed the checks.

    Attributes:
        tokens: (m, token_dim) float32 tokens, of unit length if the collection compares by cosine.
        weights: (m,) float32 weights above 0; None: 1 each.
        also: further searches of the first stage, in the types of the database's client.
    """

    tokens: Float32
    weights: Float32 | None = None
    also: tuple[Any, ...] = ()

    @property
    def scored(self) -> Float32:
        """Tokens multiplied by their weights, so that their MaxSim is the weighted MaxSim."""
        return self.tokens if self.weights is None else self.tokens * self.weights[:, None]

    @property
    def weight(self) -> float:
        """Sum of the weights of all tokens."""
        return float(len(self.tokens)) if self.weights is None else float(self.weights.sum())


async def encode(
    collection: Described,
    queries: Sequence[Query],
    read: Callable[[int], Operation[Sequence[Float32]]],
    *,
    cosine: bool = False,
    fit: QueryFit | None = None,
) -> list[QueryFDE]:
    """Computes scaled FDEs of queries.

    Args:
        collection: the collection to search; its ``seen.fde_length`` is set when it becomes known.
        queries: the queries to encode.
        read: reads at most the given number of stored (dim,) FDEs, of any documents.
        cosine: whether FDEs are compared by cosine; nothing is scaled then, because lengths have no effect.
        fit: correction of the encoder's query FDEs.
    """
    fdes = await Compute(partial(_encoded, collection.encoder, queries, fit))
    if not cosine and collection.seen.fde_length is None:
        # not part of the Encoder protocol, so encoders of users may not have it
        collection.seen.fde_length = getattr(collection.encoder, "document_norm", None)
        if collection.seen.fde_length is None:
            collection.seen.fde_length = typical_length(await read(SAMPLE))
    length = None if cosine else collection.seen.fde_length
    return [scaled(fde, length) for fde in fdes]


def _encoded(encoder: Encoder, queries: Sequence[Query], fit: QueryFit | None) -> Float32:
    """(n, dim) FDEs of queries.

    Raises:
        Unsupported: a query has weights, and the encoder cannot weight tokens.
    """
    if all(query.weights is None for query in queries):
        matrices = [query.tokens for query in queries]
        return encoder.encode_queries(matrices) if fit is None else fit.encode_queries(encoder, matrices)
    if "weights" not in inspect.signature(getattr(encoder, "encode_query", lambda tokens: None)).parameters:
        raise Unsupported(
            f"a {type(encoder).__name__} cannot weight the tokens of a query: it has no encode_query(tokens, weights)"
        )
    weigh: Callable[..., Float32] = cast(Any, encoder).encode_query
    weigh = weigh if fit is None else partial(fit.encode_query, encoder)
    return np.stack([weigh(query.tokens, query.weights) for query in queries])


def scaled(fde: Float32, length: float | None) -> QueryFDE:
    """The (dim,) FDE of a query, scaled to ``length``; without a length, and for an FDE of zeros, unscaled."""
    own = float(np.linalg.norm(fde.astype(np.float64)))
    # the FDE already has this length, up to rounding
    if length is None or own == 0 or abs(own - length) < _ROUNDING * length:
        return QueryFDE(fde)
    return QueryFDE((fde * (length / own)).astype(np.float32), own / length)


def typical_length(fdes: Sequence[Float32]) -> float | None:
    """Median length of the FDEs that are not zero; None if there are none."""
    lengths = [float(np.linalg.norm(fde.astype(np.float64))) for fde in fdes]
    present = [length for length in lengths if 0 < length < np.inf]
    return float(np.median(present)) if present else None
