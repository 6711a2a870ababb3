"""An evaluation as one HTML page without anything to load, with Markdown and JSON twins."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.evidence import plots
from muvera_adapters.evidence.evaluation import Curve, Evaluation
from muvera_adapters.evidence.measuring import Interval

NAMES = ("evaluation.html", "evaluation.md", "evaluation.json")
#: candidates that recall against bytes is shown at, the default of searches being 200
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text."""

    heading: str
    text: str
    header: list[str]
    rows: list[list[str]]


def write_report(
    evaluation: Evaluation, directory: str | os.PathLike[str], *, title: str = "Recall of exact MaxSim"
) -> Path:
    """Writes ``evaluation.html``, ``.md`` and ``.json`` into a directory, replacing files of these names.

    Args:
        evaluation: what was measured.
        directory: made if missing.
        title: of the page.

    Returns:
        The path of the HTML page.

    Raises:
        MissingExtra: ``eval`` is not installed.
        InvalidInput: the directory cannot be written to.
    """
    page = html(evaluation, title)
    texts = (page, markdown(evaluation, title), json.dumps(evaluation.to_dict(), indent=2) + "\n")
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in zip(NAMES, texts, strict=True):
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be written to: {error}") from error
    return directory / NAMES[0]


def html(evaluation: Evaluation, title: str) -> str:
    """The page.

    Raises:
        MissingExtra: ``eval`` is not installed.
    """
    try:
        from jinja2 import Environment
    except ModuleNotFoundError as error:
        raise MissingExtra("jinja2", "eval") from error
    template = (files("muvera_adapters.evidence") / "report.html.j2").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            evaluation=evaluation,
            facts=_facts(evaluation),
            figures=_figures(evaluation),
            tables=tables(evaluation),
            version=version("muvera-adapters"),
        )
    )


def markdown(evaluation: Evaluation, title: str) -> str:
    """The same without figures."""
    lines = [f"# {title}", "", ", ".join(f"{name}: {value}" for name, value in _facts(evaluation)) + "."]
    lines += ["", f"The truth: {evaluation.truth}."]
    for note in evaluation.notes:
        lines += ["", f"**Note.** {note}"]
    for table in tables(evaluation):
        lines += ["", f"## {table.heading}", "", table.text, "", _line(table.header)]
        lines += ["|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|", *map(_line, table.rows)]
    return "\n".join([*lines, "", f"muvera-adapters {version('muvera-adapters')}, seed {evaluation.seed}.", ""])


def tables(evaluation: Evaluation) -> list[Table]:
    """Everything measured, as tables: recall by k, what was searched, latency, and quality by judgements."""
    depths = sorted({p.candidates for curve in evaluation.curves for p in curve.points})
    found = []
    for k in sorted({k for curve in evaluation.curves for p in curve.points for k in p.recall}):
        heads = [f"{n:,}" for n in depths if n >= k]
        rows = [[c.name, *(_recall(c, k, n) for n in depths if n >= k)] for c in evaluation.curves]
        text = (
            f"By number of candidates: the share of the exact top {k} among them, which exact reranking then returns; "
            "in brackets the 95 % bootstrap interval over queries."
        )
        found.append(Table(f"Recall of the exact top {k}", text, ["", *heads], rows))
    rows = [
        [c.name, f"{c.dim:,}", *(f"{c.bytes_per_document[part]:,.0f}" for part in ("compared", "encoding", "tokens"))]
        for c in evaluation.curves
    ]
    text = (
        "Compared: what the first stage reads of every document it looks at, in memory. Encoding: as stored. Tokens: "
        "read of the candidates when they are reranked. Graph links are not counted."
    )
    header = ["", "dimensions", "compared", "encoding", "tokens"]
    found.append(Table("Bytes a document", text, header, rows))
    return [*found, *_latencies(evaluation, depths), *_qualities(evaluation)]


def _latencies(evaluation: Evaluation, depths: list[int]) -> list[Table]:
    rows = []
    for curve in evaluation.curves:
        by_depth = {p.candidates: p.latency for p in curve.points if p.latency}
        if by_depth:
            cells = [by_depth.get(n) for n in depths]
            rows.append([curve.name, *(f"{x.p50_ms:.1f} / {x.p95_ms:.1f}" if x else "" for x in cells)])
    if not rows:
        return []
    exact = evaluation.exact_latency
    text = (
        "Median / 95th percentile of both stages, by number of candidates. Exact MaxSim over everything: "
        f"{exact.p50_ms:.1f} / {exact.p95_ms:.1f} ms."
    )
    return [Table("Latency, ms", text, ["", *(f"{n:,}" for n in depths)], rows)]


def _qualities(evaluation: Evaluation) -> list[Table]:
    if not evaluation.exact_quality:
        return []
    names = list(evaluation.exact_quality)
    rows = [["exact MaxSim", *(f"{evaluation.exact_quality[name]:.3f}" for name in names)]]
    for curve in evaluation.curves:
        rows.append([f"{curve.name}: first stage alone", *_values(curve.alone, names)])
        rows += [
            [f"{curve.name}: {p.candidates:,} candidates reranked", *_values(p.quality, names)]
            for p in curve.points
            if p.quality
        ]
    text = "By the judgements given, computed by ir-measures."
    return [Table("Quality by judgements", text, ["", *names], rows)]


def _values(quality: dict[str, float], names: list[str]) -> list[str]:
    return [f"{quality[name]:.3f}" if name in quality else "" for name in names]


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    asked = "queries" if evaluation.queries_are == "given" else "pseudo-queries, drawn from documents"
    facts = [("documents", f"{evaluation.documents:,}"), (asked, f"{evaluation.queries:,}")]
    if evaluation.tokens is not None:
        facts.insert(1, ("token vectors", f"{evaluation.tokens:,}"))
    facts.append(("exact MaxSim, p50", f"{evaluation.exact_latency.p50_ms:.1f} ms"))
    return facts


def _figures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    tops = sorted({k for curve in evaluation.curves for p in curve.points for k in p.recall})
    k = 10 if 10 in tops else tops[0]
    asked = "queries" if evaluation.queries_are == "given" else "pseudo-queries"
    found = [
        (
            "Recall by number of candidates",
            f"The share of the exact top {k} among the candidates; bands: 95 % interval over {asked}. Dashed: "
            "encodings compared in float32 with all others. Solid: through an index.",
            plots.recall_by_candidates(evaluation, k),
        )
    ]
    depths = [p.candidates for p in evaluation.curves[0].points]
    shown = min(depths, key=lambda n: abs(n - _SHOWN))
    found.append(
        (
            "Recall by bytes",
            "What a smaller or quantized encoding costs in recall.",
            plots.recall_by_bytes(evaluation, k, shown),
        )
    )
    latency = plots.recall_by_latency(evaluation, k)
    if latency is not None:
        found.append(("Recall by latency", "Both stages, as the index answered them one at a time.", latency))
    return found


def _recall(curve: Curve, k: int, candidates: int) -> str:
    for p in curve.points:
        if p.candidates == candidates and k in p.recall:
            return show(p.recall[k])
    return ""


def show(interval: Interval) -> str:
    """A mean and its interval."""
    return f"{interval.mean:.3f} ({interval.low:.2f}\u2013{interval.high:.2f})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
