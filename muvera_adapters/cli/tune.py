"""``muvera tune``: the smallest setting that keeps a recall, or the candidates that a collection needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database, is_target, local_spec
from muvera_adapters.errors import WrongUsage
from muvera_adapters.evidence.evaluation import sample_of
from muvera_adapters.evidence.report import show
from muvera_adapters.evidence.target_recall import MAX_PREFETCH
from muvera_adapters.evidence.tuning import Tuning
from muvera_adapters.evidence.tuning import tune as search_settings
from muvera_adapters.evidence.tuning_prefetch import PrefetchTuning, tune_prefetch


def tune(
    data: i.Source,
    queries: i.QueryFile = None,
    target: i.Target = 0.95,
    k: Annotated[int, typer.Option("-k", min=1, help="Of the exact top k.")] = 10,
    max_bytes: Annotated[
        float | None, typer.Option(help="Most bytes of a document in memory in the first stage.")
    ] = None,
    max_prefetch: Annotated[int, typer.Option(min=1, help="Most candidates to rerank.")] = MAX_PREFETCH,
    quantization: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(local_spec().quantizations)} (no index); repeat.")
    ] = None,
    pseudo: i.Pseudo = 200,
    sample: i.SampleSize = 5000,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: i.CollectionName = None,
    tokens_vector: i.TokensVector = None,
    tenant: o.Tenant = None,
    all_settings: Annotated[
        bool, typer.Option("--all", help="Of a target: search settings, on its documents.")
    ] = False,
    seed: i.Seed = 42,
    as_json: i.Json = False,
) -> None:
    """Find encoder, quantization and candidates for a recall; of a live collection, the candidates that it needs."""
    data = o.of_tenant(data, tenant)
    result: Tuning | PrefetchTuning
    console = Console(highlight=False, soft_wrap=True)
    extra: list[str] = []
    if is_target(data) and not all_settings and tokens_vector is None:
        result = _of_collection(data, collection, queries, target, k, max_prefetch, pseudo, seed, as_json)
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
            target,
            k=k,
            max_bytes=max_bytes,
            max_prefetch=max_prefetch,
            quantizations=None if quantization is None else [q for q in quantization if q != "none"],
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
            console.print(f"\n{result.code}", markup=False)
        for note in [*result.notes, *extra]:
            console.print(f"Note: {note}", markup=False)
    if not result.held:
        # a script must not take what was not reached for what was
        raise typer.Exit(1)


def _of_collection(
    data: str,
    collection: str | None,
    queries: Path | None,
    target: float,
    k: int,
    max_prefetch: int,
    pseudo: int,
    seed: int,
    quiet: bool,
) -> PrefetchTuning:
    if collection is None:
        raise WrongUsage(f"{data}: name the collection (--collection)")
    with Database(data) as database:
        store = database.open(collection)
        documents = None if queries is not None else sample_of(store, pseudo, seed, progress=not quiet)[1]
        asked = i.read_queries(queries, None, documents, pseudo, seed)
        return tune_prefetch(store, asked, target, k=k, max_prefetch=max_prefetch, seed=seed, progress=not quiet)


def _settings(result: Tuning) -> Table:
    table = Table(
        title=f"Settings that reach {result.target:g}, none of which another beats in bytes and candidates",
        title_justify="left",
    )
    for title in ("encoder", "quantization", "bytes", "candidates", "recall, chosen with", "recall, held out"):
        table.add_column(title, justify="left" if title in ("encoder", "quantization") else "right")
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
    table = Table("candidates", "recall", title="Tried on the first half of the queries", title_justify="left")
    for n, recall in result.tried.items():
        table.add_row(f"{n:,}", show(recall))
    return table
