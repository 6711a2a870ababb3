"""What the stores of all databases have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_core import Encoder
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

    def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
    ) -> WriteReport:
        """Encodes and writes n documents, replacing those whose id is there.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None.
            progress: show a bar.
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
        """
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
    ) -> list[Hits]:
        """Searches for several queries; the arguments are those of :meth:`search`."""
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
    ) -> Hits:
        """MaxSim over every document; the arguments are those of :meth:`search`."""
        ...

    def get(self, ids: Sequence[DocumentId], *, with_tokens: bool = False) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        ...

    def scroll(self, *, filter: Any = None, with_tokens: bool = False, page_size: int = 100) -> Iterator[Document]:
        """All documents in a fixed order, read in pages of ``page_size``."""
        ...

    def count(self, *, filter: Any = None) -> int:
        """Exact number of documents."""
        ...

    def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: Any = None) -> None:
        """Deletes documents; pass exactly one of ids and filter."""
        ...

    def backfill(self, *, progress: bool = False, dry_run: bool = False) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        Args:
            progress: show a bar.
            dry_run: write nothing; the report has numbers, sizes and an estimate of the time.
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

    def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection."""
        ...

    def drop(self) -> None:
        """Deletes the collection."""
        ...
