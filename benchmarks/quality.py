"""Recall of encodings, by scanning all documents and through a real index, on the same vectors in one run.

Figure: share of the ten best documents by exact MaxSim among the first 20, 100 and 200 by the encoding. "scan" compares
float32 vectors with all documents; "index" asks Qdrant Edge: an HNSW graph (m=16, ef_construct=100, ef 200) over int8
codes, or over what a row says. The sets are small: the order of the rows means more than their digits.

Sets: ``sample``, the docstrings that come with the package; ``shared``, the sample with a multiple of the mean's
direction added to every token of documents and queries and scaled back to unit length, its MaxSim computed anew; and
any .npz file with ``doc_tokens``, ``doc_offsets``, ``query_tokens`` and ``query_offsets``.

A group takes minutes, so run some at a time: the JSON file keeps the other groups' rows, and is written after each row.

    python benchmarks/quality.py [--sets sample shared FILE.npz] [--groups sizes final regression]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from muvera_adapters.evidence.measuring import exact_top, queries_of
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.samples import load_pydocs
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch, maxsim, pool_tokens

CANDIDATES = (20, 100, 200)
GROUPS = ("sizes", "projections", "fit", "final", "scale", "codes", "regression", "graph", "held-out", "pooling")
# r_reps, k_sim, d_proj of 10,240 dimensions, and of 2,560
SIZES = ((20, 5, 16), (40, 4, 16), (10, 6, 16), (40, 5, 8), (10, 5, 32), (20, 4, 8), (40, 3, 8), (10, 5, 8))
# small collections are scanned unless told otherwise
GRAPH = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10)
SCAN = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10**9)
ALWAYS = edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)


@dataclass(frozen=True)
class Data:
    """Documents, queries and positions of the ten best documents of each query."""

    documents: TokenBatch
    queries: TokenBatch
    best: list[list[Any]]


def with_truth(documents: TokenBatch, queries: TokenBatch) -> Data:
    """Computes exact MaxSim of all."""
    return Data(documents, queries, exact_top(queries, documents, range(len(documents)), 10))


def load(name: str) -> Data:
    """One set."""
    if name.endswith(".npz"):
        with np.load(name) as file:
            documents, queries = (
                TokenBatch(file[f"{kind}_tokens"].astype(np.float32), file[f"{kind}_offsets"])
                for kind in ("doc", "query")
            )
        return with_truth(documents, queries)
    sample = load_pydocs()
    documents, queries = TokenBatch.from_list(d.tokens for d in sample.source.documents()), sample.queries
    if name == "sample":
        return with_truth(documents, queries)
    mean = documents.values.mean(axis=0)
    shift = 3 * mean / np.linalg.norm(mean)

    def shifted(batch: TokenBatch) -> TokenBatch:
        values = batch.values + shift
        return TokenBatch(values / np.linalg.norm(values, axis=1, keepdims=True), batch.offsets)

    return with_truth(shifted(documents), shifted(queries))


class FittedScale:
    """An FDE encoder whose documents are multiplied by a_doc = sum m f / sum f^2 over sample tokens of the corpus.

    m: exact MaxSim of one token with the document; f: the unscaled FDE's estimate of it.
    """

    def __init__(self, encoder: FDEEncoder, documents: TokenBatch, tokens: int = 1500) -> None:
        self._encoder = encoder
        picked = np.random.default_rng(0).choice(len(documents.values), tokens, replace=False)
        self._tokens = [documents.values[i : i + 1] for i in picked]
        self._queries = encoder.encode_queries(self._tokens)
        self.token_dim, self.dim = encoder.token_dim, encoder.dim
        self.fingerprint = f"scaled-{encoder.fingerprint}"

    def encode_documents(self, docs: Any, mask: Any = None) -> Any:
        """FDEs times their scales."""
        fdes = self._encoder.encode_documents(docs)
        estimates = self._queries @ fdes.T
        exact = np.stack([maxsim(token, docs) for token in self._tokens])
        scales = (exact * estimates).sum(axis=0) / (estimates**2).sum(axis=0)
        return fdes * scales[:, None].astype(np.float32)

    def encode_queries(self, queries: Any, mask: Any = None) -> Any:
        """As they are."""
        return self._encoder.encode_queries(queries)

    def to_dict(self) -> dict[str, Any]:
        """Not rebuilt."""
        return {"type": "benchmark", "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Setting:
    """A row: an encoder for each seed, and how the index keeps its vectors.

    ``among``: the documents whose recall is counted; None: all.
    """

    name: str
    make: Any
    codes: Any = "int8"
    datatype: edge.VectorStorageDatatype = edge.VectorStorageDatatype.Float16
    factor: int = 1
    random: bool = True  # measured with several seeds
    graph: edge.HnswIndexConfig = GRAPH
    ef: int = 200
    among: frozenset[int] | None = None


def settings(group: str, data: Data) -> Iterator[Setting]:
    """All rows of a group."""
    d = data.documents.dim

    def fde(seed: int, **sizes: Any) -> FDEEncoder:
        return FDEEncoder(FDEConfig(d, seed=seed, **sizes))

    def fitted(seed: int, **sizes: Any) -> FDEEncoder:
        return FDEEncoder.fit(FDEConfig(d, seed=seed, **sizes), data.documents)

    def scaled(seed: int, **sizes: Any) -> FittedScale:
        return FittedScale(fde(seed, normalize=False, **sizes), data.documents)

    def regression(seed: int, **sizes: Any) -> RegressionEncoder:
        return RegressionEncoder.fit(data.documents, seed=seed, **sizes)

    if group == "sizes":
        for r, k, p in SIZES:
            yield Setting(f"FDE {r} x {2**k} x {p} = {r * 2**k * p:,}", partial(fde, r_reps=r, k_sim=k, d_proj=p))
    if group == "projections":
        for projection in ("orthonormal", "rademacher", "count_sketch"):
            yield Setting(f"FDE 10,240, {projection}", partial(fde, projection=projection))
    if group == "fit":
        yield Setting("FDE 10,240", fde)
        yield Setting("FDE 10,240, fit (mean kept)", fitted)
        yield Setting("FDE 2,560, fit (mean kept)", partial(fitted, k_sim=4, d_proj=8))
    if group == "final":
        for final in (10240, 2560):
            whole = partial(fde, r_reps=20, k_sim=5, d_proj=None, d_final=final)
            yield Setting(f"20 x 32 x {d} to {final:,}", whole)
        yield Setting("20 x 32 x 16 to 2,560", partial(fde, d_final=2560))
    if group == "scale":
        both: list[tuple[str, Any]] = [("10,240", {}), ("2,560", {"k_sim": 4, "d_proj": 8})]
        for label, sizes in both:
            yield Setting(f"{label}, not scaled", partial(fde, normalize=False, **sizes))
            yield Setting(f"{label}, unit length", partial(fde, **sizes))
            yield Setting(f"{label}, fitted scale", partial(scaled, **sizes))
    if group == "codes":
        single, half = edge.VectorStorageDatatype.Float32, edge.VectorStorageDatatype.Float16
        for label, make in (("FDE 10,240", fde), ("regression 1,024", remember(regression, dim=1024))):
            for codes, datatype in ((None, single), (None, half), ("int8", half), ("turbo4", half), ("binary", half)):
                name = codes or ("float16" if datatype == half else "float32")
                yield Setting(f"{label}, {name}", make, codes, datatype, random=make is fde)
    if group == "regression":
        for dim in (512, 1024, 2048):
            yield Setting(f"regression {dim:,}", partial(regression, dim=dim), random=False)
    if group == "graph":
        single = edge.VectorStorageDatatype.Float32
        one = partial(Setting, make=remember(regression, dim=1024), random=False)
        for ef in (200, 400, 1000):
            yield one(f"int8, graph, ef {ef:,}", ef=ef)
        yield one("float32, graph, ef 200", codes=None, datatype=single)
        yield one("float32, graph, ef 400", codes=None, datatype=single, ef=400)
        yield one("int8, scan", graph=SCAN)
    if group == "held-out":
        for seed in (1, 2):
            kept = np.random.default_rng(seed).permutation(len(data.documents))[: len(data.documents) // 2]
            sample = TokenBatch.from_list(data.documents[i] for i in np.sort(kept))
            encoder = RegressionEncoder.fit(sample, dim=1024, seed=seed)
            inside = frozenset(kept.tolist())
            outside = frozenset(range(len(data.documents))) - inside
            for label, among in (("all", None), ("in it", inside), ("not in it", outside)):
                name = f"fitted to half {seed}, {label}"
                yield Setting(name, partial(_held, encoder), random=False, among=among)
    if group == "pooling":
        encoder = remember(regression, dim=1024)
        for factor in (1, 2, 3, 4, 6, 9):
            yield Setting(f"FDE 10,240, pooled by {factor}", fde, factor=factor, random=False)
            yield Setting(f"regression 1,024, pooled by {factor}", encoder, factor=factor, random=False)
            if factor > 1:
                pooled = pool_tokens(data.documents, factor)
                own = partial(RegressionEncoder.fit, pooled, 1024)
                yield Setting(f"regression 1,024, fitted to pooled by {factor}", own, factor=factor, random=False)


def _held(encoder: Encoder, seed: int) -> Encoder:
    return encoder


def remember(make: Any, **sizes: Any) -> Any:
    """Fits once for several rows."""
    made: dict[int, Any] = {}

    def once(seed: int) -> Any:
        if seed not in made:
            made[seed] = make(seed, **sizes)
        return made[seed]

    return once


def shares(found: list[list[Any]], data: Data, among: frozenset[int] | None = None) -> list[float]:
    """Recall at each number of candidates, of the best documents that are ``among`` these."""
    wanted = [set(best) if among is None else set(best) & among for best in data.best]
    total = sum(map(len, wanted))
    return [sum(len(best & set(ids[:n])) for ids, best in zip(found, wanted, strict=True)) / total for n in CANDIDATES]


def measure(setting: Setting, data: Data, seeds: int) -> dict[str, Any]:
    """One row."""
    documents = pool_tokens(data.documents, setting.factor) if setting.factor > 1 else data.documents
    scans, indexed, reranked = [], [], []
    for seed in range(1, seeds + 1 if setting.random else 2):
        encoder: Encoder = setting.make(seed)
        scores = encoder.encode_queries(data.queries) @ encoder.encode_documents(documents).T
        scans.append(shares([list(row) for row in np.argsort(-scores, axis=1, kind="stable")], data, setting.among))
        found = through_index(setting, encoder, documents, data.queries)
        indexed.append(shares(found, data, setting.among))
        if setting.factor > 1:
            reranked.append(after_reranking(found, documents, data))
    row = {
        "setting": setting.name,
        "dim": encoder.dim,
        "scan": np.mean(scans, axis=0).tolist(),
        "index": np.mean(indexed, axis=0).tolist(),
    }
    if reranked:
        row["reranked_by_pooled"] = float(np.mean(reranked))
    return row


def through_index(setting: Setting, encoder: Encoder, documents: TokenBatch, queries: TokenBatch) -> list[list[Any]]:
    """Ids that the index finds first, for each query."""
    with tempfile.TemporaryDirectory() as directory:
        store = QdrantEdgeMuvera.create(
            directory,
            "quality",
            encoder,
            quantization=setting.codes,
            datatype=setting.datatype,
            store_tokens=False,
            hnsw_config=setting.graph,
            optimizers=ALWAYS,
        )
        with store:
            report = store.upsert(range(len(documents)), documents)
            assert not report.failed, report.failed
            store.wait_indexed()
            params = edge.SearchParams(hnsw_ef=setting.ef, quantization=edge.QuantizationSearchParams(rescore=False))
            return [
                [hit.id for hit in store.search(query, max(CANDIDATES), rerank="none", search_params=params)]
                for query in queries_of(queries)
            ]


def after_reranking(found: list[list[Any]], pooled: TokenBatch, data: Data) -> float:
    """Recall of the exact top 10 when 200 candidates are reranked by their pooled tokens and ten are kept."""
    recalls = []
    for query, ids, best in zip(queries_of(data.queries), found, data.best, strict=True):
        order = np.argsort(-maxsim(query, [pooled[i] for i in ids]), kind="stable")[:10]
        recalls.append(len({ids[i] for i in order} & set(best)) / 10)
    return float(np.mean(recalls))


def main() -> None:
    """Prints a table for each set and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["sample", "shared"])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--seeds", type=int, default=2, help="of an FDE's row, whose figures are means over them")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/quality.json"))
    arguments = parser.parse_args()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"sets": {}}
    result["candidates"] = CANDIDATES
    for name in arguments.sets:
        data = load(name)
        mean = data.documents.values.mean(axis=0)
        print(
            f"\n{name}: {len(data.documents)} documents, {len(data.queries)} queries, {len(data.documents.values)} "
            f"tokens, squared norm of the mean {mean @ mean:.2f}\n"
        )
        print(f"{'setting':<40}{'scan':>8}{'':>12}{'index':>12}{'':>10}   reranked by pooled tokens")
        for group in arguments.groups:
            rows = result["sets"].setdefault(name, {})[group] = []
            for setting in settings(group, data):
                rows.append(measure(setting, data, arguments.seeds))
                figures = "".join(f"{x:>7.3f}" for x in (*rows[-1]["scan"], *rows[-1]["index"]))
                last = rows[-1].get("reranked_by_pooled")
                print(f"{setting.name:<40}{figures}{'' if last is None else f'{last:>10.3f}'}", flush=True)
                arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
