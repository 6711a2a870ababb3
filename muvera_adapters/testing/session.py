"""The interface to a store under test: it starts the database, and reads and writes it without the store."""

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
    """The database cannot be started on this machine; the message says what to install or set."""


class Session(Protocol):
    """A running database, without collections of other tests.

    Tests choose the names of collections; a session may add a prefix.
    """

    def create(self, name: str, encoder: Any, **options: Any) -> Any:
        """Creates a collection and returns its store; ``options``: ``store_tokens`` and those of the methods below."""

    def open(self, name: str, encoder: Any = None, **options: Any) -> Any:
        """Opens a collection that the library created or adopted; ``options`` are those of all stores."""

    def adopt(self, name: str, encoder: Any, **options: Any) -> Any:
        """Adopts a collection of :meth:`foreign` and returns its store."""

    def equals(self, key: str, value: Any) -> Any:
        """A filter in the types of the database's client: the payload has ``value`` at ``key``."""

    def exact(self) -> dict[str, Any]:
        """Options of ``create`` and ``backfill`` with which FDEs are exact: float32 and not quantized."""

    def fdes_are_float16(self) -> bool:
        """Whether FDEs are stored as float16 if ``create`` gets no options."""

    def token_presets(self) -> Sequence[str]:
        """Values of ``tokens=`` that ``create`` takes in this session."""

    def scores_natively(self) -> bool:
        """Whether the database computes MaxSim itself (``rerank="native"``)."""

    def backfills_in_place(self) -> bool:
        """Whether the database can add a vector to an existing collection.

        If not, ``backfill`` of a store from :meth:`adopt` must fill a copy, which the session uses from then on.
        """

    def has_other_vectors(self) -> bool:
        """Whether a document can have a vector of another model in addition to its FDE and tokens."""

    def near_dense(self, vector: np.ndarray, limit: int, filter: Any = None) -> Any:
        """An entry of ``also`` that searches "dense" of :meth:`foreign`, among documents that pass the filter."""

    def removes_fdes(self) -> bool:
        """Whether the database can drop a vector; if not, ``remove_fde`` removes the rest, raising ``Unsupported``."""

    def takes_uuids(self) -> bool:
        """Whether ids of the database are UUIDs, which it accepts in several spellings."""

    def empty_filter(self) -> Any:
        """A filter without conditions, in the types of the database's client; None if there is no such filter."""

    def over_limits(self) -> list[tuple[np.ndarray, str]]:
        """Token matrices over the limits of the database, each with a pattern that the error message must match."""

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
            cosine: whether "colbert" has cosine distance; otherwise it has dot product.
            fdes: (n, fde_dim) FDEs, stored in the vector "fde"; None: no such vector.
            dense: (n, 4) vectors of another model, stored in the vector "dense"; None: no such vector.
        """

    def foreign_id(self, number: int) -> Any:
        """The id that a store has for the document that :meth:`foreign` created with the id ``number``."""

    def foreign_write(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        """Adds or replaces documents of a :meth:`foreign` collection; tests reopen stores afterwards."""

    def foreign_tokens(self, name: str, ids: Sequence[int], tokens: Sequence[np.ndarray]) -> None:
        """Replaces only the tokens of documents, so that FDEs stay; tests reopen stores afterwards."""

    def without_tokens(self, name: str, document_id: int, fde: np.ndarray) -> None:
        """Adds a document with an FDE and the payload ``{"n": document_id}`` but no tokens; tests reopen stores."""

    def indexing(self) -> dict[str, Any]:
        """Options of ``create`` with which 1,300 documents are indexed, and 300 more only after :meth:`index_rest`."""

    def index_rest(self, name: str) -> None:
        """Makes the database index everything that is left when ``wait_indexed`` is called next."""

    def unindexed(self, added: int, total: int) -> int | None:
        """Expected ``info().unindexed`` after ``added`` of ``total`` documents were written to an indexed collection.

        This is ``added`` if these documents have no index and no codes yet, and 0 if the database indexes every
        document as it is written.
        """

    def content(self, name: str) -> dict[Any, tuple[Mapping[str, Any], dict[str, np.ndarray]]]:
        """Payload and vectors of every document of a collection, by id; tests reopen stores afterwards."""


@dataclass(frozen=True)
class Engine:
    """One kind of store.

    Attributes:
        name: name of the store in the ids of tests.
        start: takes an empty directory and returns a context manager of a session. The call or the context manager
            raises :class:`CannotStart` if the database is not installed.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[Session]]


class Blocking:
    """Gives an asynchronous store blocking methods, so that it runs the same tests as a synchronous one.

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
