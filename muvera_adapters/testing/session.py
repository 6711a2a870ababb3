"""What a store under test provides: a way to start its database, and to read and write it without the store."""

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
    """The database cannot be started here; the message says what to install or set."""


class Session(Protocol):
    """A running database without collections of other tests.

    Names of collections are those that the test chooses; a session may add a prefix.
    """

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        """A store with a new collection; ``options`` are ``store_tokens`` and what the methods below return."""

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        """A store with a collection that the library made or adopted; ``options`` are those of all stores."""

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        """A store with a collection of :meth:`foreign`."""

    def equals(self, key: str, value: Any) -> Any:
        """A filter of the database's own type: the payload has ``value`` at ``key``."""

    def exact(self) -> dict[str, Any]:
        """Options of ``create`` and ``backfill`` that keep FDEs exact: as float32, not quantized."""

    def fdes_are_float16(self) -> bool:
        """Whether FDEs are stored as float16 without options of ``create``."""

    def token_presets(self) -> Sequence[str]:
        """Words that ``create`` takes as ``tokens=`` in this session."""

    def scores_natively(self) -> bool:
        """Whether the database computes MaxSim itself (``rerank="native"``)."""

    def backfills_in_place(self) -> bool:
        """Whether the database can add a vector to a collection.

        If not, ``backfill`` of a store from :meth:`adopt` must fill a copy, which the session uses from then on.
        """

    def has_other_vectors(self) -> bool:
        """Whether a document can have a vector of another model beside its FDE and tokens."""

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        """An entry of ``also`` that searches "dense" of :meth:`foreign`, among the documents that pass a filter."""

    def removes_fdes(self) -> bool:
        """Whether the database can drop a vector; if not, ``remove_fde`` undoes the rest and raises ``Unsupported``."""

    def takes_uuids(self) -> bool:
        """Whether ids of the database are UUIDs, of which it accepts several spellings."""

    def empty_filter(self) -> Any:
        """A filter of the database's own type that has no conditions; None where there is none."""

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        """Token matrices that the database cannot store, each with a pattern that the error message must match."""

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
        """Creates a collection without the library.

        Args:
            name: name of the collection.
            ids: ids of the documents, each of which has the payload ``{"n": id}``.
            tokens: token matrices (n_i, DIM), stored in the multivector "colbert".
            cosine: whether "colbert" has cosine distance; otherwise dot product.
            fdes: (n, fde_dim) FDEs, stored in the vector "fde"; None: there is no such vector.
            dense: (n, 4) vectors of another model, stored in the vector "dense"; None: there is no such vector.
        """

    def foreign_id(self, number: int) -> Any:
        """The id by which a store names the document that :meth:`foreign` made with the id ``number``."""

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        """Replaces or adds documents of such a collection without the library; tests reopen stores afterwards."""

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        """Replaces the tokens of such documents and nothing else, so that FDEs stay; tests reopen stores."""

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        """Adds a document with an FDE and the payload ``{"n": document_id}`` only; tests reopen stores afterwards."""

    def indexing(self) -> dict[str, Any]:
        """Options of ``create`` by which 1,300 documents are indexed and 300 more are not before ``index_rest``."""

    def index_rest(self, name: str) -> None:
        """Has the database index whatever is left when ``wait_indexed`` is called next."""

    def unindexed(self, added: int, total: int) -> int | None:
        """What ``info()`` says after ``added`` of ``total`` documents were written to an indexed collection.

        ``added`` where they really have no index and no codes then, 0 where the database indexes whatever it takes.
        """

    def content(self, name: str) -> dict[Any, tuple[Mapping[str, Any], dict[str, np.ndarray]]]:
        """Payload and vectors of every document of a collection, by id; tests reopen stores afterwards."""


@dataclass(frozen=True)
class Engine:
    """One kind of store.

    Attributes:
        name: name of the store in the ids of tests.
        start: takes an empty directory and returns a context manager of a session; one of the two raises
            :class:`CannotStart` where the database is missing.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[Session]]


class Blocking:
    """An asynchronous store with the methods of a synchronous one, so that both run the same tests.

    ``store`` is the asynchronous store, and ``loop`` the event loop that runs its methods.
    """

    def __init__(self, store: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def __repr__(self) -> str:
        return repr(self._store)

    def __enter__(self) -> Blocking:
        self._loop.run_until_complete(self._store.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._loop.run_until_complete(self._store.__aexit__(*error))

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
