"""What operations ask of LanceDB: every request, its arguments, and how its reply is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.index import BTree, IvfRq, IvfSq
from lancedb.query import FullTextQuery

from muvera_adapters.errors import SchemaMismatch
from muvera_adapters.lancedb import arrow
from muvera_adapters.lancedb.client import Call, index_of, rows_near, rows_of, rows_with, schema_of
from muvera_adapters.lancedb.collection import Collection
from muvera_adapters.lancedb.expressions import among
from muvera_adapters.stores.keys import Key
from muvera_adapters.stores.operations import Request

#: bytes of one write, which is one version of the table
WRITE_BYTES = 64 << 20
#: bytes that may be read to count rows without a value, which are those of all values
READ_BYTES = 1 << 30
#: largest number of keys in one filter
FILTER_KEYS = 1_000
#: number of documents whose tokens are read in one request
TOKENS_AT_ONCE = 256

#: times as many candidates whose FDEs are read again where the index has codes
REFINE = 2
#: index of FDEs by codes
_INDEXES: dict[str, Callable[[], Any]] = {
    "rq1": partial(IvfRq, distance_type="dot", num_bits=1),
    "rq4": partial(IvfRq, distance_type="dot", num_bits=4),
    "sq8": partial(IvfSq, distance_type="dot"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A document as it was read.

    Attributes:
        key: value of the column with the ids.
        payload: payload, or the part of it that was asked for.
        tokens: (n, token_dim); None where none are stored or none were asked for.
        fde: (dim,); None where there is none or none was asked for.
        distance: distance or score of a search; None where the request gave none.
    """

    key: Key
    payload: dict[str, Any]
    tokens: npt.NDArray[np.float32] | None = None
    fde: npt.NDArray[np.float32] | None = None
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table.

    Attributes:
        name: name of the index.
        kind: its type, in the spelling of LanceDB.
        columns: names of its columns.
        unindexed: number of rows that are not in it.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    unindexed: int


def open_table(name: str) -> Request[Any]:
    """The client's table of this name."""
    return Call(lambda client: client.open_table(name), _as_it_is)


def create_table(name: str, schema: pa.Schema) -> Request[Any]:
    """Makes an empty table; the client's table."""
    return Call(lambda client: client.create_table(name, schema=schema), _as_it_is)


def drop_table(name: str) -> Request[None]:
    """Deletes a table."""
    return Call(lambda client: client.drop_table(name), _nothing)


def schema(table: Any) -> Request[pa.Schema]:
    """The schema of a table, with the metadata of its columns."""
    return Call(lambda _: schema_of(table), _as_it_is)


def refresh(collection: Collection) -> Request[None]:
    """Makes the newest version that anybody wrote the one that is read."""
    return Call(lambda _: collection.table.checkout_latest(), _nothing)


def set_state(collection: Collection, key: str, text: str | None) -> Request[None]:
    """Keeps a text, None to remove it, in the metadata of the FDE column."""
    update = {"path": collection.fde, "metadata": {key: text}}
    return Call(lambda _: collection.table.update_field_metadata(update), _nothing)


def add_column(collection: Collection, field: pa.Field) -> Request[None]:
    """Adds a column, empty in all rows."""
    return Call(lambda _: collection.table.add_columns(field), _nothing)


def drop_column(collection: Collection, name: str) -> Request[None]:
    """Removes a column with its values and indexes."""
    return Call(lambda _: collection.table.drop_columns([name]), _nothing)


def indexes(collection: Collection) -> Request[list[Index]]:
    """All indexes of the table."""
    return Call(
        lambda _: collection.table.list_indices(),
        lambda reply: [
            Index(each.name, each.index_type, tuple(each.columns), int(each.num_unindexed_rows or 0)) for each in reply
        ],
    )


def build_index(collection: Collection, codes: str) -> Request[None]:
    """Builds the index of FDEs with these codes, and returns when it is built."""
    config = _INDEXES[codes]()
    return Call(lambda _: index_of(collection.table, collection.fde, config), _nothing)


def build_key_index(collection: Collection) -> Request[None]:
    """Builds an index of the keys, by which documents are found without reading the column."""
    return Call(lambda _: index_of(collection.table, collection.key, BTree()), _nothing)


def optimize(collection: Collection) -> Request[None]:
    """Joins small files, and takes new rows into the indexes."""
    return Call(lambda _: collection.table.optimize(), _nothing)


def count(collection: Collection, chosen: str = "") -> Request[int]:
    """The number of rows that pass a filter; "": of all."""
    return Call(lambda _: collection.table.count_rows(chosen or None), int)


