"""``.safetensors`` files, mapped by their own library, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.sources.arrays import Shape

_KINDS = {"F": "f", "I": "i", "U": "u"}


class SafetensorsFile:
    """See :class:`~muvera_adapters.sources.arrays.ArrayFile`.

    Raises:
        InvalidInput: it is no such file, or has values that numpy does not know (bfloat16).
        MissingExtra: the library is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from safetensors import SafetensorError, safe_open
        except ModuleNotFoundError as error:
            raise MissingExtra("safetensors", "safetensors") from error
        self.path = path
        try:
            opened: Any = safe_open(path, framework="numpy")  # maps the file; it has no close()
        except (SafetensorError, OSError) as error:
            raise InvalidInput(f"{path}: no safetensors file: {error}") from error
        self._file = opened
        self.shapes: Mapping[str, Shape] = {}
        found: dict[str, Shape] = {}
        for name in self._file.keys():  # noqa: SIM118 (no mapping)
            part = self._file.get_slice(name)
            dtype = str(part.get_dtype())
            if dtype == "BF16" or dtype.startswith("F8"):
                raise InvalidInput(
                    f"{path}: {name} has values of type {dtype}, which numpy does not know: save float16"
                )
            found[name] = Shape(tuple(part.get_shape()), _KINDS.get(dtype[0], "?"))
        self.shapes = found

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array."""
        return self._file.get_tensor(name)

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Slices, copied from the mapped file."""
        part = self._file.get_slice(name)
        for end in ends:
            yield part[start:end]
            start = end

    def close(self) -> None:
        """Lets go of the mapped file."""
        del self._file
