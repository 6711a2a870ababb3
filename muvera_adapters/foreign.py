"""What must be known of collections that this library did not make, before a store can adopt them."""

from __future__ import annotations

from typing import Any

import numpy as np

from muvera_adapters.errors import CollectionNotFound, SchemaMismatch


def token_dim(kind: str, place: Any, name: str, vector: str) -> int:
    """Width of the vectors of a multivector.

    Args:
        kind: of the database, as in :class:`~muvera_adapters.targets.Target`.
        place: its client; of Edge, the directory.
        name: of the collection.
        vector: its multivector.

    Raises:
        CollectionNotFound: no such collection.
        SchemaMismatch: no such vector.
    """
    sizes = {
        "qdrant-edge": _edge,
        "qdrant": _qdrant,
        "qdrant-local": _qdrant,
        "weaviate": _weaviate,
        "milvus": _milvus,
        "milvus-lite": _milvus,
    }[kind](place, name, vector)
    if vector not in sizes:
        there = ", ".join(repr(n) for n in sorted(sizes)) or "none"
        raise SchemaMismatch(f"{name} has no vector {vector!r}; there are: {there}")
    return sizes[vector]


def _edge(directory: str, name: str, _: str) -> dict[str, int]:
    from muvera_adapters.qdrant.edge.files import paths, read_vectors

    return {n: info.size for n, info in read_vectors(paths(directory, name)[0]).items()}


def _qdrant(client: Any, name: str, _: str) -> dict[str, int]:
    from muvera_adapters.qdrant.schema import vector_infos

    if not client.collection_exists(name):
        raise CollectionNotFound(f"there is no collection {name}")
    return {n: info.size for n, info in vector_infos(client.get_collection(name)).items()}


def _weaviate(client: Any, name: str, vector: str) -> dict[str, int]:
    if not client.collections.exists(name):
        raise CollectionNotFound(f"there is no collection {name}")
    collection = client.collections.use(name)
    names = list(collection.config.get().vector_config or {})
    # the schema has no sizes
    found = collection.query.fetch_objects(limit=1, include_vector=[vector]).objects if vector in names else []
    sizes = dict.fromkeys(names, 0)
    for stored in found:
        if vector in stored.vector:
            sizes[vector] = int(np.asarray(stored.vector[vector]).shape[-1])
    if vector in names and not sizes[vector]:
        raise SchemaMismatch(f"{name}: its first document has no vector {vector!r}")
    return sizes


def _milvus(client: Any, name: str, _: str) -> dict[str, int]:
    if not client.has_collection(name):
        raise CollectionNotFound(f"there is no collection {name}")
    sizes = {}
    for field in client.describe_collection(name)["fields"]:
        if "dim" in field.get("params", {}):
            sizes[field["name"]] = int(field["params"]["dim"])
    return sizes
