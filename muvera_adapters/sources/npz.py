"""numpy's ``.npz`` archives, read without unpacking them as a whole, and without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.sources.arrays import Shape


class NpzFile:
    """See :class:`~muvera_adapters.sources.arrays.ArrayFile`.

    Raises:
        InvalidInput: it is no such archive, or holds objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"{path}: no .npz file: {error}") from error
        self.shapes: dict[str, Shape] = {}
        try:
            for entry in self._archive.namelist():
                name = entry.removesuffix(".npy")
                with self._array(name) as (_, shape, dtype):
                    self.shapes[name] = Shape(shape, dtype.kind)
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array."""
        shape = self.shapes[name].shape
        return next(self.rows(name, 0, [shape[0]]))

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Slices one after the other, from one pass through the entry."""
        with self._array(name) as (file, shape, dtype):
            width = int(np.prod(shape[1:])) * dtype.itemsize
            file.seek(start * width, 1)
            for end in ends:
                data = file.read((end - start) * width)
                if len(data) != (end - start) * width:
                    raise InvalidInput(f"{self.path}: {name} is cut short at row {start}")
                yield np.frombuffer(data, dtype).reshape(end - start, *shape[1:])
                start = end

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()

    @contextmanager
    def _array(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
        """The data of one array, after its header."""
        what = f"{self.path}: {name}"
        try:
            file = self._archive.open(f"{name}.npy")
        except (KeyError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"{what} is no array: {error}") from error
        with file:
            try:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(file)
            except (ValueError, OSError, EOFError) as error:
                raise InvalidInput(f"{what} is no array: {error}") from error
            if dtype.hasobject:
                raise InvalidInput(f"{what} holds Python objects (pickle), which are not read; save arrays of numbers")
            if fortran and len(shape) > 1:
                raise InvalidInput(f"{what} is in Fortran order: save numpy.ascontiguousarray(...) of it")
            yield file, shape, dtype
