"""Fits of query FDEs to the documents of a collection; documents are read, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput, NoGain, Unsupported
from muvera_adapters.progress import progress_bar
from muvera_adapters.stores.backfilling import Stored
from muvera_adapters.stores.checks import need_fde, normalised, without_zero_rows
from muvera_adapters.stores.collection import Described
from muvera_adapters.stores.operations import Compute, Operation
from muvera_adapters.stores.searching import SearchOptions, check_queries
from muvera_core import FitReport, QueryFit, maxsim

Float32 = npt.NDArray[np.float32]

#: numbers of candidates for which recall is measured
CANDIDATES = (20, 100, 200)

# below these, the held-out halves are too small to tell a gain from chance
_LEAST_DOCUMENTS, _LEAST_QUERIES = 100, 20
_READ = 32
# smallest and largest number of tokens of a query that is made from a document
_FEW, _MANY = 4, 32
_TOP = 10


@dataclass(frozen=True, slots=True)
class FitAccess:
    """The database-specific reads that a fit needs.

    Attributes:
        collection: the collection that is read.
        check: check of a token matrix; it raises InvalidInput for one that cannot be encoded, and is told whose it is.
        keys: reads the next page of keys of documents, which may have no tokens or no FDE. It takes the cursor of the
            page (None for the first) and returns that of the next one (None: this is the last).
        read: reads documents by key, without those that have no tokens, with their FDEs as far as they have one.
        cosine: whether FDEs are compared by cosine.
    """

    collection: Described
    check: Callable[[npt.NDArray[Any], str], None]
    keys: Callable[[Any], Operation[tuple[list[Any], Any]]]
    read: Callable[[list[Any]], Operation[list[Stored]]]
    cosine: bool


async def fit_queries(
    access: FitAccess,
    queries: Sequence[Any] | None,
    documents: int,
    rank: int,
    seed: int,
    progress: bool,
) -> QueryFit:
    """Fits to half of the documents read, and measures the gain on the other half.

    Args:
        access: reads of the database.
        queries: queries, each (m_i, token_dim). A random half is used for the fit, and the other half to judge it.
            None: queries are made from tokens of documents.
        documents: maximum number of documents to read, drawn at random.
        rank: rank of the correction.
        seed: seed of all random choices.
        progress: whether to show a progress bar.

    Raises:
        Unsupported: no tokens are stored, or the encoder cannot be corrected.
        InvalidInput: there are too few documents or queries, there are no FDEs yet, or queries cannot be encoded.
        NoGain: recall on held-out documents and queries is not higher with the correction.
    """
    collection = access.collection
    if collection.tokens is None:
        raise Unsupported(f"{collection.name} stores no tokens: there is nothing to fit queries to")
    need_fde(collection)
    if documents < _LEAST_DOCUMENTS or rank < 1 or seed < 0:
        raise InvalidInput(
            f"documents must be at least {_LEAST_DOCUMENTS}, rank at least 1 and seed at least 0, got {documents}, "
            f"{rank} and {seed}"
        )
    given = None
    if queries is not None:
        checked = check_queries(collection, list(queries), SearchOptions(), access.check)
        given = [query.tokens for query in checked]
    if given is not None and len(given) < _LEAST_QUERIES:
        raise InvalidInput(
            f"{len(given)} queries are too few, as one half is for the fit and the other to judge it: give at least "
            f"{_LEAST_QUERIES}, or none to make queries from tokens of documents"
        )
    stored = await _sample(access, documents, seed, progress)
    if len(stored) < _LEAST_DOCUMENTS:
        raise InvalidInput(
            f"{collection.name} has only {len(stored)} documents with tokens and FDEs; a fit needs at least "
            f"{_LEAST_DOCUMENTS}"
        )
    return await Compute(partial(_fit_and_judge, access, stored, given, rank, seed))


async def _sample(access: FitAccess, count: int, seed: int, progress: bool) -> list[Stored]:
    """Reads random documents that have tokens and FDEs; keys are read for all documents, tokens only for the sample."""
    draws, seen, cursor = np.random.default_rng([seed, 1]), 0, None
    chosen: list[Any] = []
    while True:
        keys, cursor = await access.keys(cursor)
        for key in keys:
            seen += 1
            if len(chosen) < count:
                chosen.append(key)
            elif (place := int(draws.integers(seen))) < count:
                chosen[place] = key
        if cursor is None:
            break
    found: list[Stored] = []
    with progress_bar(total=len(chosen), unit="doc", desc="reading", disable=not progress) as bar:
        for i in range(0, len(chosen), _READ):
            some = chosen[i : i + _READ]
            found += [document for document in await access.read(some) if _usable(access, document)]
            bar.update(len(some))
    return found


def _usable(access: FitAccess, document: Stored) -> bool:
    present = without_zero_rows(document.tokens)
    if document.fde is None or not document.fde.any() or not len(present):
        return False
    try:
        access.check(present, f"document {document.id!r}")
    except InvalidInput:
        return False
    return True


def _fit_and_judge(
    access: FitAccess, stored: Sequence[Stored], given: Sequence[Float32] | None, rank: int, seed: int
) -> QueryFit:
    encoder, draws = access.collection.encoder, np.random.default_rng([seed, 2])
    tokens = [without_zero_rows(document.tokens).astype(np.float32) for document in stored]
    if access.collection.cosine:
        tokens = [normalised(matrix) for matrix in tokens]
    vectors = np.stack([document.fde for document in stored if document.fde is not None]).astype(np.float32)
    if access.cosine:
        vectors = normalised(vectors)
    order = draws.permutation(len(stored))
    half = len(stored) // 2
    fitted, judged = order[:half], order[half:]
    if given is None:
        asked, judged = judged[: len(stored) // 10], judged[len(stored) // 10 :]
        seen, unseen = [], [_query_of(tokens[i], draws) for i in asked]
    else:
        mixed = [given[i] for i in draws.permutation(len(given))]
        seen, unseen = mixed[: len(given) // 2], mixed[len(given) // 2 :]
    try:
        fit = QueryFit.fit(encoder, [tokens[i] for i in fitted], vectors[fitted], seen or None, rank=rank, seed=seed)
    except ValueError as problem:
        raise Unsupported(f"{access.collection.name}: {problem}") from problem
    exact = np.stack([maxsim(query, [tokens[i] for i in judged]) for query in unseen])
    plain = _recalls(exact, encoder.encode_queries(unseen) @ vectors[judged].T)
    corrected = _recalls(exact, fit.encode_queries(encoder, unseen) @ vectors[judged].T)
    difference = corrected - plain
    mean, error = difference.mean(axis=0), 1.96 * difference.std(axis=0, ddof=1) / np.sqrt(len(unseen))
    report = FitReport(
        fitted_documents=len(fitted),
        judged_documents=len(judged),
        fitted_queries=len(seen),
        judged_queries=len(unseen),
        origin="documents" if given is None else "given",
        candidates=_counts(len(judged)),
        plain=tuple(map(float, plain.mean(axis=0))),
        corrected=tuple(map(float, corrected.mean(axis=0))),
        low=tuple(map(float, mean - error)),
        high=tuple(map(float, mean + error)),
    )
    if not report.gained:
        raise NoGain(
            f"{access.collection.name}: the corrected queries do not find more than the plain ones: {report}. If the "
            "intervals are wide, fit to more queries and documents",
            report,
        )
    return fit.with_report(report)


def _query_of(tokens: Float32, draws: np.random.Generator) -> Float32:
    """A query from some tokens of a document that is not ranked."""
    return tokens[draws.permutation(len(tokens))[: int(draws.integers(_FEW, _MANY + 1))]]


def _counts(documents: int) -> tuple[int, ...]:
    """Numbers of candidates that are smaller than the number of documents."""
    return tuple(count for count in CANDIDATES if count < documents)


def _recalls(exact: Float32, estimated: Float32) -> npt.NDArray[np.float64]:
    """(queries, counts) share of the exact top 10 among the first candidates; both arguments are (queries, n)."""
    best = np.argsort(-exact, axis=1, kind="stable")[:, :_TOP]
    places = np.argsort(np.argsort(-estimated, axis=1, kind="stable"), axis=1)
    found = np.take_along_axis(places, best, axis=1)
    return np.stack([(found < count).mean(axis=1) for count in _counts(exact.shape[1])], axis=1)
