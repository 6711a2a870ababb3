"""Parquet files with a list of vectors in a column, streamed by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.sources.base import SourceDocument, check_unique, to_float32

_IDS = ("id", "_id", "doc_id", "docid", "document_id")
_ROWS = 256


class ParquetSource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`. Columns that are neither tokens nor ids are the payload.

    Args:
        files: read one after the other, as one table.
        place: for messages.
        tokens_column: list<list<float>>, the inner one of fixed size or not; None: the only column of that type.
        id_column: None: ``id``, ``_id``, ``doc_id``, ``docid`` or ``document_id`` where there is one, else row numbers.

    Raises:
        InvalidInput: no such column, or an id is there twice.
        MissingExtra: pyarrow is not installed.
    """

    n_tokens: int | None = None
    lengths: npt.NDArray[np.int64] | None = None
    seekable = True

    def __init__(
        self, files: Sequence[Path], place: str, *, tokens_column: str | None = None, id_column: str | None = None
    ) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise MissingExtra("pyarrow", "parquet") from error
        self.files: Sequence[Path] = files
        self.place = place
        self._open = parquet.ParquetFile
        try:
            opened = [self._open(file) for file in files]
        except (OSError, pyarrow.ArrowException) as error:
            raise InvalidInput(f"{place}: no Parquet file: {error}") from error
        schema = opened[0].schema_arrow
        other = next((f for f, o in zip(files, opened, strict=True) if not o.schema_arrow.equals(schema)), None)
        if other is not None:
            raise InvalidInput(f"{other} has other columns than {files[0]}")
        self._counts = [o.metadata.num_rows for o in opened]
        self.n_positions = sum(self._counts)
        self._tokens = self._choose_tokens(schema, tokens_column)
        self._id = id_column or next((name for name in _IDS if name in schema.names), None)
        if id_column is not None and id_column not in schema.names:
            raise InvalidInput(f"{place} has no column {id_column!r}; it has {', '.join(schema.names)}")
        self.format = f"parquet, tokens in {self._tokens!r}, ids in {self._id!r}" if self._id else "parquet"
        nested = {field.name for field in schema if _is_nested(field.type)}
        self._payload = [name for name in schema.names if name not in nested and name != self._id]
        if self._id is not None:
            self._check_ids(opened)
        first = next(self.documents(), None)
        if first is None:
            raise InvalidInput(f"{place} has no rows")
        self.dim = first.tokens.shape[1]

    def __len__(self) -> int:
        return self.n_positions

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """In the order of the rows."""
        position = 0
        for path, count in zip(self.files, self._counts, strict=True):
            if position + count > start:
                yield from self._file_documents(path, position, start)
            position += count

    def close(self) -> None:
        """Nothing is kept open."""

    def _file_documents(self, path: Path, position: int, start: int) -> Iterator[SourceDocument]:
        with self._open(path) as file:
            groups: list[int] = []
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if not groups and position + rows <= start:
                    position += rows
                else:
                    groups.append(group)
            columns = [self._tokens, *([self._id] if self._id else []), *self._payload]
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns):
                if position + len(batch) > start:
                    yield from self._batch_documents(batch, path, position, max(0, start - position))
                position += len(batch)

    def _batch_documents(self, batch: Any, path: Path, position: int, skip: int) -> Iterator[SourceDocument]:
        matrices = batch.column(self._tokens)
        ids = batch.column(self._id).to_pylist() if self._id else range(position, position + len(batch))
        payloads = batch.select(self._payload).to_pylist() if self._payload else [{}] * len(batch)
        for i in range(skip, len(batch)):
            where = f"{path}, row {position + i}"
            if ids[i] is None:
                raise InvalidInput(f"{where} has no id")
            payload = {key: value for key, value in payloads[i].items() if value is not None}
            yield SourceDocument(position + i, ids[i], self._matrix(matrices[i].values, where), payload)

    def _matrix(self, vectors: Any, where: str) -> Any:
        """(n, dim) float32 of one cell; (0, dim) of an empty one."""
        if vectors is None or not len(vectors):
            return np.zeros((0, getattr(self, "dim", 0)), np.float32)
        values = vectors.flatten()
        if values.null_count or vectors.null_count or len(values) % len(vectors):
            raise InvalidInput(f"{where}: {self._tokens} has missing values, or vectors of different widths")
        return to_float32(values.to_numpy(zero_copy_only=False), where).reshape(len(vectors), -1)

    def _choose_tokens(self, schema: Any, wanted: str | None) -> str:
        nested = [field.name for field in schema if _is_nested(field.type)]
        if wanted is not None and wanted not in nested:
            raise InvalidInput(f"{self.place} has no column {wanted!r} of lists of vectors; it has {_listed(schema)}")
        if wanted is None and len(nested) != 1:
            raise InvalidInput(
                f"{self.place}: {'several columns are' if nested else 'no column is a'} list of vectors; it has "
                f"{_listed(schema)}" + ("; name one with --tokens-column" if nested else "")
            )
        return wanted or nested[0]

    def _check_ids(self, opened: Sequence[Any]) -> None:
        # hashes take eight bytes an id; equal ones may still be different ids, which are then looked at
        hashes = np.fromiter((hash(i) for i in self._all_ids(opened)), np.int64, self.n_positions)
        values, counts = np.unique(hashes, return_counts=True)
        suspects = set(values[counts > 1].tolist())
        if suspects:
            ids = [i for i in self._all_ids(opened) if hash(i) in suspects]
            check_unique(np.array(ids), f"{self.place}: column {self._id!r}")

    def _all_ids(self, opened: Sequence[Any]) -> Iterator[int | str]:
        for file in opened:
            for batch in file.iter_batches(columns=[self._id]):
                for identifier in batch.column(0).to_pylist():
                    if type(identifier) not in (int, str):
                        raise InvalidInput(
                            f"{self.place}: column {self._id!r} has {identifier!r}; ids are strings and integers"
                        )
                    yield identifier


def _is_nested(kind: Any) -> bool:
    from pyarrow import types

    def is_list(t: Any) -> bool:
        return types.is_list(t) or types.is_large_list(t) or types.is_fixed_size_list(t)

    return is_list(kind) and is_list(kind.value_type) and types.is_floating(kind.value_type.value_type)


def _listed(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
