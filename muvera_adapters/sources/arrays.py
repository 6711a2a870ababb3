"""Token matrices in ``.npz`` and ``.safetensors`` files: which arrays are what, and reading them a slice at a time.

Two layouts are understood. *Joined*: one (tokens, dim) array of floats, and integers that part it, either (n + 1,)
offsets from 0 or (n,) lengths; optionally (n,) ids. *One for each*: an (n_i, dim) array for every document, whose name
is its id. Arrays whose names begin with ``q`` are queries, and are told apart from the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import DocumentId
from muvera_adapters.sources.base import SourceDocument, check_unique, to_float32

_SLICE_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one array in a file; ``kind`` is numpy's letter of its type, ``f``, ``i``, ``u``, ``U`` ..."""

    shape: tuple[int, ...]
    kind: str


class ArrayFile(Protocol):
    """A file with named arrays."""

    path: Path

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Of all arrays."""
        ...

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array."""
        ...

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Rows from ``start`` to the first end, from there to the second, and so on."""
        ...

    def close(self) -> None:
        """Closes it."""
        ...


class ArraySource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`.

    Args:
        file: with the arrays.
        queries: read those whose names begin with ``q``, where there are such.

    Raises:
        InvalidInput: the arrays have neither layout; the message names them.
    """

    seekable = True
    n_tokens: int | None

    def __init__(self, file: ArrayFile, format: str, *, queries: bool = False) -> None:
        self._file = file
        self.format, self.place = format, str(file.path)
        self.files: Sequence[Path] = (file.path,)
        names = [name for name in file.shapes if name.lower().startswith("q")]
        if not queries or not names:
            names = [name for name in file.shapes if name not in names] or names
        matrices = [name for name in names if len(file.shapes[name].shape) == 2 and file.shapes[name].kind == "f"]
        parts = [name for name in names if len(file.shapes[name].shape) == 1 and file.shapes[name].kind in "iu"]
        self._joined = next(iter(matrices)) if len(matrices) == 1 and parts else None
        if self._joined is not None:
            self._offsets, parting = self._find_offsets(self._joined, parts)
            self._ids: Sequence[DocumentId] | None = self._find_ids([name for name in names if name != parting])
        elif matrices and len(matrices) == len(names):
            self._names = _in_order(matrices)
            self._offsets = np.concatenate([[0], np.cumsum([file.shapes[name].shape[0] for name in self._names])])
            numbered = all(re.fullmatch(r"arr_\d+", name) for name in self._names)
            self._ids = None if numbered else self._names
        else:
            raise InvalidInput(
                f"{file.path}: expected one (tokens, dim) array of floats with one array of offsets or lengths, or "
                f"nothing but such arrays, one for each document; it has {_listed(file.shapes)}"
            )
        widths = {file.shapes[name].shape[1] for name in matrices}
        if len(widths) > 1:
            raise InvalidInput(f"{file.path}: token vectors of different widths: {sorted(widths)}")
        self.dim, self.n_positions, self.n_tokens = widths.pop(), len(self._offsets) - 1, int(self._offsets[-1])
        self.lengths: npt.NDArray[np.int64] | None = np.diff(self._offsets)

    def __len__(self) -> int:
        return self.n_positions

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """In the order of the file."""
        for position, tokens in enumerate(self._matrices(start), start):
            yield SourceDocument(position, self._ids[position] if self._ids is not None else position, tokens, {})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _matrices(self, start: int) -> Iterator[npt.NDArray[np.float32]]:
        if self._joined is None:
            for name in self._names[start:]:
                yield to_float32(self._file.read(name), f"{self._file.path}: {name}")
            return
        bounds = [start]
        while bounds[-1] < self.n_positions:
            i = bounds[-1]
            j = int(np.searchsorted(self._offsets, self._offsets[i] + _SLICE_TOKENS, side="right")) - 1
            bounds.append(min(max(j, i + 1), self.n_positions))
        ends = self._offsets[bounds[1:]].tolist()
        parts = self._file.rows(self._joined, int(self._offsets[start]), ends)
        for i, j, values in zip(bounds, bounds[1:], parts, strict=False):
            tokens = to_float32(values, f"{self._file.path}: {self._joined}")
            for k in range(i, j):
                yield tokens[self._offsets[k] - self._offsets[i] : self._offsets[k + 1] - self._offsets[i]]

    def _find_offsets(self, values: str, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], str]:
        total = self._file.shapes[values].shape[0]
        found = []
        for name in names:
            numbers = self._file.read(name).astype(np.int64)
            if len(numbers) and numbers.min() >= 0:
                if numbers[0] == 0 and numbers[-1] == total and (np.diff(numbers) >= 0).all():
                    found.append((numbers, name))
                elif numbers.sum() == total:
                    found.append((np.concatenate([[0], np.cumsum(numbers)]), name))
        if len(found) != 1:
            raise InvalidInput(
                f"{self._file.path}: {'no array' if not found else 'more than one array'} of integers parts the "
                f"{total} rows of {values!r} (offsets from 0 to {total}, or lengths that add up to it); it has "
                f"{_listed(self._file.shapes)}"
            )
        return found[0]

    def _find_ids(self, names: Sequence[str]) -> list[DocumentId] | None:
        n = len(self._offsets) - 1
        for name in names:
            shape = self._file.shapes[name]
            if "id" in name.lower() and shape.shape == (n,) and shape.kind in "iuUS":
                ids = self._file.read(name)
                check_unique(ids, f"{self._file.path}: {name}")
                return [i.decode() if isinstance(i, bytes) else i for i in ids.tolist()]
        return None


def _in_order(names: Sequence[str]) -> list[str]:
    """arr_2 before arr_10; names without numbers as they are in the file."""
    if all(re.search(r"\d+$", name) for name in names):
        return sorted(
            names, key=lambda name: [(len(n), n) if n.isdigit() else (0, n) for n in re.split(r"(\d+)", name)]
        )
    return list(names)


def _listed(shapes: Mapping[str, Shape]) -> str:
    shown = [f"{name} {'x'.join(map(str, s.shape))} {s.kind}" for name, s in list(shapes.items())[:8]]
    return ", ".join(shown) + (f" and {len(shapes) - 8} more" if len(shapes) > 8 else "") if shapes else "no arrays"
