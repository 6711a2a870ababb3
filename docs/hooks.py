"""What is made when the site is built: version, links to edit pages and to other pages, reference of the commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import typer

from muvera_adapters import __version__, cli

if TYPE_CHECKING:  # the tests read this module where mkdocs is not installed
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

MARK = "<!-- commands -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the version into the title; a repository, where one is named, gets links to edit the pages."""
    config.site_name = f"{config.site_name} {__version__}"
    config.edit_uri = "edit/main/docs/" if config.repo_url else ""
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the reference where a page has the mark, and links to other pages at its end (``next`` in mkdocs.yml)."""
    if MARK in markdown:
        markdown = markdown.replace(MARK, reference())
    following = [files.src_uris[name] for name in config.extra["next"].get(page.file.src_uri, ())]
    if following:
        links = ", ".join(f"[{file.page.title}]({file.src_uri})" for file in following if file.page)
        markdown += f"\n\n**Next:** {links}\n"
    return markdown


def reference() -> str:
    """All commands as sections of a page, from the definitions that ``--help`` shows."""
    group: Any = typer.main.get_command(cli._typer)
    context = typer.Context(group, info_name="muvera", **group.context_settings)
    lines = ["## `muvera`", "", _text(group.help), "", "| command | what it does |", "|---|---|"]
    for name, command in group.commands.items():
        lines.append(f"| [`{name}`](#muvera-{name}) | {_text(command.help).partition('. ')[0].rstrip('.')} |")
    lines += ["", *_parameters(group, context), *_epilog(group.epilog)]
    for name, command in group.commands.items():
        inner = typer.Context(command, parent=context, info_name=name)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [f"### `muvera {name}`", "", *_paragraphs(command.help), f"    muvera {name} {usage}", ""]
        lines += [*_parameters(command, inner), *_epilog(command.epilog)]
    return "\n".join(lines)


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """A list of arguments and options under the titles that the help has."""
    panels: dict[str, list[str]] = {}
    for each in command.get_params(context):
        argument = each.param_type_name == "argument"
        title = getattr(each, "rich_help_panel", None) or ("Arguments" if argument else "Options")
        names = each.metavar if argument else ", ".join([*each.opts, *each.secondary_opts])
        shown = f"`{names}`" if argument or not each.metavar else f"`{names} {each.metavar}`"
        default = None if argument else each.default
        notes = ["Required."] if each.required else []
        if default not in (None, False, ()) and not callable(default):
            notes = [f"Default: {'--verify' if default is True else f'`{default}`'}."]
        panels.setdefault(title, []).append(f"- {shown}: {' '.join([_text(each.help), *notes])}")
    for title, items in panels.items():
        yield from (f"**{title}**", "", *items, "")


def _epilog(text: str) -> Iterator[str]:
    """Examples as a block of code; other paragraphs as they are."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            title, _, commands = paragraph.strip("\b\n").partition("\n")
            yield from (f"**{title.rstrip(':')}**", "", "```bash", re.sub("^  ", "", commands, flags=re.MULTILINE))
            yield from ("```", "")
        else:
            yield from (_text(paragraph), "")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (_text(paragraph), "")


def _text(text: str) -> str:
    # what Markdown would take for HTML, emphasis or a column
    return re.sub(r"([*|])", r"\\\1", escape(" ".join(text.split()), quote=False))
