"""Pages that are made when the site is built: the reference of the command line."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.cli import get_docs_for_click

from muvera_adapters import cli

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the reference where a page has the mark."""
    return markdown.replace(MARK, reference()) if MARK in markdown else markdown


def reference() -> str:
    """What ``typer utils docs`` prints for ``muvera``, as sections of a page."""
    command = typer.main.get_command(cli._typer)
    docs = get_docs_for_click(obj=command, ctx=typer.Context(command), name="muvera")
    return re.sub(r"^#", "##", docs, flags=re.MULTILINE)
