"""Searches that all stores share: options, their checks, exact scores of stored tokens, and the final list of hits."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import EncoderMismatch, InvalidInput, MissingFDEs, MuveraError, WrongUsage
from muvera_adapters.logs import LOG, short
from muvera_adapters.results import Hits
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import need_fde, need_tokens, normalised, query_matrix
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.operations import Operation, Together
from muvera_adapters.stores.query_scaling import QueryFDE
from muvera_core import InvalidTokens, QueryFit, maxsim


class Scored(Protocol):
    """Something with a score."""

    @property
    def score(self) -> float: ...  # noqa: D102


S = TypeVar("S", bound=Scored)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Arguments of a search, which the stores document; a database's own ones are added by a subclass.

    Attributes:
        limit: maximum number of hits to return.
        prefetch: candidates of the first stage.
        rerank: how candidates are scored.
        filter: filter of the database's own type.
        offset: hits to skip.
        score_threshold: lowest score of a hit.
        payload: which payload keys hits show: True, False, or a selection.
        tokens: hits show their token matrices.
        query_fit: correction of query FDEs, None for the plain ones.
    """

    limit: int = 10
    prefetch: int = 200
    rerank: str = "auto"
    filter: Any = None
    offset: int = 0
    score_threshold: float | None = None
    payload: Any = True
    tokens: bool = False
    query_fit: QueryFit | None = None

    @property
    def wanted(self) -> int:
        """Hits to rank, those that the offset skips included."""
        return self.offset + self.limit

    @property
    def candidates(self) -> int:
        """Candidates of the first stage, which must bring what is skipped too."""
        return max(self.prefetch, self.wanted)


def check_options(collection: Described, options: SearchOptions, most: int | None = None, because: str = "") -> None:
    """Checks numbers and the query fit; ``most`` is the database's limit and ``because`` its name.

    Raises:
        InvalidInput: a number is out of range, or tokens are wanted and not stored.
        EncoderMismatch: the query fit corrects another encoder.
    """
    if options.tokens:
        need_tokens(collection)
    if options.query_fit is not None:
        _check_fit(collection, options)
    for name in ("limit", "prefetch", "offset"):
        number = getattr(options, name)
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise InvalidInput(f"{name} must be an integer, got {number!r}")
    if options.limit < 1 or options.prefetch < 1 or options.offset < 0:
        raise InvalidInput(
            "limit and prefetch must be at least 1 and offset at least 0, "
            f"got {options.limit}, {options.prefetch} and {options.offset}"
        )
    if most is not None and options.candidates > most:
        raise InvalidInput(f"prefetch, and offset + limit, are at most {most}{because}, got {options.candidates}")


def _check_fit(collection: Described, options: SearchOptions) -> None:
    fit = options.query_fit
    if not isinstance(fit, QueryFit):
        raise InvalidInput(
            f"query_fit must be a QueryFit, got a {type(fit).__name__}: pass what fit_queries() or QueryFit.load() "
            "gives"
        )
    if fit.encoder_fingerprint != collection.encoder.fingerprint:
        raise EncoderMismatch(
            f"the query fit corrects queries of encoder {fit.encoder_fingerprint}, but {collection.name} has encoder "
            f"{collection.encoder.fingerprint}: make another with fit_queries()"
        )
    if options.rerank == "native_muvera":
        raise InvalidInput("rerank='native_muvera' does not use the FDEs of this library: leave query_fit out")


def check_rerank(collection: Described, rerank: str, modes: Sequence[str]) -> None:
    """Raises InvalidInput for a mode that is not one of ``modes``, or that needs tokens where none are stored."""
    if rerank not in modes:
        known = ", ".join(repr(mode) for mode in modes[:-1])
        raise WrongUsage(f"rerank must be {known} or {modes[-1]!r}, got {rerank!r}")
    if rerank not in ("auto", "none"):
        need_tokens(collection, ": use rerank='none'")


def query_matrices(
    collection: Described, queries: Sequence[Any], check: Callable[[npt.NDArray[Any], str], None]
) -> list[npt.NDArray[np.float32]]:
    """A checked (m_i, token_dim) matrix of each query.

    Raises:
        InvalidInput: a query cannot be encoded; the message names its position where there are several.
    """
    many = len(queries) > 1
    return [query_matrix(collection, q, check, f"query {i}" if many else "query") for i, q in enumerate(queries)]


