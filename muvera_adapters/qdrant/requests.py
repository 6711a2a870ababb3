"""What operations ask of a Qdrant: requests in plain values, which a client or an embedded shard carries out.

An operation (searching.py, writing.py, reading.py, backfilling.py) awaits a request and gets its reply. Its runner
decides how requests are sent, so a synchronous client, an asynchronous one and an embedded engine share every decision.
Filters, search parameters and shard keys pass through as they were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy.typing as npt

from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.operations import Request
from muvera_core import Encoder

PointId: TypeAlias = int | str
Vectors: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Wire:
    """What one write may weigh on the way to the database.

    Attributes:
        bytes_per_float: as serialized.
        target: bytes of a batch.
        cap: bytes that the other end refuses, None where there is no such limit.
    """

    bytes_per_float: float
    target: int
    cap: int | None = None


# float32 printed as JSON doubles; the server's limit is 32 MB a body (service.max_request_size_mb)
REST = Wire(21.0, 8 << 20, 28 << 20)
GRPC = Wire(4.1, 8 << 20)
LOCAL = Wire(4.0, 8 << 20)
# a batch is one record of the write-ahead log, whose segments hold 32 MB
EDGE = Wire(4.0, 16 << 20)


@dataclass(slots=True)
class Collection:
    """A collection as the operations see it.

    Attributes:
        name: of the collection.
        encoder: of its FDEs.
        fde: name of the FDE vector.
        tokens: name of the multivector, None where no tokens are stored.
        has_fde: the FDE vector exists (False: adopted, to be backfilled).
        cosine: tokens are stored normalised, so queries and FDEs are made of normalised tokens.
        half: tokens are stored as float16.
        fde_half: FDEs are stored as float16.
        fde_cosine: FDEs are compared by cosine, not by dot product.
        seen: what operations have learned of it.
        rescore: the codes of FDEs are too coarse to compare candidates by, so the first stage reads the originals.
        tokens_indexed: the multivector has a graph or quantized codes, which an exact score must not use.
        exclusive: nobody else can write.
        wire: to the database.
        lacking: documents with an FDE and no tokens, as last counted; None: never.
        lacking_at: time of that count.
    """

    name: str
    encoder: Encoder
    fde: str = "fde"
    tokens: str | None = "tokens"
    has_fde: bool = True
    cosine: bool = False
    half: bool = True
    fde_half: bool = True
    fde_cosine: bool = False
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)
    rescore: bool = False
    tokens_indexed: bool = False
    exclusive: bool = False
    wire: Wire = LOCAL
    lacking: int | None = None
    lacking_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which points: all conditions hold. ``filter`` is the database's own type."""

    filter: Any = None
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A point to write."""

    id: PointId
    vectors: Vectors
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A point read."""

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
    """The first of two stages. ``params`` is a Params or the database's own type."""

    vector: npt.NDArray[Any]
    using: str
    limit: int
    params: Any


@dataclass(frozen=True, slots=True)
class Find(Request[list[Row]]):
    """Nearest points of a vector (m,) or multivector (m, dim), among those of ``prefetch``. Reply: rows, best first.

    ``payload`` is True, False, a list of keys or the database's own selector; ``vectors`` are names.
    """

    vector: npt.NDArray[Any]
    using: str
    limit: int
    offset: int = 0
    prefetch: Prefetch | None = None
    params: Any = None
    where: Where = Where()
    score_threshold: float | None = None
    payload: Any = True
    vectors: tuple[str, ...] = ()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class FindMany(Request[list[list[Row]]]):
    """Reply: rows of each."""

    finds: Sequence[Find]


@dataclass(frozen=True, slots=True)
class Sample(Request[list[Row]]):
    """Reply: at most ``limit`` rows, drawn at random, without payload."""

    where: Where
    limit: int
    vectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page(Request[tuple[list[Row], Any]]):
    """A page in the order of ids. Reply: rows and the next page's ``offset`` (None: this was the last)."""

    where: Where
    limit: int
    offset: Any = None
    payload: Any = True
    vectors: tuple[str, ...] = ()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Fetch(Request[list[Row]]):
    """Reply: rows of those ids that exist, in any order."""

    ids: Sequence[PointId]
    payload: Any = True
    vectors: tuple[str, ...] = ()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Count(Request[int]):
    """Reply: exact number."""

    where: Where
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Upsert(Request[None]):
    """Replaces whole points. ``wait``: until searches see them; else until they are in the write-ahead log."""

    points: Sequence[Point]
    wait: bool = True
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class SetVectors(Request[None]):
    """Writes the named vectors of points that exist, and leaves everything else of them."""

    points: Sequence[Point]
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Delete(Request[None]):
    """By ids, or by filter where ``ids`` is None."""

    ids: Sequence[PointId] | None
    where: Where = Where()
    shard_key: Any = None


@dataclass(frozen=True, slots=True)
class Flush(Request[None]):
    """Everything acknowledged is on disk; no reply."""


@dataclass(frozen=True, slots=True)
class Optimize(Request[None]):
    """Starts indexing where that is not automatic; no reply."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the database says of a collection; ``status`` is one of Qdrant's colours.

    ``indexed_vectors`` counts those of all ``vectors`` (names) together, deleted ones included until their segment is
    rebuilt.
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
    """Reply: Status."""
