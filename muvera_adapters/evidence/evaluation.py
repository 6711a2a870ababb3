"""Recall of the exact MaxSim ranking by an encoding: in float32, through an index, and in a live collection."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from muvera_adapters.databases import local_spec
from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence.judgements import Judgements, check_installed, quality
from muvera_adapters.evidence.local_index import Remembering, auto_quantization, have_index, local_index, no_index
from muvera_adapters.evidence.measuring import Interval, Latency, Ranking, ask, exact_search, positions, recalls
from muvera_adapters.evidence.queries import Queries, as_queries
from muvera_adapters.progress import progress_bar
from muvera_core import Encoder, FDEEncoder, TokenBatch
from muvera_core.tokens import to_batch

if TYPE_CHECKING:
    from muvera_adapters.results import DocumentId
    from muvera_adapters.stores.protocol import Store

TOPS = (1, 10, 100)
#: number of candidates for comparisons and examples; the nearest measured number is used
SHOWN = 100
_EXAMPLE_TOP = 10
CANDIDATES = (10, 20, 50, 100, 200, 500, 1000)
# number of queries whose scores for all documents are in memory at a time
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Point:
    """Results for one number of candidates.

    Attributes:
        candidates: number of candidates of the first stage.
        recall: recall of the exact top k among the candidates, by k; exact reranking of them gives the same recall.
        reranked: recall of the exact top k in the hits of both stages, by k; empty if nothing was reranked.
        latency: latency of both stages; None if no database was measured.
        quality: measures of the reranked hits by judgements.
    """

    candidates: int
    recall: dict[int, Interval]
    reranked: dict[int, Interval] = field(default_factory=dict)
    latency: Latency | None = None
    quality: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Curve:
    """One way of finding candidates.

    Attributes:
        name: name of the encoder and of what was searched.
        how: what was searched. ``"brute force"``: all encodings in float32; ``"index"``: a real index of the sample,
            with quantized encodings; ``"collection"``: the live collection.
        encoder: short description of the encoder.
        dim: number of dimensions of the encoding.
        fingerprint: fingerprint of the encoder.
        quantization: quantization of the encodings in the index; None: not quantized.
        bytes_per_document: bytes of a document by name: ``compared`` (read by the first stage, in memory), ``encoding``
            (as stored) and ``tokens``.
        alone: quality of the first stage's ranking by judgements, without reranking.
        points: results by number of candidates.
        settings: type, sizes and seed of the encoder.
    """

    name: str
    how: Literal["brute force", "index", "collection"]
    encoder: str
    dim: int
    fingerprint: str
    quantization: str | None
    bytes_per_document: dict[str, float]
    alone: dict[str, float]
    points: list[Point]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """One document of the exact ranking of an example.

    Attributes:
        document: id of the document.
        exact: its rank by exact MaxSim, from 1.
        first_stage: its rank among the candidates; None: it is not among them.
        two_stages: its rank after exact reranking of the candidates; None: it is not among them.
    """

    document: DocumentId
    exact: int
    first_stage: int | None
    two_stages: int | None


@dataclass(frozen=True, slots=True)
class Example:
    """The ranking of one query, for illustration.

    Attributes:
        kind: ``"gained"``: the query for which reranking improves most on the first stage's order; ``"lost"``: the
            query with the most documents of the exact top missing among the candidates.
        query: id of the query, or its position.
        curve: name of the curve that the example belongs to.
        candidates: number of candidates.
        alone: share of the exact top k among the first k documents of the first stage.
        reranked: share of the exact top k after reranking.
        places: documents of the exact top k.
    """

    kind: Literal["gained", "lost"]
    query: DocumentId
    curve: str
    candidates: int
    alone: float
    reranked: float
    places: list[Place]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of :func:`evaluate` and :func:`evaluate_store`.

    Attributes:
        documents: number of documents searched.
        tokens: number of their tokens; None if only the database knows it.
        queries: number of queries.
        queries_are: ``"given"``, or ``"pseudo"`` if they were drawn from documents.
        truth: origin of the exact ranking (the ground truth), in words.
        exact_latency: latency of the exact ranking.
        exact_quality: measures of the exact ranking by judgements.
        curves: the measured ways of finding candidates.
        notes: remarks that are needed to interpret the results.
        seed: seed of the bootstrap.
        source: what was measured, in words.
        began: date and time of the start of the measurement, ISO 8601 in UTC.
        seconds: duration of the measurement.
        machine: processor, system and versions, by name.
        examples: one query gained and one query lost, from the last curve; fewer if there is no such query.
    """

    documents: int
    tokens: int | None
    queries: int
    queries_are: str
    truth: str
    exact_latency: Latency
    exact_quality: dict[str, float]
    curves: list[Curve]
    notes: list[str]
    seed: int
    source: str = ""
    began: str = ""
    seconds: float = 0.0
    machine: dict[str, str] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def evaluate(
    encoders: Encoder | Mapping[str, Encoder],
    documents: Any,
    queries: Any,
    *,
    judgements: Judgements | None = None,
    document_ids: Sequence[DocumentId] | None = None,
    quantizations: Sequence[str | None] | None = None,
    tops: Sequence[int] = TOPS,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 42,
    progress: bool = False,
) -> Evaluation:
    """Measures encoders on a sample, against exact MaxSim over the whole sample.

    With the same number of candidates, recall on a sample is higher than on the whole collection, because fewer
    documents compete. Measure the collection itself with :func:`evaluate_store`.

    Args:
        encoders: one encoder, or several by name.
        documents: token matrices, in any form that encoders take.
        queries: queries as :class:`Queries` (such as those of ``pseudo_queries``), or as token matrices.
        judgements: relevance judgements, from :func:`read_judgements`.
        document_ids: ids of the documents, as in the judgements; None: their positions.
        quantizations: presets of the indexes of the embedded engine to measure; ``()``: no index; None: the preset that
            its store chooses for the encoder, if the engine is installed.
        tops: values of k for the recall of the exact top k.
        candidates: numbers of candidates; those above the number of documents are left out.
        seed: seed of the bootstrap.
        progress: whether to show progress bars.

    Raises:
        MissingExtra: an index needs the extra ``edge``, or judgements need ``eval``.
        InvalidInput: there are no queries, or numbers do not fit.
    """
    check_installed(judgements)
    if quantizations:
        local_spec().check_installed()
    run = _Run()
    batch, asked = to_batch(documents), as_queries(queries)
    names = list(range(len(batch))) if document_ids is None else list(document_ids)
    if len(names) != len(batch):
        raise InvalidInput(f"{len(names)} document ids, {len(batch)} documents: the numbers must be equal")
    depths, notes = _depths(candidates, len(batch)), list(asked.notes)
    if quantizations is None and not have_index():
        quantizations = ()
        notes.append(f"{no_index()}, so nothing was measured through an index.")
    chosen = encoders if isinstance(encoders, Mapping) else {describe(encoders): encoders}
    plain: list[Any] = list(range(len(batch)))
    exact, seconds = ask(
        exact_search(batch, plain, max(*tops, 100)), asked.tokens, progress="exact MaxSim" if progress else None
    )
    judge = _Judge(asked, judgements, names)
    curves, last = [], Found("", [])
    tried = {
        name: [auto_quantization(encoder.dim)] if quantizations is None else quantizations
        for name, encoder in chosen.items()
    }
    with progress_bar(
        total=sum(1 + len(each) for each in tried.values()), desc="encodings", disable=not progress
    ) as bar:
        for name, encoder in chosen.items():
            remembering = Remembering(encoder)
            curve, last = _brute_force(name, remembering, batch, asked, exact, depths, tops, judge, seed)
            curves.append(curve)
            bar.update()
            for quantization in tried[name]:
                with local_index(remembering, batch, quantization, store_tokens=True) as store:
                    label = f"{name}, {quantization or 'float16'}, HNSW"
                    curve, last = _searched(
                        label, "index", store, quantization, asked, exact, depths, tops, judge, seed
                    )
                # the store only estimates the bytes of tokens
                curve.bytes_per_document["tokens"] = 2 * batch.values.size / len(batch)
                curves.append(curve)
                bar.update()
    return Evaluation(
        documents=len(batch),
        tokens=len(batch.values),
        queries=len(asked),
        queries_are=asked.origin,
        truth=f"exact MaxSim over all {len(batch):,} documents of the sample, computed in this process",
        exact_latency=Latency.of(seconds),
        exact_quality=judge(exact),
        curves=curves,
        notes=notes,
        seed=seed,
        examples=_examples(last, exact, asked, names, depths),
        **run.facts(f"{len(batch):,} documents of width {batch.dim}"),
    )


