"""The ``muvera`` command."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from muvera_adapters.cli import (
    backfill,
    diagnose,
    estimate,
    evaluate,
    fit_queries,
    inspect,
    migrate,
    quickstart,
    recommend,
    repair,
    search,
    tune,
    verify,
)
from muvera_adapters.cli.options import ToTerminal
from muvera_adapters.errors import MuveraError, WrongUsage
from muvera_adapters.logs import LOG
from muvera_core import InvalidTokens

_typer = typer.Typer(
    name="muvera",
    help="Late-interaction search in vector databases with one vector per document (MUVERA).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("muvera-adapters"))
        raise typer.Exit


@_typer.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


_typer.command()(quickstart.quickstart)
_typer.command()(inspect.inspect)
_typer.command()(migrate.migrate)
_typer.command()(search.search)
_typer.command()(backfill.backfill)
_typer.command()(verify.verify)
_typer.command()(repair.repair)
_typer.command("fit-queries")(fit_queries.fit_queries)
_typer.command()(diagnose.diagnose)
_typer.command()(recommend.recommend)
_typer.command()(evaluate.evaluate)
_typer.command()(tune.tune)
_typer.command()(estimate.estimate)


def app() -> None:
    """Entry point; exit status 0: done, 1: failed, 2: wrong usage."""
    LOG.addHandler(ToTerminal(logging.WARNING))
    try:
        _typer()
    except MuveraError as error:
        print(f"muvera: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, WrongUsage) else 1)
    except (OSError, InvalidTokens) as error:
        # directories and files that the user named, and tokens that cannot be encoded
        print(f"muvera: {error}", file=sys.stderr)
        sys.exit(1)
