"""Measurement of the stages of a search in seconds, and of the number of its requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from muvera_adapters.results import Timings
from muvera_adapters.stores.operations import Compute, Operation, Pause, Together, seconds

T = TypeVar("T")

# a tuple, because a union would be created again for every request
_NOT_SENT = (Compute, Pause)


class Stage:
    """Adds the seconds that a block takes to the stage ``name`` of ``timings``."""

    __slots__ = ("_name", "_started", "_timings")

    def __init__(self, timings: Timings, name: str) -> None:
        self._timings, self._name = timings, name

    def __enter__(self) -> None:
        self._started = seconds()

    def __exit__(self, *_: object) -> None:
        so_far = getattr(self._timings, self._name) or 0.0
        setattr(self._timings, self._name, so_far + seconds() - self._started)


class Counting(Coroutine[Any, Any, T]):
    """An operation whose requests are counted in ``timings``, without retries."""

    __slots__ = ("_operation", "_parts", "_timings")

    def __init__(self, operation: Operation[T], timings: Timings) -> None:
        self._operation, self._timings = operation, timings
        self._parts: list[Timings] = []

    def send(self, value: Any) -> Any:
        """Continues with the reply to the last request."""
        return self._step(self._operation.send, value)

    def throw(self, *error: Any) -> Any:
        """Continues with the error of the last request."""
        return self._step(self._operation.throw, *error)

    def close(self) -> None:
        """Ends the operation."""
        self._operation.close()

    def _step(self, go_on: Callable[..., Any], *value: Any) -> Any:
        if self._parts:
            self._timings.requests += sum(part.requests for part in self._parts)
            self._parts = []
        request = go_on(*value)
        if isinstance(request, Together):
            # separate counters, because threads must not add to the same one
            self._parts = [Timings() for _ in request.operations]
            each = [Counting(part, own) for part, own in zip(request.operations, self._parts, strict=True)]
            return Together(each, request.at_once)
        if not isinstance(request, _NOT_SENT):
            self._timings.requests += 1
        return request

    def __await__(self) -> Generator[Any, Any, T]:
        return self

    def __iter__(self) -> Counting[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)
