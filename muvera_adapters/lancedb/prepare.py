"""Checks of documents against what a table takes, and the columns that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muvera_adapters.errors import InvalidInput
from muvera_adapters.lancedb import arrow
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.checks import Intake, Prepared, check_finite, check_present, is_plain, json_of
from muvera_adapters.stores.keys import Key, to_key

#: largest value of float16
HALF = 65_504.0
# tokens whose squares sum to less have no value above it
_HALF_SQUARE = 4e9

#: a document as columns take it: values by column, the payload's other keys under the name of the JSON column
Item = dict[str, Any]


def intake(collection: Collection) -> Intake[Key]:
    """What this table takes, as checks of :func:`~muvera_adapters.stores.checks.prepare`."""
    return Intake(
        partial(_key, collection),
        partial(_payload, collection),
        partial(check_matrix, collection),
        partial(_size, collection),
        vectors=frozenset(collection.strangers),
    )


def unfit(collection: Collection, fdes: npt.NDArray[np.float32]) -> dict[int, str]:
    """Row -> reason of the (n, dim) FDEs that the FDE column cannot hold."""
    if collection.fde_type != pa.float16():
        return {}
    over = np.flatnonzero(np.abs(fdes).max(axis=1) > HALF)
    return dict.fromkeys(map(int, over), f"its FDE exceeds the float16 of {collection.fde!r}: normalize tokens")


def to_items(
    collection: Collection, prepared: Prepared[Key], i: int, j: int, fdes: npt.NDArray[np.float32]
) -> list[Item]:
    """Documents i to j, with their FDEs (j - i, dim)."""
    items = []
    for position, fde in zip(range(i, j), fdes, strict=True):
        payload = prepared.payloads[position]
        item: Item = {name: value for name, value in payload.items() if name in collection.fields}
        others = {name: value for name, value in payload.items() if name not in collection.fields}
        if others and collection.json is not None:
            item[collection.json] = others
        item.update(prepared.vectors[position])
        item[collection.key], item[collection.fde] = prepared.keys[position], fde
        if collection.tokens is not None:
            item[collection.tokens] = prepared.tokens[position]
        items.append(item)
    return items


def to_table(collection: Collection, items: Sequence[Item]) -> pa.Table:
    """Documents that name the same columns, as Arrow columns; null in a column is a value that is not there.

    Raises:
        InvalidInput: a vector of someone else does not fit its column.
    """
    columns: dict[str, pa.Array] = {}
    for name in items[0]:
        values = [item[name] for item in items]
        if name == collection.fde:
            kind = arrow.fde_type(collection.fde_type, collection.encoder.dim)
            columns[name] = arrow.vectors(np.stack(values), kind)
        elif name == collection.tokens:
            kind = arrow.tokens_type(collection.token_type, collection.encoder.token_dim)
            columns[name] = arrow.matrices(values, kind)
        elif name == collection.json:
            columns[name] = arrow.json_column(values)
        elif name == collection.key:
            columns[name] = pa.array(values, pa.int64() if collection.keys == "integer" else pa.string())
        elif name in collection.strangers:
            columns[name] = _vectors(values, name, collection.strangers[name])
        else:
            columns[name] = arrow.column(values, collection.fields[name])
    return arrow.keyed(columns, collection.key)


def check_matrix(collection: Collection, matrix: npt.NDArray[Any], where: str) -> None:
    """Raises InvalidInput for a token matrix that cannot be encoded or stored; ``where`` begins the message."""
    half = collection.tokens is not None and collection.token_type == pa.float16() and not collection.cosine
    if is_plain(matrix, _HALF_SQUARE if half else np.inf):
        return
    largest = check_finite(matrix, where)
    if half and largest > HALF:
        raise InvalidInput(
            f"{where} has a value of {largest:.6g}, over the {HALF:.0f} of float16: normalize tokens, or create the "
            "table with tokens='float32'"
        )
    check_present(matrix, where)


def _vectors(values: Sequence[Any], name: str, kind: pa.DataType) -> pa.Array:
    try:
        return pa.array([None if each is None else np.asarray(each).tolist() for each in values], kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(f"vectors: a value of {name!r} does not fit the column's type {kind} ({error})") from error


def _key(collection: Collection, document_id: DocumentId, position: int) -> tuple[Key, dict[str, Any]]:
    return to_key(document_id, position, collection.keys), {}


def _payload(collection: Collection, payload: Mapping[str, Any], position: int) -> dict[str, Any]:
    for name, value in payload.items():
        kind = collection.fields.get(name)
        if kind is None:
            if collection.json is None:
                there = ", ".join(repr(each) for each in collection.fields) or "none"
                raise InvalidInput(
                    f"the payload at position {position}: {collection.name} has no column {name!r} for payloads; there "
                    f"are: {there}"
                )
            continue
        if not arrow.fits(value, kind):
            raise InvalidInput(
                f"the payload at position {position}: {value!r:.80} does not fit the column {name!r} of type {kind}"
            )
    return dict(payload)


def _size(collection: Collection, matrix: npt.NDArray[Any], payload: Mapping[str, Any], where: str) -> int:
    stored = matrix.size * (collection.token_type.bit_width // 8) if collection.tokens is not None else 0
    return stored + 4 * collection.encoder.dim + len(json_of(payload)) + 100
