"""Values as Arrow columns, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muvera_adapters.stores.payloads import first_difference, to_plain


def fde_type(values: pa.DataType, dim: int) -> pa.DataType:
    """Type of a column of vectors."""
    return pa.list_(values, dim)


def tokens_type(values: pa.DataType, width: int) -> pa.DataType:
    """Type of a column of token matrices, a multivector of LanceDB."""
    return pa.list_(pa.list_(values, width))


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column has single vectors."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def is_multivector(kind: pa.DataType) -> bool:
    """Whether a column has matrices of vectors."""
    return bool(pa.types.is_list(kind) and is_vector(kind.value_type))


def is_json(field: pa.Field) -> bool:
    """Whether a column has JSON values."""
    named = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    return named in (b"lance.json", b"arrow.json") or getattr(field.type, "extension_name", "") == "arrow.json"


def takes_json(kind: pa.DataType, nested: bool = False) -> bool:
    """Whether values of JSON can be written into a column of this type and read again."""
    if pa.types.is_map(kind) or pa.types.is_decimal(kind) or isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_nested(kind):
        return all(takes_json(kind.field(i).type, nested=True) for i in range(kind.num_fields))
    if pa.types.is_temporal(kind):
        return not nested and bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))
    return "binary" not in str(kind)


def keyed(columns: Mapping[str, pa.Array], key: str) -> pa.Table:
    """Columns as a table whose keys are never null, which LanceDB requires of a primary key."""
    fields = [pa.field(name, values.type, nullable=name != key) for name, values in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def vectors(matrix: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """A column of vectors (n, dim)."""
    values = np.ascontiguousarray(matrix, kind.value_type.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind)


def matrices(tokens: Sequence[npt.NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """A column of token matrices (n_i, width)."""
    inner = kind.value_type
    flat = np.concatenate([np.asarray(matrix, inner.value_type.to_pandas_dtype()) for matrix in tokens])
    offsets = np.cumsum([0, *(len(matrix) for matrix in tokens)], dtype=np.int32)
    items = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), type=inner)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=kind)


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column of payload values; raises an ArrowException for a value that it cannot have."""
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


def fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a column gives a payload value back as it was: pyarrow truncates numbers, and drops keys of structs."""
    try:
        found = column([value], kind).to_pylist()
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    if pa.types.is_temporal(kind):
        return True  # written in another way
    if pa.types.is_floating(kind):
        # a value over the largest of the type becomes infinite
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value is None or (number and math.isfinite(found[0]))
    return first_difference({"": value}, to_plain({"": found[0]})) is None


def json_column(payloads: Sequence[Mapping[str, Any] | None]) -> pa.Array:
    """A column of JSON values; None is null."""
    texts = pa.array([None if each is None else json.dumps(each) for each in payloads], pa.string())
    return pa.ExtensionArray.from_storage(pa.json_(pa.string()), texts)


def vectors_of(values: pa.ChunkedArray) -> list[npt.NDArray[np.float32] | None]:
    """The vector (dim,) of each row; None where there is none."""
    rows: list[npt.NDArray[np.float32] | None] = []
    for chunk in values.chunks:
        flat = np.asarray(chunk.flatten()).astype(np.float32, copy=False)
        present = iter(flat.reshape(-1, chunk.type.list_size))
        rows += [next(present) if valid else None for valid in chunk.is_valid().to_pylist()]
    return rows


def matrices_of(values: pa.ChunkedArray) -> list[npt.NDArray[np.float32] | None]:
    """The token matrix (n, width) of each row; None where there is none, or an empty one."""
    rows: list[npt.NDArray[np.float32] | None] = []
    for chunk in values.chunks:
        inner = chunk.flatten()
        width = inner.type.list_size
        flat = np.asarray(inner.flatten()).astype(np.float32, copy=False).reshape(-1, width)
        start = 0
        for length in chunk.value_lengths().to_pylist():
            rows.append(flat[start : start + length] if length else None)
            start += length or 0
    return rows


def payloads_of(table: pa.Table, fields: Sequence[str], others: str | None) -> list[dict[str, Any]]:
    """The payload of each row, from its own columns and from that of other keys; null is no value."""
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for name in fields:
        if name not in table.column_names:
            continue
        values = table.column(name).to_pylist()
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[name] = value
    rows = [to_plain(row) for row in rows]
    if others is not None and others in table.column_names:
        for row, text in zip(rows, table.column(others).to_pylist(), strict=True):
            if text is not None:
                row.update(json.loads(text))
    return rows
