"""Operations of stores, and the functions that run them with retries, blocking or on an event loop.

An operation is a coroutine that awaits requests; the class of a request determines the type of its reply. Operations do
not know how they are run, so blocking stores, asynchronous stores and embedded engines share all logic. Only
:func:`run` and :func:`run_async` can run operations: asyncio itself cannot await a request.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import numbers
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from muvera_adapters.errors import InvalidInput, StoreUnavailable
from muvera_adapters.logs import LOG, short

#: default number of seconds that a search may wait for its database in all
SEARCH_SECONDS = 10.0
#: additional seconds for each query of a batch after the first
QUERY_SECONDS = 1.0

T = TypeVar("T")
Operation: TypeAlias = Coroutine[Any, Any, T]


class Request(Generic[T]):
    """A request of an operation to its runner; awaiting it returns the reply, a ``T``."""

    __slots__ = ()

    def __await__(self) -> Generator[Request[T], T, T]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Compute(Request[T]):
    """CPU-bound work, which :func:`run_async` runs in a worker thread. The reply is the result of ``call()``."""

    call: Callable[[], T]


@dataclass(frozen=True, slots=True)
class Pause(Request[None]):
    """A pause of some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together(Request[list[T]]):
    """Operations that run concurrently, at most ``at_once`` at a time. The reply is the list of results, in order.

    The first error ends the request; operations that have not begun by then are not started.
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
    """Retries of a request after the database was unreachable or overloaded, or asked to wait.

    Repeating a request is always safe, because ids are given by the user. The pause before the second attempt is
    ``first_pause``. Each further pause is twice as long, up to ``longest_pause``. Each is multiplied by a random number
    between 0.5 and 1. If the database says how long to wait (429), the pause has that length.

    Args:
        attempts: maximum number of attempts, including the first; 1: no retries.
        first_pause: seconds before the second attempt.
        max_wait: seconds after the first failure, including pauses and further attempts, after which no new attempt
            begins.
        longest_pause: maximum seconds of a pause, unless the database asks for a longer one.
    """

    attempts: int = 4
    first_pause: float = 0.5
    max_wait: float = 30.0
    longest_pause: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_pause, self.max_wait, self.longest_pause) < 0:
            raise InvalidInput(f"attempts must be at least 1 and times at least 0, got {self}")


#: default retries of reads; the pauses take 1.75 to 3.5 seconds in all
DEFAULT_RETRY = Retry()
#: default retries of bulk writes; they take 104 to 120 seconds, long enough for a server to restart
DEFAULT_WRITE_RETRY = Retry(attempts=30, max_wait=120.0)
#: no retries, for requests whose failure is the answer
ONCE = Retry(attempts=1)


class _TimeIsOver(StoreUnavailable):
    """The error of a deadline, which needs no further explanation."""


class Deadline:
    """The time limit of one call of a store for requests, retries and pauses.

    Time of computations in this process does not count: they cannot be interrupted, and a first call may compile code.

    Args:
        limit: seconds in all; None or infinity: no limit.
        database: name and address of the database, for the error.
        interrupts: whether a request is abandoned when the time is over. Embedded engines work in the caller's thread,
            so for them the time is only checked between requests.

    Raises:
        InvalidInput: ``limit`` is not a number above 0.
    """

    __slots__ = ("_database", "_end", "interrupts", "limit")

    def __init__(self, limit: float | None = None, database: str = "", *, interrupts: bool = True) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, numbers.Real) or not limit > 0):
            raise InvalidInput(f"timeout must be a number of seconds above 0, or None, got {limit!r}")
        self.limit = None if limit is None or math.isinf(limit) else float(limit)
        self.interrupts = interrupts
        self._database = database
        self._end = math.inf if self.limit is None else seconds() + self.limit

    @property
    def left(self) -> float:
        """Remaining seconds, at least 0; infinity without a limit."""
        return max(0.0, self._end - seconds())

    def postpone(self, computed: float) -> None:
        """Extends the limit by the seconds of a computation in this process."""
        self._end += computed

    def error(self, last: BaseException | None = None) -> StoreUnavailable:
        """The error of a call whose time is over; ``last`` is the error of its last request."""
        because = f"; at last: {last}" if last is not None else ""
        return _TimeIsOver(
            f"{self._database or 'the database'} did not answer within {self.limit:g} s (timeout=){because}",
            transient=True,
        )


def deadline_of(operation: Operation[Any], limit: float | None, database: str, *, interrupts: bool = True) -> Deadline:
    """The deadline of an operation that begins now, with the arguments of :class:`Deadline`."""
    try:
        return Deadline(limit, database, interrupts=interrupts)
    except InvalidInput:
        operation.close()
        raise


def search_limit(timeout: float | None, queries: int = 1) -> float:
    """Time limit of a search in seconds: ``timeout`` if given, otherwise the default for ``queries`` queries."""
    return SEARCH_SECONDS + QUERY_SECONDS * max(0, queries - 1) if timeout is None else timeout


async def timed(operation: Operation[Any]) -> float:
    """Seconds that an operation takes."""
    began = seconds()
    await operation
    return seconds() - began


def run(operation: Operation[T], send: Callable[[Any], Any], retry: Retry, deadline: Deadline | None = None) -> T:
    """Runs an operation and returns its result.

    Args:
        operation: operation to run.
        send: sends one request, blocking, and returns its reply.
        retry: retries of each request.
        deadline: time limit of the whole operation; None: no limit.

    Raises:
        StoreUnavailable: the time is over, or retries did not help.
    """
    deadline = Deadline() if deadline is None else deadline
    steps = _resilient(operation, retry, deadline)
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
                began = seconds()
                reply = request.call()
                deadline.postpone(seconds() - began)
            elif isinstance(request, Together):
                reply = _run_together(request, send, retry, deadline)
            elif deadline.limit is None or not deadline.interrupts:
                reply = send(request)
            else:
                reply = _send_until(deadline, send, request)
        except Exception as problem:
            error = problem


async def run_async(
    operation: Operation[T],
    send: Callable[[Any], Awaitable[Any]],
    retry: Retry,
    deadline: Deadline | None = None,
) -> T:
    """Like :func:`run`, on an event loop: ``send`` is awaited, and CPU-bound work runs in a worker thread."""
    deadline = Deadline() if deadline is None else deadline
    steps = _resilient(operation, retry, deadline)
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
                began = seconds()
                reply = await asyncio.to_thread(request.call)
                deadline.postpone(seconds() - began)
            elif isinstance(request, Together):
                reply = await _gather(request, send, retry, deadline)
            elif deadline.limit is None or not deadline.interrupts:
                reply = await send(request)
            else:
                reply = await _await_until(deadline, send(request))
        except Exception as problem:
            error = problem


def _send_until(deadline: Deadline, send: Callable[[Any], Any], request: Any) -> Any:
    """Sends a request in a thread and returns the reply if it comes in time; otherwise the thread is abandoned.

    No blocking client keeps a time limit reliably, because retries with pauses and connecting are not included in it.
    An abandoned thread ends when the client's own limit is reached.
    """
    reply: Future[Any] = Future()
    context = contextvars.copy_context()  # the client's instrumentation looks for the caller's span

    def work() -> None:
        try:
            reply.set_result(context.run(send, request))
        except BaseException as error:  # raised in the caller's thread
            reply.set_exception(error)

    threading.Thread(target=work, name="muvera request", daemon=True).start()
    if not wait_for([reply], deadline.left).done:
        raise deadline.error()
    return reply.result()


async def _await_until(deadline: Deadline, sent: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(sent, deadline.left)
    except asyncio.TimeoutError as error:
        raise deadline.error() from error


def _run_together(together: Together[Any], send: Callable[[Any], Any], retry: Retry, deadline: Deadline) -> list[Any]:
    if len(together.operations) == 1:
        return [run(together.operations[0], send, retry, deadline)]
    with ThreadPoolExecutor(together.at_once) as pool:
        futures = [
            pool.submit(contextvars.copy_context().run, run, operation, send, retry, deadline)
            for operation in together.operations
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for operation, future in zip(together.operations, futures, strict=True):
                if future.cancelled():
                    operation.close()
            raise


async def _gather(
    together: Together[Any], send: Callable[[Any], Awaitable[Any]], retry: Retry, deadline: Deadline
) -> list[Any]:
    free = asyncio.Semaphore(together.at_once)

    async def one(operation: Operation[Any]) -> Any:
        async with free:
            return await run_async(operation, send, retry, deadline)

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


def _resilient(operation: Operation[T], retry: Retry, deadline: Deadline) -> Generator[Any, Any, T]:
    """Wraps an operation so that it sees an error only after retries did not help."""
    reply: Any = None
    error: BaseException | None = None
    while True:
        began = seconds()
        try:
            request = operation.throw(error) if error else operation.send(reply)
        except StopIteration as done:
            return done.value
        deadline.postpone(seconds() - began)
        reply, error = None, None
        try:
            # the operations of a Together repeat their own requests
            if isinstance(request, Together):
                reply = yield request
            else:
                reply = yield from _attempts(request, retry, deadline)
        except Exception as problem:
            error = problem


def _attempts(request: Any, retry: Retry, deadline: Deadline) -> Generator[Any, Any, Any]:
    waited, pause = 0.0, retry.first_pause
    for attempt in range(1, retry.attempts + 1):
        if not deadline.left:
            raise deadline.error()
        began = seconds()
        try:
            return (yield request)
        except _TimeIsOver:
            raise
        except StoreUnavailable as error:
            if attempt > 1:
                waited += seconds() - began
            # random, so that clients that failed at the same time do not retry at the same time
            own = min(pause, retry.longest_pause) * random.uniform(0.5, 1.0)  # noqa: S311
            wait = own if error.retry_after is None else error.retry_after
            if not error.transient or attempt == retry.attempts or waited + wait > retry.max_wait:
                raise
            if wait >= deadline.left:
                raise deadline.error(error) from (error.__cause__ or error)
            LOG.warning(
                "%s; trying again in %.3g s (attempt %d of %d)", short(error), wait, attempt + 1, retry.attempts
            )
            yield Pause(wait)
            waited, pause = waited + wait, 2 * pause
    raise AssertionError("unreachable: the last attempt returns or raises")
