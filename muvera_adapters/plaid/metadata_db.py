"""The SQLite database that fast-plaid and next-plaid keep beside an index: one row of columns per document."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.sqlite_file import open_database, table_columns

_CONTENT = ' LEFT JOIN "METADATA_CONTENT" ON "METADATA"."_content_id_" = "METADATA_CONTENT"."_content_id_"'


def open_metadata(path: Path, n_documents: int) -> Callable[[], Iterator[Mapping[str, Any]]] | None:
    """Function that starts reading the payloads of all documents in order; None if there is no matching database.

    Raises:
        IndexDamaged: the file is not a database, or lacks the expected tables.
    """
    if not path.exists():
        return None
    with open_database(path) as connection:
        names, columns, tables = _query(connection, path)
        count, distinct, first, last = connection.execute(
            f'SELECT count(*), count(DISTINCT "_subset_"), min("_subset_"), max("_subset_") FROM {tables}'  # noqa: S608
        ).fetchone()
        # fast-plaid writes first the database and then the vectors in updates, and the other way round in deletions
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
    """Names of a payload's columns, and the columns and tables of the query, for every layout."""
    columns = {"METADATA": table_columns(connection, path, "METADATA")}
    if "_subset_" not in columns["METADATA"]:
        raise IndexDamaged(path, "the table METADATA has no column _subset_")
    # next-plaid's version 2 stores texts in a second table
    joined = "_content_id_" in columns["METADATA"]
    if joined:
        columns["METADATA_CONTENT"] = table_columns(connection, path, "METADATA_CONTENT")
        if "_content_id_" not in columns["METADATA_CONTENT"]:
            raise IndexDamaged(path, "the table METADATA_CONTENT has no column _content_id_")
    found = [(t, name) for t, names in columns.items() for name in names if name not in ("_subset_", "_content_id_")]
    quoted = ['"{}"."{}"'.format(table, name.replace('"', '""')) for table, name in found]
    return [name for _, name in found], ", ".join(quoted), '"METADATA"' + (_CONTENT if joined else "")
