"""Reads arrays of ``.npy`` files, mapped rather than loaded, and object arrays without trusting their pickle."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.files import require_file
from muvera_adapters.plaid.pickles import OBJECTS, PICKLE_ERRORS, SafeUnpickler, check_opcodes

Array = npt.NDArray[Any]

_MAX_HEADER_BYTES = 10_000
_HEADER = (
    r"'descr': *'([<>|=]?[iufO][0-9]*)'",
    r"'fortran_order': *(True|False)",
    r"'shape': *\(([0-9, ]*)\)",
)


def load_array(path: Path) -> Array:
    """A read-only map of the numbers in a ``.npy`` file.

    Raises:
        IndexDamaged: the file is missing, cut short, not a ``.npy`` file, or has an array of anything but numbers.
    """
    with require_file(path).open("rb") as file:
        shape, fortran_order, dtype = _header(path, file)
        offset = file.tell()
    if dtype.kind not in "iuf":
        raise IndexDamaged(path, f"expected an array of numbers, found {dtype}")
    expected, size = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if size < expected:
        raise IndexDamaged(path, f"cut short: {size} bytes, {expected} were expected")
    try:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")
    except (OSError, ValueError, OverflowError) as error:
        raise IndexDamaged(path, f"cannot be mapped: {error}") from error


def load_object_array(path: Path) -> list[Array]:
    """The float arrays in a one-dimensional ``.npy`` object array, which numpy keeps as a pickle; all in memory.

    Raises:
        IndexDamaged: the file is missing, cut short, or its pickle has anything but arrays of floats.
    """
    with require_file(path).open("rb") as file:
        shape, _, dtype = _header(path, file)
        if dtype != np.dtype(object) or len(shape) != 1:
            raise IndexDamaged(path, f"expected a list of arrays, found an array of {dtype} of shape {shape}")
        return unpickle_objects(path, file, shape)


_PLAIN = (int, str, float, bool, type(None))


def unpickle_objects(path: Path, file: IO[bytes], shape: tuple[int, ...], *, plain: bool = False) -> list[Any]:
    """The items of a one-dimensional object array, from the pickle at the file's position.

    Args:
        path: path of the file, for errors.
        file: file, positioned after the header of a ``.npy`` file.
        shape: shape in the header.
        plain: whether strings, numbers and None are allowed beside arrays.

    Raises:
        IndexDamaged: the file is cut short, or the pickle has anything but arrays of floats.
    """
    try:
        check_opcodes(path, file, OBJECTS | {"BINFLOAT"} if plain else OBJECTS)
        outer = SafeUnpickler(path, file, _NUMPY).load()
        values = outer.state[4]
        if outer.dtype().kind != "O" or not isinstance(values, list) or (len(values),) != shape:
            raise IndexDamaged(path, f"expected a list of {shape[0] if len(shape) == 1 else shape} arrays")
        return [v if plain and type(v) in _PLAIN else v.array() for v in values]
    except PICKLE_ERRORS as error:
        raise IndexDamaged(path, f"cut short, or not arrays of floats: {type(error).__name__}: {error}") from error


def _header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Reads shape, Fortran order and type, and leaves the file at the data.

    Numpy's own reader is not used: it parses the header as Python, and can raise whatever Python raises.
    """
    start = file.read(12)
    size = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4}.get(start[:8])
    if size is None:
        raise IndexDamaged(path, "cut short, not a file of numpy, or one of an unknown version")
    file.seek(8 + size)
    text = file.read(min(int.from_bytes(start[8 : 8 + size], "little"), _MAX_HEADER_BYTES)).decode("latin1")
    descr, order, shape = (re.findall(pattern, text) for pattern in _HEADER)
    if not len(descr) == len(order) == len(shape) == 1:
        raise IndexDamaged(path, f"cut short, or the header does not describe an array of numbers: {text[:100]!r}")
    try:
        return tuple(int(n) for n in shape[0].split(",") if n.strip()), order[0] == "True", np.dtype(descr[0])
    except (TypeError, ValueError) as error:
        raise IndexDamaged(path, f"the header does not describe an array of numbers: {error}") from error


class _Dtype:
    """What ``numpy.dtype`` is in the pickle; its state is byte order and details that floats do not have."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Pickled:
    """What ``numpy.ndarray`` is in the pickle: (version, shape, dtype, Fortran order, bytes or list)."""

    state: tuple[Any, ...]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def dtype(self) -> np.dtype[Any]:
        dtype = self.state[2]
        if dtype.code not in ("f2", "f4", "f8", "O8", "O4", "O") or dtype.order not in ("<", ">", "|", "="):
            raise ValueError(f"an array of {dtype.code!r}")
        return np.dtype(object) if dtype.code[0] == "O" else np.dtype(dtype.order + dtype.code)

    def array(self) -> Array:
        _, shape, _, fortran_order, data = self.state
        if self.dtype().kind != "f" or not isinstance(data, bytes):
            raise ValueError("an array of other things than floats")
        return np.frombuffer(data, self.dtype()).reshape(shape, order="F" if fortran_order else "C")


def _reconstruct(*_: Any) -> _Pickled:
    return _Pickled()


_NUMPY = {
    ("numpy", "ndarray"): _Pickled,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}
