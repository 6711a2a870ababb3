"""The configuration of a collection, in weaviate-client's types: makes and reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances
from weaviate.collections.classes.config import CollectionConfig, VectorIndexConfigHFresh
from weaviate.collections.classes.config_vector_index import (
    VectorIndexConfigCreate,
    VectorIndexConfigDynamicCreate,
    VectorIndexConfigHFreshCreate,
    VectorIndexConfigHNSWCreate,
    _MuveraConfigCreate,
)
from weaviate.collections.classes.config_vector_index import _QuantizerConfigCreate as QuantizerConfig  # type: ignore
from weaviate.collections.classes.config_vectors import VectorConfigCreate

from muvera_adapters.errors import InvalidInput, SchemaMismatch, Unsupported
from muvera_adapters.stores.checks import check_dimensions
from muvera_adapters.stores.kept import new_state
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.token_precision import ROUNDINGS, check_precision
from muvera_adapters.weaviate.collection import MAX_RESULTS, Collection, Seen, Server, VectorInfo
from muvera_adapters.weaviate.ids import FDE_KEY, ID_KEY, RESERVED
from muvera_adapters.weaviate.prepare import MAX_DIM
from muvera_adapters.weaviate.properties import json_property, kinds
from muvera_core import Encoder

Preset = Literal["rq8", "rq4", "rq1"]
Quantization: TypeAlias = Literal["auto"] | Preset | QuantizerConfig | None
#: what ``"auto"`` means, for any encoder (docs/weaviate.md)
AUTO_PRESET: Preset = "rq8"
#: ``rerank``, ``none``, ``hnsw``, or Weaviate's own encoding
TokensIndex: TypeAlias = Literal["rerank", "none", "hnsw"] | _MuveraConfigCreate

FDE, TOKENS = "fde", "tokens"

#: first version with MUVERA, added vectors, and correct filtered multi-vector search
MINIMUM_VERSION = (1, 31)

_OPTIONS = {
    "description",
    "inverted_index_config",
    "multi_tenancy_config",
    "references",
    "replication_config",
    "sharding_config",
}
_VI = Configure.VectorIndex
_BITS = {"_RQConfig": 8.0, "_SQConfig": 8.0, "_BQConfig": 1.0, "_PQConfig": 8.0}


def check_tokens(tokens: object) -> None:
    """Raises an error unless tokens are to be stored as float32: Weaviate quantizes only indexes.

    Raises:
        Unsupported: only other stores have this way of storing tokens.
        InvalidInput: no store has it.
    """
    check_precision(tokens, tuple(ROUNDINGS))
    if tokens != "float32":
        raise Unsupported(f"Weaviate stores token matrices only as float32, not as {tokens}; nothing was created")


def check_version(server: Server) -> None:
    """Raises Unsupported for servers that are too old."""
    if server.version < MINIMUM_VERSION:
        raise Unsupported(f"{server.engine} is too old; two-stage search needs 1.31 or later")


def quantizer(quantization: Quantization) -> QuantizerConfig:
    """The quantizer of a preset; never None, because a server may have its own default (DEFAULT_QUANTIZATION).

    Raises:
        InvalidInput: there is no such preset.
    """
    if quantization is None:
        return _VI.Quantizer.none()
    if not isinstance(quantization, str):
        return quantization
    preset = AUTO_PRESET if quantization == "auto" else quantization
    # rescoring reads whole objects with their tokens; because of the second stage, only 1-bit codes need it
    if preset in ("rq8", "rq4"):
        return _VI.Quantizer.rq(bits=8 if preset == "rq8" else 4, rescore_limit=0)
    if preset == "rq1":
        return _VI.Quantizer.rq(bits=1, rescore_limit=512)
    raise InvalidInput(f"quantization must be one of auto, {', '.join(get_args(Preset))}, None or a Weaviate object")


def fde_vector(name: str, quantization: Quantization, index: VectorIndexConfigCreate | None) -> VectorConfigCreate:
    """The self-provided FDE vector; distance and quantizer are set if ``index`` leaves them open."""
    index = index or _hnsw()
    # hfresh has its own codes and no dot product; document FDEs of unit length rank the same by cosine
    fresh = isinstance(index, VectorIndexConfigHFreshCreate)
    metric = VectorDistances.COSINE if fresh else VectorDistances.DOT
    if index.distance not in (None, VectorDistances.DOT, VectorDistances.COSINE):
        raise InvalidInput(f"FDEs are compared by dot or cosine, not by {index.distance.value}")
    update: dict[str, Any] = {"distance": index.distance or metric}
    if isinstance(index, VectorIndexConfigDynamicCreate):
        update["hnsw"] = _quantized(index.hnsw or _hnsw(), quantization)
        update["flat"] = _quantized(index.flat or _VI.flat(), quantization)
    elif not fresh:
        index = _quantized(index, quantization)
    return Configure.Vectors.self_provided(name=name, vector_index_config=index.model_copy(update=update))


def _hnsw() -> VectorIndexConfigHNSWCreate:
    return _VI.hnsw(ef_construction=128, max_connections=32)


def _quantized(index: VectorIndexConfigCreate, quantization: Quantization) -> VectorIndexConfigCreate:
    """The index with a quantizer; its own is kept."""
    return index if index.quantizer is not None else index.model_copy(update={"quantizer": quantizer(quantization)})


def token_vector(name: str, index: TokensIndex) -> VectorConfigCreate:
    """The self-provided multi-vector."""
    if isinstance(index, str) and index not in ("rerank", "none", "hnsw"):
        raise InvalidInput(f"tokens_index must be 'rerank', 'none', 'hnsw' or a MUVERA encoding, got {index!r}")
    if index == "none":
        return Configure.MultiVectors.self_provided(name=name, vector_index_config=_VI.none())
    encoding, connections, construction = None, None, None
    if index == "rerank":
        # the smallest index there is: two floats and a few links a document; filtered by ids, and with a limit of at
        # least half their number, it reranks them all exactly (hnsw/search.go, SearchByMultiVector)
        encoding = _VI.MultiVector.Encoding.muvera(ksim=1, dprojections=1, repetitions=1)
        connections, construction = 4, 4
    elif not isinstance(index, str):
        encoding = index
    hnsw = _VI.hnsw(
        distance_metric=VectorDistances.DOT,
        quantizer=_VI.Quantizer.none(),
        max_connections=connections,
        ef_construction=construction,
    )
    return Configure.MultiVectors.self_provided(name=name, encoding=encoding, vector_index_config=hnsw)


def creation(
    encoder: Encoder,
    quantization: Quantization,
    store_tokens: bool,
    index: VectorIndexConfigCreate | None,
    tokens_index: TokensIndex,
    properties: Sequence[Property],
    options: Mapping[str, Any],
    model: TokenModel | None,
) -> dict[str, Any]:
    """Arguments of ``collections.create``, without the name; ``options`` are passed on.

    Raises:
        InvalidInput: an option is not valid, or this library sets it.
    """
    check_dimensions(encoder, MAX_DIM, "Weaviate")
    for key in sorted(options.keys() - _OPTIONS):
        raise InvalidInput(f"create has no argument {key!r}; options of the client are {', '.join(sorted(_OPTIONS))}")
    for own in properties:
        if own.name in RESERVED:
            raise InvalidInput(f"the property name {own.name!r} is reserved")
    vectors = [fde_vector(FDE, quantization, index)]
    if store_tokens:
        vectors.append(token_vector(TOKENS, tokens_index))
    state = new_state(encoder, FDE, TOKENS if store_tokens else None, model)
    ours = [id_property(state), fde_property(), json_property()]
    return {**options, "vector_config": vectors, "properties": [*properties, *ours]}


def id_property(state: Mapping[str, Any]) -> Property:
    """The property with users' ids; its description has the collection's state."""
    return Property(
        name=ID_KEY,
        data_type=DataType.TEXT,
        description=json.dumps(state),
        index_filterable=False,
        index_searchable=False,
    )


def fde_property() -> Property:
    """The property that marks documents with an FDE; filterable, so that they can be counted."""
    return Property(
        name=FDE_KEY,
        data_type=DataType.TEXT,
        tokenization=Tokenization.FIELD,
        description="name of the vector that has the document's MUVERA encoding",
        index_filterable=True,
        index_searchable=False,
    )


def vector_infos(config: CollectionConfig) -> dict[str, VectorInfo]:
    """Named vectors of a collection's configuration."""
    infos = {}
    for name, vector in (config.vector_config or {}).items():
        index = vector.vector_index_config
        multi = getattr(index, "multi_vector", None)
        encoding = multi.encoding if multi is not None else None
        own = (encoding.ksim, encoding.dprojections, encoding.repetitions) if encoding and encoding.enabled else None
        graph = getattr(index, "hnsw", index)  # a dynamic index becomes one
        codes = getattr(graph, "quantizer", None)
        distance = getattr(index, "distance_metric", None)
        # hfresh returns no more than it rescores; for a selective filter it reads the objects, not its index
        # (hfresh/search.go, search_flat.go)
        fresh, rescored = isinstance(index, VectorIndexConfigHFresh), getattr(codes, "rescore_limit", None)
        infos[name] = VectorInfo(
            multi=multi is not None,
            distance=str(getattr(distance, "value", distance)),
            skip=bool(getattr(index, "skip", False)),
            muvera=own,
            code_bits=float(getattr(codes, "bits", None) or _BITS.get(type(codes).__name__, 0.0)),
            flat_cutoff=0 if fresh else int(getattr(graph, "flat_search_cutoff", 40_000)),
            most=rescored if fresh and rescored is not None else MAX_RESULTS,
        )
    return infos


