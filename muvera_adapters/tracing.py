"""A hook around every call of a store that uses its database, for spans and metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from muvera_adapters.logs import LOG, short

T = TypeVar("T")


@dataclass(slots=True)
class StoreCall:
    """A call of a method of a store.

    Attributes:
        name: name of the method, such as ``"search"``; for ``"scroll"``, each page is a call.
        collection: name of the collection.
        database: name, version and address of the database.
        result: result of the method, available after the call succeeded. The hits of ``search`` are in a list, like
            those of ``search_batch``.
    """

    name: str
    collection: str
    database: str
    result: Any = None


Hook: TypeAlias = Callable[[StoreCall], AbstractContextManager[Any]]

_hook: Hook | None = None


def trace_calls(hook: Hook | None) -> None:
    """Sets the hook around all calls of stores in this process. It replaces an earlier hook.

    The hook is called with a :class:`StoreCall` and returns a context manager. This is entered before the call and left
    after it, in the thread or task of the caller. ``create``, ``open`` and ``adopt`` are not calls of a store. An
    exception of the hook is logged with its traceback and does not affect the call: no result is lost, and no error is
    replaced.

    Args:
        hook: function that returns a context manager, such as one with ``contextlib.contextmanager``; None: no hook.
    """
    global _hook
    _hook = hook


class traced:  # noqa: N801 (used like a function)
    """Context manager of one call, which runs the hook; its value is a function that takes and returns the result."""

    __slots__ = ("_call", "_context")

    def __init__(self, name: str, collection: str, database: str) -> None:
        self._call: StoreCall | None = None
        self._context: AbstractContextManager[Any] | None = None
        if _hook is not None:
            self._call = StoreCall(name, collection, database)

    def __enter__(self) -> Callable[[T], T]:
        if self._call is None or _hook is None:
            return _as_it_is
        try:
            context = _hook(self._call)
            context.__enter__()
            self._context = context
        except Exception as error:
            self._failed(error)
        return self._done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is None:
            return
        try:
            self._context.__exit__(kind, error, trace)
        except Exception as problem:
            if problem is not error:
                self._failed(problem)

    def _done(self, result: T) -> T:
        if self._call is not None:
            self._call.result = result
        return result

    def _failed(self, error: Exception) -> None:
        name = self._call.name if self._call is not None else ""
        LOG.error("the hook of trace_calls() failed in %s: %s", name, short(repr(error)), exc_info=sys.exc_info())


def _as_it_is(result: T) -> T:
    return result
