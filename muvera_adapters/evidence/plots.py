"""Figures of an evaluation, as SVG text (matplotlib)."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import MissingExtra

if TYPE_CHECKING:
    from muvera_adapters.evidence.evaluation import Curve, Evaluation

_COLOURS = ("#2563a8", "#d1651a", "#2f8f5b", "#8b4ba3", "#b3382c", "#5b6770")
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e6e9",
    "axes.edgecolor": "#7a828c",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "muvera",  # so that the same figure gives the same file
}


def recall_by_candidates(evaluation: Evaluation, k: int) -> str:
    """Recall of the exact top k by number of candidates, with its interval; one line for each curve."""
    figure, axes = _axes("candidates", f"recall of the exact top {k}")
    axes.set_xscale("log")
    for i, curve in enumerate(evaluation.curves):
        points = [p for p in curve.points if k in p.recall and p.candidates >= k]
        if not points:
            continue
        x = [p.candidates for p in points]
        colour, style = _look(evaluation, i)
        axes.plot(x, [p.recall[k].mean for p in points], style, color=colour, label=curve.name, markersize=3)
        low, high = [p.recall[k].low for p in points], [p.recall[k].high for p in points]
        axes.fill_between(x, low, high, color=colour, alpha=0.10, linewidth=0)
    _plain_ticks(axes, [p.candidates for p in evaluation.curves[0].points])
    axes.set_ylim(top=1.01)
    axes.legend(loc="lower right", frameon=False)
    return _svg(figure)


def recall_by_bytes(evaluation: Evaluation, k: int, candidates: int) -> str:
    """Recall of the exact top k at one number of candidates, by the bytes per document that the first stage reads."""
    figure, axes = _axes("bytes per document that the first stage reads", f"recall of the exact top {k}")
    axes.set_xscale("log")
    shown = []
    for i, curve in enumerate(evaluation.curves):
        point = next((p for p in curve.points if p.candidates == candidates and k in p.recall), None)
        if point is None:
            continue
        recall, x = point.recall[k], curve.bytes_per_document["compared"]
        colour, style = _look(evaluation, i)
        errors = [[recall.mean - recall.low], [recall.high - recall.mean]]
        fill = colour if style == "o-" else "white"
        axes.errorbar([x], [recall.mean], errors, fmt="o", color=colour, mfc=fill, capsize=3, label=curve.name)
        shown.append(x)
    _plain_ticks(axes, sorted({round(x) for x in shown}))
    axes.set_title(f"at {candidates:,} candidates; bars: 95 % interval over queries", fontsize=9, loc="left")
    axes.margins(x=0.2)
    # outside the axes, because points can be anywhere in them
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, frameon=False)
    return _svg(figure)


def recall_by_latency(evaluation: Evaluation, k: int) -> str | None:
    """Recall of the exact top k by median latency; None if no database was measured."""
    curves = [(i, c) for i, c in enumerate(evaluation.curves) if any(p.latency for p in c.points)]
    if not curves:
        return None
    figure, axes = _axes("median latency of both stages, ms", f"recall of the exact top {k}")
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    labelled: list[list[tuple[float, float, int]]] = []
    for i, curve in curves:
        points = [p for p in curve.points if p.latency and k in p.reranked and p.candidates >= k]
        colour, _ = _look(evaluation, i)
        x = [p.latency.p50_ms for p in points if p.latency]
        axes.plot(x, [p.reranked[k].mean for p in points], "o-", color=colour, label=curve.name, markersize=3)
        # curves are close to each other, so every second one has its labels above its points
        offset = (3, 4) if len(labelled) % 2 else (3, -9)
        labelled.append(list(zip(x, [p.reranked[k].mean for p in points], [p.candidates for p in points], strict=True)))
        for place, recall, candidates in _apart(labelled[-1]):
            note = {"fontsize": 7, "xytext": offset, "textcoords": "offset points", "color": colour}
            axes.annotate(f"{candidates:,}", (place, recall), **note)
    exact = evaluation.exact_latency.p50_ms
    axes.axvline(exact, color="#7a828c", linestyle=":", label=f"exact MaxSim over all, {exact:.1f} ms")
    axes.set_title("numbers at the points: candidates", fontsize=9, loc="left")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_ylim(top=1.01)
    # below the axes, because lines can be anywhere in them
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, frameon=False)
    return _svg(figure)


def _apart(points: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """The points (latency, recall, candidates) whose labels do not overlap, always with the last point."""
    found: list[tuple[float, float, int]] = []
    for point in reversed(points):
        near = any(abs(math.log10(x / point[0])) < 0.06 and abs(y - point[1]) < 0.03 for x, y, _ in found)
        if not near:
            found.append(point)
    return found


def _axes(x: str, y: str) -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("matplotlib", "eval") from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.7), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _look(evaluation: Evaluation, i: int) -> tuple[str, str]:
    """Colour and line style of a curve: one colour for each encoder, and dashed lines for brute force."""
    curve: Curve = evaluation.curves[i]
    encoders = list(dict.fromkeys(c.fingerprint for c in evaluation.curves))
    colour = _COLOURS[encoders.index(curve.fingerprint) % len(_COLOURS)]
    return colour, "o--" if curve.how == "brute force" else "o-"


def _plain_ticks(axes: Any, values: list[int]) -> None:
    axes.set_xticks(values, [f"{v:,}" for v in values])
    axes.minorticks_off()


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # the header before the element is for standalone files; the page sets the size
    svg = out.getvalue()[out.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg height="[^"]*" width="[^"]*"', r"<svg \1", svg, count=1
    )
