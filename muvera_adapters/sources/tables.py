"""Parquet and Arrow files with a list of vectors in a column, streamed by pyarrow.

A table is one file or several with the same columns: also those of subdirectories (``train/0.parquet``,
``year=2024/0.parquet``), and the Arrow files of Hugging Face's ``save_to_disk``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.plaid.text_files import IdFile
from muvera_adapters.sources import names as n
from muvera_adapters.sources.base import SourceDocument, check_unique, to_float32
from muvera_adapters.stores.token_model import TokenModel

_ROWS = 256


class TableSource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`. Columns that are neither tokens nor ids are the payload.

    Args:
        files: files that are read one after the other, as one table.
        place: path that the user gave, for messages; directories ``key=value`` below it become payload too.
        tokens: name of the column with lists of lists of floats, the inner ones of fixed size or not; None: the only
            column of that type, or the one with an exact name.
        ids: name of the column with the ids, or a file (one per line, or ``.json``); ``none``: row numbers are the
            ids; None: found by its name, otherwise guessed.
        drop: columns to leave out.
        payload: columns for the payload; None: all.

    Raises:
        InvalidInput: there is no such column, ids cannot be used or are not unique, or a column of the payload is not
            JSON.
        MissingExtra: pyarrow is not installed.
    """

    n_tokens: int | None = None
    lengths: npt.NDArray[np.int64] | None = None
    seekable = True
    model: TokenModel | None = None

    def __init__(
        self,
        files: Sequence[Path],
        place: str,
        *,
        tokens: str | None = None,
        ids: str | None = None,
        drop: Collection[str] = (),
        payload: Collection[str] | None = None,
    ) -> None:
        try:
            import pyarrow
        except ModuleNotFoundError as error:
            raise MissingExtra("pyarrow", "parquet") from error
        self.place = place
        self._tables = files
        self._open: Callable[[Path], _ParquetTable | _ArrowTable]
        kind, self._open = ("parquet", _ParquetTable) if files[0].suffix == ".parquet" else ("arrow", _ArrowTable)
        try:
            opened = [self._open(file) for file in files]
            schema = opened[0].schema
            other = next((f for f, o in zip(files, opened, strict=True) if not o.schema.equals(schema)), None)
            if other is not None:
                raise InvalidInput(f"{other} has other columns than {files[0]}")
            self._counts = [o.n_rows for o in opened]
            self.n_positions = sum(self._counts)
            columns = list(schema.names)
            unknown = next((name for name in drop if name not in columns), None)
            if unknown is not None:
                raise InvalidInput(f"{place}: --drop {unknown}: no such column; it has {', '.join(columns)}")
            self._tokens = self._choose_tokens(schema, tokens, drop)
            self._ids = self._id_file(ids, columns)
            self._id = None if self._ids else self._choose_ids(schema, ids, drop)
            left = [name for name in columns if name not in {self._tokens, self._id, *drop}]
            self._payload = left if payload is None else [name for name in left if name in payload]
            self._check_payload(schema)
            self._partitions = {file: self._partition(file, payload, drop) for file in files}
            if self._id is not None:
                check_unique(lambda: self._all_ids(opened), f"{place}: column {self._id!r}")
            self.dim = self._find_dim(opened)
        except (OSError, pyarrow.ArrowException) as error:
            raise InvalidInput(f"{place} is not a valid {kind.title()} file: {error}") from error
        self.files: Sequence[Path] = (*files, *([self._ids.path] if self._ids else []))
        which = f"ids in {self._id!r}" if self._id else f"ids in {ids}" if self._ids else "ids are row numbers"
        several = f" of {len(files)} files" if len(files) > 1 else ""
        self.format = f"{kind}{several}, tokens in {self._tokens!r}, {which}"

    def __len__(self) -> int:
        return self.n_positions

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents in the order of the rows."""
        import pyarrow

        ids = self._ids.read() if self._ids else None
        for _ in range(start if ids else 0):
            next(ids)  # type: ignore[arg-type]
        position = 0
        for path, count in zip(self._tables, self._counts, strict=True):
            if position + count > start:
                try:
                    for document in self._file_documents(path, position, start):
                        yield document if ids is None else document._replace(id=next(ids))
                except (OSError, pyarrow.ArrowException) as error:
                    raise InvalidInput(f"{path} cannot be read: {error}") from error
            position += count

    def close(self) -> None:
        """Does nothing: no file is open."""

    def _file_documents(self, path: Path, position: int, start: int) -> Iterator[SourceDocument]:
        columns = [self._tokens, *([self._id] if self._id else []), *self._payload]
        for first, batch in self._open(path).batches(columns, max(0, start - position)):
            begin = position + first
            yield from self._batch_documents(batch, path, begin, max(0, start - begin))

    def _batch_documents(self, batch: Any, path: Path, position: int, skip: int) -> Iterator[SourceDocument]:
        matrices = _storage(batch.column(self._tokens))
        ids = batch.column(self._id).to_pylist() if self._id else range(position, position + len(batch))
        payloads = batch.select(self._payload).to_pylist() if self._payload else [{}] * len(batch)
        for i in range(skip, len(batch)):
            where = f"{path}, row {position + i}"
            payload = {key: value for key, value in payloads[i].items() if value is not None}
            tokens = self._matrix(matrices[i], where)
            if not len(tokens):
                tokens = np.zeros((0, self.dim), np.float32)
            yield SourceDocument(position + i, ids[i], tokens, {**self._partitions[path], **payload})

    def _matrix(self, cell: Any, where: str) -> npt.NDArray[np.float32]:
        """The (n, dim) matrix of one cell; (0, 0) for an empty one."""
        vectors = _storage(cell.values)
        if vectors is None or not len(vectors):
            return np.zeros((0, 0), np.float32)
        values = vectors.flatten()
        if values.null_count or vectors.null_count or len(values) % len(vectors):
            raise InvalidInput(f"{where}: {self._tokens} has missing values, or vectors of different widths")
        if not _same_widths(vectors, len(values) // len(vectors)):
            raise InvalidInput(f"{where}: {self._tokens} has vectors of different widths")
        return to_float32(values.to_numpy(zero_copy_only=False), where).reshape(len(vectors), -1)

    def _find_dim(self, opened: Sequence[_ParquetTable | _ArrowTable]) -> int:
        """Width of the first document that has tokens."""
        for table in opened:
            for first, batch in table.batches([self._tokens], 0):
                for i, cell in enumerate(_storage(batch.column(0))):
                    matrix = self._matrix(cell, f"{self.place}, row {first + i}")
                    if matrix.size:
                        return int(matrix.shape[1])
        raise InvalidInput(f"{self.place}: no document has tokens in the column {self._tokens!r}")

    def _choose_tokens(self, schema: Any, wanted: str | None, drop: Collection[str]) -> str:
        nested = [field.name for field in schema if _is_nested(field.type) and field.name not in drop]
        if wanted is not None:
            if wanted not in nested:
                raise InvalidInput(
                    f"{self.place} has no column {wanted!r} of lists of vectors; it has {_listed(schema)}"
                )
            return wanted
        found = n.exact(nested, n.TOKENS, ("", *n.DOCUMENT_PREFIXES))
        if len(nested) == 1 or found:
            chosen: str = found[0] if found else nested[0]
            others = [name for name in nested if name != chosen]
            if others:
                n.guessed(
                    self.place,
                    f"tokens are taken from the column {chosen!r} of {len(nested)} with lists of vectors; the others "
                    f"({', '.join(others)}) go into the payload; --tokens names another, --drop leaves one out",
                )
            return chosen
        raise InvalidInput(
            f"{self.place}: {'several columns are' if nested else 'no column is a'} list of vectors; it has "
            f"{_listed(schema)}" + ("; name one with --tokens" if nested else "")
        )

    def _id_file(self, wanted: str | None, columns: Sequence[str]) -> IdFile | None:
        if wanted in (None, n.NO_IDS) or wanted in columns:
            return None
        path = Path(str(wanted))
        if not path.is_file():
            raise InvalidInput(
                f"{self.place} has no column {wanted!r}, and there is no such file; it has {', '.join(columns)}"
            )
        return IdFile(path, self.n_positions)

    def _choose_ids(self, schema: Any, wanted: str | None, drop: Collection[str]) -> str | None:
        if wanted == n.NO_IDS:
            return None
        if wanted is None:
            free = [name for name in schema.names if name != self._tokens and name not in drop]
            wanted = n.choose_ids(free, self.place, "column")
        if wanted is not None and not _is_id(schema.field(wanted).type):
            raise InvalidInput(
                f"{self.place}: column {wanted!r} is of type {schema.field(wanted).type}; ids are strings and "
                f"integers: name another column with --ids, or use --ids {n.NO_IDS} for row numbers"
            )
        return wanted

    def _check_payload(self, schema: Any) -> None:
        wrong = [field.name for field in schema if field.name in self._payload and not _is_json(field.type)]
        if wrong:
            listed = ", ".join(f"column {name!r} ({schema.field(name).type})" for name in wrong)
            raise InvalidInput(
                f"{self.place}: not JSON: {listed}; leave {'it' if len(wrong) == 1 else 'them'} out with "
                + " ".join(f"--drop {name}" for name in wrong)
            )

    def _partition(self, file: Path, payload: Collection[str] | None, drop: Collection[str]) -> dict[str, int | str]:
        """Keys and values in the names of the directories above a file."""
        root = Path(self.place)
        parts = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()
        pairs = [part.partition("=") for part in parts if "=" in part]
        return {
            key: int(value) if value.isdecimal() and str(int(value)) == value else value
            for key, _, value in pairs
            if key not in drop and (payload is None or key in payload)
        }

    def _all_ids(self, opened: Sequence[_ParquetTable | _ArrowTable]) -> Iterator[int | str]:
        position = 0
        for table in opened:
            for _, batch in table.batches([self._id], 0):
                for identifier in batch.column(0).to_pylist():
                    if identifier is None:
                        raise InvalidInput(f"{self.place}, row {position}: no id in the column {self._id!r}")
                    yield identifier
                    position += 1


class _ParquetTable:
    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path)
        self.schema = self._file.schema_arrow
        self.n_rows: int = self._file.metadata.num_rows

    def batches(self, columns: Sequence[str | None], start: int) -> Iterator[tuple[int, Any]]:
        """Batches with rows from ``start`` on, each with the number of its first row."""
        position = 0
        groups: list[int] = []
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if not groups and position + rows <= start:
                position += rows
            else:
                groups.append(group)
        for batch in self._file.iter_batches(_ROWS, row_groups=groups, columns=list(columns)):
            if position + len(batch) > start:
                yield position, batch
            position += len(batch)


class _ArrowTable:
    """An Arrow stream, as Hugging Face datasets writes it, or an Arrow file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.n_rows = 0
        for batch in self._all():
            self.n_rows += len(batch)
        self.schema = self._reader().schema

    def batches(self, columns: Sequence[str | None], start: int) -> Iterator[tuple[int, Any]]:
        """Batches with rows from ``start`` on, each with the number of its first row."""
        position = 0
        for whole in self._all():
            for first in range(0, len(whole), _ROWS):
                batch = whole.slice(first, _ROWS)
                if position + len(batch) > start:
                    yield position, batch.select(list(columns))
                position += len(batch)

    def _reader(self) -> Any:
        from pyarrow import ipc, memory_map

        source = memory_map(str(self._path))
        return ipc.open_file(source) if source.read(6) == b"ARROW1" else ipc.open_stream(_rewound(source))

    def _all(self) -> Iterator[Any]:
        reader = self._reader()
        if hasattr(reader, "num_record_batches"):
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
        else:
            yield from reader


