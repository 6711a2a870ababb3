"""Two stages in Weaviate compared with its multi-vector index and its MUVERA: one server each, the same documents.

Documents: the sample (pydocs), repeated with noise, so that lengths and directions are real. Equal dimensions of both
encodings, equal graphs, equal quantization, equal rerank depth (``--prefetch``): Weaviate's own MUVERA reranks its
whole beam (hnsw/search.go: knnSearchByVector cuts to twice the limit only without multi-vectors), so its ``ef`` is set
to the depth. All servers are loaded in turns, a chunk at a time; then every search is measured in several rounds, in
turns again, each on its own server that was just restarted, after one warm-up of all queries. Two stages also run with
an encoder of a tenth of the dimensions, fitted to the first documents (the sample itself). Figures are medians of the
rounds. Memory is that of the server process after its queries: RssAnon, which the system cannot drop, and VmRSS, which
counts what is mapped from files too. Disk is that of a stopped server.

    WEAVIATE_BIN=... python -m benchmarks.weaviate_store [--docs 20000] [--json FILE]

``--token-fields`` measures something else: the memory of each kind of token index in addition to the same FDEs, after a
restart and searches that do not touch tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import weaviate
from weaviate.classes.config import Configure, Reconfigure, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import MetadataQuery

from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.results import Hit
from muvera_adapters.samples import load_pydocs
from muvera_adapters.stores.writing import slices
from muvera_adapters.weaviate import WeaviateMuvera
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch
from servers.weaviate_server import WeaviateServer, binary

VI = Configure.VectorIndex
NOISE = 0.05
LIMIT = 10
CHUNK = 1_000
WRITE_BYTES = 8 << 20
ENCODER = FDEEncoder(FDEConfig(128))

Client = weaviate.WeaviateClient
Search = Callable[[Any], list[Hit]]


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
        made.append(tokens.astype(np.float32))
    return TokenBatch.from_list(made)


@dataclass(frozen=True)
class Kind:
    """One kind of collection: how it is made, written and searched (``prefetch``: how many documents are reranked)."""

    create: Callable[[Client], None]
    write: Callable[[Client, list[int], Any], None]
    search: Callable[[Client, int], Search]


def ours(tokens_index: Any, rerank: Any, encoder: Encoder = ENCODER) -> Kind:
    """Through the adapter."""

    def create(client: Client) -> None:
        WeaviateMuvera.create(client, "Bench", encoder, tokens_index=tokens_index)

    def write(client: Client, ids: list[int], tokens: Any) -> None:
        report = WeaviateMuvera.open(client, "Bench", encoder).upsert(ids, tokens, [{}] * len(ids))
        assert not report.failed

    def search(client: Client, prefetch: int) -> Search:
        store = WeaviateMuvera.open(client, "Bench", encoder)
        return partial(store.search, limit=LIMIT, prefetch=prefetch, rerank=rerank, with_payload=False)

    return Kind(create, write, search)


def own(encoding: Any, quantizer: Any) -> Kind:
    """Weaviate's own index of a multi-vector, through its client alone."""

    def create(client: Client) -> None:
        index = VI.hnsw(
            distance_metric=VectorDistances.DOT, quantizer=quantizer, ef_construction=128, max_connections=32
        )
        vector = Configure.MultiVectors.self_provided(name="tokens", encoding=encoding, vector_index_config=index)
        client.collections.create("Bench", vector_config=[vector])

    def write(client: Client, ids: list[int], tokens: Any) -> None:
        for i, j in slices([4 * matrix.size for matrix in tokens], WRITE_BYTES):
            objects: list[Any] = [
                DataObject({}, str(uuid.UUID(int=ids[k] + 1)), {"tokens": tokens[k].tolist()}) for k in range(i, j)
            ]
            assert not client.collections.use("Bench").data.insert_many(objects).has_errors

    def search(client: Client, prefetch: int) -> Search:
        collection = client.collections.use("Bench")
        if encoding is not None:
            index = Reconfigure.VectorIndex.hnsw(ef=prefetch)
            collection.config.update(vector_config=Reconfigure.Vectors.update(name="tokens", vector_index_config=index))

        def call(tokens: Any) -> list[Hit]:
            vector: Any = np.asarray(tokens, np.float32)
            found = collection.query.near_vector(
                vector,
                target_vector="tokens",
                limit=LIMIT,
                return_properties=[],
                return_metadata=MetadataQuery(distance=True),
            )
            return [Hit(o.uuid.int - 1, -(o.metadata.distance or 0.0)) for o in found.objects]

        return call

    return Kind(create, write, search)


