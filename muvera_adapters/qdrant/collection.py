"""The description of a collection: its vectors, its connection, and what operations learn about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from muvera_adapters.errors import SchemaMismatch
from muvera_adapters.stores.checks import check_dimensions
from muvera_adapters.stores.collection import BatchLimit, Counted
from muvera_adapters.stores.collection import Seen as LearnedByAll
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.token_precision import TokenPrecision, rounding_error
from muvera_core import Encoder

#: names of the vectors in collections that this library makes
FDE, TOKENS = "fde", "tokens"

#: the one metadata key that has everything of this library; the server merges metadata key by key
STATE_KEY = "muvera"

#: quantization presets
Preset = Literal["int8", "turbo4", "turbo2", "binary", "product"]

#: number of dimensions from which two-bit codes of FDEs have the recall of int8 codes (docs/qdrant.md)
TWO_BITS_FROM = 1_280

#: presets of how tokens are stored
TOKEN_PRESETS: tuple[TokenPrecision, ...] = ("float32", "float16", "turbo8", "turbo4")

#: largest dimension of a vector: lib/common/common/src/validation.rs; the engine and local mode do not check it
MAX_DIM = 65_536

_FLOAT_BYTES = {"float32": 4.0, "float16": 2.0, "uint8": 1.0, "turbo4": 0.5, "turbo8": 1.0, "turbo16": 2.0}
_BINARY_BITS = {"one_bit": 1.0, "one_and_half_bits": 1.5, "two_bits": 2.0}
#: kinds of quantization that are too coarse to compare candidates by
_COARSE = ("binary", "product")
_TURBO_BITS = {"bits1": 1.0, "bits1_5": 1.5, "bits2": 2.0, "bits4": 4.0, "bits8": 8.0}


@dataclass(frozen=True, slots=True)
class Wire:
    """Limits of one write to the database.

    Attributes:
        bytes_per_float: bytes of one number when serialized.
        target: target size of a batch in bytes.
        cap: size in bytes above which the database rejects a request; None: there is no such limit.
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


@dataclass(slots=True, kw_only=True)
class Seen(LearnedByAll):
    """What operations learn about a collection while they run.

    Attributes:
        lacking: number of documents with an FDE and without tokens.
        without_tokens: number of documents without tokens.
        counts_are_refused: whether the server rejects exact counts, as strict mode may.
        searched_at_once: maximum number of searches in one request.
        read_at_once: maximum number of documents in one page.
    """

    lacking: Counted = field(default_factory=Counted)
    without_tokens: Counted = field(default_factory=Counted)
    counts_are_refused: bool = False
    searched_at_once: BatchLimit = field(default_factory=BatchLimit)
    read_at_once: BatchLimit = field(default_factory=BatchLimit)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the operations see it.

    Attributes:
        name: name of the collection.
        encoder: encoder of its FDEs.
        fde: name of the FDE vector.
        tokens: name of the multivector; None if tokens are not stored.
        has_fde: whether the FDE vector exists; it does not in an adopted collection before its backfill.
        cosine: whether tokens are stored normalised, so that queries and FDEs are computed from normalised tokens.
        stored_as: data type of the stored tokens, as Qdrant names it.
        fde_half: whether FDEs are stored as float16.
        fde_cosine: whether FDEs are compared by cosine, not by dot product.
        rescore: whether the codes of FDEs are too coarse to compare candidates by, so that the first stage reads the
            originals.
        tokens_indexed: whether the multivector has a graph or quantized codes, which an exact score must not use.
        exclusive: whether this process is the only one that can write.
        kept: whether the collection stores this encoder; False while the FDE vector is new beside another one.
        wire: limits of one write to the database.
        uneven: whether a failed write may have reached only some replicas, so that one of them may lack a document that
            another one has.
        model: model of the tokens; None: unknown.
        seen: what operations learn while they run; copies made by ``dataclasses.replace`` share it.
    """

    name: str
    encoder: Encoder
    fde: str = FDE
    tokens: str | None = TOKENS
    has_fde: bool = True
    cosine: bool = False
    stored_as: str = "float16"
    fde_half: bool = True
    fde_cosine: bool = False
    rescore: bool = False
    tokens_indexed: bool = False
    exclusive: bool = False
    kept: bool = True
    wire: Wire = LOCAL
    uneven: bool = False
    model: TokenModel | None = None
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)

    @property
    def token_error(self) -> float:
        """Typical length of the rounding error of a stored token, relative to the token's length."""
        return rounding_error(self.stored_as)

    @property
    def token_float_bytes(self) -> float:
        """Bytes of one dimension of a stored token."""
        return float_bytes(self.stored_as)