def saved_files(directory: Path) -> list[Path]:
    """Arrow files of a directory that ``save_to_disk`` of Hugging Face datasets wrote, splits in their order."""
    path = directory / "dataset_dict.json"
    if path.is_file():
        splits = _json(path).get("splits")
        if not isinstance(splits, list):
            raise InvalidInput(f"{path}: the list of splits is missing or not valid")
        return [file for split in splits for file in saved_files(directory / str(split))]
    path = directory / "state.json"
    if not path.is_file():
        return []
    entries = _json(path).get("_data_files")
    names = [e.get("filename") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    files = [directory / Path(str(name)).name for name in names]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise InvalidInput(f"{missing} is missing, but {path} names it")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path}: expected one JSON object")
    return found


def _rewound(source: Any) -> Any:
    source.seek(0)
    return source


def _storage(column: Any) -> Any:
    """The plain array of an extension type, such as ``datasets.Array2D``."""
    return getattr(column, "storage", column)


def _plain_type(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_nested(kind: Any) -> bool:
    from pyarrow import types

    kind = _plain_type(kind)
    if not _is_list(kind) or not _is_list(_plain_type(kind.value_type)):
        return False
    return types.is_floating(_plain_type(_plain_type(kind.value_type).value_type))


def _is_id(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_json(kind: Any) -> bool:
    """Whether values are JSON, or dates, which are stored as text."""
    from pyarrow import types

    kind = _plain_type(kind)
    if _is_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(kind.field(i).type) for i in range(kind.num_fields))
    if types.is_map(kind) or types.is_union(kind):
        return False
    if types.is_dictionary(kind):
        return _is_json(kind.value_type)
    refused = (
        types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view, types.is_decimal,
        types.is_duration, types.is_interval, types.is_time,
    )  # fmt: skip
    return not any(is_kind(kind) for is_kind in refused)


def _same_widths(vectors: Any, width: int) -> bool:
    from pyarrow import types

    if types.is_fixed_size_list(vectors.type):
        return True
    lengths = np.diff(np.asarray(vectors.offsets))
    return bool((lengths == width).all())


def _listed(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
