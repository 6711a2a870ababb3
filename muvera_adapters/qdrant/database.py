"""Qdrant's entry in the registry: a server, qdrant-client's local mode, and the embedded Qdrant Edge.

Sources of the sizes:

- *Edge*: files of Qdrant Edge 0.9, the engine of the server. With 2,041 documents, codes, encodings and tokens have the
  sizes below to the byte, and the graph has 60 % of the allowed links. With 2,000 and 8,000 documents of 40
  tokens and encodings of 2,560 dimensions, a segment took 1 % more than the parts below without the log. Links are
  bit-packed: lib/segment/src/index/hnsw_index/graph_links/serializer.rs.
  https://qdrant.tech/documentation/capacity-planning/
- *local mode*: files of qdrant-client 1.20 with 300 documents: SQLite with pickled points, 9 bytes a value. Vectors are
  float32 in memory; there is no index.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from muvera_adapters.errors import CollectionNotFound, StoreUnavailable, WrongUsage
from muvera_adapters.logs import LOG, short
from muvera_adapters.qdrant.collection import TOKEN_PRESETS, VectorInfo, auto_preset
from muvera_adapters.stores.database import (
    DatabaseSpec,
    Form,
    Listed,
    LocalIndex,
    Target,
    dim_of,
    number_option,
    server_target,
    unreachable,
)
from muvera_adapters.stores.sizes import (
    Part,
    Place,
    Planned,
    bytes_formula,
    code_bytes,
    link_bits,
    token_formula,
    token_precision,
)
from muvera_adapters.stores.times import MeasuredTime
from muvera_core import Encoder

if TYPE_CHECKING:
    from muvera_adapters.qdrant.edge.store import QdrantEdgeMuvera

_SECONDS = 120
_REST_PORT = 6333
# seconds to wait for the answer of gRPC
_PROBE_SECONDS = 2

#: bits of one dimension by preset
_QUANTIZATIONS = {"int8": 8, "turbo4": 4, "turbo2": 2, "binary": 2, "product": 2, "none": 0}
#: presets that lose little recall
WORTH_TRYING = ("int8", "turbo4", "turbo2")
# bytes in addition to the codes of a vector: the offset of int8, two scales of turbo
_BESIDE = {"int8": 4, "turbo4": 8, "turbo2": 8}
#: links of a node in the index
_M = 16
_MILLION_BITS = 20
# a server's log keeps two files of 32 MiB of what was written last, in which float32 values take 1.4 times their bytes;
# Edge's is made small after each load (edge/client.py)
_LOG = 2 * 32 * 1024 * 1024
_LOG_EDGE = 1 << 20
_IN_LOG = 1.4


def _parse(location: str) -> Target:
    text = f"{QDRANT.scheme}:{location}"
    if re.match(r"https?://", location):
        target = server_target(QDRANT, location, ["grpc_port"])
        number_option(target, "grpc_port")
        return target
    if _looks_like_a_host(location):
        raise WrongUsage(f"{text!r}: write a server as a URL: {QDRANT.scheme}:http://{location}")
    return Target(QDRANT.scheme, location, "directory", text=text)


def _parse_edge(location: str) -> Target:
    text = f"{QDRANT_EDGE.scheme}:{location}"
    if re.match(r"https?://", location):
        raise WrongUsage(
            f"{text!r}: Edge runs in this process on a directory; write a server as {QDRANT.scheme}:{location}"
        )
    if _looks_like_a_host(location):
        raise WrongUsage(
            f"{text!r}: Edge runs in this process on a directory; write a server as {QDRANT.scheme}:http://{location}"
        )
    return Target(QDRANT_EDGE.scheme, location, "directory", text=text)


def _looks_like_a_host(location: str) -> bool:
    return re.fullmatch(r"[\w.-]+:\d+(/.*)?", location) is not None


def _connect(target: Target) -> Any:
    from qdrant_client import QdrantClient

    if not target.is_server:
        try:
            return QdrantClient(path=target.location)
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreUnavailable(f"{target} cannot be opened: {error}") from error
    # the client would warn, rather than fail, when the server does not answer
    connect = partial(
        QdrantClient, url=target.location, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False
    )
    grpc_port = number_option(target, "grpc_port")
    options: dict[str, Any] = {} if grpc_port is None else {"grpc_port": grpc_port, "prefer_grpc": True}
    client = connect(timeout=_SECONDS, **options)
    try:
        served = client.info()
    except Exception as error:  # the client raises what its transport raises
        client.close()
        raise unreachable(QDRANT, target, error) from error
    if grpc_port is None and (found := _find_grpc(target, connect, served)) is not None:
        client.close()
        client = connect(timeout=_SECONDS, grpc_port=found, prefer_grpc=True)
    return client


def _find_grpc(target: Target, connect: Callable[..., Any], served: Any) -> int | None:
    """The port after that of REST, if the same server answers gRPC there, which takes a fifth of the bytes."""
    url = urlsplit(target.location)
    port = (url.port or _REST_PORT) + 1
    try:
        # otherwise the gRPC library would go on trying to connect
        socket.create_connection((url.hostname, port), timeout=_PROBE_SECONDS).close()
        client = connect(timeout=_PROBE_SECONDS, grpc_port=port, prefer_grpc=True)
        try:
            answered = client.info()
        finally:
            client.close()
    except Exception as error:  # the client raises what its transport raises
        LOG.info("%s is reached by REST, as gRPC does not answer at port %d: %s", target, port, short(error))
        return None
    if answered.version != served.version:
        LOG.info("%s is reached by REST, as another server answers gRPC at port %d", target, port)
        return None
    LOG.info("%s is reached by gRPC at port %d", target, port)
    return port


def _token_dim(client: Any, name: str, vector: str) -> int:
    from muvera_adapters.qdrant.schema import vector_infos

    if not client.collection_exists(name):
        raise CollectionNotFound(f"there is no collection {name}")
    infos = vector_infos(client.get_collection(name))
    return dim_of(name, vector, {each: info.size for each, info in infos.items()})


def _collections(client: Any) -> list[Listed]:
    from muvera_adapters.qdrant.collection import STATE_KEY
    from muvera_adapters.qdrant.errors import translate
    from muvera_adapters.qdrant.schema import vector_infos

    found, name = [], "the list of collections"
    try:
        for name in sorted(each.name for each in client.get_collections().collections):
            info = client.get_collection(name)
            has_fde = STATE_KEY in (info.config.metadata or {})
            found.append(Listed(name, info.points_count, has_fde, _widths(vector_infos(info))))
    except Exception as error:  # the client raises what its transports raise
        raise translate(error, engine=QDRANT.title, name=name, timeout=_SECONDS) from error
    return found


def _widths(infos: Mapping[str, VectorInfo]) -> dict[str, int]:
    return {name: info.size for name, info in infos.items() if info.multi}


def _edge_collections(directory: str) -> list[Listed]:
    from muvera_adapters.qdrant.edge.files import read_vectors, shards
    from muvera_adapters.qdrant.edge.store import count_documents

    return [
        Listed(name, count_documents(path), sidecar.is_file(), _widths(read_vectors(path)))
        for name, path, sidecar in shards(directory)
    ]


def _edge_token_dim(directory: str, name: str, vector: str) -> int:
    from muvera_adapters.qdrant.edge.files import paths, read_vectors

    infos = read_vectors(paths(directory, name)[0])
    return dim_of(name, vector, {each: info.size for each, info in infos.items()})


def _two_stages(planned: Planned) -> list[Part]:
    if planned.place == "directory":
        return _local_mode(planned)
    return _engine(planned)


def _engine(planned: Planned) -> list[Part]:
    n, dim, preset = planned.documents, planned.dim, planned.quantization
    graph = n * _links(link_bits(n))
    originals = n * 2.0 * dim
    parts = []
    if preset == "none":
        parts.append(Part("encodings, float16", originals, originals, "2 * dim", "Edge", "encodings"))
    else:
        codes = n * code_bytes(dim, _QUANTIZATIONS[preset], _BESIDE.get(preset, 0))
        formula = bytes_formula("dim", _QUANTIZATIONS[preset]) + (f" + {_BESIDE[preset]}" if preset in _BESIDE else "")
        parts.append(Part(f"codes, {preset}", codes, codes, formula, "Edge", "codes"))
        parts.append(Part("encodings, float16", 0, originals, "2 * dim, read by no search", "Edge", "encodings"))
    parts.append(Part("graph", graph, graph, "at most 33 links (m = 16) of log2 N bits", "Edge"))
    precision = token_precision(planned, "float16")
    formula = f"{token_formula(precision)}, read for candidates: memory for those asked often"
    stored = planned.token_bytes(precision)
    parts.append(Part(f"tokens, {precision}, no graph", 0, stored, formula, "Edge", "tokens"))
    parts.append(_ids(n))
    parts.append(_log(n * 4.0 * dim + 4 * planned.token_values, planned.place))
    return parts


def _local_mode(planned: Planned) -> list[Part]:
    values, tokens, n = planned.documents * planned.dim, planned.token_values, planned.documents
    formula = "9 a value, pickled; float32 in memory, no index"
    return [
        Part("encodings", 4.0 * values, 9.0 * values, formula, "local mode", "encodings"),
        Part("tokens", 4 * tokens, 9 * tokens, formula, "local mode", "tokens"),
        Part("ids and pages", 0, n * 1200.0, "about 1,200", "local mode"),
    ]


def _per_token(planned: Planned) -> list[Part]:
    points, values = planned.documents * planned.tokens, planned.token_values
    if planned.place == "directory":
        formula = "9 a value, pickled; float32 in memory, no index"
        return [Part("tokens", 4 * values, 9 * values, formula, "local mode", "tokens")]
    return _engine_per_token(points, values, planned.place)


def _engine_per_token(points: float, values: float, place: Place) -> list[Part]:
    links = points * _links(link_bits(points))
    return [
        Part("tokens, float32", 4 * values, 4 * values, "4 * token_dim a token", "Edge", "tokens"),
        Part("graph over tokens", links, links, "at most 33 links (m = 16) of log2 N bits a token", "Edge"),
        _ids(points, " a token"),
        _log(4 * values, place),
    ]


def _edge_per_token(planned: Planned) -> list[Part]:
    return _engine_per_token(planned.documents * planned.tokens, planned.token_values, planned.place)


def _ids(points: float, each: str = "") -> Part:
    return Part("ids and versions", points * 21.0, points * 21.0, f"21{each}", "Edge")


def _log(written: float, place: Place) -> Part:
    if place == "directory":
        return Part(
            "log of writes", 0, min(_LOG_EDGE, _IN_LOG * written), "what was written last, at most 1 MiB", "Edge"
        )
    return Part("log of writes", 0, min(_LOG, _IN_LOG * written), "what was written last, at most 64 MiB", "Edge")


def _links(bits: int) -> float:
    """Bytes of a node: at most 2 m links in the base layer and m in each layer above it, bit-packed."""
    return (2 * _M + _M / (_M - 1)) * bits / 8


def _auto_quantization(dim: int, _place: Place) -> str:
    return auto_preset(dim)


def _first_stage_bytes(dim: int, quantization: str | None) -> float:
    """Bytes of codes and graph links with a million documents; without quantization, of float32 values and no graph."""
    if quantization is None:
        return 4.0 * dim
    preset = QDRANT_EDGE.quantization(quantization, dim, "directory")
    return code_bytes(dim, _QUANTIZATIONS[preset], _BESIDE.get(preset, 0)) + _links(_MILLION_BITS)


def _create_local_index(
    directory: str, name: str, encoder: Encoder, quantization: str | None, store_tokens: bool
) -> QdrantEdgeMuvera:
    """Creates a collection that is searched through its graph, however few documents it has.

    The engine would scan small segments, which hides the recall that a graph loses in a large collection. The levels of
    the graph are random each time, so one candidate in a thousand may differ between runs; nothing else does.
    """
    import qdrant_edge as edge

    from muvera_adapters.qdrant.edge.store import QdrantEdgeMuvera

    return QdrantEdgeMuvera.create(
        directory,
        name,
        encoder,
        quantization=quantization,  # type: ignore[arg-type]  # checked there
        store_tokens=store_tokens,
        hnsw_config=edge.HnswIndexConfig(
            m=_M,
            ef_construct=100,
            full_scan_threshold=1,
            max_indexing_threads=1,  # several would link nodes in the order in which they come to it
        ),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
    )


# benchmarks/scale.py, rows of docs/figures/scale.json
_EDGE_TIMES = (
    MeasuredTime(5_000, 28.5, 128, 2560, "turbo2", 2.56, 4.39, 3.45, "directory"),
    MeasuredTime(50_000, 28.5, 128, 512, "turbo2", 21.6, 10.8, 3.99, "directory"),
    MeasuredTime(50_000, 28.5, 128, 2560, "turbo2", 32.9, 76.3, 5.73, "directory"),
    MeasuredTime(200_000, 28.5, 128, 2560, "turbo2", 127.0, 350.0, 7.03, "directory"),
)

_TIMES = (MeasuredTime(50_000, 28.5, 128, 2560, "turbo2", 65.2, 105.0, 12.0, "server"),)

QDRANT = DatabaseSpec(
    scheme="qdrant",
    title="Qdrant",
    forms=(Form("URL", "server"), Form("DIR", "directory")),
    package="qdrant-client",
    module="qdrant_client",
    extra="qdrant",
    secret="QDRANT_API_KEY",  # noqa: S106 (the name of a variable)
    parse=_parse,
    connect=_connect,
    store="muvera_adapters.qdrant:QdrantMuvera",
    token_dim=_token_dim,
    collections=_collections,
    quantizations=_QUANTIZATIONS,
    auto_quantization=_auto_quantization,
    token_presets=TOKEN_PRESETS,
    two_stages=_two_stages,
    times=_TIMES,
    per_token=_per_token,
    backfill_options=frozenset({"into", "alias"}),
)

QDRANT_EDGE = DatabaseSpec(
    scheme="qdrant-edge",
    title="Qdrant Edge",
    forms=(Form("DIR", "directory"),),
    package="qdrant-edge-py",
    module="qdrant_edge",
    extra="edge",
    parse=_parse_edge,
    connect=lambda target: target.location,
    disconnect=lambda _: None,
    store="muvera_adapters.qdrant:QdrantEdgeMuvera",
    retries=False,
    token_dim=_edge_token_dim,
    collections=_edge_collections,
    quantizations=_QUANTIZATIONS,
    auto_quantization=_auto_quantization,
    token_presets=TOKEN_PRESETS,
    two_stages=_engine,
    times=_EDGE_TIMES,
    per_token=_edge_per_token,
    local_index=LocalIndex(_create_local_index, WORTH_TRYING, _first_stage_bytes),
)
