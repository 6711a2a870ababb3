"""The protocol of encoders, and functions that save, load and rebuild them."""

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
        """Width of the token vectors that the encoder takes."""
        ...

    @property
    def dim(self) -> int:
        """Number of dimensions of an encoded vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Stable hex id; vectors of two encoders can be compared only if their fingerprints are equal."""
        ...

    def encode_documents(self, docs: Any, mask: ArrayLike | None = None) -> Float32:
        """Encodes n documents: (n, dim) float32, row i for document i."""
        ...

    def encode_queries(self, queries: Any, mask: ArrayLike | None = None) -> Float32:
        """Encodes n queries: (n, dim) float32, row i for query i."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Describes the encoder in JSON values: ``type``, ``fingerprint`` and, where it is small, the complete state.

        :func:`encoder_from_dict` rebuilds the encoder if the state is complete. Collections keep this description.
        """
        ...


# type name in to_dict() -> builder from that dictionary and the arrays of a saved file
_BUILDERS: dict[str, Callable[[Mapping[str, Any], SavedArrays], Encoder]] = {}


def register(name: str, build: Callable[[Mapping[str, Any], SavedArrays], Encoder]) -> None:
    """Makes encoders of type ``name`` loadable."""
    _BUILDERS[name] = build


def encoder_from_dict(content: Mapping[str, Any], state: SavedArrays | None = None) -> Encoder:
    """Rebuilds an encoder and checks that it has the fingerprint of the described one.

    Raises:
        ValueError: the type is unknown, the content is damaged, or the rebuilt encoder has another fingerprint.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"the description of an encoder must be what to_dict() gives, got a {type(content).__name__}")
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
    """Writes ``to_dict()`` and arrays into one .npz file (plain arrays, no pickle), replacing the file atomically."""
    _archive.write(path, "encoder", content, state or {})


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """Reads the encoder that ``encoder.save(path)`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a saved encoder, is damaged, or was written by a version whose encoders this one
            cannot rebuild.
    """
    try:
        content, arrays = _archive.read(path, "encoder")
    except FileNotFoundError:
        raise
    except _archive.DAMAGED as error:
        raise ValueError(f"{os.fspath(path)} is not a saved encoder: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{os.fspath(path)} is not a saved encoder: its description is not a JSON object")
    return encoder_from_dict(content, arrays)