def near_fde(
    collection: Collection,
    fde: npt.NDArray[np.float32],
    limit: int,
    chosen: str,
    columns: Sequence[str],
    tuning: Sequence[tuple[str, int]],
) -> Request[list[Row]]:
    """At most ``limit`` documents whose FDEs are nearest to a query's (dim,), best first."""
    vector, names = np.asarray(fde, np.float32), [collection.key, *columns]
    return Call(
        lambda _: rows_near(collection.table, names, chosen, limit, vector, collection.fde, tuning=tuning),
        partial(to_rows, collection),
    )


def near_tokens(
    collection: Collection, query: npt.NDArray[np.float32], keys: Sequence[Key]
) -> Request[dict[Key, float]]:
    """MaxSim of a query (m, token_dim) with documents that have tokens, exact to float32 where tokens are float32."""
    metric = "cosine" if collection.cosine else "dot"
    return Call(
        lambda _: rows_near(
            collection.table,
            [collection.key],
            among(collection.key, keys),
            len(keys),
            np.asarray(query, np.float32),
            str(collection.tokens),
            metric=metric,
            exact=True,
        ),
        # the distance is the sum of 1 - similarity over the query's tokens
        lambda reply: {row.key: len(query) - (row.distance or 0.0) for row in to_rows(collection, reply)},
    )


def near_vector(
    collection: Collection,
    column: str,
    vector: npt.NDArray[np.float32],
    metric: str,
    limit: int,
    chosen: str,
) -> Request[list[Row]]:
    """Documents whose vector of someone else is nearest, without payloads, best first."""
    return Call(
        lambda _: rows_near(collection.table, [collection.key], chosen, limit, vector, column, metric=metric),
        partial(to_rows, collection),
    )


def near_text(collection: Collection, query: FullTextQuery, limit: int, chosen: str) -> Request[list[Row]]:
    """Documents that a full-text query finds, without payloads, best first."""
    return Call(
        lambda _: rows_with(collection.table, [collection.key], chosen, limit, query), partial(to_rows, collection)
    )


def fetch(collection: Collection, keys: Sequence[Key], columns: Sequence[str]) -> Request[list[Row]]:
    """Those of some keys that are there, in any order."""
    return _rows(collection, columns, among(collection.key, keys), None)


def page(collection: Collection, limit: int, columns: Sequence[str], chosen: str = "") -> Request[list[Row]]:
    """At most ``limit`` documents, any of them."""
    return _rows(collection, columns, chosen, limit)


def all_keys(collection: Collection, chosen: str) -> Request[list[Key]]:
    """The keys of all documents that pass a filter, in order."""

    def read(reply: pa.Table) -> list[Key]:
        column = reply.column(collection.key)
        if column.null_count:
            raise SchemaMismatch(
                f"{collection.name}: {column.null_count} rows have null as their id in the column {collection.key!r}: "
                "give every row an id"
            )
        return sorted(column.to_pylist())

    return Call(lambda _: rows_of(collection.table, [collection.key], chosen), read)


def merge(collection: Collection, rows: pa.Table, *, insert: bool = True) -> Request[int]:
    """Writes the columns of ``rows`` into documents of the same key, in one version; gives how many were there.

    With ``insert``, documents that are not there are added.
    """

    def sent(_: Any) -> Any:
        builder = collection.table.merge_insert(collection.key).when_matched_update_all()
        if insert:
            builder = builder.when_not_matched_insert_all()
        return builder.execute(rows)

    return Call(sent, lambda reply: int(reply.num_updated_rows))


def delete(collection: Collection, chosen: str) -> Request[None]:
    """Deletes the documents that pass a filter."""
    return Call(lambda _: collection.table.delete(chosen), _nothing)


def to_rows(collection: Collection, table: pa.Table) -> list[Row]:
    """Documents of an Arrow table."""
    there = set(table.column_names)
    keys = table.column(collection.key).to_pylist()
    payloads = arrow.payloads_of(table, list(collection.fields), collection.json)
    none: list[Any] = [None] * len(keys)
    tokens = arrow.matrices_of(table.column(collection.tokens)) if collection.tokens in there else none
    fdes = arrow.vectors_of(table.column(collection.fde)) if collection.fde in there else none
    named = next((name for name in ("_distance", "_score") if name in there), None)
    distances = none if named is None else table.column(named).to_pylist()
    return [Row(*each) for each in zip(keys, payloads, tokens, fdes, distances, strict=True)]


def _rows(collection: Collection, columns: Sequence[str], chosen: str, limit: int | None) -> Request[list[Row]]:
    names = [collection.key, *columns]
    return Call(lambda _: rows_of(collection.table, names, chosen, limit), partial(to_rows, collection))


def _as_it_is(reply: Any) -> Any:
    return reply


def _nothing(_: Any) -> None:
    """Commands have no reply."""
