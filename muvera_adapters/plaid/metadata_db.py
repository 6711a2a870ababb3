"""The SQLite database that fast-plaid and next-plaid keep beside an index: one row of columns per document."""

from __future__ import annotations

import sqlite3
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.files import require_file

_CONTENT = ' LEFT JOIN "METADATA_CONTENT" ON "METADATA"."_content_id_" = "METADATA_CONTENT"."_content_id_"'


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing, not even a lock, and runs nothing that the schema contains.

    Raises:
        IndexDamaged: no database, or one that another program has not finished writing.
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
        raise IndexDamaged(path, f"cut short, or not the SQLite database expected: {error}") from error


def _check_size(path: Path) -> None:
    """SQLite takes what was cut off the last page for zeros."""
    size = require_file(path).stat().st_size
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise IndexDamaged(path, "cut short, or no SQLite database")
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


def open_metadata(path: Path, n_documents: int) -> Callable[[], Iterator[Mapping[str, Any]]] | None:
    """What starts reading the payloads of all documents in order; None where the index has no database, or not its own.

    Raises:
        IndexDamaged: no database, or without the tables expected.
    """
    if not path.exists():
        return None
    with open_database(path) as connection:
        names, columns, tables = _query(connection, path)
        count, distinct, first, last = connection.execute(
            f'SELECT count(*), count(DISTINCT "_subset_"), min("_subset_"), max("_subset_") FROM {tables}'  # noqa: S608
        ).fetchone()
        # fast-plaid writes database and vectors one after the other, updates in this order, deletions in the other
        if (count, distinct, first, last) != (n_documents, n_documents, 0, n_documents - 1):
            warnings.warn(
                f"{path}: left out, it has {count} rows numbered {first} to {last}, and the index {n_documents} "
                "documents; an update or a deletion was interrupted, and rows cannot be told apart",
                IndexWarning,
                stacklevel=4,
            )
            return None
    if not names:
        return None

    def payloads() -> Iterator[Mapping[str, Any]]:
        with open_database(path) as connection:
            for row in connection.execute(f'SELECT {columns} FROM {tables} ORDER BY "_subset_"'):  # noqa: S608
                yield {name: value for name, value in zip(names, row, strict=True) if value is not None}
        raise IndexDamaged(path, "changed while it was read")

    return payloads


def _query(connection: sqlite3.Connection, path: Path) -> tuple[list[str], str, str]:
    """Names of a payload's columns, and what to select from where, in every layout."""
    columns = {"METADATA": table_columns(connection, path, "METADATA")}
    if "_subset_" not in columns["METADATA"]:
        raise IndexDamaged(path, "the table METADATA has no column _subset_")
    # next-plaid's version 2 keeps texts in a second table
    joined = "_content_id_" in columns["METADATA"]
    if joined:
        columns["METADATA_CONTENT"] = table_columns(connection, path, "METADATA_CONTENT")
        if "_content_id_" not in columns["METADATA_CONTENT"]:
            raise IndexDamaged(path, "the table METADATA_CONTENT has no column _content_id_")
    found = [(t, name) for t, names in columns.items() for name in names if name not in ("_subset_", "_content_id_")]
    quoted = ['"{}"."{}"'.format(table, name.replace('"', '""')) for table, name in found]
    return [name for _, name in found], ", ".join(quoted), '"METADATA"' + (_CONTENT if joined else "")