async def search_each(
    collection: Described,
    matrices: Sequence[npt.NDArray[np.float32]],
    one: Callable[[npt.NDArray[np.float32], QueryFDE], Operation[Hits]],
    at_once: int,
    read: Callable[[int], Operation[Sequence[npt.NDArray[np.float32]]]],
    *,
    cosine: bool = False,
    fit: QueryFit | None = None,
) -> list[Hits]:
    """Hits of every query, in a database without a request for several.

    Args:
        collection: the collection to search.
        matrices: (m_i, token_dim) matrices of the queries.
        one: searches for a query, given its matrix and its FDE.
        at_once: maximum number of searches in progress at a time.
        read: gives at most so many stored FDEs (dim,), any of them.
        cosine: whether FDEs are compared by cosine.
        fit: correction of the encoder's query FDEs.

    Raises:
        InvalidInput: there are no FDEs yet, or ``at_once`` is below 1.
    """
    need_fde(collection)
    check_at_once(at_once)
    if not matrices:
        return []
    fdes = await query_scaling.encode(collection, matrices, read, cosine=cosine, fit=fit)
    return await Together([one(q, fde) for q, fde in zip(matrices, fdes, strict=True)], at_once)


async def with_missing(
    collection: Described, search: Operation[list[Hits]], count: Operation[int], *, wanted: bool, at_once: int = 2
) -> list[Hits]:
    """Hits of a search, with the number of documents that no search finds (``Hits.without_fde``).

    The number is counted beside the search, and again only after 30 seconds. :class:`MissingFDEs` is warned of once.

    Args:
        collection: the collection to search; ``seen`` keeps the number, which operations that write make it forget.
        search: the search.
        count: counts documents without an FDE.
        wanted: whether the number is wanted (``count_missing``); if not, nothing is counted.
        at_once: 1 for a database that counts after the search.
    """
    seen = collection.seen
    if not wanted or seen.without_fde.is_fresh:
        count.close()
        found = await search
    else:
        both: list[Operation[Any]] = [search, missing_fdes(collection, count)]
        try:
            found, _ = await Together(both, at_once)
        except BaseException:
            if inspect.getcoroutinestate(cast(Any, count)) == inspect.CORO_CREATED:
                count.close()  # the search failed before it was its turn
            raise
    if wanted:
        for hits in found:
            hits.without_fde = seen.without_fde.value
        _warn(collection)
    return found


async def missing_fdes(collection: Described, count: Operation[int]) -> int | None:
    """Number of documents without an FDE, which is kept in ``seen``; None where the database does not tell it."""
    try:
        missing: int | None = await count
    except MuveraError as error:  # a search must not fail because of it
        LOG.info("documents of %s without an FDE are not counted: %s", collection.name, short(error))
        missing = None
    collection.seen.without_fde.keep(missing)
    return missing


def _warn(collection: Described) -> None:
    missing = collection.seen.without_fde.value
    if missing and not collection.seen.warned:
        collection.seen.warned = True
        warnings.warn(
            f"{missing:,} documents of {collection.name} have no FDE, so that no search finds them: run backfill()",
            MissingFDEs,
            stacklevel=2,
        )


def check_at_once(at_once: int) -> None:
    """Raises InvalidInput for a number of simultaneous searches below 1."""
    if at_once < 1:
        raise InvalidInput(f"at_once must be at least 1, got {at_once}")


def above_threshold(scored: Sequence[S], options: SearchOptions) -> list[S]:
    """Those whose score reaches the threshold, in the order given."""
    if options.score_threshold is None:
        return list(scored)
    return [one for one in scored if one.score >= options.score_threshold]


def final_ranking(reranked: Sequence[S], unscored: Sequence[S], options: SearchOptions) -> list[S]:
    """Reranked candidates, best first as given, and then candidates without tokens while there is room."""
    best = above_threshold(reranked, options)[: options.wanted]
    # scores of candidates without tokens are on another scale, so a threshold cannot admit them
    room = [] if options.score_threshold is not None else list(unscored)
    return [*best, *room][options.offset : options.wanted]


def maxsim_of_stored(
    query: npt.NDArray[np.float32], matrices: Sequence[npt.NDArray[Any]], *, cosine: bool = False
) -> npt.NDArray[np.float32]:
    """(n,) MaxSim scores of a query (m, dim) with stored matrices (n_i, dim), normalised first under ``cosine``.

    Tokens that others stored may be all zeros (padding), which databases score as they are. A document with NaN or
    infinite values has the score -inf.
    """
    if not len(matrices):
        return np.empty(0, np.float32)
    if cosine:
        matrices = [normalised(m) if np.isfinite(m).all() else m for m in matrices]
    try:
        return maxsim(query, matrices)
    except InvalidTokens:
        scores = [(query @ m.T).max(axis=1).sum() if np.isfinite(m).all() else -np.inf for m in matrices]
        return np.array(scores, np.float32)
