"""Searches, shared by all stores: options and their checks, exact scores of stored tokens, and the list of hits."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import EncoderMismatch, InvalidInput, MissingFDEs, MuveraError, Unsupported, WrongUsage
from muvera_adapters.logs import LOG, short
from muvera_adapters.results import Hits, Timings
from muvera_adapters.stores import query_scaling
from muvera_adapters.stores.checks import check_weights, need_fde, need_tokens, normalised, query_matrix
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.fusion import RRF, fused
from muvera_adapters.stores.operations import Operation, Request, Together, asked, seconds
from muvera_adapters.stores.query_scaling import Query, QueryFDE
from muvera_adapters.stores.timing import Counting, Stage
from muvera_core import InvalidTokens, QueryFit, maxsim
from muvera_core.tokens import ArrayLike


class Scored(Protocol):
    """An object with a score."""

    @property
    def score(self) -> float: ...  # noqa: D102


S = TypeVar("S", bound=Scored)
K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

#: method to fuse lists of candidates
Fusion: TypeAlias = Literal["rrf"] | RRF


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Arguments of a search, as documented by the stores; subclasses add those of a database.

    Attributes:
        limit: maximum number of hits to return.
        prefetch: number of candidates of the first stage.
        rerank: where candidates are scored.
        filter: filter in the types of the database's client.
        offset: number of hits to skip.
        score_threshold: lowest score of a hit.
        payload: payload keys to return with hits: True, False, or a selection.
        tokens: whether to return token matrices with hits.
        query_fit: correction of query FDEs; None: no correction.
        also: further searches of the first stage: for each query a sequence in the types of the database's client, or
            None.
        fusion: fusion of the ranks of several lists; None: ranking by MaxSim alone.
        weights: weights of the tokens of each query, or None.
        group_by: payload key whose values form groups.
        group_size: maximum number of hits of a group.
        stop_after: number of consecutive candidates without a change of the best hits, after which scoring stops.
        all_candidates: whether the first stage finds exactly ``prefetch`` candidates even if ``limit`` is larger.
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
    also: Sequence[Sequence[Any] | None] | None = None
    fusion: Fusion | None = None
    weights: Sequence[ArrayLike | None] | None = None
    group_by: str | None = None
    group_size: int = 1
    stop_after: int | None = None
    all_candidates: bool = False

    @property
    def rrf(self) -> RRF | None:
        """The fusion with its parameters; None: ranking by MaxSim alone."""
        return RRF() if isinstance(self.fusion, str) else self.fusion

    @property
    def has_also(self) -> bool:
        """Whether any query has further searches."""
        return self.also is not None and any(searches is not None and len(searches) > 0 for searches in self.also)

    @property
    def has_weights(self) -> bool:
        """Whether any query has weights."""
        return self.weights is not None and any(weights is not None for weights in self.weights)

    @property
    def wanted(self) -> int:
        """Number of hits to rank, including those that the offset skips."""
        return self.offset + self.limit

    @property
    def candidates(self) -> int:
        """Number of candidates of the first stage, at least as many as hits to rank."""
        return self.prefetch if self.all_candidates else max(self.prefetch, self.wanted)


def check_options(collection: Described, options: SearchOptions, most: int | None = None, because: str = "") -> None:
    """Checks numbers and the query fit; ``most`` is the database's limit and ``because`` its name.

    Raises:
        InvalidInput: a number is out of range, or tokens are requested but not stored.
        EncoderMismatch: the query fit corrects another encoder.
    """
    if options.tokens:
        need_tokens(collection)
    if options.query_fit is not None:
        _check_fit(collection, options)
    for name in ("limit", "prefetch", "offset", "group_size", "stop_after"):
        number = getattr(options, name)
        if number is None and name == "stop_after":
            continue
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise InvalidInput(f"{name} must be an integer, got {number!r}")
    if options.limit < 1 or options.prefetch < 1 or options.offset < 0:
        raise InvalidInput(
            "limit and prefetch must be at least 1 and offset at least 0, "
            f"got {options.limit}, {options.prefetch} and {options.offset}"
        )
    if options.group_size < 1 or (options.stop_after is not None and options.stop_after < 1):
        raise InvalidInput(
            f"group_size and stop_after must be at least 1, got {options.group_size} and {options.stop_after}"
        )
    if not (options.fusion is None or isinstance(options.fusion, RRF) or str(options.fusion) == "rrf"):
        raise InvalidInput(f"fusion must be 'rrf' or an RRF, got {options.fusion!r}")
    if options.payload is None or isinstance(options.payload, str):
        raise InvalidInput(f"with_payload must be True, False or a list of names, got {options.payload!r}")
    if options.group_by is not None and options.stop_after is not None:
        raise InvalidInput("group_by ranks all candidates: leave stop_after out")
    for name in ("also", "weights"):
        given = getattr(options, name)
        if given is not None and not (isinstance(given, list | tuple) or hasattr(given, "shape")):
            raise InvalidInput(f"{name} must be a list with one entry for each query, got a {type(given).__name__}")
    if most is not None and options.candidates > most:
        raise InvalidInput(f"prefetch, and offset + limit, are at most {most}{because}, got {options.candidates}")


def _check_fit(collection: Described, options: SearchOptions) -> None:
    fit = options.query_fit
    if not isinstance(fit, QueryFit):
        raise InvalidInput(
            f"query_fit must be a QueryFit, got a {type(fit).__name__}: pass the result of fit_queries() or "
            "QueryFit.load()"
        )
    if fit.encoder_fingerprint != collection.encoder.fingerprint:
        raise EncoderMismatch(
            f"the query fit corrects queries of encoder {fit.encoder_fingerprint}, but {collection.name} has encoder "
            f"{collection.encoder.fingerprint}: make another with fit_queries()"
        )
    if options.rerank == "native_muvera":
        raise InvalidInput("rerank='native_muvera' does not use the FDEs of this library: leave query_fit out")


def check_rerank(collection: Described, rerank: str, modes: Sequence[str]) -> None:
    """Raises InvalidInput for a mode that is not one of ``modes``, or that needs tokens if none are stored."""
    if rerank not in modes:
        known = ", ".join(repr(mode) for mode in modes[:-1])
        raise WrongUsage(f"rerank must be {known} or {modes[-1]!r}, got {rerank!r}")
    if rerank not in ("auto", "none"):
        need_tokens(collection, ": use rerank='none'")


def needs_client(collection: Described, options: SearchOptions) -> bool:
    """Whether an option needs scores of this process, so that ``rerank="auto"`` must mean ``"client"``."""
    return options.stop_after is not None or (options.has_weights and collection.cosine)


def limit_of(search: Any, candidates: int) -> int:
    """Maximum number of candidates of a further search: its own limit, or ``candidates`` if it has none."""
    limit = getattr(search, "limit", None)
    return candidates if limit is None else int(limit)


def most_candidates(options: SearchOptions, depth: int) -> int:
    """Maximum number of candidates of all searches of a query, if the search over FDEs finds ``depth``."""
    each = () if options.also is None else options.also
    return depth + max((sum(limit_of(search, depth) for search in searches or ()) for searches in each), default=0)


def check_also(options: SearchOptions, check: Callable[[Any, str], None] | None = None) -> int:
    """Checks further searches, and returns the maximum number of candidates of a query.

    Args:
        options: options of the search.
        check: raises InvalidInput for an invalid further search; its second argument names the search for messages.
            None: the client checks searches.

    Raises:
        InvalidInput: ``also`` is not a list, an entry is not valid, or the weights of ``fusion`` do not fit.
    """
    each = () if options.also is None else options.also
    weights = None if options.rrf is None else options.rrf.weights
    for i, searches in enumerate(each):
        what = f"query {i}: " if len(each) > 1 else ""
        if searches is not None and not isinstance(searches, list | tuple):
            raise InvalidInput(f"{what}also must be a list of searches, got a {type(searches).__name__}")
        if searches and weights is not None and len(weights) != 1 + len(searches):
            raise InvalidInput(
                f"{what}fusion has {len(weights)} weights for {1 + len(searches)} lists: FDEs, and each entry of also"
            )
        for k, search in enumerate(searches or ()):
            if check is not None:
                check(search, f"{what}also[{k}]")
            limit = limit_of(search, options.candidates)
            if limit < 1:
                raise InvalidInput(f"{what}also[{k}]: its limit must be at least 1, got {limit}")
    return most_candidates(options, options.candidates)


def check_mode(collection: Described, options: SearchOptions, mode: str) -> None:
    """Checks that the options are possible with a mode of reranking other than ``"auto"``.

    Raises:
        InvalidInput: an option has no effect, or no meaning, in this mode.
        Unsupported: the database cannot weight tokens in this mode.
    """
    if mode == "native_muvera" and (options.has_also or options.fusion is not None):
        raise InvalidInput("rerank='native_muvera' makes its own candidates: leave also and fusion out")
    if options.fusion is not None and not options.has_also:
        raise InvalidInput("fusion joins the ranks of FDEs with those of other searches: pass these as also")
    if options.has_also and mode == "none" and options.fusion is None:
        raise InvalidInput(
            "scores of the searches in also have other scales than those of FDEs: pass fusion='rrf', or use reranking"
        )
    if options.stop_after is not None and mode != "client":
        raise InvalidInput(f"stop_after needs rerank='client', as {mode!r} does not score candidates one after another")
    if options.has_weights and collection.cosine and mode != "client" and mode != "none":
        raise Unsupported(
            f"{collection.name} compares tokens by cosine, which removes weights: use rerank='client' with weights"
        )


def check_queries(
    collection: Described,
    queries: Sequence[Any],
    options: SearchOptions,
    check: Callable[[npt.NDArray[Any], str], None],
) -> list[Query]:
    """Checks queries, and returns each with its weights and further searches; tokens with weight 0 are left out.

    Raises:
        InvalidInput: a query cannot be encoded, its weights do not fit, or ``also`` is not a list; if there are several
            queries, the message names the position.
    """
    for name in ("also", "weights"):
        given = getattr(options, name)
        if given is not None and len(given) != len(queries):
            raise InvalidInput(f"{name} has {len(given)} entries for {len(queries)} queries: pass one for each")
    checked = []
    for i, tokens in enumerate(queries):
        what = f"query {i}" if len(queries) > 1 else "query"
        matrix = query_matrix(collection, tokens, check, what)
        searches = options.also[i] if options.also is not None else None
        given = options.weights[i] if options.weights is not None else None
        if given is None:
            checked.append(Query(matrix, also=tuple(searches or ())))
        else:
            weights = check_weights(given, len(matrix), what)
            kept = weights > 0
            checked.append(Query(matrix[kept], weights[kept].astype(np.float32), tuple(searches or ())))
    return checked


async def search_each(
    collection: Described,
    queries: Sequence[Query],
    one: Callable[[Query, QueryFDE, Timings], Operation[Hits]],
    at_once: int,
    read: Callable[[int], Operation[Sequence[npt.NDArray[np.float32]]]],
    *,
    cosine: bool = False,
    fit: QueryFit | None = None,
) -> list[Hits]:
    """Searches for every query separately, for databases without a request for several queries.

    Args:
        collection: the collection to search.
        queries: the queries.
        one: searches for one query, given its FDE, and sets the timings except ``encode`` and ``requests``.
        at_once: maximum number of concurrent searches.
        read: reads at most the given number of stored (dim,) FDEs, of any documents.
        cosine: whether FDEs are compared by cosine.
        fit: correction of the encoder's query FDEs.

    Raises:
        InvalidInput: there are no FDEs yet, or ``at_once`` is below 1.
    """
    need_fde(collection)
    check_at_once(at_once)
    if not queries:
        return []
    started = seconds()
    fdes = await query_scaling.encode(collection, queries, read, cosine=cosine, fit=fit)
    taken = seconds() - started
    return await timed_each([partial(one, q, fde) for q, fde in zip(queries, fdes, strict=True)], at_once, taken)


async def timed_each(
    searches: Sequence[Callable[[Timings], Operation[Hits]]], at_once: int, encode: float = 0.0
) -> list[Hits]:
    """Runs searches, each of which sets the stages of its timings; ``encode`` is the time that encoding took."""
    each: list[Operation[Hits]] = []
    for search in searches:
        timings = Timings(encode=encode)
        each.append(Counting(search(timings), timings))
    return await Together(each, at_once) if each else []


async def first_lists(
    timings: Timings, nearest: Request[list[R]], further: Sequence[Request[list[R]]]
) -> list[list[R]]:
    """Rows of the search over FDEs and of further searches, which run concurrently."""
    with Stage(timings, "first_stage"):
        if not further:
            return [await nearest]
        searches = [nearest, *further]
        return await Together([asked(search) for search in searches], len(searches))


async def with_missing(
    collection: Described, search: Operation[list[Hits]], count: Operation[int], *, wanted: bool, at_once: int = 2
) -> list[Hits]:
    """Hits of a search, with the number of documents without an FDE (``Hits.without_fde``).

    The count runs in parallel to the search, and is repeated only after 30 seconds. The warning :class:`MissingFDEs` is
    given once.

    Args:
        collection: the collection to search; its ``seen`` caches the number until an operation writes.
        search: the search.
        count: counts documents without an FDE.
        wanted: whether to count (``count_missing``).
        at_once: 1: the database counts after the search and not in parallel.
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
                count.close()  # the search failed before the count began
            raise
    if wanted:
        for hits in found:
            hits.without_fde = seen.without_fde.value
        _warn(collection)
    return found


