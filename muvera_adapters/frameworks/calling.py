"""Runs operations that are written once, as coroutines, from both blocking and asynchronous methods.

Such a coroutine takes a ``Call``, and awaits only calls. With :func:`blocking` it never waits, so :func:`run` needs no
event loop. With :func:`awaiting`, asynchronous functions are awaited, and others run in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from muvera_adapters.errors import InvalidInput

T = TypeVar("T")


class Call(Protocol):
    """Calls a function of the user or a method of a store."""

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...  # noqa: D102


async def blocking(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Calls a function that is not asynchronous.

    Raises:
        InvalidInput: the function is asynchronous.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidInput(f"{name} is asynchronous: use the asynchronous method")
    return function(*args, **kwargs)


async def awaiting(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Awaits an asynchronous function; runs any other in a thread, so that it does not block the event loop."""
    if inspect.isasyncgenfunction(function):
        return [each async for each in function(*args, **kwargs)]
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await asyncio.to_thread(_whole, function, *args, **kwargs)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine whose calls are :func:`blocking`."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a blocking call waited")


def check_options(function: Callable[..., Any], options: Mapping[str, Any], where: str, given: Sequence[str]) -> None:
    """Raises InvalidInput for keyword arguments that a function does not take, with their names and those it takes.

    Args:
        function: the function.
        options: keyword arguments for the function.
        where: name of the function in the message.
        given: names of arguments that are always passed, and are therefore not options.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    taken = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL and each.name not in given]
    unknown = sorted(set(options) - set(taken))
    if unknown:
        raise InvalidInput(f"{where} does not take {', '.join(unknown)}; it takes {', '.join(taken)}")


def refuse(options: Mapping[str, Any], where: str) -> None:
    """Raises InvalidInput for any keyword argument, with its name."""
    if options:
        raise InvalidInput(f"{where} does not take {', '.join(sorted(options))}")


def _whole(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """The result of a function; of a generator, the list of its items, so that it is read in the thread."""
    result = function(*args, **kwargs)
    return list(result) if inspect.isgenerator(result) else result
