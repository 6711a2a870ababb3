"""Weaviate's entry in the registry.

Source of the sizes: Weaviate 1.39.0 with 2,041 to 8,164 documents, whose files have the sizes below to 1 %. With 2,000
documents of 40 tokens and encodings of 2,560 dimensions they took 3 % more, as the graph's log was not condensed yet.
After a restart, resident memory grew by 1.3 (rq8) and 1.1 (none) times the estimate of a document, and by 2.4 times the
estimate where every token is a node, since maps between tokens and documents are not counted. While indexing, Go's
garbage takes twice as much. Links: https://docs.weaviate.io/weaviate/concepts/resources. Codes:
adapters/repos/db/vector/compressionhelpers/rotational_quantization.go (16 bytes beside a code, dimensions in blocks of
64).
"""

from __future__ import annotations

import math
import os
import re
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from muvera_adapters.errors import AccessDenied, CollectionNotFound, MuveraError, SchemaMismatch, WrongUsage
from muvera_adapters.stores.database import (
    DatabaseSpec,
    Form,
    Listed,
    Target,
    dim_of,
    number_option,
    server_target,
    unreachable,
)
from muvera_adapters.stores.sizes import Part, Place, Planned, bytes_formula, code_bytes
from muvera_adapters.stores.times import MeasuredTime

_SECONDS = 120
_GRPC_PORT = 50051

#: bits of one dimension by preset
_QUANTIZATIONS = {"rq8": 8, "rq4": 4, "rq1": 1, "none": 0}
#: presets that lose little recall
WORTH_TRYING = ("rq8",)
# bytes in addition to the codes of a vector: its range and norms
_BESIDE = 16
_NODE_ON_DISK = 66.0
# connections of 10 bytes; 32 is the default, and the base layer has twice as many
_LINKS_IN_MEMORY = 10.0 * 2 * 32


def _parse(location: str) -> Target:
    if not re.match(r"https?://", location):
        raise WrongUsage(
            f"{f'{WEAVIATE.scheme}:{location}'!r}: write a server as a URL: {WEAVIATE.scheme}:http://{location}"
        )
    target = server_target(WEAVIATE, location, ["grpc_port"])
    number_option(target, "grpc_port")
    if urlsplit(target.location).path.strip("/"):
        raise WrongUsage(f"{str(target)!r}: the client of {WEAVIATE.title} takes no path: name a host and port")
    return target


def _connect(target: Target) -> Any:
    import weaviate
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout

    from muvera_adapters.weaviate.errors import translate

    key = os.environ.get("WEAVIATE_API_KEY")
    grpc_port = number_option(target, "grpc_port")
    parts = urlsplit(target.location)
    host, secure = parts.hostname or "", parts.scheme == "https"
    host = f"[{host}]" if ":" in host else host  # the client appends the port
    cloud = host.endswith((".weaviate.cloud", ".weaviate.network"))
    try:
        return weaviate.connect_to_custom(
            http_host=host,
            http_port=parts.port or (443 if secure else 80),
            http_secure=secure,
            # Weaviate Cloud has a separate host for gRPC
            grpc_host=f"grpc-{host}" if cloud else host,
            grpc_port=grpc_port or (443 if cloud else _GRPC_PORT),
            grpc_secure=secure,
            auth_credentials=Auth.api_key(key) if key else None,
            additional_config=AdditionalConfig(timeout=Timeout(init=10, query=_SECONDS, insert=_SECONDS)),
        )
    except Exception as error:  # the client raises what its transports raise
        problem = translate(error, str(target))
        if isinstance(problem, AccessDenied):
            raise AccessDenied(f"{target}: {problem}; a secret is read from {WEAVIATE.secret}") from error
        hint = "" if grpc_port else f"write another gRPC port than {_GRPC_PORT} as ?grpc_port=PORT"
        raise unreachable(WEAVIATE, target, error, hint) from error


def _token_dim(client: Any, name: str, vector: str, tenant: str | None = None) -> int:
    from muvera_adapters.weaviate.client import address
    from muvera_adapters.weaviate.errors import translate

    try:
        return _width(client, name, vector, tenant)
    except MuveraError:
        raise
    except Exception as error:  # the client raises what its transports raise
        raise translate(error, name, address(client)) from error


