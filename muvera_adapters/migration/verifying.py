"""Compares the documents of a store with the source, which is read a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.evidence.measuring import queries_of
from muvera_adapters.migration.pipeline import MigrationReport
from muvera_adapters.migration.selecting import Condition
from muvera_adapters.progress import progress_bar
from muvera_adapters.results import Document, DocumentId
from muvera_adapters.sources.base import SourceDocument, TokenSource
from muvera_adapters.stores.checks import without_zero_rows
from muvera_adapters.stores.payloads import first_difference, to_plain
from muvera_adapters.stores.protocol import Store
from muvera_adapters.stores.searching import maxsim_of_stored
from muvera_core import TokenBatch

_BLOCK = 10
# maximum number of a document's rows in a self-retrieval query
_QUERY_TOKENS = 256
_TOP = 10
_BATCH = 256
# of the typical rounding of a token in 8 bits or fewer, which is longer for some
_COARSE = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        name: name of the comparison.
        passed: whether the result is as expected.
        text: the figures in words.
        figures: the same figures, for scripts.
    """

    name: str
    passed: bool
    text: str
    figures: Mapping[str, Any]


@dataclass
class Verification:
    """All comparisons.

    Attributes:
        checks: comparisons, in order.
        passed: whether all of them passed.
    """

    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def add(self, name: str, passed: bool, text: str, **figures: Any) -> None:
        """Adds a check."""
        self.checks.append(Check(name, passed, text, figures))


def verify(
    source: TokenSource,
    store: Store,
    report: MigrationReport,
    *,
    sample: int = 200,
    seed: int = 0,
    where: Sequence[Condition] = (),
    keep: Callable[[str], bool] | None = None,
    queries: TokenBatch | None = None,
    rankings: Sequence[Sequence[str]] | None = None,
    prefetch: int = 200,
    progress: bool = False,
) -> Verification:
    """Compares counts; on a sample: token counts, vectors, payloads, self-retrieval, scores; and rankings of queries.

    Args:
        source: source that was migrated.
        store: store that it was migrated to.
        report: report of the migration.
        sample: number of documents to compare, in blocks of ten from random positions; the number of documents: all.
        seed: seed of the choice.
        where: as for ``migrate``.
        keep: as for ``migrate``.
        queries: real queries. Their best documents by MaxSim over the whole source are compared with those of
            two-stage search.
        rankings: results of the old index's own search for these queries, as :func:`read_rankings` returns them.
        prefetch: number of candidates of the first stage.
        progress: whether to show a progress bar.
    """
    found = Verification()
    count = store.count()
    expected = report.written
    least, most = max(report.there_before, expected), report.there_before + expected
    found.add(
        "count",
        least <= count <= most,
        f"{count:,} documents in the collection, {expected:,} migrated"
        + (f", {report.there_before:,} were there before" if report.there_before else ""),
        stored=count,
        migrated=expected,
    )
    lost = {f.position for f in report.failed}
    chosen = _Chosen(source, report, where, lost)
    if expected and sample:
        _compare_sample(found, chosen, store, sample, seed, keep, prefetch, progress)
    if expected and queries is not None:
        _compare_rankings(found, chosen, store, queries, rankings, prefetch, progress)
    return found


