"""Encoding speed of the regression encoder against the rate of the machine's matrix product, in one process.

A document's vector takes 2 s d t + 2 s D operations (s sample tokens of width d, t tokens, D dimensions), nearly all of
them in the product of its tokens with the sample. It is compared with two products by numpy's BLAS: a square one, which
is its fastest, and the one that the encoder needs ("sample @ tokens.T"), without the maxima. Other columns show numpy
with product and maxima, an FDE, and encoders with 4,000 and 2,000 centres. Rounds interleave the contestants.

    python -m benchmarks.encode_regression [--threads N] [--rounds N] [--lengths N ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.rounds import documents, rounds
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

LENGTHS = (20, 64, 120, 300, 1030)
TOKENS = 8192  # of a call
SQUARE = 2048
CENTRES = (4000, 2000)


def compare(
    encoder: RegressionEncoder, few: dict[int, RegressionEncoder], tokens: Any, length: int, repeat: int
) -> dict[str, float]:
    """GFLOP/s and ratios at one document length; ``few``: encoders by their number of centres."""
    batch = documents(tokens, length, TOKENS // length)
    sample = encoder._fitted.sample.astype(np.float32)
    s, d = sample.shape
    square = np.ones((SQUARE, SQUARE), np.float32)

    def with_numpy() -> Any:
        return np.maximum.reduceat(sample @ batch.values.T, batch.offsets[:-1], axis=1)

    fde = FDEEncoder(FDEConfig(d), threads=encoder.threads)
    seconds = rounds(
        {
            "ours": lambda: encoder.encode_documents(batch),
            "square": lambda: square @ square,
            "product": lambda: sample @ batch.values.T,
            "numpy": with_numpy,
            "fde": lambda: fde.encode_documents(batch),
            **{f"{n} centres": partial(other.encode_documents, batch) for n, other in few.items()},
        },
        repeat,
    )
    first = 2 * s * d * len(batch.values)
    rate = (first + 2 * s * encoder.dim * len(batch)) / seconds["ours"] / 1e9
    return {
        "tokens": length,
        "ours_ms": 1e3 * seconds["ours"] / len(batch),
        "ours_gflops": rate,
        "square_gflops": 2 * SQUARE**3 / seconds["square"] / 1e9,
        "product_gflops": first / seconds["product"] / 1e9,
        "of_square": rate / (2 * SQUARE**3 / seconds["square"] / 1e9),
        "of_product": rate / (first / seconds["product"] / 1e9),
        "times_numpy": seconds["numpy"] / seconds["ours"],
        "fdes": seconds["ours"] / seconds["fde"],
        **{f"over_{n}_centres": seconds["ours"] / seconds[f"{n} centres"] for n in few},
    }


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="numbers of tokens of a document")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/encode_regression.json"))
    arguments = parser.parse_args()
    batch = TokenBatch.from_list(d.tokens for d in load_pydocs().source.documents())
    result: dict[str, Any] = {"threads": arguments.threads, "numpy": np.__version__, "documents": []}
    with threadpool_limits(arguments.threads):
        # speed depends on the sizes alone: few features make a quick fit
        fit = partial(RegressionEncoder.fit, batch, features=1024, references=100, threads=arguments.threads)
        encoder, few = fit(), {n: fit(centres=n) for n in CENTRES}
        print(
            f"{'tokens':>7}{'ms/doc':>9}{'GFLOP/s':>9}{'of square':>11}{'of product':>12}{'x numpy':>9}{'FDEs':>7}"
            + "".join(f"{f'x {n:,} centres':>17}" for n in few)
        )
        for length in arguments.lengths:
            row = compare(encoder, few, batch.values, length, arguments.rounds)
            result["documents"].append(row)
            print(
                f"{length:>7}{row['ours_ms']:>9.2f}{row['ours_gflops']:>9.0f}{row['of_square']:>11.2f}"
                f"{row['of_product']:>12.2f}{row['times_numpy']:>8.1f}x{row['fdes']:>7.0f}"
                + "".join(f"{row[f'over_{n}_centres']:>16.2f}x" for n in few)
            )
        queries = [batch.values[i : i + 32] for i in range(0, 1600, 32)]
        result["query_ms"] = 1e3 / 50 * rounds({"q": lambda: [encoder.encode_query(q) for q in queries]}, 3)["q"]
    print(f"\none query of 32 tokens, {encoder._fitted.weights.shape[1]} features: {result['query_ms']:.2f} ms")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
