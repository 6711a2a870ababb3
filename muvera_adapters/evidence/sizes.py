"""Bytes in memory and on disk of a collection that is not there yet, by part and database.

Of one copy, without replicas, payloads and what a process needs anyway (some 100 MB), when indexing has finished.
While it works, Qdrant and Milvus keep the segments that are being replaced, and Weaviate the garbage of Go: half as
much again is Qdrant's advice, twice as much Weaviate's.

Sources, by name in :attr:`Part.source`:

- *Qdrant*: files of Qdrant Edge 0.9, the engine itself, of 2,041 documents: codes, encodings and tokens as below to the
  byte, graph 60 % of what is below (its links are fewer than allowed). Links are bit-packed, see
  lib/segment/src/index/hnsw_index/graph_links/serializer.rs. https://qdrant.tech/documentation/capacity-planning/
- *Weaviate*: Weaviate 1.39.0 with 2,041 to 8,164 documents: files as below to 1 %; resident memory after a restart
  grew by 1.3 (rq8) and 1.1 (none) of what is below a document, and was 2.4 times it where every token is a node, which
  has maps that are not counted. adapters/repos/db/vector/compressionhelpers/rotational_quantization.go (16 bytes
  beside a code, dimensions in blocks of 64), https://docs.weaviate.io/weaviate/concepts/resources (connections).
- *Milvus*: nothing of it was measured. https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index
  (d * 4 + M * 2 * 4 bytes a vector in HNSW), on which its indexes are built, and https://milvus.io/docs/mmap.md
  (fields that are not mapped are loaded into memory).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muvera_adapters.errors import InvalidInput

#: bits a dimension of each database's presets; the first is its store's default
QUANTIZATIONS: dict[str, dict[str, float]] = {
    "qdrant": {"int8": 8, "turbo4": 4, "turbo2": 2, "binary": 2, "product": 2, "none": 0},
    "weaviate": {"rq8": 8, "rq4": 4, "rq1": 1, "none": 0},
    "milvus": {"none": 0, "sq8": 8},
}
# beside the codes of a vector: offset of int8, two scales of turbo, range and norms of rq
_BESIDE = {"int8": 4, "turbo4": 8, "turbo2": 8, "rq8": 16, "rq4": 16, "rq1": 16}
_MILLION_BITS = 20
_WEAVIATE_NODE_ON_DISK = 66.0


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a collection takes.

    Attributes:
        name: of the part.
        ram: bytes that must be in memory for searches to be fast.
        disk: bytes.
        formula: of one document or token, in words.
        source: of the formula, as listed in this module's documentation.
    """

    name: str
    ram: float
    disk: float
    formula: str
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A collection of N documents.

    Attributes:
        database: ``qdrant`` (also Edge), ``weaviate`` or ``milvus``.
        layout: ``"two stages"``, or ``"a vector per token"``: every token in a graph.
        quantization: of the encodings; ``"none"``.
        documents: N.
        parts: of it.
    """

    database: str
    layout: str
    quantization: str
    documents: int
    parts: list[Part]

    @property
    def ram(self) -> float:
        """Bytes of all parts."""
        return sum(part.ram for part in self.parts)

    @property
    def disk(self) -> float:
        """Bytes of all parts."""
        return sum(part.disk for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "ram": self.ram, "disk": self.disk}


def estimate(
    documents: int,
    tokens_per_document: float,
    dim: int,
    *,
    token_dim: int = 128,
    databases: Sequence[str] = ("qdrant", "weaviate", "milvus"),
    quantization: str | None = None,
) -> list[Estimate]:
    """Sizes of collections as the stores of this library make them, each followed by a vector per token there.

    Args:
        documents: how many.
        tokens_per_document: mean.
        dim: of an encoding.
        token_dim: of a token vector.
        databases: ``qdrant``, ``weaviate``, ``milvus``.
        quantization: of the encodings, a key of ``QUANTIZATIONS[database]``; None: the default of each store.

    Raises:
        InvalidInput: an unknown name, or a number below 1.
    """
    if documents < 1 or tokens_per_document < 1 or dim < 1 or token_dim < 1:
        raise InvalidInput(
            "documents, tokens per document and dimensions must be at least 1, got "
            f"{documents}, {tokens_per_document}, {dim} and {token_dim}"
        )
    found = []
    for database in databases:
        if database not in _LAYOUTS:
            raise InvalidInput(f"no estimate for {database!r}; there are {', '.join(_LAYOUTS)}")
        known = QUANTIZATIONS[database]
        chosen = quantization or next(iter(known))
        if chosen not in known:
            raise InvalidInput(f"{database} has no quantization {chosen!r}; there are {', '.join(known)}")
        two_stages, per_token = _LAYOUTS[database]
        parts = two_stages(documents, tokens_per_document, dim, token_dim, chosen)
        found.append(Estimate(database, "two stages", chosen, documents, parts))
        parts = per_token(documents, tokens_per_document, token_dim)
        found.append(Estimate(database, "a vector per token", "none", documents, parts))
    return found


def code_bytes(dim: int, quantization: str | None) -> float:
    """Of the codes of one vector; without quantization, of its float32 values."""
    if quantization is None or quantization == "none":
        return 4.0 * dim
    for presets in QUANTIZATIONS.values():
        if quantization in presets:
            return dim * presets[quantization] / 8 + _BESIDE.get(quantization, 0)
    raise InvalidInput(f"unknown quantization {quantization!r}")


def first_stage_bytes(dim: int, quantization: str | None) -> float:
    """Of one document in the memory of Qdrant: codes, and links of a graph over a million; without codes, no graph."""
    links = 0.0 if quantization is None else _qdrant_links(_MILLION_BITS)
    return code_bytes(dim, quantization) + links


def _qdrant_links(bits: int) -> float:
    """At most 2 m links of a node in the base layer and m in each above it, m = 16, bit-packed."""
    return (32 + 16 / 15) * bits / 8


def _qdrant(n: int, t: float, dim: int, token_dim: int, quantization: str) -> list[Part]:
    bits = max(1, math.ceil(math.log2(n)))
    graph = n * _qdrant_links(bits)
    parts = []
    originals = n * 2.0 * dim
    if quantization == "none":
        parts.append(Part("encodings, float16", originals, originals, "2 * dim", "Qdrant"))
    else:
        codes = n * code_bytes(dim, quantization)
        bits_each, beside = QUANTIZATIONS["qdrant"][quantization], _BESIDE.get(quantization, 0)
        formula = f"dim * {bits_each:g} / 8" + (f" + {beside}" if beside else "")
        parts.append(Part(f"codes, {quantization}", codes, codes, formula, "Qdrant"))
        parts.append(Part("encodings, float16", 0, originals, "2 * dim, read by no search", "Qdrant"))
    parts.append(Part("graph", graph, graph, "at most 33 links (m = 16) of log2 N bits", "Qdrant"))
    tokens = n * t * 2.0 * token_dim
    formula = "2 * token_dim a token, read for candidates: memory for those asked often"
    parts.append(Part("tokens, float16, no graph", 0, tokens, formula, "Qdrant"))
    ids = n * 21.0
    parts.append(Part("ids and versions", ids, ids, "21", "Qdrant"))
    return parts


def _qdrant_tokens(n: int, t: float, token_dim: int) -> list[Part]:
    points = n * t
    vectors, links = points * 4.0 * token_dim, points * _qdrant_links(max(1, math.ceil(math.log2(points))))
    return [
        Part("tokens, float32", vectors, vectors, "4 * token_dim a token", "Qdrant"),
        Part("graph over tokens", links, links, "at most 33 links (m = 16) of log2 N bits a token", "Qdrant"),
        Part("ids and versions", points * 21, points * 21, "21 a token", "Qdrant"),
    ]


def _weaviate(n: int, t: float, dim: int, token_dim: int, quantization: str) -> list[Part]:
    parts = []
    links = n * 10.0 * 2 * 32
    if quantization == "none":
        parts.append(Part("vector cache, float32", n * 4.0 * dim, 0, "4 * dim", "Weaviate"))
    else:
        codes = n * code_bytes(64 * math.ceil(dim / 64), quantization)
        formula = f"dim (up to a multiple of 64) * {QUANTIZATIONS['weaviate'][quantization]:g} / 8 + 16"
        parts.append(Part(f"codes, {quantization}", codes, codes, formula, "Weaviate"))
    formula = "at most 2 * 32 connections of 10 bytes; some 66 on disk"
    parts.append(Part("graph", links, n * _WEAVIATE_NODE_ON_DISK, formula, "Weaviate"))
    small = n * (2 * 4 + 10.0 * 2 * 4)
    parts.append(Part("graph for reranking", small, n * 76.0, "2 floats and at most 8 connections", "Weaviate"))
    objects = n * (4.0 * dim + 4.0 * token_dim * t + 440)
    formula = "4 * dim + 4 * token_dim a token + 440, read for candidates"
    parts.append(Part("objects: encodings and tokens, float32", 0, objects, formula, "Weaviate"))
    parts.append(Part("index of ids", 0, n * 140.0, "140", "Weaviate"))
    return parts


def _weaviate_tokens(n: int, t: float, token_dim: int) -> list[Part]:
    nodes = n * t
    objects = n * (4.0 * token_dim * t + 440)
    return [
        Part("token cache, float32", nodes * 4.0 * token_dim, 0, "4 * token_dim a token", "Weaviate"),
        Part(
            "graph over tokens",
            nodes * 640,
            nodes * _WEAVIATE_NODE_ON_DISK,
            "at most 2 * 32 connections of 10 bytes a token",
            "Weaviate",
        ),
        Part("map of tokens to documents", 0, nodes * 75, "75 a token", "Weaviate"),
        Part("objects", 0, objects, "4 * token_dim a token + 440", "Weaviate"),
        Part("index of ids", 0, n * 140.0, "140", "Weaviate"),
    ]


def _milvus(n: int, t: float, dim: int, token_dim: int, quantization: str) -> list[Part]:
    compared = n * (4.0 * dim if quantization == "none" else 1.0 * dim)
    links = n * 8.0 * 16
    name = "encodings in the index, float32" if quantization == "none" else "codes in the index, sq8"
    return [
        Part(name, compared, compared, "4 * dim" if quantization == "none" else "dim", "Milvus"),
        Part("graph", links, links, "M * 2 * 4, M = 16", "Milvus"),
        Part("encodings in the log, float32", 0, n * 4.0 * dim, "4 * dim", "Milvus"),
        *_milvus_tokens(n, t, token_dim),
    ]


def _milvus_tokens(n: int, t: float, token_dim: int) -> list[Part]:
    values, links = n * t * 4.0 * token_dim, n * t * 8.0 * 16
    formula = "a struct field must have an index to be loaded: 4 * token_dim a token, and in the log"
    return [
        Part("tokens in their index, float32", values, 2 * values, formula, "Milvus"),
        Part("graph over tokens", links, links, "M * 2 * 4 a token, M = 16", "Milvus"),
    ]


_TwoStages = Callable[[int, float, int, int, str], list[Part]]
_PerToken = Callable[[int, float, int], list[Part]]
_LAYOUTS: dict[str, tuple[_TwoStages, _PerToken]] = {
    "qdrant": (_qdrant, _qdrant_tokens),
    "weaviate": (_weaviate, _weaviate_tokens),
    "milvus": (_milvus, _milvus_tokens),
}
