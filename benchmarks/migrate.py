"""The cost of a migration: decoding, loading into Qdrant Edge, and memory at two sizes of index.

Indexes are generated: random centroids, codes and residuals in the files of colbert-ai, 2 bits, documents of 20 to 100
tokens.

1. Decoding: tokens per second of this library's reader and, if colbert-ai is installed, of its codec on the same files
   (``pip install colbert-ai torch transformers``); both on the CPU, in turns.
2. End to end into Edge, with the default encoder: documents per second until the last one is acknowledged.
3. Memory: peak resident set of a process that reads, encodes and journals everything, with a store that keeps nothing,
   for one index and for an index of ten times its size.

    python -m benchmarks.migrate [--tokens 2000000] [--edge-docs 5000] [--rounds 3] [--skip-memory] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import resource
import tempfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from muvera_adapters.databases import Database, parse_target
from muvera_adapters.migration import migrate
from muvera_adapters.results import WriteReport
from muvera_adapters.sources import open_source
from muvera_core import Encoder, FDEConfig, FDEEncoder

DIM, NBITS, CENTROIDS, CHUNK = 128, 2, 4096, 25_000
# without which torch does not open a file
_RECORDS = {"x/version": b"3\n", "x/byteorder": b"little"}


def generate(path: Path, n_tokens: int) -> int:
    """Writes an index; returns its number of documents."""
    path.mkdir()
    generator = np.random.default_rng(0)
    centroids = generator.standard_normal((CENTROIDS, DIM), np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    _save(path / "centroids.pt", centroids.astype(np.float16))
    weights = np.array([-0.1, -0.03, 0.03, 0.1], np.float32)
    _save(path / "buckets.pt", np.array([-0.06, 0, 0.06], np.float32), weights)
    _save(path / "avg_residual.pt", np.float32(0.05).reshape(1))
    lengths = generator.integers(20, 101, n_tokens // 60)
    chunks = [lengths[i : i + CHUNK] for i in range(0, len(lengths), CHUNK)]
    for number, part in enumerate(chunks):
        n = int(part.sum())
        _save(path / f"{number}.codes.pt", generator.integers(0, CENTROIDS, n, np.int32))
        residuals = generator.integers(0, 256, (n, DIM * NBITS // 8), np.uint8)
        _save(path / f"{number}.residuals.pt", residuals)
        (path / f"doclens.{number}.json").write_text(json.dumps(part.tolist()))
        (path / f"{number}.metadata.json").write_text(json.dumps({"num_passages": len(part), "num_embeddings": n}))
    config = {"dim": DIM, "nbits": NBITS}
    (path / "metadata.json").write_text(json.dumps({"config": config, "num_chunks": len(chunks)}))
    return len(lengths)


def _save(path: Path, *tensors: Any) -> None:
    """One tensor, or a tuple of several, as torch.save writes it."""
    views = b"".join(_tensor(array, str(key)) for key, array in enumerate(tensors))
    body = views if len(tensors) == 1 else b"(" + views + b"t"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b".")
        for key, array in enumerate(tensors):
            archive.writestr(f"x/data/{key}", array.tobytes())
        for name, content in _RECORDS.items():
            archive.writestr(name, content)


def _tensor(array: Any, key: str) -> bytes:
    """Pickle opcodes of a contiguous tensor, by hand, as torch may not be installed."""
    kind = {"f2": "Half", "f4": "Float", "i4": "Int", "u1": "Byte"}[array.dtype.str[1:]]

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = plain("storage") + f"ctorch\n{kind}Storage\n".encode() + plain(key) + plain("cpu") + plain(array.size)
    view = plain(0) + plain(array.shape) + plain(tuple(s // array.itemsize for s in array.strides))
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"tQ" + view + b"\x89ccollections\nOrderedDict\n)RtR"


def decode_here(path: Path) -> float:
    """Tokens per second of this library's reader."""
    started = time.perf_counter()
    n = sum(len(document.tokens) for document in open_source(path).documents())
    return n / (time.perf_counter() - started)


