"""Draws the figures of concepts.md and tuning.md: python docs/figures/make.py (needs the extra ``eval``).

The curves of ``scale.svg`` are in ``scale.json``, the results of ``python -m benchmarks.scale`` (which takes long).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from muvera_adapters.evidence.measuring import exact_top, queries_of
from muvera_adapters.evidence.target_recall import GROWTH
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim

HERE = Path(__file__).parent
SIZES = (160, 640, 2560, 10_240)  # dimensions
CANDIDATES = (10, 20, 50, 100, 200, 400, 800)
SHOWN = 7  # the question of the scatter plot
TRIED = (20, 50, 100, 200, 500, 1000, 2000)  # numbers of candidates of scale.json
NAMES = {"edge": "Edge", "weaviate": "Weaviate", "qdrant": "Qdrant server"}


def save(figure: Any, name: str) -> None:
    """The same bytes in every run."""
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(HERE / name, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)


def blocks(config: FDEConfig, fde: np.ndarray) -> np.ndarray:
    """(r_reps * 2**k_sim, block_dim)."""
    return fde.reshape(-1, config.block_dim)


def encoding(name: str) -> None:
    """One repetition in the plane: which partition each token falls into, and what the FDEs hold."""
    config = FDEConfig(dim=2, r_reps=1, k_sim=3, d_proj=None, seed=5, normalize=False)
    encoder = FDEEncoder(config)
    document, query = _unit([-5, 37, 75, 100, 200]), _unit([3, 90, 310])

    figure, (plane, table) = plt.subplots(1, 2, figsize=(9, 3.9), width_ratios=(1, 1.25))
    degrees = np.arange(0, 360, 0.5)
    # a query is never filled, so the one block that is not zero is the token's partition
    rays = encoder.encode_queries([_unit([angle]) for angle in degrees])
    owner = np.array([int(np.flatnonzero(blocks(config, ray).any(axis=1))[0]) for ray in rays])
    first_line = int(np.flatnonzero(np.diff(owner))[0]) + 1
    owner, degrees = np.roll(owner, -first_line), np.append(degrees, degrees[:first_line] + 360)[first_line:]
    colours = plt.get_cmap("Pastel1")
    for start, stop in _runs(owner):
        arc = 1.25 * _unit(degrees[start : stop + 1])
        plane.fill(*np.vstack([np.zeros((1, 2)), arc]).T, color=colours(int(owner[start])))
        plane.text(*1.1 * arc[len(arc) // 2], str(owner[start]), ha="center", va="center")
    for tokens, marker, label in ((document, "o", "document's tokens"), (query, "^", "query's tokens")):
        plane.plot(*tokens.T, marker, color="black", mfc="black" if marker == "o" else "white", label=label)
    plane.set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    plane.axis("off")
    plane.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, frameon=False)
    plane.set_title("3 random lines cut the plane into partitions", fontsize=10)

    filled = blocks(config, encoder.encode_document(document))
    unfilled = blocks(
        config, FDEEncoder(FDEConfig(2, 1, 3, None, 5, fill_empty=False, normalize=False)).encode_document(document)
    )
    asked = blocks(config, encoder.encode_query(query))
    rows = []
    for b in range(config.n_partitions):
        what = "mean" if unfilled[b].any() else "nearest"
        rows.append(
            [
                str(b),
                "({:+.2f}, {:+.2f}) {}".format(*filled[b], what),
                "({:+.2f}, {:+.2f})".format(*asked[b]) if asked[b].any() else "0",
                f"{filled[b] @ asked[b]:+.2f}" if asked[b].any() else "",
            ]
        )
    estimate = float(filled.ravel() @ asked.ravel())
    exact = float(maxsim(query, [document])[0])
    rows.append(["", "", "sum", f"{estimate:+.2f}"])
    rows.append(["", "", "MaxSim", f"{exact:+.2f}"])
    shown = table.table(
        rows,
        colLabels=["partition", "document's FDE", "query's FDE", "product"],
        colWidths=[0.15, 0.44, 0.27, 0.17],
        cellLoc="center",
        loc="center",
    )
    shown.auto_set_font_size(False)
    shown.set_fontsize(8)
    shown.scale(1, 1.35)
    table.axis("off")
    save(figure, name)


def _unit(degrees: Any) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32)


def _runs(owner: np.ndarray) -> list[tuple[int, int]]:
    ends = [0, *(np.flatnonzero(np.diff(owner)) + 1), len(owner)]
    return list(itertools.pairwise(ends))


def estimates(name: str) -> None:
    """On the sample: the estimate beside MaxSim, and how many candidates hold the exact top 10."""
    sample = load_pydocs()
    documents = TokenBatch.from_list(d.tokens for d in sample.source.documents())
    queries = queries_of(sample.queries)
    truth = exact_top(sample.queries, documents, range(len(documents)), 10)
    figure, (scatter, curves) = plt.subplots(1, 2, figsize=(9, 3.6))

    encoder = FDEEncoder(FDEConfig(documents.dim))
    exact = maxsim(queries[SHOWN], documents)
    estimate = encoder.encode_documents(documents) @ encoder.encode_query(queries[SHOWN])
    scatter.scatter(estimate, exact, s=3, color="0.6", rasterized=True, label="2,041 documents")
    scatter.scatter(estimate[truth[SHOWN]], exact[truth[SHOWN]], s=14, color="tab:red", label="exact top 10")
    cut = float(np.sort(estimate)[-200])
    scatter.axvline(cut, color="tab:blue", lw=1)
    scatter.text(cut, exact.min(), " 200 candidates right of here", color="tab:blue", fontsize=8)
    scatter.set(xlabel=f"dot product of FDEs ({encoder.dim:,} dims)", ylabel="MaxSim")
    scatter.set_title(f"One question: “{sample.questions[SHOWN].text}”", fontsize=9)
    scatter.legend(frameon=False, fontsize=8, loc="upper left")

    for size in SIZES:
        config = FDEConfig.of_size(documents.dim, size)
        curves.plot(CANDIDATES, _recalls(FDEEncoder(config), documents, sample.queries, truth), "o-", ms=3,
                    label=f"{config.fde_dim:,} dims")  # fmt: skip
    curves.set(xscale="log", xlabel="candidates of 2,041", ylabel="of the exact top 10 among them", ylim=(0.3, 1.01))
    curves.set_xticks(CANDIDATES, [str(n) for n in CANDIDATES])
    curves.minorticks_off()
    curves.grid(alpha=0.3)
    curves.legend(frameon=False, fontsize=8)
    curves.set_title("All 55 questions", fontsize=9)
    figure.tight_layout()
    save(figure, name)


def _recalls(
    encoder: FDEEncoder, documents: TokenBatch, queries: TokenBatch, truth: Sequence[Sequence[Any]]
) -> list[float]:
    order = np.argsort(-(encoder.encode_documents(documents) @ encoder.encode_queries(queries).T), axis=0)
    return [
        float(np.mean([len(set(order[:n, q]) & set(top)) / len(top) for q, top in enumerate(truth)]))
        for n in CANDIDATES
    ]


def scale(name: str) -> None:
    """By the size of one collection: recall by candidates, the candidates that a recall needs, and time of a search."""
    rows = json.loads((HERE / "scale.json").read_text())
    scans = [row for key, row in rows.items() if key.startswith("scan, ")]
    encoders = list(dict.fromkeys(row["encoder"] for row in scans))
    figure, (curves, growth, time) = plt.subplots(1, 3, figsize=(13, 3.6))

    shown = [row for row in scans if row["encoder"] == encoders[0]]
    for shade, row in enumerate(shown):
        curves.plot(TRIED, row["recall"], "o-", ms=3, label=f"{row['documents']:,} documents",
                    color=plt.get_cmap("viridis")(shade / len(shown)))  # fmt: skip
    curves.set(xscale="log", xlabel="candidates", ylabel="of the exact top 10 among them", ylim=(0.3, 1.01))
    curves.set_xticks(TRIED, [str(n) for n in TRIED])
    curves.set_title(f"{encoders[0]}, float32", fontsize=9)

    for encoder, style in zip(encoders, ("o-", "s--", "^:"), strict=False):
        needed = [(row["documents"], row["needed"]["0.95"]) for row in scans if row["encoder"] == encoder]
        growth.plot(*zip(*needed, strict=True), style, ms=4, label=encoder)
    sizes = np.array([row["documents"] for row in shown])
    ruled = shown[0]["needed"]["0.95"] * (sizes / sizes[0]) ** GROWTH
    growth.plot(sizes, ruled, color="0.6", lw=1, label="what recommend projects")
    growth.set(xscale="log", yscale="log", xlabel="documents", ylabel="candidates for a recall of .95")
    growth.set_yticks((50, 100, 200, 500), ("50", "100", "200", "500"))
    growth.set_title("Growth with the collection", fontsize=9)

    asked = [row for key, row in rows.items() if key.startswith("exact ")]
    lines = {"every document, MaxSim": [(row["documents"], row["exact"]["p50_ms"]) for row in asked]}
    lines["Edge, graph over MaxSim"] = [(row["documents"], row["graph"]["p50_ms"]) for row in asked if "graph" in row]
    for engine, codes in (("edge", "turbo2"), ("weaviate", "rq8"), ("qdrant", "turbo2")):
        found = [row for key, row in rows.items() if key.startswith(f"{engine}, {encoders[0]}, {codes}, ")]
        lines[f"two stages, {NAMES[engine]}"] = sorted(
            (row["documents"], row["200 candidates, 1 clients"]["p50_ms"])
            for row in found
            if "200 candidates, 1 clients" in row
        )
    for (label, points), style in zip(lines.items(), ("k-", "kx", "o-", "s-", "^-"), strict=True):
        if points:
            time.plot(*zip(*points, strict=True), style, ms=4, label=label)
    time.set(xscale="log", yscale="log", xlabel="documents", ylabel="ms of a search, median")
    time.set_title("One client, 200 candidates", fontsize=9)

    for axes in (curves, growth, time):
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    save(figure, name)


if __name__ == "__main__":
    scale("scale.svg")
    encoding("encoding.svg")
    estimates("estimates.svg")
