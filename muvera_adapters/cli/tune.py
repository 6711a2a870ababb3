"""``muvera tune``: the smallest setting that reaches a recall, or the candidates that a collection needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.evidence.evaluation import sample_of
from muvera_adapters.evidence.report import show
from muvera_adapters.evidence.target_recall import MAX_PREFETCH
from muvera_adapters.evidence.tuning import Tuning
from muvera_adapters.evidence.tuning import tune as search_settings
from muvera_adapters.evidence.tuning_prefetch import PrefetchTuning, tune_prefetch

EXAMPLES = o.examples(
    "muvera tune docs.npz --queries queries.npz --recall 0.95 --max-bytes 400",
    f"muvera tune {o.EXAMPLE} --collection docs --queries queries.npz",
)


def tune(
    data: o.Data,
    queries: o.Queries = None,
    recall: i.Recall = 0.95,
    k: Annotated[
        int, o.option("-k", metavar="N", min=1, help="Number of documents of the exact ranking that are to be found.")
    ] = 10,
    max_bytes: i.MaxBytes = None,
    max_prefetch: i.MaxPrefetch = MAX_PREFETCH,
    quantization: i.Quantizations = None,
    pseudo: i.Pseudo = 200,
    sample: i.SampleSize = 5000,
    all_settings: Annotated[
        bool,
        o.flag(
            "--all", help="For a collection, find all settings on its documents, instead of its number of candidates."
        ),
    ] = False,
    seed: o.Seed = 42,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: o.DataCollection = None,
    tokens_vector: o.TokensVector = None,
    tenant: o.DataTenant = None,
    as_json: o.Json = False,
) -> None:
    """Find the settings that reach a recall, or the candidates that a collection needs.

    A setting is an encoder, a quantization and a number of candidates. For a live collection, whose encoder and
    quantization are fixed, it finds the number of candidates. The exit status is 1 if the recall is not reached.
    """
    o.check_collection(data, collection)
    data = o.of_tenant(data, tenant)
    result: Tuning | PrefetchTuning
    console = o.console()
    extra: list[str] = []
    if collection is not None and not all_settings and tokens_vector is None:
        result = _of_collection(data, collection, queries, recall, k, max_prefetch, pseudo, seed, as_json)
    else:
        found = i.read_documents(
            data,
            sample=sample,
            seed=seed,
            ids=ids,
            tokens=tokens,
            lengths=lengths,
            collection=collection,
            tokens_vector=tokens_vector,
            quiet=as_json,
        )
        extra = found.notes
        result = search_settings(
            found.documents,
            i.read_queries(queries, None, found.documents, pseudo, seed),
            recall,
            k=k,
            max_bytes=max_bytes,
            max_prefetch=max_prefetch,
            quantizations=i.with_codes(quantization),
            seed=seed,
            progress=not as_json,
        )
    if as_json:
        content = result.to_dict()
        print(json.dumps({**content, "notes": content["notes"] + extra}, indent=2))
    else:
        console.print(_settings(result) if isinstance(result, Tuning) else _tried(result))
        console.print(f"\n[bold]{result.verdict}[/bold]")
        if isinstance(result, Tuning) and result.recommended is not None:
            console.print(f"\n{result.code}", markup=False, soft_wrap=True)
        for note in [*result.notes, *extra]:
            console.print(f"Note: {note}", markup=False)
    if not result.held:
        # lets scripts notice that the recall was not reached
        raise typer.Exit(1)


def _of_collection(
    data: str,
    collection: str,
    queries: Path | None,
    recall: float,
    k: int,
    max_prefetch: int,
    pseudo: int,
    seed: int,
    quiet: bool,
) -> PrefetchTuning:
    with Database(data) as database:
        store = database.open(collection)
        documents = None if queries is not None else sample_of(store, pseudo, seed, progress=not quiet)[1]
        asked = i.read_queries(queries, None, documents, pseudo, seed)
        return tune_prefetch(store, asked, recall, k=k, max_prefetch=max_prefetch, seed=seed, progress=not quiet)


def _settings(result: Tuning) -> Table:
    table = o.table(
        "encoder",
        "codes",
        "bytes",
        "candi-\ndates",
        "recall, seen\nqueries",
        "recall, unseen\nqueries",
        left=2,
        title=f"Settings that reach {result.target:g}; no other setting has both fewer bytes and fewer candidates",
        caption="recall: mean over the queries, and its 95 % interval",
    )
    for s in result.pareto:
        table.add_row(
            s.encoder,
            s.quantization or "float32, no index",
            f"{s.bytes_per_document:,.0f}",
            f"{s.prefetch:,}",
            show(s.chosen) if s.chosen else "",
            show(s.held_out) if s.held_out else "",
        )
    return table


def _tried(result: PrefetchTuning) -> Table:
    table = o.table(
        "candidates",
        "recall",
        left=0,
        title="Tried on the first half of the queries",
        caption="recall: mean over the queries, and its 95 % interval",
    )
    for n, recall in result.tried.items():
        table.add_row(f"{n:,}", show(recall))
    return table
