"""Query FDEs scaled to the length of document FDEs, in which form databases get them, and scores scaled back.

Some int8 codes clip a query's coordinates at the range of the documents'. A query FDE is 15 to 96 times as long
as a document FDE of unit length, so its scores by codes would be far below the exact ones, and documents without codes
would be ranked before those with codes.
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

#: stored FDEs that are read to learn their length; each is up to 0.2 MB of JSON
SAMPLE = 5

# a threshold that a database compares is lowered by this share, as scaling rounds; the exact one is compared here
_SLACK = 1e-5
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class QueryFDE:
    """A query's FDE as a database gets it.

    Attributes:
        vector: (dim,) float32.
        factor: a score that the database computes with ``vector``, times this, is the one of the query's own FDE.
    """

    vector: Float32
    factor: float = 1.0

    def score(self, sent: float) -> float:
        """The score of the query's own FDE, from the one of ``vector``."""
        return sent * self.factor

    def threshold(self, least: float | None) -> float | None:
        """What to ask the database for, so that no score of at least ``least`` is missing; a few may be below it."""
        if least is None:
            return None
        scaled = least / self.factor
        return scaled if self.factor == 1.0 else scaled - _SLACK * abs(scaled)


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was checked.

    Attributes:
        tokens: (m, token_dim) float32, of unit length where the collection compares by cosine.
        weights: (m,) float32 weights above 0; None: 1 each.
        also: further searches of the first stage, in the database's own types.
    """

    tokens: Float32
    weights: Float32 | None = None
    also: tuple[Any, ...] = ()

    @property
    def scored(self) -> Float32:
        """Tokens whose MaxSim is the weighted one."""
        return self.tokens if self.weights is None else self.tokens * self.weights[:, None]

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        return float(len(self.tokens)) if self.weights is None else float(self.weights.sum())


async def encode(
    collection: Described,
    queries: Sequence[Query],
    read: Callable[[int], Operation[Sequence[Float32]]],
    *,
    cosine: bool = False,
    fit: QueryFit | None = None,
) -> list[QueryFDE]:
    """FDEs of queries, scaled.

    Args:
        collection: the collection to search; its ``seen.fde_length`` is set when it becomes known.
        queries: the queries.
        read: gives at most so many stored FDEs (dim,), any of them.
        cosine: FDEs are compared by cosine, where a query's length has no effect: nothing is scaled.
        fit: correction of the encoder's query FDEs.
    """
    fdes = await Compute(partial(_encoded, collection.encoder, queries, fit))
    if not cosine and collection.seen.fde_length is None:
        # not a part of the Encoder protocol: other people's encoders need not have it
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
    """A query's FDE (dim,) with that length; None, or an FDE of zeros: as it is."""
    own = float(np.linalg.norm(fde.astype(np.float64)))
    # of that length already, but for rounding
    if length is None or own == 0 or abs(own - length) < _ROUNDING * length:
        return QueryFDE(fde)
    return QueryFDE((fde * (length / own)).astype(np.float32), own / length)


def typical_length(fdes: Sequence[Float32]) -> float | None:
    """Median length of those that are not zero; None where there are none."""
    lengths = [float(np.linalg.norm(fde.astype(np.float64))) for fde in fdes]
    present = [length for length in lengths if 0 < length < np.inf]
    return float(np.median(present)) if present else None
