"""Recall, time, memory and disk of 5,000 to 200,000 short real texts, in Qdrant Edge, Weaviate and a Qdrant server.

``benchmarks/dictionaries.py`` makes the vectors. Documents of a smaller collection are the first of the larger one. The
truth is exact MaxSim over the collection (:func:`maxsim`), of the first 200 queries; it is kept in the folder.

    python -m benchmarks.scale TOKENS --scan                          # recall by candidates, float32, without an index
    python -m benchmarks.scale TOKENS --exact                         # time of exact MaxSim, and of Edge's token graph
    python -m benchmarks.scale TOKENS --engines edge --sizes 5000 50000 --encoders "FDE 2,560" --codes turbo2

Every row is loaded by one process and asked by another, whose memory is what counts (a server's: its own, after a
restart). WEAVIATE_BIN names Weaviate's binary. A Qdrant server is the one of QDRANT_URL (and QDRANT_GRPC_PORT), which
is not restarted, and whose disk is not known; QDRANT_PID is its process, if it runs on this machine. Processor seconds
are those of client and server together; they say more than the clock where other programs run. A regression encoder is
fitted to the first 10,000 documents, seed 42, 2,000 centres. Load is client and server together; build is what
``wait_indexed`` waits for after it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient

from benchmarks.compare import cpu_seconds, edge_by_hand, memory
from benchmarks.two_stage import timed
from benchmarks.weaviate_store import running
from muvera_adapters.evidence.measuring import Float64, positions, queries_of, recalls
from muvera_adapters.qdrant import QdrantEdgeMuvera, QdrantMuvera
from muvera_adapters.weaviate import WeaviateMuvera
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch, load_encoder, maxsim
from servers.weaviate_server import WeaviateServer, binary

LIMIT = 10
QUERIES = 200
SIZES = (5000, 10_000, 20_000, 50_000, 100_000, 200_000)
CANDIDATES = (20, 50, 100, 200, 500, 1000, 2000)
TARGETS = (0.9, 0.95, 0.98)
CLIENTS = (1, 4)
ENCODERS = ("FDE 2,560", "regression 512", "regression 1,024")
_FITTED_TO = 10_000
_CHUNK = 5000  # documents that are encoded, or written, at a time
_SCORED = 500  # documents that are held as float32 and stay in a processor's cache for all queries
_NAME = "Scale"


def tokens(folder: Path, kind: str, count: int | None = None) -> TokenBatch:
    """The first documents or queries, on disk until they are read."""
    offsets = np.load(folder / f"{kind}_offsets.npy")[: None if count is None else count + 1]
    return TokenBatch(np.load(folder / f"{kind}_tokens.npy", mmap_mode="r")[: offsets[-1]], offsets)


def exact_scores(folder: Path, count: int) -> np.ndarray:
    """(queries, documents) exact MaxSim; computed once."""
    kept = folder / f"exact_{count}.npy"
    larger = [n for n in SIZES if n >= count and (folder / f"exact_{n}.npy").exists()]
    if larger:
        return np.load(folder / f"exact_{larger[0]}.npy", mmap_mode="r")[:, :count]
    documents, queries = tokens(folder, "doc", count), queries_of(tokens(folder, "query", QUERIES))
    scores = np.empty((len(queries), count), np.float32)
    for start in range(0, count, _SCORED):
        chunk = documents[start : start + _SCORED]
        batch = TokenBatch(chunk.values.astype(np.float32), chunk.offsets)
        for row, query in zip(scores, queries, strict=True):
            row[start : start + len(batch)] = maxsim(query, batch)
    np.save(kept, scores)
    return scores


def best(folder: Path, count: int) -> list[list[int]]:
    """Positions of each query's best documents."""
    return first(exact_scores(folder, count), LIMIT).tolist()


