"""Figures and tables of docs/measured-tuning.md: the sample, and an anisotropic set made of it.

    python benchmarks/evidence.py [--images docs/images] [--reports DIR] [--json FILE] [--tune] [--sets NAME ...]

Evaluates three encoders by brute force and through an index on both sets, writes the figures of the reports as SVG and
prints their tables. With ``--tune``, ``tune`` at its defaults instead (minutes).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from muvera_adapters.evidence import Evaluation, diagnose, evaluate, plots, tune, write_report
from muvera_adapters.evidence.report import markdown
from muvera_adapters.samples import anisotropic, load_pydocs
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

STRENGTH = 1.5


def sets() -> dict[str, tuple[TokenBatch, TokenBatch]]:
    """Documents and queries by name."""
    sample = load_pydocs()
    documents = TokenBatch.from_list(document.tokens for document in sample.source.documents())
    mean = documents.values.mean(axis=0)
    moved = anisotropic(documents, mean, STRENGTH), anisotropic(sample.queries, mean, STRENGTH)
    return {"sample": (documents, sample.queries), "anisotropic": moved}


def evaluated(documents: TokenBatch, queries: TokenBatch) -> Evaluation:
    """Three encoders, int8 in the index."""
    config = FDEConfig(documents.dim, r_reps=20, k_sim=5, d_proj=16)
    encoders: dict[str, Encoder] = {
        "FDE 10,240": FDEEncoder(config),
        "FDE 10,240, fitted": FDEEncoder.fit(config, documents),
        "regression 1,024": RegressionEncoder.fit(documents, dim=1024),
    }
    return evaluate(encoders, documents, queries, progress=True)


def draw(evaluation: Evaluation, name: str, directory: Path) -> None:
    """The figures of the report, as files."""
    figures = {
        "candidates": plots.recall_by_candidates(evaluation, 10),
        "bytes": plots.recall_by_bytes(evaluation, 10, 100),
        "latency": plots.recall_by_latency(evaluation, 10),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for kind, svg in figures.items():
        assert svg is not None
        (directory / f"recall-{kind}-{name}.svg").write_text(svg, encoding="utf-8")


def main() -> None:
    """Writes images and JSON, prints tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--reports", type=Path, default=Path("benchmarks/results/evidence"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/evidence.json"))
    parser.add_argument("--tune", action="store_true", help="tune instead of evaluating")
    parser.add_argument("--sets", nargs="+", default=["sample", "anisotropic"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    made = sets()
    for name in arguments.sets:
        documents, queries = made[name]
        print(f"\n# {name}\n")
        if arguments.tune:
            tuned = tune(documents, queries, progress=True)
            result[name] = tuned.to_dict()
            for s in tuned.pareto:
                assert s.chosen is not None
                assert s.held_out is not None
                print(
                    f"| {s.encoder} | {s.quantization} | {s.bytes_per_document:,.0f} | {s.prefetch} | "
                    f"{s.chosen.mean:.3f} | {s.held_out.mean:.3f} ({s.held_out.low:.2f} to {s.held_out.high:.2f}) |"
                )
            print(tuned.verdict)
            continue
        diagnosis = diagnose(documents, queries)
        print(f"{diagnosis.advice} {'; '.join(diagnosis.reasons)}\n")
        evaluation = evaluated(documents, queries)
        result[name] = {"diagnosis": diagnosis.to_dict(), "evaluation": evaluation.to_dict()}
        draw(evaluation, name, arguments.images)
        write_report(evaluation, arguments.reports / name, title=f"Recall of exact MaxSim: {name}")
        print(markdown(evaluation, name))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
