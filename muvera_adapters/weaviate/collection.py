"""The description of a Weaviate collection and its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from muvera_adapters.stores import collection as shared
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.weaviate.properties import Kind
from muvera_core import Encoder

#: maximum offset + limit of a query, with the server's default QUERY_MAXIMUM_RESULTS
MAX_RESULTS = 10_000


@dataclass(frozen=True, slots=True)
class Server:
    """The server that answers.

    Attributes:
        version: major and minor version.
        engine: name and version of the server, for messages.
        max_message: maximum bytes of one gRPC message.
    """

    version: tuple[int, ...] = (1, 39)
    engine: str = "Weaviate"
    max_message: int = 104_858_000


@dataclass(frozen=True, slots=True)
class VectorInfo:
    """Configuration of a named vector.

    Attributes:
        multi: whether it is a multi-vector, compared by MaxSim.
        distance: metric: ``dot``, ``cosine``, ``l2-squared`` ...
        skip: whether it is stored without an index.
        muvera: ksim, dprojections and repetitions of Weaviate's own encoding; None without it.
        code_bits: bits of a quantized dimension; 0 without quantization.
        flat_cutoff: below this many matching documents, a filtered search scans exhaustively; 0: never.
        most: maximum number of results of an unfiltered search.
    """

    multi: bool = False
    distance: str = "dot"
    skip: bool = False
    muvera: tuple[int, int, int] | None = None
    code_bits: float = 0.0
    flat_cutoff: int = 40_000
    most: int = MAX_RESULTS


@dataclass(slots=True)
class Seen(shared.Seen):
    """What operations learn about a collection's content while they run.

    Attributes:
        fde_length: typical length of the stored FDEs; None: unknown.
        fde_width: whether a stored FDE was seen to have the encoder's width.
        token_floats: number of floats in the largest token matrix read so far; 0: none was read.
        kinds: types of the properties that are known to exist, this library's included.
    """

    fde_width: bool = False
    token_floats: int = 0
    kinds: Mapping[str, Kind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as operations see it.

    Attributes:
        name: name of the collection, as Weaviate writes it.
        encoder: encoder of its FDEs.
        fde: name of the FDE vector.
        tokens: name of the multi-vector; None if tokens are not stored.
        fde_exists: whether the collection has a vector of that name.
        has_fde: whether FDEs can be searched and written; False: adopted, to be backfilled.
        fde_info: configuration of the FDE vector.
        tokens_info: configuration of the multi-vector.
        indexes: number of vectors of a document that are indexed.
        keeps_state: whether this library's properties exist.
        others: names of the other vectors.
        foreign: whether there are other vectors, references or blobs, which a write must not drop.
        tenants: whether the collection is divided into tenants.
        server: server that has the collection.
        model: model of the tokens; None: unknown.
        seen: what operations have learned about the collection so far.
    """

    name: str
    encoder: Encoder
    fde: str = "fde"
    tokens: str | None = "tokens"
    fde_exists: bool = True
    has_fde: bool = True
    fde_info: VectorInfo = VectorInfo()
    tokens_info: VectorInfo = VectorInfo(multi=True, muvera=(1, 1, 1))
    indexes: int = 2
    keeps_state: bool = True
    others: tuple[str, ...] = ()
    foreign: bool = False
    tenants: bool = False
    server: Server = Server()
    model: TokenModel | None = None
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)

    @property
    def token_error(self) -> float:
        """Rounding error of stored tokens: 0, as they are stored as float32."""
        return 0.0

    @property
    def cosine(self) -> bool:
        """Whether tokens are compared by cosine; then queries and FDEs are computed from tokens of unit length."""
        return self.tokens is not None and self.tokens_info.distance == "cosine"

    @property
    def index(self) -> str:
        """Index of the multi-vector: ``rerank`` (a MUVERA too small to search by), ``muvera``, ``hnsw`` or ``none``."""
        info = self.tokens_info
        if self.tokens is None or info.skip:
            return "none"
        if info.muvera is None:
            return "hnsw"
        return "rerank" if info.muvera == (1, 1, 1) else "muvera"

    @property
    def exact_below(self) -> int:
        """Number of chosen documents below which the token index scores all of them exactly; 0: never."""
        info = self.tokens_info
        # with quantized tokens, a document without tokens fails the whole query
        return 0 if info.code_bits and info.muvera is None else info.flat_cutoff