def decode_colbert(path: Path) -> float | None:
    """Tokens per second of colbert-ai's codec, chunk by chunk; None if it is not installed."""
    try:
        import torch
        from colbert.indexing.codecs.residual import ResidualCodec
        from colbert.indexing.codecs.residual_embeddings import ResidualEmbeddings
    except ImportError:
        return None
    from colbert.infra import ColBERTConfig

    codec = ResidualCodec(
        ColBERTConfig(dim=DIM, nbits=NBITS),
        torch.load(path / "centroids.pt", weights_only=True, map_location="cpu").float(),
        torch.tensor(0.05),
        *torch.load(path / "buckets.pt", weights_only=True, map_location="cpu"),
    )
    started, n = time.perf_counter(), 0
    for number in range(len(list(path.glob("doclens.*.json")))):
        codes = torch.load(path / f"{number}.codes.pt", weights_only=True, map_location="cpu")
        residuals = torch.load(path / f"{number}.residuals.pt", weights_only=True, map_location="cpu")
        n += len(codec.decompress(ResidualEmbeddings(codes, residuals)))
    return n / (time.perf_counter() - started)


def load_edge(path: Path, directory: Path, documents: int) -> dict[str, float]:
    """Documents and tokens per second until the last document is acknowledged."""
    source = open_source(path)
    encoder = FDEEncoder(FDEConfig(DIM))
    encoder.encode_documents([np.eye(DIM)])  # compile first
    with Database(f"qdrant-edge:{directory}") as database:
        _, report = migrate(source, database, "x", encoder, limit=documents)
    return {
        "documents": report.written,
        "documents_per_second": report.written / report.seconds,
        "tokens_per_second": report.tokens / report.seconds,
        "index_seconds": report.index_seconds,
    }


class Nothing:
    """A database and store that encodes, as all do, and keeps nothing."""

    name = "x"
    target = parse_target("qdrant:http://nowhere")

    def __init__(self) -> None:
        self.written = 0

    def open(self, name: str, encoder: Encoder | None = None) -> Any:
        from muvera_adapters.errors import CollectionNotFound

        raise CollectionNotFound(name)

    def create(self, name: str, encoder: Encoder) -> Nothing:
        self.encoder = encoder
        return self

    def upsert(self, ids: Sequence[Any], tokens: Any, payloads: Any = None, *, replace: bool = False) -> WriteReport:
        self.encoder.encode_documents(tokens)
        self.written += len(ids)
        return WriteReport(len(ids))

    def count(self) -> int:
        return self.written

    def wait_indexed(self) -> int | None:
        return 0


def peak(path: Path, journal: Path) -> dict[str, float]:
    """Peak resident set of this process, including mapped files; run in a separate process."""
    started = time.perf_counter()
    database: Any = Nothing()
    source = open_source(path)
    _, report = migrate(source, database, "x", FDEEncoder(FDEConfig(DIM)), journal=journal)
    assert report.complete
    return {
        "tokens": report.tokens,
        "documents": report.documents,
        "seconds": time.perf_counter() - started,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory, from which this process was forked
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--edge-docs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch) / "small"
        documents = generate(small, arguments.tokens)
        print(f"generated {documents:,} documents, about {arguments.tokens:,} tokens, {DIM} dims, {NBITS} bits")
        rates = [(decode_here(small), decode_colbert(small)) for _ in range(arguments.rounds)]
        ours = float(np.median([a for a, _ in rates]))
        theirs = [b for _, b in rates if b is not None]
        result["decode_tokens_per_second"] = ours
        print(f"decode: {ours / 1e6:.2f} M tokens/s")
        if theirs:
            result["colbert_tokens_per_second"] = float(np.median(theirs))
            print(
                f"decode by colbert-ai: {np.median(theirs) / 1e6:.2f} M tokens/s; ratio {ours / np.median(theirs):.2f}"
            )
        else:
            print("colbert-ai is not installed: pip install colbert-ai torch transformers")
        if arguments.edge_docs:
            result["edge"] = _apart(load_edge, small, Path(scratch) / "edge", arguments.edge_docs)
            edge = result["edge"]
            print(
                f"into Edge: {edge['documents_per_second']:.0f} documents/s, {edge['tokens_per_second']:,.0f} tokens/s"
            )
        if not arguments.skip_memory:
            large = Path(scratch) / "large"
            generate(large, 10 * arguments.tokens)
            result["memory"] = [_apart(peak, path, path.with_suffix(".journal")) for path in (small, large)]
            for row in result["memory"]:
                rate = row["tokens"] / row["seconds"]
                print(f"{row['tokens']:,} tokens: peak {row['peak_mb']:.0f} MB, {rate / 1e6:.2f} M tokens/s")
            ratio = result["memory"][1]["peak_mb"] / result["memory"][0]["peak_mb"]
            print(f"ratio of the peaks: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


def _apart(call: Any, *arguments: Any) -> Any:
    """Runs the measurement in a new process, so that this process's memory does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


if __name__ == "__main__":
    main()
