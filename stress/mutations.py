"""Mutations of files: bytes, numbers, and the structure of zip archives, pickles, JSON, .npy headers and SQLite."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import pickle
import pickletools
import re
import sqlite3
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

_NUMBERS = [0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, -1, -2]
# what a hostile pickle asks for; nothing of it may be found, let alone called
_GLOBALS = [b"cos\nsystem\n", b"cbuiltins\neval\n", b"cposix\nmkdir\n", b"cbuiltins\ngetattr\n", b"cnumpy\nload\n"]
_GLOBALS += [b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"]
_OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
_DESCRIPTIONS = ["<f4", "<f2", ">f8", "|O", "<i8", "|u1", "<U9999999", "|V8", "f", "O", "<m8", "<c16", "[('a','<f4')]"]
_COLUMNS = ["x", "_subset_", "_content_id_", "key", "value", 'a"b', "é"]


def mutate(rng: Random, name: str, data: bytes, others: list[bytes]) -> bytes:
    """A mutant of a file: its format's own mutations, or those of bytes.

    Args:
        rng: source of all choices.
        name: name of the file, whose ending tells the format.
        data: content of the file.
        others: contents of other files, parts of which are spliced in.
    """
    own = _BY_ENDING.get(name.rpartition(".")[2])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if own is not None and rng.random() < 0.6:
            # a file that an earlier mutation broke is no longer of its format
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zipfile's, of two members of one name
                data = own(rng, data)
                continue
        data = _splice(rng, data, rng.choice(others)) if rng.random() < 0.05 else rng.choice(_BYTES)(rng, data)
    return data


def _place(rng: Random, data: bytes) -> int:
    """A place, more often near an end, where headers and directories are."""
    if not data:
        return 0
    near = min(len(data), 256)
    return rng.choice((rng.randrange(len(data)), rng.randrange(near), len(data) - 1 - rng.randrange(near)))


def _flip(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    new = rng.choice((rng.randbytes(rng.randrange(1, 16)), bytes(rng.randrange(1, 64)), b"\xff" * rng.randrange(1, 16)))
    return data[:at] + new + data[at + len(new) :]


def _number(rng: Random, data: bytes) -> bytes:
    """An integer that is often a border, at a place that is often aligned."""
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    at = _place(rng, data)
    at -= at % size if rng.random() < 0.5 else 0
    value = (rng.choice(_NUMBERS) + rng.choice((0, 0, 1, -1))) % 256**size
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def _truncate(rng: Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _insert(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 8, 100))) + data[at:]


def _remove(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 4, 8, 100)) :]


def _repeat(rng: Random, data: bytes) -> bytes:
    at, size = _place(rng, data), rng.choice((1, 8, 64, 512))
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 50)) + data[at + size :]


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)] + other[_place(rng, other) :]


_BYTES: list[Mutation] = [_flip, _flip, _overwrite, _number, _number, _truncate, _insert, _remove, _repeat]


def _pickle(rng: Random, data: bytes) -> bytes:
    """Changes instructions of the first pickle; what follows it stays."""
    starts = _starts(data)
    if rng.random() < 0.1:
        return data[: starts[-1]] + _call(rng) + data[starts[-1] :]
    k = rng.randrange(len(starts))
    begin, end = starts[k], starts[k + 1] if k + 1 < len(starts) else starts[k] + 1
    own, before, after = data[begin:end], data[:begin], data[end:]
    return rng.choice(
        (
            lambda: before + after,
            lambda: before + own * rng.choice((2, 3, 1000)) + after,
            lambda: before + rng.choice(_OPCODES) + own[1:] + after,
            lambda: before + rng.choice(_OPCODES) + after,
            lambda: before + _value(rng) + after,
            lambda: before + _call(rng) + own + after,
            lambda: before + rng.choice(_GLOBALS) + after,
            lambda: before + rng.choice(_BYTES)(rng, own) + after,
        )
    )()


@functools.lru_cache(maxsize=256)
def _starts(data: bytes) -> list[int]:
    return [position for _, _, position in pickletools.genops(data) if position is not None]


def _value(rng: Random) -> bytes:
    """Instructions that push a value."""
    number = rng.choice(_NUMBERS)
    values = [number, -number, 2 ** rng.choice((64, 200, 4000)), "", "0", "x" * rng.choice((1, 10_000)), None, True]
    values += [1.5, [], {}, (), [number], {number: number}, (number, number), b"", bytes(8), float("nan")]
    return pickle.dumps(rng.choice(values), rng.choice((2, 4)))[2:-1]


def _call(rng: Random) -> bytes:
    """Instructions that call something with one argument, in the ways that there are."""
    wanted, argument = rng.choice(_GLOBALS), pickle.dumps("muvera-canary", 2)[2:-1]
    ways = (wanted + argument + b"\x85R", b"(" + argument + b"i" + wanted[1:], b"(" + wanted + argument + b"o")
    return rng.choice((*ways, wanted + argument + b"\x85\x81", wanted + b"}" + argument + b"K\1sb"))


def _zip(rng: Random, data: bytes) -> bytes:
    """Writes the archive anew, with right checksums: a changed pickle is looked at only then."""
    members = list(_members(data))
    k = rng.randrange(len(members))
    if rng.random() < 0.7:
        k = next(i for i, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    name, content = members[k]
    kind = rng.randrange(8)
    if kind == 0:
        del members[k]
    elif kind == 1:
        members.append((rng.choice((name, f"y/{name}", "x/data.pkl", "../data.pkl", "x/byteorder")), content))
    elif kind == 2:
        members[k] = (name, rng.choice(_BYTES)(rng, content))
    else:
        members[k] = (name, _pickle(rng, content) if name.endswith(".pkl") else rng.choice(_BYTES)(rng, content))
    written = io.BytesIO()
    way = rng.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(written, "w", way) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return written.getvalue()


@functools.lru_cache(maxsize=256)
def _members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _torch(rng: Random, data: bytes) -> bytes:
    if data.startswith(b"PK"):
        return _zip(rng, data)
    begin = rng.choice(_pickles(data))  # before torch 1.6, several, then the storages
    return data[:begin] + _pickle(rng, data[begin:])


@functools.lru_cache(maxsize=256)
def _pickles(data: bytes) -> list[int]:
    """Where the pickles at the start begin."""
    file, begins = io.BytesIO(data), [0]
    with contextlib.suppress(ValueError):
        while True:
            for _ in pickletools.genops(file):
                pass
            begins.append(file.tell())
    return begins[:-1] or [0]


def _npy(rng: Random, data: bytes) -> bytes:
    """Writes another header, or, in an array of objects, changes its pickle."""
    size = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + size].decode("latin1"), data[10 + size :]
    if "O" in header.partition("fortran")[0] and rng.random() < 0.7:
        return data[: 10 + size] + _pickle(rng, body)
    kind = rng.randrange(4)
    if kind == 0:
        header = re.sub(r"'descr': '[^']*'", f"'descr': '{rng.choice(_DESCRIPTIONS)}'", header)
    elif kind == 1:
        shape = ", ".join(str(rng.choice((*_NUMBERS, 10**30))) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 40))))
        header = re.sub(r"\([^)]*\)", f"({shape},)", header)
    elif kind == 2:
        header = header.replace("False", rng.choice(("True", "__import__('os').system('true')", "0", "None")))
    else:
        header = rng.choice(_BYTES)(rng, header.encode("latin1")).decode("latin1")
    encoded = header.encode("latin1")
    return data[:8] + (len(encoded) % 65536).to_bytes(2, "little") + encoded + body


def _json(rng: Random, data: bytes) -> bytes:
    """Puts another value in the place of one."""
    if rng.random() < 0.3:
        found = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?|\"[^\"]*\"|true|false|null", data))
        match = rng.choice(found)
        return data[: match.start()] + _json_value(rng).encode() + data[match.end() :]
    root: Any = [json.loads(data)]
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    if holder is not root and rng.random() < 0.3:
        del holder[key]
        return json.dumps(root[0]).encode()
    holder[key] = "MUTANT"
    return json.dumps(root[0]).replace('"MUTANT"', _json_value(rng), 1).encode()


def _json_value(rng: Random) -> str:
    values = [str(rng.choice(_NUMBERS)), "1e999", "-0.5", "NaN", "1" * rng.choice((20, 5000)), "null", "true", "{}"]
    values += ["[]", '""', '"\\ud800"', '"0"', '"٣"', "[" * 5000, '{"a":' * 3000, "[[1],[2]]", '"\\u0000"']
    values += [f"[{'0,' * 999}0]"]
    return rng.choice(values)


def _sqlite(rng: Random, data: bytes) -> bytes:
    """Changes rows and the schema by statements, which may have no business in such a file."""
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        Path(file.name).write_bytes(data)
        db = sqlite3.connect(file.name)
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = rng.choice(tables)
        columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
        column, other = rng.choice(columns), rng.choice(_COLUMNS).replace('"', '""')
        value = rng.choice(
            ("NULL", "-1", "9223372036854775807", "1e400", "x'80ff'", "'\xff'", "zeroblob(99999)", "'1'")
        )
        ways = [
            f'UPDATE "{table}" SET "{column}" = {value} WHERE rowid = {rng.randrange(1, 60)}',
            f'UPDATE "{table}" SET "{column}" = {value}',
            f'UPDATE "{table}" SET "{column}" = CAST("{column}" AS {rng.choice(("TEXT", "BLOB", "REAL"))})',
            f'DELETE FROM "{table}" WHERE rowid % {rng.choice((1, 2, 50))} = 0',
            f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{other}"',
            f'ALTER TABLE "{table}" RENAME TO "{other}"',
            f'ALTER TABLE "{table}" ADD COLUMN "{other}" AS (randomblob(10000000))',
            f'ALTER TABLE "{table}" RENAME TO hidden; CREATE VIEW "{table}" AS SELECT * FROM hidden',
            f'ALTER TABLE "{table}" RENAME TO hidden; CREATE VIEW "{table}" AS WITH RECURSIVE n(i) AS '
            '(SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS "key", i AS "value", i AS "_subset_" FROM n',
            f'DROP TABLE "{table}"; CREATE VIRTUAL TABLE "{table}" USING fts5(key, value)',
            f'CREATE TRIGGER t AFTER UPDATE ON "{table}" BEGIN DELETE FROM "{table}"; END',
            f"PRAGMA {rng.choice(('user_version = 9', 'encoding = utf16', 'journal_mode = wal'))}",
            f"PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, '{column}', '{other}')",
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = rootpage + 1",
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = NULL",
        ]
        try:
            db.executescript(rng.choice(ways))
            db.commit()
        finally:
            db.close()
            for suffix in ("-wal", "-shm", "-journal"):
                Path(file.name + suffix).unlink(missing_ok=True)
        return Path(file.name).read_bytes()


def _gzip(rng: Random, data: bytes) -> bytes:
    unpacked = gzip.decompress(data)
    if rng.random() < 0.02:
        return gzip.compress(unpacked[:-1], 0) + _zeros()
    return gzip.compress(_pickle(rng, unpacked), 0)


@functools.cache
def _zeros() -> bytes:
    return gzip.compress(bytes(1 << 28), 1)


_BY_ENDING: dict[str, Mutation] = {
    "pkl": _pickle, "pt": _torch, "npy": _npy, "json": _json, "db": _sqlite, "sqlite": _sqlite, "gz": _gzip,
}  # fmt: skip
