"""Two stages in Weaviate beside its own multi-vector index and its own MUVERA: one server each, the same documents.

Documents: the sample (pydocs), repeated with noise, so that lengths and directions are real. Equal dimensions of both
encodings, equal quantization, equal rerank depth (``--prefetch``): Weaviate's own MUVERA reranks its whole beam
(hnsw/search.go: knnSearchByVector cuts to twice the limit only without multi-vectors), so its ``ef`` is set to the
depth, and once left at Weaviate's default, which makes it 500. For each: load time, disk after a clean stop, then a
restart, the queries one after the other, and the memory of the server (RssAnon: without mapped files). The binary is
what WEAVIATE_BIN names.

    WEAVIATE_BIN=... python -m benchmarks.weaviate_store [--docs 20000] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import weaviate
from weaviate.classes.config import Configure, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import MetadataQuery

from integration_tests.weaviate_server import WeaviateServer, binary
from muvera_adapters.documents import slices
from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.results import Hit
from muvera_adapters.samples import load_pydocs
from muvera_adapters.weaviate import WeaviateMuvera
from muvera_core import FDEConfig, FDEEncoder, TokenBatch

VI = Configure.VectorIndex
NOISE = 0.05
LIMIT = 10
WRITE_BYTES = 8 << 20

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


def ours(tokens_index: Any, rerank: Any) -> tuple[Callable[..., None], Callable[..., Search]]:
    """Loading and searching through the adapter."""

    def load(client: weaviate.WeaviateClient, encoder: FDEEncoder, documents: TokenBatch) -> None:
        store = WeaviateMuvera.create(client, "Bench", encoder, tokens_index=tokens_index)
        report = store.upsert(list(range(len(documents))), documents, [{}] * len(documents))
        assert not report.failed

    def search(client: weaviate.WeaviateClient, prefetch: int) -> Search:
        store = WeaviateMuvera.open(client, "Bench")
        return partial(store.search, limit=LIMIT, prefetch=prefetch, rerank=rerank, with_payload=False)

    return load, search


def own(encoding: Any, quantizer: Any, ef: int | None) -> tuple[Callable[..., None], Callable[..., Search]]:
    """Weaviate's own index of a multi-vector, through its client alone; ``ef``: its beam."""

    def load(client: weaviate.WeaviateClient, encoder: FDEEncoder, documents: TokenBatch) -> None:
        index = VI.hnsw(
            distance_metric=VectorDistances.DOT, quantizer=quantizer, ef=ef, ef_construction=128, max_connections=32
        )
        vector = Configure.MultiVectors.self_provided(name="tokens", encoding=encoding, vector_index_config=index)
        collection = client.collections.create("Bench", vector_config=[vector])
        for i, j in slices([4 * int(n) * documents.dim for n in documents.lengths], WRITE_BYTES):
            objects: list[Any] = [
                DataObject({}, str(uuid.UUID(int=k + 1)), {"tokens": documents[k].tolist()}) for k in range(i, j)
            ]
            assert not collection.data.insert_many(objects).has_errors

    def search(client: weaviate.WeaviateClient, prefetch: int) -> Search:
        query = client.collections.use("Bench").query
        limit = LIMIT if encoding is None else max(LIMIT, prefetch // 2)

        def call(tokens: Any) -> list[Hit]:
            vector: Any = np.asarray(tokens, np.float32)
            found = query.near_vector(
                vector,
                target_vector="tokens",
                limit=limit,
                return_properties=[],
                return_metadata=MetadataQuery(distance=True),
            )
            return [Hit(o.uuid.int - 1, -(o.metadata.distance or 0.0)) for o in found.objects[:LIMIT]]

        return call

    return load, search


def ways(encoder: FDEEncoder, prefetch: int) -> dict[str, tuple[Callable[..., None], Callable[..., Search]]]:
    """What is compared."""
    config = encoder.config
    muvera = VI.MultiVector.Encoding.muvera(ksim=config.k_sim, dprojections=config.d_proj, repetitions=config.r_reps)
    rq8 = VI.Quantizer.rq(bits=8, rescore_limit=0)
    return {
        "two stages, server": ours("rerank", "native"),
        "two stages, client": ours("none", "client"),
        "own MUVERA": own(muvera, rq8, prefetch),
        "own MUVERA, ef 500": own(muvera, rq8, None),
        "own multi-vector HNSW": own(None, VI.Quantizer.none(), None),
    }


def run(way: tuple[Callable[..., None], Callable[..., Search]], count: int, prefetch: int) -> dict[str, Any]:
    """Everything about one way."""
    load, search = way
    sample, documents = load_pydocs(), documents_of(count)
    encoder = FDEEncoder(FDEConfig(documents.dim))
    encoder.encode_documents(documents[:1])  # compile first
    exact = exact_top(sample.queries, documents, list(range(count)), LIMIT)
    with tempfile.TemporaryDirectory() as directory:
        server = WeaviateServer(binary(), Path(directory))
        try:
            server.start()
            with server.connect() as client:
                empty = server.memory_bytes("RssAnon")
                started = time.perf_counter()
                load(client, encoder, documents)
                seconds = time.perf_counter() - started
                peak = server.memory_bytes("VmHWM")
            server.stop()
            disk = server.disk_bytes()
            server.start()
            with server.connect() as client:
                nothing: list[frozenset[str]] = [frozenset()] * len(exact)
                call = search(client, prefetch)
                measure(call, sample.queries, exact, nothing)  # loads the shard, and what it reads, into memory
                found = measure(call, sample.queries, exact, nothing)
                memory, mapped = server.memory_bytes("RssAnon"), server.memory_bytes("RssFile")
        finally:
            server.stop()
    return {
        "load_s": seconds,
        "disk_bytes": disk,
        "anon_bytes": memory,
        "anon_bytes_empty": empty,
        "mapped_bytes": mapped,
        "peak_bytes_while_loading": peak,
        "recall_at_10": found.recall_at_10,
        "p50_ms": found.p50_ms,
        "p95_ms": found.p95_ms,
    }


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--prefetch", type=int, default=200)
    parser.add_argument("--only", nargs="+", help="names of the ways to run")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/weaviate.json"))
    arguments = parser.parse_args()
    encoder = FDEEncoder(FDEConfig(load_pydocs().queries.dim))
    result: dict[str, Any] = {"documents": arguments.docs, "prefetch": arguments.prefetch, "fde_dim": encoder.dim}
    print(
        f"{'':<23}{'load s':>8}{'disk MB':>9}{'memory MB':>11}{'mapped MB':>11}{'peak MB':>9}{'recall@10':>11}"
        f"{'p50 ms':>8}{'p95 ms':>8}"
    )
    for name, way in ways(encoder, arguments.prefetch).items():
        if arguments.only and name not in arguments.only:
            continue
        row = result[name] = run(way, arguments.docs, arguments.prefetch)
        print(
            f"{name:<23}{row['load_s']:>8.1f}{row['disk_bytes'] / 1e6:>9.0f}{row['anon_bytes'] / 1e6:>11.0f}"
            f"{row['mapped_bytes'] / 1e6:>11.0f}{row['peak_bytes_while_loading'] / 1e6:>9.0f}"
            f"{row['recall_at_10']:>11.3f}{row['p50_ms']:>8.1f}{row['p95_ms']:>8.1f}",
            flush=True,
        )
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
