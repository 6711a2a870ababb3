"""Writes the files of PLAID-family indexes, as their libraries do, or damaged on purpose."""

import os
import pickle
import sqlite3
import struct
import zipfile
from pathlib import Path

import numpy as np

INDEXES = Path(__file__).parents[1] / "data" / "plaid"


class Evil:
    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self._marker),)


def save(path, array, *, size=None, stride=None, offset=0, count=None, key="0", members=None):
    """What torch.save writes for one tensor; the arguments let it lie."""
    array = array.copy()
    body = b"\x80\x02" + tensor_opcodes(array, size=size, stride=stride, offset=offset, count=count, key=key) + b"."
    extra = {"x/data/0": array.tobytes()} if key == "0" else {}
    write_archive(path, body, {**extra, **(members or {})})


def save_legacy(path, array, *, cut=0, keys=("0",)):
    """What torch.save wrote before 1.6."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    body = b"".join(pickle.dumps(x, 2) for x in head)
    body += b"\x80\x02" + tensor_opcodes(array, legacy=True) + b"." + pickle.dumps(list(keys), 2)
    data = body + struct.pack("<q", array.size) + array.tobytes()
    path.write_bytes(data[: len(data) - cut])


def tensor_opcodes(array, *, size=None, stride=None, offset=0, count=None, key="0", legacy=False):
    """Pickle opcodes of one tensor, by hand: the globals they name do not exist here."""
    kinds = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char"}
    storage_type = kinds.get(array.dtype.str[1:], "Byte") + "Storage"
    stride = tuple(s // array.itemsize for s in array.strides) if stride is None else stride

    def plain(value):
        return pickle.dumps(value, 2)[2:-1]

    storage = plain("storage") + b"ctorch\n" + storage_type.encode() + b"\n" + plain(key) + plain("cuda:0")
    storage += plain(array.size if count is None else count) + (plain(None) if legacy else b"")
    view = plain(offset) + plain(tuple(array.shape if size is None else size)) + plain(tuple(stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"tQ" + view + b"\x89ccollections\nOrderedDict\n)RtR"


def write_archive(path, data_pkl, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x/data.pkl", data_pkl)
        for name, data in members.items():
            archive.writestr(name, data)


def save_objects(path, arrays):
    """What np.save writes for a list of arrays, by numpy itself."""
    values = np.empty(len(arrays), object)
    values[:] = arrays
    np.save(path, values, allow_pickle=True)


def execute(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()
