"""The time model: what a collection takes to fill, index and search, by the nearest one that was measured.

Times are processor time, of client and database together, since that is the same where other programs run. Each
database's folder has its measurements; they come from ``benchmarks/scale.py``. Other machines take other times.
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
        load_s: processor seconds to encode and write all documents, one writer.
        build_s: processor seconds to build the index after that; 0: it grows with the load.
        search_ms: processor milliseconds of a search of :data:`CANDIDATES` candidates, one client.
        place: where the database keeps its data.
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
        """Number of values written for a document."""
        return self.tokens * self.token_dim + self.dim


@dataclass(frozen=True, slots=True)
class PlannedTime:
    """Times of a collection that is not there yet, projected from a measured one.

    Attributes:
        load_s: processor seconds to encode and write all documents, one writer.
        build_s: processor seconds to build the index after that.
        search_ms: least and most processor milliseconds of a search of :data:`CANDIDATES` candidates, one client.
        measured: the collection that was measured.
    """

    load_s: float
    build_s: float
    search_ms: tuple[float, float]
    measured: MeasuredTime


def planned_time(planned: Planned, measured: Sequence[MeasuredTime]) -> PlannedTime | None:
    """Projects the times of the measured collection that is nearest in documents and dimensions.

    The load grows with the values that are written, the index with documents, their logarithm and the dimensions of an
    encoding; a load that builds the index grows with both. A search grows with the logarithm of documents. Of a search,
    only the part that compares tokens takes longer with longer documents. How large this part is was not measured: the
    limits are none of it and all of it.

    Returns:
        None where nothing was measured.
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
