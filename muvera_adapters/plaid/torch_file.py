"""Tensors out of ``.pt`` files without torch, and without trusting them.

A ``.pt`` file is a zip archive with a pickle that describes tensors and one stored (not compressed) member per
storage, or, before torch 1.6, a sequence of pickles followed by the storages. The pickle is read with an unpickler
that knows tensors and nothing else; storages are mapped, not loaded.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.errors import IndexDamaged

_DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_MAX_PICKLE_BYTES = 1 << 20  # the description of a few tensors is some hundred bytes
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001

Array = npt.NDArray[Any]


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote: an array (a read-only map of the file where possible), or a tuple or list of them.

    Raises:
        IndexDamaged: missing, cut short, not such a file, or it asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\3\4":
                return _load_zip(path)
            file.seek(0)
            return _load_legacy(path, file)
    except IndexDamaged:
        raise
    except FileNotFoundError:
        raise IndexDamaged(path, "the file is missing") from None
    # a hostile pickle can make the parser itself stumble in many ways; all of them mean the same
    except (zipfile.BadZipFile, pickle.UnpicklingError, struct.error, EOFError, OSError) as error:
        raise IndexDamaged(path, f"cut short or no file of torch.save: {error}") from error
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, MemoryError, NotImplementedError, RecursionError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        raise IndexDamaged(path, f"not a file that torch.save wrote: {type(error).__name__}: {error}") from error


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {m.filename: m for m in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise IndexDamaged(path, "two members of the archive have the same name")
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise IndexDamaged(path, "not a file of torch.save: it has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        order = members.get(root + "byteorder")
        if order is not None and _read(archive, order, path) != b"little":
            raise IndexDamaged(path, "big-endian tensors are not supported")

        def storage(dtype: np.dtype[Any], key: str, count: int) -> Array:
            member = members.get(f"{root}data/{key}")
            if member is None:
                raise IndexDamaged(path, f"storage {key!r} is missing")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != count * dtype.itemsize:
                raise IndexDamaged(
                    path, f"storage {key!r} has {member.file_size} bytes, {count} values of {dtype} were expected"
                )
            return _map(path, _data_offset(path, file, member), dtype, count)

        return _Unpickler(path, io.BytesIO(_read(archive, members[pickles[0]], path)), storage).load()


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    if member.file_size > _MAX_PICKLE_BYTES:
        raise IndexDamaged(path, f"{member.filename} has {member.file_size} bytes, too many to describe tensors")
    return archive.read(member)


def _data_offset(path: Path, file: Any, member: zipfile.ZipInfo) -> int:
    """From the member's local header: its extra field is torch's padding, the central directory's is another."""
    file.seek(member.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4":
        raise IndexDamaged(path, f"{member.filename} is not where the archive says")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return int(member.header_offset) + 30 + name_length + extra_length


def _map(path: Path, offset: int, dtype: np.dtype[Any], count: int) -> Array:
    if offset + count * dtype.itemsize > path.stat().st_size:
        raise IndexDamaged(path, f"cut short: {count} values of {dtype} at byte {offset} are not all there")
    if count == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, "r", offset, (count,))


def _load_legacy(path: Path, file: io.BufferedReader) -> Any:
    """Format of torch before 1.6: magic, version, system, object, keys, then each storage as count and raw values."""
    size = path.stat().st_size
    storages: dict[str, tuple[Array, int]] = {}

    def storage(dtype: np.dtype[Any], key: str, count: int) -> Array:
        if key not in storages:
            if count * dtype.itemsize > size:
                raise IndexDamaged(path, f"cut short: storage {key!r} would be larger than the file")
            storages[key] = np.empty(count, dtype), count
        found, length = storages[key]
        if found.dtype != dtype or length != count:
            raise IndexDamaged(path, f"storage {key!r} is described in two ways")
        return found

    if _Unpickler(path, file, storage).load() != _LEGACY_MAGIC:
        raise IndexDamaged(path, "not a file of torch.save")
    if _Unpickler(path, file, storage).load() != _LEGACY_VERSION:
        raise IndexDamaged(path, "an unknown version of torch's old format")
    _Unpickler(path, file, storage).load()
    result = _Unpickler(path, file, storage).load()
    for key in _Unpickler(path, file, storage).load():
        (count,) = struct.unpack("<q", file.read(8))
        values, expected = storages[str(key)]
        data = file.read(values.nbytes) if count == expected else b""
        if count != expected or len(data) != values.nbytes:
            raise IndexDamaged(path, f"cut short: storage {key!r} has not its {expected} values")
        values[:] = np.frombuffer(data, values.dtype)
    return result


class _StorageType(str):
    __slots__ = ()


class _Unpickler(pickle.Unpickler):
    """Knows ``_rebuild_tensor_v2``, ordered dictionaries and storage types; anything else is an error."""

    def __init__(self, path: Path, file: Any, storage: Callable[[np.dtype[Any], str, int], Array]) -> None:
        super().__init__(file)
        self._path, self._storage = path, storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict  # backward hooks, always empty
        if module == "torch" and name in _DTYPES:
            return _StorageType(name)
        raise IndexDamaged(self._path, f"refused: it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> Array:
        # ('storage', type, key, location, count), and None in the old format; the location ('cuda:0') does not matter
        known = isinstance(pid, tuple) and (len(pid) == 5 or (len(pid) == 6 and pid[5] is None))
        if not known or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise IndexDamaged(self._path, "a storage is described in an unknown way")
        count = pid[4]
        if not isinstance(count, int) or count < 0:
            raise IndexDamaged(self._path, f"a storage of {count!r} values")
        return self._storage(np.dtype(_DTYPES[pid[1]]), str(pid[2]), count)

    def _rebuild(self, storage: Array, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Array:
        """A view; torch also saves views of larger storages."""
        numbers = [offset, *size, *stride]
        if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise IndexDamaged(self._path, f"a tensor of size {size}, stride {stride}, offset {offset}")
        if 0 in size:
            return np.empty(tuple(size), storage.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= len(storage):
            raise IndexDamaged(self._path, f"a tensor of size {size} does not fit its storage of {len(storage)} values")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), steps, writeable=False)
