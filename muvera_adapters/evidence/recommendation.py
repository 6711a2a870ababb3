"""``recommend``: the encoder, codes and number of candidates for a collection, from a sample, in under a minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from muvera_adapters.databases import local_spec
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.evidence.encoder_choices import EncoderChoice, default_encoders
from muvera_adapters.evidence.local_index import no_index
from muvera_adapters.evidence.local_index import quantizations as known_quantizations
from muvera_adapters.evidence.measuring import Interval
from muvera_adapters.evidence.queries import PSEUDO_QUERIES, Queries, as_queries, check_width, pseudo_queries
from muvera_adapters.evidence.target_recall import MAX_PREFETCH, check, grown
from muvera_adapters.evidence.tuning import code_of
from muvera_adapters.evidence.tuning_trials import Setting, Trial, Trials
from muvera_adapters.progress import progress_bar
from muvera_core import Encoder, InvalidTokens, TokenBatch
from muvera_core.tokens import first_bad_token, to_batch

SAMPLE = 5_000
_MOST_QUERIES = 300
# the margin assumes normally distributed recalls, which those of few queries near 1 are not: with 28 queries it held a
# target of .95 in .975 of 400 draws, and a target of .98 in .8 (docs/tuning.md)
_LEAST_EXPECTED_MISSES = 1.25
# multiple of k: among half of fewer documents, the exact top k is often found by chance
_LEAST_DOCUMENTS = 20


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Result of :func:`recommend`.

    Attributes:
        encoder: the recommended encoder, ready for use.
        quantization: preset of the embedded engine for the codes; None: no codes, because no index is installed.
        prefetch: number of candidates to rerank in the collection. If the collection is larger than the documents
            measured, it is projected from ``measured_prefetch``
            (:func:`~muvera_adapters.evidence.target_recall.grown`).
        measured_prefetch: number of candidates with which ``recall`` was measured.
        recall: recall of the exact top k after reranking, on queries that were not used for the choice.
        bytes_per_document: bytes of a document in memory in the first stage: codes, and links of a graph.
        target: target recall.
        k: number of documents of the exact ranking that recall counts.
        reached: whether the queries used for the choice reached the target, with a margin so that other queries reach
            it in 19 of 20 cases.
        held: whether ``recall`` is at least the target.
        documents: number of documents searched.
        collection: number of documents of the collection.
        queries_are: ``"given"``, or ``"pseudo"`` if they were drawn from documents.
        chosen_with: number of queries used for the choice.
        reported_on: number of queries used for ``recall``.
        setting: the chosen setting, one of ``tried``.
        tried: all settings considered, by size; ``note`` says why one was not measured.
        warnings: warnings for the user.
        seed: seed of all randomness.
    """

    encoder: Encoder
    quantization: str | None
    prefetch: int
    measured_prefetch: int
    recall: Interval
    bytes_per_document: float
    target: float
    k: int
    reached: bool
    held: bool
    documents: int
    collection: int
    queries_are: str
    chosen_with: int
    reported_on: int
    setting: Setting
    tried: list[Setting]
    warnings: list[str]
    seed: int

    @property
    def code(self) -> str:
        """Python code that fills the recommended collection with ``ids`` and ``documents`` and searches it."""
        return code_of(self.setting, self.prefetch, self.k)

    def to_dict(self) -> dict[str, Any]:
        """The result in JSON values; the encoder as its ``to_dict()`` describes it."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        content |= {name: asdict(content[name]) for name in ("recall", "setting")}
        content["tried"] = [asdict(setting) for setting in self.tried]
        return {**content, "encoder": self.encoder.to_dict(), "code": self.code}

    def __str__(self) -> str:
        """The choice in words, a table of all settings that were tried, and the warnings."""
        rows = [("", "encoder", "codes", "bytes", "candidates", "recall, chosen with", "recall, unseen", "")]
        rows += [
            (
                "*" if s is self.setting else "",
                s.encoder,
                s.quantization or "float32",
                f"{s.bytes_per_document:,.0f}",
                f"{s.prefetch:,}" if s.prefetch else "",
                _short(s.chosen),
                _short(s.held_out),
                s.note,
            )
            for s in self.tried
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        right = (3, 4)
        lines = [
            "  ".join(
                c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([self.verdict, "", *(line.rstrip() for line in lines), *(f"! {w}" for w in self.warnings)])

    @property
    def verdict(self) -> str:
        """The choice in words."""
        projected = (
            f" for {self.collection:,} documents (a projection); with {self.measured_prefetch} of {self.documents:,}"
            if self.collection > self.documents
            else ""
        )
        return (
            f"{self.setting.encoder}, {self.quantization or 'float32'}, prefetch={self.prefetch}{projected}: recall of "
            "the exact "
            f"top {self.k} {self.recall.mean:.3f} ({self.recall.low:.3f} to {self.recall.high:.3f}) on "
            f"{self.reported_on} {'queries' if self.queries_are == 'given' else 'pseudo-queries'} that had no part in "
            f"the choice, {self.bytes_per_document:,.0f} bytes a document"
        )


def recommend(
    documents: Any,
    queries: Any = None,
    *,
    recall: float = 0.95,
    bytes_per_document: float | None = None,
    k: int = 10,
    max_prefetch: int = MAX_PREFETCH,
    encoders: Sequence[EncoderChoice] | None = None,
    travels: bool = False,
    quantizations: Sequence[str] | None = None,
    sample: int = SAMPLE,
    collection: int | None = None,
    seed: int = 42,
    progress: bool = False,
) -> Recommendation:
    """Chooses encoder, codes and number of candidates for documents like these, and measures the choice.

    The queries are split into two halves. With the first half, FDEs of three sizes (fitted if the tokens share a
    direction) are compared in float32. Those that can reach the target are searched through a real index with codes,
    the smallest first, until one reaches it. If none does, or none is small enough, regression encoders are tried,
    which the user must save. The number of candidates has a margin, so that as many other queries reach the target in
    19 of 20 cases. ``recall`` of the result is measured with the second half.

    Args:
        documents: token matrices of all documents or of a sample, in any form that encoders take.
        queries: queries similar to the expected ones, in any form that encoders take or as :class:`Queries`, of which
            at most 300 are used; None: pseudo-queries drawn from the documents.
        recall: target recall, above 0 and at most 1.
        bytes_per_document: maximum bytes of a document in memory in the first stage. Of the settings within this limit
            that reach the target, the one with the fewest candidates is chosen. None: the smallest setting that reaches
            the target.
        k: number of documents of the exact ranking that recall counts.
        max_prefetch: maximum number of candidates to rerank; never more than half of the documents.
        encoders: encoders to try; None: those of :func:`default_encoders`.
        travels: whether to try only encoders that the collection keeps completely, so that the user need not save one.
        quantizations: presets of the embedded engine to try; None: its usual ones; empty: brute force over float32.
        sample: number of documents, drawn from those given, to measure on.
        collection: number of documents of the collection if those given are a sample of it; None: they are all. A
            larger collection needs more candidates than the sample, so ``prefetch`` is projected to its size. Measure
            it with :func:`tune_prefetch` after the collection is filled.
        seed: seed of all randomness.
        progress: whether to show progress bars.

    Returns:
        The choice. If no setting reaches the target, it is the one with the highest recall, and a warning says so.

    Raises:
        MissingExtra: quantizations are given and the embedded engine is not installed.
        InvalidInput: a number is out of range, there are too few documents or queries, or no setting is as small as
            ``bytes_per_document``; the message has the smallest size.
        InvalidTokens: a document is empty, has vectors of another width, or has a token that is not finite or all
            zeros.
    """
    if sample < 1 or seed < 0:
        raise WrongUsage(f"sample must be at least 1 and seed at least 0, got {sample} and {seed}")
    if bytes_per_document is not None and not bytes_per_document > 0:
        raise WrongUsage(f"bytes_per_document must be a positive number, got {bytes_per_document}")
    if encoders is not None and not any(choice.travels or not travels for choice in encoders):
        raise WrongUsage(f"none of the {len(encoders)} encoders can be tried{' with travels=True' if travels else ''}")
    given = to_batch(documents)
    _check_values(given)
    batch = drawn(given, sample, seed)
    check(recall, k, max_prefetch, len(batch))
    size = len(given) if collection is None else collection
    if size < len(given):
        raise WrongUsage(f"collection must be at least the number of documents given, {len(given)}, got {collection}")
    warnings = []
    if len(batch) < size:
        warnings.append(
            f"Measured on {len(batch):,} of {size:,} documents; prefetch is projected to all of them. Check it with "
            "tune_prefetch() when the collection is filled."
        )
    asked = queries_for(batch, queries, seed)
    warnings += asked.notes
    if quantizations is None:
        quantizations = known_quantizations()
        if not quantizations:
            warnings.append(f"{no_index()}, so everything was measured in float32 without codes and an index.")
    elif quantizations:
        local_spec().check_installed()
    trials = Trials(
        batch,
        asked,
        recall,
        k=k,
        max_prefetch=max_prefetch,
        max_bytes=bytes_per_document,
        seed=seed,
        progress=progress,
    )
    choices = default_encoders(batch, seed) if encoders is None else list(encoders)
    chosen: Trial | None = None
    with progress_bar(choices, desc="encoders", disable=not progress) as bar:
        for tier in (True,) if travels else (True, False):
            for choice in (each for each in choices if each.travels == tier):
                trials.scan(choice, quantizations or (None,))
                bar.update()
            chosen = trials.choose()
            if chosen is not None and chosen.setting.prefetch is not None:
                break
    if chosen is None:
        raise InvalidInput(_too_small(bytes_per_document, trials.settings()))
    setting = chosen.setting
    assert setting.held_out is not None
    assert setting.chosen is not None
    reached, held = setting.prefetch is not None, setting.held_out.mean >= recall
    if not reached:
        warnings.append(
            f"Nothing reaches a recall of {recall:g} with at most {trials.steps[-1]} candidates; this setting has the "
            "highest recall. Allow more candidates or bytes, or lower the target."
        )
    elif not held:
        warnings.append(
            f"The target {recall:g} is missed on the held-out queries. Take more candidates, or measure with more "
            "queries."
        )
    if len(batch) < _LEAST_DOCUMENTS * k:
        warnings.append(
            f"{len(batch)} documents are too few to tell encoders apart by the exact top {k}: give at least "
            f"{_LEAST_DOCUMENTS * k}."
        )
    if len(trials.first) * (1 - recall) < _LEAST_EXPECTED_MISSES:
        warnings.append(f"{len(trials.first)} queries are too few to rely on a recall of {recall:g}: give more.")
    if not setting.travels:
        warnings.append("The collection does not keep this encoder: save it with encoder.save(path).")
    candidates = setting.prefetch or trials.steps[-1]
    return Recommendation(
        encoder=chosen.encoder.encoder,
        quantization=setting.quantization,
        prefetch=grown(candidates, len(batch), size),
        measured_prefetch=candidates,
        recall=setting.held_out,
        bytes_per_document=setting.bytes_per_document,
        target=recall,
        k=k,
        reached=reached,
        held=held,
        documents=len(batch),
        collection=size,
        queries_are=asked.origin,
        chosen_with=len(trials.first),
        reported_on=len(trials.second),
        setting=setting,
        tried=[_explained(each) for each in trials.settings()],
        warnings=warnings,
        seed=seed,
    )


def drawn(documents: TokenBatch, sample: int, seed: int) -> TokenBatch:
    """A random sample of the documents, in their order; all documents if there are no more than ``sample``."""
    if len(documents) <= sample:
        return documents
    chosen = np.sort(np.random.default_rng(seed).permutation(len(documents))[:sample])
    return TokenBatch.from_list(documents[int(i)] for i in chosen)


def queries_for(documents: TokenBatch, queries: Any, seed: int) -> Queries:
    """At most 300 of the given queries; pseudo-queries of the documents if none are given."""
    if queries is None:
        return pseudo_queries(documents, PSEUDO_QUERIES, seed=seed)
    asked = as_queries(queries)
    check_width(asked, documents)
    if len(asked) <= _MOST_QUERIES:
        return asked
    return asked.choose(np.sort(np.random.default_rng(seed).permutation(len(asked))[:_MOST_QUERIES]))


def _check_values(documents: TokenBatch) -> None:
    bad = first_bad_token(documents)
    if bad is not None:
        not_finite, position, token = bad
        what = "has a NaN or infinite value" if not_finite else "is all zeros (padding)"
        raise InvalidTokens(f"token {token} of document {position} {what}", position)


def _too_small(limit: float | None, settings: Sequence[Setting]) -> str:
    least = min(settings, key=lambda setting: setting.bytes_per_document)
    return (
        f"bytes_per_document={limit:g} is too small: the least is {least.bytes_per_document:,.0f}, of {least.encoder} "
        f"with {least.quantization or 'float32'} codes"
    )


def _explained(setting: Setting) -> Setting:
    if setting.chosen is not None or setting.note:
        return setting
    return replace(setting, note=f"not run; in float32 it needs {setting.scanned} candidates")


def _short(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"
