"""``muvera verify``: checks that the FDEs of a collection are those of its stored tokens."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database

_SHOWN = 10


EXAMPLES = o.examples(f"muvera verify {o.EXAMPLE} --collection docs")


def verify(
    target: o.Target,
    collection: o.CollectionName,
    limit: Annotated[
        int | None,
        o.option("--limit", metavar="N", min=1, help="Number of documents to compare, for example 1000. Default: all."),
    ] = None,
    tenant: o.Tenant = None,
    as_json: o.Json = False,
) -> None:
    """Compare the FDEs of a collection with its stored tokens.

    Nothing is written. The exit status is 1 if documents have no FDE, a stale one, or tokens that cannot be encoded.
    """
    target = o.of_tenant(target, tenant)
    with o.shown_warnings(), Database(target) as database:
        report = database.open(collection).verify(limit, progress=not as_json)
    if as_json:
        unreadable = [{"id": i, "reason": text} for i, text in report.unreadable.items()]
        content = {"passed": report.passed, **asdict(report), "unreadable": unreadable}
        print(json.dumps(content, indent=2, default=str))
    else:
        print(
            f"{report.checked:,} documents were compared: {len(report.stale):,} have a stale FDE (their tokens "
            f"were replaced since); {report.without_fde:,} more have no FDE"
        )
        if report.zero_rows:
            print(f"{report.zero_rows:,} documents have all-zero token vectors, which FDEs leave out")
        for identifier in report.stale[:_SHOWN]:
            print(f"  {identifier!r} is stale")
        for identifier, reason in list(report.unreadable.items())[:_SHOWN]:
            print(f"  {identifier!r} cannot be encoded: {reason}")
        if report.stale or report.without_fde:
            print(f"to repair it: muvera backfill {target} --collection {collection} --tokens-vector NAME --refresh")
    if not report.passed:
        raise typer.Exit(1)
