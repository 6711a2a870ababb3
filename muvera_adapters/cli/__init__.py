"""The ``muvera`` command."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from muvera_adapters.cli import (
    backfill,
    collections,
    diagnose,
    estimate,
    evaluate,
    fit_queries,
    inspect,
    migrate,
    options,
    quickstart,
    recommend,
    remove_fde,
    repair,
    search,
    tune,
    verify,
)
from muvera_adapters.cli.options import ToTerminal
from muvera_adapters.databases import forms
from muvera_adapters.errors import MuveraError, WrongUsage
from muvera_adapters.logs import LOG
from muvera_core import InvalidTokens


class _Command(TyperCommand):
    """A command whose help shows flags without types, and arguments without braces."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option ``--help``, shown as a flag."""
        return _as_flag(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage without the braces that mark required arguments."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class _Group(TyperGroup):
    """All commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, including ``--help``; all are shown as flags."""
        return [_as_flag(each) for each in super().get_params(ctx)]


def _as_flag(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


_typer = typer.Typer(
    name="muvera",
    cls=_Group,
    help="Late-interaction search in vector databases, with one vector per document (MUVERA).",
    epilog=options.examples(
        "muvera quickstart",
        "muvera COMMAND -h",
        "muvera --install-completion",
    )
    + "\n\n"
    + f"TARGET is a database: {forms()}. Secrets are read from the environment: {options.secrets()}. "
    + "Exit status: 0 done, 1 failed, 2 wrong usage.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("muvera-adapters"))
        raise typer.Exit


@_typer.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, metavar="", help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


# commands with their examples, by panel of the help
_COMMANDS: dict[str, list[tuple[str, Callable[..., None], str]]] = {
    "Start": [
        ("quickstart", quickstart.quickstart, quickstart.EXAMPLES),
    ],
    "Fill a collection": [
        ("inspect", inspect.inspect, inspect.EXAMPLES),
        ("migrate", migrate.migrate, migrate.EXAMPLES),
        ("backfill", backfill.backfill, backfill.EXAMPLES),
    ],
    "Use a collection": [
        ("collections", collections.collections, collections.EXAMPLES),
        ("search", search.search, search.EXAMPLES),
        ("fit-queries", fit_queries.fit_queries, fit_queries.EXAMPLES),
        ("verify", verify.verify, verify.EXAMPLES),
        ("repair", repair.repair, repair.EXAMPLES),
        ("remove-fde", remove_fde.remove_fde, remove_fde.EXAMPLES),
    ],
    "Measure on your data": [
        ("diagnose", diagnose.diagnose, diagnose.EXAMPLES),
        ("recommend", recommend.recommend, recommend.EXAMPLES),
        ("evaluate", evaluate.evaluate, evaluate.EXAMPLES),
        ("tune", tune.tune, tune.EXAMPLES),
        ("estimate", estimate.estimate, estimate.EXAMPLES),
    ],
}
for _panel, _commands in _COMMANDS.items():
    for _name, _command, _examples in _commands:
        # otherwise the help would break lines where the source does
        _help = re.sub(r"(?<!\n)\n *(?!\n)", " ", cleandoc(_command.__doc__ or ""))
        _typer.command(_name, cls=_Command, help=_help, epilog=_examples, rich_help_panel=_panel)(_command)


def app() -> None:
    """Entry point; the exit status is 0 (done), 1 (failed) or 2 (wrong usage)."""
    LOG.addHandler(ToTerminal(logging.WARNING))
    try:
        _typer(prog_name="muvera")
    except MuveraError as error:
        print(f"muvera: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, WrongUsage) else 1)
    except (OSError, InvalidTokens) as error:
        # files and directories that the user named, and tokens that cannot be encoded
        print(f"muvera: {error}", file=sys.stderr)
        sys.exit(1)
