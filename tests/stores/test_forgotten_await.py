"""A forgotten await loses a request: the type checker reports it, and at run time it is a warning that tests forbid."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from muvera_adapters.stores.operations import Pause

ROOT = Path(__file__).parents[2]

CODE = """
from muvera_adapters.results import WriteReport
from muvera_adapters.stores.operations import Compute, Pause


async def write() -> WriteReport:
    await Pause(1.0)
    return WriteReport()


async def forgotten_request() -> None:
    Pause(1.0)


async def forgotten_operation() -> None:
    write()


async def forgotten_reply() -> int:
    report = write()
    return report.written


async def misread_reply() -> int:
    report = await Compute(WriteReport)
    return report.writen
"""


def test_the_type_checker_reports_it(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", tmp_path / "code.py"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    errors = [line.partition("code.py:")[2] for line in found.splitlines() if ": error:" in line]
    assert [line.rpartition("[")[2] for line in errors] == [
        "unused-awaitable]",
        "unused-coroutine]",
        "attr-defined]",
        "attr-defined]",
    ], found


def test_at_run_time_it_is_a_warning():
    async def write():
        await Pause(1.0)

    async def upsert():
        write()

    def drive():
        with pytest.raises(StopIteration):
            upsert().send(None)
        gc.collect()

    with pytest.warns(RuntimeWarning, match="'.*write' was never awaited"):
        drive()
