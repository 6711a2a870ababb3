"""What an adapter gives the contract suite: a way to start its database, and to look behind the adapter's back."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class CannotStart(Exception):
    """The database is not there; the message says what to do."""


class Session(Protocol):
    """A running database, empty but for what the test makes."""

    def create(self, name: str, encoder: Any, **options: Any) -> Any: ...

    def open(self, name: str, encoder: Any = None) -> Any: ...

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any: ...

    def equals(self, key: str, value: Any) -> Any:
        """A filter of the database's own."""

    def exact(self) -> dict[str, Any]:
        """Options of ``create`` that keep FDEs as float32 and without codes, so that nothing is approximate."""

    def quantized(self) -> dict[str, Any]:
        """Options of ``create`` for the least lossy quantization."""

    def fdes_are_float16(self) -> bool:
        """Unless ``create`` is told otherwise."""

    def scores_natively(self) -> bool:
        """The database has a MaxSim of its own: ``rerank="native"``."""

    def backfills_in_place(self) -> bool:
        """The database can add a vector to a collection; else the session replaces what was filled by a filled copy."""

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        """Token matrices that the database cannot store, and what the error says of each."""

    def foreign(
        self,
        name: str,
        ids: Sequence[int],
        tokens: Sequence[np.ndarray],
        *,
        cosine: bool = False,
        fdes: np.ndarray | None = None,
    ) -> None:
        """Makes a collection without this library: multivector "colbert", payload {"n": id}, perhaps FDEs in "fde"."""

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        """Replaces or adds points of such a collection, as their owner would; reopen stores afterwards."""

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        """Adds a point that has an FDE only; reopen stores afterwards."""

    def indexing(self) -> dict[str, Any]:
        """Options of ``create`` by which 1,300 documents are indexed and 300 more are not before ``index_rest``."""

    def index_rest(self, name: str) -> None:
        """Has the database index whatever is left when ``wait_indexed`` is called next."""

    def unindexed(self, added: int, total: int) -> int | None:
        """What ``info()`` says after ``added`` of ``total`` documents were written to an indexed collection.

        ``added`` where they really have no index and no codes then, 0 where the database indexes whatever it takes.
        """

    def content(self, name: str) -> dict[Any, tuple[Mapping[str, Any], dict[str, np.ndarray]]]:
        """Everything in a collection: id -> payload, vectors; reopen stores afterwards."""


@dataclass(frozen=True)
class Engine:
    """One kind of store."""

    name: str
    start: Callable[[Path], AbstractContextManager[Session]]


class Blocking:
    """An asynchronous store with the methods of a synchronous one, so that both run the same tests."""

    def __init__(self, store: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            if inspect.isasyncgen(result):
                return self._loop.run_until_complete(_collect(result))
            return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result

        return call


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]