async def missing_fdes(collection: Described, count: Operation[int]) -> int | None:
    """Number of documents without an FDE, cached in ``seen``; None if the database cannot count them."""
    try:
        missing: int | None = await count
    except MuveraError as error:  # a search must not fail because of the count
        LOG.info("documents of %s without an FDE could not be counted: %s", collection.name, short(error))
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
    """The hits whose score reaches the threshold, in the given order."""
    if options.score_threshold is None:
        return list(scored)
    return [one for one in scored if one.score >= options.score_threshold]


def final_ranking(reranked: Sequence[S], unscored: Sequence[S], options: SearchOptions) -> list[S]:
    """Reranked candidates in the given order, followed by candidates without tokens as far as ``limit`` allows."""
    best = above_threshold(reranked, options)[: options.wanted]
    # scores of candidates without tokens have another scale, so no threshold can be compared with them
    room = [] if options.score_threshold is not None else list(unscored)
    return [*best, *room][options.offset : options.wanted]


def fused_page(lists: Sequence[Sequence[K]], options: SearchOptions) -> list[tuple[K, float]]:
    """Keys and scores of the hits to return, by fused ranks of the lists."""
    assert options.rrf is not None
    ranking = fused(lists, options.rrf)
    if options.score_threshold is not None:
        ranking = [(key, score) for key, score in ranking if score >= options.score_threshold]
    return ranking[options.offset : options.wanted]


