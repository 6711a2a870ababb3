"""``.pt`` files of ``torch.save``, read without torch: a tensor, a list of them, or a dictionary of such."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.plaid.torch_file import BFLOAT16, load_lists
from muvera_adapters.sources.arrays import Shape
from muvera_adapters.sources.npz import objects_kind


class TorchFile:
    """See :class:`~muvera_adapters.sources.arrays.ArrayFile`.

    Raises:
        MuveraError: it is not a file of ``torch.save``, or has other objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = load_lists(path)
        self.single = not isinstance(found, dict)
        entries = found if isinstance(found, dict) else {"tokens": found}
        self._values = {str(name): _array(value) for name, value in entries.items()}
        self.shapes = {name: Shape(v.shape, _kind(v)) for name, v in self._values.items()}
        if not self.shapes:
            raise InvalidInput(f"{path} is empty")

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole tensor, or the items of a list."""
        return self._values[name]

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Slices of the mapped file."""
        for end in ends:
            yield self._values[name][start:end]
            start = end

    def close(self) -> None:
        """Does nothing: only the map is open."""


def _array(value: Any) -> npt.NDArray[Any]:
    """A tensor unchanged, a list of numbers as an array, another list as an object array; others as (1,)."""
    if isinstance(value, np.ndarray):
        return value
    items = list(value) if isinstance(value, list | tuple) else [value]
    if items and all(type(item) is int for item in items) and max(map(abs, items)) < 2**63:
        return np.array(items, np.int64)
    result = np.empty(len(items), object)
    for i, item in enumerate(items):
        result[i] = item
    return result


def _kind(values: npt.NDArray[Any]) -> str:
    if values.dtype == object:
        return objects_kind(values)
    return "f" if values.dtype == BFLOAT16 else values.dtype.kind
