"""``tune``: the encoder, quantization and number of candidates for a target recall.

They are chosen with one half of the queries and reported on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muvera_adapters.databases import local_spec
from muvera_adapters.evidence.encoder_choices import EncoderChoice, default_encoders
from muvera_adapters.evidence.local_index import no_index
from muvera_adapters.evidence.local_index import quantizations as known_quantizations
from muvera_adapters.evidence.queries import as_queries
from muvera_adapters.evidence.target_recall import MAX_PREFETCH
from muvera_adapters.evidence.tuning_trials import Setting, Trials, best_setting
from muvera_adapters.progress import progress_bar
from muvera_core.tokens import to_batch


@dataclass(frozen=True, slots=True)
class Tuning:
    """Result of :func:`tune`.

    Attributes:
        target: target recall.
        k: number of documents of the exact ranking that recall counts.
        max_bytes: maximum bytes of a document in the first stage, or None.
        max_prefetch: maximum number of candidates.
        documents: number of documents searched.
        queries_are: ``"given"``, or ``"pseudo"`` if they were drawn from documents.
        chosen_with: number of queries of the first half.
        reported_on: number of queries of the held-out half.
        settings: all settings that were tried.
        pareto: settings that reach the target and are not dominated by another, by bytes. A setting dominates another
            if it needs no more bytes, no more candidates, and no saved encoder where the other needs none.
        recommended: the setting of ``pareto`` that :func:`recommend` would choose; None if there is none. Encoders that
            the collection keeps completely come first. Of these, it has the fewest bytes, or with ``max_bytes`` the
            fewest candidates.
        held: whether the recommended setting reached the target on the held-out queries; None: nothing is recommended.
        verdict: the recommendation in words.
        notes: remarks that are needed to interpret the results.
        seed: seed of encoders, split and bootstrap.
    """

    target: float
    k: int
    max_bytes: float | None
    max_prefetch: int
    documents: int
    queries_are: str
    chosen_with: int
    reported_on: int
    settings: list[Setting]
    pareto: list[Setting]
    recommended: Setting | None
    held: bool | None
    verdict: str
    notes: list[str]
    seed: int

    @property
    def code(self) -> str:
        """Python code that fills the recommended collection with ``ids`` and ``documents`` and searches it."""
        best = self.recommended
        return "" if best is None or best.prefetch is None else code_of(best, best.prefetch, self.k)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "code": self.code}


def tune(
    documents: Any,
    queries: Any,
    target: float = 0.95,
    *,
    k: int = 10,
    max_bytes: float | None = None,
    max_prefetch: int = MAX_PREFETCH,
    encoders: Sequence[EncoderChoice] | None = None,
    quantizations: Sequence[str] | None = None,
    seed: int = 42,
    progress: bool = False,
) -> Tuning:
    """Measures every encoder with every quantization; :func:`recommend` makes the same choice sooner.

    The queries are split into two halves. With the first half, every encoder is measured by brute force. Encoders that
    can reach the target are also measured through a real index (a graph over quantized encodings), so its losses are
    included. The number of candidates is the smallest with which as many other queries reach the target in 19 of 20
    cases. The recommended setting and the other Pareto settings are then measured on the second half, which was not
    used for the choice.

    Args:
        documents: token matrices of all documents or of a sample, in any form that encoders take. A larger collection
            needs more candidates; measure it with :func:`tune_prefetch`.
        queries: at least 4 queries, better 100, as :class:`Queries` (such as those of ``pseudo_queries``) or as token
            matrices.
        target: target recall of the exact top k after reranking, above 0 and at most 1.
        k: number of documents of the exact ranking that recall counts.
        max_bytes: maximum bytes of a document in memory in the first stage; None: no limit.
        max_prefetch: maximum number of candidates to rerank.
        encoders: encoders to try; None: those of :func:`default_encoders`.
        quantizations: presets of the embedded engine to try; None: its usual ones, or brute force over float32 if the
            engine is not installed.
        seed: seed of encoders, split and bootstrap.
        progress: whether to show progress bars.

    Raises:
        MissingExtra: quantizations are given and the embedded engine is not installed.
        InvalidInput: a number is out of range, or there are too few queries or documents.
    """
    batch, asked = to_batch(documents), as_queries(queries)
    notes = list(asked.notes)
    if quantizations is None:
        quantizations = known_quantizations()
        if not quantizations:
            notes.append(f"{no_index()}, so everything was measured by brute force in float32, without an index.")
    elif quantizations:
        local_spec().check_installed()
    trials = Trials(
        batch, asked, target, k=k, max_prefetch=max_prefetch, max_bytes=max_bytes, seed=seed, progress=progress
    )
    choices = default_encoders(batch, seed) if encoders is None else list(encoders)
    for choice in progress_bar(choices, desc="encoders", disable=not progress):
        trials.scan(choice, quantizations or (None,))
    for planned in progress_bar(trials.planned(), desc="settings", disable=not progress):
        trials.run(planned)
    for trial in progress_bar(trials.pareto(), desc="held-out queries", disable=not progress):
        trials.report(trial)
    pareto = [trial.setting for trial in trials.pareto()]
    best_one = best_setting(pareto, max_bytes)
    held = None if best_one is None or best_one.held_out is None else best_one.held_out.mean >= target
    return Tuning(
        target=target,
        k=k,
        max_bytes=max_bytes,
        max_prefetch=trials.steps[-1],
        documents=len(batch),
        queries_are=asked.origin,
        chosen_with=len(trials.first),
        reported_on=len(trials.second),
        settings=trials.settings(),
        pareto=pareto,
        recommended=best_one,
        held=held,
        verdict=_verdict(best_one, held, target, k, len(trials.second)),
        notes=notes,
        seed=seed,
    )


def code_of(setting: Setting, prefetch: int, k: int) -> str:
    """Python code that fills a collection of this setting with ``ids`` and ``documents`` and searches it."""
    regression = setting.code.startswith("Regression")
    classes = "RegressionEncoder" if regression else "FDEConfig, FDEEncoder"
    # such an encoder is too large to be kept with the collection
    saved = 'encoder.save("encoder.npz")  # load_encoder("encoder.npz") is needed to open the collection again\n'
    module, _, store = local_spec().store.partition(":")
    quantization = f'"{setting.quantization}"' if setting.quantization else "None"
    return (
        f"from {module} import {store}\n"
        f"from muvera_core import {classes}\n\n"
        f"encoder = {setting.code}\n"
        f"{'' if setting.travels else saved}"
        f'store = {store}.create("muvera-data", "documents", encoder, quantization={quantization})\n'
        "store.upsert(ids, documents, progress=True)\n"
        "store.wait_indexed()\n"
        f"hits = store.search(query_tokens, limit={k}, prefetch={prefetch})\n"
    )


def _verdict(best: Setting | None, held: bool | None, target: float, k: int, reported_on: int) -> str:
    if best is None or best.held_out is None:
        return (
            f"No setting reaches a recall of {target:g} within the limits. Allow more candidates or bytes, or lower "
            "the target; the list of settings has the recall of each."
        )
    what = f"{best.encoder}, {best.quantization or 'float32'}, prefetch={best.prefetch}"
    recall = f"recall of the exact top {k} on {reported_on} held-out queries {best.held_out.mean:.3f}"
    spread = f"(95 % interval {best.held_out.low:.3f} to {best.held_out.high:.3f})"
    if held:
        return f"{what} holds the target {target:g}: {recall} {spread}."
    return (
        f"{what} was chosen, but MISSES the target {target:g} on held-out queries: {recall} {spread}. Take more "
        "candidates or a larger setting, or measure with more queries."
    )
