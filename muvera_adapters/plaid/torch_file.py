"""Reads tensors of ``.pt`` files without torch, and without trusting the files.

A ``.pt`` file is a zip archive with a pickle that describes tensors and one stored (not compressed) member per
storage, or, before torch 1.6, a sequence of pickles followed by the storages. The pickle is read with an unpickler
that knows only tensors; storages are mapped, not loaded.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.files import require_file
from muvera_adapters.plaid.pickles import (
    LISTS,
    MAPS,
    OBJECTS,
    PICKLE_ERRORS,
    PlainUnpickler,
    SafeUnpickler,
    check_opcodes,
)

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
#: bfloat16, which numpy does not know: the upper half of a float32
BFLOAT16 = np.dtype([("bfloat16", "<u2")])
_MAX_PICKLE_BYTES = 1 << 20  # the description of a few tensors has some hundred bytes
_MAX_LIST_BYTES = 1 << 28  # that of two million tensors
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001

Array = npt.NDArray[Any]
_Storage = Callable[[np.dtype[Any], str, int], Array]
_Unpickle = Callable[[Path, IO[bytes], _Storage, int], Any]


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote: an array (a read-only map of the file where possible), or a tuple or list of them.

    Raises:
        IndexDamaged: the file is missing, cut short, not of ``torch.save``, or has anything but tensors.
    """
    return _load(path, _unpickle, _MAX_PICKLE_BYTES)


def load_lists(path: Path) -> Any:
    """Like :func:`load_tensors`, with lists of any length and dictionaries of tensors, lists, strings and numbers.

    Values of bfloat16 are returned as :data:`BFLOAT16`.

    Raises:
        IndexDamaged: as for :func:`load_tensors`, for other contents than these.
    """
    return _load(path, _unpickle_lists, _MAX_LIST_BYTES)


def _load(path: Path, unpickle: _Unpickle, limit: int) -> Any:
    try:
        with require_file(path).open("rb") as file:
            if file.read(4) == b"PK\3\4":
                return _load_zip(path, unpickle, limit)
            file.seek(0)
            return _load_legacy(path, file, unpickle, limit)
    except (zipfile.BadZipFile, struct.error, OSError) as error:
        raise IndexDamaged(path, f"cut short, or not a file of torch.save: {error}") from error
    except PICKLE_ERRORS as error:
        raise IndexDamaged(path, f"not a file that torch.save wrote: {type(error).__name__}: {error}") from error


