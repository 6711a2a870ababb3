"""``muvera diagnose``: finds the encoding that fits the given vectors."""

from __future__ import annotations

import json

from rich.table import Table

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.evidence.diagnosis import Diagnosis
from muvera_adapters.evidence.diagnosis import diagnose as diagnose_tokens
from muvera_adapters.evidence.recommendation import SAMPLE
from muvera_adapters.evidence.report import show

EXAMPLES = o.examples(
    "muvera diagnose docs.npz --queries queries.npz",
    f"muvera diagnose {o.EXAMPLE} --collection docs",
)


def diagnose(
    data: o.Data,
    queries: o.Queries = None,
    recall: i.Recall = 0.95,
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
    """Describe token vectors, and say which encoding fits them and why."""
    data = o.of_tenant(data, tenant)
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
    asked = None if queries is None else i.read_queries(queries, None, None, 0, seed)
    result = diagnose_tokens(found.documents, asked, recall=recall, sample=sample, seed=seed, progress=not as_json)
    if as_json:
        content = result.to_dict()
        print(json.dumps({**content, "notes": content["notes"] + found.notes}, indent=2))
        return
    console = o.console()
    console.print(_table(result))
    for problem in result.problems:
        console.print(f"Problem: {problem}", markup=False)
    console.print(f"\n[bold]{result.advice}[/bold]")
    for reason in result.reasons:
        console.print(f"- {reason}", markup=False)
    for note in [*result.notes, *found.notes]:
        console.print(f"\nNote: {note}", markup=False)


def _table(d: Diagnosis) -> Table:
    table = o.table("", "", left=2)
    table.show_header = False
    counts = d.token_counts
    asked = "queries" if d.queries_are == "given" else "pseudo-queries"
    rows = {
        "documents, tokens, dimensions": f"{d.documents:,}, {d.tokens:,}, {d.dim}",
        "tokens of a document": f"{counts.min:.0f} to {counts.max:.0f}, median {counts.median:.0f}",
        "all-zero, not finite, duplicate": f"{d.empty_rows:,}, {d.bad_rows:,}, {d.duplicate_rows:,}",
        "norms": "1" if d.unit_norm else f"{d.norms.min:.3g} to {d.norms.max:.3g}, median {d.norms.median:.3g}",
        "mean cosine of two tokens": f"{d.mean_cosine:.3f}",
        "squared norm of the mean": f"{d.mean_norm2:.3f}",
        "dimensions for 50, 90, 99 % of variance": ", ".join(str(n) for n in d.dims_for.values()),
        "fullest of 32 partitions": f"{d.plain.fullest:.1%}, {d.fitted.fullest:.1%} when fitted",
        "partitions a document occupies": f"{d.plain.occupied:.1f}, {d.fitted.occupied:.1f} when fitted",
        "spread of MaxSim a query token": f"{d.maxsim_spread:.4f} ({d.queries} {asked})",
        "correlation of FDE and MaxSim": f"{d.fde_correlation:.3f}, {d.fitted_correlation:.3f} when fitted",
        f"recall at {d.candidates} candidates, FDE": show(d.fde_recall),
        f"recall at {d.candidates} candidates, fitted FDE": show(d.fitted_recall),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