class _Chosen:
    """The documents of the source that are in the collection."""

    def __init__(
        self, source: TokenSource, report: MigrationReport, where: Sequence[Condition], lost: Set[int]
    ) -> None:
        self.end = source.n_positions if report.complete else report.position
        self.seekable = source.seekable
        self._source, self._where, self._lost = source, where, lost

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        for document in self._source.documents(start):
            if document.position >= self.end:
                return
            if document.position not in self._lost and all(condition(document.payload) for condition in self._where):
                yield document._replace(tokens=without_zero_rows(document.tokens))

    def blocks(self, sample: int, seed: int) -> Iterator[list[SourceDocument]]:
        """About ``sample`` documents, ten at a time, in order of their positions."""
        generator = np.random.default_rng(seed)
        n_blocks = -(-sample // _BLOCK)
        if not self.seekable or sample >= self.end:
            wanted = set(generator.choice(self.end, min(sample, self.end), replace=False).tolist())
            picked = (d for d in self.documents() if d.position in wanted or sample >= self.end)
            while block := list(islice(picked, _BLOCK)):
                yield block
            return
        done = -1
        for start in np.sort(generator.choice(self.end, n_blocks, replace=False)).tolist():
            block = list(islice(self.documents(max(start, done + 1)), _BLOCK))
            if block:
                done = block[-1].position
                yield block


@dataclass
class _Seen:
    """What the sample has shown."""

    rounding: float  # typical length of the rounding of a token, where the store keeps 8 bits or fewer
    documents: int = 0
    missing: list[DocumentId] = field(default_factory=list)
    lengths: list[DocumentId] = field(default_factory=list)
    payloads: list[DocumentId] = field(default_factory=list)
    difference: str = ""  # difference of the first of these payloads
    half: bool = True  # whether every value read back is a float16 value
    error: float = 0.0
    moved: float = 0.0  # largest length of a token's difference, relative to the token's
    tokens: int = 0
    asked: int = 0
    first: int = 0
    scores: int = 0
    score_error: float = 0.0


def _compare_sample(
    found: Verification,
    chosen: _Chosen,
    store: Store,
    sample: int,
    seed: int,
    keep: Callable[[str], bool] | None,
    prefetch: int,
    progress: bool,
) -> None:
    seen = _Seen(store.info().token_error)
    with progress_bar(total=min(sample, chosen.end), unit="doc", desc="verify a sample", disable=not progress) as bar:
        for block in chosen.blocks(sample, seed):
            stored = store.get([d.id for d in block], with_tokens=True)
            for document, kept in zip(block, stored, strict=True):
                _compare_document(seen, document, kept, keep)
            _search_block(seen, store, block, prefetch)
            seen.documents += len(block)
            bar.update(len(block))
    n = seen.documents
    # relative to the largest value of a document: half a unit in the last place of float16, or a few of float32
    tolerance = 5e-4 if seen.half else 1e-6
    found.add(
        "documents",
        not seen.missing,
        f"{n - len(seen.missing):,} of {n:,} sampled documents are there" + _named(seen.missing),
        sampled=n,
        missing=len(seen.missing),
    )
    found.add(
        "token counts",
        not seen.lengths,
        f"{n - len(seen.lengths):,} of {n:,} have as many tokens as in the source" + _named(seen.lengths),
        differing=len(seen.lengths),
    )
    found.add(
        "payloads",
        not seen.payloads,
        f"{n - len(seen.payloads):,} of {n:,} have the payload of the source" + seen.difference + _named(seen.payloads),
        differing=len(seen.payloads),
        first_difference=seen.difference.removeprefix("; ") or None,
    )
    difference, of = (seen.moved, "relative to its length") if seen.rounding else (seen.error, "of a value")
    tolerance = _COARSE * seen.rounding or tolerance
    found.add(
        "vectors",
        difference <= tolerance,
        f"largest difference {of} {difference:.1e} (allowed {tolerance:.0e}) in {seen.tokens:,} vectors",
        largest_difference=difference,
        allowed=tolerance,
    )
    if seen.asked:
        share = seen.first / seen.asked
        found.add(
            "self-retrieval",
            share >= 0.95,
            f"{seen.first:,} of {seen.asked:,} documents rank first (or tie) for their own tokens (95 % needed)",
            share=share,
        )
    # a score is a sum over the query's tokens, each off by what rounding a vector does to a dot product
    allowed = seen.rounding or (1e-3 if seen.half else 1e-4)
    found.add(
        "scores",
        seen.score_error <= allowed,
        f"{seen.scores:,} MaxSim scores of the database differ from ours by at most {seen.score_error:.1e} a query "
        f"token (allowed {allowed:.0e})",
        compared=seen.scores,
        largest_difference=seen.score_error,
        allowed=allowed,
    )


def _compare_document(
    seen: _Seen, document: SourceDocument, kept: Document | None, keep: Callable[[str], bool] | None
) -> None:
    if kept is None:
        seen.missing.append(document.id)
        return
    # some databases do not distinguish None from a missing key
    wanted = to_plain({k: v for k, v in document.payload.items() if (keep is None or keep(k)) and v is not None})
    difference = first_difference(wanted, {k: v for k, v in kept.payload.items() if k in wanted})
    if difference is not None:
        seen.difference = seen.difference or f"; {document.id!r}, {difference}"
        seen.payloads.append(document.id)
    if kept.tokens is None or kept.tokens.shape != document.tokens.shape:
        seen.lengths.append(document.id)
        return
    scale = max(1.0, float(np.abs(document.tokens).max()))
    seen.error = max(seen.error, float(np.abs(kept.tokens - document.tokens).max()) / scale)
    lengths = np.maximum(np.linalg.norm(document.tokens, axis=1), np.float32(1e-30))
    seen.moved = max(seen.moved, float((np.linalg.norm(kept.tokens - document.tokens, axis=1) / lengths).max()))
    seen.half = seen.half and bool((kept.tokens.astype(np.float16) == kept.tokens).all())
    seen.tokens += len(document.tokens)


def _search_block(seen: _Seen, store: Store, block: Sequence[SourceDocument], prefetch: int) -> None:
    """Self-retrieval; and a query of rows from several documents, whose scores are compared."""
    tokens = {d.id: d.tokens for d in block}
    for document in block:
        query = document.tokens[:_QUERY_TOKENS]
        norms = np.linalg.norm(document.tokens, axis=1)
        hits = store.search(query, limit=_TOP, prefetch=prefetch, with_payload=False)
        _compare_scores(seen, query, tokens, hits)
        # among vectors of different lengths a document need not be the best answer to itself
        if not np.allclose(norms, 1, atol=1e-2):
            continue
        seen.asked += 1
        own = next((hit.score for hit in hits if hit.id == document.id), None)
        # a tie: the same text twice
        seen.first += own is not None and own >= hits[0].score - max(1e-3, seen.rounding) * len(query)
    mixed = np.concatenate([d.tokens[:4] for d in block[:8]])
    _compare_scores(seen, mixed, tokens, store.search(mixed, limit=_TOP, prefetch=prefetch, with_payload=False))


def _compare_scores(
    seen: _Seen, query: npt.NDArray[np.float32], tokens: Mapping[DocumentId, npt.NDArray[np.float32]], hits: Any
) -> None:
    known = [hit for hit in hits if hit.reranked and hit.id in tokens]
    if not known:
        return
    ours = maxsim_of_stored(query, [tokens[hit.id] for hit in known])
    scale = max(1.0, float(np.abs(ours).max()) / len(query))
    differences = np.abs(ours - np.array([hit.score for hit in known])) / len(query) / scale
    seen.scores += len(known)
    seen.score_error = max(seen.score_error, float(differences.max()))


def _compare_rankings(
    found: Verification,
    chosen: _Chosen,
    store: Store,
    queries: TokenBatch,
    rankings: Sequence[Sequence[str]] | None,
    prefetch: int,
    progress: bool,
) -> None:
    wanted = {identifier for ranking in rankings or () for identifier in ranking[:_TOP]}
    exact, names = _exhaustive(chosen, queries, wanted, progress)
    two_stage = [
        [str(hit.id) for hit in store.search(query, limit=_TOP, prefetch=prefetch, with_payload=False)]
        for query in queries_of(queries)
    ]
    found_share = _overlap(exact, two_stage)
    figures: dict[str, Any] = {"queries": len(queries), "exhaustive_and_two_stage": found_share}
    text = f"overlap of the top {_TOP} of {len(queries)} queries: exhaustive MaxSim and two stages {found_share:.3f}"
    passed = True
    if rankings is not None:
        old = [[names.get(identifier, identifier) for identifier in ranking[:_TOP]] for ranking in rankings]
        figures["old_and_exhaustive"] = _overlap(old, exact)
        figures["old_and_two_stage"] = _overlap(old, two_stage)
        figures["unknown_ids"] = len(wanted - names.keys())
        # the old search does not fully agree with exhaustive MaxSim over its own vectors either
        passed = figures["old_and_two_stage"] >= figures["old_and_exhaustive"] - 0.02
        text += (
            f"; old index and exhaustive {figures['old_and_exhaustive']:.3f}, old index and two stages "
            f"{figures['old_and_two_stage']:.3f}"
        )
        if figures["unknown_ids"]:
            text += f"; {figures['unknown_ids']} ids of the old results are not in the source"
    found.add("rankings", passed, text, **figures)


def _exhaustive(
    chosen: _Chosen, queries: TokenBatch, wanted: Set[str], progress: bool
) -> tuple[list[list[str]], Mapping[str, str]]:
    """Ids of each query's best documents by MaxSim over all, and the ids of the documents in the old results."""
    best: list[list[tuple[float, int, str]]] = [[] for _ in range(len(queries))]
    by_id: dict[str, str] = {}
    by_position: dict[str, str] = {}
    documents = chosen.documents()
    with progress_bar(total=chosen.end, unit="doc", desc="exhaustive MaxSim", disable=not progress) as bar:
        while batch := list(islice(documents, _BATCH)):
            for document in batch:
                name = str(document.id)
                if name in wanted:
                    by_id[name] = name
                if str(document.position) in wanted:
                    by_position[str(document.position)] = name
            for top, query in zip(best, queries_of(queries), strict=True):
                scores = maxsim_of_stored(query.astype(np.float32), [d.tokens for d in batch])
                ranked = [(float(-s), d.position, str(d.id)) for s, d in zip(scores, batch, strict=True)]
                top[:] = sorted([*top, *ranked])[:_TOP]
            bar.update(len(batch))
    # old results name positions if the documents got other ids since
    names = by_id if len(by_id) >= len(by_position) else by_position
    return [[name for _, _, name in top] for top in best], names


def _overlap(a: Sequence[Sequence[str]], b: Sequence[Sequence[str]]) -> float:
    shares = [len(set(x) & set(y)) / max(1, min(len(x), _TOP)) for x, y in zip(a, b, strict=True)]
    return float(np.mean(shares)) if shares else 0.0


def _named(ids: Sequence[DocumentId]) -> str:
    return f"; not {', '.join(repr(i) for i in ids[:5])}{' ...' if len(ids) > 5 else ''}" if ids else ""
