"""Progress where there is no terminal: lines now and then."""

import time

import pytest

from muvera_adapters import progress


@pytest.fixture
def lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.1)
    return lambda: capsys.readouterr().err.splitlines()


def test_long_work_has_a_line_now_and_then_and_one_at_the_end(lines):
    for _ in progress.progress_bar(range(1200), desc="read", unit="doc"):
        time.sleep(0.0004)
    found = lines()
    assert 2 <= len(found) < 50
    assert all(line.startswith("read: ") and " of 1,200 doc in 00:0" in line for line in found)
    assert found[-1].startswith("read: 1,200 of 1,200 doc in ")


def test_short_work_says_nothing(lines):
    with progress.progress_bar(total=3, desc="write") as bar:
        bar.update(3)
        progress.tell("a warning")
    assert lines() == ["a warning"]
