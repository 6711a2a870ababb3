"""The requests that operations make: plain values, which a client or an embedded shard carries out.

An operation (searching.py, writing.py, reading.py, backfilling.py) awaits a request and gets its reply. Its runner
decides how requests are sent, so a synchronous client, an asynchronous one and an embedded engine share every decision.
Each request names its collection; an embedded shard has only one and ignores the name. Filters, search parameters and
shard keys are passed on unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy.typing as npt

from muvera_adapters.stores.operations import Request

PointId: TypeAlias = int | str
Vectors: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Where:
    """Points for which all conditions hold.

    ``filter`` is of the database's own type; ``has`` and ``lacks`` name vectors; ``ids=None`` sets no condition.
    """

    filter: Any = None
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    ids: Sequence[PointId] | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A point to write: our vectors, a payload, and the user's vectors in the database's own types."""

    id: PointId
    vectors: Vectors
    payload: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A point that was read."""

    id: PointId
    payload: dict[str, Any]
    vectors: Vectors
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Params:
    """How the index is searched; None: the database's default."""

    hnsw_ef: int | None = None
    rescore: bool | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Prefetch:
    """The first of two stages: a vector (m,). ``params`` is a Params or the database's own type, as is ``filter``."""

    vector: npt.NDArray[Any]
    using: str
    limit: int
    params: Any
    filter: Any = None


@dataclass(frozen=True, slots=True)
class OwnPrefetch:
    """A user's prefetch in the database's own type; ``what`` names its argument, for errors."""

    prefetch: Any
    limit: int
    what: str


@dataclass(frozen=True, slots=True)
class Find(Request[list[Row]]):
    """Points nearest to a vector (m,) or multivector (m, dim), among those of ``prefetches``. Reply: rows, best first.

    ``payload`` is True, False, a list of keys or the database's own selector; ``vectors`` are names.
    """

    collection: str
    vector: npt.NDArray[Any]
    using: str
    limit: int
    offset: int = 0
    prefetches: tuple[Prefetch | OwnPrefetch, ...] = ()
    params: Any = None
    where: Where = Where()
    score_threshold: float | None = None
    payload: Any = True
    vectors: tuple[str, ...] = ()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class FindOwn:
    """Points that a user's prefetch finds; a part of FindMany."""

    own: OwnPrefetch
    where: Where = Where()
    payload: Any = False
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class FindMany(Request[list[list[Row]]]):
    """Several finds in one request. Reply: rows of each, in order."""

    collection: str
    finds: Sequence[Find | FindOwn]


@dataclass(frozen=True, slots=True)
class Sample(Request[list[Row]]):
    """Random points. Reply: at most ``limit`` rows, with only the id of the payload."""

    collection: str
    where: Where
    limit: int
    vectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page(Request[tuple[list[Row], Any]]):
    """A page in the order of ids. Reply: rows, and the ``offset`` of the next page, None after the last."""

    collection: str
    where: Where
    limit: int
    offset: Any = None
    payload: Any = True
    vectors: tuple[str, ...] = ()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Fetch(Request[list[Row]]):
    """Points by id. Reply: rows of those that exist, in any order."""

    collection: str
    ids: Sequence[PointId]
    payload: Any = True
    vectors: tuple[str, ...] = ()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Count(Request[int]):
    """Reply: the number of points; with ``exact=False`` an estimate, exact for ``has`` and ``lacks`` alone."""

    collection: str
    where: Where
    shard_key: Any = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Upsert(Request[None]):
    """Writes whole points, replacing those that exist.

    With ``wait``, the reply comes when searches see them, otherwise when they are in the write-ahead log.
    """

    collection: str
    points: Sequence[Point]
    wait: bool = True
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class PutPoints:
    """Whole points."""

    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class InsertPoints:
    """Whole points, where no point has the id; a point that exists stays as it is."""

    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class PutVectors:
    """The vectors of points that exist; their other vectors and their payloads stay."""

    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class PutPayload:
    """Top-level keys of the payloads of points that exist; other keys stay."""

    ids: Sequence[PointId]
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DropVectors:
    """Vectors of points that exist, by name."""

    ids: Sequence[PointId]
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class ClearPayload:
    """All of the payloads of points that exist."""

    ids: Sequence[PointId]


Change: TypeAlias = PutPoints | InsertPoints | PutVectors | PutPayload | DropVectors | ClearPayload


@dataclass(frozen=True, slots=True)
class Update(Request[None]):
    """Carries out changes in their order, in one request; ``wait`` as for Upsert.

    A change fails if a point that must exist does not.
    """

    collection: str
    changes: Sequence[Change]
    wait: bool = True
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Delete(Request[None]):
    """Deletes points by ids, or by filter if ``ids`` is None; all of them without a filter."""

    collection: str
    ids: Sequence[PointId] | None
    where: Where = Where()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Flush(Request[None]):
    """Returns when all acknowledged writes are on disk."""

    collection: str


@dataclass(frozen=True, slots=True)
class Settle(Request[None]):
    """Waits until every shard has applied the acknowledged writes; it changes nothing."""

    collection: str
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Optimize(Request[None]):
    """Starts indexing if it does not start by itself."""

    collection: str


@dataclass(frozen=True, slots=True)
class Status:
    """State of a collection.

    Attributes:
        engine: name and version of the database.
        status: one of Qdrant's colours: ``green``, ``yellow``, ``grey`` or ``red``.
        points: number of points, approximately.
        segments: number of segments; None if the database has none.
        vectors: names of all vectors.
        indexed_vectors: number of indexed vectors of all names together, deleted ones included until their segment is
            rebuilt.
        fde_float_bytes: bytes of one dimension of a stored FDE.
        code_bits: bits of a code for one dimension of an FDE, 0 without codes.
        disk_bytes: bytes of all files; None if unknown.
    """

    engine: str
    status: str
    points: int
    segments: int | None
    vectors: tuple[str, ...] = ()
    indexed_vectors: int = 0
    fde_float_bytes: float = 4.0
    code_bits: float = 0.0
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GetStatus(Request[Status]):
    """State of the collection whose FDE vector is ``fde``."""

    collection: str
    fde: str
