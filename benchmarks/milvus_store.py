"""Overhead of the Milvus store compared with the bare client, and recall by the number of candidates.

Documents are the sample, repeated with noise. The database is a file of milvus-lite, and a standalone 2.3.5 if the
extra ``milvus-server`` is installed.

1. Load: ``upsert`` of the adapter compared with the same encoder, rows and batches sent by hand, in alternating rounds;
   ratios are computed within each round.
2. Search: compared with the same three requests and MaxSim by hand; then recall of the exact top 10.

    python -m benchmarks.milvus_store [--docs 2000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from benchmarks.store import documents_of, timed
from muvera_adapters.evidence.measuring import exact_top, measure
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.milvus.blobs import pack, unpack
from muvera_adapters.milvus.requests import WRITE_BYTES
from muvera_adapters.results import Hit
from muvera_adapters.samples import load_pydocs
from muvera_adapters.stores.writing import slices
from muvera_adapters.testing import CannotStart
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim
from servers.milvus_server import MilvusServer

LEVEL = "Session"


def load_by_hand(client: MilvusClient, name: str, encoder: FDEEncoder, documents: TokenBatch, lite: bool) -> None:
    """Into a collection that the adapter made."""
    fields = [f["name"] for f in client.describe_collection(name)["fields"] if f["name"].startswith("muvera_tokens_")]
    sizes = [4 * encoder.dim + 8 * n * documents.dim // 3 for n in documents.lengths]
    write = client.insert if lite else client.upsert
    for i, j in slices(sizes, WRITE_BYTES):
        fdes = encoder.encode_documents(documents[i:j])
        rows = []
        for k in range(i, j):
            texts = pack(np.asarray(documents[k]), "float16", len(fields))
            rows.append({"muvera_id": f"#{k}", "fde": fdes[k - i], **dict(zip(fields, texts, strict=True))})
        write(name, rows)


def search_by_hand(client: MilvusClient, name: str, encoder: FDEEncoder, prefetch: int, query: Any) -> list[Hit]:
    """The requests that a search is made of, and MaxSim."""
    fields = [f"muvera_tokens_{i}" for i in range(11)]
    params = {"metric_type": "IP", "params": {"ef": 2 * prefetch}}
    fde = encoder.encode_query(query)
    found = client.search(
        name, [fde], anns_field="fde", limit=prefetch, search_params=params, output_fields=["muvera_id"]
    )
    keys = [hit["muvera_id"] if "muvera_id" in hit else hit["id"] for hit in found[0]]
    rows = client.query(name, filter=f"muvera_id in {json.dumps(keys)}", output_fields=fields)
    matrices: list[Any] = [unpack([row[field] for field in fields], "") for row in rows]
    scores = maxsim(np.asarray(query, np.float32), matrices)
    best = [rows[int(i)]["muvera_id"] for i in np.argsort(-scores)[:10]]
    client.query(name, filter=f"muvera_id in {json.dumps(best)}", output_fields=["$meta"])
    return [Hit(int(key[1:]), 0.0) for key in best]


def run(uri: str, count: int, rounds: int, prefetches: list[int]) -> dict[str, Any]:
    """Everything about one server."""
    client = MilvusClient(uri, timeout=60)
    sample, documents = load_pydocs(), documents_of(count)
    encoder = FDEEncoder(FDEConfig(documents.dim))
    encoder.encode_documents(documents[:1])  # compile first
    ids: list[Any] = list(range(count))
    ratios, seconds = [], []
    for _ in range(rounds):
        by_hand = MilvusMuvera.create(client, "hand", encoder, quantization=None, consistency_level=LEVEL)
        b = timed(partial(load_by_hand, client, "hand", encoder, documents, uri.endswith(".db")))
        by_hand.drop()
        store = MilvusMuvera.create(client, "bench", encoder, quantization=None, consistency_level=LEVEL)
        a = timed(lambda s=store: s.upsert(ids, documents))  # type: ignore[misc]
        ratios.append(a / b)
        seconds.append(a)
        if len(ratios) < rounds:
            store.drop()
    store.wait_indexed()
    exact = exact_top(sample.queries, documents, ids, 10)
    nothing: list[frozenset[str]] = [frozenset()] * len(exact)
    rows = []
    for n in prefetches:
        calls: dict[str, Callable[[Any], Any]] = {
            "by hand": partial(search_by_hand, client, "bench", encoder, n),
            "adapter": partial(store.search, prefetch=n),
        }
        for call in calls.values():
            measure(call, sample.queries, exact, nothing)
        found = {name: measure(call, sample.queries, exact, nothing) for name, call in calls.items()}
        ours, theirs = found["adapter"], found["by hand"]
        row = {
            "prefetch": n,
            "recall_at_10": ours.recall_at_10,
            "p50_ms": ours.p50_ms,
            "ratio": ours.p50_ms / theirs.p50_ms,
        }
        rows.append(row)
    client.close()
    return {"load_docs_per_s": count / float(np.median(seconds)), "load_ratio": float(np.median(ratios)), "rows": rows}


def main() -> None:
    """Prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds of the load comparison")
    parser.add_argument("--prefetch", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/milvus.json"))
    arguments = parser.parse_args()
    result: dict[str, Any] = {"documents": arguments.docs}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        result["milvus-lite"] = run(f"{directory}/b.db", arguments.docs, arguments.rounds, arguments.prefetch)
        _print("milvus-lite", result["milvus-lite"])
        try:
            server = MilvusServer(Path(directory) / "server")
        except CannotStart as problem:
            print(problem)
        else:
            try:
                server.start()
                result["2.3.5"] = run(server.uri, arguments.docs, arguments.rounds, arguments.prefetch)
            finally:
                server.stop()
            _print("2.3.5", result["2.3.5"])
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2))


def _print(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: load {found['load_docs_per_s']:.0f} docs/s, {found['load_ratio']:.3f} of the time by hand")
    for row in found["rows"]:
        print(
            f"  prefetch {row['prefetch']}: recall@10 {row['recall_at_10']:.3f}, p50 {row['p50_ms']:.1f} ms, "
            f"{row['ratio']:.2f} of the time by hand",
            flush=True,
        )


if __name__ == "__main__":
    main()
