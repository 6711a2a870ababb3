"""Operations and retries driven by hand: no client, no clock."""

from __future__ import annotations

import asyncio

import pytest

from muvera_adapters.errors import MuveraError, Rejected, StoreUnavailable
from muvera_adapters.qdrant import requests as r
from muvera_adapters.qdrant.collection import Collection
from muvera_adapters.qdrant.writing import wait_indexed
from muvera_adapters.stores.operations import Retry, run, run_async
from muvera_core import FDEConfig, FDEEncoder

COLLECTION = Collection("c", FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4)))


def status(colour):
    return r.Status("engine", colour, 0, 1)


@pytest.fixture(params=["sync", "async"])
def drive(request, monkeypatch):
    """Runs an operation with a function for a database; returns its result and the pauses."""
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)

    async def pause(seconds):
        pauses.append(seconds)

    def go(operation, send, retry):
        if request.param == "sync":
            return run(operation, send, retry), pauses
        monkeypatch.setattr("asyncio.sleep", pause)

        async def send_async(sent):
            return send(sent)

        return asyncio.run(run_async(operation, send_async, retry)), pauses

    go.pauses = pauses
    return go


async def ask():
    return await r.GetStatus("c", "fde")


def failing(*errors):
    """A database that raises each error once, then answers."""
    left = list(errors)

    def send(_):
        if left:
            raise left.pop(0)
        return "answer"

    send.left = left
    return send


def busy(retry_after=None):
    return StoreUnavailable("busy", transient=True, retry_after=retry_after)


def test_pauses_grow(drive):
    answer, pauses = drive(ask(), failing(busy(), busy(), busy()), Retry(attempts=4, first_pause=1.0))
    assert answer == "answer"
    assert all(0.5 * 2**i <= pause <= 2**i for i, pause in enumerate(pauses))
    assert len(pauses) == 3


def test_what_the_database_asks_for_is_waited_exactly(drive):
    assert drive(ask(), failing(busy(7.0), busy(0.0)), Retry())[1] == [7.0, 0.0]


def test_the_sum_of_pauses_is_bounded(drive):
    with pytest.raises(StoreUnavailable):
        drive(ask(), failing(*[busy(30.0)] * 100), Retry(attempts=100, max_wait=100.0))
    assert drive.pauses == [30.0] * 3


def test_attempts_are_bounded(drive):
    send = failing(*[busy(0.0)] * 10)
    with pytest.raises(StoreUnavailable):
        drive(ask(), send, Retry(attempts=3))
    assert len(send.left) == 7


@pytest.mark.parametrize(
    "error", [Rejected("no"), StoreUnavailable("disk full"), MuveraError("odd"), ValueError("bug")]
)
def test_what_repeating_cannot_help_is_not_repeated(drive, error):
    send = failing(error, busy())
    with pytest.raises(type(error)):
        drive(ask(), send, Retry())
    assert len(send.left) == 1


def test_waiting_for_the_index_ends_when_green(drive):
    colours = iter(["yellow", "yellow", "green"])
    drive(wait_indexed(COLLECTION, None), lambda _: status(next(colours)), Retry())
    assert len(drive.pauses) == 2


def test_a_grey_collection_is_woken(drive):
    colours, woken = iter(["grey", "yellow", "green"]), []

    def send(request):
        if isinstance(request, r.Optimize):
            woken.append(request)
            return None
        return status(next(colours))

    drive(wait_indexed(COLLECTION, None), send, Retry())
    assert len(woken) == 1


def test_a_red_collection_is_an_error(drive):
    with pytest.raises(StoreUnavailable, match="red"):
        drive(wait_indexed(COLLECTION, None), lambda _: status("red"), Retry())


def test_waiting_for_the_index_can_time_out(drive):
    with pytest.raises(StoreUnavailable, match="still yellow"):
        drive(wait_indexed(COLLECTION, 0.0), lambda _: status("yellow"), Retry())
