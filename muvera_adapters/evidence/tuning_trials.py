"""Trials of settings (an encoder and its codes) with one half of the queries, and the rule that chooses a setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence.encoder_choices import EncoderChoice
from muvera_adapters.evidence.evaluation import brute_force
from muvera_adapters.evidence.local_index import Remembering, first_stage_bytes, local_index
from muvera_adapters.evidence.measuring import Float64, Interval, Ranking, ask, exact_top, positions, recalls
from muvera_adapters.evidence.queries import Queries, check_width
from muvera_adapters.evidence.target_recall import check, grid_of_sample, lower_bound, reaches
from muvera_core import Encoder, TokenBatch

_Recall: TypeAlias = Callable[[Queries, Sequence[Ranking], int], Float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """One encoder with one quantization.

    Attributes:
        encoder: name of the encoder.
        code: Python expression that makes the encoder.
        dim: number of dimensions of an encoding.
        quantization: preset of the embedded engine; None: brute force over float32, because no index is installed.
        bytes_per_document: bytes of a document in memory in the first stage: codes, and links of the graph.
        travels: whether a collection keeps the complete encoder; if not, the user must save it.
        scanned: number of candidates needed when all encodings are compared in float32; None: the target is out of
            reach.
        prefetch: number of candidates needed for the target; None: out of reach, or not measured.
        chosen: recall on the half of the queries with which ``prefetch`` was chosen; if the target is out of reach,
            recall with the maximum number of candidates.
        held_out: recall on the other half.
        note: reason why there is no ``prefetch``; empty if there is one.
    """

    encoder: str
    code: str
    dim: int
    quantization: str | None
    bytes_per_document: float
    travels: bool = True
    scanned: int | None = None
    prefetch: int | None = None
    chosen: Interval | None = None
    held_out: Interval | None = None
    note: str = ""


def best_setting(settings: Iterable[Setting], max_bytes: float | None = None) -> Setting | None:
    """The setting to recommend, by the common rule of ``diagnose``, ``tune`` and ``recommend``.

    Only measured settings of at most ``max_bytes`` are considered. Of those that reach the target, encoders that the
    collection keeps completely come first. Among these, the smallest is chosen, or with ``max_bytes`` the one that
    needs the fewest candidates. If no setting reaches the target, the one with the highest recall is chosen.

    Returns:
        The setting, which has no ``prefetch`` if the target is out of reach; None: nothing was measured.
    """
    within = [s for s in settings if s.chosen is not None and (max_bytes is None or s.bytes_per_document <= max_bytes)]
    reaching = [s for s in within if s.prefetch is not None]
    if reaching:
        return min(reaching, key=lambda s: _preference(s, s.prefetch or 0, max_bytes))
    return max(
        within, key=lambda s: (s.chosen.mean if s.chosen else 0.0, s.travels, s.bytes_per_document), default=None
    )


def _preference(setting: Setting, candidates: int, max_bytes: float | None) -> tuple[bool, float, float]:
    by_size = setting.bytes_per_document, float(candidates)
    return (not setting.travels, *(by_size if max_bytes is None else by_size[::-1]))


def _by_size(trial: Trial) -> tuple[float, int, bool]:
    setting = trial.setting
    return setting.bytes_per_document, setting.prefetch or 0, not setting.travels


@dataclass(slots=True)
class Trial:
    """A setting to measure.

    Attributes:
        setting: the setting, with the results known so far.
        encoder: encoder of the setting.
        least: number of candidates that it needs by brute force; through an index, it needs at least as many.
    """

    setting: Setting
    encoder: Remembering
    least: int

    def is_no_worse(self, setting: Setting, candidates: int) -> bool:
        """Whether it needs no more bytes and candidates than ``setting``, and no saved encoder unless that does too."""
        own = self.setting
        return (
            own.prefetch is not None
            and own.bytes_per_document <= setting.bytes_per_document
            and own.prefetch <= candidates
            and own.travels >= setting.travels
        )


class Trials:
    """All settings, measured with the first half of the queries and reported on the second.

    Args:
        documents: documents to search.
        queries: queries, which are split into two halves at random.
        target: target recall.
        k: number of documents of the exact ranking that recall counts.
        max_prefetch: maximum number of candidates.
        max_bytes: maximum bytes of a document in the first stage; None: no limit.
        seed: seed of the split and of intervals.
        progress: whether to show progress bars.

    Raises:
        InvalidInput: a number is out of range, or there are too few queries or documents.
    """

    def __init__(
        self,
        documents: TokenBatch,
        queries: Queries,
        target: float,
        *,
        k: int,
        max_prefetch: int,
        max_bytes: float | None = None,
        seed: int,
        progress: bool = False,
    ) -> None:
        check(target, k, max_prefetch, len(documents))
        check_width(queries, documents)
        self.first, self.second = queries.halves(seed)
        self.steps = grid_of_sample(k, max_prefetch, len(documents))
        self._documents = documents
        ids: list[Any] = list(range(len(documents)))
        self._exact, self._exact_second = (
            exact_top(part.tokens, documents, ids, k, progress=progress) for part in (self.first, self.second)
        )
        self._target = target
        self._k = k
        self._max_bytes = max_bytes
        self._seed = seed
        self._given_up: list[Setting] = []
        self._trials: list[Trial] = []

    def scan(self, choice: EncoderChoice, quantizations: Sequence[str | None]) -> Setting:
        """Measures an encoder by brute force in float32, and plans its settings if it can reach the target.

        Returns:
            The result of the encoder without codes and without an index.

        Raises:
            InvalidInput: the encoder cannot be made for these documents.
        """
        try:
            encoder = Remembering(choice.make(self._documents))
        except ValueError as error:
            raise InvalidInput(f"{choice.name} cannot be made for these documents: {error}") from error
        places = self._by_scan(encoder, self.first, self._exact, self.steps[-1])
        least = next((n for n in self.steps if reaches(recalls(places, self._k, n), self._target)), None)
        values = recalls(places, self._k, least or self.steps[-1])
        recall = Interval.of(values, self._seed)
        alone = Setting(
            encoder=choice.name,
            code=choice.code,
            dim=encoder.dim,
            quantization=None,
            bytes_per_document=first_stage_bytes(encoder.dim, None),
            travels=choice.travels,
            scanned=least,
            prefetch=least,
            chosen=recall,
            note="" if least else f"{self._missed(values)}, by brute force",
        )
        for quantization in quantizations:
            size = first_stage_bytes(encoder.dim, quantization)
            setting = replace(alone, quantization=quantization, bytes_per_document=size, prefetch=None, chosen=None)
            if self._max_bytes is not None and size > self._max_bytes:
                self._given_up.append(replace(setting, note=f"larger than {self._max_bytes:,.0f} bytes"))
            elif least is None:
                # through an index, its recall would not be higher
                self._trials.append(Trial(replace(setting, chosen=recall), encoder, self.steps[-1]))
            else:
                self._trials.append(Trial(setting, encoder, least))
        return alone

    def planned(self) -> list[Trial]:
        """Settings that are not measured yet, the preferred ones first."""
        left = [trial for trial in self._trials if trial.setting.chosen is None and not trial.setting.note]
        return sorted(left, key=lambda trial: _preference(trial.setting, trial.least, self._max_bytes))

    def run(self, trial: Trial, *, report: bool = False) -> None:
        """Measures a setting, unless a measured setting is at least as good.

        Args:
            trial: setting to measure.
            report: whether to run the second half of the queries too, if the setting reaches the target.
        """
        setting = trial.setting
        for other in self._trials:
            if other.is_no_worse(setting, trial.least):
                better = other.setting
                note = f"not run: {better.encoder}, {better.quantization}, is no larger and needs no more candidates"
                trial.setting = replace(setting, note=note)
                return
        with self._searched(trial) as recall:
            for n in [n for n in self.steps if n >= trial.least]:
                values = recall(self.first, self._exact, n)
                setting = replace(setting, chosen=Interval.of(values, self._seed), note=self._missed(values))
                if reaches(values, self._target):
                    trial.setting = replace(setting, prefetch=n, note="")
                    if report:
                        self._report(trial, recall)
                    return
        trial.setting = setting

    def report(self, trial: Trial) -> None:
        """Runs the second half of the queries with the setting's number of candidates."""
        if trial.setting.held_out is None:
            with self._searched(trial) as recall:
                self._report(trial, recall)

    def pareto(self) -> list[Trial]:
        """Settings that reach the target and are not dominated by another (see ``Tuning.pareto``), by size."""
        found: list[Trial] = []
        reaching = [trial for trial in self._trials if trial.setting.prefetch is not None]
        for trial in sorted(reaching, key=_by_size):
            assert trial.setting.prefetch is not None
            if not any(other.is_no_worse(trial.setting, trial.setting.prefetch) for other in found):
                found.append(trial)
        return found

    def choose(self) -> Trial | None:
        """Measures settings with both halves, the preferred ones first, until no other setting can be better.

        Returns:
            The best setting by :func:`best_setting`; None: none is small enough.
        """
        for trial in self.planned():
            best = best_setting(self.settings(), self._max_bytes)
            if best is not None and best.prefetch is not None:
                reached = _preference(best, best.prefetch, self._max_bytes)
                if reached <= _preference(trial.setting, trial.least, self._max_bytes):
                    break
            self.run(trial, report=True)
        best = best_setting(self.settings(), self._max_bytes)
        if best is None:
            return None
        chosen = next(trial for trial in self._trials if trial.setting is best)
        self.report(chosen)
        return chosen

    def settings(self) -> list[Setting]:
        """All settings, by size."""
        every = [trial.setting for trial in self._trials] + self._given_up
        return sorted(every, key=lambda s: (s.bytes_per_document, s.encoder))

    def _missed(self, values: Float64) -> str:
        return f"recall {values.mean():.3f} (to rely on: {lower_bound(values):.3f}) at {self.steps[-1]} candidates"

    def _report(self, trial: Trial, recall: _Recall) -> None:
        n = trial.setting.prefetch or self.steps[-1]
        values = recall(self.second, self._exact_second, n)
        trial.setting = replace(trial.setting, held_out=Interval.of(values, self._seed))

    @contextmanager
    def _searched(self, trial: Trial) -> Iterator[_Recall]:
        """A function for the recall of queries with a number of candidates, one value for each query."""
        if trial.setting.quantization is None:
            yield lambda queries, exact, n: recalls(self._by_scan(trial.encoder, queries, exact, n), self._k)
            return
        with local_index(trial.encoder, self._documents, trial.setting.quantization, store_tokens=False) as store:

            def recall(queries: Queries, exact: Sequence[Ranking], n: int) -> Float64:
                # reranking is exact, so every document of the exact top among the candidates is in the result
                search = partial(store.search, limit=n, rerank="none", with_payload=False)
                found, _ = ask(search, queries.tokens, warm_up=False)
                return recalls(positions(found, exact), self._k)

            yield recall

    def _by_scan(self, encoder: Encoder, queries: Queries, exact: Sequence[Ranking], n: int) -> Float64:
        return positions(brute_force(encoder, self._documents, queries.tokens, n), exact)
