"""Tokens stored in fewer bits: recall after reranking, latency and bytes on disk, for each way that a store has.

The ground truth is exact MaxSim over the vectors as they were given. Each setting is loaded into a new directory and
searched with 200 candidates. Differences from float16 are means over all queries and seeds, with a 95 % interval from
2,000 bootstrap samples of queries. Settings take turns in rounds of all queries, so that times can be compared on a
shared machine; with --lock, a file is locked during each round.

    python -m benchmarks.token_storage edge pydocs cranfield_128.npz --encoder regression:512 --seeds 3

``--reference MB`` prints disk as a multiple of another engine's files, too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from benchmarks.sets import BEST, Data, load
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder

PREFETCH = 200
PRESETS = {"edge": ("float32", "float16", "turbo8", "turbo4"), "milvus-lite": ("float32", "float16", "int8")}


def main() -> None:
    """Runs the settings that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", choices=PRESETS)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--encoder", default="regression:512", help="regression:DIM or fde (the default FDE)")
    parser.add_argument("--codes", default="turbo2", help="codes of the FDEs; none: no codes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", type=float, help="size of another engine's files in MB, for comparison")
    parser.add_argument("--presets", nargs="*", help="ways of storing tokens; default: all of the store")
    parser.add_argument("--lock", type=Path, help="file to lock while times are measured")
    asked = parser.parse_args()
    for name in asked.sets:
        data = load(name)
        print(data, flush=True)
        run(asked, data)


def run(asked: argparse.Namespace, data: Data) -> None:
    """Loads and searches every setting of one set, and prints a table."""
    presets = asked.presets or PRESETS[asked.store]
    recalls: dict[str, list[np.ndarray]] = {preset: [] for preset in presets}
    disks: dict[str, float] = {}
    times: dict[str, list[float]] = {preset: [] for preset in presets}
    for seed in range(asked.seeds):
        encoder = encoder_of(asked.encoder, data, seed)
        with contextlib.ExitStack() as stack:
            stores = {}
            for preset in presets:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                stores[preset], disks[preset] = loaded(asked, directory, data, encoder, preset)
                stack.callback(stores[preset].close)
            for preset, store in stores.items():
                recalls[preset].append(recall(store, data))
            for _ in range(asked.rounds):
                for preset, store in stores.items():
                    with locked(asked.lock):
                        times[preset].append(latency(store, data))
    floats = np.mean(recalls["float16" if "float16" in presets else presets[0]], axis=0)
    print(f"{asked.encoder}, codes {asked.codes}, {asked.seeds} seeds, {PREFETCH} candidates")
    for preset in presets:
        each = np.mean(recalls[preset], axis=0)
        low, high = interval(each - floats)
        line = f"{preset:8} recall@10 {each.mean():.4f}  "
        line += f"minus float16 {(each - floats).mean():+.4f} [{low:+.4f}, {high:+.4f}]"
        line += f"  p50 {np.median(times[preset]):.2f} ms  disk {disks[preset] / 1e6:.1f} MB"
        if asked.reference:
            line += f"  x {disks[preset] / 1e6 / asked.reference:.2f}"
        print(line, flush=True)


def encoder_of(name: str, data: Data, seed: int) -> Encoder:
    """The encoder of a seed."""
    kind, _, dim = name.partition(":")
    if kind == "fde":
        return FDEEncoder(FDEConfig(dim=data.documents.values.shape[1], seed=seed))
    return RegressionEncoder.fit(data.documents, dim=int(dim), seed=seed, centres=2000)


def loaded(asked: argparse.Namespace, directory: Path, data: Data, encoder: Encoder, preset: Any) -> tuple[Any, float]:
    """A store with the documents, and the bytes of its files after it was closed and opened again."""
    ids, documents = list(range(len(data.documents))), [data.documents[i] for i in range(len(data.documents))]
    if asked.store == "milvus-lite":
        from pymilvus import MilvusClient

        client = MilvusClient(str(directory / "data.db"))
        store: Any = MilvusMuvera.create(client, "c", encoder, tokens=preset)
        store.upsert(ids, documents)
        store.wait_indexed()
    else:
        store = QdrantEdgeMuvera.create(
            directory,
            "c",
            encoder,
            tokens=preset,
            quantization=None if asked.codes == "none" else asked.codes,
            # however few the documents are
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
        )
        store.upsert(ids, documents)
        store.wait_indexed()
        store.close()
        store = QdrantEdgeMuvera.open(directory, "c", encoder)
    return store, sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())


def recall(store: Any, data: Data) -> np.ndarray:
    """Share of the exact top 10 that each query finds."""
    found = []
    for i, best in enumerate(data.best):
        hits = store.search(data.queries[i], limit=BEST, prefetch=PREFETCH, with_payload=False)
        found.append(len({hit.id for hit in hits} & set(best)) / BEST)
    return np.array(found)


def latency(store: Any, data: Data) -> float:
    """Median milliseconds of a search."""
    taken = []
    for i in range(len(data.queries)):
        start = time.perf_counter()
        store.search(data.queries[i], limit=BEST, prefetch=PREFETCH, with_payload=False)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def interval(differences: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the mean."""
    draws = np.random.default_rng(0).choice(differences, (2_000, len(differences))).mean(axis=1)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Keeps other measurements of the machine out."""
    if path is None:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
