"""A hook around every call of a store that asks its database, for spans and metrics."""

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
        name: name of the method, such as ``"search"``; ``"scroll"`` for each page.
        collection: name of the collection.
        database: name, version and address of the database.
        result: what the method has got from the database, once the call has ended well: the hits of ``search`` in a
            list, as ``search_batch`` has them.
    """

    name: str
    collection: str
    database: str
    result: Any = None


Hook: TypeAlias = Callable[[StoreCall], AbstractContextManager[Any]]

_hook: Hook | None = None


def trace_calls(hook: Hook | None) -> None:
    """Calls ``hook`` around every call of a store of this process from now on; one hook, the last that was given.

    It is called with a :class:`StoreCall` and gives a context manager, entered before the call and left after it, in
    the thread or task of the caller. ``create``, ``open`` and ``adopt`` are not calls of a store. An exception of the
    hook is logged with its traceback, and the call goes on: it neither loses a result nor replaces an error.

    Args:
        hook: makes a context manager, such as a function with ``contextlib.contextmanager``; None: no hook.
    """
    global _hook
    _hook = hook


class traced:  # noqa: N801 (used like a function)
    """Context of one call, which tells the hook of it; its value takes the result and returns it."""

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
