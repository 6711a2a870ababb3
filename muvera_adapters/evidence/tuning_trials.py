"""The settings that ``tune`` tries, measured with one half of the queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from muvera_adapters.evidence.evaluation import brute_force
from muvera_adapters.evidence.local_index import Remembering, local_index
from muvera_adapters.evidence.measuring import Float64, Interval, Ranking, ask, positions, recalls
from muvera_adapters.evidence.queries import Queries
from muvera_adapters.evidence.target_recall import reaches
from muvera_core import TokenBatch


@dataclass(frozen=True, slots=True)
class Setting:
    """One encoder and quantization.

    Attributes:
        encoder: its name.
        code: a Python expression that makes the encoder.
        dim: of the encoding.
        quantization: preset of the embedded engine; None: brute force over float32, where no index is installed.
        bytes_per_document: in memory in the first stage: codes, and links of the graph.
        prefetch: the candidates needed for the target; None: out of reach.
        chosen: recall of the half of the queries that ``prefetch`` was chosen with.
        held_out: recall of the other half.
        note: why there are no figures, else empty.
    """

    encoder: str
    code: str
    dim: int
    quantization: str | None
    bytes_per_document: float
    prefetch: int | None = None
    chosen: Interval | None = None
    held_out: Interval | None = None
    note: str = ""


@dataclass(slots=True)
class Trial:
    """A setting to measure.

    Attributes:
        setting: with what is known of it.
        encoder: that makes its encodings.
        least: candidates that it needs by brute force; through an index it needs no fewer.
    """

    setting: Setting
    encoder: Remembering
    least: int

    def is_no_worse(self, setting: Setting, candidates: int) -> bool:
        """Whether it needs neither more bytes nor more candidates than ``setting`` with ``candidates``."""
        own = self.setting
        return (
            own.prefetch is not None
            and own.bytes_per_document <= setting.bytes_per_document
            and own.prefetch <= candidates
        )


class Trials:
    """All settings, measured with the queries to choose by.

    Args:
        documents: to search.
        queries: to choose by.
        exact: their exact rankings.
        target: recall wanted.
        k: of the exact top k.
        steps: numbers of candidates, ascending.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        documents: TokenBatch,
        queries: Queries,
        exact: Sequence[Ranking],
        target: float,
        k: int,
        steps: Sequence[int],
        seed: int,
    ) -> None:
        self._documents = documents
        self._queries = queries
        self._exact = exact
        self._target = target
        self._k = k
        self._steps = steps
        self._seed = seed
        self._given_up: list[Setting] = []
        self._trials: list[Trial] = []

    def brute_force(self, encoder: Remembering) -> tuple[int | None, float]:
        """Candidates needed when encodings are compared exactly, None when all allowed do not do; recall with all."""
        found = brute_force(encoder, self._documents, self._queries.tokens, self._steps[-1])
        places = positions(found, self._exact)
        for n in self._steps:
            if reaches(recalls(places, self._k, n), self._target, self._seed):
                return n, float(recalls(places, self._k).mean())
        return None, float(recalls(places, self._k).mean())

    def give_up(self, setting: Setting, note: str) -> None:
        """Leaves it out."""
        self._given_up.append(replace(setting, note=note))

    def plan(self, setting: Setting, encoder: Remembering, least: int) -> None:
        """Puts it on the list of those to measure."""
        self._trials.append(Trial(setting, encoder, least))

    def planned(self) -> list[Trial]:
        """By size: what a small one needs bounds what a larger one is worth."""
        return sorted(self._trials, key=lambda trial: (trial.setting.bytes_per_document, trial.least))

    def run(self, trial: Trial) -> None:
        """Measures it, unless one that was measured is no larger and cannot need more candidates."""
        setting = trial.setting
        for other in self._trials:
            if other.is_no_worse(setting, trial.least):
                better = other.setting
                note = f"not run: {better.encoder}, {better.quantization}, is no larger and needs no more candidates"
                trial.setting = replace(setting, note=note)
                return
        if setting.quantization is None:
            found = brute_force(trial.encoder, self._documents, self._queries.tokens, self._steps[-1])
            places = positions(found, self._exact)
            chosen = Interval.of(recalls(places, self._k, trial.least), self._seed)
            trial.setting = replace(setting, prefetch=trial.least, chosen=chosen)
            return
        best: Float64 | None = None
        with local_index(trial.encoder, self._documents, setting.quantization, store_tokens=False) as store:
            for n in [n for n in self._steps if n >= trial.least]:
                best = self._recall(store, self._queries, self._exact, n)
                if reaches(best, self._target, self._seed):
                    trial.setting = replace(setting, prefetch=n, chosen=Interval.of(best, self._seed))
                    return
        assert best is not None
        trial.setting = replace(setting, note=f"recall {best.mean():.3f} at {self._steps[-1]} candidates")

    def recall_of(self, trial: Trial, queries: Queries, exact: Sequence[Ranking]) -> Interval:
        """Of other queries, at the setting's number of candidates."""
        setting = trial.setting
        assert setting.prefetch is not None
        if setting.quantization is None:
            found = brute_force(trial.encoder, self._documents, queries.tokens, setting.prefetch)
            return Interval.of(recalls(positions(found, exact), self._k), self._seed)
        with local_index(trial.encoder, self._documents, setting.quantization, store_tokens=False) as store:
            return Interval.of(self._recall(store, queries, exact, setting.prefetch), self._seed)

    def pareto(self) -> list[Trial]:
        """Those that reach the target and have no other that is no larger and needs no more candidates; by size."""
        found: list[Trial] = []
        reaching = [trial for trial in self._trials if trial.setting.prefetch is not None]
        for trial in sorted(reaching, key=lambda t: (t.setting.bytes_per_document, t.setting.prefetch or 0)):
            assert trial.setting.prefetch is not None
            if not any(other.is_no_worse(trial.setting, trial.setting.prefetch) for other in found):
                found.append(trial)
        return found

    def settings(self) -> list[Setting]:
        """All, by size."""
        every = [trial.setting for trial in self._trials] + self._given_up
        return sorted(every, key=lambda s: (s.bytes_per_document, s.encoder))

    def _recall(self, store: Any, queries: Queries, exact: Sequence[Ranking], n: int) -> Float64:
        # reranking is exact, so what is among the candidates is in the result
        found, _ = ask(partial(store.search, limit=n, rerank="none", with_payload=False), queries.tokens, warm_up=False)
        return recalls(positions(found, exact), self._k)
