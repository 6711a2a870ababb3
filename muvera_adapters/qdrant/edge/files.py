"""The files of an embedded collection: a shard's directory, and a sidecar for state that the engine cannot store."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from muvera_adapters.errors import CollectionNotFound, InvalidInput, MuveraError, StoreUnavailable
from muvera_adapters.qdrant.collection import VectorInfo

_CONFIG = "edge_config.json"
_LOG_OPTIONS = "wal_options"


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Raises StoreUnavailable for errors of the operating system: no permission, a file instead of a directory."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be used: {error}") from error


def paths(directory: str | os.PathLike[str], name: str) -> tuple[Path, Path]:
    """The shard's directory and the file beside it."""
    if not name or name in (".", "..") or Path(name).name != name:
        raise InvalidInput(f"{name!r} is not a valid collection name: it must be the name of one directory")
    path = Path(directory) / name
    return path, path.with_name(name + ".muvera.json")


def shards(directory: str | os.PathLike[str]) -> Iterator[tuple[str, Path, Path]]:
    """Name, directory and sidecar (which may be missing) of each shard in a directory."""
    with reaching(Path(directory)):
        found = sorted(config.parent for config in Path(directory).glob(f"*/{_CONFIG}"))
    for path in found:
        if not path.name.startswith("."):  # a creation that did not finish
            yield path.name, path, path.with_name(path.name + ".muvera.json")


def read_sidecar(sidecar: Path) -> Any:
    """The state that was written.

    Raises:
        CollectionNotFound: there is no such file.
        MuveraError: the file is damaged.
    """
    try:
        return json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CollectionNotFound(
            f"{sidecar.with_name(sidecar.name.removesuffix('.muvera.json'))} is not a collection of this library "
            f"({sidecar.name} is missing)"
        ) from None
    except ValueError as error:
        raise MuveraError(f"{sidecar} is damaged: {error}") from error


def write_sidecar(sidecar: Path, state: dict[str, Any]) -> None:
    """Writes the state atomically: after a crash, the file has the old state or the new one."""
    _replace(sidecar, state)


def read_vectors(path: Path) -> dict[str, VectorInfo]:
    """Vectors of a shard by name, from its configuration file."""
    config = _read_config(path)
    inherited = config.get("quantization_config")
    return {name: VectorInfo.from_json(vector, inherited) for name, vector in config.get("vectors", {}).items()}


def read_sparse(path: Path) -> list[str]:
    """Names of a shard's sparse vectors."""
    return list(_read_config(path).get("sparse_vectors") or {})


def set_params(path: Path, name: str, params: edge.EdgeVectorParams) -> None:
    """Gives a vector of a closed shard an index and quantization.

    The engine accepts them only with the parameters of all vectors, which it cannot return as objects. So they are
    written to the shard's configuration file, in the engine's format.
    """
    config = _read_config(path)
    with tempfile.TemporaryDirectory() as scratch:
        edge.EdgeShard.create(scratch, edge.EdgeConfig(vectors={name: params})).close()
        wanted = _read_config(Path(scratch))["vectors"][name]
    # the storage of the vector was fixed when it was added: a shard with another setting cannot be opened
    fixed = ("size", "distance", "datatype", "multivector_config")
    added = {key: value for key, value in config["vectors"][name].items() if key in fixed}
    config["vectors"][name] = {key: value for key, value in wanted.items() if key not in fixed} | added
    _replace(path / _CONFIG, config)


def has_log_options(path: Path, options: dict[str, Any]) -> bool:
    """Whether the write-ahead log of a shard has these settings."""
    return bool(_read_config(path).get(_LOG_OPTIONS) == options)


def set_log_options(path: Path, options: dict[str, Any]) -> None:
    """Sets the options of a closed shard's write-ahead log, which the engine reads only from the configuration file."""
    _replace(path / _CONFIG, {**_read_config(path), _LOG_OPTIONS: options})


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CollectionNotFound(f"{path} is not a shard of Qdrant Edge ({_CONFIG} is missing)") from None
    return config


def _replace(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
