"""``muvera recommend``: chooses encoder, quantization and number of candidates for the given documents."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.evidence.recommendation import SAMPLE, Recommendation
from muvera_adapters.evidence.recommendation import recommend as choose
from muvera_adapters.evidence.report import show
from muvera_adapters.evidence.target_recall import MAX_PREFETCH

EXAMPLES = o.examples(
    "muvera recommend docs.npz --queries queries.npz --recall 0.95",
    "muvera recommend docs.npz --documents 2000000 --max-bytes 400",
)


def recommend(
    data: o.Data,
    queries: o.Queries = None,
    recall: i.Recall = 0.95,
    max_bytes: i.MaxBytes = None,
    max_prefetch: i.MaxPrefetch = MAX_PREFETCH,
    documents: Annotated[
        int | None,
        o.option(
            "--documents",
            metavar="N",
            min=1,
            help="Number of documents in the collection that DATA is a sample of, for example 2000000. Default: the "
            "number in DATA.",
        ),
    ] = None,
    sample: i.SampleSize = SAMPLE,
    seed: o.Seed = 42,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: o.DataCollection = None,
    tokens_vector: o.TokensVector = None,
    tenant: o.DataTenant = None,
    as_json: o.Json = False,
) -> None:
    """Choose encoder, quantization and number of candidates for a wanted recall.

    The choice is measured on queries that were not used to make it. The exit status is 1 if the recall is not reached.
    """
    found = i.read_documents(
        o.of_tenant(data, tenant),
        sample=sample,
        seed=seed,
        ids=ids,
        tokens=tokens,
        lengths=lengths,
        collection=collection,
        tokens_vector=tokens_vector,
        quiet=as_json,
    )
    result = choose(
        found.documents,
        None if queries is None else i.read_queries(queries, None, None, 0, seed),
        recall=recall,
        bytes_per_document=max_bytes,
        max_prefetch=max_prefetch,
        sample=sample,
        collection=documents or (found.total if found.total > sample else None),
        seed=seed,
        progress=not as_json,
    )
    if as_json:
        content = result.to_dict()
        print(json.dumps({**content, "warnings": content["warnings"] + found.left_out}, indent=2))
    else:
        console = o.console()
        console.print(result.verdict, style="bold", markup=False)
        console.print()
        console.print(_tried(result))
        for note in [*result.warnings, *found.left_out]:
            console.print(f"! {note}", markup=False)
        console.print(f"\n{result.code}", markup=False, soft_wrap=True)
    if not (result.reached and result.held):
        # lets scripts notice that the recall was not reached
        raise typer.Exit(1)


def _tried(result: Recommendation) -> Table:
    table = o.table(
        "encoder",
        "codes",
        "bytes",
        "candi-\ndates",
        "recall, seen\nqueries",
        "result",
        left=2,
        title="Settings that were tried",
        caption="recall, seen queries: mean over the queries that the choice was made with, and its 95 % interval; to "
        "rely on: recall that other queries exceed in 19 of 20 cases",
    )
    table.columns[-1].justify = "left"
    for s in result.tried:
        unseen = f"chosen; recall, unseen queries: {s.held_out.mean:.3f}" if s is result.setting and s.held_out else ""
        table.add_row(
            s.encoder,
            s.quantization or "float32",
            f"{s.bytes_per_document:,.0f}",
            f"{s.prefetch:,}" if s.prefetch else "",
            show(s.chosen) if s.chosen else "",
            "; ".join(part for part in (unseen, s.note) if part),
        )
    return table
