"""Every Python block of the README and the documentation runs, a page's blocks in order and in one namespace.

A section of a page that has a database's name, such as ``## Weaviate``, runs with this database, after the blocks
before the page's first section.

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
from tests.docs import settings, stand_ins

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"# not run: \S")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line of the first statement, and code."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m[1]) for m in BLOCK.finditer(text)]


def parts(page: Path) -> dict[str, list[tuple[int, str]]]:
    """Blocks that run together, by their database; the page's own database has all that no other section has."""
    own = settings.DATABASES.get(page.name, "qdrant")
    headings = [
        (line, text[3:].lower()) for line, text in enumerate(page.read_text().splitlines()) if text[:3] == "## "
    ]
    first = headings[0][0] if headings else 0
    found: dict[str, list[tuple[int, str]]] = {}
    for line, code in blocks(page):
        title = next((title for start, title in reversed(headings) if start < line), "")
        database = title if title in settings.SETTINGS else own
        found.setdefault(database, []).append((line, code))
    shared = [(line, code) for line, code in found.get(own, []) if line < first]
    return {database: code if database == own else shared + code for database, code in found.items()}


WITH_CODE = {(page, database): code for page in PAGES for database, code in parts(page).items()}


@pytest.mark.parametrize(
    ("page", "database"), WITH_CODE, ids=lambda part: part.name if isinstance(part, Path) else part
)
def test_code_of_page(page, database, tmp_path, monkeypatch, capsys):
    for package in settings.PACKAGES.get(page.name, ()):
        pytest.importorskip(package, reason=f"{page.name}: make frameworks runs it, with {package}")
    monkeypatch.chdir(tmp_path)
    settings.files(tmp_path)
    stand_ins.install(page.name, tmp_path, monkeypatch)
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
            for line, code in WITH_CODE[page, database]:
                if not NOT_RUN.match(code):
                    padded = "\n" * line + settings.redirected(code)  # so that a failure shows the page's line
                    exec(compile(padded, str(page), "exec"), namespace)
    finally:
        setting.__exit__(*sys.exc_info())
    if page.name in stand_ins.PAGES:
        shown = re.findall(r"^```text\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        assert capsys.readouterr().out == "".join(shown)


def test_pages_with_code_are_found():
    assert {"README.md", "index.md", "qdrant.md", "plaid.md"} <= {page.name for page, _ in WITH_CODE}
    assert {"weaviate", "milvus", "qdrant"} == {database for page, database in WITH_CODE if page.name == "hybrid.md"}


def test_reference_of_the_command_line_has_every_command():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.MARK in (ROOT / "docs" / "cli.md").read_text()
    page = hooks.reference()
    commands = [info.name or info.callback.__name__ for info in _typer.registered_commands]
    assert commands
    for command in commands:
        assert f"### `muvera {command}`" in page
    assert "- `--queries FILE`: " in page
    assert "```bash\nmuvera quickstart\n" in page
