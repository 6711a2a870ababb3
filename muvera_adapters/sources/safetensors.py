"""``.safetensors`` files, mapped by their own library, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.plaid.torch_file import BFLOAT16
from muvera_adapters.sources.arrays import Shape

_KINDS = {"F": "f", "I": "i", "U": "u", "B": "b"}


class SafetensorsFile:
    """See :class:`~muvera_adapters.sources.arrays.ArrayFile`.

    Raises:
        InvalidInput: it is not a safetensors file, or has values that numpy does not know (float8).
        MissingExtra: the library is not installed.
    """

    single = False

    def __init__(self, path: Path) -> None:
        try:
            from safetensors import SafetensorError, safe_open
        except ModuleNotFoundError as error:
            raise MissingExtra("safetensors", "safetensors") from error
        self.path = path
        try:
            opened: Any = safe_open(path, framework="numpy")  # maps the file; it has no close()
        except (SafetensorError, OSError) as error:
            raise InvalidInput(f"{path} is not a safetensors file: {error}") from error
        self._file = opened
        self.shapes: Mapping[str, Shape] = {}
        #: arrays of bfloat16, which the library returns only to torch
        self._halves: dict[str, npt.NDArray[Any]] = {}
        found: dict[str, Shape] = {}
        for name in self._file.keys():  # noqa: SIM118 (no mapping)
            part = self._file.get_slice(name)
            dtype, shape = str(part.get_dtype()), tuple(part.get_shape())
            if dtype.startswith("F8"):
                raise InvalidInput(
                    f"{path}: {name} has values of type {dtype}, which numpy does not know: save float16"
                )
            if dtype == "BF16":
                self._halves[name] = self._mapped(name, shape)
            found[name] = Shape(shape, "f" if dtype == "BF16" else _KINDS.get(dtype[0], "?"))
        self.shapes = found

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array."""
        return self._halves[name] if name in self._halves else self._file.get_tensor(name)

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Slices, copied from the mapped file."""
        part = self._halves[name] if name in self._halves else self._file.get_slice(name)
        for end in ends:
            yield part[start:end]
            start = end

    def close(self) -> None:
        """Releases the mapped file."""
        del self._file
        self._halves.clear()

    def _mapped(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The values of an array, mapped at the offset in the file's header, which the library has checked."""
        if 0 in shape:
            return np.zeros(shape, BFLOAT16)
        with self.path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            begin, _ = json.loads(file.read(size))[name]["data_offsets"]
        return np.memmap(self.path, BFLOAT16, "r", 8 + size + begin, shape)