async def score_in_slices(
    candidates: Sequence[K],
    score: Callable[[Sequence[K]], Operation[dict[K, float]]],
    wanted: int,
    stop_after: int | None,
) -> dict[K, float]:
    """Scores candidates, which are given in the order of the first stage.

    With ``stop_after``, they are scored in slices of this size (the first has at least ``wanted``), until no candidate
    of a slice is among the best ``wanted``.
    """
    if stop_after is None:
        return await score(candidates)
    scores: dict[K, float] = {}
    position, size = 0, max(stop_after, wanted)
    while position < len(candidates):
        some = await score(candidates[position : position + size])
        best = sorted(scores.values(), reverse=True)[:wanted]
        scores.update(some)
        if len(best) == wanted and max(some.values(), default=-np.inf) <= best[-1]:
            break
        position, size = position + size, stop_after
    return scores


def maxsim_of_stored(
    query: npt.NDArray[np.float32], matrices: Sequence[npt.NDArray[Any]], *, cosine: bool = False
) -> npt.NDArray[np.float32]:
    """(n,) MaxSim scores of a query (m, dim) with stored matrices (n_i, dim), normalised first under ``cosine``.

    Tokens that other programs stored may be all zeros (padding); they are scored like all others, as databases do. A
    document with NaN or infinite values has the score -inf.
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