def first(scores: np.ndarray, count: int) -> np.ndarray:
    """(queries, count) positions of the highest scores, in their order."""
    found = np.argpartition(-scores, min(count, scores.shape[1] - 1), axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def encoder_of(folder: Path, name: str) -> Encoder:
    """The encoder of that name; a fitted one is kept in the folder."""
    kind, _, size = name.partition(" ")
    if kind == "FDE":
        return FDEEncoder(FDEConfig.of_size(128, int(size.replace(",", "")), seed=42))
    kept = folder / f"{name}.muvera"
    if not kept.exists():
        sample = tokens(folder, "doc", _FITTED_TO)
        dim = int(size.replace(",", ""))
        began = time.perf_counter()
        RegressionEncoder.fit(sample, dim, centres=2000).save(kept)
        print(f"{name} fitted in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return load_encoder(kept)


def needed(recall: Any, target: float) -> float | None:
    """Candidates for the target, between two of those tried by the logarithm; None: more than any tried."""
    above = np.flatnonzero(np.asarray(recall) >= target)
    if not len(above):
        return None
    i = int(above[0])
    if i == 0:
        return float(CANDIDATES[0])
    share = (target - recall[i - 1]) / (recall[i] - recall[i - 1])
    return float(CANDIDATES[i - 1] * (CANDIDATES[i] / CANDIDATES[i - 1]) ** share)


def by_candidates(found: list[list[Any]], exact: list[list[int]]) -> Float64:
    """(candidates,) mean recall."""
    places = positions(found, exact)
    return np.array([recalls(places, LIMIT, n).mean() for n in CANDIDATES])


def scan(folder: Path, names: list[str], sizes: list[int]) -> dict[str, Any]:
    """Recall by candidates of float32 encodings, compared with every document."""
    queries, rows = tokens(folder, "query", QUERIES), {}
    for name in names:
        encoder = encoder_of(folder, name)
        asked, documents = encoder.encode_queries(queries), tokens(folder, "doc", max(sizes))
        scores = np.empty((len(queries), len(documents)), np.float32)
        for start in range(0, len(documents), _CHUNK):
            chunk = documents[start : start + _CHUNK]
            scores[:, start : start + len(chunk)] = asked @ encoder.encode_documents(chunk).T
        for count in sizes:
            found = first(scores[:, :count], max(CANDIDATES)).tolist()
            recall = by_candidates(found, best(folder, count))
            rows[f"{name} {count}"] = {
                "encoder": name,
                "documents": count,
                "recall": np.round(recall, 4).tolist(),
                "needed": {str(t): needed(recall, t) for t in TARGETS},
            }
            print(f"{name:<18}{count:>9,}" + "".join(f"{x:>7.3f}" for x in recall), rows[f"{name} {count}"]["needed"])
    return rows


def exact_times(folder: Path, sizes: list[int], graph: int) -> dict[str, Any]:
    """Milliseconds of exact MaxSim, and of Edge's graph over MaxSim up to ``graph`` documents."""
    queries, rows = queries_of(tokens(folder, "query", QUERIES)), {}
    for count in sizes:
        documents = tokens(folder, "doc", count)
        held = TokenBatch(np.array(documents.values), documents.offsets)
        row: dict[str, Any] = {"documents": count}
        asked = queries[: max(20, min(QUERIES, 4_000_000 // count))]
        row["exact"] = times(partial(maxsim, docs=held), asked, 1, os.getpid())
        if count <= graph:
            way = edge_by_hand(False)
            with tempfile.TemporaryDirectory(dir=folder) as directory:
                whole = TokenBatch(held.values.astype(np.float32), held.offsets)
                row["graph_load_s"] = timed(partial(way.load, Path(directory), whole))
                with way.serve(Path(directory), None) as (call, _):
                    found = [[hit.id for hit in call(query)] for query in queries]
                    row["graph"] = times(call, queries, 1, os.getpid())
            row["graph_recall"] = float(recalls(positions(found, best(folder, count)), LIMIT).mean())
        rows[f"exact {count}"] = row
        print(row, flush=True)
    return rows


def times(call: Callable[[Any], Any], queries: list[Any], clients: int, pid: int | None) -> dict[str, float]:
    """Percentiles of the milliseconds of a query, and queries a second, after a warm-up.

    Processor milliseconds of a query are those of this process and ``pid``.
    """
    for query in queries[:10]:
        call(query)

    def one(query: Any) -> float:
        began = time.perf_counter()
        call(query)
        return 1000 * (time.perf_counter() - began)

    began, spent = time.perf_counter(), spent_by(pid)
    with ThreadPoolExecutor(clients) as pool:
        taken = list(pool.map(one, queries))
    seconds, spent = time.perf_counter() - began, spent_by(pid) - spent
    p50, p95, p99 = np.percentile(taken, (50, 95, 99))
    rates = {"per_second": len(queries) / seconds, "cpu_ms": 1000 * spent / len(queries)}
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, **rates}


def spent_by(pid: int | None) -> float:
    """Processor seconds of this process and that one; NaN where it is not known."""
    return float("nan") if pid is None else cpu_seconds(pid)


class Edge:
    """Qdrant Edge in this process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def store(self, encoder: Encoder, codes: str | None) -> Iterator[Any]:
        """A new collection with these codes, or with None the one that is there."""
        made: Any = codes
        with (
            QdrantEdgeMuvera.open(self._path, _NAME, encoder)
            if codes is None
            else QdrantEdgeMuvera.create(self._path, _NAME, encoder, quantization=made)
        ) as store:
            yield store

    @property
    def pid(self) -> int | None:
        """This process."""
        return os.getpid()

    def memory(self) -> dict[str, int]:
        """Memory of this process."""
        return memory(os.getpid())

    def disk(self) -> int | None:
        """Bytes of the files."""
        return sum(f.stat().st_blocks * 512 for f in self._path.rglob("*") if f.is_file())


class Weaviate:
    """A server on that directory."""

    def __init__(self, path: Path) -> None:
        self._server = WeaviateServer(binary(), path)

    @contextmanager
    def store(self, encoder: Encoder, codes: str | None) -> Iterator[Any]:
        """The store, as in :meth:`Edge.store`."""
        made: Any = codes
        with running(self._server) as client:
            if codes is None:
                yield WeaviateMuvera.open(client, _NAME, encoder)
            else:
                yield WeaviateMuvera.create(client, _NAME, encoder, quantization=made)

    @property
    def pid(self) -> int | None:
        """The server."""
        return self._server.pid

    def memory(self) -> dict[str, int]:
        """Memory of the server."""
        return memory(self._server.pid)

    def disk(self) -> int | None:
        """Bytes of the server's data."""
        return self._server.disk_bytes()


class Qdrant:
    """The server at QDRANT_URL."""

    def __init__(self, path: Path) -> None:
        self._url = os.environ["QDRANT_URL"]
        self.pid = int(os.environ["QDRANT_PID"]) if "QDRANT_PID" in os.environ else None

    @contextmanager
    def store(self, encoder: Encoder, codes: str | None) -> Iterator[Any]:
        """The store, as in :meth:`Edge.store`."""
        made: Any = codes
        port = int(os.environ.get("QDRANT_GRPC_PORT", "6334"))
        client = QdrantClient(url=self._url, grpc_port=port, prefer_grpc=True, timeout=120)
        if codes is None:
            yield QdrantMuvera.open(client, _NAME, encoder)
            client.delete_collection(_NAME)
        else:
            yield QdrantMuvera.create(client, _NAME, encoder, quantization=made)
        client.close()

    def memory(self) -> dict[str, int]:
        """Memory of its process, or resident bytes by its own metrics."""
        if self.pid is not None:
            return memory(self.pid)
        with urllib.request.urlopen(f"{self._url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        resident = next(line for line in lines if line.startswith("memory_resident_bytes "))
        return {"RssAnon": int(float(resident.split()[1])), "RssFile": 0}

    def disk(self) -> int | None:
        """Not known."""
        return None


ENGINES: dict[str, Any] = {"edge": Edge, "weaviate": Weaviate, "qdrant": Qdrant}


def load(folder: Path, path: Path, engine: str, name: str, codes: str, count: int) -> dict[str, Any]:
    """Fills a collection."""
    encoder, place = encoder_of(folder, name), ENGINES[engine](path)
    documents = tokens(folder, "doc", count)
    encoder.encode_documents(documents[:1])  # compiles
    with place.store(encoder, codes) as store:
        began, spent = time.perf_counter(), spent_by(place.pid)
        for start in range(0, count, _CHUNK):
            chunk = documents[start : start + _CHUNK]
            report = store.upsert(range(start, start + len(chunk)), chunk)
            assert not report.failed, report.failed
        loaded, spent_to_load = time.perf_counter(), spent_by(place.pid)
        store.wait_indexed(timeout=3600)
        built, spent_to_build = time.perf_counter(), spent_by(place.pid)
    return {
        "load_s": loaded - began,
        "load_cpu_s": spent_to_load - spent,
        "build_s": built - loaded,
        "build_cpu_s": spent_to_build - spent_to_load,
        "disk_bytes": place.disk(),
    }


def serve(folder: Path, path: Path, engine: str, name: str, codes: str, count: int) -> dict[str, Any]:
    """Asks a collection that is filled."""
    place, queries = ENGINES[engine](path), queries_of(tokens(folder, "query", QUERIES))
    exact, encoder = best(folder, count), encoder_of(folder, name)
    encoder.encode_queries([queries[0]])  # compiles
    before = place.memory() if engine == "edge" else {"RssAnon": 0, "RssFile": 0}
    with place.store(encoder, None) as store:
        recall = []
        for n in CANDIDATES:
            asked = partial(store.search, limit=n, rerank="none", with_payload=False)
            found = [[hit.id for hit in asked(query)] for query in queries]
            recall.append(float(recalls(positions(found, exact), LIMIT, n).mean()))
        row: dict[str, Any] = {
            "recall": np.round(recall, 4).tolist(),
            "needed": {str(t): needed(recall, t) for t in TARGETS},
        }
        depths = {200, round(min(CANDIDATES[-1], row["needed"]["0.95"] or CANDIDATES[-1]))}
        for depth in sorted(depths):
            asked = partial(store.search, limit=LIMIT, prefetch=depth, with_payload=False)
            for clients in CLIENTS:
                row[f"{depth} candidates, {clients} clients"] = times(asked, queries, clients, place.pid)
        after = place.memory()
    row |= {"anon_bytes": after["RssAnon"] - before["RssAnon"], "mapped_bytes": after["RssFile"] - before["RssFile"]}
    return row


def in_process(*arguments: Any) -> dict[str, Any]:
    """Runs :func:`load` or :func:`serve` in a new process."""
    command = [sys.executable, "-m", "benchmarks.scale", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints rows and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), default=[])
    parser.add_argument("--codes", nargs="+", default=["auto"], help="presets of the engine")
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument(
        "--graph", type=int, default=5000, help="largest number of documents for which to build a graph over MaxSim"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/scale.json"))
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.tokens
    if arguments.one:
        step, path, engine, name, codes, count = arguments.one
        run = {"load": load, "serve": serve}[step]
        print(json.dumps(run(folder, Path(path), engine, name, codes, int(count))))
        return
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}

    def keep(rows: dict[str, Any]) -> None:
        results.update(rows)
        arguments.json.write_text(json.dumps(results, indent=1))

    if arguments.scan:
        keep({f"scan, {name}": row for name, row in scan(folder, arguments.encoders, arguments.sizes).items()})
    if arguments.exact:
        keep(exact_times(folder, arguments.sizes, arguments.graph))
    for count in arguments.sizes:
        for engine in arguments.engines:
            for name in arguments.encoders:
                for codes in arguments.codes:
                    best(folder, count)
                    encoder_of(folder, name)
                    with tempfile.TemporaryDirectory(dir=folder) as path:
                        row = {"engine": engine, "encoder": name, "codes": codes, "documents": count}
                        given = (path, engine, name, codes, count)
                        for step in ("load", "serve"):
                            row |= in_process(folder, "--one", step, *given)
                    keep({f"{engine}, {name}, {codes}, {count}": row})
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
