"""How requests are sent: calls of the blocking client (``lancedb.connect``) or the asynchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import lancedb
import numpy as np
import numpy.typing as npt
from lancedb.query import FullTextQuery
from lancedb.table import AsyncTable

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.checks import check_client
from muvera_adapters.stores.operations import Request

T = TypeVar("T")

#: the blocking client, and the asynchronous one
Connection: TypeAlias = lancedb.DBConnection
AsyncConnection: TypeAlias = lancedb.AsyncConnection


@dataclass(frozen=True, slots=True)
class Call(Request[T], Generic[T]):
    """A call of the client, and the reply of the request.

    Attributes:
        send: function of the client that makes the call; of an asynchronous client, its result is awaited.
        read: function that turns what the client returns into the request's reply.
    """

    send: Callable[[Any], Any]
    read: Callable[[Any], T]


def send(client: Any, call: Call[Any]) -> Any:
    """The client's reply to a call; from an asynchronous client, an awaitable of the reply."""
    return call.send(client)


def check_kind(client: Any, kind: type) -> None:
    """Raises InvalidInput for what is not a client of this kind, and names the store of the other kind."""
    stores = {AsyncConnection: "AsyncLanceMuvera", Connection: "LanceMuvera"}
    check_client(client, kind, {other: store for other, store in stores.items() if other is not kind})
    if not isinstance(client, kind) and asyncio.iscoroutine(client):
        raise InvalidInput("await lancedb.connect_async(...) first, and pass what it gives")


def schema_of(table: Any) -> Any:
    """The schema of a table; of an asynchronous one, an awaitable."""
    return table.schema() if isinstance(table, AsyncTable) else table.schema


def index_of(table: Any, column: str, config: Any) -> Any:
    """Builds an index; of an asynchronous table, an awaitable."""
    return table.create_index(column, config=config, replace=True)


def first_stage(
    table: Any,
    chosen: str,
    limit: int | None,
    near: npt.NDArray[np.float32],
    column: str,
    *,
    metric: str = "dot",
    exact: bool = False,
    tuning: Sequence[tuple[str, int]] = (),
) -> Any:
    """A query for vectors or (m, dim) matrices near to ``near``, which nobody has run yet.

    Args:
        table: the client's table.
        chosen: filter in SQL; "": none.
        limit: maximum number of rows.
        near: vector or matrix to look for.
        column: name of the column that is searched.
        metric: distance of vectors.
        exact: leave indexes out.
        tuning: names of the query's own settings, such as ``nprobes``, with their values.
    """
    if isinstance(table, AsyncTable):
        query: Any = table.query().nearest_to(near).column(column)
    else:
        query = table.search(near, vector_column_name=column)
    query = query.distance_type(metric)
    if exact:
        query = query.bypass_vector_index()
    for name, value in tuning:
        query = getattr(query, name)(value)
    return _restricted(query, chosen, limit)


def rows_near(
    table: Any,
    columns: Sequence[str],
    chosen: str,
    limit: int,
    near: npt.NDArray[np.float32],
    column: str,
    **options: Any,
) -> Any:
    """What :func:`first_stage` finds, with some columns and distances, as an Arrow table.

    Of an asynchronous table, an awaitable.
    """
    return first_stage(table, chosen, limit, near, column, **options).select([*columns, "_distance"]).to_arrow()


def rows_with(table: Any, columns: Sequence[str], chosen: str, limit: int, query: FullTextQuery) -> Any:
    """Rows that a full-text query finds, with some columns and scores, as :func:`rows_near`."""
    found: Any = (
        table.query().nearest_to_text(query) if isinstance(table, AsyncTable) else table.search(query, query_type="fts")
    )
    return _restricted(found, chosen, limit).select([*columns, "_score"]).to_arrow()


def rows_of(table: Any, columns: Sequence[str], chosen: str, limit: int | None = None) -> Any:
    """Rows in no order, with some columns, as :func:`rows_near`; limit None: all."""
    query: Any = table.query() if isinstance(table, AsyncTable) else table.search()
    return _restricted(query, chosen, limit).select(list(columns)).to_arrow()


def _restricted(query: Any, chosen: str, limit: int | None) -> Any:
    if chosen:
        query = query.where(chosen)
    return query if limit is None else query.limit(limit)


def address_of(client: Any) -> str:
    """The directory of the client."""
    return str(getattr(client, "uri", ""))


def engine() -> str:
    """Name and version of the engine, for people."""
    return f"LanceDB {lancedb.__version__}"
