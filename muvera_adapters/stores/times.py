"""The time model: time to fill, index and search a collection, projected from the most similar measured collection.

Times are CPU times of client and database together, because these do not depend on other programs on the machine. Each
database's folder has its measurements, which come from ``benchmarks/scale.py``. Other machines take other times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from muvera_adapters.stores.sizes import Place, Planned

#: machine of all measurements
MACHINE = "virtual cores of an Intel Xeon at 2.1 GHz"
#: number of candidates of the measured searches
CANDIDATES = 200


@dataclass(frozen=True, slots=True)
class MeasuredTime:
    """Times of one real collection in two stages.

    Attributes:
        documents: number of documents.
        tokens: mean number of tokens of a document.
        token_dim: dimensions of a token vector.
        dim: dimensions of an encoding.
        quantization: preset of the codes.
        load_s: CPU seconds to encode and write all documents, with one writer.
        build_s: CPU seconds to build the index after the load; 0: it is built during the load.
        search_ms: CPU milliseconds of a search with :data:`CANDIDATES` candidates, with one client.
        place: location of the database's data.
    """

    documents: int
    tokens: float
    token_dim: int
    dim: int
    quantization: str
    load_s: float
    build_s: float
    search_ms: float
    place: Place

    @property
    def values(self) -> float:
        """Number of values that are written for a document."""
        return self.tokens * self.token_dim + self.dim


@dataclass(frozen=True, slots=True)
class PlannedTime:
    """Times of a collection that does not exist yet, projected from a measured one.

    Attributes:
        load_s: CPU seconds to encode and write all documents, with one writer.
        build_s: CPU seconds to build the index after the load.
        search_ms: lower and upper limit of the CPU milliseconds of a search with :data:`CANDIDATES` candidates, with
            one client.
        measured: the collection that was measured.
    """

    load_s: float
    build_s: float
    search_ms: tuple[float, float]
    measured: MeasuredTime


def planned_time(planned: Planned, measured: Sequence[MeasuredTime]) -> PlannedTime | None:
    """Projects the times of the measured collection with the most similar numbers of documents and dimensions.

    The time of the load is proportional to the number of values written. The time of the index is proportional to the
    number of documents, its logarithm, and the dimensions of an encoding. A load that builds the index grows with both.
    The time of a search is proportional to the logarithm of the number of documents. With longer documents, only the
    part of a search that compares tokens takes longer. The size of this part was not measured, so the limits assume
    that it is nothing or everything.

    Returns:
        The projected times; None if nothing was measured.
    """
    here = [each for each in measured if each.place == planned.place]
    if not here:
        return None
    nearest = min(here, key=lambda m: _ratio(planned.documents, m.documents) + _ratio(planned.dim, m.dim))
    more = planned.documents / nearest.documents
    deeper = math.log(max(2, planned.documents)) / math.log(nearest.documents)
    values = planned.tokens * planned.token_dim + planned.dim
    search = nearest.search_ms * deeper
    longer = planned.tokens * planned.token_dim / (nearest.tokens * nearest.token_dim)
    return PlannedTime(
        load_s=nearest.load_s * more * values / nearest.values * (1.0 if nearest.build_s else deeper),
        build_s=nearest.build_s * more * deeper * planned.dim / nearest.dim,
        search_ms=(search * min(1.0, longer), search * max(1.0, longer)),
        measured=nearest,
    )


def _ratio(a: float, b: float) -> float:
    return abs(math.log(a / b))
