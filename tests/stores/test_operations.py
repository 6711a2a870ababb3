"""Operations that go on together."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from muvera_adapters.errors import Rejected, StoreUnavailable
from muvera_adapters.stores.operations import Request, Retry, Together, run, run_async

RETRY = Retry(attempts=3, first_pause=0.0)


@dataclass(frozen=True)
class Ask(Request[Any]):
    name: int


async def one(name):
    reply = await Ask(name)
    return (name, reply)


async def all_of(names, at_once):
    return await Together([one(name) for name in names], at_once)


@pytest.fixture(params=["sync", "async"])
def drive(request):
    """Runs an operation; ``answer`` is called for each request. Returns the result and the most requests at a time."""

    def go(operation, answer):
        lock, active, most = threading.Lock(), [0], [0]

        def enter(step):
            with lock:
                active[0] += step
                most[0] = max(most[0], active[0])

        def send(sent):
            enter(1)
            try:
                time.sleep(0.005)
                return answer(sent.name)
            finally:
                enter(-1)

        async def send_async(sent):
            enter(1)
            try:
                await asyncio.sleep(0.005)
                return answer(sent.name)
            finally:
                enter(-1)

        if request.param == "sync":
            return run(operation, send, RETRY), most[0]
        return asyncio.run(run_async(operation, send_async, RETRY)), most[0]

    return go


def test_results_come_in_order_and_requests_are_bounded(drive):
    found, most = drive(all_of(range(12), 3), lambda n: n * n)
    assert found == [(n, n * n) for n in range(12)]
    assert 1 < most <= 3


def test_each_repeats_its_own_requests(drive):
    seen = []

    def answer(n):
        seen.append(n)
        if n == 4 and seen.count(4) < 3:
            raise StoreUnavailable("busy", transient=True)
        return n

    found, _ = drive(all_of(range(6), 2), answer)
    assert found == [(n, n) for n in range(6)]
    assert sorted(seen) == [0, 1, 2, 3, 4, 4, 4, 5]


def test_the_first_error_ends_it(drive):
    seen = []

    def answer(n):
        seen.append(n)
        if n == 1:
            raise Rejected("no")
        return n

    with pytest.raises(Rejected):
        drive(all_of(range(60), 2), answer)
    assert len(seen) < 30, "what had not begun never does"
