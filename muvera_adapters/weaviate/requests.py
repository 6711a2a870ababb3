"""What operations ask of a Weaviate: calls of its client, whose synchronous and asynchronous kinds name them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, MetadataQuery

from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.operations import Request
from muvera_adapters.weaviate.identity import FDE_KEY, ID_KEY
from muvera_core import Encoder

Vectors: TypeAlias = dict[str, npt.NDArray[Any]]

T = TypeVar("T")

#: bytes of one insert; the server's limit is 104,858,000 (GRPC_MAX_MESSAGE_SIZE)
WRITE_BYTES = 8 << 20
#: ids in one by-id filter: each becomes a condition of its own (inverted/searcher.go, classifyContainsBatch)
FILTER_IDS = 1_000
#: QUERY_MAXIMUM_RESULTS of a server where nobody changed it: offset + limit of any query
MAX_RESULTS = 10_000

# a document without the multi-vector scores MaxFloat32 for every query token (hnsw/search.go, computeScore)
_ABSENT = 1e30


@dataclass(frozen=True, slots=True)
class Call(Request[T]):
    """A method of the collection (of the client where ``of_client``), by its dotted name, and how its reply is read."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    read: Callable[[Any], T] = lambda reply: reply
    of_client: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """What is on the other end.

    Attributes:
        version: major, minor.
        engine: and its version, for people.
        max_message: bytes of one gRPC message.
    """

    version: tuple[int, ...] = (1, 39)
    engine: str = "Weaviate"
    max_message: int = 104_858_000


@dataclass(frozen=True, slots=True)
class VectorInfo:
    """One named vector of a collection.

    Attributes:
        multi: a multi-vector compared by MaxSim.
        distance: ``dot``, ``cosine``, ``l2-squared`` ...
        skip: stored and not indexed.
        muvera: ksim, dprojections and repetitions of Weaviate's own encoding, None without it.
        code_bits: of a quantized dimension, 0 without quantization.
        flat_cutoff: filtered searches of fewer documents go through all that the index holds; 0: none does.
        most: results of an unfiltered search at most.
    """

    multi: bool = False
    distance: str = "dot"
    skip: bool = False
    muvera: tuple[int, int, int] | None = None
    code_bits: float = 0.0
    flat_cutoff: int = 40_000
    most: int = MAX_RESULTS

    @property
    def index(self) -> str:
        """As in :class:`Collection`."""
        if self.skip:
            return "none"
        if self.muvera is None:
            return "hnsw"
        return "rerank" if self.muvera == (1, 1, 1) else "muvera"


@dataclass(slots=True)
class Collection:
    """A collection as the operations see it.

    Attributes:
        name: of the collection.
        encoder: of its FDEs.
        fde: name of the FDE vector.
        tokens: name of the multi-vector, None where no tokens are stored.
        fde_exists: the collection has such a vector.
        has_fde: it can be searched and written (False: adopted, to be backfilled).
        fde_info: of the FDE vector, as it was made.
        cosine: tokens are compared by cosine, so queries and FDEs are made of tokens of unit length.
        index: of the multi-vector: ``rerank`` (a MUVERA too small to search by), ``muvera``, ``hnsw`` or ``none``.
        flat_cutoff: filtered searches of fewer documents are exact (flatSearchCutoff).
        keeps_state: our two properties exist.
        foreign: there are vectors, references or blobs that are not ours, which a write must not drop.
        tenants: every call is about one of several tenants.
        width_seen: a stored FDE was found to have the encoder's width.
        seen: what operations have learned of it.
        indexes: number of vectors of a document that are indexed.
        server: it is kept in.
        token_floats: of the largest token matrix read so far; 0: none was.
    """

    name: str
    encoder: Encoder
    fde: str = "fde"
    tokens: str | None = "tokens"
    fde_exists: bool = True
    has_fde: bool = True
    fde_info: VectorInfo = VectorInfo()
    cosine: bool = False
    index: str = "rerank"
    flat_cutoff: int = 40_000
    keeps_state: bool = True
    foreign: bool = False
    tenants: bool = False
    width_seen: bool = False
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)
    indexes: int = 2
    server: Server = Server()
    token_floats: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """An object read. ``distance`` is None where the query gave none."""

    id: str
    properties: dict[str, Any]
    vectors: Vectors
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """An object to write: its id, all its properties, our vectors of it."""

    id: str
    properties: dict[str, Any]
    vectors: Vectors


def near_fde(
    collection: Collection,
    fde: npt.NDArray[np.float32],
    limit: int,
    filters: Any = None,
    properties: Any = None,
    vectors: Sequence[str] = (),
) -> Call[list[Row]]:
    """Nearest FDEs of a query's (dim,), best first. Reply: rows."""
    arguments = {"near_vector": fde, "target_vector": collection.fde, "limit": limit, "filters": filters}
    return Call("query.near_vector", {**arguments, **_returned(collection, properties, vectors)}, to_rows)


