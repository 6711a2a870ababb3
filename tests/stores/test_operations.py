"""Operations that go on together."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from muvera_adapters.errors import InvalidInput, Rejected, StoreUnavailable
from muvera_adapters.stores.operations import (
    DEFAULT_RETRY,
    DEFAULT_WRITE_RETRY,
    ONCE,
    Compute,
    Deadline,
    Request,
    Retry,
    Together,
    run,
    run_async,
)

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


def pauses_of(retry, monkeypatch, factor, lasting=0.0):
    """Pauses of a request that always fails after ``lasting`` seconds; ``factor`` is the jitter. The clock is ours."""
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    def send(_):
        now[0] += lasting
        raise StoreUnavailable("down", transient=True)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("random.uniform", lambda *_: factor)
    with pytest.raises(StoreUnavailable, match="down"):
        run(one(1), send, retry)
    return pauses


@pytest.mark.parametrize(("retry", "least", "most"), [(DEFAULT_RETRY, 1.75, 3.5), (DEFAULT_WRITE_RETRY, 103, 120)])
def test_reads_end_quickly_and_writes_outlast_a_restart(monkeypatch, retry, least, most):
    assert least <= sum(pauses_of(retry, monkeypatch, 0.5)) <= most
    assert least <= sum(pauses_of(retry, monkeypatch, 1.0)) <= most
    assert max(pauses_of(retry, monkeypatch, 1.0)) <= retry.longest_pause


def test_attempts_that_take_long_count(monkeypatch):
    assert len(pauses_of(DEFAULT_WRITE_RETRY, monkeypatch, 1.0, lasting=60.0)) == 2


@pytest.fixture(params=["sync", "async"])
def until(request):
    """Runs an operation whose requests take ``lasting`` seconds and then give ``answer()``, with a deadline."""

    def go(operation, answer, deadline, lasting=0.0, retry=RETRY):
        def send(_):
            time.sleep(lasting)
            return answer()

        async def send_async(_):
            await asyncio.sleep(lasting)
            return answer()

        if request.param == "sync":
            return run(operation, send, retry, deadline)
        return asyncio.run(run_async(operation, send_async, retry, deadline))

    return go


def unavailable():
    raise StoreUnavailable("busy", transient=True)


def test_a_request_is_given_up_when_the_time_is_over(until):
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"the shelf did not answer within 0.1 s \(timeout=\)"):
        until(one(1), lambda: 1, Deadline(0.1, "the shelf"), lasting=1.0)
    assert time.monotonic() - began < 0.9


def test_repetitions_end_with_the_time_and_say_why(until):
    with pytest.raises(StoreUnavailable, match=r"within 0.2 s \(timeout=\); at last: busy"):
        until(one(1), unavailable, Deadline(0.2, "the shelf"), retry=Retry(attempts=9, first_pause=0.05))


def test_operations_that_go_on_together_share_the_time(until):
    with pytest.raises(StoreUnavailable, match=r"within 0\.25 s"):
        until(all_of(range(9), 3), lambda: 1, Deadline(0.25, "the shelf"), lasting=0.15)


def test_an_engine_that_cannot_be_interrupted_is_asked_no_more(until):
    deadline = Deadline(0.05, "the shelf", interrupts=False)

    async def two():
        return [await Ask(1), await Ask(2)]

    asked = []
    with pytest.raises(StoreUnavailable, match=r"within 0\.05 s"):
        until(two(), lambda: asked.append(1), deadline, lasting=0.1)
    assert asked == [1]


def test_what_this_machine_computes_takes_none_of_the_time(until):
    async def compute():
        time.sleep(0.15)
        await Compute(lambda: time.sleep(0.15))
        return await Ask(1)

    assert until(compute(), lambda: 7, Deadline(0.1)) == 7


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "10", True])
def test_a_limit_is_a_number_of_seconds(limit):
    with pytest.raises(InvalidInput, match="timeout must be a number of seconds"):
        Deadline(limit)


def test_a_retry_is_logged_and_a_quoted_request_is_cut(caplog):
    answers = [StoreUnavailable("busy: " + "0.125, " * 10_000, transient=True), None]

    def send(_):
        error = answers.pop(0)
        if error is not None:
            raise error

    run(one(1), send, RETRY)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("muvera_adapters", "WARNING")
    message = record.getMessage()
    assert message.startswith("busy: 0.125")
    assert message.endswith("trying again in 0 s (attempt 2 of 3)")
    assert len(message) < 400


def test_nothing_is_logged_of_what_is_not_repeated(caplog):
    with pytest.raises(StoreUnavailable):
        run(one(1), lambda _: unavailable(), ONCE)
    assert caplog.records == []
