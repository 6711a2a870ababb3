"""Recall of a database's index for each kind of codes: fully indexed, half indexed, and with filters.

    python -m benchmarks.codes edge|weaviate|milvus-lite|milvus [--sets sample FILE.npz ...] [--encoders fde ...]
        [--codes NAME ...] [--seeds 0 1] [--json FILE]

Figures: share of the ten best documents by exact MaxSim (that pass the filter) among the first 20, 100 and 200
candidates of the first stage. They are means over seeds, which determine the encoder, the order of documents, and the
documents that filters match. "scan" compares float32 vectors with all documents, without a database. "half": the second
half of the documents is written after the first half was indexed; in databases that have such a state, it has no index
and no codes.

Sets: ``sample``, the docstrings that come with the package, and any .npz file with ``doc_tokens``, ``doc_offsets``,
``query_tokens`` and ``query_offsets``. Encoders, by name and dimensions: FDEs of 40 x 8 x 8, 40 x 4 x 8 and 20 x 4 x 8,
and regression encoders fitted to the documents.

``weaviate`` needs ``WEAVIATE_BIN``, ``milvus`` the extra ``milvus-server`` (a standalone 2.3.5).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.samples import load_pydocs
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch, maxsim

CANDIDATES = (20, 100, 200)
#: payload keys, and the share of documents that have 1 there
FILTERS = {"half": 0.5, "few": 0.05}
#: what is measured: its name, whether all documents are indexed, the filter's key, and numbers of candidates
STATES: tuple[tuple[str, bool, str | None, tuple[int, ...]], ...] = (
    ("all", True, None, CANDIDATES),
    ("half", False, None, CANDIDATES),
    ("50 %", True, "half", CANDIDATES[:2]),
    ("5 %", True, "few", CANDIDATES[:1]),
    ("half, 5 %", False, "few", CANDIDATES[:1]),
)
COLUMNS = [f"{name}, {n}" for name, _, _, depths in STATES for n in depths]


@dataclass(frozen=True)
class Data:
    """Documents, queries, and MaxSim of each query with each document."""

    documents: TokenBatch
    queries: TokenBatch
    scores: npt.NDArray[np.float32]


def load(name: str) -> Data:
    """One set."""
    if name == "sample":
        sample = load_pydocs()
        documents, queries = TokenBatch.from_list(d.tokens for d in sample.source.documents()), sample.queries
    else:
        with np.load(name) as file:
            documents, queries = (
                TokenBatch(file[f"{kind}_tokens"].astype(np.float32), file[f"{kind}_offsets"])
                for kind in ("doc", "query")
            )
    return Data(documents, queries, np.stack([maxsim(queries[i], documents) for i in range(len(queries))]))


def fde(data: Data, seed: int, *, r_reps: int, k_sim: int) -> Encoder:
    """An FDE of inner projections to 8 dimensions."""
    return FDEEncoder(FDEConfig(data.documents.dim, r_reps=r_reps, k_sim=k_sim, d_proj=8, seed=seed))


def regression(data: Data, seed: int, *, dim: int) -> Encoder:
    """Short vectors, fitted to the documents."""
    return RegressionEncoder.fit(data.documents, dim=dim, features=1024, sample_tokens=4000, seed=seed)


ENCODERS: dict[str, Callable[[Data, int], Encoder]] = {
    "fde-2560": partial(fde, r_reps=40, k_sim=3),
    "fde-1280": partial(fde, r_reps=40, k_sim=2),
    "fde-640": partial(fde, r_reps=20, k_sim=2),
    "regression-1024": partial(regression, dim=1_024),
    "regression-512": partial(regression, dim=512),
}


@dataclass(frozen=True)
class Database:
    """A database to measure.

    Attributes:
        codes: options of ``create`` by name of the codes, from the dimensions of an encoding.
        create: makes an empty collection without tokens, from ``(name, encoder, options)``.
        where: filter for documents with 1 at a payload key.
    """

    codes: Mapping[str, Callable[[int], dict[str, Any]]]
    create: Callable[[str, Encoder, dict[str, Any]], AbstractContextManager[Any]]
    where: Callable[[str], Any]


@contextmanager
def edge_database(directory: Path) -> Iterator[Database]:
    """The embedded engine; filters that match 5 % are answered by going through what they match."""
    import qdrant_edge as edge

    from muvera_adapters.qdrant import QdrantEdgeMuvera

    def options(preset: str | None, dim: int) -> dict[str, Any]:
        # kilobytes of 300 documents
        graph = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=300 * 4 * dim // 1024)
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=200, default_segment_number=1)
        return {"quantization": preset, "hnsw_config": graph, "optimizers": optimizers}

    @contextmanager
    def create(name: str, encoder: Encoder, options: dict[str, Any]) -> Iterator[Any]:
        with QdrantEdgeMuvera.create(directory, name, encoder, store_tokens=False, **options) as store:
            yield store
            store.drop()

    def where(key: str) -> Any:
        return edge.Filter(must=[edge.FieldCondition(key=key, match=edge.MatchValue(1))])

    presets = {"int8": "int8", "turbo4": "turbo4", "turbo2": "turbo2", "binary": "binary", "none": None}
    yield Database({name: partial(options, preset) for name, preset in presets.items()}, create, where)


@contextmanager
def weaviate_database(directory: Path) -> Iterator[Database]:
    """A separate Weaviate server, which indexes every document as it is written."""
    from weaviate.classes.config import Configure
    from weaviate.classes.query import Filter

    from muvera_adapters.weaviate import WeaviateMuvera
    from servers.weaviate_server import WeaviateServer, binary

    rq = Configure.VectorIndex.Quantizer.rq
    codes: dict[str, Any] = {"rq8": "rq8", "rq4": "rq4", "rq1": "rq1", "none": None}
    codes["rq1, not rescored"] = rq(bits=1, rescore_limit=0)
    server = WeaviateServer(binary(), directory)
    server.start()
    client = server.connect()

    @contextmanager
    def create(name: str, encoder: Encoder, options: dict[str, Any]) -> Iterator[Any]:
        name = name.capitalize()
        graph = Configure.VectorIndex.hnsw(ef_construction=128, max_connections=32, flat_search_cutoff=300)
        store = WeaviateMuvera.create(client, name, encoder, store_tokens=False, vector_index_config=graph, **options)
        yield store
        store.drop()

    def where(key: str) -> Any:
        return Filter.by_property(key).equal(1)

    try:
        yield Database({name: _constant(quantization=value) for name, value in codes.items()}, create, where)
    finally:
        client.close()
        server.stop()


@contextmanager
def milvus_database(directory: Path, *, lite: bool) -> Iterator[Database]:
    """milvus-lite in this process, or a standalone 2.3.5."""
    from pymilvus import MilvusClient

    from muvera_adapters.milvus import MilvusMuvera
    from servers.milvus_server import MilvusServer

    graph = {"M": 16, "efConstruction": 200}
    codes = {
        "HNSW": {"index_type": "HNSW", "index_params": graph},
        "HNSW_SQ": {"index_type": "HNSW_SQ", "index_params": {**graph, "sq_type": "SQ8"}},
        "IVF_SQ8": {"index_type": "IVF_SQ8", "index_params": {"nlist": 64}},
    }
    if not lite:
        del codes["HNSW_SQ"]
        codes["SCANN"] = {"index_type": "SCANN", "index_params": {"nlist": 64, "with_raw_data": True}}
        codes["IVF_PQ"] = {"index_type": "IVF_PQ", "index_params": {"nlist": 64, "m": 64, "nbits": 8}}
    server = None if lite else MilvusServer(directory)
    if server is not None:
        server.start()
    client = MilvusClient(uri=str(directory / "data.db") if server is None else server.uri)

    @contextmanager
    def create(name: str, encoder: Encoder, options: dict[str, Any]) -> Iterator[Any]:
        store = MilvusMuvera.create(client, name, encoder, store_tokens=False, **options)
        yield store
        store.drop()

    try:
        yield Database({name: _constant(**value) for name, value in codes.items()}, create, "{} == 1".format)
    finally:
        client.close()
        if server is not None:
            server.stop()


def _constant(**options: Any) -> Callable[[int], dict[str, Any]]:
    return lambda _: options


DATABASES: dict[str, Callable[[Path], AbstractContextManager[Database]]] = {
    "edge": edge_database,
    "weaviate": weaviate_database,
    "milvus-lite": partial(milvus_database, lite=True),
    "milvus": partial(milvus_database, lite=False),
}


@dataclass(frozen=True)
class Run:
    """One seed: the encoder, the order in which documents are written, and what filters match."""

    data: Data
    encoder: Encoder
    order: list[int]
    matching: Mapping[str, npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, data: Data, encoder: Encoder, seed: int) -> Run:
        """What the seed draws."""
        rng = np.random.default_rng(seed)
        count = len(data.documents)
        matching = {key: rng.random(count) < share for key, share in FILTERS.items()}
        return cls(data, encoder, rng.permutation(count).tolist(), matching)

    def best(self, key: str | None) -> list[set[int]]:
        """The ten best documents of each query that a filter lets through."""
        scores = self.data.scores if key is None else np.where(self.matching[key], self.data.scores, -np.inf)
        return [set(row.tolist()) for row in np.argsort(-scores, axis=1, kind="stable")[:, :10]]

    def recall(self, found: Sequence[Sequence[int]], key: str | None) -> float:
        """Recall of the documents found for each query."""
        return float(np.mean([len(set(a) & b) / 10 for a, b in zip(found, self.best(key), strict=True)]))

    def scan(self) -> list[float]:
        """Recall of float32 vectors, by going through all documents."""
        scores = self.encoder.encode_queries(self.data.queries) @ self.encoder.encode_documents(self.data.documents).T
        values = []
        for _, _, key, depths in STATES:
            order = np.argsort(-(scores if key is None else np.where(self.matching[key], scores, -np.inf)), axis=1)
            values += [self.recall(order[:, :n].tolist(), key) for n in depths]
        return values

    def through(self, database: Database, codes: str) -> tuple[list[float], int, int | None]:
        """Recall through the index, bytes of codes per document, and unindexed documents in the state "half"."""
        values: dict[str, list[float]] = {}
        halves = (self.order[: len(self.order) // 2], self.order[len(self.order) // 2 :])
        options = database.codes[codes](self.encoder.dim)
        with database.create("codes", self.encoder, options) as store:
            for indexed in (False, True):
                if not indexed:
                    self._write(store, halves[0])
                    store.wait_indexed()
                    self._write(store, halves[1])
                    unindexed = store.info().unindexed
                else:
                    store.wait_indexed()
                store.search(self.data.queries[0])  # loads what the client imports late
                for name, state, key, depths in STATES:
                    if state == indexed:
                        where = None if key is None else database.where(key)
                        values[name] = [self._found(store, n, where, key) for n in depths]
            size = round(store.info().code_bytes / len(self.order))
        return [value for name, *_ in STATES for value in values[name]], size, unindexed

    def _write(self, store: Any, positions: list[int]) -> None:
        payloads = [{key: int(self.matching[key][i]) for key in FILTERS} for i in positions]
        report = store.upsert(positions, [self.data.documents[i] for i in positions], payloads)
        assert not report.failed, report

    def _found(self, store: Any, candidates: int, where: Any, key: str | None) -> float:
        queries = [self.data.queries[i] for i in range(len(self.data.queries))]
        hits = store.search_batch(queries, candidates, rerank="none", filter=where, with_payload=False)
        return self.recall([[hit.id for hit in each] for each in hits], key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", choices=DATABASES)
    parser.add_argument("--sets", nargs="+", default=["sample"])
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=["fde-2560", "regression-512"])
    parser.add_argument("--codes", nargs="+", help="names of codes; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory, DATABASES[options.database](Path(directory)) as database:
        for name, kind in [(name, kind) for name in options.sets for kind in options.encoders]:
            data = load(name)
            runs = [Run.of(data, ENCODERS[kind](data, seed), seed) for seed in options.seeds]
            print(f"\n{options.database}, {Path(name).stem}, {kind}")
            print("| codes | bytes | not indexed | " + " | ".join(COLUMNS) + " |")
            print("|---" * (3 + len(COLUMNS)) + "|")
            for codes in ["scan", *(options.codes or database.codes)]:
                measured = [(run.scan(), 0, None) if codes == "scan" else run.through(database, codes) for run in runs]
                values = np.mean([each[0] for each in measured], axis=0).round(4).tolist()
                _, size, unindexed = measured[-1]
                cells = " | ".join(f"{value:.3f}" for value in values)
                print(f"| {codes} | {size or ''} | {'' if unindexed is None else unindexed} | {cells} |", flush=True)
                rows.append({"set": name, "encoder": kind, "codes": codes, "bytes": size, "recall": values})
                if options.json:
                    options.json.write_text(json.dumps({"columns": COLUMNS, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
