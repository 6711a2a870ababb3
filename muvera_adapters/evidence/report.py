"""Reports of an evaluation: one self-contained HTML page, and the same as Markdown and JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.evidence import plots
from muvera_adapters.evidence.evaluation import SHOWN, Curve, Evaluation, Example
from muvera_adapters.evidence.measuring import Interval

NAMES = ("evaluation.html", "evaluation.md", "evaluation.json")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        heading: heading of the table.
        text: explanation of the table.
        header: titles of the columns.
        rows: cells by row.
        left: number of leading columns with words; the others have numbers.
    """

    heading: str
    text: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1


def write_report(
    evaluation: Evaluation, directory: str | os.PathLike[str], *, title: str = "Recall of exact MaxSim"
) -> Path:
    """Writes ``evaluation.html``, ``.md`` and ``.json`` into a directory, replacing files of these names.

    Args:
        evaluation: result to report.
        directory: directory of the files; it is created if missing.
        title: title of the page.

    Returns:
        The path of the HTML page.

    Raises:
        MissingExtra: ``eval`` is not installed.
        InvalidInput: the directory cannot be written to.
    """
    check_report(directory)
    page = html(evaluation, title)
    texts = (page, markdown(evaluation, title), json.dumps(evaluation.to_dict(), indent=2, default=str) + "\n")
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in zip(NAMES, texts, strict=True):
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be written to: {error}") from error
    return directory / NAMES[0]


def check_report(directory: str | os.PathLike[str]) -> None:
    """Checks that a report can be written, before anything is measured.

    Raises:
        MissingExtra: ``eval`` is not installed.
        InvalidInput: the directory cannot be written to.
    """
    for module in ("jinja2", "matplotlib"):
        if find_spec(module) is None:
            raise MissingExtra(module, "eval")
    there = Path(directory).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = f"no permission for {there}" if there.is_dir() else f"{there} is not a directory"
        raise InvalidInput(f"{directory} cannot be written to: {reason}")


