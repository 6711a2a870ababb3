"""Compares ways to search the same token vectors in one table; each is loaded and served by separate processes.

- exact MaxSim over everything in this process, with tokens as float16 in memory;
- two stages of this library in Qdrant Edge, at several numbers of candidates: the default FDE (two-bit codes), the
  regression encoder with 512 dimensions in two bits and with 1,024 in int8 (2,000 centres, fitted to the documents);
- LEMUR's learned features in the same store (``benchmarks/lemur.py``: trained on 16,384 tokens of the documents, 512
  documents and 12 epochs; 2,048 dimensions in int8);
- two stages of this library in milvus-lite and LanceDB (rerank="client" in both) and in Weaviate;
- the engines' own searches of multi-vectors: Qdrant's graph over MaxSim, Weaviate's graph over tokens and its MUVERA;
- fastembed's ``Muvera``, used by hand in Qdrant Edge: a loop over documents, FDEs by cosine, tokens without a graph;
- fast-plaid and xtr-warp-rs (4 bits), where they are installed, with the probes of their defaults and with more.

Figures: recall of the ten best documents by exact MaxSim, nDCG@10 by the set's judgements, latency in milliseconds of
single queries with one core and with all cores, and CPU milliseconds of a query (including the server's) with one core.
Each round starts a new process for every search in turn, and prints its row again. Times are those of the round with
the lowest median, because other programs on the machine can only add to them. Other figures are those of the last
round. The load time is for client and engine together, including fits and trainings, until everything is indexed, with
all cores. Memory is the growth of a newly started process after all queries: anonymous memory, and mapped files, which
the OS can evict. WEAVIATE_BIN names the Weaviate server; without it, its rows are left out.

    python -m benchmarks.compare [--set pydocs | FILE.npz] [--qrels FILE] [--rounds 3] [--only NAME ...] [--json FILE]

The .npz file is one of ``benchmarks/sets.py``, with ``doc_ids`` and ``query_ids`` for the judgements.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lancedb
import numpy as np
import qdrant_edge as edge
from pymilvus import MilvusClient

from benchmarks.lemur import LemurEncoder, Training
from benchmarks.sets import Data, load
from benchmarks.two_stage import GRAPH, timed
from benchmarks.weaviate_store import kinds, running
from muvera_adapters.evidence.judgements import Judgements, quality, read_judgements
from muvera_adapters.evidence.measuring import Latency, ask, positions, recalls
from muvera_adapters.lancedb import LanceMuvera
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.qdrant.collection import Preset
from muvera_adapters.results import Hit
from muvera_adapters.samples import load_pydocs
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch, maxsim
from servers.weaviate_server import WeaviateServer

LIMIT = 10
BATCH = 500  # points in one update of Edge
PREFETCH = 200
#: numbers of cores that a search may use, by their names
CORES = {"one_core": 1, "all_cores": len(os.sched_getaffinity(0))}

Search = Callable[[Any], list[Hit]]
#: the search of a directory, and the id of the process whose memory counts
Served = AbstractContextManager[tuple[Search, int]]


class Way(NamedTuple):
    """How to fill a directory, and how to search what is there.

    Attributes:
        load: fills it.
        serve: opens it, for one of ``settings``.
        settings: what is measured of the same files, by the name of the row.
    """

    load: Callable[[Path, TokenBatch], None]
    serve: Callable[[Path, Any], Served]
    settings: dict[str, Any]


def exact() -> Way:
    """This library's MaxSim."""

    def fill(path: Path, documents: TokenBatch) -> None:
        np.savez(path / "tokens.npz", values=documents.values.astype(np.float16), offsets=documents.offsets)

    @contextmanager
    def serve(path: Path, _: Any) -> Iterator[tuple[Search, int]]:
        with np.load(path / "tokens.npz") as archive:
            documents = TokenBatch(archive["values"], archive["offsets"])

        def call(query: Any) -> list[Hit]:
            scores = maxsim(query, documents)
            return [Hit(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")[:LIMIT]]

        yield call, os.getpid()

    return Way(fill, serve, {"": None})


def edge_two_stages(make: Callable[[TokenBatch], Encoder], codes: Preset, candidates: Sequence[int]) -> Way:
    """This library in Qdrant Edge."""

    def fill(path: Path, documents: TokenBatch) -> None:
        encoder = make(documents)
        (path / "encoder.pickle").write_bytes(pickle.dumps(encoder))
        with QdrantEdgeMuvera.create(path / "store", "two", encoder, quantization=codes) as store:
            assert not store.upsert(range(len(documents)), documents).failed
            store.wait_indexed()

    @contextmanager
    def serve(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        encoder = pickle.loads((path / "encoder.pickle").read_bytes())
        with QdrantEdgeMuvera.open(path / "store", "two", encoder) as store:
            yield partial(store.search, limit=LIMIT, prefetch=prefetch, with_payload=False), os.getpid()

    return Way(fill, serve, {f", {count} candidates": count for count in candidates})


def trained(documents: TokenBatch) -> LemurEncoder:
    """LEMUR, which sees no queries, as the regression encoder does not."""
    nothing = TokenBatch(np.empty((0, documents.dim), np.float32), np.zeros(1, np.int64))
    return LemurEncoder(documents, nothing, Training(), seed=1, threads=len(os.sched_getaffinity(0)))


def edge_by_hand(fastembed: bool) -> Way:
    """Qdrant Edge without this library: its graph over multi-vectors, or fastembed's FDEs before them."""
    flat = edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000)

    def encoder(dim: int) -> Any:
        from fastembed.postprocess import Muvera

        return Muvera(dim=dim, k_sim=5, dim_proj=16, r_reps=20)

    def fill(path: Path, documents: TokenBatch) -> None:
        vectors = {
            "colbert": edge.EdgeVectorParams(
                documents.dim,
                edge.Distance.Dot,
                multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
                datatype=edge.VectorStorageDatatype.Float16,
                hnsw_config=flat if fastembed else GRAPH,
            )
        }
        muvera: Any = encoder(documents.dim) if fastembed else None
        if fastembed:
            vectors["muvera"] = edge.EdgeVectorParams(muvera.embedding_size, edge.Distance.Cosine, hnsw_config=GRAPH)
        shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors))
        for start in range(0, len(documents), BATCH):
            points: list[Any] = []
            for i in range(start, min(start + BATCH, len(documents))):
                more = {"muvera": muvera.process_document(documents[i]).astype(np.float32)} if fastembed else {}
                vector: Any = {"colbert": documents[i], **more}
                points.append(edge.Point(i, vector, {}))
            shard.update(edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.close()

    @contextmanager
    def serve(path: Path, prefetch: int | None) -> Iterator[tuple[Search, int]]:
        shard = edge.EdgeShard.load(str(path))
        muvera: Any = None

        def call(tokens: Any) -> list[Hit]:
            nonlocal muvera
            params = edge.SearchParams(hnsw_ef=max(128, 2 * (prefetch or 0)))
            best = edge.Query.Nearest(tokens, using="colbert")
            if prefetch:
                muvera = muvera or encoder(tokens.shape[1])
                fde: Any = muvera.process_query(tokens).astype(np.float32)
                first = edge.Prefetch(prefetch, query=edge.Query.Nearest(fde, using="muvera"), params=params)
                request = edge.QueryRequest(LIMIT, prefetches=[first], query=best)
            else:
                request = edge.QueryRequest(LIMIT, query=best, params=params)
            return [Hit(int(p.id), p.score) for p in shard.query(request)]

        yield call, os.getpid()
        shard.close()

    return Way(fill, serve, {f", {PREFETCH} candidates": PREFETCH} if fastembed else {"": None})


def weaviate(kind_name: str, settings: dict[str, Any]) -> Way:
    """A kind of collection of ``weaviate_store.py``, in a separate server."""
    kind = kinds()[kind_name]
    binary = os.environ.get("WEAVIATE_BIN", "")

    def fill(path: Path, documents: TokenBatch) -> None:
        with running(WeaviateServer(binary, path)) as client:
            kind.create(client)
            for start in range(0, len(documents), BATCH):
                ids = list(range(start, min(start + BATCH, len(documents))))
                kind.write(client, ids, [documents[i] for i in ids])

    @contextmanager
    def serve(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        server = WeaviateServer(binary, path)
        with running(server) as client:
            yield kind.search(client, prefetch), server.pid

    return Way(fill, serve, settings)


def milvus_lite() -> Way:
    """This library in milvus-lite, tokens as text."""

    def fill(path: Path, documents: TokenBatch) -> None:
        client = MilvusClient(str(path / "milvus.db"))
        store = MilvusMuvera.create(client, "two", FDEEncoder(FDEConfig(documents.dim)))
        assert not store.upsert(range(len(documents)), documents).failed
        store.wait_indexed()
        client.close()

    @contextmanager
    def serve(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        client = MilvusClient(str(path / "milvus.db"))
        store = MilvusMuvera.open(client, "two")
        yield partial(store.search, limit=LIMIT, prefetch=prefetch, with_payload=False), os.getpid()
        client.close()

    return Way(fill, serve, {f", {PREFETCH} candidates": PREFETCH})


def lance() -> Way:
    """This library in LanceDB, codes of one bit, tokens as float16."""

    def fill(path: Path, documents: TokenBatch) -> None:
        store = LanceMuvera.create(lancedb.connect(path), "two", FDEEncoder(FDEConfig(documents.dim)))
        assert not store.upsert(range(len(documents)), documents).failed
        store.wait_indexed()

    @contextmanager
    def serve(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        store = LanceMuvera.open(lancedb.connect(path), "two")
        yield partial(store.search, limit=LIMIT, prefetch=prefetch, with_payload=False), os.getpid()

    return Way(fill, serve, {f", {PREFETCH} candidates": PREFETCH})


def fast_plaid() -> Way:
    """PLAID by fast-plaid, 4 bits."""

    def index_at(path: Path) -> Any:
        from fast_plaid import search as plaid

        return plaid.FastPlaid(index=str(path / "index"), device="cpu")

    def fill(path: Path, documents: TokenBatch) -> None:
        index_at(path).create(documents_embeddings=tensors(documents))

    @contextmanager
    def serve(path: Path, probes: int) -> Iterator[tuple[Search, int]]:
        index = index_at(path)

        def call(query: Any) -> list[Hit]:
            (found,) = index.search(*tensors([query[None]]), top_k=LIMIT, n_ivf_probe=probes, show_progress=False)
            return [Hit(int(i), float(score)) for i, score in found]

        yield call, os.getpid()

    return Way(fill, serve, {", 8 probes (default)": 8, ", 32 probes": 32, ", 128 probes": 128})


def warp() -> Way:
    """XTR-WARP by xtr-warp-rs, 4 bits."""

    def fill(path: Path, documents: TokenBatch) -> None:
        from xtr_warp import XTRWarp

        XTRWarp(str(path / "index")).create(tensors(documents), device="cpu", show_progress=False)

    @contextmanager
    def serve(path: Path, probes: int | None) -> Iterator[tuple[Search, int]]:
        from xtr_warp import XTRWarp

        index = XTRWarp(str(path / "index")).load("cpu")
        threads = len(os.sched_getaffinity(0))

        def call(query: Any) -> list[Hit]:
            (tensor,) = tensors([query])
            (found,) = index.search(tensor, LIMIT, num_threads=threads, nprobe=probes, show_progress=False)
            return [Hit(int(i), float(score)) for i, score in found]

        yield call, os.getpid()

    return Way(fill, serve, {", default probes": None, ", 64 probes": 64, ", 128 probes": 128})


def tensors(matrices: Any) -> list[Any]:
    """The token matrices as torch tensors."""
    import torch

    return [torch.from_numpy(np.ascontiguousarray(matrices[i])) for i in range(len(matrices))]


def ways() -> dict[str, Way]:
    """What can run here."""
    regression = partial(RegressionEncoder.fit, centres=2000)
    counts = (30, 50, 100, 200)
    found = {
        "exact MaxSim": exact(),
        "Edge, default FDE": edge_two_stages(lambda d: FDEEncoder(FDEConfig(d.dim)), "turbo2", counts),
        "Edge, regression 512, two bits": edge_two_stages(partial(regression, dim=512), "turbo2", counts),
        "Edge, regression 1,024, int8": edge_two_stages(partial(regression, dim=1024), "int8", counts),
        "Edge, LEMUR 2,048, int8": edge_two_stages(trained, "int8", counts),
    }
    if importlib.util.find_spec("xtr_warp"):
        found["WARP, xtr-warp-rs"] = warp()
    if importlib.util.find_spec("fast_plaid"):
        found["PLAID, fast-plaid"] = fast_plaid()
    found |= {
        "Edge, multi-vector graph": edge_by_hand(False),
        "Edge, fastembed by hand": edge_by_hand(True),
        "milvus-lite, two stages": milvus_lite(),
        "LanceDB, two stages": lance(),
    }
    if os.environ.get("WEAVIATE_BIN"):
        deep = {f", {PREFETCH} candidates": PREFETCH}
        found |= {
            "Weaviate, two stages": weaviate("two stages, server", deep),
            "Weaviate, its MUVERA": weaviate("own MUVERA", deep),
            "Weaviate, token graph": weaviate("own multi-vector HNSW", {"": 0}),
        }
    return found


def memory(pid: int) -> dict[str, int]:
    """RssAnon and RssFile in bytes (Linux), after giving back what was freed in this process."""
    if pid == os.getpid():
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line[:7]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssFile"))}


def cpu_seconds(pid: int) -> float:
    """Seconds that processors have spent on this process, and on a server."""
    mine = time.process_time()
    if pid == os.getpid():
        return mine
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return mine + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def kept(path: Path) -> Data:
    """The set that :func:`main` has written."""
    with np.load(path) as file:
        documents, queries = (TokenBatch(file[f"{kind}_tokens"], file[f"{kind}_offsets"]) for kind in ("doc", "query"))
        return Data(documents, queries, file["best"].tolist())


def served(way: Way, setting: Any, data: Data, path: Path) -> dict[str, Any]:
    """Rankings, latency and memory of what was loaded."""
    before = memory(os.getpid())
    with way.serve(path, setting) as (call, pid):
        ask(call, data.queries)  # what it reads is in memory now
        busy = cpu_seconds(pid)
        found, seconds = ask(call, data.queries)
        busy = cpu_seconds(pid) - busy
        after = memory(pid)
    if pid != os.getpid():
        before = dict.fromkeys(after, 0)
    latency = Latency.of(seconds)
    return {
        "recall_at_10": float(recalls(positions(found, data.best), LIMIT).mean()),
        "found": found,
        "p50_ms": latency.p50_ms,
        "p95_ms": latency.p95_ms,
        "cpu_ms": 1000 * busy / (1 + len(seconds)),  # the first was asked twice
        "anon_bytes": after["RssAnon"] - before["RssAnon"],
        "mapped_bytes": after["RssFile"] - before["RssFile"],
    }


def one(name: str, setting: str | None, data: Data, path: Path) -> dict[str, Any]:
    """Loads a way, or serves one of its settings; runs in a separate process."""
    way = ways()[name]
    if setting is not None:
        return served(way, way.settings[setting], data, path)
    FDEEncoder(FDEConfig(data.documents.dim)).encode_documents(data.documents[:1])  # compile first
    seconds = timed(lambda: way.load(path, data.documents))
    used = (file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
    return {"load_s": seconds, "disk_bytes": sum(used)}


def in_process(cores: int, name: str, setting: str | None, data: Path, path: Path) -> dict[str, Any]:
    """Runs :func:`one` in a new process that may use that many cores."""
    mine = os.sched_getaffinity(0)
    command = [sys.executable, "-m", "benchmarks.compare", "--one", json.dumps([name, setting, str(data), str(path)])]
    os.sched_setaffinity(0, sorted(mine)[:cores])  # which the new process inherits before it counts its cores
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        os.sched_setaffinity(0, mine)
    return json.loads(done.stdout.splitlines()[-1])


def judged(name: str, qrels: Path | None) -> tuple[list[str], list[str], Judgements]:
    """Ids of documents and queries, and judgements; None if there is no file, or the documents were changed."""
    if name == "pydocs":
        sample = load_pydocs()
        asked = [str(i) for i in range(len(sample.questions))]
        return (
            sample.ids,
            asked,
            {i: dict.fromkeys(q.relevant, 1) for i, q in zip(asked, sample.questions, strict=True)},
        )
    if qrels is None:
        return [], [], {}
    with np.load(name) as file:
        return [str(i) for i in file["doc_ids"]], [str(i) for i in file["query_ids"]], read_judgements(qrels)


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    ndcg = row.get("ndcg_at_10")
    times = [f"{row[cores]['p50_ms']:>8.1f}{row[cores]['p95_ms']:>8.1f}" for cores in CORES]
    return (
        f"{name:<48}{row['recall_at_10']:>8.3f}{'-' if ndcg is None else f'{ndcg:.3f}':>8}{''.join(times)}"
        f"{row['one_core']['cpu_ms']:>8.1f}{row['load_s']:>8.1f}{row['disk_bytes'] / 1e6:>9.0f}"
        f"{row['anon_bytes'] / 1e6:>9.0f}{row['mapped_bytes'] / 1e6:>9.0f}"
    )


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="pydocs", help="a set, see benchmarks/sets.py")
    parser.add_argument("--qrels", type=Path, help="file with judgements for the queries of an .npz file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="names of ways to measure, without their settings")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/compare.json"))
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, setting, data, path = arguments.one
        print(json.dumps(one(name, setting, kept(Path(data)), Path(path))))
        return
    documents, queries, judgements = judged(arguments.set, arguments.qrels)
    chosen = {name: way for name, way in ways().items() if not arguments.only or name in arguments.only}
    rows: dict[str, dict[str, Any]] = {}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        data = load(arguments.set)
        print(data, flush=True)
        times_of = "".join(f"{f'p50 {cores}':>8}{'p95':>8}" for cores in ("one", "all"))
        print(
            f"{'':<48}{'recall':>8}{'nDCG':>8}{times_of}{'CPU ms':>8}{'load s':>8}{'disk MB':>9}{'mem MB':>9}"
            f"{'mapped':>9}"
        )
        np.savez(
            root / "set.npz",
            doc_tokens=data.documents.values,
            doc_offsets=data.documents.offsets,
            query_tokens=data.queries.values,
            query_offsets=data.queries.offsets,
            best=data.best,
        )
        loaded: dict[str, dict[str, Any]] = {}
        for _ in range(arguments.rounds):
            for i, (name, way) in enumerate(chosen.items()):
                if name not in loaded:
                    (root / str(i)).mkdir()
                    loaded[name] = in_process(max(CORES.values()), name, None, root / "set.npz", root / str(i))
                for setting in way.settings:
                    row = rows.setdefault(f"{name}{setting}", {**loaded[name]})
                    for label, cores in CORES.items():
                        found = in_process(cores, name, setting, root / "set.npz", root / str(i))
                        times = {key: found.pop(key) for key in ("p50_ms", "p95_ms", "cpu_ms")}
                        row[label] = min(row.get(label, times), times, key=lambda each: each["p50_ms"])
                    rankings = found.pop("found")
                    row |= found
                    if judgements:
                        named = [[documents[i] for i in ids] for ids in rankings]
                        row["ndcg_at_10"] = quality(named, queries, judgements)["nDCG@10"]
                    print(line(f"{name}{setting}", row), flush=True)
                    arguments.json.write_text(json.dumps({"set": str(data), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
