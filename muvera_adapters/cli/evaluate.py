"""``muvera evaluate``: how much of the exact ranking an encoding, or a collection, preserves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.errors import WrongUsage
from muvera_adapters.evidence import evaluation as library
from muvera_adapters.evidence.evaluation import Evaluation
from muvera_adapters.evidence.judgements import Judgements, read_judgements
from muvera_adapters.evidence.report import check_report, origin, tables, write_report

EXAMPLES = o.examples(
    "muvera evaluate docs.npz --queries queries.npz --report report",
    "muvera evaluate docs.npz --encoder fde:1280 --encoder regression:512",
    f"muvera evaluate {o.EXAMPLE} --collection docs --queries queries.npz",
)

DEPTHS = ",".join(map(str, library.CANDIDATES))


def evaluate(
    data: o.Data,
    queries: o.Queries = None,
    encoder: Annotated[
        list[str] | None,
        o.option(
            "--encoder",
            metavar="ENCODER",
            help="Encoder to measure: fde, fitted or regression, also with a number of dimensions (fde:1280), or a "
            "saved encoder (encoder.npz). Can be repeated. For a collection, it is measured on a sample of the "
            "documents. Default: fde and fitted; for a collection, its own encoder.",
        ),
    ] = None,
    quantization: i.Quantizations = None,
    candidates: Annotated[
        str, o.option("--candidates", metavar="N,N,...", help="Numbers of candidates to measure.")
    ] = DEPTHS,
    judgements: Annotated[
        Path | None,
        o.option(
            "--judgements",
            metavar="FILE",
            help="Relevant documents: TREC qrels, or TSV with query, document and grade, for example qrels.tsv. "
            "Default: none.",
        ),
    ] = None,
    query_ids: i.QueryIds = None,
    pseudo: i.Pseudo = 200,
    truth: Annotated[
        Literal["exact_search", "sample"],
        o.option(
            "--truth",
            metavar="WHERE",
            help="Where the exact ranking of a collection comes from: exact_search (the database, over all documents) "
            "or sample (this program, over --sample documents; for large collections).",
        ),
    ] = "exact_search",
    sample: i.SampleSize = 5000,
    seed: o.Seed = 42,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: o.DataCollection = None,
    tokens_vector: o.TokensVector = None,
    tenant: o.DataTenant = None,
    report: Annotated[
        Path | None,
        o.option(
            "--report",
            metavar="DIR",
            help="Directory for evaluation.html (with plots), .md and .json, for example report. Default: none.",
            panel=o.OUTPUT,
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Measure how much of the exact MaxSim ranking is preserved.

    For a file or an index, it measures encoders on the documents. For a live collection, it measures the searches that
    its users make.
    """
    depths = _numbers(candidates)
    o.check_collection(data, collection)
    if report is not None:
        check_report(report)
    judged = None if judgements is None else read_judgements(judgements)
    place = data if collection is None else f"{data}, collection {collection}"
    data = o.of_tenant(data, tenant)
    if collection is not None and encoder is None and tokens_vector is None:
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
            quantizations=i.with_codes(quantization),
            candidates=depths,
            seed=seed,
            progress=not as_json,
        )
        result = replace(measured, notes=[*measured.notes, *found.notes])
    asked_of = "pseudo-queries" if queries is None else f"queries of {queries}"
    result = replace(result, source=f"{place}: {result.source}; {asked_of}")
    if report is not None:
        page = write_report(result, report)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, default=str))
        return
    _print(result)
    if report is not None:
        print(f"\n{page}")


def _of_collection(
    target: str,
    collection: str,
    queries: Path | None,
    query_ids: Path | None,
    pseudo: int,
    judged: Judgements | None,
    truth: Literal["exact_search", "sample"],
    sample: int,
    depths: list[int],
    seed: int,
    quiet: bool,
    quantization: list[str] | None,
) -> Evaluation:
    if quantization is not None:
        raise WrongUsage("--quantization applies to files only: a collection has its own quantization")
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
            truth=truth,
            sample=sample,
            candidates=depths,
            seed=seed,
            progress=not quiet,
        )


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise WrongUsage(f"--candidates takes numbers with commas between them (20,100,200), got {text!r}") from error


def _print(result: Evaluation) -> None:
    console = o.console()
    asked = "queries" if result.queries_are == "given" else "pseudo-queries"
    console.print(f"{result.documents:,} documents, {result.queries} {asked}")
    for name, value in origin(result):
        console.print(f"{name}: {value}", markup=False)
    for content in tables(result):
        table = o.table(*content.header, title=content.heading, left=content.left)
        for row in content.rows:
            table.add_row(*row)
        console.print()
        console.print(table)
        console.print(content.text, markup=False)
    for note in result.notes:
        console.print(f"\nNote: {note}", markup=False)
