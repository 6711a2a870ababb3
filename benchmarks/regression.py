"""Recall of regression encoders and of LEMUR on documents and queries that no fit has seen, by scan and in an index.

Everything is fitted to a random half of the documents and a random half of the queries. All documents are then ranked
for the other queries. The figures count the ten best documents by exact MaxSim that are in the other half: their share
among the first 20, 100 and 200. "scan" compares float32 vectors with all documents; the others search in Qdrant Edge:
an HNSW graph (m=16, ef_construct=100, ef 200) over int8 or two-bit (turbo2) codes, not rescored.

``--cut 40`` makes passages of 40 tokens of the documents, ``--join 5`` makes one document of five consecutive ones; the
halves are then halves of the documents before the cut, or after the joining.

    python -m benchmarks.regression [--sets pydocs FILE.npz] [--cut N | --join N] [--seeds N] [--rows NAME ...]
"""

from __future__ import annotations

import argparse
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.lemur import LemurEncoder, Training, Whitened
from benchmarks.recall import CANDIDATES, Index, Remembered, shares, through_index
from benchmarks.sets import Data, read, with_truth
from muvera_adapters.qdrant.collection import Preset
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

CODES: tuple[Preset, ...] = ("int8", "turbo2")


def rows(documents: TokenBatch, queries: TokenBatch, seed: int, threads: int) -> dict[str, Any]:
    """Functions that fit the encoders, by the rows' names."""
    fit = partial(RegressionEncoder.fit, documents, seed=seed, threads=threads)
    lemur = cache(partial(LemurEncoder, documents, queries, Training(), seed=seed, threads=threads))
    paper = FDEConfig(documents.dim, 20, 5, 16, seed, algorithm="muvera-1")
    found: dict[str, Any] = {"FDE 10,240": lambda: FDEEncoder(paper, threads=threads)}
    for dim in (256, 512, 1024):
        found[f"regression {dim:,}"] = partial(fit, dim)
        found[f"regression {dim:,}, queries"] = partial(fit, dim, queries=queries)
        found[f"regression {dim:,}, 2,000 centres"] = partial(fit, dim, centres=2000)
        found[f"regression {dim:,}, 2,000 centres, queries"] = partial(fit, dim, queries=queries, centres=2000)
        found[f"regression {dim:,}, 4,000 centres, queries"] = partial(fit, dim, queries=queries, centres=4000)
    found["LEMUR 2,048"] = lemur
    found["LEMUR 2,048, whitened"] = lambda: Whitened(lemur(), documents)
    return found


def parts(documents: TokenBatch, cut: int | None, join: int) -> tuple[TokenBatch, npt.NDArray[np.int64]]:
    """Documents cut or joined, and for each the document that it is of; a rest of few tokens stays with the last."""
    if cut is None:
        ends = np.unique(np.append(documents.offsets[::join], documents.offsets[-1]))
        return TokenBatch(documents.values, ends), np.arange(len(ends) - 1)
    counts = np.maximum(documents.lengths // cut, 1)
    starts = [start + cut * np.arange(count) for start, count in zip(documents.offsets, counts, strict=False)]
    offsets = np.append(np.concatenate(starts), documents.offsets[-1])
    return TokenBatch(documents.values, offsets), np.repeat(np.arange(len(documents)), counts)


def half(count: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A random half of ``count`` things."""
    mask: npt.NDArray[np.bool_] = generator.permutation(count) < count // 2
    return mask


def _taken(batch: TokenBatch, mask: npt.NDArray[np.bool_]) -> TokenBatch:
    return TokenBatch.from_list(batch[int(i)] for i in np.flatnonzero(mask))


def measure(
    documents: TokenBatch, queries: TokenBatch, owners: npt.NDArray[np.int64], names: list[str], seed: int, threads: int
) -> dict[str, dict[str, list[float]]]:
    """Recalls by row and way of searching, of one seed."""
    generator = np.random.default_rng(seed)
    fitted, asked = half(owners[-1] + 1, generator)[owners], half(len(queries), generator)
    sample = _taken(documents, fitted)
    known = _taken(queries, asked)
    data = with_truth(documents, _taken(queries, ~asked))
    others = frozenset(np.flatnonzero(~fitted).tolist())
    found: dict[str, dict[str, list[float]]] = {}
    for name, make in rows(sample, known, seed, threads).items():
        if names and name not in names:
            continue
        encoder = Remembered(make())
        scores = encoder.encode_queries(data.queries) @ encoder.encode_documents(documents).T
        ranked = [list(row) for row in np.argsort(-scores, axis=1, kind="stable")]
        found[name] = {"scan": _share(ranked, data, others)}
        for codes in CODES:
            ids = through_index(Index(codes, ef=200), encoder, documents, data.queries)
            found[name][codes] = _share(ids, data, others)
        print(f"{seed:>3} {name:<44}" + "   ".join(_line(figures) for figures in found[name].values()), flush=True)
    return found


def _share(found: list[list[Any]], data: Data, among: frozenset[int]) -> list[float]:
    counts = [sum(best in among for best in row) for row in data.best]
    return np.average(np.nan_to_num(shares(found, data, among)), axis=0, weights=counts).tolist()


def _line(figures: list[float]) -> str:
    return " ".join(f"{x:.3f}" for x in figures)


def main() -> None:
    """Prints a table for each set and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["pydocs"], help='"pydocs", or files as in benchmarks/sets.py')
    parser.add_argument("--cut", type=int, help="number of tokens of a passage")
    parser.add_argument("--join", type=int, default=1, help="number of documents that become one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", nargs="+", default=[], help="names of rows to measure; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/regression.json"))
    arguments = parser.parse_args()
    result = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name in arguments.sets:
        documents, queries = read(name)
        documents, owners = parts(documents, arguments.cut, arguments.join)
        label = f"{Path(name).stem}{f', cut to {arguments.cut} tokens' if arguments.cut else ''}"
        label += f", {arguments.join} joined" if arguments.join > 1 else ""
        tokens = documents.lengths.mean()
        print(f"\n{label}: {len(documents)} documents of {tokens:.0f} tokens on average, {len(queries)} queries")
        print(f"seed and row; among {CANDIDATES} by scan, then {CODES}")
        seeds = [
            measure(documents, queries, owners, arguments.rows, seed, arguments.threads) for seed in arguments.seeds
        ]
        for row in seeds[0]:
            means = {way: np.mean([seed[row][way] for seed in seeds], axis=0).tolist() for way in seeds[0][row]}
            result.setdefault(label, {})[row] = {"seeds": arguments.seeds, **means}
            print(f"    {row:<44}" + "   ".join(_line(figures) for figures in means.values()))
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
