"""The protocol of a store: the methods that the stores of all databases have in common."""

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

    The stores of some databases take more keyword arguments, in the types of the database's client. ``create``,
    ``open`` and ``adopt`` are class methods whose first argument is the client, so they are not part of the protocol:
    see :class:`~muvera_adapters.databases.Database`. All errors of the methods are subclasses of
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
        """Name of the vector that holds the FDEs; other programs can write FDEs under this name."""
        ...

    @property
    def tokens_name(self) -> str | None:
        """Name of the token matrices; None if the collection stores no tokens."""
        ...

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as given to ``create`` or ``adopt``; None: nobody named it."""
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

        A document that exists gets the new tokens and FDE, the payload keys that its payload names, and the vectors
        that ``vectors`` names. Its other payload keys and vectors do not change.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries, with None for a document without a payload; None: no payloads.
                :mod:`muvera_adapters.stores.payloads` lists the types of values.
            progress: whether to show a progress bar.
            vectors: other vectors of the collection by name: n entries each, in the types of the database's client,
                with None for a document without that vector.
            replace: whether existing documents lose the payload keys and vectors that the call does not name.
            zero_rows: what to do with all-zero token vectors: ``"refuse"`` the documents, or ``"drop"`` the vectors and
                count them.
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
        """Finds candidates by their FDEs, and returns those with the highest MaxSim scores.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            limit: maximum number of hits to return.
            prefetch: number of candidates that the first stage finds.
            rerank: where candidates are scored by MaxSim: ``"native"`` in the database, ``"client"`` in this process,
                ``"none"`` nowhere, ``"auto"`` where it is best.
            filter: condition on the payload, in the types of the database's client.
            offset: number of hits to skip.
            score_threshold: lowest score of a hit.
            with_payload: whether to return payloads.
            with_tokens: whether to return the stored tokens.
            with_fde_score: whether to return the encoder's estimate also for reranked hits.
            count_missing: whether to count the documents without an FDE, for ``Hits.without_fde`` and a warning. The
                count runs in parallel to the search, at most every 30 seconds.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`.
            also: further searches for candidates, in the types of the database's client. Their candidates and those of
                the FDEs are reranked together. Each search adds at most ``prefetch`` candidates, or as many as its own
                limit. ``filter`` applies to all searches.
            fusion: ``"rrf"`` or an :class:`~muvera_adapters.RRF` to fuse the ranks in the lists of ``also`` with the
                ranks by MaxSim (with ``rerank="none"``, by FDEs). None: hits are ranked by MaxSim alone.
            weights: (m,) weights of the query's tokens in both stages, at least 0; None: 1 each.
            group_by: payload key, or path of keys with dots. The search returns the best hits for each of its values,
                and ``limit`` and ``offset`` count values. See ``Hits.groups``.
            group_size: maximum number of hits for one value.
            stop_after: with ``rerank="client"``, number of consecutive candidates that do not change the best hits,
                after which no more candidates are scored; None: all candidates are scored. With this argument,
                ``rerank="auto"`` means ``"client"``.
            timeout: maximum seconds to wait for the database, retries and pauses included. None: 10 seconds, and in
                :meth:`search_batch` one more for each query after the first; ``math.inf``: no limit. Embedded engines
                cannot be interrupted, so for them the time is only checked between requests.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or retries did not help.
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
        """Builds the first stage of :meth:`search`, in the types of the database's client, for a query that you write.

        The FDE in it is scaled. The scores of the database therefore have the order of ``fde_score``, but not its
        values.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            limit: number of candidates.
            filter: condition on the payload, in the types of the database's client.
            weights: (m,) weights of the query's tokens; None: 1 each.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`.
        """
        ...

    def point_id(self, document_id: DocumentId) -> Any:
        """The id under which the database stores a document."""
        ...

    def document_id(self, point: Any) -> DocumentId:
        """The id that was given to ``upsert``, from a document as the database's client returns it."""
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
        """Scores every document by MaxSim; arguments are those of :meth:`search`, but ``timeout=None`` is no limit."""
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
        """Explains scores: the document token that each query token matches, its similarity and its share of the score.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            ids_or_hits: an id or a hit of a search, or a list of ids and hits. Documents of hits with tokens are not
                read again.
            weights: (m,) weights of the query's tokens, at least 0; None: 1 each.
            best: number of document tokens to return for each query token.
            timeout: maximum seconds to wait for the database; None: no limit.

        Returns:
            One explanation for each document, in the same order. None for an id that does not exist, and for a document
            without tokens.
        """
        ...

    def get(
        self, ids: Sequence[DocumentId], *, with_tokens: bool = False, timeout: float | None = None
    ) -> list[Document | None]:
        """Reads documents in the order of ``ids``, None for ids that do not exist.

        ``timeout`` is the maximum number of seconds to wait for the database; None: no limit.
        """
        ...

    def scroll(self, *, filter: Any = None, with_tokens: bool = False, page_size: int = 100) -> Iterator[Document]:
        """Yields all documents in a fixed order; they are read in pages of ``page_size``."""
        ...

    def count(self, *, filter: Any = None, timeout: float | None = None) -> int:
        """Counts documents exactly.

        ``timeout`` is the maximum number of seconds to wait for the database; None: no limit.
        """
        ...

    def filter_of(self, condition: Condition) -> Any:
        """Converts a database-independent condition to a filter of the database, for ``filter=``.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`, which defines its meaning.

        Raises:
            Unsupported: the database's filters cannot express the condition; the message names the operator.
        """
        ...

    def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: Any = None, everything: bool = False) -> None:
        """Deletes documents; pass exactly one of ids and filter.

        Args:
            ids: ids of the documents to delete.
            filter: condition on the payload of the documents to delete, in the types of the database's client.
            everything: confirms that all documents are to be deleted, without a filter or by one without conditions.
        """
        ...

    def backfill(self, *, progress: bool = False, dry_run: bool = False, refresh: bool = False) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        Args:
            progress: whether to show a progress bar.
            dry_run: whether to write nothing and only report numbers, sizes and an estimate of the time.
            refresh: whether to compare the FDE of every document with its tokens and rewrite those that are stale.
        """
        ...

    def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares FDEs with the stored tokens; nothing is written.

        Args:
            limit: maximum number of documents to read; None: all of them.
            progress: whether to show a progress bar.
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
        """Fits a correction of query FDEs to a sample of the collection; nothing is written.

        Args:
            queries: at least 20 queries, each (m_i, token_dim); None: queries are made from tokens of documents.
            documents: maximum number of documents to read, drawn at random.
            rank: rank of the correction.
            seed: seed of all random choices.
            progress: whether to show a progress bar.

        Raises:
            NoGain: recall on held-out documents and queries is not higher with the correction.
            Unsupported: the collection stores no tokens, or the encoder cannot be corrected.
        """
        ...

    def remove_fde(self) -> None:
        """Removes the FDEs and this library's state from the collection, which can be adopted again.

        Raises:
            Unsupported: the database cannot drop a vector; everything else has been removed.
        """
        ...

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Waits until nothing is left to index.

        Args:
            timeout: maximum seconds to wait; None: no limit.

        Raises:
            StoreUnavailable: indexing has not finished after ``timeout`` seconds.
        """
        ...

    def ping(self, timeout: float = 5.0) -> float:
        """Measures the seconds of a cheap request that needs the database and the collection. It is not retried.

        Args:
            timeout: maximum seconds to wait for the answer.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or cannot be reached.
            AccessDenied: the database rejects the credentials.
        """
        ...

    def info(self) -> StoreInfo:
        """Returns numbers, sizes and the state of the collection."""
        ...

    def drop(self) -> None:
        """Deletes the collection."""
        ...

    def close(self) -> None:
        """Closes the store; a client that the caller passed stays open."""
        ...
