"""Operations, and what carries them out: synchronously or on an event loop, with retries.

An operation is a generator: it yields a request and is resumed with the reply. Whoever runs it decides how requests are
sent, so a synchronous store, an asynchronous one and an embedded engine share every decision.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from muvera_adapters.errors import InvalidInput, StoreUnavailable

T = TypeVar("T")
Operation: TypeAlias = Generator[Any, Any, T]


@dataclass(frozen=True, slots=True)
class Compute:
    """Work for the processor, which an event loop does elsewhere. Reply: its result."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Sleep."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Operations of which at most ``at_once`` go on at a time. Reply: their results, in order.

    The first error ends it; operations that have not begun by then never do.
    """

    operations: Sequence[Operation[Any]]
    at_once: int


def seconds() -> float:
    """A clock that never goes back."""
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is repeated after the database was unreachable, overloaded, or asked to come back later.

    Every request of this library may be repeated: ids are given.

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
            elif isinstance(request, Together):
                reply = _run_together(request, send, retry)
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
            elif isinstance(request, Together):
                reply = await _gather(request, send, retry)
            else:
                reply = await send(request)
        except Exception as problem:
            error = problem


def _run_together(together: Together, send: Callable[[Any], Any], retry: Retry) -> list[Any]:
    if len(together.operations) == 1:
        return [run(together.operations[0], send, retry)]
    with ThreadPoolExecutor(together.at_once) as pool:
        futures = [pool.submit(run, operation, send, retry) for operation in together.operations]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


async def _gather(together: Together, send: Callable[[Any], Awaitable[Any]], retry: Retry) -> list[Any]:
    free = asyncio.Semaphore(together.at_once)

    async def one(operation: Operation[Any]) -> Any:
        async with free:
            return await run_async(operation, send, retry)

    tasks = [asyncio.ensure_future(one(operation)) for operation in together.operations]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


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
            # the operations of a Together repeat their own requests
            reply = (yield request) if isinstance(request, Together) else (yield from _attempts(request, retry))
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
