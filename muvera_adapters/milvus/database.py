"""Milvus's entry in the registry: a server or cluster, and the embedded milvus-lite in a file.

``create`` stores tokens in struct arrays if the server has them (Milvus >= 2.6.4), otherwise as base64 text of float16.
Sizes of a server are those with struct arrays, sizes of a file those with text.

Sources of the sizes:

- *milvus-lite*: files of milvus-lite 3.2.2. With 2,000 documents of 40 tokens and 1,000 documents of 120 tokens
  (encodings of 2,560 and 5,120 dimensions) they took 1 % more than the parts below. The index is built in memory, and
  written when the file is opened again; the columns are loaded into memory.
- *formula*: no server with struct arrays was measured. Bytes of a vector in HNSW are d * 4 + M * 2 * 4
  (https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index); fields that are not mapped are loaded
  into memory (https://milvus.io/docs/mmap.md). A Milvus 2.3.5, which keeps tokens as text, had 11 % less on disk than
  these formulas with text, as it compresses encodings in its log and index, and kept 150 kB a document in message
  queue and etcd.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from muvera_adapters.errors import (
    AccessDenied,
    CollectionNotFound,
    MuveraError,
    SchemaMismatch,
    StoreUnavailable,
    WrongUsage,
)
from muvera_adapters.stores.database import (
    DatabaseSpec,
    Form,
    Listed,
    Target,
    dim_of,
    server_target,
    unreachable,
)
from muvera_adapters.stores.sizes import FORMULA, Part, Place, Planned, token_formula, token_precision

_SECONDS = 120
#: links of a node in the index
_M = 16
#: bits of one dimension by preset
_QUANTIZATIONS = {"sq8": 8, "none": 0}
#: presets that lose little recall
WORTH_TRYING = ("sq8",)


def _parse(location: str) -> Target:
    text = f"{MILVUS.scheme}:{location}"
    if re.match(r"https?://", location):
        return server_target(MILVUS, location)
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", location):
        raise WrongUsage(f"{text!r}: write a server as a URL: {MILVUS.scheme}:http://{location}")
    if not location.endswith(".db"):
        raise WrongUsage(
            f"{text!r}: write {MILVUS.scheme}:http://HOST:19530 for a server, {MILVUS.scheme}:FILE.db for milvus-lite"
        )
    return Target(MILVUS.scheme, location, "file", text=text)


def _connect(target: Target) -> Any:
    from pymilvus import MilvusClient

    token = os.environ.get("MILVUS_TOKEN", "") if target.is_server else ""
    try:
        return MilvusClient(uri=target.location, token=token, timeout=_SECONDS if target.is_server else None)
    except Exception as error:  # the client raises what its transports raise
        if not target.is_server:
            reason = " ".join(str(error).split())[:300]
            raise StoreUnavailable(
                f"{target} cannot be opened: does another process have it open? ({reason})"
            ) from error
        from muvera_adapters.milvus.errors import translate

        told = translate(error, "the connection", target.location)
        raise (told if isinstance(told, AccessDenied) else unreachable(MILVUS, target, error)) from error


def _token_dim(client: Any, name: str, vector: str) -> int:
    if not client.has_collection(name):
        raise CollectionNotFound(f"there is no collection {name}")
    fields, structs, texts, dims = _multivectors(client.describe_collection(name))
    if vector in fields and vector not in structs:
        raise SchemaMismatch(f"{name}: {vector!r} is not a multivector; there are: {_listed(dims)}")
    if vector in texts and vector not in structs:
        dims[vector] = _text_dim(client, name, vector, texts[vector])
    if vector in dims and not dims[vector]:
        raise SchemaMismatch(f"{name}: {vector!r} has no float vector, or more than one")
    return dim_of(name, vector, dims)


def _collections(client: Any) -> list[Listed]:
    from muvera_adapters.milvus.errors import translate
    from muvera_adapters.milvus.schema import kept_state

    found, name = [], "the list of collections"
    try:
        for name in sorted(client.list_collections()):
            description = client.describe_collection(name)
            documents = int(client.get_collection_stats(name)["row_count"])
            multivectors = _multivectors(description)[3]
            found.append(Listed(name, documents, kept_state(description) is not None, multivectors))
    except Exception as error:  # the client raises what its transports raise
        raise translate(error, name) from error
    return found


def _multivectors(description: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[str]], dict[str, int]]:
    """Fields, structs and texts with tokens, by name, and their widths; 0 for texts, as the schema has no width."""
    from pymilvus import DataType

    fields = {field["name"]: field for field in description["fields"]}
    structs = {each: field for each, field in fields.items() if field.get("element_type") == DataType.STRUCT}
    texts: dict[str, list[str]] = {}
    for each in sorted(fields, key=lambda n: (len(n), n)):  # _2 before _10
        match = re.fullmatch(r"(.+)_\d+", each)
        if match and fields[each]["type"] == DataType.VARCHAR:
            texts.setdefault(match[1], []).append(each)
    texts = {each: names for each, names in texts.items() if f"{each}_0" in names}
    dims = dict.fromkeys(texts, 0) | {each: _struct_dim(field) for each, field in structs.items()}
    return fields, structs, texts, dims


def _struct_dim(field: Mapping[str, Any]) -> int:
    """Width of the float vector of a struct; 0 unless there is exactly one."""
    from pymilvus import DataType

    vectors = [each for each in field["struct_fields"] if each["type"] == DataType.FLOAT_VECTOR]
    return int(vectors[0]["params"]["dim"]) if len(vectors) == 1 else 0


def _text_dim(client: Any, name: str, vector: str, fields: list[str]) -> int:
    """Width of the tokens of the first document that has any: the schema has no width."""
    from muvera_adapters.milvus.blobs import unpack

    try:
        client.load_collection(name)  # a reopened file is not loaded
        rows = client.query(name, filter=f'{fields[0]} != ""', output_fields=fields, limit=1)
    except Exception as error:  # the client raises what its transports raise
        reason = " ".join(str(error).split())[:300]
        raise MuveraError(f"{name}: the width of {vector!r} cannot be read ({reason})") from error
    tokens = unpack([rows[0][field] for field in fields], f"{name}, {vector!r}") if rows else None
    if tokens is None:
        raise SchemaMismatch(f"{name}: no document has tokens in {vector!r}, so their width is unknown")
    return int(tokens.shape[1])


def _listed(dims: Mapping[str, int]) -> str:
    return ", ".join(repr(each) for each in sorted(dims)) or "none"


def _auto_quantization(_dim: int, _place: Place) -> str:
    return "sq8"


def _two_stages(planned: Planned) -> list[Part]:
    n, lite = planned.documents, planned.place == "file"
    source = "milvus-lite" if lite else FORMULA
    values, links = n * planned.dim, n * 8.0 * _M
    if planned.quantization == "none":
        index = Part("encodings in the index, float32", 4.0 * values, 4.0 * values, "4 * dim", source)
    else:
        index = Part("codes in the index, sq8", values, values, "dim", source, "codes")
    parts = [
        index,
        Part("graph", links, links, f"M * 2 * 4, M = {_M}", source),
        Part("encodings in the log, float32", 0, 4.0 * values, "4 * dim", source, "encodings"),
    ]
    precision = token_precision(planned, "float16" if lite else "float32")
    if not lite and precision == "float32":
        return [*parts, *_struct_arrays(planned)]
    text = planned.token_bytes(precision) * 4 / 3
    formula = f"4 / 3 * ({token_formula(precision)}): base64"
    return [
        *parts,
        Part("tokens as text", text, text, formula, source, "tokens"),
        Part("ids and pages", 0, n * 250.0, "about 250", source),
    ]


def _per_token(planned: Planned) -> list[Part]:
    if planned.place == "server":
        return _struct_arrays(planned)
    nodes, values = planned.documents * planned.tokens, 4 * planned.token_values
    links = nodes * 8.0 * _M
    return [
        Part("tokens in the index, float32", values, values, "4 * token_dim a token", "milvus-lite"),
        Part("graph over tokens", links, links, f"M * 2 * 4 a token, M = {_M}", "milvus-lite"),
        Part("tokens in the log, float32", 0, values, "4 * token_dim a token", "milvus-lite", "tokens"),
    ]


def _struct_arrays(planned: Planned) -> list[Part]:
    values, links = 4 * planned.token_values, planned.documents * planned.tokens * 8.0 * _M
    formula = "4 * token_dim a token: a struct array must have an index to be loaded"
    return [
        Part("tokens in their index, float32", values, values, formula, FORMULA),
        Part("graph over tokens", links, links, f"M * 2 * 4 a token, M = {_M}", FORMULA),
        Part("tokens in the log, float32", 0, values, "4 * token_dim a token", FORMULA, "tokens"),
    ]


MILVUS = DatabaseSpec(
    scheme="milvus",
    title="Milvus",
    forms=(Form("URL", "server"), Form("FILE.db", "file")),
    package="pymilvus",
    module="pymilvus",
    extra="milvus",
    secret="MILVUS_TOKEN",  # noqa: S106 (the name of a variable)
    parse=_parse,
    connect=_connect,
    store="muvera_adapters.milvus:MilvusMuvera",
    token_dim=_token_dim,
    collections=_collections,
    quantizations=_QUANTIZATIONS,
    auto_quantization=_auto_quantization,
    token_presets=("float32", "float16", "int8"),
    two_stages=_two_stages,
    per_token=_per_token,
    backfill_options=frozenset({"into", "alias", "leave_out"}),
)
