"""Overhead of the Qdrant Edge store compared with the bare engine, and two stages compared with exact MaxSim.

Documents are the sample (pydocs), repeated with noise, so that lengths and directions are realistic.

1. Load rate: ``upsert`` of the adapter compared with the same encoder, points and batches sent to the engine by hand.
2. For each quantization: recall of the exact top 10, p50 and p95 at several prefetch sizes, compared with the engine's
   MaxSim over everything; disk and memory per document (growth of the resident set, including files mapped by the
   engine). Each quantization runs in a separate process.

    python benchmarks/store.py [--docs 20000] [--quantizations int8 turbo4 ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.qdrant.collection import EDGE
from muvera_adapters.qdrant.edge.client import fde_params, token_params
from muvera_adapters.samples import load_pydocs
from muvera_adapters.stores.writing import slices
from muvera_core import FDEConfig, FDEEncoder, TokenBatch

HALF = edge.VectorStorageDatatype.Float16
NOISE = 0.05


def documents_of(count: int) -> TokenBatch:
    """The sample repeated to ``count`` documents; repetitions get noise on every token, and unit length again."""
    sample = [document.tokens for document in load_pydocs().source.documents()]
    generator = np.random.default_rng(0)
    made = []
    for i in range(count):
        tokens = sample[i % len(sample)]
        if i >= len(sample):
            tokens = tokens + NOISE * generator.standard_normal(tokens.shape, dtype=np.float32)
            tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        made.append(tokens.astype(np.float16))
    return TokenBatch.from_list(made)


def load_rates(documents: TokenBatch, rounds: int) -> dict[str, float]:
    """Documents per second of both, as medians of alternating rounds."""
    encoder = FDEEncoder(FDEConfig(documents.dim))
    encoder.encode_documents(documents[:1])  # compile first
    ids = list(range(len(documents)))
    sizes = [4 * (encoder.dim + n * documents.dim) for n in documents.lengths]

    def adapter(directory: Path) -> None:
        with QdrantEdgeMuvera.create(directory, "adapter", encoder) as store:
            store.upsert(ids, documents)

    def bare(directory: Path) -> None:
        vectors = {"fde": fde_params(encoder, "auto", HALF, None), "tokens": token_params(encoder, HALF)}
        (directory / "bare").mkdir()
        shard = edge.EdgeShard.create(str(directory / "bare"), edge.EdgeConfig(vectors=vectors))
        for i, j in slices(sizes, EDGE.target):
            fdes: Any = encoder.encode_documents(documents[i:j])
            points = []
            for k in range(i, j):
                vector: Any = {"fde": fdes[k - i], "tokens": documents[k]}
                points.append(edge.Point(k, vector, {}))
            shard.update(edge.UpdateOperation.upsert_points(points))
        shard.flush()
        shard.close()

    seconds: dict[str, list[float]] = {"adapter": [], "bare": []}
    for _ in range(rounds):
        for name, load in (("adapter", adapter), ("bare", bare)):
            with tempfile.TemporaryDirectory() as directory:
                seconds[name].append(timed(partial(load, Path(directory))))
    # the machine may slow down for a while, so each round is compared within itself
    overhead = np.median([a / b for a, b in zip(seconds["adapter"], seconds["bare"], strict=True)]) - 1
    rates = {f"{name}_docs_per_s": len(documents) / float(np.median(times)) for name, times in seconds.items()}
    return {**rates, "overhead": float(overhead)}


def one_quantization(name: str, count: int, prefetches: Sequence[int]) -> dict[str, Any]:
    """All measurements of one quantization; runs in a separate process."""
    sample, documents = load_pydocs(), documents_of(count)
    encoder = FDEEncoder(FDEConfig(documents.dim))
    ids: list[Any] = list(range(count))
    exact = exact_top(sample.queries, documents, ids, 10)
    nothing: list[frozenset[str]] = [frozenset()] * len(exact)
    encoder.encode_documents(documents[:1])
    with tempfile.TemporaryDirectory() as directory:
        before = _resident()
        quantization: Any = None if name == "none" else name
        store = QdrantEdgeMuvera.create(directory, "c", encoder, quantization=quantization)
        load = timed(lambda: store.upsert(ids, documents))
        index = timed(store.wait_indexed)
        store.close()
        with QdrantEdgeMuvera.open(directory, "c") as store:
            searches: dict[str, Callable[[Any], Any]] = {
                f"prefetch {n}": partial(store.search, prefetch=n) for n in prefetches
            }
            searches["fde alone"] = lambda q: store.search(q, rerank="none")
            searches["native MaxSim"] = store.exact_search
            rows = []
            for search, call in searches.items():
                found = measure(call, sample.queries, exact, nothing)
                row = {"search": search, "recall_at_10": found.recall_at_10, "p50_ms": found.p50_ms}
                rows.append({**row, "p95_ms": found.p95_ms})
            info = store.info()
            return {
                "quantization": name,
                "load_s": load,
                "index_s": index,
                "disk_bytes_per_doc": (info.disk_bytes or 0) / count,
                "memory_bytes_per_doc": max(0, _resident() - before) / count,
                "code_bytes_per_doc": info.code_bytes / count,
                "rows": rows,
            }


def timed(call: Callable[[], Any]) -> float:
    """Seconds it takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def main() -> None:
    """Prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--load-docs", type=int, default=2_000, help="number of documents of the load-rate comparison")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds of the load-rate comparison")
    parser.add_argument("--prefetch", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--quantizations", nargs="*", default=["int8", "turbo4", "turbo2", "binary", "product", "none"])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/store.json"))
    arguments = parser.parse_args()

    result: dict[str, Any] = {"engine": f"qdrant-edge-py {version('qdrant-edge-py')}", "documents": arguments.docs}
    if arguments.rounds:
        result["load"] = load_rates(documents_of(arguments.load_docs), arguments.rounds)
        load = result["load"]
        print(
            f"load of {arguments.load_docs}: adapter {load['adapter_docs_per_s']:.0f} docs/s, bare engine "
            f"{load['bare_docs_per_s']:.0f} docs/s, overhead {100 * load['overhead']:.1f} %\n"
        )
    result["searches"] = []
    print(f"{'quantization':<14}{'search':<16}{'recall@10':>10}{'p50 ms':>9}{'p95 ms':>9}")
    for name in arguments.quantizations:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(one_quantization, name, arguments.docs, arguments.prefetch).result()
        result["searches"].append(found)
        for row in found["rows"]:
            print(
                f"{name:<14}{row['search']:<16}{row['recall_at_10']:>10.3f}{row['p50_ms']:>9.2f}{row['p95_ms']:>9.2f}"
            )
        print(
            f"{name:<14}load {found['load_s']:.1f} s, index {found['index_s']:.1f} s; for one document "
            f"{found['disk_bytes_per_doc'] / 1024:.1f} KB on disk, {found['memory_bytes_per_doc'] / 1024:.1f} KB in "
            f"memory, {found['code_bytes_per_doc'] / 1024:.1f} KB of codes"
        )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
