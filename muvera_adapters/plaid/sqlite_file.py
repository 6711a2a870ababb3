"""Opens untrusted SQLite databases, so that nothing is written and nothing in them runs."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.files import require_file


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection that writes nothing, not even a lock, and runs no code of the schema.

    Raises:
        IndexDamaged: the file is not a database, or another program has not finished writing it.
    """
    for suffix in ("-wal", "-journal"):
        pending = path.with_name(path.name + suffix)
        if pending.exists() and pending.stat().st_size:
            raise IndexDamaged(pending, "a program is writing the database or died doing so; open it with sqlite3 once")
    _check_size(path)
    uri = require_file(path).resolve().as_uri() + "?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            yield connection
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise IndexDamaged(path, f"cut short, or not the expected SQLite database: {error}") from error


def _check_size(path: Path) -> None:
    """Raises IndexDamaged for a file that was cut short, whose missing part SQLite would read as zeros."""
    size = require_file(path).stat().st_size
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise IndexDamaged(path, "cut short, or not an SQLite database")
    (page_size,) = struct.unpack(">H", header[16:18])
    (pages,) = struct.unpack(">I", header[28:32])
    # as the format says: 1 is 65,536, and the count holds where two other fields agree
    page_size = 65_536 if page_size == 1 else max(page_size, 1)
    if size % page_size or (header[24:28] == header[92:96] and size < pages * page_size):
        raise IndexDamaged(path, f"cut short: {size} bytes, {pages} pages of {page_size} were expected")


def table_columns(connection: sqlite3.Connection, path: Path, table: str) -> list[str]:
    """Names of the stored columns of an ordinary table; a view or a virtual table would run what it contains."""
    found = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    if len(found) != 1 or found[0][0] != "table" or not str(found[0][1]).upper().startswith("CREATE TABLE"):
        raise IndexDamaged(path, f"expected a table {table}")
    # leaves out generated columns
    return [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
