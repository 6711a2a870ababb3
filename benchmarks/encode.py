"""Encoding speed compared with fastembed and with the lower bound of the algorithm, in one process.

Documents are consecutive token vectors of the sample index, of the requested length. Two settings of this library are
measured in the same rounds: orthogonal draws ("muvera-2", 40 x 8 x 8) and the independent draws of the paper
("muvera-1", 20 x 32 x 16, the sizes of fastembed). The lower bound (floor) is one SimHash matrix product over all
tokens (numpy's BLAS) with the number of hyperplanes of the latter, because an exact implementation with independent
hyperplanes must compute at least these signs. Rounds interleave the contestants, so that a slow phase of the machine
affects all of them.

    python benchmarks/encode.py [--threads N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastembed.postprocess.muvera import Muvera
from threadpoolctl import threadpool_limits

from benchmarks.rounds import documents, rounds
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim

ORTHOGONAL = FDEConfig(128, r_reps=40, k_sim=3, d_proj=8, algorithm="muvera-2")
INDEPENDENT = FDEConfig(128, r_reps=20, k_sim=5, d_proj=16, algorithm="muvera-1")
LENGTHS = (32, 64, 120, 300, 1030)
BATCH = 512  # documents encoded at once, as when loading a collection
FASTEMBED_BATCH = {32: 48, 64: 32, 120: 24, 300: 12, 1030: 6}  # it takes milliseconds a document


def compare(
    tokens: Any, length: int, settings: dict[str, FDEConfig], theirs: Muvera, repeat: int, threads: int
) -> list[dict[str, Any]]:
    """Microseconds per document and ratios for each setting at one document length; the floor is that of the last."""
    batch = documents(tokens, length, BATCH)
    few = [batch[i] for i in range(FASTEMBED_BATCH.get(length, 8))]
    encoders = {name: FDEEncoder(config, threads=threads) for name, config in settings.items()}
    config = list(settings.values())[-1]
    hyperplanes = np.random.default_rng(0).standard_normal((config.dim, config.r_reps * config.k_sim), np.float32)
    seconds = rounds(
        {
            **{name: partial(encoder.encode_documents, batch) for name, encoder in encoders.items()},
            "floor": lambda: batch.values @ hyperplanes,
            "fastembed": lambda: [theirs.process_document(d) for d in few],
        },
        repeat,
    )
    floor, fastembed = seconds["floor"] / len(batch), seconds["fastembed"] / len(few)
    last = list(settings)[-1]
    return [
        {
            "setting": name,
            "tokens": length,
            "ours_us": 1e6 * seconds[name] / len(batch),
            "floor_us": 1e6 * floor,
            "fastembed_us": 1e6 * fastembed,
            "times_fastembed": fastembed / seconds[name] * len(batch),
            "of_floor": floor / seconds[name] * len(batch),
            "times_muvera_1": seconds[last] / seconds[name],
        }
        for name in settings
    ]


def queries(tokens: Any, config: FDEConfig, theirs: Muvera, repeat: int) -> dict[str, float]:
    """One query of 32 tokens at a time."""
    encoder, some = FDEEncoder(config), [tokens[i : i + 32] for i in range(0, 3200, 32)]
    seconds = rounds(
        {
            "ours": lambda: [encoder.encode_query(q) for q in some],
            "fastembed": lambda: [theirs.process_query(q) for q in some[:10]],
        },
        repeat,
    )
    return {"ours_ms": 10 * seconds["ours"], "fastembed_ms": 100 * seconds["fastembed"]}


def score(tokens: Any, repeat: int, threads: int) -> dict[str, float]:
    """MaxSim of a query of 32 tokens with 1,000 documents of 80, in microseconds a document.

    The floor is the matrix product of all token pairs; with numpy, a maximum over every segment is needed in addition.
    """
    batch, query = documents(tokens, 80, 1000), tokens[:32]

    def with_numpy() -> Any:
        return np.maximum.reduceat(batch.values @ query.T, batch.offsets[:-1], axis=0).sum(axis=1)

    half = TokenBatch(batch.values.astype(np.float16), batch.offsets)
    seconds = rounds(
        {
            "ours_us": lambda: maxsim(query, batch, threads=threads),
            "ours_float16_us": lambda: maxsim(query, half, threads=threads),
            "floor_us": lambda: batch.values @ query.T,
            "numpy_us": with_numpy,
        },
        repeat,
    )
    return {name: 1e6 * value / len(batch) for name, value in seconds.items()}


def first_use() -> dict[str, float]:
    """Seconds of ``import muvera_core`` (median of 5), and of a first FDE with nothing compiled before."""
    run = "import time; t = time.perf_counter(); import muvera_core as m; a = time.perf_counter() - t; "
    encode = "e = m.FDEEncoder(m.FDEConfig(128)); e.encode_query([[1.0] * 128]); print(a, time.perf_counter() - t)"
    imports = [float(_python(run + "print(a)")[0]) for _ in range(5)]
    with tempfile.TemporaryDirectory() as nothing:
        cold = _python(run + encode, NUMBA_CACHE_DIR=nothing)
    warm = _python(run + encode)
    return {"import_s": float(np.median(imports)), "first_fde_s": float(cold[1]), "later_first_fde_s": float(warm[1])}


def _python(code: str, **environment: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return result.stdout.split()


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/encode.json"))
    arguments = parser.parse_args()
    tokens = np.concatenate([d.tokens for d in load_pydocs().source.documents()])
    result: dict[str, Any] = {
        "threads": arguments.threads,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "documents": [],
    }
    print(
        f"{BATCH} documents a call, {arguments.threads} threads, median of {arguments.rounds} rounds; us a document\n"
    )
    print(
        f"{'setting':<28}{'tokens':>7}{'ours':>9}{'floor':>9}{'fastembed':>11}{'x fastembed':>13}{'of floor':>10}"
        f"{'x muvera-1':>12}"
    )
    with threadpool_limits(arguments.threads):
        both = {"muvera-2, 40 x 8 x 8": ORTHOGONAL, "muvera-1, 20 x 32 x 16": INDEPENDENT}
        runs = [(both, Muvera(128), length) for length in LENGTHS]
        final = FDEConfig(128, r_reps=40, k_sim=6, d_proj=None, d_final=10240, algorithm="muvera-1")
        # fastembed has no final projection: it does less work here
        large = Muvera(128, k_sim=6, dim_proj=128, r_reps=40)
        runs.append(({"40 x 64 x 128 to 10,240": final}, large, 80))
        for settings, theirs, length in runs:
            for row in compare(tokens, length, settings, theirs, arguments.rounds, arguments.threads):
                result["documents"].append(row)
                print(
                    f"{row['setting']:<28}{length:>7}{row['ours_us']:>9.1f}{row['floor_us']:>9.1f}"
                    f"{row['fastembed_us']:>11.0f}{row['times_fastembed']:>12.0f}x{row['of_floor']:>10.2f}"
                    f"{row['times_muvera_1']:>11.2f}x"
                )
        result["query"] = queries(tokens, ORTHOGONAL, Muvera(128), arguments.rounds)
        result["maxsim"] = score(tokens, arguments.rounds, arguments.threads)
    result["first_use"] = first_use()
    query, first, exact = result["query"], result["first_use"], result["maxsim"]
    print(f"\none query of 32 tokens: {query['ours_ms']:.3f} ms (fastembed {query['fastembed_ms']:.2f} ms)")
    print(
        f"MaxSim with documents of 80 tokens: {exact['ours_us']:.1f} us (float16 {exact['ours_float16_us']:.1f}), "
        f"matrix product alone {exact['floor_us']:.1f}, numpy {exact['numpy_us']:.1f}"
    )
    print(
        f"import muvera_core: {first['import_s']:.2f} s; first FDE of a fresh environment, compilation included: "
        f"{first['first_fde_s']:.1f} s, of later processes {first['later_first_fde_s']:.1f} s"
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