@dataclass(frozen=True, slots=True)
class VectorInfo:
    """One named vector of a collection.

    Attributes:
        size: number of dimensions.
        distance: ``dot``, ``cosine``, ``euclid`` or ``manhattan``.
        multi: whether it is a multivector, which is compared by MaxSim.
        datatype: ``float32``, ``float16`` ...
        graph: whether an index is built over it.
        quantization: kind of its quantization, possibly inherited from the collection; None: not quantized.
        code_bits: bits of a code for one dimension.
    """

    size: int
    distance: str
    multi: bool
    datatype: str
    graph: bool
    quantization: str | None
    code_bits: float

    @classmethod
    def from_json(cls, vector: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> VectorInfo:
        """Reads Qdrant's JSON of the vector, and of the collection's quantization, which is the default."""
        codes = vector.get("quantization_config") or inherited or {}
        # a value may be empty: binary quantization with only defaults
        kind = next((key for key, value in codes.items() if value is not None), None)
        return cls(
            size=int(vector["size"]),
            distance=str(vector["distance"]).lower(),
            multi=vector.get("multivector_config") is not None,
            datatype=str(vector.get("datatype") or "float32").lower(),
            graph=(vector.get("hnsw_config") or {}).get("m") != 0,
            quantization=kind,
            code_bits=_code_bits(kind, codes[kind]) if kind else 0.0,
        )

    @property
    def rescore(self) -> bool:
        """Whether its quantization loses recall unless candidates are rescored with the originals."""
        return self.quantization in _COARSE

    @property
    def float_bytes(self) -> float:
        """Bytes of one stored dimension."""
        return float_bytes(self.datatype)


def float_bytes(datatype: str) -> float:
    """Bytes of one dimension of a data type."""
    return _FLOAT_BYTES.get(datatype, 4.0)


def describe(
    name: str,
    vectors: Mapping[str, VectorInfo],
    encoder: Encoder,
    fde: str,
    tokens: str | None,
    wire: Wire,
    *,
    need_fde: bool,
    exclusive: bool = False,
) -> Collection:
    """Describes a collection, after checking that its vectors fit the encoder.

    Raises:
        SchemaMismatch: some vectors do not fit; the message names each difference.
        InvalidInput: the encoder's FDEs are too long for Qdrant.
    """
    check_dimensions(encoder, MAX_DIM, "Qdrant")
    problems = []
    if fde in vectors:
        problems += _fde_problems(fde, vectors[fde], encoder)
    elif need_fde:
        problems.append(f"there is no vector {fde!r}")
    if tokens is not None:
        problems += _token_problems(tokens, vectors, encoder)
    if problems:
        raise SchemaMismatch(f"{name} does not fit: {'; '.join(problems)}")
    info = vectors[tokens] if tokens is not None else None
    return Collection(
        name,
        encoder,
        fde,
        tokens,
        has_fde=fde in vectors,
        cosine=info is not None and info.distance == "cosine",
        stored_as="float32" if info is None else info.datatype,
        fde_half=fde in vectors and vectors[fde].datatype == "float16",
        fde_cosine=fde in vectors and vectors[fde].distance == "cosine",
        rescore=fde in vectors and vectors[fde].rescore,
        tokens_indexed=info is not None and (info.graph or info.quantization is not None),
        exclusive=exclusive,
        wire=wire,
    )


def auto_preset(dim: int, turbo: bool = True) -> Preset:
    """The preset that ``quantization="auto"`` means for FDEs; ``turbo``: whether the engine has TurboQuant."""
    return "turbo2" if turbo and dim >= TWO_BITS_FROM else "int8"


def _fde_problems(fde: str, info: VectorInfo, encoder: Encoder) -> list[str]:
    problems = []
    if info.multi:
        problems.append(f"{fde!r} is a multivector, FDEs are single vectors")
    if info.size != encoder.dim:
        problems.append(f"{fde!r} has {info.size} dimensions, the encoder gives {encoder.dim}")
    if info.distance not in ("dot", "cosine"):
        problems.append(f"{fde!r} is compared by {info.distance}, FDEs by dot or cosine")
    return problems


def _token_problems(tokens: str, vectors: Mapping[str, VectorInfo], encoder: Encoder) -> list[str]:
    if tokens not in vectors:
        there = ", ".join(repr(name) for name in sorted(vectors)) or "none"
        return [f"there is no vector {tokens!r}; there are: {there}"]
    info, problems = vectors[tokens], []
    if not info.multi:
        problems.append(f"{tokens!r} is not a multivector")
    if info.size != encoder.token_dim:
        problems.append(f"{tokens!r} has {info.size} dimensions, the encoder takes {encoder.token_dim}")
    if info.distance not in ("dot", "cosine"):
        problems.append(f"{tokens!r} is compared by {info.distance}, MaxSim needs dot or cosine")
    return problems


def _code_bits(kind: str, settings: Mapping[str, Any]) -> float:
    if kind == "scalar":
        return 8.0
    if kind == "binary":
        return _BINARY_BITS.get(str(settings.get("encoding") or "one_bit"), 1.0)
    if kind == "product":
        return 32.0 / int(str(settings.get("compression", "x4")).lstrip("x"))
    return _TURBO_BITS.get(str(settings.get("bits") or "bits4"), 4.0)
