"""Recall of encodings, by scanning all documents and through a real index, on the same vectors in one run.

What is measured how: ``benchmarks/recall.py``; what a set may be: ``benchmarks/sets.py``. A group of rows takes
minutes, so run some at a time: the JSON file keeps the other groups' rows, and is written after each row. The rows of a
group are compared with its first one.

    python -m benchmarks.quality [--sets pydocs pydocs:direction=1.5 FILE.npz] [--groups sizes codes] [--json FILE]
    python -m benchmarks.quality --plot docs/figures/bytes.svg

The plot shows the groups "sizes" and "regression" of all sets in the JSON file and needs the extra ``eval``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recall import SCAN, Index, Remembered, Setting, by_query, interval, measure, table
from benchmarks.sets import Data, load
from muvera_adapters.qdrant.collection import Preset
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch, pool_tokens

Rows = list[dict[str, Any]]
# of the plot
KINDS = {
    "FDE, two-bit": "tab:blue",
    "FDE, int8": "tab:orange",
    "FDE of independent draws, two-bit": "0.6",
    "FDE of independent draws, int8": "black",
    "regression": "tab:red",
}

# the paper's independent draws, in the sizes of fastembed's default
PAPER = {"r_reps": 20, "k_sim": 5, "d_proj": 16, "algorithm": "muvera-1"}
# r_reps, k_sim, d_proj and codes
SIZES: tuple[tuple[int, int, int, Preset], ...] = (
    (40, 3, 8, "turbo2"),
    (20, 2, 8, "turbo2"),
    (40, 3, 8, "int8"),
    (40, 4, 16, "turbo2"),
)
# other shapes of 2,560 and of 10,240 dimensions
SHAPES = (
    (40, 3, 8),
    (80, 2, 8),
    (20, 4, 8),
    (20, 3, 16),
    (40, 4, 16),
    (160, 3, 8),
    (80, 4, 8),
    (40, 5, 8),
    (20, 5, 16),
)
TWO: tuple[Preset, ...] = ("int8", "turbo2")
CODES: tuple[Preset | None, ...] = (None, "int8", "turbo4", "turbo2", "binary")


def sizes(data: Data) -> Iterator[Setting]:
    """FDEs of 160 to 2,560 bytes, and FDEs of the paper for comparison."""
    for kind in TWO:
        yield Setting(f"20 x 32 x 16, muvera-1, {kind}", _fde(data, **PAPER), Index(kind))
    for r, k, p, kind in SIZES:
        yield Setting(f"{r} x {2**k} x {p}, {kind}", _fde(data, r_reps=r, k_sim=k, d_proj=p), Index(kind))


def shapes(data: Data) -> Iterator[Setting]:
    """FDEs of two sizes, more or fewer repetitions, partitions and dimensions."""
    for r, k, p in SHAPES:
        yield Setting(f"{r} x {2**k} x {p} = {r * 2**k * p:,}", _fde(data, r_reps=r, k_sim=k, d_proj=p))


def options(data: Data) -> Iterator[Setting]:
    """The default FDE, and it with one option changed."""
    yield Setting("default", _fde(data))
    yield Setting("algorithm muvera-1", _fde(data, r_reps=40, k_sim=3, d_proj=8, algorithm="muvera-1"))
    yield Setting("not scaled", _fde(data, normalize=False))
    yield Setting("fitted (mean kept)", lambda seed: FDEEncoder.fit(_config(data, seed), data.documents))


def codes(data: Data) -> Iterator[Setting]:
    """The default FDE in all codes."""
    for kind in CODES:
        yield Setting(f"{kind or 'float32'}", _fde(data), Index(kind))


def regression(data: Data) -> Iterator[Setting]:
    """Regression encoders fitted to a random half of the documents; recall of the documents in the other half."""
    order = np.random.default_rng(0).permutation(len(data.documents))
    inside, outside = order[: len(order) // 2], frozenset(order[len(order) // 2 :].tolist())
    half = replace(data, documents=TokenBatch.from_list(data.documents[int(i)] for i in inside))
    yield Setting("40 x 8 x 8, turbo2", _fde(data), among=outside)
    for dim in (256, 512):
        for kind in TWO:
            yield Setting(f"regression {dim:,}, {kind}", _regression(half, dim), Index(kind), among=outside)


def graph(data: Data) -> Iterator[Setting]:
    """What the graph loses, and what a larger ef gets back."""
    yield Setting("all documents", _fde(data), Index(graph=SCAN))
    for ef in (200, 400, 1000):
        yield Setting(f"graph, ef {ef:,}", _fde(data), Index(ef=ef))


def default(data: Data) -> Iterator[Setting]:
    """The default and the largest earlier setting, for sets that are only used to judge."""
    yield Setting("20 x 32 x 16, muvera-1, int8", _fde(data, **PAPER), Index("int8"))
    yield Setting("40 x 8 x 8, turbo2", _fde(data))


def pooling(data: Data) -> Iterator[Setting]:
    """Documents of fewer tokens; the truth is that of all tokens."""
    for factor in (1, 2, 3, 4):
        pooled = pool_tokens(data.documents, factor) if factor > 1 else data.documents
        yield Setting(f"FDE 2,560, pooled by {factor}", _fde(data), documents=pooled)
        own = _regression(replace(data, documents=pooled), 1024)
        yield Setting(f"regression 1,024 fitted to pooled by {factor}", own, Index("int8"), documents=pooled)


GROUPS: dict[str, Callable[[Data], Iterator[Setting]]] = {
    "default": default,
    "sizes": sizes,
    "shapes": shapes,
    "options": options,
    "codes": codes,
    "regression": regression,
    "graph": graph,
    "pooling": pooling,
}


def _config(data: Data, seed: int, **sizes: Any) -> FDEConfig:
    return FDEConfig(data.documents.dim, seed=seed, **sizes)


def _fde(data: Data, **sizes: Any) -> Callable[[int], Encoder]:
    return lambda seed: FDEEncoder(_config(data, seed, **sizes), threads=1)


def _regression(data: Data, dim: int) -> Callable[[int], Encoder]:
    return partial(_fitted, data, dim)


@lru_cache(maxsize=3)  # a row's seeds, for the next row with other codes
def _fitted(data: Data, dim: int, seed: int) -> Encoder:
    return Remembered(RegressionEncoder.fit(data.documents, dim, seed))


def plot(results: dict[str, dict[str, Rows]], path: Path) -> None:
    """Bytes against recall through the index, one panel for each set with the group "sizes"."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    names = [name for name, groups in results.items() if groups.get("sizes")]
    figure, panels = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), squeeze=False, sharey=True)
    for name, panel in zip(names, panels[0], strict=True):
        both = [*results[name]["sizes"], *results[name].get("regression", [])[1:]]
        for which, style in ((0, "o:"), (1, "o-")):
            for kind, colour in KINDS.items():
                rows = sorted((row for row in both if _kind(row) == kind), key=lambda row: int(row["bytes"]))
                if not rows:
                    continue
                intervals = [interval(by_query(row, "index"))[which] for row in rows]
                means = [i.mean for i in intervals]
                errors = [[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]]
                label = f"{kind}, {(20, 100)[which]} candidates"
                sizes = [row["bytes"] for row in rows]
                panel.errorbar(sizes, means, errors, fmt=style, color=colour, ms=4, lw=1, label=label)
        panel.set(xscale="log", xlabel="bytes of codes a document")
        panel.set_title(name, fontsize=9)
        ticks = sorted({row["bytes"] for row in both})
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("of the exact top 10 among them")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    figure.tight_layout()
    with plt.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")


def _kind(row: dict[str, Any]) -> str:
    if row["setting"].startswith("regression"):
        return "regression"
    codes = "int8" if row["codes"] == "int8" else "two-bit"
    return f"FDE of independent draws, {codes}" if "muvera-1" in row["setting"] else f"FDE, {codes}"


def main() -> None:
    """Prints a table for each group of each set, and writes JSON; or draws the plot from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["pydocs", "pydocs:direction=1.5"])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/quality.json"))
    parser.add_argument("--plot", type=Path, help="draw the figure from the JSON file, measure nothing")
    arguments = parser.parse_args()
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    if arguments.plot:
        plot(results, arguments.plot)
        return
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets:
        data = load(name)
        print(f"\n{data}", flush=True)
        for group in arguments.groups:
            rows: Rows = []
            results.setdefault(data.name, {})[group] = rows
            for setting in GROUPS[group](data):
                rows.append(measure(setting, data, arguments.seeds))
                arguments.json.write_text(json.dumps(results))
            print(f"\n{group}\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
