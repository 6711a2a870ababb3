"""One table: ways to search the same token vectors, each loaded and then served by a process of its own.

- exact MaxSim over everything, here, tokens as float16 in memory;
- two stages of this library: in Qdrant Edge, in Weaviate, in milvus-lite (which scores no tokens: rerank="client");
- what each engine has for multi-vectors itself: Qdrant's graph over MaxSim, Weaviate's graph over tokens, its MUVERA;
- fastembed's ``Muvera`` by hand in Qdrant Edge: a loop over documents, FDEs by cosine, tokens without a graph;
- PLAID by fast-plaid (4 bits, its defaults), where it is installed.

Documents: the sample, repeated with noise when more are asked for (then without judgements of the copies). Two stages
and both MUVERAs rerank ``--prefetch`` candidates. Weaviate is what WEAVIATE_BIN names; without, its rows are left out.
Load is client and engine together, until everything is indexed. Memory is what serving adds to a process that was
started anew, after all queries: anonymous, and mapped files that the system may drop.

    python -m benchmarks.compare [--docs 2041] [--prefetch 200] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import qdrant_edge as edge
from pymilvus import MilvusClient

from benchmarks.two_stage import GRAPH, timed
from benchmarks.weaviate_store import documents_of, kinds, running
from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.results import Hit
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim
from servers.weaviate_server import WeaviateServer

LIMIT = 10
BATCH = 500  # points in one update of Edge

Search = Callable[[Any], list[Hit]]


class Way(NamedTuple):
    """How to fill a directory, and how to search what is there.

    ``search`` is a context manager of the search and the id of the process whose memory counts.
    """

    load: Callable[[Path, TokenBatch], None]
    search: Callable[[Path, int], Any]


def exact() -> Way:
    """This library's MaxSim."""

    def load(path: Path, documents: TokenBatch) -> None:
        np.savez(path / "tokens.npz", values=documents.values.astype(np.float16), offsets=documents.offsets)

    @contextmanager
    def search(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        with np.load(path / "tokens.npz") as archive:
            documents = TokenBatch(archive["values"], archive["offsets"])

        def call(query: Any) -> list[Hit]:
            scores = maxsim(query, documents)
            return [Hit(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")[:LIMIT]]

        yield call, os.getpid()

    return Way(load, search)


def edge_two_stages() -> Way:
    """This library in Qdrant Edge."""

    def load(path: Path, documents: TokenBatch) -> None:
        with QdrantEdgeMuvera.create(path, "two", FDEEncoder(FDEConfig(documents.dim))) as store:
            assert not store.upsert(range(len(documents)), documents).failed
            store.wait_indexed()

    @contextmanager
    def search(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        with QdrantEdgeMuvera.open(path, "two") as store:
            yield partial(store.search, limit=LIMIT, prefetch=prefetch, with_payload=False), os.getpid()

    return Way(load, search)


def edge_by_hand(fastembed: bool) -> Way:
    """Qdrant Edge without this library: its graph over multi-vectors, or fastembed's FDEs before them."""
    flat = edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000)

    def encoder(dim: int) -> Any:
        from fastembed.postprocess import Muvera

        return Muvera(dim=dim, k_sim=5, dim_proj=16, r_reps=20)

    def load(path: Path, documents: TokenBatch) -> None:
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
    def search(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        shard = edge.EdgeShard.load(str(path))
        muvera: Any = encoder(load_pydocs().source.dim) if fastembed else None

        def call(tokens: Any) -> list[Hit]:
            params = edge.SearchParams(hnsw_ef=max(128, 2 * prefetch if fastembed else 0))
            best = edge.Query.Nearest(tokens, using="colbert")
            if fastembed:
                fde: Any = muvera.process_query(tokens).astype(np.float32)
                first = edge.Prefetch(prefetch, query=edge.Query.Nearest(fde, using="muvera"), params=params)
                request = edge.QueryRequest(LIMIT, prefetches=[first], query=best)
            else:
                request = edge.QueryRequest(LIMIT, query=best, params=params)
            return [Hit(int(p.id), p.score) for p in shard.query(request)]

        yield call, os.getpid()
        shard.close()

    return Way(load, search)


def weaviate(name: str) -> Way:
    """A kind of collection of ``weaviate_store.py``, in a server of its own."""
    kind = kinds()[name]
    binary = os.environ.get("WEAVIATE_BIN", "")

    def load(path: Path, documents: TokenBatch) -> None:
        with running(WeaviateServer(binary, path)) as client:
            kind.create(client)
            for start in range(0, len(documents), BATCH):
                ids = list(range(start, min(start + BATCH, len(documents))))
                kind.write(client, ids, [documents[i] for i in ids])

    @contextmanager
    def search(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        server = WeaviateServer(binary, path)
        with running(server) as client:
            yield kind.search(client, prefetch), server.pid

    return Way(load, search)


def milvus_lite() -> Way:
    """This library in milvus-lite, tokens as text."""

    def load(path: Path, documents: TokenBatch) -> None:
        client = MilvusClient(str(path / "milvus.db"))
        store = MilvusMuvera.create(client, "two", FDEEncoder(FDEConfig(documents.dim)))
        assert not store.upsert(range(len(documents)), documents).failed
        store.wait_indexed()
        client.close()

    @contextmanager
    def search(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        client = MilvusClient(str(path / "milvus.db"))
        store = MilvusMuvera.open(client, "two")
        yield partial(store.search, limit=LIMIT, prefetch=prefetch, with_payload=False), os.getpid()
        client.close()

    return Way(load, search)


def fast_plaid() -> Way:
    """PLAID, as fast-plaid does it by default."""

    def load(path: Path, documents: TokenBatch) -> None:
        import torch
        from fast_plaid import search as plaid

        index = plaid.FastPlaid(index=str(path / "index"), device="cpu")
        index.create(documents_embeddings=[torch.from_numpy(documents[i]) for i in range(len(documents))])

    @contextmanager
    def search(path: Path, prefetch: int) -> Iterator[tuple[Search, int]]:
        import torch
        from fast_plaid import search as plaid

        index = plaid.FastPlaid(index=str(path / "index"), device="cpu")

        def call(query: Any) -> list[Hit]:
            (found,) = index.search(queries_embeddings=torch.from_numpy(query[None]), top_k=LIMIT)
            return [Hit(int(i), float(score)) for i, score in found]

        yield call, os.getpid()

    return Way(load, search)


def ways() -> dict[str, Way]:
    """What can run here."""
    found = {
        "exact MaxSim": exact(),
        "Edge, two stages": edge_two_stages(),
        "Edge, multi-vector graph": edge_by_hand(False),
        "Edge, fastembed by hand": edge_by_hand(True),
    }
    found["milvus-lite, two stages"] = milvus_lite()
    if os.environ.get("WEAVIATE_BIN"):
        found |= {
            "Weaviate, two stages": weaviate("two stages, server"),
            "Weaviate, its MUVERA": weaviate("own MUVERA"),
            "Weaviate, token graph": weaviate("own multi-vector HNSW"),
        }
    if importlib.util.find_spec("fast_plaid"):
        found["PLAID, fast-plaid"] = fast_plaid()
    return found


def memory(pid: int) -> dict[str, int]:
    """RssAnon and RssFile in bytes (Linux), after giving back what was freed in this process."""
    if pid == os.getpid():
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line[:7]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssFile"))}


def ndcg(found: list[Any], relevant: frozenset[int]) -> float:
    """At 10, relevant or not."""
    gains = 1 / np.log2(np.arange(2, LIMIT + 2))
    ideal = gains[: len(relevant)].sum()
    return float(sum(gain for gain, i in zip(gains, found, strict=False) if i in relevant) / ideal)


def serve(way: Way, path: Path, count: int, prefetch: int) -> dict[str, Any]:
    """Quality, latency and memory of what :func:`ways` has loaded."""
    sample = load_pydocs()
    position = {name: i for i, name in enumerate(sample.ids)}
    relevant = [frozenset(position[name] for name in q.relevant) for q in sample.questions]
    exact_ids: Any = exact_top(sample.queries, documents_of(count), range(count), LIMIT)
    found: list[list[Any]] = []
    before = memory(os.getpid())
    with way.search(path, prefetch) as (call, pid):

        def recorded(query: Any) -> list[Hit]:
            hits = call(query)
            found.append([hit.id for hit in hits])
            return hits

        measure(call, sample.queries, exact_ids, relevant)  # what it reads is in memory now
        measured = measure(recorded, sample.queries, exact_ids, relevant)
        after = memory(pid)
    if pid != os.getpid():
        before = dict.fromkeys(after, 0)
    judged = [ndcg(ids, right) for ids, right in zip(found[1:], relevant, strict=True)]  # the first warms up
    return {
        **asdict(measured),
        "ndcg_at_10": float(np.mean(judged)),
        "anon_bytes": after["RssAnon"] - before["RssAnon"],
        "mapped_bytes": after["RssFile"] - before["RssFile"],
    }


def one(name: str, step: str, path: Path, count: int, prefetch: int) -> dict[str, Any]:
    """In a process of its own: ``load`` or ``serve``."""
    way = ways()[name]
    if step == "serve":
        return serve(way, path, count, prefetch)
    documents = documents_of(count)
    FDEEncoder(FDEConfig(documents.dim)).encode_documents(documents[:1])  # compile first
    seconds = timed(lambda: way.load(path, documents))
    used = (file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
    return {"load_s": seconds, "disk_bytes": sum(used)}


def in_process(*arguments: Any) -> dict[str, Any]:
    """Runs :func:`one` in a new process."""
    command = [sys.executable, "-m", "benchmarks.compare", "--one", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=2041)
    parser.add_argument("--prefetch", type=int, default=200)
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/compare.json"))
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, step, path, count, prefetch = arguments.one
        print(json.dumps(one(name, step, Path(path), int(count), int(prefetch))))
        return
    result: dict[str, Any] = {
        "documents": arguments.docs,
        "prefetch": arguments.prefetch,
    }
    print(
        f"{'':<26}{'recall@10':>10}{'nDCG@10':>9}{'p50 ms':>8}{'p95 ms':>8}{'load s':>8}{'disk MB':>9}"
        f"{'memory MB':>11}{'mapped MB':>11}"
    )
    for name in ways():
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as directory:
            loaded = in_process(name, "load", directory, arguments.docs, arguments.prefetch)
            served = in_process(name, "serve", directory, arguments.docs, arguments.prefetch)
        row = result[name] = {**loaded, **served}
        print(
            f"{name:<26}{row['recall_at_10']:>10.3f}{row['ndcg_at_10']:>9.3f}{row['p50_ms']:>8.1f}"
            f"{row['p95_ms']:>8.1f}{row['load_s']:>8.1f}{row['disk_bytes'] / 1e6:>9.1f}"
            f"{row['anon_bytes'] / 1e6:>11.1f}{row['mapped_bytes'] / 1e6:>11.1f}",
            flush=True,
        )
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
