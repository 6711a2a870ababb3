"""The result types of stores: hits, documents and reports."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from muvera_adapters.stores.token_model import TokenModel

#: ids of documents as users give them: integers, strings or UUIDs
DocumentId: TypeAlias = int | str | uuid.UUID


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found.

    Attributes:
        id: id of the document, as it was given to ``upsert``.
        score: MaxSim where the search reranked this document, otherwise the encoder's estimate of it; under ``fusion``,
            the fused score of its ranks.
        fde_score: the encoder's estimate of MaxSim, None where the store does not know it.
        payload: payload of the document, None where it was not requested.
        tokens: (n, token_dim) float32 stored tokens, None where they were not requested or are not stored.
        reranked: whether ``score`` is MaxSim.
        found_by: names of the searches that found the document: ``"fde"``, and for each entry of ``also`` the vector or
            property that it searches (``also[i]`` where that is not known, or two entries search the same one). Empty
            for ``exact_search``, which has no candidates.
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
        """``score`` divided by the sum of the weights of the query's tokens, comparable between queries of any length.

        For a reranked document, this is the mean similarity of a query token: from -1 to 1 where tokens have unit
        length. None for fused scores.
        """
        return None if self.query_weight is None else self.score / self.query_weight


@dataclass(slots=True)
class Timings:
    """Times of the stages of a search, in seconds, and the numbers of candidates and requests.

    Attributes:
        encode: time to encode the queries of the call (for a batch, all its queries).
        first_stage: time to find candidates. None: one request did both stages, see ``second_stage``.
        second_stage: time to score candidates by MaxSim. None: nothing was reranked.
        payload: time to fetch payloads and tokens of the hits. None: they came with another request.
        candidates: number of different candidates of the first stage. None: the database did both stages and does not
            return this number.
        reranked: number of candidates that were scored by MaxSim; None as for ``candidates``.
        requests: number of requests of the search, without retries and without the count of documents that have no
            FDE. The searches of a batch share requests, so each shows the number for the whole batch.
        token_bytes: bytes of stored tokens that the client fetched to score them. None: the database scored them.
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
        """Sum of the times of all stages, in seconds."""
        return sum(each or 0.0 for each in (self.encode, self.first_stage, self.second_stage, self.payload))


@dataclass(frozen=True, slots=True)
class Group:
    """Hits that have the same value at a payload key.

    Attributes:
        value: value of the key; None: a document without the key, which is always alone in its group.
        hits: hits of the group, best first.
    """

    value: Any
    hits: list[Hit]


class Hits(list[Hit]):
    """Hits of one query, best first.

    Attributes:
        unscored: candidates that could not be reranked because they have no stored tokens; in the list of hits, they
            follow the reranked ones as far as ``limit`` allows.
        without_fde: number of documents of the collection that have no FDE, so that no search finds them; counted at
            most 30 seconds ago. None: not counted.
        timings: times of the stages of the search.
        groups: groups of a search with ``group_by``, those with the best hits first; empty without ``group_by``.
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
    """A stored document.

    Attributes:
        id: id of the document, as it was given to ``upsert``.
        payload: payload of the document.
        tokens: (n, token_dim) float32 stored tokens, None where they were not requested or are not stored.
    """

    id: DocumentId
    payload: Mapping[str, Any]
    tokens: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class WriteReport:
    """Result of a write; every document is counted as written or listed as failed.

    Attributes:
        written: number of documents that the database has acknowledged.
        failed: errors of all other documents, by id.
        zero_rows: number of all-zero token vectors that were left out (``zero_rows="drop"``).
    """

    written: int = 0
    failed: dict[DocumentId, str] = field(default_factory=dict)
    zero_rows: int = 0


@dataclass(slots=True)
class BackfillReport:
    """Result of a backfill; for a dry run, what a backfill would do.

    Attributes:
        written: number of documents that got their FDE in this run.
        copied: number of documents copied to the new collection in this run (0 for a backfill in place).
        failed: reasons of documents that cannot be encoded, by id; they have no FDE, so searches do not find them.
        without_tokens: number of documents that have no tokens to encode, or only all-zero ones.
        refreshed: number of documents whose FDE did not match their tokens and was written again in this run.
        zero_rows: number of documents written in this run with all-zero token vectors, which FDEs leave out.
        remaining: number of documents without an FDE at the end of the run; for a dry run, documents to do.
        verified: number of documents of the final sample whose stored FDE matches their stored tokens.
        fde_bytes: float32 bytes of the FDEs to write.
        read_bytes: float32 bytes of the tokens to read, estimated from the first page.
        seconds: duration of the run; for a dry run, an estimate from reading and encoding the first page.
        dry_run: whether this was a dry run, which writes nothing.
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
    """Result of a comparison of FDEs with the stored tokens, which writes nothing.

    Attributes:
        checked: number of documents whose FDE was compared with their tokens.
        stale: ids of documents whose FDE does not match their tokens, because tokens were replaced without the FDE.
        without_fde: number of documents that have tokens but no FDE.
        zero_rows: number of documents with all-zero token vectors, which FDEs leave out.
        unreadable: reasons of documents whose stored tokens cannot be encoded, by id.
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
        name: name of the collection.
        engine: name and version of the database.
        documents: number of stored documents.
        without_fde: number of documents without an FDE, which no search finds.
        without_tokens: number of documents without tokens, which cannot be reranked.
        segments: number of segments in which the database keeps the collection; None: the database does not say.
        indexed: whether the database has nothing left to index. It leaves small parts without an index: see
            ``unindexed``.
        fingerprint: fingerprint of the encoder.
        fde_dim: number of dimensions of an FDE.
        fde_bytes: bytes of all FDEs at the datatype in which they are stored.
        code_bytes: bytes of the quantized codes of all FDEs, 0 without quantization.
        token_bytes: bytes of all token matrices, estimated from a sample.
        disk_bytes: bytes of the collection's directory; None: it is not on this machine.
        unindexed: number of documents without an index and codes, which searches scan one by one. Exact after a load.
            A lower bound if documents were replaced or deleted since, or some lack a vector, because databases count
            removed documents as indexed until they rebuild that part. None: the database does not say.
        model: model of the tokens, as given to ``create`` or ``adopt``; None: nobody named it.
        token_error: typical length of the rounding of a stored token, relative to the token's length, where tokens are
            stored in 8 bits or fewer; otherwise 0.
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
