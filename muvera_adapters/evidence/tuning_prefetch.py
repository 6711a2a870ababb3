"""``tune_prefetch``: the number of candidates that a live collection needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence.measuring import Float64, Interval, Ranking, ask, positions, recalls
from muvera_adapters.evidence.queries import Queries, as_queries
from muvera_adapters.evidence.target_recall import check, grid, reaches
from muvera_adapters.progress import progress_bar

if TYPE_CHECKING:
    from muvera_adapters.stores.protocol import Store


@dataclass(frozen=True, slots=True)
class PrefetchTuning:
    """Result of :func:`tune_prefetch`.

    Attributes:
        target: target recall.
        k: number of documents of the exact ranking that recall counts.
        prefetch: number of candidates needed; None if even the maximum is not enough.
        chosen: recall with ``prefetch`` candidates (or the maximum) on the half of the queries used for the choice.
        held_out: recall on the other half.
        held: whether ``held_out`` reached the target; None if there is no ``prefetch``.
        tried: recall of the first half by number of candidates.
        verdict: the result in words.
        notes: remarks that are needed to interpret the results.
        seed: seed of the split and the bootstrap.
    """

    target: float
    k: int
    prefetch: int | None
    chosen: Interval
    held_out: Interval
    held: bool | None
    tried: dict[int, Interval]
    verdict: str
    notes: list[str]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def tune_prefetch(
    store: Store,
    queries: Any,
    target: float = 0.95,
    *,
    k: int = 10,
    max_prefetch: int = 1000,
    seed: int = 42,
    progress: bool = False,
) -> PrefetchTuning:
    """Finds the number of candidates that a live collection needs, compared with its ``exact_search``.

    Nothing is written to the collection.

    Args:
        store: store of any database.
        queries: at least 4 queries, better 100, as :class:`Queries` or as token matrices.
        target: target recall of the exact top k after reranking.
        k: number of documents of the exact ranking that recall counts.
        max_prefetch: maximum number of candidates to try.
        seed: seed of the split and the bootstrap.
        progress: whether to show progress bars.

    Raises:
        InvalidInput: a number is out of range, there are too few queries, or no documents have tokens.
        MuveraError: the database reports an error.
    """
    asked, count = as_queries(queries), store.count()
    check(target, k, max_prefetch, count)
    first, second = asked.halves(seed)
    label = "exact search" if progress else None
    truth = []
    for part in (first, second):
        exact = partial(store.exact_search, limit=k, with_payload=False)
        truth.append(ask(exact, part.tokens, warm_up=False, progress=label)[0])
        if not min(map(len, truth[-1])):
            raise InvalidInput(f"exact_search of {store.name} found nothing for a query: are tokens stored?")
    tried: dict[int, Interval] = {}
    prefetch = None
    steps = grid(k, min(max_prefetch, count))
    for n in progress_bar(steps, desc="candidates", disable=not progress):
        values = _two_stage(store, first, truth[0], k, n)
        tried[n] = Interval.of(values, seed)
        if reaches(values, target):
            prefetch = n
            break
    at = prefetch or steps[-1]
    held_out = Interval.of(_two_stage(store, second, truth[1], k, at), seed)
    held = None if prefetch is None else held_out.mean >= target
    if prefetch is None:
        verdict = f"Out of reach: {at:,} candidates give a recall of {tried[at].mean:.3f}; the target is {target:g}."
    elif held:
        verdict = f"prefetch={prefetch} holds: recall {held_out.mean:.3f} on {len(second)} held-out queries."
    else:
        verdict = (
            f"prefetch={prefetch} was chosen, but MISSES the target {target:g} on {len(second)} held-out queries: "
            f"recall {held_out.mean:.3f}. Take more candidates, or measure with more queries."
        )
    return PrefetchTuning(target, k, prefetch, tried[at], held_out, held, tried, verdict, list(asked.notes), seed)


def _two_stage(store: Store, queries: Queries, exact: Sequence[Ranking], k: int, n: int) -> Float64:
    found, _ = ask(partial(store.search, limit=k, prefetch=n, with_payload=False), queries.tokens, warm_up=False)
    return recalls(positions(found, exact), k)