def _width(client: Any, name: str, vector: str, tenant: str | None) -> int:
    if not client.collections.exists(name):
        raise CollectionNotFound(f"there is no collection {name}")
    collection = client.collections.use(name)
    if tenant is not None:
        collection = collection.with_tenant(tenant)
    # the schema does not have the widths of vectors
    dims = dict.fromkeys(collection.config.get().vector_config or {}, 0)
    if vector in dims:
        for stored in collection.query.fetch_objects(limit=1, include_vector=[vector]).objects:
            if vector in stored.vector:
                dims[vector] = int(np.asarray(stored.vector[vector]).shape[-1])
        if not dims[vector]:
            raise SchemaMismatch(f"{name}: its first document has no vector {vector!r}")
    return dim_of(name, vector, dims)


def _collections(client: Any) -> list[Listed]:
    from muvera_adapters.weaviate.client import address
    from muvera_adapters.weaviate.errors import translate
    from muvera_adapters.weaviate.schema import kept_state, vector_infos

    found, name = [], "the list of collections"
    try:
        for name, config in client.collections.list_all(simple=False).items():
            multivectors = {vector: 0 for vector, info in vector_infos(config).items() if info.multi}
            documents = None
            if not config.multi_tenancy_config.enabled:  # each tenant has its own number
                documents = client.collections.use(name).aggregate.over_all(total_count=True).total_count
            found.append(Listed(name, documents, isinstance(kept_state(config), dict), multivectors))
    except Exception as error:  # the client raises what its transports raise
        raise translate(error, name, address(client)) from error
    return found


def _auto_quantization(_dim: int, _place: Place) -> str:
    return "rq8"


def _two_stages(planned: Planned) -> list[Part]:
    n, dim, preset = planned.documents, planned.dim, planned.quantization
    parts = []
    if preset == "none":
        parts.append(Part("vector cache, float32", n * 4.0 * dim, 0, "4 * dim", "Weaviate"))
    else:
        codes = n * code_bytes(64 * math.ceil(dim / 64), _QUANTIZATIONS[preset], _BESIDE)
        formula = f"{bytes_formula('dim', _QUANTIZATIONS[preset])} + {_BESIDE}, dim up to a multiple of 64"
        parts.append(Part(f"codes, {preset}", codes, codes, formula, "Weaviate", "codes"))
    formula = "at most 2 * 32 connections of 10 bytes; about 66 on disk"
    parts.append(Part("graph", n * _LINKS_IN_MEMORY, n * _NODE_ON_DISK, formula, "Weaviate"))
    small = n * (2 * 4 + 10.0 * 2 * 4)
    formula = "2 floats and at most 8 connections"
    parts.append(Part("graph for reranking", small, n * 76.0, formula, "Weaviate"))
    formula = "4 * dim, read for candidates"
    parts.append(Part("objects: encodings, float32", 0, n * 4.0 * dim, formula, "Weaviate", "encodings"))
    return [*parts, *_objects(planned)]


def _per_token(planned: Planned) -> list[Part]:
    nodes = planned.documents * planned.tokens
    return [
        Part("token cache, float32", 4 * planned.token_values, 0, "4 * token_dim a token", "Weaviate"),
        Part(
            "graph over tokens",
            nodes * _LINKS_IN_MEMORY,
            nodes * _NODE_ON_DISK,
            "at most 2 * 32 connections of 10 bytes a token",
            "Weaviate",
        ),
        Part("map of tokens to documents", 0, nodes * 75, "75 a token", "Weaviate"),
        *_objects(planned),
    ]


def _objects(planned: Planned) -> list[Part]:
    tokens = 4 * planned.token_values
    return [
        Part("objects: tokens, float32", 0, tokens, "4 * token_dim a token, read for candidates", "Weaviate", "tokens"),
        Part("objects: the rest", 0, planned.documents * 440.0, "440", "Weaviate"),
        Part("index of ids", 0, planned.documents * 140.0, "140", "Weaviate"),
    ]


# benchmarks/scale.py, rows of docs/figures/scale.json
_TIMES = (MeasuredTime(5_000, 28.5, 128, 2560, "rq8", 12.0, 0.0, 35.8, "server"),)

WEAVIATE = DatabaseSpec(
    scheme="weaviate",
    title="Weaviate",
    forms=(Form("URL", "server"),),
    package="weaviate-client",
    module="weaviate",
    extra="weaviate",
    secret="WEAVIATE_API_KEY",  # noqa: S106 (the name of a variable)
    parse=_parse,
    connect=_connect,
    store="muvera_adapters.weaviate:WeaviateMuvera",
    repairs=True,
    store_options=frozenset({"tenant"}),
    token_dim=_token_dim,
    collections=_collections,
    quantizations=_QUANTIZATIONS,
    auto_quantization=_auto_quantization,
    two_stages=_two_stages,
    times=_TIMES,
    per_token=_per_token,
)