def fitted(documents: TokenBatch) -> Kind:
    """Two stages with a fitted encoding."""
    started = time.perf_counter()
    encoder = RegressionEncoder.fit(documents, dim=1024)
    encoder.encode_documents(documents[:1])  # compiles
    print(f"fitted in {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    return ours("rerank", "native", encoder)


def kinds() -> dict[str, Kind]:
    """What is compared, of equal dimensions."""
    config = ENCODER.config
    muvera = VI.MultiVector.Encoding.muvera(ksim=config.k_sim, dprojections=config.d_proj, repetitions=config.r_reps)
    return {
        "two stages, server": ours("rerank", "native"),
        "two stages, client": ours("none", "client"),
        "own MUVERA": own(muvera, VI.Quantizer.rq(bits=8, rescore_limit=0)),
        "own multi-vector HNSW": own(None, VI.Quantizer.none()),
    }


def token_fields() -> dict[str, Kind]:
    """Kinds of token indexes with the same FDEs."""
    muvera = VI.MultiVector.Encoding.muvera()
    return {
        "stored, no index": ours("none", "none"),
        "rerank only": ours("rerank", "none"),
        "own MUVERA, 2,560": ours(muvera, "none"),
        "multi-vector HNSW": ours("hnsw", "none"),
    }


@contextmanager
def running(server: WeaviateServer) -> Iterator[Client]:
    """A connection to a server that is started for it and stopped after it."""
    try:
        server.start()
        with server.connect() as client:
            yield client
    finally:
        server.stop()


def load(servers: dict[str, WeaviateServer], compared: dict[str, Kind], documents: TokenBatch) -> dict[str, float]:
    """Seconds that each took for all documents; they take turns, a chunk at a time."""
    seconds = dict.fromkeys(compared, 0.0)
    with ExitStack() as stack:
        clients = {name: stack.enter_context(running(server)) for name, server in servers.items()}
        for name, kind in compared.items():
            kind.create(clients[name])
        for i in range(0, len(documents), CHUNK):
            ids = list(range(i, min(i + CHUNK, len(documents))))
            tokens = [documents[k] for k in ids]
            for name, kind in compared.items():
                started = time.perf_counter()
                kind.write(clients[name], ids, tokens)
                seconds[name] += time.perf_counter() - started
    return seconds


def measured(server: WeaviateServer, kind: Kind, prefetch: int, exact: Any) -> dict[str, Any]:
    """One round of one search."""
    queries = load_pydocs().queries
    nothing: list[frozenset[str]] = [frozenset()] * len(exact)
    with running(server) as client:
        call = kind.search(client, prefetch)
        measure(call, queries, exact, nothing)  # loads the shard, and what it reads, into memory
        found = measure(call, queries, exact, nothing)
        return {
            "anon_bytes": server.memory_bytes("RssAnon"),
            "rss_bytes": server.memory_bytes("VmRSS"),
            "recall_at_10": found.recall_at_10,
            "p50_ms": found.p50_ms,
            "p95_ms": found.p95_ms,
        }


def medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """The median of every figure."""
    return {key: float(np.median([each[key] for each in rounds])) for key in rounds[0]}


def searches(compared: dict[str, Kind], prefetches: list[int]) -> list[tuple[str, int]]:
    """Rows of the table: what is searched, and how many documents it reranks (0: it scores what its graph finds)."""
    graph = "own multi-vector HNSW"
    return [(name, n) for n in prefetches for name in compared if name != graph] + [
        (name, 0) for name in compared if name == graph
    ]


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--prefetch", type=int, nargs="+", default=[200, 500])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--token-fields", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/weaviate.json"))
    arguments = parser.parse_args()
    documents, queries = documents_of(arguments.docs), load_pydocs().queries
    if arguments.token_fields:
        compared = token_fields()
    else:
        compared = kinds() | {"two stages, fitted": fitted(documents[: len(load_pydocs().ids)])}
    ENCODER.encode_documents(documents[:1])  # compile first
    exact = exact_top(queries, documents, list(range(arguments.docs)), LIMIT)
    rows = searches(compared, arguments.prefetch[:1] if arguments.token_fields else arguments.prefetch)
    with tempfile.TemporaryDirectory() as directory:
        servers = {name: WeaviateServer(binary(), Path(directory) / str(i)) for i, name in enumerate(compared)}
        seconds = load(servers, compared, documents)
        disk = {name: server.disk_bytes() for name, server in servers.items()}
        print(seconds, disk, file=sys.stderr, flush=True)
        rounds: dict[tuple[str, int], list[dict[str, Any]]] = {row: [] for row in rows}
        for _ in range(arguments.rounds):
            for row in rows:
                rounds[row].append(measured(servers[row[0]], compared[row[0]], row[1], exact))
                print(*row, rounds[row][-1], file=sys.stderr, flush=True)
    result: list[dict[str, Any]] = []
    head = ("", "reranked", "load s", "disk MB", "anon MB", "rss MB", "recall@10", "p50 ms", "p95 ms")
    print("{:<23}{:>9}{:>8}{:>9}{:>9}{:>9}{:>11}{:>8}{:>8}".format(*head))
    for name, depth in rows:
        found: dict[str, Any] = {"load_s": seconds[name], "disk_bytes": disk[name], **medians(rounds[name, depth])}
        result.append({"name": name, "reranked": depth, **found, "rounds": rounds[name, depth]})
        print(
            f"{name:<23}{depth:>9}{found['load_s']:>8.1f}{found['disk_bytes'] / 1e6:>9.0f}"
            f"{found['anon_bytes'] / 1e6:>9.0f}{found['rss_bytes'] / 1e6:>9.0f}{found['recall_at_10']:>11.3f}"
            f"{found['p50_ms']:>8.1f}{found['p95_ms']:>8.1f}"
        )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"documents": arguments.docs, "rows": result}, indent=2))


if __name__ == "__main__":
    main()