def kept_state(config: CollectionConfig) -> Any:
    """State that is stored in a collection's configuration, as JSON values; None if there is none."""
    for own in config.properties:
        if own.name == ID_KEY:
            try:
                return json.loads(own.description or "null")
            except ValueError:
                return None
    return None


def describe(
    config: CollectionConfig, encoder: Encoder, fde: str, tokens: str | None, server: Server, need_fde: bool
) -> Collection:
    """Describes a collection whose vectors fit; their dimensions are not in the schema.

    Raises:
        SchemaMismatch: vectors do not fit; the message names each.
        InvalidInput: the encoder's vectors are too long for Weaviate.
    """
    check_dimensions(encoder, MAX_DIM, "Weaviate")
    vectors, problems = vector_infos(config), []
    if fde in vectors:
        if vectors[fde].multi:
            problems.append(f"{fde!r} is a multivector, FDEs are single vectors")
        if vectors[fde].distance not in ("dot", "cosine"):
            problems.append(f"{fde!r} is compared by {vectors[fde].distance}, FDEs by dot or cosine")
    elif need_fde:
        problems.append(f"there is no vector {fde!r}")
    if tokens is not None:
        problems += _token_problems(tokens, vectors)
    if problems:
        raise SchemaMismatch(f"{config.name} does not fit: {'; '.join(problems)}")
    return Collection(
        config.name,
        encoder,
        fde,
        tokens,
        fde_exists=fde in vectors,
        has_fde=fde in vectors,
        fde_info=vectors.get(fde, VectorInfo()),
        tokens_info=vectors[tokens] if tokens is not None else VectorInfo(skip=True),
        indexes=_indexes(vectors),
        keeps_state=ID_KEY in property_names(config),
        others=tuple(name for name in vectors if name not in (fde, tokens)),
        foreign=bool(config.references)
        or bool(vectors.keys() - {fde, tokens})
        # which queries return only when asked for by name
        or any(own.data_type in (DataType.BLOB, DataType.BLOB_HASH) for own in config.properties),
        tenants=bool(config.multi_tenancy_config.enabled),
        server=server,
        seen=Seen(kinds=kinds(config)),
    )