def html(evaluation: Evaluation, title: str) -> str:
    """The report as an HTML page.

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
            origin=origin(evaluation),
            figures=_figures(evaluation),
            tables=tables(evaluation),
            version=version("muvera-adapters"),
        )
    )


def markdown(evaluation: Evaluation, title: str) -> str:
    """The report as Markdown, without figures."""
    lines = [f"# {title}", "", ", ".join(f"{name}: {value}" for name, value in _facts(evaluation)) + "."]
    lines += ["", *(f"- {name}: {value}" for name, value in origin(evaluation))]
    for note in evaluation.notes:
        lines += ["", f"**Note.** {note}"]
    for table in tables(evaluation):
        lines += ["", f"## {table.heading}", "", table.text, "", _line(table.header)]
        marks = ["---" if i < table.left else "---:" for i in range(len(table.header))]
        lines += ["|" + "|".join(marks) + "|", *map(_line, table.rows)]
    return "\n".join([*lines, "", f"muvera-adapters {version('muvera-adapters')}, seed {evaluation.seed}.", ""])


def tables(evaluation: Evaluation) -> list[Table]:
    """All results as tables: the comparison, each curve by number of candidates, quality, examples and settings."""
    found = [_compared(evaluation), *(_by_candidates(evaluation, curve) for curve in evaluation.curves)]
    found += [_sizes(evaluation), *_qualities(evaluation), *map(_example, evaluation.examples)]
    return [*found, _settings(evaluation)]


def shown_candidates(evaluation: Evaluation) -> int:
    """The number of candidates at which the curves are compared."""
    depths = [p.candidates for p in evaluation.curves[0].points]
    return min(depths, key=lambda n: abs(n - SHOWN))


def _compared(evaluation: Evaluation) -> Table:
    n, k = shown_candidates(evaluation), _top(evaluation)
    rows = []
    for curve in evaluation.curves:
        point = next((p for p in curve.points if p.candidates == n), None)
        recall = show(point.recall[k]) if point is not None and k in point.recall else ""
        latency = f"{point.latency.p50_ms:.1f}" if point is not None and point.latency else ""
        rows.append([curve.name, f"{curve.bytes_per_document['compared']:,.0f}", recall, latency])
    exact = evaluation.exact_latency
    text = (
        f"Recall: share of the exact top {k} among {n:,} candidates, which is also the recall after exact reranking, "
        "with its 95 % bootstrap interval over queries. Bytes: bytes per document that the first stage reads, in "
        "memory. Latency: of both stages; exact MaxSim over everything takes "
        f"{exact.p50_ms:.1f} ms (p50) and {exact.p95_ms:.1f} ms (p95)."
    )
    return Table(f"At {n:,} candidates", text, ["way", "bytes", f"recall of the top {k}", "p50 ms"], rows)


def _by_candidates(evaluation: Evaluation, curve: Curve) -> Table:
    tops = sorted({k for p in curve.points for k in p.recall})
    timed = any(p.latency for p in curve.points)
    header = ["candidates", *(f"top {k}" for k in tops), *(["p50 ms", "p95 ms"] if timed else [])]
    rows = []
    for p in curve.points:
        # recall of the top k means nothing with fewer than k candidates
        cells = [show(p.recall[k]) if k in p.recall and p.candidates >= k else "" for k in tops]
        times = [f"{p.latency.p50_ms:.1f}", f"{p.latency.p95_ms:.1f}"] if p.latency else [""] * 2 * timed
        rows.append([f"{p.candidates:,}", *cells, *times])
    text = (
        "Share of the exact top among the candidates, with its 95 % interval over queries. Empty: too few candidates."
    )
    if timed:
        text += " Latency: median and 95th percentile, both stages."
    return Table(f"Recall: {curve.name}", text, header, rows, left=0)


def _sizes(evaluation: Evaluation) -> Table:
    rows = [
        [c.name, f"{c.dim:,}", *(f"{c.bytes_per_document[part]:,.0f}" for part in ("compared", "encoding", "tokens"))]
        for c in evaluation.curves
    ]
    text = (
        "Compared: bytes that the first stage reads of each document that it compares, in memory. Encoding: bytes of "
        "the stored encoding. Tokens: bytes that reranking reads of each candidate. Graph links are not counted."
    )
    return Table("Bytes per document", text, ["way", "dimensions", "compared", "encoding", "tokens"], rows)


def _example(example: Example) -> Table:
    kind = "A query gained" if example.kind == "gained" else "A query lost"
    rows = [[f"{p.exact}", f"{p.document}", _rank(p.first_stage), _rank(p.two_stages)] for p in example.places]
    n, top = example.candidates, len(example.places)
    text = (
        f"Query {example.query}, {example.curve}: the first {top} documents of the first stage have "
        f"{example.alone:.0%} of the exact top {top}; after exact reranking of {n:,} candidates it is "
        f"{example.reranked:.0%}. "
    )
    if example.kind == "gained":
        text += "Reranking improves this query most."
    else:
        text += "This query misses most. A dash marks documents that are not among the candidates."
    return Table(kind, text, ["exact rank", "document", "first stage", "two stages"], rows, left=2)


def _rank(rank: int | None) -> str:
    return "-" if rank is None else f"{rank:,}"


def _settings(evaluation: Evaluation) -> Table:
    skipped = ("fingerprint", "type", "dim", "token_dim")
    rows = []
    for curve in {c.fingerprint: c for c in evaluation.curves}.values():
        own = curve.settings
        more = ", ".join(f"{name} {value}" for name, value in own.items() if name not in skipped)
        rows.append([curve.encoder, f"{own.get('token_dim', '')}", curve.fingerprint, more or "state in a file"])
    text = "The measured encoders: width of the token vectors, fingerprint, and settings."
    return Table("Encoders", text, ["encoder", "width", "fingerprint", "settings"], rows, left=4)


def _top(evaluation: Evaluation) -> int:
    tops = sorted({k for curve in evaluation.curves for p in curve.points for k in p.recall})
    return 10 if 10 in tops else tops[0]


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
    text = "Quality by the given judgements, computed with ir-measures."
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


def origin(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Source, time and machine of the measurement, as names and values."""
    where = ", ".join(
        f"{name} {value}" if name not in ("processor", "system") else value
        for name, value in evaluation.machine.items()
    )
    found = [
        ("measured", evaluation.source),
        ("when", f"{evaluation.began}, in {evaluation.seconds:,.0f} s"),
        ("where", where),
        ("truth", evaluation.truth),
        ("seed", f"{evaluation.seed}"),
    ]
    return [(name, value) for name, value in found if value]


def _figures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    k = _top(evaluation)
    asked = "queries" if evaluation.queries_are == "given" else "pseudo-queries"
    found = [
        (
            "Recall by number of candidates",
            f"The share of the exact top {k} among the candidates; bands: 95 % interval over {asked}. Dashed: "
            "encodings compared in float32 with all others. Solid: through an index.",
            plots.recall_by_candidates(evaluation, k),
        )
    ]
    shown = shown_candidates(evaluation)
    found.append(
        (
            "Recall by bytes",
            "Recall that a smaller or quantized encoding loses.",
            plots.recall_by_bytes(evaluation, k, shown),
        )
    )
    latency = plots.recall_by_latency(evaluation, k)
    if latency is not None:
        found.append(("Recall by latency", "Latency of both stages, with one query at a time.", latency))
    return found


def show(interval: Interval) -> str:
    """A mean and its interval."""
    return f"{interval.mean:.3f} ({interval.low:.2f}\u2013{interval.high:.2f})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
