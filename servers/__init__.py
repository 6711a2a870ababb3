"""Database servers that tests and benchmarks start: one module for each way to start one, or to stand in for one.

All test packages and benchmarks may import from here; this package imports from none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

from muvera_adapters.testing import CannotStart

_Started = TypeVar("_Started")

_stack = ExitStack()
_shared: dict[Any, Any] = {}


def shared(start: Callable[..., AbstractContextManager[_Started]], *args: Any) -> _Started:
    """What ``start(*args)`` yields. It is started once, and runs until :func:`stop`.

    Raises:
        CannotStart: it could not be started, now or in an earlier call.
    """
    key = (start, args)
    if key not in _shared:
        try:
            _shared[key] = _stack.enter_context(start(*args))
        except CannotStart as problem:  # remembered, so that one missing image does not cost every test a pull
            _shared[key] = problem
    if isinstance(_shared[key], CannotStart):
        raise _shared[key]
    return _shared[key]


def stop() -> None:
    """Stops every shared server."""
    _shared.clear()
    _stack.close()
