"""Runs operations, with retries where a request may be repeated."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from muvera_adapters.errors import InvalidInput, StoreUnavailable
from muvera_adapters.qdrant.requests import Compute, Operation, Pause

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is repeated after the database was unreachable, overloaded, or asked to come back later.

    qdrant-client repeats nothing on its own. Every request of this library may be repeated: ids are given.

    Args:
        attempts: at most so many in all; 1: no repetition.
        first_pause: seconds before the second attempt; each further pause is twice as long, with jitter.
        max_wait: seconds of pauses in all for one request, those that a 429 asks for included.
    """

    attempts: int = 5
    first_pause: float = 0.5
    max_wait: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_pause < 0 or self.max_wait < 0:
            raise InvalidInput(f"attempts must be at least 1 and times at least 0, got {self}")


#: what stores use when no other is given
DEFAULT_RETRY = Retry()


def run(operation: Operation[T], send: Callable[[Any], Any], retry: Retry) -> T:
    """Carries an operation out; returns what it returns."""
    steps = _resilient(operation, retry)
    reply, error = None, None
    while True:
        try:
            request = steps.throw(error) if error else steps.send(reply)
        except StopIteration as done:
            return done.value
        reply, error = None, None
        try:
            if isinstance(request, Pause):
                time.sleep(request.seconds)
            elif isinstance(request, Compute):
                reply = request.call()
            else:
                reply = send(request)
        except Exception as problem:
            error = problem


async def run_async(operation: Operation[T], send: Callable[[Any], Awaitable[Any]], retry: Retry) -> T:
    """As :func:`run`; computing happens in a thread."""
    steps = _resilient(operation, retry)
    reply, error = None, None
    while True:
        try:
            request = steps.throw(error) if error else steps.send(reply)
        except StopIteration as done:
            return done.value
        reply, error = None, None
        try:
            if isinstance(request, Pause):
                await asyncio.sleep(request.seconds)
            elif isinstance(request, Compute):
                reply = await asyncio.to_thread(request.call)
            else:
                reply = await send(request)
        except Exception as problem:
            error = problem


def _resilient(operation: Operation[T], retry: Retry) -> Operation[T]:
    """The same operation, which sees an error only when repeating has not helped."""
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            request = operation.throw(error) if error else operation.send(reply)
        except StopIteration as done:
            return done.value
        reply, error = None, None
        try:
            reply = yield from _attempts(request, retry)
        except Exception as problem:
            error = problem


def _attempts(request: Any, retry: Retry) -> Operation[Any]:
    waited, pause = 0.0, retry.first_pause
    for attempt in range(1, retry.attempts + 1):
        try:
            return (yield request)
        except StoreUnavailable as error:  # noqa: PERF203
            # spread out, so that clients that failed together do not return together
            wait = pause * random.uniform(0.5, 1.0) if error.retry_after is None else error.retry_after  # noqa: S311
            if not error.transient or attempt == retry.attempts or waited + wait > retry.max_wait:
                raise
            yield Pause(wait)
            waited, pause = waited + wait, 2 * pause
    raise AssertionError("unreachable: the last attempt returns or raises")
