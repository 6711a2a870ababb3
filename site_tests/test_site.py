"""The site that ``make docs`` has built, as browsers show it; Chromium must be installed."""

from __future__ import annotations

import ast
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from muvera_adapters.evidence import evaluate, write_report
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "site"
PAGES = sorted(path.parent.relative_to(SITE).as_posix() for path in SITE.rglob("index.html"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WIDE, NARROW = 1300, 400
# what Sphinx would have made a reference or a block of code, and references that mkdocs has left
RAW = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):(?:`|<code)|::</p>|<autoref|<blockquote>|\]\[muvera_")
# everything that a reader would have to scroll for, or could not reach at all
PROBLEMS = (Path(__file__).parent / "problems.js").read_text(encoding="utf-8")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tab(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    """A tab, and what goes wrong in it; what a theme asks of other hosts is not ours."""
    tab = browser.new_page(color_scheme="light")
    # every page would spend a second on the index of the search: it gets one without documents
    config = json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))["config"]
    tab.route("**/search_index.json", lambda route: route.fulfill(json={"config": config, "docs": []}))
    noticed: list[str] = []
    tab.on("pageerror", lambda error: noticed.append(f"{error}"))
    tab.on(
        "console",
        lambda line: (
            noticed.append(line.text)
            if line.type in ("error", "warning") and line.location["url"].startswith(address)
            else None
        ),
    )
    yield tab, noticed
    tab.close()


def test_the_site_is_built() -> None:
    assert len(PAGES) == len(list((ROOT / "docs").glob("*.md"))), "run make docs first"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window(name: str, tab: tuple[Page, list[str]], address: str) -> None:
    page, noticed = tab
    noticed.clear()
    page.set_viewport_size({"width": WIDE, "height": 900})
    page.goto(address + ("" if name == "." else f"{name}/"))
    page.add_style_tag(content="* { transition: none !important }")  # else colors and places are between two states
    for width, scheme in ((WIDE, "default"), (WIDE, "slate"), (NARROW, "slate"), (NARROW, "default")):
        page.set_viewport_size({"width": width, "height": 900})
        if page.evaluate("document.body.dataset.mdColorScheme") != scheme:
            page.locator("header label[for^=__palette]:visible").click()
        found = page.evaluate(PROBLEMS, {"wide": width == WIDE, "scheme": scheme})
        noticed += [f"{width} px, {scheme}: {each}" for each in found]
    assert not noticed, "\n".join(noticed)


def test_a_report_of_an_evaluation_fits_its_window(tab: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, _ = tab
    sample = load_pydocs()
    documents = [document.tokens for document in islice(sample.source.documents(), 60)]
    encoders = {name: FDEEncoder(FDEConfig(dim=128, r_reps=5, k_sim=3, d_proj=8)) for name in ("a", "a long name " * 5)}
    judgements = {str(query): {"0": 1} for query in range(8)}
    found = evaluate(encoders, documents, sample.queries[:8], judgements=judgements, quantizations=())
    page.goto(write_report(found, tmp_path).as_uri())
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 900})
        problems = page.evaluate(PROBLEMS, {"wide": width == WIDE, "scheme": None})
        assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_markup_of_docstrings(name: str) -> None:
    found = RAW.search(page := (SITE / name / "index.html").read_text(encoding="utf-8"))
    assert not found, page[max(0, found.start() - 200) : found.end() + 100]


def _exported() -> Iterator[str]:
    """Names in ``__all__``."""
    for package in ("muvera_core", "muvera_adapters"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    yield from (f"{module}.{name}" for name in ast.literal_eval(node.value))


def _imported() -> Iterator[str]:
    """Names that our pages import for their readers; the parts of a database are for those who write one."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if path.name == "adding-a-database.md":
            continue
        for module, names in re.findall(r"^ *from (muvera_[\w.]+) import ([\w, ]+)", path.read_text("utf-8"), re.M):
            found = {f"{module}.{name.strip()}" for name in names.split(",")}
            yield from (name for name in found if not (ROOT / name.replace(".", "/")).is_dir())


def test_public_names_have_entries() -> None:
    entries = {
        entry
        for path in SITE.glob("api*/index.html")
        for entry in re.findall(r'id="([\w.]+)"', path.read_text("utf-8"))
    }
    names = {*_exported(), *_imported()}
    assert len(names) > 100
    missing = sorted(names - entries)
    assert not missing, f"no entry in docs/api*.md for {', '.join(missing)}"
