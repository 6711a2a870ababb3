"""What stores give back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from muvera_adapters.stores.token_model import TokenModel

#: what users have: strings, integers, UUIDs
DocumentId: TypeAlias = int | str | uuid.UUID


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found.

    Attributes:
        id: id as it was given to ``upsert``.
        score: MaxSim where the search reranked this document, else the encoder's estimate; under ``fusion``, the fused
            score of its ranks.
        fde_score: the encoder's estimate, where the store knows it, else None.
        payload: payload of the document, None where it was not asked for.
        tokens: (n, token_dim) float32 as stored, None where they were not asked for or are not stored.
        reranked: whether ``score`` is MaxSim.
        found_by: names of the searches that found the document: ``"fde"``, and for each entry of ``also`` the vector or
            property that it searches (``also[i]`` where that is not known, or two entries search the same). Empty
            where no list of candidates was made (``exact_search``).
        query_weight: sum of the weights of the query's tokens; None where ``score`` is not a sum over tokens.
    """

    id: DocumentId
    score: float
    fde_score: float | None = None
    payload: Mapping[str, Any] | None = None
    tokens: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    reranked: bool = False
    found_by: tuple[str, ...] = ()
    query_weight: float | None = field(default=None, repr=False)

    @property
    def mean_score(self) -> float | None:
        """``score`` divided by the sum of the weights of the query's tokens, so that queries of any length compare.

        A reranked document's is the mean similarity of a query token, from -1 to 1 where tokens have unit length. None
        for fused scores.
        """
        return None if self.query_weight is None else self.score / self.query_weight


@dataclass(slots=True)
class Timings:
    """Where the time of a search went; times are in seconds.

    Attributes:
        encode: time to encode the queries of the call (all those of a batch).
        first_stage: time to find candidates. None: one request does both stages, see ``second_stage``.
        second_stage: time to score candidates by MaxSim. None: nothing was reranked.
        payload: time to fetch what hits show. None: it came with another request.
        candidates: number of different candidates of the first stage. None: the database did both stages and does not
            tell.
        reranked: number of candidates that were scored by MaxSim; None as for ``candidates``.
        requests: number of requests of the search, without repetitions and without the count of documents that have no
            FDE. The searches of a batch share requests, so each shows the number of all.
        token_bytes: bytes of stored tokens that were fetched to score them here. None: the database scored them.
    """

    encode: float = 0.0
    first_stage: float | None = None
    second_stage: float | None = None
    payload: float | None = None
    candidates: int | None = 0
    reranked: int | None = 0
    requests: int = 0
    token_bytes: int | None = None

    @property
    def total(self) -> float:
        """Sum of the stages."""
        return sum(each or 0.0 for each in (self.encode, self.first_stage, self.second_stage, self.payload))


@dataclass(frozen=True, slots=True)
class Group:
    """Hits that have one value at a payload key.

    Attributes:
        value: value of the key; None where a document lacks it, which is a group of its own.
        hits: hits of the group, best first.
    """

    value: Any
    hits: list[Hit]


