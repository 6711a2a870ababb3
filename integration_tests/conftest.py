"""Fixtures: every test that takes ``session`` runs against every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from integration_tests.engines import ENGINES
from muvera_adapters.testing import CannotStart, Engine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        metavar="STORE",
        help="fail, rather than skip, when this store cannot start; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    known = [engine.name for engine in ENGINES]
    unknown = sorted(set(config.getoption("--require")) - set(known))
    if unknown:
        raise pytest.UsageError(f"--require: no store {', '.join(unknown)}; stores are {', '.join(known)}")


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    engine: Engine = request.param
    try:
        context = engine.start(tmp_path)
        started = context.__enter__()
    except CannotStart as problem:
        if engine.name in request.config.getoption("--require"):
            pytest.fail(f"{engine.name} is required: {problem}")
        pytest.skip(f"{engine.name}: {problem}")
    try:
        yield started
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session", autouse=True)
def _servers() -> Iterator[None]:
    yield
    servers.stop()