def evaluate_store(
    store: Store,
    queries: Any,
    *,
    judgements: Judgements | None = None,
    truth: Literal["exact_search", "sample"] = "exact_search",
    sample: int = 2000,
    tops: Sequence[int] = TOPS,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 42,
    progress: bool = False,
) -> Evaluation:
    """Measures a live collection with searches as users make them.

    Args:
        store: store of any database; nothing is written to it.
        queries: queries as :class:`Queries` (such as those of ``pseudo_queries``), or as token matrices.
        judgements: relevance judgements, with the document ids of the collection.
        truth: source of the exact ranking. ``"exact_search"``: the database scores all documents by MaxSim, which may
            take seconds per query. ``"sample"``: for collections too large for that. A random sample of the documents
            is read, and the collection's *encoder* is measured on the sample in this process (:func:`evaluate`). Only
            the latency of the live collection is then measured, and not its index and quantization.
        sample: number of documents of the sample.
        tops: values of k for the recall of the exact top k.
        candidates: numbers of candidates.
        seed: seed of the bootstrap and the sample.
        progress: whether to show progress bars.

    Raises:
        InvalidInput: there are no documents, no stored tokens, or no queries.
        MuveraError: the database reports an error.
    """
    check_installed(judgements)
    run = _Run()
    asked, count = as_queries(queries), store.count()
    if count == 0:
        raise InvalidInput(f"{store.name} has no documents")
    if truth == "sample":
        return _on_sample(store, asked, count, judgements, sample, tops, candidates, seed, progress)
    depths = _depths(candidates, count)
    exact, seconds = ask(
        partial(store.exact_search, limit=min(count, max(*tops, 100)), with_payload=False),
        asked.tokens,
        progress="exact search" if progress else None,
    )
    if not min(map(len, exact)):
        raise InvalidInput(f"exact_search of {store.name} found nothing for a query: are tokens stored?")
    judge = _Judge(asked, judgements, None)
    curve, last = _searched(
        store.name, "collection", store, _quantization(store), asked, exact, depths, tops, judge, seed, progress
    )
    info = store.info()
    return Evaluation(
        documents=count,
        tokens=None,
        queries=len(asked),
        queries_are=asked.origin,
        truth=f"exact_search of the collection {store.name}: MaxSim by {info.engine} over all {count:,} documents",
        exact_latency=Latency.of(seconds),
        exact_quality=judge(exact),
        curves=[curve],
        notes=list(asked.notes),
        seed=seed,
        examples=_examples(last, exact, asked, None, depths),
        **run.facts(f"the collection {store.name} in {info.engine}"),
    )


