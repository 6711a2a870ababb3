"""The regression encoder on a GPU compared with the CPU: fit and encoding of the same documents, in one run.

The CPU has ``--threads`` threads; the GPU is that of torch tensors on "cuda". Both fit to the sample's documents
(62 tokens on average) and encode documents of several lengths. Agreement is the largest difference of a coordinate
between the vectors of one encoder on both devices, and recall of the exact MaxSim top 10 among 100 candidates of each
fit, scanned in float32. Needs torch with CUDA.

    taskset -c 0,1 python -m benchmarks.gpu [--threads 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.rounds import documents, rounds
from benchmarks.sets import BEST, Data, load
from muvera_adapters.evidence.measuring import positions, recalls
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

LENGTHS = (64, 120, 300)
TOKENS = 100_000  # of one call
CANDIDATES = 100


def tensors(batch: TokenBatch) -> list[Any]:
    """Documents as tensors on the GPU."""
    return [torch.tensor(batch[i], device="cuda") for i in range(len(batch))]


def recall(encoder: RegressionEncoder, data: Data) -> float:
    """Share of the exact top 10 among the candidates of a scan."""
    scores = encoder.encode_queries(data.queries) @ encoder.encode_documents(data.documents).T
    found = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
    return float(recalls(positions(found.tolist(), data.best), BEST).mean())


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
            fitted: dict[str, RegressionEncoder] = {}

            def fit(name: str, sample: Any, options: Any = options, fitted: Any = fitted) -> None:
                fitted[name] = RegressionEncoder.fit(sample, **options)

            samples = {"processor": data.documents, "GPU": on_gpu}
            taken = rounds({name: partial(fit, name, sample) for name, sample in samples.items()}, arguments.rounds)
            print(
                f"fit of {dim} dimensions, centres {centres}: processor {taken['processor']:.2f} s, "
                f"GPU {taken['GPU']:.2f} s, {taken['processor'] / taken['GPU']:.1f} times; "
                f"recall {recall(fitted['processor'], data):.4f} and "
                f"{recall(fitted['GPU'], data):.4f}"
            )
        encoder = RegressionEncoder.fit(data.documents, dim=1024, threads=arguments.threads)
        fde = FDEEncoder(FDEConfig(data.documents.dim), threads=arguments.threads)
        for length in LENGTHS:
            batch = documents(data.documents.values, length, TOKENS // length)
            given = tensors(batch)
            difference = np.abs(encoder.encode_documents(batch) - encoder.encode_documents(given)).max()
            taken = rounds(
                {
                    "processor": partial(encoder.encode_documents, batch),
                    "GPU": partial(encoder.encode_documents, given),
                    "fde": partial(fde.encode_documents, batch),
                },
                arguments.rounds,
            )
            microseconds = {name: 1e6 * value / len(batch) for name, value in taken.items()}
            print(
                f"{length} tokens: processor {microseconds['processor']:.0f} us a document, "
                f"GPU {microseconds['GPU']:.1f}, {taken['processor'] / taken['GPU']:.0f} times; "
                f"largest difference {difference:.1e}; "
                f"FDE on the processor {microseconds['fde']:.0f}"
            )


if __name__ == "__main__":
    main()