def refreshed(collection: Collection, config: CollectionConfig) -> Collection:
    """The collection with the current state of this library's parts."""
    vectors = vector_infos(config)
    collection.seen.kinds = kinds(config)
    return replace(
        collection,
        fde_exists=collection.fde in vectors,
        fde_info=vectors.get(collection.fde, collection.fde_info),
        indexes=_indexes(vectors),
        keeps_state=ID_KEY in property_names(config),
        others=tuple(name for name in vectors if name not in (collection.fde, collection.tokens)),
    )


def property_names(config: CollectionConfig) -> list[str]:
    """Names of all properties."""
    return [own.name for own in config.properties]


def _indexes(vectors: Mapping[str, VectorInfo]) -> int:
    return sum(not vector.skip for vector in vectors.values())


def _token_problems(tokens: str, vectors: Mapping[str, VectorInfo]) -> list[str]:
    if tokens not in vectors:
        there = ", ".join(repr(name) for name in sorted(vectors)) or "none"
        return [f"there is no vector {tokens!r}; there are: {there}"]
    info, problems = vectors[tokens], []
    if not info.multi:
        problems.append(f"{tokens!r} is not a multivector")
    if not info.skip and info.distance not in ("dot", "cosine"):
        problems.append(f"{tokens!r} is compared by {info.distance}, MaxSim needs dot or cosine")
    return problems
