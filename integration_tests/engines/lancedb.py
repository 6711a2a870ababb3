"""LanceDB: a directory, with tokens as float16 or as float32, which LanceDB scores itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from muvera_adapters.testing import Blocking, CannotStart, Engine, Session
from muvera_adapters.testing.corpus import DIM

try:
    import lancedb
    import pyarrow as pa

    from muvera_adapters.lancedb import AsyncLanceMuvera, LanceMuvera, Near
except ModuleNotFoundError as error:
    MISSING: str | None = f"pip install 'muvera-adapters[lancedb]' ({error})"
else:
    MISSING = None


class LanceSession:
    """Through lancedb."""

    def __init__(self, directory: Path, tokens: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.client = lancedb.connect(directory)
        self._tokens = tokens
        self._loop = loop
        self._async_client = None if loop is None else loop.run_until_complete(lancedb.connect_async(directory))
        self._cosine: set[str] = set()

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        columns = pa.schema([("parity", pa.int64())])
        return self._make("create", name, encoder, **{"tokens": self._tokens, "columns": columns, **options})

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        return self._make("open", name, encoder, **options)

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        metric = {"tokens_metric": "cosine"} if name in self._cosine else {}
        return self._make("adopt", name, encoder, **metric, **options)

    def equals(self, key: str, value: Any) -> str:
        return f"{key} = {value!r}"

    def exact(self) -> dict[str, Any]:
        return {"quantization": None}

    def fdes_are_float16(self) -> bool:
        return False

    def token_presets(self) -> tuple[str, ...]:
        return ("float32", "float16")

    def scores_natively(self) -> bool:
        return self._tokens == "float32"

    def backfills_in_place(self) -> bool:
        return True

    def has_other_vectors(self) -> bool:
        return True

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        return Near("dense", vector, filter=filter, limit=limit)

    def removes_fdes(self) -> bool:
        return True

    def takes_uuids(self) -> bool:
        return False

    def empty_filter(self) -> str:
        return " "

    def foreign_id(self, number: int) -> int:
        return number

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        return [] if self._tokens == "float32" else [(np.full((2, DIM), 1e5), "float16")]

    def indexing(self) -> dict[str, Any]:
        return {}

    def index_rest(self, name: str) -> None:
        """``wait_indexed`` takes the rest into the index."""

    def unindexed(self, added: int, total: int) -> int | None:
        return added

    def foreign(
        self,
        name: str,
        ids: Sequence[int],
        tokens: Sequence[np.ndarray],
        *,
        cosine: bool = False,
        fdes: np.ndarray | None = None,
        dense: np.ndarray | None = None,
    ) -> None:
        if cosine:
            self._cosine.add(name)
        columns = [("id", pa.int64()), ("n", pa.int64()), ("colbert", pa.list_(pa.list_(pa.float32(), DIM)))]
        rows = self._rows(ids, tokens)
        for each, matrix in (("fde", fdes), ("dense", dense)):
            if matrix is not None:
                columns.append((each, pa.list_(pa.float32(), matrix.shape[1])))
                for row, vector in zip(rows, matrix, strict=True):
                    row[each] = vector.tolist()
        schema = pa.schema(columns)
        self.client.create_table(name, pa.Table.from_pylist(rows, schema))

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        table = self.client.open_table(name)
        table.delete(f"id IN ({', '.join(map(str, ids))})")
        table.add(pa.Table.from_pylist(self._rows(ids, tokens), table.schema))

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        rows = [{"id": i, "colbert": matrix.tolist()} for i, matrix in zip(ids, tokens, strict=True)]
        schema = pa.schema([("id", pa.int64()), ("colbert", pa.list_(pa.list_(pa.float32(), DIM)))])
        update = self.client.open_table(name).merge_insert("id").when_matched_update_all()
        update.execute(pa.Table.from_pylist(rows, schema))

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        table = self.client.open_table(name)
        row = {"id": f"#{document_id}", "fde": fde.tolist(), "payload": f'{{"n": {document_id}}}'}
        kept = [table.schema.field(each) for each in ("id", "fde")]
        schema = pa.schema([*kept, pa.field("payload", pa.json_(pa.string()))])
        columns = [pa.array([row[each.name]], getattr(each.type, "storage_type", each.type)) for each in schema]
        columns[2] = pa.ExtensionArray.from_storage(schema.field(2).type, columns[2])
        table.merge_insert("id").when_not_matched_insert_all().execute(pa.table(columns, schema=schema))

    def content(self, name: str) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        table = self.client.open_table(name).to_arrow()
        vectors = [
            each.name for each in table.schema if pa.types.is_list(each.type) or pa.types.is_fixed_size_list(each.type)
        ]
        for row in table.to_pylist():
            matrices = {each: np.array(row[each], np.float32) for each in vectors if row[each] is not None}
            payload = {key: value for key, value in row.items() if key not in ("id", *vectors)}
            found[row["id"]] = (payload, matrices)
        return found

    def close(self) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _rows(self, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        return [
            {"id": i, "n": i, "colbert": np.asarray(matrix, np.float32).tolist()}
            for i, matrix in zip(ids, tokens, strict=True)
        ]

    def _make(self, method: str, *args: Any, **options: Any) -> Any:
        if self._loop is None:
            return getattr(LanceMuvera, method)(self.client, *args, **options)
        made = getattr(AsyncLanceMuvera, method)(self._async_client, *args, **options)
        return Blocking(self._loop.run_until_complete(made), self._loop)


@contextmanager
def _start(path: Path, *, tokens: str = "float16", asynchronous: bool = False) -> Iterator[Session]:
    if MISSING is not None:
        raise CannotStart(MISSING)
    session = LanceSession(path / "lance", tokens, asyncio.new_event_loop() if asynchronous else None)
    try:
        yield session
    finally:
        session.close()


ENGINES = [
    Engine("lancedb", _start),
    Engine("lancedb-float32", partial(_start, tokens="float32")),
    Engine("lancedb-async", partial(_start, asynchronous=True)),
]
