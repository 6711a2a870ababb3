"""``muvera evaluate``: what an encoding, or a collection, keeps of the exact ranking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database, is_target, local_spec
from muvera_adapters.errors import WrongUsage
from muvera_adapters.evidence import evaluation as library
from muvera_adapters.evidence.evaluation import Evaluation
from muvera_adapters.evidence.judgements import Judgements, read_judgements
from muvera_adapters.evidence.report import tables, write_report


def evaluate(
    data: i.Source,
    queries: i.QueryFile = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="fde, fitted or regression, also with :DIM, or a saved encoder; repeat. Of files only."),
    ] = None,
    quantization: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Codes of an index to measure through: {', '.join(local_spec().quantizations)} (no index); repeat."
        ),
    ] = None,
    judgements: Annotated[Path | None, typer.Option(help="TREC qrels or TSV: query, document, grade.")] = None,
    query_ids: i.QueryIds = None,
    pseudo: i.Pseudo = 200,
    truth: Annotated[
        str, typer.Option(help="Of a collection: exact_search, or sample (of --sample documents, computed here).")
    ] = "exact_search",
    sample: i.SampleSize = 5000,
    candidates: Annotated[str, typer.Option(help="Numbers of candidates.")] = "10,20,50,100,200,500,1000",
    report: Annotated[Path | None, typer.Option(help="Directory for evaluation.html, .md and .json.")] = None,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: i.CollectionName = None,
    tokens_vector: i.TokensVector = None,
    tenant: o.Tenant = None,
    seed: i.Seed = 42,
    as_json: i.Json = False,
) -> None:
    """Measure recall of exact MaxSim: of encoders on data, or of a live collection."""
    depths = _numbers(candidates)
    judged = None if judgements is None else read_judgements(judgements)
    data = o.of_tenant(data, tenant)
    live = is_target(data) and encoder is None and tokens_vector is None
    if live:
        result = _of_collection(
            data, collection, queries, query_ids, pseudo, judged, truth, sample, depths, seed, as_json, quantization
        )
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
        asked = i.read_queries(queries, query_ids, found.documents, pseudo, seed)
        measured = library.evaluate(
            i.encoders_of(encoder or ["fde", "fitted"], found.documents, seed),
            found.documents,
            asked,
            judgements=judged,
            document_ids=found.ids,
            quantizations=None if quantization is None else [q for q in quantization if q != "none"],
            candidates=depths,
            seed=seed,
            progress=not as_json,
        )
        result = replace(measured, notes=[*measured.notes, *found.notes])
    if report is not None:
        page = write_report(result, report)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    _print(result)
    if report is not None:
        print(f"\n{page}")


def _of_collection(
    target: str,
    collection: str | None,
    queries: Path | None,
    query_ids: Path | None,
    pseudo: int,
    judged: Judgements | None,
    truth: str,
    sample: int,
    depths: list[int],
    seed: int,
    quiet: bool,
    quantization: list[str] | None,
) -> Evaluation:
    if collection is None:
        raise WrongUsage(f"{target}: name the collection (--collection)")
    if truth not in ("exact_search", "sample"):
        raise WrongUsage(f"--truth is exact_search or sample, not {truth!r}")
    if quantization is not None:
        raise WrongUsage("--quantization is of an index made for measuring; a collection has its own")
    kind: Literal["exact_search", "sample"] = "exact_search" if truth == "exact_search" else "sample"
    with Database(target) as database:
        store = database.open(collection)
        if queries is None:
            _, documents = library.sample_of(store, pseudo, seed, progress=not quiet)
            asked = i.read_queries(None, query_ids, documents, pseudo, seed)
        else:
            asked = i.read_queries(queries, query_ids, None, pseudo, seed)
        return library.evaluate_store(
            store,
            asked,
            judgements=judged,
            truth=kind,
            sample=sample,
            candidates=depths,
            seed=seed,
            progress=not quiet,
        )


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise WrongUsage(f"--candidates takes numbers with commas between them, got {text!r}") from error


def _print(result: Evaluation) -> None:
    console = Console(highlight=False, soft_wrap=True)
    asked = "queries" if result.queries_are == "given" else "pseudo-queries"
    console.print(f"{result.documents:,} documents, {result.queries} {asked}. The truth: {result.truth}.")
    for content in tables(result):
        table = Table(title=content.heading, title_justify="left", caption=content.text, caption_justify="left")
        for place, head in enumerate(content.header):
            # intervals would not fit beside each other; the report and --json have them
            table.add_column(head, justify="left" if place == 0 else "right")
        for row in content.rows:
            table.add_row(*(cell.split(" (")[0] for cell in row))
        console.print()
        console.print(table)
    for note in result.notes:
        console.print(f"\nNote: {note}", markup=False)