class Hits(list[Hit]):
    """Hits of one query, best first.

    Attributes:
        unscored: candidates of a reranking search that could not be reranked because no tokens are stored with
            them; they follow the reranked hits in the list while there is room.
        without_fde: number of documents of the collection that have no FDE, which no search finds; counted at most 30
            seconds ago. None: not counted.
        timings: where the time of the search went.
        groups: groups of a search with ``group_by``, those with the best hits first; else empty.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        unscored: Iterable[Hit] = (),
        without_fde: int | None = None,
        timings: Timings | None = None,
        groups: Iterable[Group] = (),
    ) -> None:
        super().__init__(hits)
        self.unscored = list(unscored)
        self.without_fde = without_fde
        self.timings = Timings() if timings is None else timings
        self.groups = list(groups)


@dataclass(frozen=True, slots=True)
class Document:
    """One document as stored.

    Attributes:
        id: as it was given to ``upsert``.
        payload: the document's payload.
        tokens: (n, token_dim) float32 as stored, None when not asked for or not stored.
    """

    id: DocumentId
    payload: Mapping[str, Any]
    tokens: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class WriteReport:
    """What became of every document of a write.

    Attributes:
        written: documents that the database has acknowledged.
        failed: id and error of those that it has not.
        zero_rows: number of all-zero token vectors that were left out (``zero_rows="drop"``).
    """

    written: int = 0
    failed: dict[DocumentId, str] = field(default_factory=dict)
    zero_rows: int = 0


@dataclass(slots=True)
class BackfillReport:
    """What a backfill did, or would do.

    Attributes:
        written: documents that got their FDE in this run.
        copied: documents copied to the new collection in this run (0 in place).
        failed: id and reason of documents that cannot be encoded; they have no FDE and are not found by searches.
        without_tokens: documents that have no tokens to encode, or only all-zero ones.
        refreshed: documents whose FDE was not that of their tokens and has been written again in this run.
        zero_rows: documents with all-zero token vectors, which their FDEs leave out, among those written in this run.
        remaining: documents still without an FDE when the run ended (of a dry run: to do).
        verified: documents of the closing sample whose stored FDE equals the one of their stored tokens.
        fde_bytes: float32 bytes of the FDEs to write.
        read_bytes: float32 bytes of tokens to read; an estimate from the first page.
        seconds: taken; of a dry run, an estimate from reading and encoding the first page.
        dry_run: nothing was written.
    """

    written: int = 0
    copied: int = 0
    failed: dict[DocumentId, str] = field(default_factory=dict)
    without_tokens: int = 0
    refreshed: int = 0
    zero_rows: int = 0
    remaining: int = 0
    verified: int = 0
    fde_bytes: int = 0
    read_bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False


@dataclass(slots=True)
class VerifyReport:
    """What a comparison of FDEs with the stored tokens found; nothing is written.

    Attributes:
        checked: number of documents whose FDE was compared with their tokens.
        stale: ids of documents whose FDE is that of other tokens: the tokens were replaced without the FDE.
        without_fde: number of documents that have tokens but no FDE.
        zero_rows: number of documents with all-zero token vectors, which FDEs leave out.
        unreadable: id and reason of documents whose stored tokens cannot be encoded.
    """

    checked: int = 0
    stale: list[DocumentId] = field(default_factory=list)
    without_fde: int = 0
    zero_rows: int = 0
    unreadable: dict[DocumentId, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether a search can find every document by its tokens: none is stale, without an FDE or unreadable."""
        return not (self.stale or self.without_fde or self.unreadable)


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """State of a collection.

    Attributes:
        name: of the collection.
        engine: what answered, with its version.
        documents: stored.
        without_fde: documents that no search finds.
        without_tokens: documents that cannot be reranked.
        segments: parts that the database keeps the data in, where it says.
        indexed: the database has nothing left to index. What is too little for it to index stays as it is:
            ``unindexed``.
        fingerprint: of the encoder.
        fde_dim: dimensions of an FDE.
        fde_bytes: of all FDEs at the datatype they are stored in.
        code_bytes: of their quantized codes, 0 without quantization.
        token_bytes: of all token matrices; an estimate from a sample.
        disk_bytes: of the collection's directory, where it is on this machine.
        unindexed: number of documents that have no index and no codes, so that searches go through all of them. Exact
            after a load. Where documents were replaced or deleted since, or some lack a vector, it is the least number:
            databases count those that are gone as indexed until they rebuild that part. None: the database does not
            say.
        model: model of the tokens, as ``create`` or ``adopt`` was told; None: nobody named it.
        token_error: typical length of the rounding of a stored token, relative to the token's length, where tokens are
            stored in 8 bits or fewer; else 0.
    """

    name: str
    engine: str
    documents: int
    without_fde: int
    without_tokens: int
    segments: int | None
    indexed: bool
    fingerprint: str
    fde_dim: int
    fde_bytes: int
    code_bytes: int
    token_bytes: int
    disk_bytes: int | None = None
    unindexed: int | None = None
    model: TokenModel | None = None
    token_error: float = 0.0
