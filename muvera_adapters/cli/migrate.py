"""``muvera migrate``: token embeddings from anywhere into a database."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database, forms, parse_target
from muvera_adapters.errors import InvalidInput, MuveraError, WrongUsage
from muvera_adapters.migration import (
    Condition,
    MigrationEstimate,
    MigrationReport,
    Verification,
    estimate,
    read_rankings,
    verify,
)
from muvera_adapters.migration import migrate as run
from muvera_adapters.sources import TokenSource, open_queries, open_source
from muvera_adapters.stores.database import quantization_option
from muvera_adapters.stores.sizes import AUTO

# number of failures that are printed; the JSON report has all
_SHOWN = 10


EXAMPLES = o.examples(
    f"muvera migrate index/ --to {o.EXAMPLE} --collection docs --dry-run",
    f"muvera migrate index/ --to {o.EXAMPLE} --collection docs --ids ids.txt",
    f"muvera migrate {o.EXAMPLE} --from-collection old --to TARGET --collection new",
)


def migrate(
    data: o.Data,
    to: Annotated[
        str, o.option("--to", metavar="TARGET", help=f"Database to write to: {forms()}. For example {o.EXAMPLE}.")
    ],
    collection: o.CollectionName,
    tenant: o.Tenant = None,
    model: o.Model = None,
    dry_run: Annotated[bool, o.flag("--dry-run", help="Estimate only; write nothing.")] = False,
    into_existing: Annotated[
        bool,
        o.flag(
            "--into-existing",
            help="Add to an existing collection that muvera created. Documents with the same ids are replaced.",
        ),
    ] = False,
    filter: o.Filter = None,
    limit: Annotated[
        int | None,
        o.option(
            "--limit",
            metavar="N",
            min=1,
            help="Maximum number of documents, including those of earlier runs, for example 1000. Default: all.",
        ),
    ] = None,
    payload: Annotated[
        str | None,
        o.option(
            "--payload",
            metavar="KEYS",
            help="Payload keys to copy, for example title,year. 'none': no keys. Default: all keys.",
        ),
    ] = None,
    workers: Annotated[
        int, o.option("--workers", metavar="N", min=1, max=32, help="Number of batches to write to a server at a time.")
    ] = 1,
    journal: Annotated[
        Path | None,
        o.option(
            "--journal",
            metavar="FILE",
            help="File that records the progress, for example run.sqlite. Default: beside the target, or in the "
            "current directory for a server.",
        ),
    ] = None,
    ids: o.Ids = None,
    texts: o.Texts = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    drop: o.Drop = None,
    from_collection: o.FromCollection = None,
    tokens_vector: o.TokensVector = None,
    from_tenant: o.FromTenant = None,
    decode_all: Annotated[
        bool,
        o.flag(
            "--decode-all",
            help="Decode all documents of a PLAID index, and ignore original vectors that it has.",
            panel=o.READING,
        ),
    ] = False,
    encoder: o.EncoderFile = None,
    fde_dim: o.FdeDim = o.FDE_DIM,
    fde_tokens: o.FdeTokens = None,
    seed: o.EncoderSeed = 42,
    quantization: o.Quantization = AUTO,
    verify_after: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", metavar="", help="Compare the result with DATA.", rich_help_panel=o.CHECKING
        ),
    ] = True,
    verify_sample: Annotated[
        int,
        o.option("--verify-sample", metavar="N", min=1, help="Number of documents to compare.", panel=o.CHECKING),
    ] = 200,
    queries: Annotated[
        Path | None,
        o.option(
            "--queries",
            metavar="FILE",
            help="Token vectors of queries whose results are compared: .npz, .npy, .safetensors or .pt, for example "
            "queries.npz. Default: none.",
            panel=o.CHECKING,
        ),
    ] = None,
    old_results: Annotated[
        Path | None,
        o.option(
            "--old-results",
            metavar="FILE",
            help="Results of the old index for --queries, for example ranking.tsv of ColBERT, or results.json. "
            "Default: none.",
            panel=o.CHECKING,
        ),
    ] = None,
    prefetch: Annotated[
        int,
        o.option(
            "--prefetch",
            metavar="N",
            min=1,
            help="Number of candidates of the first stage in these searches, for example 500.",
            panel=o.CHECKING,
        ),
    ] = 200,
    as_json: o.Json = False,
) -> None:
    """Copy token embeddings into a new collection, with FDEs.

    If it is interrupted, run the same command again to continue. At the end, the result is compared with DATA.
    """
    o.check_collection(data, from_collection, "--from-collection")
    if old_results is not None and queries is None:
        raise WrongUsage("--old-results needs --queries: the queries that these results belong to")
    to = o.of_tenant(to, tenant)
    target, conditions = parse_target(to), [Condition.parse(text) for text in filter or ()]
    kept = None if payload is None else set() if payload == "none" else {name.strip() for name in payload.split(",")}
    keep = _keeper(kept, set(drop or ()))
    with o.shown_warnings(), Database(target) as database:
        opened = open_source(
            o.of_tenant(data, from_tenant),
            ids=ids,
            texts=texts,
            originals=not decode_all,
            collection=from_collection,
            tokens_vector=tokens_vector,
            tokens=tokens,
            lengths=lengths,
            drop=drop or (),
            payload=None if kept is None else {*kept, *(condition.key for condition in conditions)},
        )
        try:
            chosen = o.make_encoder(opened.dim, encoder, fde_dim, fde_tokens, seed)
            # checked before hours of work
            asked = open_queries(queries) if queries is not None else None
            if asked is not None and asked.dim != opened.dim:
                raise InvalidInput(f"{queries} has token vectors of width {asked.dim}, the source of {opened.dim}")
            rankings = read_rankings(old_results, len(asked)) if old_results and asked is not None else None
            size = estimate(opened, chosen, target, quantization=quantization, limit=limit)
            if not as_json:
                _print_estimate(opened, to, size, chosen.dim)
            if dry_run:
                _finish(as_json, opened, size)
                return
            _check_space(target.location if not target.is_server else None, size)
            try:
                store, report = run(
                    opened,
                    database,
                    collection,
                    chosen,
                    journal=journal,
                    limit=limit,
                    where=conditions,
                    keep=keep,
                    workers=workers,
                    into_existing=into_existing,
                    model=model,
                    progress=not as_json,
                    **quantization_option(quantization),
                )
            except KeyboardInterrupt as error:
                raise MuveraError("interrupted; run the same command again to go on") from error
            if not as_json:
                _print_report(report, to, collection)
            checked = None
            if verify_after:
                checked = verify(
                    opened,
                    store,
                    report,
                    sample=verify_sample,
                    where=conditions,
                    keep=keep,
                    queries=asked,
                    rankings=rankings,
                    prefetch=prefetch,
                    progress=not as_json,
                )
            if checked is not None and not checked.passed and database.spec.repairs:
                print(
                    f"muvera: if the server was killed meanwhile: muvera repair {to} --collection {collection}",
                    file=sys.stderr,
                )
            _finish(as_json, opened, size, report, checked)
        finally:
            opened.close()


def _keeper(kept: set[str] | None, dropped: set[str]) -> Callable[[str], bool] | None:
    """The test of whether a payload key is copied; None: all are."""
    if kept is None and not dropped:
        return None
    return lambda key: key not in dropped and (kept is None or key in kept)


def _check_space(location: str | None, size: MigrationEstimate) -> None:
    """Warns if the disk of an embedded database is too small."""
    if location is None:
        return
    directory = Path(location).absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < size.total_bytes:
        print(
            f"muvera: warning: {directory} has {o.readable(free)} left; about {o.readable(size.total_bytes)} is needed",
            file=sys.stderr,
        )


def _print_estimate(source: TokenSource, to: str, size: MigrationEstimate, fde_dim: int) -> None:
    about = "" if size.exact else "about "
    files = f", {o.readable(size.source_bytes)}" if size.source_bytes else ""
    parts = (
        (size.fde_bytes, f"FDEs of {fde_dim:,} dims"),
        (size.code_bytes, "codes"),
        (size.token_bytes, "tokens"),
        (size.other_bytes, "index and log"),
    )
    listed = ", ".join(f"{o.readable(n)} of {name}" for n, name in parts)
    print(f"{source.place}: {source.format}, {len(source):,} documents of {source.dim} dims{files}")
    print(f"to {to}: {size.documents:,} documents, {about}{size.tokens:,} tokens")
    print(f"about {o.readable(size.total_bytes)}: {listed}")
    print(f"reading and encoding takes about {o.duration(size.encode_seconds)}; the database's time comes on top")


def _print_report(report: MigrationReport, to: str, collection: str) -> None:
    here = report.documents - report.resumed
    rate = f", {here / report.seconds:,.0f} documents/s" if here and report.seconds > 0 else ""
    before = f" ({report.resumed:,} by earlier runs)" if report.resumed else ""
    print(
        f"{report.written:,} documents{before}, {report.tokens:,} tokens are in {to} {collection}: "
        f"{o.duration(report.seconds)}{rate}; {o.duration(report.index_seconds)} to build the index"
    )
    if report.unindexed:
        print(f"{report.unindexed:,} documents have no index: searches scan all of them")
    if report.zero_rows:
        print(f"{report.zero_rows:,} token vectors are all zeros (padding) and were left out")
    if report.repaired:
        print(f"{report.repaired:,} documents were lost from the database's indexes and are indexed again")
    if not report.complete:
        print(f"the limit ended the run before the end of the source; {report.journal} records where to continue")
    if report.failed:
        print(f"{len(report.failed):,} documents failed:")
        for failure in report.failed[:_SHOWN]:
            print(f"  {failure.id!r} at position {failure.position}: {failure.reason}")
        if len(report.failed) > _SHOWN:
            print("  ... (--json lists all)")


def _finish(
    as_json: bool,
    source: TokenSource,
    size: MigrationEstimate,
    report: MigrationReport | None = None,
    checked: Verification | None = None,
) -> None:
    """Prints the rest of the result; exits with status 1 if documents or checks failed."""
    if as_json:
        content = {
            "source": {"place": source.place, "format": source.format, "documents": len(source), "dim": source.dim},
            "estimate": size.to_dict(),
            "dry_run": report is None,
            "migration": asdict(report) if report else None,
            "verification": {"passed": checked.passed, **asdict(checked)} if checked else None,
        }
        print(json.dumps(content, indent=2, default=str))
    elif checked is not None:
        print("compared with the source:")
        for check in checked.checks:
            print(f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.text}")
    elif report is None:
        print("nothing was written")
    if (report is not None and report.failed) or (checked is not None and not checked.passed):
        raise typer.Exit(1)
