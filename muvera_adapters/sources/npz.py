"""numpy's ``.npz`` archives and ``.npy`` files, read without unpacking them as a whole, or running a pickle."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.plaid.numpy_file import unpickle_objects
from muvera_adapters.sources.arrays import Shape


class NpzFile:
    """See :class:`~muvera_adapters.sources.arrays.ArrayFile`.

    Raises:
        InvalidInput: the file is not a ``.npz`` archive.
    """

    single = False

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"{path} is not a .npz file: {error}") from error
        self.shapes: dict[str, Shape] = {}
        #: object arrays, or the reason why they are not read
        self._objects: dict[str, npt.NDArray[Any] | MuveraError] = {}
        try:
            for entry in self._archive.namelist():
                name = entry.removesuffix(".npy")
                with self._array(name) as (file, shape, _, dtype):
                    if dtype.hasobject:
                        try:
                            values = _objects(Path(f"{path}: {name}"), file, shape)
                            self._objects[name], kind = values, objects_kind(values)
                        except MuveraError as error:
                            self._objects[name], kind = error, "?"
                        self.shapes[name] = Shape(shape, kind)
                    else:
                        self.shapes[name] = Shape(shape, dtype.kind)
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array.

        Raises:
            MuveraError: the array has other objects than arrays of floats, strings and numbers.
        """
        found = self._objects.get(name)
        if isinstance(found, MuveraError):
            raise found
        if found is not None:
            return found
        with self._array(name) as (file, shape, fortran, dtype):
            return self._values(name, file, shape, dtype, fortran)

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Consecutive slices, from one pass through the entry."""
        with self._array(name) as (file, shape, fortran, dtype):
            if fortran and len(shape) > 1:
                # its rows are not contiguous
                whole = self._values(name, file, shape, dtype, fortran)
                for end in ends:
                    yield whole[start:end]
                    start = end
                return
            file.seek(start * math.prod(shape[1:]) * dtype.itemsize, 1)
            for end in ends:
                yield self._values(name, file, (end - start, *shape[1:]), dtype)
                start = end

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()

    def _values(
        self, name: str, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool = False
    ) -> npt.NDArray[Any]:
        size = math.prod(shape) * dtype.itemsize
        try:
            data = file.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidInput(f"{self.path}: {name} is damaged: {error}") from error
        if len(data) != size:
            raise InvalidInput(f"{self.path}: {name} is cut short")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    @contextmanager
    def _array(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
        """The data of one array, after its header."""
        what = f"{self.path}: {name}"
        try:
            file = self._archive.open(f"{name}.npy")
        except (KeyError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"{what} is not an array: {error}") from error
        with file:
            try:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(file)
            except (ValueError, OSError, EOFError) as error:
                raise InvalidInput(f"{what} is not an array: {error}") from error
            yield file, shape, fortran, dtype


class NpyFile:
    """A ``.npy`` file, as a file with a single array; see :class:`~muvera_adapters.sources.arrays.ArrayFile`.

    Raises:
        InvalidInput: it is not a ``.npy`` file.
        MuveraError: it has other objects than arrays of floats.
    """

    single = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_npy(path)
        kind = objects_kind(self._values) if self._values.dtype == object else self._values.dtype.kind
        self.shapes = {"tokens": Shape(self._values.shape, kind)}

    def read(self, name: str) -> npt.NDArray[Any]:
        """The array."""
        return self._values

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Slices of the mapped file."""
        for end in ends:
            yield self._values[start:end]
            start = end

    def close(self) -> None:
        """Does nothing: only the map is open."""


def read_npy(path: Path) -> npt.NDArray[Any]:
    """The array of a ``.npy`` file. Numbers and strings are mapped; objects may be arrays, strings or integers.

    Raises:
        InvalidInput: it is not a ``.npy`` file.
        MuveraError: it has other objects.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if dtype.hasobject:
                return _objects(path, file, shape)
        if math.prod(shape) == 0:
            return np.zeros(shape, dtype)
        values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return values
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is not a .npy file of numbers: {error}") from error


def objects_kind(values: npt.NDArray[Any]) -> str:
    """``L`` for a list of matrices, ``O`` for other objects."""
    return "L" if len(values) and all(isinstance(v, np.ndarray) for v in values) else "O"


def _objects(path: Path, file: IO[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    values = np.empty(shape, object)
    found = unpickle_objects(path, file, shape, plain=True)
    for i, value in enumerate(found):
        values[i] = value
    return values
