"""What stores rely on, and how encoders are written to and rebuilt from storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from muvera_core import _archive
from muvera_core.tokens import ArrayLike

Float32 = npt.NDArray[np.float32]
SavedArrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


@runtime_checkable
class Encoder(Protocol):
    """Turns token matrices into single vectors whose dot products rank like MaxSim."""

    @property
    def token_dim(self) -> int:
        """Width of the token vectors it takes."""
        ...

    @property
    def dim(self) -> int:
        """Dimensions of the vectors it gives."""
        ...

    @property
    def fingerprint(self) -> str:
        """Stable hex id; vectors of two encoders may be compared exactly when their fingerprints are equal."""
        ...

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """(n, dim) float32, one row a document, in order."""
        ...

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """(n, dim) float32, one row a query, in order."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON values: ``type``, ``fingerprint`` and, where it is small enough to travel with a collection, all state.

        :func:`encoder_from_dict` rebuilds the encoder from it.
        """
        ...


# type name in to_dict() -> builder from that dictionary and the arrays of a saved file
_BUILDERS: dict[str, Callable[[Mapping[str, Any], SavedArrays], Encoder]] = {}


def register(name: str, build: Callable[[Mapping[str, Any], SavedArrays], Encoder]) -> None:
    """Makes encoders of type ``name`` loadable."""
    _BUILDERS[name] = build


def encoder_from_dict(content: Mapping[str, Any], state: SavedArrays | None = None) -> Encoder:
    """Rebuilds an encoder and checks that it is the one that was described.

    Raises:
        ValueError: the type is unknown, the content is damaged, or the rebuilt encoder has another fingerprint.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"the description of an encoder must be what to_dict() gives, got {type(content).__name__}")
    name = content.get("type")
    if not isinstance(name, str) or name not in _BUILDERS:
        known = ", ".join(sorted(_BUILDERS))
        raise ValueError(f"unknown encoder type {name!r}; this version knows {known}")
    try:
        encoder = _BUILDERS[name](content, state or {})
    except TypeError as error:
        raise ValueError(f"the description of an encoder of type {name!r} is damaged: {error}") from error
    if content.get("fingerprint") != encoder.fingerprint:
        raise ValueError(
            f"the encoder rebuilt from this description has fingerprint {encoder.fingerprint}, "
            f"not {content.get('fingerprint')}: the description was changed, or another version wrote it"
        )
    return encoder


def save_encoder(path: str | os.PathLike[str], content: Mapping[str, Any], state: SavedArrays | None = None) -> None:
    """Writes ``to_dict()`` and arrays into one .npz file (plain arrays, no pickle), replacing it at once."""
    _archive.write(path, "encoder", content, state or {})


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """The encoder that ``encoder.save(path)`` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no saved encoder, is damaged, or is of a version that this one cannot rebuild.
    """
    try:
        content, arrays = _archive.read(path, "encoder")
    except FileNotFoundError:
        raise
    except _archive.DAMAGED as error:
        raise ValueError(f"{os.fspath(path)} is no saved encoder: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{os.fspath(path)} is no saved encoder: its description is no JSON object")
    return encoder_from_dict(content, arrays)
