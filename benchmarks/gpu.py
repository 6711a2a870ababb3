"""Regression encoder on a GPU against the processor: the fit and the encoding of the same documents, in one run.

The processor has ``--threads`` threads; the GPU is that of torch tensors on "cuda". Both fit to the sample's documents
(62 tokens on average) and encode documents of several lengths. Agreement is the largest difference of a coordinate
between the vectors of one encoder on both devices, and recall of the exact MaxSim top 10 among 100 candidates of each
fit, scanned in float32. Needs torch with CUDA.

    taskset -c 0,1 python -m benchmarks.gpu [--threads 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.sets import load
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

LENGTHS = (64, 120, 300)
TOKENS = 100_000  # of one call
CANDIDATES = 100


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """Median of some rounds, after one that is not counted; results are numpy arrays, so the GPU has ended."""
    call()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def tensors(batch: TokenBatch, dtype: Any = None) -> list[Any]:
    """Documents as tensors on the GPU."""
    return [torch.tensor(batch[i], device="cuda", dtype=dtype) for i in range(len(batch))]


def recall(encoder: RegressionEncoder, data: Any) -> float:
    """Share of the exact top 10 among the candidates of a scan."""
    scores = encoder.encode_queries(data.queries) @ encoder.encode_documents(data.documents).T
    found = np.argsort(-scores, axis=1)[:, :CANDIDATES]
    return float(np.mean([len({*best} & {*row}) / len(best) for best, row in zip(data.best, found, strict=True)]))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data = load("pydocs")
    on_gpu = tensors(data.documents)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, numpy {np.__version__}; {data}")
    with threadpool_limits(arguments.threads):
        for dim, centres in ((512, None), (1024, None), (1024, 2000)):
            options: dict[str, Any] = {"dim": dim, "centres": centres, "threads": arguments.threads}
            here = seconds(partial(RegressionEncoder.fit, data.documents, **options), 1)
            there = seconds(partial(RegressionEncoder.fit, on_gpu, **options), arguments.rounds)
            by = RegressionEncoder.fit(data.documents, **options), RegressionEncoder.fit(on_gpu, **options)
            print(
                f"fit of {dim} dimensions, centres {centres}: processor {here:.2f} s, GPU {there:.2f} s, "
                f"{here / there:.1f} times; recall {recall(by[0], data):.4f} and {recall(by[1], data):.4f}"
            )
        encoder = RegressionEncoder.fit(data.documents, dim=1024, threads=arguments.threads)
        fde = FDEEncoder(FDEConfig(data.documents.dim), threads=arguments.threads)
        for length in LENGTHS:
            count = TOKENS // length
            values = np.resize(data.documents.values, (count * length, data.documents.dim))
            batch = TokenBatch(values, np.arange(count + 1) * length)
            given = tensors(batch)
            difference = np.abs(encoder.encode_documents(batch) - encoder.encode_documents(given)).max()
            here = seconds(partial(encoder.encode_documents, batch), arguments.rounds)
            there = seconds(partial(encoder.encode_documents, given), arguments.rounds)
            plain = seconds(partial(fde.encode_documents, batch), arguments.rounds)
            print(
                f"{length} tokens: processor {1e6 * here / count:.0f} us a document, GPU {1e6 * there / count:.1f}, "
                f"{here / there:.0f} times; largest difference {difference:.1e}; "
                f"FDE on the processor {1e6 * plain / count:.0f}"
            )


if __name__ == "__main__":
    main()
