"""What the stores of all databases have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from muvera_adapters.explanation import Explanation
from muvera_adapters.results import (
    BackfillReport,
    Document,
    DocumentId,
    Hits,
    StoreInfo,
    VerifyReport,
    WriteReport,
)
from muvera_adapters.stores.checks import ZeroRows
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.explaining import Explained
from muvera_adapters.stores.searching import Fusion
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import Encoder, QueryFit
from muvera_core.tokens import ArrayLike


class Store(Protocol):
    """A collection of documents that is searched in two stages.

    Each database's store takes more arguments, by keyword, in that database's own types. ``create``, ``open`` and
    ``adopt`` are class methods whose first argument is the database's client, so they are not part of the protocol:
    see :class:`~muvera_adapters.databases.Database`. Every method raises
    :class:`~muvera_adapters.errors.MuveraError`.
    """

    @property
    def encoder(self) -> Encoder:
        """Encoder of the documents and queries."""
        ...

    @property
    def name(self) -> str:
        """Name of the collection."""
        ...

    @property
    def fde_name(self) -> str:
        """Name of the vector with the FDEs, under which other programs can write them."""
        ...

    @property
    def tokens_name(self) -> str | None:
        """Name of the token matrices; None where none are stored."""
        ...

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as ``create`` or ``adopt`` was told; None: nobody named it."""
        ...

    def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
        *,
        vectors: Mapping[str, Sequence[Any]] | None = None,
        replace: bool = False,
        zero_rows: ZeroRows = "refuse",
    ) -> WriteReport:
        """Encodes and writes n documents.

        A document that is there gets the new tokens and FDE, the payload keys that its payload names and the vectors
        that ``vectors`` names. Everything else of it stays.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries (None: nothing), or None; :mod:`muvera_adapters.stores.payloads` has the types.
            progress: show a bar.
            vectors: other vectors of the collection by name, n entries each (None: none), in the database's own types.
            replace: whether documents that are there lose what the call does not name.
            zero_rows: ``"refuse"`` documents with all-zero token vectors, or ``"drop"`` these vectors and count them.
        """
        ...

    def search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Any = "auto",
        filter: Any = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: Any = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[Any] | None = None,
        fusion: Fusion | None = None,
        weights: ArrayLike | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Finds the best documents of ``prefetch`` candidates.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            limit: maximum number of hits.
            prefetch: number of candidates that the first stage finds.
            rerank: ``"native"``, ``"client"``, ``"none"`` or ``"auto"``.
            filter: condition on the payload, in the database's own type.
            offset: number of hits to leave out.
            score_threshold: least score of a hit.
            with_payload: return payloads.
            with_tokens: return the stored tokens.
            with_fde_score: return the encoder's estimate of reranked hits too.
            count_missing: count the documents that have no FDE, for ``Hits.without_fde`` and a warning; at most every
                30 seconds, beside the search.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`.
            also: further searches for candidates, in the database's own types. Their documents and those of the FDEs
                are reranked together. Each search brings at most ``prefetch`` of them, or as many as its own limit.
                ``filter`` holds for all searches.
            fusion: ``"rrf"``, or an :class:`~muvera_adapters.RRF`: hits are ranked by their ranks in the lists of
                ``also`` and in that by MaxSim (with ``rerank="none"``, by FDEs). None: by MaxSim alone.
            weights: (m,) weights of the query's tokens in both stages, at least 0; None: 1 each.
            group_by: payload key, or path of keys with dots, of whose values the best hits are returned; ``limit`` and
                ``offset`` count values then. See ``Hits.groups``.
            group_size: maximum number of hits of one value.
            stop_after: with ``rerank="client"``, the number of candidates in a row without one of the best hits, after
                which no more tokens are fetched; None: all candidates are scored. ``rerank="auto"`` becomes client.
            timeout: seconds to wait for the database in all: requests, retries and pauses. None: 10 seconds, and in
                :meth:`search_batch` another for each query after the first; ``math.inf``: no limit. Embedded engines
                cannot be interrupted: there it is looked at between requests only.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or repeating has not helped.
        """
        ...

    def prefetch(
        self,
        query_tokens: ArrayLike,
        limit: int = 200,
        *,
        filter: Any = None,
        weights: ArrayLike | None = None,
        query_fit: QueryFit | None = None,
    ) -> Any:
        """The first stage of :meth:`search`, in the database's own type, for a query of the caller's own.

        Scores of the database are those of an FDE that was scaled, so only their order is that of ``fde_score``.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            limit: number of candidates.
            filter: condition on the payload, in the database's own type.
            weights: (m,) weights of the query's tokens; None: 1 each.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`.
        """
        ...

    def point_id(self, document_id: DocumentId) -> Any:
        """The database's own id of a document, as ``upsert`` writes it."""
        ...

    def document_id(self, point: Any) -> DocumentId:
        """The id that ``upsert`` was given, from what the database's own client returns for a document."""
        ...

    def search_batch(
        self,
        queries: Sequence[ArrayLike],
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Any = "auto",
        filter: Any = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: Any = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[Sequence[Any] | None] | None = None,
        fusion: Fusion | None = None,
        weights: Sequence[ArrayLike | None] | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Searches for several queries; the arguments are those of :meth:`search`.

        ``also`` and ``weights`` have one entry, or None, for each query.
        """
        ...

    def exact_search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        *,
        filter: Any = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: Any = True,
        with_tokens: bool = False,
        weights: ArrayLike | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """MaxSim over every document; arguments are those of :meth:`search`, but ``timeout=None`` means no limit."""
        ...

    def explain(
        self,
        query_tokens: ArrayLike,
        ids_or_hits: Explained | Sequence[Explained],
        *,
        weights: ArrayLike | None = None,
        best: int = 1,
        timeout: float | None = None,
    ) -> list[Explanation | None]:
        """The document token that each query token matches, its similarity, and its share of the score.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            ids_or_hits: ids, and hits of a search: one, or several in any mixture. Hits that have their tokens are not
                read again.
            weights: weight of each query token, m numbers of at least 0; None: all are 1.
            best: number of document tokens to name for each query token.
            timeout: seconds to wait for the database in all; None: no limit.

        Returns:
            One explanation for each document, in their order. None for an id that is not there, and for a document
            without tokens.
        """
        ...

    def get(
        self, ids: Sequence[DocumentId], *, with_tokens: bool = False, timeout: float | None = None
    ) -> list[Document | None]:
        """Documents in the order of ``ids``, None where there is none; ``timeout`` as for :meth:`exact_search`."""
        ...

    def scroll(self, *, filter: Any = None, with_tokens: bool = False, page_size: int = 100) -> Iterator[Document]:
        """All documents in a fixed order, read in pages of ``page_size``."""
        ...

    def count(self, *, filter: Any = None, timeout: float | None = None) -> int:
        """Exact number of documents; ``timeout`` as for :meth:`exact_search`."""
        ...

    def filter_of(self, condition: Condition) -> Any:
        """The filter of a condition in no database's words, in the database's own type, for ``filter=``.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`, which says what it means.

        Raises:
            Unsupported: the database's filters cannot express it; the message names the operator.
        """
        ...

    def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: Any = None, everything: bool = False) -> None:
        """Deletes documents; pass exactly one of ids and filter.

        Args:
            ids: ids of the documents.
            filter: condition on the payload, in the database's own type.
            everything: whether a filter without conditions, or none, is meant to delete all documents.
        """
        ...

    def backfill(self, *, progress: bool = False, dry_run: bool = False, refresh: bool = False) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        Args:
            progress: show a bar.
            dry_run: write nothing; the report has numbers, sizes and an estimate of the time.
            refresh: compare the FDE of every document with its tokens, and write those again that are stale.
        """
        ...

    def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares FDEs with the stored tokens; nothing is written.

        Args:
            limit: number of documents to read; None: all of them.
            progress: show a bar.
        """
        ...

    def fit_queries(
        self,
        queries: Sequence[ArrayLike] | None = None,
        documents: int = 2_000,
        *,
        rank: int = 64,
        seed: int = 42,
        progress: bool = False,
    ) -> QueryFit:
        """Learns a correction of query FDEs from a sample of the collection; nothing is written.

        Args:
            queries: at least 20 queries, each (m_i, token_dim); None: they are made of tokens of documents.
            documents: maximum number of documents to read, drawn at random.
            rank: rank of the correction.
            seed: seed of all choices.
            progress: show a bar.

        Raises:
            NoGain: recall is not higher on documents and queries that the fit has not seen.
            Unsupported: no tokens are stored, or the encoder cannot be corrected.
        """
        ...

    def remove_fde(self) -> None:
        """Removes the FDEs and what this library keeps with the collection; the collection can be adopted again.

        Raises:
            Unsupported: the database cannot drop a vector; the rest has been removed.
        """
        ...

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Returns when nothing is left to index.

        Args:
            timeout: seconds to wait at most; None: no limit.

        Raises:
            StoreUnavailable: the timeout has passed.
        """
        ...

    def ping(self, timeout: float = 5.0) -> float:
        """Seconds that the cheapest request takes which needs the database and the collection; it is not repeated.

        Args:
            timeout: seconds to wait for the answer.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or cannot be reached.
            AccessDenied: the database rejects the credentials.
        """
        ...

    def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection."""
        ...

    def drop(self) -> None:
        """Deletes the collection."""
        ...

    def close(self) -> None:
        """Ends the use of the store; a client of the caller stays open."""
        ...