def near_tokens(
    collection: Collection,
    query: npt.NDArray[np.float32],
    limit: int,
    filters: Any = None,
    properties: Any = None,
    vectors: Sequence[str] = (),
) -> Call[list[Row]]:
    """Documents by MaxSim with (m, token_dim), best first, those without tokens left out. Reply: rows."""
    assert collection.tokens is not None
    # a two-dimensional array of one row is taken for a multi-vector here, unlike in writes
    arguments = {"near_vector": query, "target_vector": collection.tokens, "limit": limit, "filters": filters}
    return Call("query.near_vector", {**arguments, **_returned(collection, properties, vectors)}, _with_tokens)


def fetch(
    collection: Collection,
    ids: Sequence[str],
    properties: Any = True,
    vectors: Sequence[str] = (),
    filters: Any = None,
) -> Call[list[Row]]:
    """Those of at most FILTER_IDS ids that exist and pass ``filters``, in any order. Reply: rows."""
    arguments = {"limit": len(ids), "filters": by_ids(ids, filters)}
    return Call("query.fetch_objects", {**arguments, **_returned(collection, properties, vectors, False)}, to_rows)


def page(
    collection: Collection, limit: int, after: str | None, properties: Any = True, vectors: Sequence[str] = ()
) -> Call[list[Row]]:
    """A page in the order of ids; a cursor takes no filter. Reply: rows."""
    returned = _returned(collection, properties, vectors, False)
    return Call("query.fetch_objects", {"limit": limit, "after": after, **returned}, to_rows)


def count(filters: Any = None) -> Call[int]:
    """Reply: the exact number."""
    arguments = {"total_count": True, "filters": filters}
    return Call("aggregate.over_all", arguments, lambda reply: int(reply.total_count or 0))


def count_marked(collection: Collection) -> Call[int]:
    """Documents whose FDE this library wrote. Reply: the exact number."""
    return count(Filter.by_property(FDE_KEY).equal(collection.fde))


def insert(writes: Sequence[Write]) -> Call[dict[int, str]]:
    """Writes whole objects, replacing those that are there. Reply: position -> error of those refused."""
    objects = [DataObject(w.properties, w.id, _lists(w.vectors)) for w in writes]
    return Call("data.insert_many", {"objects": objects}, _errors)


def patch(write: Write) -> Call[None]:
    """Writes what is named of an object that exists; a property of None is removed."""
    arguments = {"uuid": write.id, "properties": write.properties, "vector": _lists(write.vectors)}
    return Call("data.update", arguments)


def delete(filters: Any) -> Call[tuple[int, int]]:
    """Deletes at most as many matches as one query may return. Reply: matches, failures."""
    return Call("data.delete_many", {"where": filters}, lambda reply: (int(reply.matches), int(reply.failed)))


def exists(name: str) -> Call[bool]:
    """Reply: whether there is such a collection."""
    return Call("collections.exists", {"name": name}, of_client=True)


def nodes(collection: Collection) -> Call[list[Any]]:
    """Reply: shards of the collection, of all nodes."""
    arguments = {"collection": collection.name, "output": "verbose"}
    return Call("cluster.nodes", arguments, lambda found: [s for node in found for s in node.shards], of_client=True)


def by_ids(ids: Sequence[str], filters: Any = None) -> Any:
    """Objects of these ids that pass ``filters``."""
    chosen = Filter.by_id().contains_any(list(ids))
    return chosen if filters is None else filters & chosen


def to_rows(reply: Any) -> list[Row]:
    """Objects of a query's reply; properties that an object does not have are left out."""
    return [
        Row(
            str(found.uuid),
            {key: value for key, value in (found.properties or {}).items() if value is not None},
            {name: np.asarray(vector, np.float32) for name, vector in (found.vector or {}).items()},
            found.metadata.distance if found.metadata else None,
        )
        for found in reply.objects
    ]


def _with_tokens(reply: Any) -> list[Row]:
    return [row for row in to_rows(reply) if row.distance is not None and row.distance < _ABSENT]


def _returned(collection: Collection, properties: Any, vectors: Sequence[str], distance: bool = True) -> dict[str, Any]:
    """Arguments that say what a query returns; ``properties`` is True (all), False (what ids need), names or None."""
    wanted = None
    if properties is None:
        wanted = []
    elif properties is not True:
        wanted = [*(properties or ()), *([ID_KEY] if collection.keeps_state else [])]
    returned: dict[str, Any] = {"return_properties": wanted, "include_vector": list(vectors) or False}
    if distance:
        returned["return_metadata"] = MetadataQuery(distance=True)
    return returned


def _lists(vectors: Vectors) -> dict[str, Any]:
    # the client squeezes arrays in writes: a document of one token would become a single vector (W/util.py, get_vector)
    return {name: vector.tolist() for name, vector in vectors.items()}


def _errors(reply: Any) -> dict[int, str]:
    return {position: str(error.message) for position, error in reply.errors.items()}