def sample_of(store: Store, n: int, seed: int, *, progress: bool = False) -> tuple[list[DocumentId], TokenBatch]:
    """Ids and tokens of n random documents that have tokens; the same for the same seed and collection.

    All ids are read, but tokens only for the sample.

    Raises:
        InvalidInput: no document has tokens.
    """
    listed = progress_bar(store.scroll(page_size=1000), desc="list ids", total=store.count(), disable=not progress)
    ids = [document.id for document in listed]
    order = np.random.default_rng(seed).permutation(len(ids))[:n]
    chosen = [ids[i] for i in np.sort(order)]
    found: dict[DocumentId, Any] = {}
    for start in progress_bar(range(0, len(chosen), 100), desc="read tokens", disable=not progress):
        for document in store.get(chosen[start : start + 100], with_tokens=True):
            if document is not None and document.tokens is not None and len(document.tokens):
                found[document.id] = document.tokens
    if not found:
        raise InvalidInput(f"{store.name} has no documents with tokens")
    return list(found), TokenBatch.from_list(found.values())


def describe(encoder: Encoder) -> str:
    """A short name of an encoder."""
    inner: Any = encoder
    if isinstance(encoder, Remembering):
        inner = encoder.encoder
    if isinstance(inner, FDEEncoder):
        return f"FDE {inner.dim:,}{', fitted' if inner.mean is not None else ''}"
    return f"{type(inner).__name__.removesuffix('Encoder').lower()} {inner.dim:,}"


