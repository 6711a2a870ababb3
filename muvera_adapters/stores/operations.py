"""Operations of stores, and the runners that carry them out: blocking or on an event loop, with retries.

An operation is a coroutine that awaits requests; the class of a request types its reply. An operation never learns who
runs it, so a blocking store, an asynchronous one and an embedded engine share every decision. Operations are run by
:func:`run` and :func:`run_async` alone: asyncio itself cannot await a request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from muvera_adapters.errors import InvalidInput, StoreUnavailable

T = TypeVar("T")
Operation: TypeAlias = Coroutine[Any, Any, T]


class Request(Generic[T]):
    """Something that an operation asks of its runner; awaiting it gives the reply, a ``T``."""

    __slots__ = ()

    def __await__(self) -> Generator[Request[T], T, T]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Compute(Request[T]):
    """CPU-bound work, which :func:`run_async` executes in a worker thread. Reply: the result of ``call()``."""

    call: Callable[[], T]


@dataclass(frozen=True, slots=True)
class Pause(Request[None]):
    """A wait of some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together(Request[list[T]]):
    """Operations of which at most ``at_once`` are in progress at a time. Reply: their results, in order.

    The first error ends it; operations that have not begun by then never do.
    """

    operations: Sequence[Operation[T]]
    at_once: int


async def asked(request: Request[T]) -> T:
    """An operation of one request, for :class:`Together`."""
    return await request


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
    """The result of an operation; ``send`` carries one request out, blocking, and returns its reply."""
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
    """As :func:`run`, on an event loop: ``send`` is awaited, and CPU-bound work runs in a worker thread."""
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


def _run_together(together: Together[Any], send: Callable[[Any], Any], retry: Retry) -> list[Any]:
    if len(together.operations) == 1:
        return [run(together.operations[0], send, retry)]
    with ThreadPoolExecutor(together.at_once) as pool:
        futures = [pool.submit(run, operation, send, retry) for operation in together.operations]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for operation, future in zip(together.operations, futures, strict=True):
                if future.cancelled():
                    operation.close()
            raise


async def _gather(together: Together[Any], send: Callable[[Any], Awaitable[Any]], retry: Retry) -> list[Any]:
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
        for operation in together.operations:
            operation.close()  # those that have not begun; nothing for the others
        raise


def _resilient(operation: Operation[T], retry: Retry) -> Generator[Any, Any, T]:
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


def _attempts(request: Any, retry: Retry) -> Generator[Any, Any, Any]:
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
