"""``muvera fit-queries``: learns a correction of query FDEs; the collection is not changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.errors import NoGain, WrongUsage
from muvera_adapters.evidence.measuring import queries_of
from muvera_adapters.sources import open_queries
from muvera_core import FitReport

EXAMPLES = o.examples(
    f"muvera fit-queries {o.EXAMPLE} --collection docs --out fit.npz",
    f"muvera search {o.EXAMPLE} --collection docs --queries q.npy --query-fit fit.npz",
)


def fit_queries(
    target: o.Target,
    collection: o.CollectionName,
    out: Annotated[
        Path,
        o.option("--out", metavar="FILE", help="File to write for muvera search --query-fit, for example fit.npz."),
    ],
    queries: o.Queries = None,
    documents: Annotated[
        int, o.option("--documents", metavar="N", min=100, help="Maximum number of documents to read, drawn at random.")
    ] = 2_000,
    rank: Annotated[
        int,
        o.option(
            "--rank", metavar="N", min=1, help="Rank of the correction. The size of the file is proportional to it."
        ),
    ] = 64,
    seed: o.Seed = 42,
    tenant: o.Tenant = None,
    as_json: o.Json = False,
) -> None:
    """Learn a correction of query FDEs; the collection is not changed.

    It is fitted to exact MaxSim on --queries, or on tokens of documents. If it does not improve unseen queries and
    documents, no file is written and the exit status is 1.
    """
    if out.is_dir() or not out.parent.is_dir():
        # checked before minutes of work
        raise WrongUsage(f"--out {out}: {'is a directory' if out.is_dir() else f'there is no directory {out.parent}'}")
    given = None if queries is None else queries_of(open_queries(queries))
    with o.shown_warnings(), Database(o.of_tenant(target, tenant)) as database:
        store = database.open(collection)
        try:
            fit = store.fit_queries(given, documents, rank=rank, seed=seed, progress=not as_json)
        except NoGain as error:
            if as_json:
                _print_json(collection, error.report, None)
            raise
    fit.save(out)
    assert fit.report is not None
    if as_json:
        _print_json(collection, fit.report, out)
    else:
        print(f"{fit.report}\nwritten to {out}: muvera search {target} --collection {collection} --query-fit {out}")


def _print_json(collection: str, report: FitReport, out: Path | None) -> None:
    content = {"collection": collection, "gained": report.gained, **asdict(report), "out": out and str(out)}
    print(json.dumps(content, indent=2))
