"""Every Python block of the README and the documentation runs, a page's blocks in order and in one namespace.

A block that cannot run here starts with ``# not run: REASON``, which its readers see. ``settings.py`` has the names
that are defined before the first block. New pages are found by themselves.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path

import pytest

from muvera_adapters.cli import _typer
from tests.docs import settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"# not run: \S")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line of the first statement, and code."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m[1]) for m in BLOCK.finditer(text)]


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_of_page(page, tmp_path, monkeypatch):
    for package in settings.PACKAGES.get(page.name, ()):
        pytest.importorskip(package, reason=f"{page.name}: make frameworks runs it, with {package}")
    monkeypatch.chdir(tmp_path)
    settings.files(tmp_path)
    database = settings.DATABASES.get(page.name, "qdrant")
    setting = settings.SETTINGS[database](tmp_path)
    try:
        names = setting.__enter__()
    except settings.NotHere as problem:
        pytest.skip(f"{page.name}: {problem}")
    namespace = {"__name__": page.stem, **settings.common(), **names}
    try:
        with warnings.catch_warnings():
            # local mode says that it ignores payload indexes
            warnings.filterwarnings("ignore", message="Payload indexes have no effect")
            for line, code in blocks(page):
                if not NOT_RUN.match(code):
                    padded = "\n" * line + settings.redirected(code)  # so that a failure shows the page's line
                    exec(compile(padded, str(page), "exec"), namespace)
    finally:
        setting.__exit__(*sys.exc_info())


def test_pages_with_code_are_found():
    assert {"README.md", "index.md", "qdrant.md", "plaid.md"} <= {page.name for page in WITH_CODE}


def test_reference_of_the_command_line_has_every_command():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.on_page_markdown((ROOT / "docs" / "cli.md").read_text())
    commands = [info.name or info.callback.__name__ for info in _typer.registered_commands]
    assert commands
    for command in commands:
        assert f"### `muvera {command}`" in page
