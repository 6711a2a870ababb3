"""What a collection says of itself: its vectors, and the state that this library keeps with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muvera_adapters.errors import SchemaMismatch
from muvera_adapters.qdrant.prepare import check_encoder
from muvera_adapters.qdrant.requests import Collection, Wire
from muvera_core import Encoder

#: everything of this library is under this one key of the metadata, which the server merges key by key
STATE_KEY = "muvera"

_FLOAT_BYTES = {"float32": 4.0, "float16": 2.0, "uint8": 1.0, "turbo4": 0.5, "turbo8": 1.0, "turbo16": 2.0}
_BINARY_BITS = {"one_bit": 1.0, "one_and_half_bits": 1.5, "two_bits": 2.0}
# kinds of codes
_COARSE = ("binary", "product")
_TURBO_BITS = {"bits1": 1.0, "bits1_5": 1.5, "bits2": 2.0, "bits4": 4.0, "bits8": 8.0}


@dataclass(frozen=True, slots=True)
class VectorInfo:
    """One named vector of a collection.

    Attributes:
        size: of one vector.
        distance: ``dot``, ``cosine``, ``euclid`` or ``manhattan``.
        multi: a multivector compared by MaxSim.
        datatype: ``float32``, ``float16`` ...
        graph: an index is built over it.
        quantization: name of the kind of codes, its own or the collection's; None: none.
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
        """From Qdrant's JSON of the vector, and of the collection's quantization that it inherits without one."""
        codes = vector.get("quantization_config") or inherited or {}
        kind = next((key for key, value in codes.items() if value), None)
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
        """Codes of its kind lose recall unless candidates are compared by the originals."""
        return self.quantization in _COARSE

    @property
    def float_bytes(self) -> float:
        """Bytes of one dimension as stored."""
        return _FLOAT_BYTES.get(self.datatype, 4.0)


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
    """The collection, once its vectors are found to fit.

    Raises:
        SchemaMismatch: names everything that does not fit.
        InvalidInput: the encoder's vectors are too long for Qdrant.
    """
    check_encoder(encoder.dim)
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
        half=info is not None and info.datatype == "float16",
        fde_half=fde in vectors and vectors[fde].datatype == "float16",
        fde_cosine=fde in vectors and vectors[fde].distance == "cosine",
        rescore=fde in vectors and vectors[fde].rescore,
        tokens_indexed=info is not None and (info.graph or info.quantization is not None),
        exclusive=exclusive,
        wire=wire,
    )


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
        problems.append(f"{tokens!r} is no multivector")
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
