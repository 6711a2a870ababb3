"""Which encoder, quantization and number of candidates keep a recall, chosen on one half of the queries and reported on
the other.
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
    """What :func:`tune` found.

    Attributes:
        target: recall wanted.
        k: of the exact top k.
        max_bytes: the limit, or None.
        max_prefetch: the largest number of candidates allowed.
        documents: that were searched.
        queries_are: ``"given"``, or ``"pseudo"``: drawn from documents.
        chosen_with: queries of the first half.
        reported_on: queries of the held-out half.
        settings: everything tried.
        pareto: settings that reach the target, none of which has another that needs neither more bytes nor more
            candidates, nor an encoder to save where it needs none; by bytes.
        recommended: the one of these that :func:`recommend` would choose: of the encoders that travel with the
            collection, if any is among them, the one with the fewest bytes, or under ``max_bytes`` with the fewest
            candidates; or None.
        held: the recommended setting reached the target on the held-out queries; None: nothing is recommended.
        verdict: in words.
        notes: what a reader must know.
        seed: of encoders, split and bootstrap.
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
        """Python that makes the recommended collection of ``ids`` and ``documents`` and asks it ``query_tokens``."""
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

    The queries are split in two. With the first half, every encoder is measured by brute force, and those that may
    be worth it through a real index (a graph over quantized encodings), whose losses are thereby included;
    the number of candidates is the least with which the recall of as many other queries reaches the target in 19 of 20
    cases. The recommended setting, and the other Pareto ones, are then measured on the second half, which had no part
    in the choice.

    Args:
        documents: token matrices, in any form that encoders take: all, or a sample. A larger collection needs more
            candidates; :func:`tune_prefetch` finds how many.
        queries: :class:`Queries` (also of ``pseudo_queries``), or token matrices; at least 4, better 100.
        target: recall of the exact top k after reranking, above 0 and at most 1.
        k: of the exact top k.
        max_bytes: of a document in memory in the first stage.
        max_prefetch: most candidates to rerank.
        encoders: encoders to try; None: those of :func:`default_encoders`.
        quantizations: presets of the embedded engine to try; None: those worth trying, or none (brute force over
            float32) where the engine is not installed.
        seed: of encoders, split and bootstrap.
        progress: show bars.

    Raises:
        MissingExtra: quantizations are given and the embedded engine is not installed.
        InvalidInput: numbers out of range, too few queries or documents.
    """
    batch, asked = to_batch(documents), as_queries(queries)
    notes = list(asked.notes)
    if quantizations is None:
        quantizations = known_quantizations()
        if not quantizations:
            notes.append(f"{no_index()}: measured by brute force in float32, without an index.")
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
    """Python that makes a collection of ``ids`` and ``documents`` with this setting and asks it ``query_tokens``."""
    regression = setting.code.startswith("Regression")
    classes = "RegressionEncoder" if regression else "FDEConfig, FDEEncoder"
    # too big to travel with the collection
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
            f"No setting reaches a recall of {target:g} within the limits. Allow more candidates or bytes, or ask for "
            "less; the list of settings says what each has."
        )
    what = f"{best.encoder}, {best.quantization or 'float32'}, prefetch={best.prefetch}"
    recall = f"recall of the exact top {k} on {reported_on} held-out queries {best.held_out.mean:.3f}"
    spread = f"(95 % interval {best.held_out.low:.3f} to {best.held_out.high:.3f})"
    if held:
        return f"{what} holds the target {target:g}: {recall} {spread}."
    return (
        f"{what} was chosen, and MISSES the target {target:g} on held-out queries: {recall} {spread}. Take more "
        "candidates or a larger setting, or measure with more queries."
    )
