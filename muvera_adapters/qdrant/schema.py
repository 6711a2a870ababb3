"""Vectors and codes of a new collection, and of an FDE vector that is added, in qdrant-client's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from qdrant_client import models

from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.qdrant.collection import (
    FDE,
    MAX_DIM,
    STATE_KEY,
    TOKEN_PRESETS,
    TOKENS,
    Preset,
    VectorInfo,
    auto_preset,
    float_bytes,
)
from muvera_adapters.stores.checks import check_dimensions
from muvera_adapters.stores.kept import new_state
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.token_precision import check_precision
from muvera_core import Encoder

Quantization: TypeAlias = Preset | models.QuantizationConfig | None
#: how tokens are stored: a preset, or an object of Qdrant
Tokens: TypeAlias = Literal["float32", "float16", "turbo8", "turbo4"] | models.Datatype
#: codes of FDEs, which may be left to the store
FDEQuantization: TypeAlias = Literal["auto"] | Quantization

#: oldest server that stores metadata of collections
MINIMUM_VERSION = (1, 16)
#: oldest server that adds vectors to a collection
ADD_VECTOR_VERSION = (1, 18)
#: from here on an upsert can leave points alone that exist
INSERT_ONLY_VERSION = (1, 17)
#: oldest server that has TurboQuant
TURBO_VERSION = (1, 18)
#: oldest servers that store vectors in 8 or 4 bits
TURBO_STORAGE_VERSIONS = {models.Datatype.TURBO8: (1, 20), models.Datatype.TURBO4: (1, 19)}

# documents in a segment before its index is built
_INDEX_AFTER = 2_000
# kilobytes
_SERVERS_THRESHOLD = 10_000


def quantization_config(quantization: Quantization) -> models.QuantizationConfig | None:
    """A quantization preset in Qdrant's type; codes are kept in memory.

    Raises:
        InvalidInput: there is no such preset.
    """
    if quantization is None or isinstance(quantization, get_args(models.QuantizationConfig)):
        return quantization
    if quantization == "int8":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        return models.ScalarQuantization(scalar=scalar)
    if quantization in ("turbo4", "turbo2"):
        bits = models.TurboQuantBitSize.BITS4 if quantization == "turbo4" else models.TurboQuantBitSize.BITS2
        return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=bits, always_ram=True))
    if quantization == "binary":
        return models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(
                encoding=models.BinaryQuantizationEncoding.TWO_BITS,
                query_encoding=models.BinaryQuantizationQueryEncoding.SCALAR8BITS,
                always_ram=True,
            )
        )
    if quantization == "product":
        product = models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
        return models.ProductQuantization(product=product)
    raise InvalidInput(
        f"quantization must be one of auto, {', '.join(get_args(Preset))}, None or a Qdrant object, "
        f"got {quantization!r}"
    )


def check_datatype(datatype: models.Datatype, what: str) -> None:
    """Raises InvalidInput for a data type that rounds such vectors too coarsely.

    Args:
        datatype: data type of the stored vectors.
        what: name of the argument, ``datatype`` (of FDEs) or ``tokens``.
    """
    taken = (models.Datatype.FLOAT16, models.Datatype.FLOAT32) + (
        tuple(TURBO_STORAGE_VERSIONS) if what == "tokens" else ()
    )
    if datatype not in taken:
        raise InvalidInput(
            f"{what} must be one of {', '.join(each.name for each in taken)}, got {datatype!r}: values of other types "
            "are rounded too coarsely to be compared, UINT8 to whole numbers of 0 to 255"
        )


def fde_params(
    encoder: Encoder,
    quantization: FDEQuantization,
    datatype: models.Datatype,
    hnsw_config: models.HnswConfigDiff | None,
    on_disk: bool | None,
    version: tuple[int, ...],
) -> models.VectorParams:
    """Parameters of the FDE vector. They include quantization, since tokens would inherit that of the collection.

    ``version`` is the server's, on which ``quantization="auto"`` depends.
    """
    check_datatype(datatype, "datatype")
    if quantization == "auto":
        quantization = auto_preset(encoder.dim, version >= TURBO_VERSION)
    codes = quantization_config(quantization)
    return models.VectorParams(
        size=encoder.dim,
        distance=models.Distance.DOT,
        datatype=datatype,
        hnsw_config=hnsw_config or models.HnswConfigDiff(m=16, ef_construct=100),
        quantization_config=codes,
        # with codes in memory, the originals are read only when a search rescores
        on_disk=codes is not None if on_disk is None else on_disk,
    )


def token_datatype(tokens: Tokens) -> models.Datatype:
    """A preset in Qdrant's type.

    Raises:
        InvalidInput: there is no such preset, or MaxSim over such values means nothing.
    """
    if not isinstance(tokens, models.Datatype):
        check_precision(tokens, TOKEN_PRESETS, " or a Datatype")
        return models.Datatype(tokens)
    check_datatype(tokens, "tokens")
    return tokens


def token_params(
    encoder: Encoder,
    datatype: models.Datatype,
    quantization: Quantization,
    on_disk: bool | None,
) -> models.VectorParams:
    """Parameters of the tokens; m=0: a graph over MaxSim takes hours to build and two-stage search never uses it."""
    return models.VectorParams(
        size=encoder.token_dim,
        distance=models.Distance.DOT,
        datatype=datatype,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        hnsw_config=models.HnswConfigDiff(m=0, payload_m=0),
        quantization_config=quantization_config(quantization),
        on_disk=on_disk,
    )


def optimizers(fde: models.VectorParams) -> models.OptimizersConfigDiff:
    """An indexing threshold for FDEs of this size: it bounds what a search scans in a segment without an index.

    The server compares it with the bytes of each vector of a segment, so long token matrices reach it sooner.
    """
    size = fde.size * int(float_bytes(fde.datatype.value if fde.datatype else "float32"))
    return models.OptimizersConfigDiff(indexing_threshold=max(_SERVERS_THRESHOLD, _INDEX_AFTER * size // 1024))


@dataclass(frozen=True, slots=True)
class Plan:
    """A new collection: its vectors, and the other arguments of ``create_collection`` except its name."""

    vectors: dict[str, models.VectorParams]
    arguments: dict[str, Any]


def plan(
    encoder: Encoder,
    version: tuple[int, ...],
    *,
    quantization: FDEQuantization,
    store_tokens: bool,
    datatype: models.Datatype,
    on_disk: bool | None,
    hnsw_config: models.HnswConfigDiff | None,
    tokens: Tokens,
    tokens_quantization: Quantization,
    tokens_on_disk: bool | None,
    optimizers_config: models.OptimizersConfigDiff | None,
    model: TokenModel | None,
    **passed: Any,
) -> Plan:
    """The plan for the arguments of ``create``; those in ``passed`` go to ``create_collection`` if they are not None.

    ``version`` is the server's.
    """
    check_dimensions(encoder, MAX_DIM, "Qdrant")
    vectors = {FDE: fde_params(encoder, quantization, datatype, hnsw_config, on_disk, version)}
    if store_tokens:
        vectors[TOKENS] = token_params(encoder, token_datatype(tokens), tokens_quantization, tokens_on_disk)
    arguments = {
        "vectors_config": vectors,
        "optimizers_config": optimizers_config or optimizers(vectors[FDE]),
        "metadata": {STATE_KEY: new_state(encoder, FDE, TOKENS if store_tokens else None, model)},
        **{key: value for key, value in passed.items() if value is not None},
    }
    return Plan(vectors, arguments)


def check_version(version: tuple[int, ...], vectors: dict[str, models.VectorParams]) -> None:
    """Raises Unsupported if this server cannot store such a collection."""
    if version < MINIMUM_VERSION:
        raise Unsupported(
            f"Qdrant {dotted(version)} stores no collection metadata; upgrade it to {dotted(MINIMUM_VERSION)} or later"
        )
    turbo = any(isinstance(params.quantization_config, models.TurboQuantization) for params in vectors.values())
    if turbo and version < TURBO_VERSION:
        raise Unsupported(f"Qdrant {dotted(version)} has no TurboQuant; {dotted(TURBO_VERSION)} and later have it")
    for name, params in vectors.items():
        needed = TURBO_STORAGE_VERSIONS.get(params.datatype) if params.datatype else None
        if params.datatype and needed and version < needed:
            raise Unsupported(
                f"Qdrant {dotted(version)} cannot store the vector {name!r} as {params.datatype.value}; "
                f"{dotted(needed)} can. Use float16; nothing was created"
            )


def dotted(version: tuple[int, ...]) -> str:
    """A version as text: 1.18."""
    return ".".join(map(str, version))


def vector_infos(info: models.CollectionInfo) -> dict[str, VectorInfo]:
    """Dense vectors of a collection by name; an unnamed one has the name ''."""
    params = info.config.params.vectors or {}
    named = {"": params} if isinstance(params, models.VectorParams) else params
    inherited = info.config.quantization_config
    inherited_json = inherited.model_dump(mode="json", exclude_none=True) if inherited is not None else None
    return {
        name: VectorInfo.from_json(vector.model_dump(mode="json", exclude_none=True), inherited_json)
        for name, vector in named.items()
    }
