"""``muvera quickstart``: a real PLAID index searched in two stages by an embedded database."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from muvera_adapters.cli import options as o
from muvera_adapters.databases import LOCAL, Database, local_spec
from muvera_adapters.errors import CollectionNotFound
from muvera_adapters.evidence.measuring import Measured, exact_top, measure
from muvera_adapters.progress import progress_bar
from muvera_adapters.samples import Sample, docstring, load_pydocs
from muvera_adapters.stores.protocol import Store
from muvera_core import FDEConfig, FDEEncoder, TokenBatch

COLLECTION = "pydocs"
PREFETCH = 200
CANDIDATES = (20, 50, 100, 200, 400)
SHOWN = (7, 28, 36)  # questions printed with their answers


@dataclass(frozen=True)
class _Row:
    mode: str
    candidates: int | None
    measured: Measured

    def to_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "candidates": self.candidates, **asdict(self.measured)}


EXAMPLES = o.examples("muvera quickstart", "muvera quickstart --data data --json")


def quickstart(
    data: Annotated[
        Path,
        o.option("--data", metavar="DIR", help="Directory for the collection. An existing collection is used again."),
    ] = Path("muvera-data"),
    as_json: o.Json = False,
) -> None:
    """Search 2,041 docstrings of the Python standard library, and measure it.

    It reads a PLAID index that comes with the package, encodes it, loads it into an embedded database, asks 55
    questions, and compares the answers with exact MaxSim. No model and no server are needed.
    """
    started = time.perf_counter()
    console = Console(quiet=as_json, highlight=False)
    sample = load_pydocs()
    documents = _decode(sample, quiet=as_json)
    encoder = FDEEncoder(FDEConfig(sample.source.dim))
    with Database(f"{LOCAL}:{data}") as database:
        store = _load(database, data, encoder, sample, documents, console, quiet=as_json)
        exact = exact_top(sample.queries, documents, sample.ids, 10)
        relevant = [q.relevant for q in sample.questions]

        def row(mode: str, search: Any, candidates: int | None = None) -> _Row:
            return _Row(mode, candidates, measure(search, sample.queries, exact, relevant))

        progress = progress_bar(total=len(CANDIDATES) + 2, desc="ask 55 questions", unit="run", disable=as_json)
        with progress:
            rows = [row("fde", lambda q: store.search(q, rerank="none"))]
            progress.update()
            curve = []
            for n in CANDIDATES:
                curve.append(row("two_stage", lambda q, n=n: store.search(q, prefetch=n), n))
                progress.update()
            rows.append(next(r for r in curve if r.candidates == PREFETCH))
            rows.append(row("exact", store.exact_search))
            progress.update()
        sizes = _bytes_per_document(store, documents)
        answers = {i: store.search(sample.queries[i], limit=3, prefetch=PREFETCH) for i in SHOWN}
    seconds = time.perf_counter() - started
    if as_json:
        result = {
            "documents": len(documents),
            "tokens": len(documents.values),
            "questions": len(sample.questions),
            "fde_dim": encoder.dim,
            "rows": [r.to_dict() for r in rows],
            "recall_by_candidates": [r.to_dict() for r in curve],
            "bytes_per_document": sizes,
            "seconds": seconds,
        }
        print(json.dumps(result, indent=2))
        return
    _print_tables(console, rows, curve, sizes, sample, documents)
    _print_answers(console, sample, answers)
    _print_next(console, data, seconds)


def _decode(sample: Sample, *, quiet: bool) -> TokenBatch:
    found = progress_bar(
        sample.source.documents(), total=len(sample.source), desc="read PLAID index", unit="doc", disable=quiet
    )
    return TokenBatch.from_list(document.tokens for document in found)


def _load(
    database: Database,
    data: Path,
    encoder: FDEEncoder,
    sample: Sample,
    documents: TokenBatch,
    console: Console,
    *,
    quiet: bool,
) -> Store:
    """Opens or creates the collection and loads all documents; continues an interrupted load."""
    try:
        store = database.open(COLLECTION, encoder)
    except CollectionNotFound:
        store = database.create(COLLECTION, encoder)
    if store.count() == len(documents):
        console.print(f"{len(documents):,} documents are in {data / COLLECTION} already")
        return store
    console.print("prepare the encoder (its first use on a machine compiles it) ...")
    encoder.encode_documents(documents[:1])
    store.upsert(sample.ids, documents, progress=not quiet)
    console.print("build the index (HNSW over quantized codes) ...")
    store.wait_indexed()
    return store


def _bytes_per_document(store: Store, documents: TokenBatch) -> dict[str, float]:
    info, values = store.info(), documents.values.size / len(documents)
    return {
        "fde_codes": info.code_bytes / info.documents,
        "fde_float16_on_disk": info.fde_bytes / info.documents,
        "tokens_float16": 2 * values,
    }


_NAMES = {
    "fde": "FDE alone",
    "two_stage": f"two stages, {PREFETCH} candidates",
    "exact": "exact MaxSim over all",
}


def _print_tables(
    console: Console,
    rows: list[_Row],
    curve: list[_Row],
    sizes: dict[str, float],
    sample: Sample,
    documents: TokenBatch,
) -> None:
    console.print(
        f"\n{len(documents):,} docstrings, {len(documents.values):,} token vectors, {len(sample.questions)} questions"
    )
    table = o.table("search", "recall@10", "answered@10", "p50 ms", "p95 ms")
    for r in rows:
        m = r.measured
        table.add_row(
            _NAMES[r.mode], f"{m.recall_at_10:.3f}", f"{m.success_at_10:.0%}", f"{m.p50_ms:.1f}", f"{m.p95_ms:.1f}"
        )
    console.print(table)
    console.print("recall@10: share of the exact MaxSim top 10 that is found")
    console.print("answered@10: share of the questions with a right answer among the first 10")
    table = o.table("candidates", *(str(r.candidates) for r in curve))
    table.add_row("recall@10", *(f"{r.measured.recall_at_10:.3f}" for r in curve))
    table.add_row("p50 ms", *(f"{r.measured.p50_ms:.1f}" for r in curve))
    console.print(table)
    table = o.table("part", "bytes of a document", "read when")
    table.columns[-1].justify = "left"
    table.add_row("codes of the FDE (HNSW)", f"{sizes['fde_codes']:,.0f}", "searching, in memory")
    table.add_row("FDE, float16 on disk", f"{sizes['fde_float16_on_disk']:,.0f}", "indexing")
    table.add_row("tokens, float16", f"{sizes['tokens_float16']:,.0f}", "reranking candidates")
    console.print(table)


def _print_answers(console: Console, sample: Sample, answers: dict[int, Any]) -> None:
    for i, hits in answers.items():
        console.print(f"\n[bold]{sample.questions[i].text}[/bold]")
        for hit in hits:
            text = docstring(hit.id)
            line = text.splitlines()[0] if text else "(not in this Python)"
            mark = "*" if hit.id in sample.questions[i].relevant else " "
            console.print(f" {mark} {hit.score:6.2f}  {hit.id}: {line}", markup=False, soft_wrap=True)
    console.print("   (* an answer known to be right)")


def _print_next(console: Console, data: Path, seconds: float) -> None:
    # call it as this command was called: the virtual environment may not be on the path
    command = "python -m muvera_adapters" if Path(sys.argv[0]).name == "__main__.py" else sys.argv[0]
    module, _, store = local_spec().store.partition(":")
    console.print(
        f"\nDone in {seconds:.0f} s. The collection is in {data / COLLECTION}; delete {data} to start again. Next:\n"
        f"  {command} quickstart --data {data} --json   # the figures for a script\n"
        f"  {command} -h   # migrate or backfill a collection of your own, measure, search\n"
        "  in Python:\n"
        f"    from {module} import {store}\n"
        "    from muvera_adapters.samples import load_pydocs\n"
        f'    store = {store}.open("{data}", "{COLLECTION}")\n'
        "    store.search(load_pydocs().queries[0], limit=10, prefetch=200)",
        markup=False,
        soft_wrap=True,
    )