@dataclass(frozen=True, slots=True)
class Found:
    """The candidates that the first stage of a curve found.

    Attributes:
        curve: name of the curve.
        rankings: for each query, the ids or positions of the candidates, as many as the largest number to measure.
    """

    curve: str
    rankings: Sequence[Ranking]


class _Run:
    """Time and machine of a measurement."""

    def __init__(self) -> None:
        self._began = datetime.now(timezone.utc)
        self._start = time.perf_counter()

    def facts(self, source: str) -> dict[str, Any]:
        """The values for an :class:`Evaluation`."""
        return {
            "source": source,
            "began": self._began.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self._start,
            "machine": machine(),
        }


def machine() -> dict[str, str]:
    """The processor and the versions that figures of this process depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": f"{_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "muvera-adapters": version("muvera-adapters"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def settings_of(encoder: Encoder) -> dict[str, Any]:
    """Type, sizes and seed of an encoder, without its state."""
    inner: Any = encoder.encoder if isinstance(encoder, Remembering) else encoder
    content = inner.to_dict()
    flat = {**content, **content.get("config", {})}
    short = {key: value for key, value in flat.items() if isinstance(value, str | int | float | bool)}
    return {**short, "token_dim": inner.token_dim, "dim": inner.dim}


def _examples(
    last: Found, exact: Sequence[Ranking], queries: Queries, names: Ranking | None, depths: Sequence[int]
) -> list[Example]:
    """The query with the largest gain by reranking, and the query with the largest loss, if there are any."""
    n = min(depths, key=lambda depth: abs(depth - SHOWN))
    top = min(_EXAMPLE_TOP, min(map(len, exact)))
    places = positions([ranking[:n] for ranking in last.rankings], exact)
    alone, reranked = recalls(places, top, top), recalls(places, top)
    chosen: list[tuple[Literal["gained", "lost"], int]] = []
    if (reranked > alone).any():
        chosen.append(("gained", int(np.argmax(reranked - alone))))
    if (reranked < 1).any():
        chosen.append(("lost", int(np.argmin(reranked))))
    found = []
    for kind, i in chosen:
        rows, rank = [], 0
        for place, document in enumerate(exact[i][:top]):
            there = bool(np.isfinite(places[i, place]))
            rank += there
            rows.append(
                Place(
                    document if names is None else names[int(document)],
                    place + 1,
                    int(places[i, place]) + 1 if there else None,
                    rank if there else None,
                )
            )
        query = queries.ids[i] if queries.ids is not None else i
        found.append(Example(kind, query, last.curve, n, float(alone[i]), float(reranked[i]), rows))
    return found


class _Judge:
    """Quality of rankings by the given judgements, if any; with ``names``, rankings are of positions in it."""

    def __init__(self, queries: Queries, judgements: Judgements | None, names: Ranking | None) -> None:
        self._queries = queries
        self._judgements = judgements
        self._names = names

    def __call__(self, found: Sequence[Ranking]) -> dict[str, float]:
        if self._judgements is None:
            return {}
        names = self._names
        if names is not None:
            found = [[names[int(i)] for i in ids] for ids in found]
        return quality(found, self._queries.ids, self._judgements)


def _depths(candidates: Sequence[int], count: int) -> list[int]:
    depths = sorted({int(n) for n in candidates if n <= count})
    if any(n < 1 for n in depths):
        raise InvalidInput(f"numbers of candidates must be at least 1, got {depths[0]}")
    return depths or [count]


def _brute_force(
    name: str,
    encoder: Remembering,
    documents: TokenBatch,
    queries: Queries,
    exact: Sequence[Ranking],
    depths: Sequence[int],
    tops: Sequence[int],
    judge: _Judge,
    seed: int,
) -> tuple[Curve, Found]:
    found = brute_force(encoder, documents, queries.tokens, max(*depths, 100))
    places = positions(found, exact)
    curve = Curve(
        name=f"{name}, brute force",
        how="brute force",
        encoder=describe(encoder),
        dim=encoder.dim,
        fingerprint=encoder.fingerprint,
        quantization=None,
        bytes_per_document={
            "compared": 4.0 * encoder.dim,
            "encoding": 4.0 * encoder.dim,
            "tokens": documents.values.nbytes / len(documents),
        },
        alone=judge(found),
        points=[Point(n, _recall(places, tops, seed, n)) for n in depths],
        settings=settings_of(encoder),
    )
    return curve, Found(curve.name, found)


def brute_force(encoder: Encoder, documents: TokenBatch, queries: TokenBatch, k: int) -> list[list[DocumentId]]:
    """Positions of the k best documents for each query by float32 dot products of encodings; ties by position."""
    encoded, asked = encoder.encode_documents(documents), encoder.encode_queries(queries)
    rankings: list[list[DocumentId]] = []
    for start in range(0, len(asked), _BLOCK):
        scores = asked[start : start + _BLOCK] @ encoded.T
        rankings += np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return rankings


def _searched(
    name: str,
    how: Literal["index", "collection"],
    store: Store,
    quantization: str | None,
    queries: Queries,
    exact: Sequence[Ranking],
    depths: Sequence[int],
    tops: Sequence[int],
    judge: _Judge,
    seed: int,
    progress: bool = False,
) -> tuple[Curve, Found]:
    """Measures both stages at every number of candidates, as users search."""
    info, points, alone = store.info(), [], {}
    first: Sequence[Ranking] = []
    limit = min(len(exact[0]), max(*tops, 10))
    for n in progress_bar(depths, desc=f"search {name}", disable=not progress):
        first, _ = ask(partial(store.search, limit=n, rerank="none", with_payload=False), queries.tokens, warm_up=False)
        hits, seconds = ask(partial(store.search, limit=min(limit, n), prefetch=n, with_payload=False), queries.tokens)
        points.append(
            Point(
                n,
                _recall(positions(first, exact), tops, seed),
                _recall(positions(hits, exact), tops, seed),
                Latency.of(seconds),
                judge(hits),
            )
        )
        alone = judge(first)  # the last one has the most candidates
    count = max(1, info.documents)
    compared = info.code_bytes or info.fde_bytes
    curve = Curve(
        name=name,
        how=how,
        encoder=describe(store.encoder),
        dim=store.encoder.dim,
        fingerprint=store.encoder.fingerprint,
        quantization=quantization,
        bytes_per_document={
            "compared": compared / count,
            "encoding": info.fde_bytes / count,
            "tokens": info.token_bytes / count,
        },
        alone=alone,
        points=points,
        settings=settings_of(store.encoder),
    )
    return curve, Found(name, first)


def _recall(places: Any, tops: Sequence[int], seed: int, candidates: float = np.inf) -> dict[int, Interval]:
    # the top k means nothing with fewer than k documents
    return {k: Interval.of(recalls(places, k, candidates), seed) for k in tops if k <= places.shape[1]}


def _quantization(store: Store) -> str | None:
    info = store.info()
    if not info.code_bytes or not info.documents:
        return None
    bits = 8 * info.code_bytes / info.documents / store.encoder.dim
    return f"{bits:.3g} bits a dimension"


def _on_sample(
    store: Store,
    queries: Queries,
    count: int,
    judgements: Judgements | None,
    sample: int,
    tops: Sequence[int],
    candidates: Sequence[int],
    seed: int,
    progress: bool,
) -> Evaluation:
    ids, documents = sample_of(store, sample, seed, progress=progress)
    of_sample = evaluate(
        {describe(store.encoder): store.encoder},
        documents,
        queries,
        judgements=judgements,
        document_ids=ids,
        tops=tops,
        candidates=candidates,
        seed=seed,
        progress=progress,
    )
    asked = ask(partial(store.search, limit=10, prefetch=200, with_payload=False), queries.tokens)
    live = Latency.of(asked[1])
    note = (
        f"The recall is that of the encoder on a random sample of {len(documents):,} of the {count:,} documents of "
        f"{store.name}, computed in this process. With the same number of candidates, it is lower over the whole "
        f"collection. Of the collection's own index, only the latency was measured: {live.p50_ms:.1f} ms (p50) and "
        f"{live.p95_ms:.1f} ms (p95) with 200 candidates."
    )
    return replace(
        of_sample,
        truth=f"exact MaxSim over a random sample of {len(documents):,} of {count:,} documents of {store.name}",
        notes=[note, *of_sample.notes],
    )
