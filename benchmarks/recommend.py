"""How often the choice of ``recommend`` reaches its target on held-out queries.

    python -m benchmarks.recommend [--sets pydocs FILE.npz] [--draws 20] [--recall 0.95] [--documents N]
                                   [--bytes N] [--json FILE]

In each draw, the queries are split into random halves, one for the choice and one for the report, and encoders get
another seed. With ``--documents``, each draw also searches another random sample of documents. The sets are those of
``benchmarks/sets.py``, without changes. Every draw searches real indexes. Of many draws, nineteen of twenty should
reach the target.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sets import read
from muvera_adapters.evidence import recommend


def main() -> None:
    """Prints a line for each draw, and the share that held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["pydocs"], help='"pydocs", or files as in benchmarks/sets.py')
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument(
        "--documents", type=int, default=5000, help="maximum number of documents of a draw, drawn at random"
    )
    parser.add_argument("--bytes", type=float, default=None)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, list[dict[str, Any]]] = {}
    for place in arguments.sets:
        name = Path(place).stem
        documents, queries = read(place)
        held, choices, seconds = 0, Counter[str](), []
        result[name] = []
        for draw in range(arguments.draws):
            start, worked = time.perf_counter(), time.process_time()
            found = recommend(
                documents,
                queries,
                recall=arguments.recall,
                bytes_per_document=arguments.bytes,
                sample=arguments.documents,
                seed=draw,
            )
            took, work = time.perf_counter() - start, time.process_time() - worked
            held += found.held
            choices[f"{found.setting.encoder} {found.quantization}"] += 1
            seconds.append((took, work))
            result[name].append({"seconds": took, "processor_seconds": work, **found.to_dict()})
            print(
                f"{name} {draw}: {'held' if found.held else 'MISSED'} {found.recall.mean:.3f} on {found.reported_on}, "
                f"{found.setting.encoder}, {found.quantization}, prefetch={found.prefetch}, "
                f"{found.bytes_per_document:,.0f} bytes; {took:.0f} s, {work:.0f} s of processor",
                flush=True,
            )
        print(
            f"{name}: {held} of {arguments.draws} draws hold {arguments.recall:g}; chosen "
            + ", ".join(f"{choice} {n} times" for choice, n in choices.most_common())
            + "; median {:.0f} s, {:.0f} s of processor".format(*np.median(seconds, axis=0))
        )
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
