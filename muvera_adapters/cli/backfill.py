"""``muvera backfill``: FDEs for an existing multivector collection."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.errors import MuveraError, WrongUsage
from muvera_adapters.stores.database import quantization_option
from muvera_adapters.stores.sizes import AUTO

_SHOWN = 10


EXAMPLES = o.examples(
    f"muvera backfill {o.EXAMPLE} --collection pages --tokens-vector colbert --dry-run",
    f"muvera backfill {o.EXAMPLE} --collection pages --tokens-vector colbert",
)

COPYING = "Copy into a new collection"


def backfill(
    target: o.Target,
    collection: o.CollectionName,
    tokens_vector: Annotated[
        str, o.option("--tokens-vector", metavar="NAME", help="Multivector with the tokens, for example colbert.")
    ],
    fde_vector: Annotated[
        str,
        o.option("--fde-vector", metavar="NAME", help="Vector to write the FDEs to; it is added where it is missing."),
    ] = "fde",
    model: o.Model = None,
    tenant: o.Tenant = None,
    refresh: Annotated[
        bool, o.flag("--refresh", help="Also compare every FDE with the stored tokens, and rewrite stale FDEs.")
    ] = False,
    dry_run: Annotated[bool, o.flag("--dry-run", help="Count and estimate only; write nothing.")] = False,
    encoder: o.EncoderFile = None,
    fde_dim: o.FdeDim = o.FDE_DIM,
    fde_tokens: o.FdeTokens = None,
    seed: o.EncoderSeed = 42,
    quantization: o.Quantization = AUTO,
    into: Annotated[
        str | None,
        o.option(
            "--into",
            metavar="NAME",
            help="New collection to copy everything to, if a vector cannot be added in place, for example "
            f"pages_2. Only {o.databases_with('into')}. Default: FDEs are added in place.",
            panel=COPYING,
        ),
    ] = None,
    alias: Annotated[
        str | None,
        o.option(
            "--alias",
            metavar="NAME",
            help="Alias that will point to the new collection once it is complete, for example current. Only "
            f"{o.databases_with('alias')}. Default: none.",
            panel=COPYING,
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        o.option(
            "--leave-out",
            metavar="FIELD",
            help="Field that the new collection does not get, for example image. Can be repeated. Only "
            f"{o.databases_with('leave_out')}. Default: none.",
            panel=COPYING,
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Compute the FDEs that an existing multivector collection lacks.

    They are written in place, and others may read and write meanwhile. If it is interrupted, run the same command
    again to do the rest.
    """
    target = o.of_tenant(target, tenant)
    with o.shown_warnings(), Database(target) as database:
        given = {"into": into, "alias": alias, "leave_out": leave_out}
        options: dict[str, Any] = {name: value for name, value in given.items() if value}
        for name in options:
            if name not in database.spec.backfill_options:
                raise WrongUsage(
                    f"{target}: --{name.replace('_', '-')} does not apply to {database.spec.title}; it applies to "
                    f"{o.databases_with(name)}"
                )
        if "into" not in options and options:
            raise WrongUsage("--alias and --leave-out need --into, which names the new collection")
        if refresh and ("into" in options or dry_run):
            raise WrongUsage("--refresh cannot be combined with --into or --dry-run")
        if quantization != AUTO:
            database.spec.quantization(quantization, fde_dim, database.target.place)  # rejects those of other databases
            options |= quantization_option(quantization)
        dim = database.token_dim(collection, tokens_vector)
        chosen = o.make_encoder(dim, encoder, fde_dim, fde_tokens, seed)
        named = {} if model is None else {"model": model}
        store = database.adopt(collection, chosen, tokens_vector=tokens_vector, fde_vector=fde_vector, **named)
        try:
            report = store.backfill(progress=not as_json, dry_run=dry_run, refresh=refresh, **options)
        except KeyboardInterrupt as error:
            raise MuveraError("interrupted; run the same command again to go on") from error
    if as_json:
        content = {**asdict(report), "failed": [{"id": i, "reason": text} for i, text in report.failed.items()]}
        print(json.dumps(content, indent=2, default=str))
    elif dry_run:
        print(
            f"{report.remaining:,} documents have no FDE: {o.readable(report.fde_bytes)} to write, about "
            f"{o.readable(report.read_bytes)} of tokens to read, about {o.duration(report.seconds)}; "
            "nothing was written"
        )
    else:
        print(
            (f"{report.copied:,} documents were copied, " if report.copied else "")
            + f"{report.written:,} documents got their FDE in {o.duration(report.seconds)}, "
            + (f"{report.refreshed:,} stale FDEs were written again, " if report.refreshed else "")
            + f"{report.remaining:,} are left, {report.verified:,} of a sample were compared and agree"
        )
    if not as_json:
        if report.without_tokens:
            print(f"{report.without_tokens:,} documents have no {tokens_vector!r} to encode")
        if report.zero_rows:
            print(f"{report.zero_rows:,} documents have all-zero token vectors, which their FDEs leave out")
        for identifier, reason in list(report.failed.items())[:_SHOWN]:
            print(f"  {identifier!r} failed: {reason}")
    if report.failed:
        raise typer.Exit(1)