def _load_zip(path: Path, unpickle: _Unpickle, limit: int) -> Any:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {m.filename: m for m in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise IndexDamaged(path, "two members of the archive have the same name")
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise IndexDamaged(path, "not a file of torch.save: it has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        order = members.get(root + "byteorder")
        if order is not None and _read(archive, order, path, limit) != b"little":
            raise IndexDamaged(path, "big-endian tensors are not supported")

        def storage(dtype: np.dtype[Any], key: str, count: int) -> Array:
            member = members.get(f"{root}data/{key}")
            if member is None:
                raise IndexDamaged(path, f"storage {key!r} is missing")
            _require_stored(path, member)
            if member.file_size != count * dtype.itemsize:
                raise IndexDamaged(
                    path, f"storage {key!r} has {member.file_size} bytes, {count} values of {dtype} were expected"
                )
            return _map(path, _data_offset(path, file, member), dtype, count)

        return unpickle(path, io.BytesIO(_read(archive, members[pickles[0]], path, limit)), storage, limit)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, limit: int) -> bytes:
    if member.file_size > limit:
        raise IndexDamaged(path, f"{member.filename} has {member.file_size} bytes, too many to describe tensors")
    _require_stored(path, member)
    return archive.read(member)


def _require_stored(path: Path, member: zipfile.ZipInfo) -> None:
    """Raises IndexDamaged unless a storage can be mapped: unpacking it could fail, or take much memory."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise IndexDamaged(
            path,
            f"{member.filename} is compressed or encrypted, which torch.save never does: load the file with torch "
            "where it was packed, and save it again with torch.save",
        )
    if member.compress_size != member.file_size:  # zipfile allocates the size in the directory
        raise IndexDamaged(
            path, f"{member.filename} has {member.file_size} bytes but takes {member.compress_size}; both must be equal"
        )


def _data_offset(path: Path, file: Any, member: zipfile.ZipInfo) -> int:
    """Offset from the local header: its extra field (torch's padding) differs from the central directory's."""
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


def _load_legacy(path: Path, file: io.BufferedReader, unpickle: _Unpickle, limit: int) -> Any:
    """Format of torch before 1.6: magic, version, system, object, keys, then each storage as count and raw values."""
    size = path.stat().st_size
    described: dict[str, tuple[np.dtype[Any], int]] = {}
    offsets: dict[str, int] = {}

    def describe(dtype: np.dtype[Any], key: str, count: int) -> Array:
        if count * dtype.itemsize > size:
            raise IndexDamaged(path, f"cut short: storage {key!r} would be larger than the file")
        if described.setdefault(key, (dtype, count)) != (dtype, count):
            raise IndexDamaged(path, f"storage {key!r} is described in two ways")
        return np.broadcast_to(np.zeros(1, dtype), (count,))  # takes no memory, and is never read

    def storage(dtype: np.dtype[Any], key: str, count: int) -> Array:
        if key not in offsets:
            raise IndexDamaged(path, f"storage {key!r} is missing")
        return _map(path, offsets[key], dtype, count)

    def plain() -> Any:
        check_opcodes(path, file, MAPS, limit)
        return SafeUnpickler(path, file, {}).load()

    if plain() != _LEGACY_MAGIC:
        raise IndexDamaged(path, "not a file of torch.save")
    if plain() != _LEGACY_VERSION:
        raise IndexDamaged(path, "an unknown version of torch's old format")
    plain()
    begin = file.tell()
    unpickle(path, file, describe, limit)
    for key in plain():  # only now is it known where the storages lie
        dtype, expected = described[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        offsets[str(key)] = file.tell()
        if count != expected or file.tell() + count * dtype.itemsize > size:
            raise IndexDamaged(path, f"cut short: storage {key!r} does not have its {expected} values")
        file.seek(count * dtype.itemsize, io.SEEK_CUR)
    file.seek(begin)
    return unpickle(path, file, storage, limit)


class _StorageType(str):
    __slots__ = ()


def _no_hooks(*_: Any) -> None:
    """Replaces OrderedDict: a tensor's backward hooks, always empty."""


def _unpickle(path: Path, file: IO[bytes], storage: _Storage, limit: int) -> Any:
    check_opcodes(path, file, OBJECTS, limit)
    return _TensorUnpickler(path, file, storage).load()


def _unpickle_lists(path: Path, file: IO[bytes], storage: _Storage, limit: int) -> Any:
    check_opcodes(path, file, LISTS, limit)
    return _ListUnpickler(path, file, storage).load()


class _Tensors:
    """The known globals: ``_rebuild_tensor_v2``, the empty ordered dictionary and storage types."""

    _path: Path
    _storage: _Storage
    _dtypes: Mapping[str, Any] = _DTYPES

    def _table_of_tensors(self) -> dict[tuple[str, str], Any]:
        types = {("torch", name): _StorageType(name) for name in self._dtypes}
        return {
            **types,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild,
            ("collections", "OrderedDict"): _no_hooks,
        }

    def persistent_load(self, pid: Any) -> Array:
        # ('storage', type, key, location, count), and None in the old format; the location ('cuda:0') does not matter
        known = isinstance(pid, tuple) and (len(pid) == 5 or (len(pid) == 6 and pid[5] is None))
        if not known or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise IndexDamaged(self._path, "a storage is described in an unknown way")
        count = pid[4]
        if not isinstance(count, int) or count < 0:
            raise IndexDamaged(self._path, f"a storage of {count!r} values")
        return self._storage(np.dtype(self._dtypes[pid[1]]), str(pid[2]), count)

    def _rebuild(self, storage: Array, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Array:
        """A tensor as a view: torch also saves views of larger storages."""
        numbers = [offset, *size, *stride]
        if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise IndexDamaged(self._path, f"a tensor of size {size}, stride {stride}, offset {offset}")
        if 0 in size:
            return np.empty(tuple(size), storage.dtype)
        # strides of 0 would make a small file a huge tensor
        if math.prod(size) > len(storage):
            raise IndexDamaged(self._path, f"a tensor of size {size} is larger than its storage")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= len(storage):
            raise IndexDamaged(self._path, f"a tensor of size {size} does not fit its storage of {len(storage)} values")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), steps, writeable=False)


class _TensorUnpickler(_Tensors, SafeUnpickler):
    def __init__(self, path: Path, file: IO[bytes], storage: _Storage) -> None:
        SafeUnpickler.__init__(self, path, file, self._table_of_tensors())
        self._storage = storage


class _ListUnpickler(_Tensors, PlainUnpickler):
    """An unpickler that also knows bfloat16 and parameters of a model."""

    _dtypes: Mapping[str, Any] = _DTYPES | {"BFloat16Storage": BFLOAT16}

    def __init__(self, path: Path, file: IO[bytes], storage: _Storage) -> None:
        table = self._table_of_tensors() | {
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("collections", "OrderedDict"): lambda *_: {},
        }
        PlainUnpickler.__init__(self, path, file, table)
        self._storage = storage
