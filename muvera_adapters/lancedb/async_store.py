"""Two-stage search in LanceDB."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from muvera_adapters.errors import MuveraError
from muvera_adapters.explanation import Explanation
from muvera_adapters.lancedb import backfilling, lifecycle, query_fitting, reading, schema, searching, writing
from muvera_adapters.lancedb.also import Also
from muvera_adapters.lancedb.client import AsyncConnection, Call, address_of, check_kind, first_stage, send
from muvera_adapters.lancedb.collection import FDE, ID, Collection, Metric, Quantization, TokenType
from muvera_adapters.lancedb.conditions import to_filter
from muvera_adapters.lancedb.database import LANCEDB, WORTH_TRYING
from muvera_adapters.lancedb.errors import translate
from muvera_adapters.lancedb.expressions import checked
from muvera_adapters.lancedb.schema import Plan
from muvera_adapters.lancedb.searching import Options, Rerank
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, VerifyReport, WriteReport
from muvera_adapters.stores.checks import ZeroRows, check_encodable, check_encoder_type
from muvera_adapters.stores.choosing import EncoderOption, choose
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.explaining import Explained, explain
from muvera_adapters.stores.keys import Key, to_key
from muvera_adapters.stores.operations import (
    DEFAULT_RETRY,
    DEFAULT_WRITE_RETRY,
    ONCE,
    Deadline,
    Operation,
    Retry,
    deadline_of,
    run_async,
    search_limit,
    timed,
)
from muvera_adapters.stores.query_fitting import fit_queries
from muvera_adapters.stores.searching import Fusion
from muvera_adapters.stores.token_model import TokenModel, as_token_model
from muvera_adapters.tracing import traced
from muvera_core import Encoder, QueryFit
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class AsyncLanceMuvera:
    """Two-stage search in a table of LanceDB: FDEs in a vector column with an index, tokens in a multivector column.

    Made by :meth:`create`, :meth:`open` or :meth:`adopt`. The client is the caller's, and other programs may read and
    write the table with it: every call begins with the newest version. Every method raises
    :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as ``__cause__``: ``CollectionNotFound``,
    ``InvalidInput`` (found before anything is written), ``Rejected`` (by LanceDB), ``Unsupported`` or
    ``StoreUnavailable`` (after the retries). Filters are conditions in the SQL of LanceDB.

    Attributes:
        client: the caller's client.
        encoder: encoder of documents and queries.
        name: name of the table.
        fde_name: name of the column with the FDEs.
        tokens_name: name of the column with the token matrices.

    Example::

        client = await lancedb.connect_async("data")
        encoder = FDEEncoder(FDEConfig.of_size(128, 2560))
        columns = pa.schema([("year", pa.int32())])
        store = await AsyncLanceMuvera.create(client, "passages", encoder, columns=columns)
        await store.upsert(["a", "b"], token_matrices, [{"year": 2024}, {"year": 2025}])
        await store.wait_indexed()
        hits = await store.search(query_tokens, limit=10, filter="year > 2024")
    """

    def __init__(self, client: AsyncConnection, collection: Collection, retry: Retry, write_retry: Retry) -> None:
        self.client = client
        self._collection = collection
        self._retry = retry
        self._write_retry = write_retry

    @property
    def encoder(self) -> Encoder:
        """Encoder of documents and queries."""
        return self._collection.encoder

    @property
    def name(self) -> str:
        """Name of the table."""
        return self._collection.name

    @property
    def fde_name(self) -> str:
        """Name of the column with the FDEs, under which other programs can write them."""
        return self._collection.fde

    @property
    def tokens_name(self) -> str | None:
        """Name of the column with the token matrices; None without tokens."""
        return self._collection.tokens

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as :meth:`create` or :meth:`adopt` was told; None: nobody named it."""
        return self._collection.model

    @classmethod
    async def create(
        cls,
        client: AsyncConnection,
        name: str,
        encoder: EncoderOption,
        *,
        sample: Any = None,
        store_tokens: bool = True,
        tokens: TokenType = "float16",
        tokens_metric: Metric = "dot",
        quantization: Quantization = "auto",
        columns: pa.Schema | None = None,
        model: TokenModel | str | None = None,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncLanceMuvera:
        """Makes an empty table.

        It has the columns ``id``, ``fde``, ``tokens``, those of ``columns``, and ``payload`` with all other payload
        keys as JSON.

        Args:
            client: client of a directory.
            name: name of the new table.
            encoder: encoder of documents and queries; it is kept in the metadata of the FDE column.
                ``"auto"``: the smallest that keeps a recall of .95 on ``sample``.
            sample: some thousand documents to choose for, as token matrices; only with ``"auto"``. It takes up to a
                minute.
            store_tokens: keep token matrices for the second stage.
            tokens: how token matrices are stored: ``"float16"``, or ``"float32"``, which ``rerank="native"`` needs.
                FDEs are made of the given tokens, not of the stored ones.
            tokens_metric: similarity of tokens: ``"dot"``, or ``"cosine"`` for tokens that are not of unit length.
            quantization: codes of the FDEs in the index that :meth:`wait_indexed` builds: ``"rq1"`` or ``"rq4"``, 1 or
                4 bits a dimension (``IVF_RQ``), ``"sq8"``, 8 bits (``IVF_SQ``), or None: no index, so that every search
                compares all FDEs. ``"auto"``: ``"rq1"`` from 1,024 dimensions on, else ``"sq8"``.
            columns: payload keys that are columns of their own, which can be filtered by name and indexed.
            model: model of the tokens, by name (``"org/model@revision"``) or with its prompts
                (:class:`~muvera_adapters.TokenModel`); kept with the table. None: unknown.
            retry: repetition of requests that failed because another writer was faster.
            write_retry: the same for bulk writes (``upsert``, ``backfill``, ``delete``, ``remove_fde``, ``drop``)
                and ``wait_indexed``.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            InvalidInput: the encoder or an argument does not fit; ``"auto"`` without a sample, a sample without
                ``"auto"``, or a sample that cannot be used.
        """
        check_kind(client, AsyncConnection)
        choosing = choose(encoder, sample, quantization, LANCEDB.quantizations, WORTH_TRYING)
        choice = await _run(client, name, choosing, retry)
        check_encoder_type(choice.encoder)
        plan = Plan(
            store_tokens=store_tokens,
            tokens=tokens,
            metric=tokens_metric,
            quantization=quantization,
            columns=columns,
            model=as_token_model(model),
        )
        collection = await _run(client, name, lifecycle.create(name, choice.encoder, plan), retry)
        return cls(client, collection, retry, write_retry)

    @classmethod
    async def open(
        cls,
        client: AsyncConnection,
        name: str,
        encoder: Encoder | None = None,
        *,
        model: TokenModel | str | None = None,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncLanceMuvera:
        """Opens a table that :meth:`create` or :meth:`adopt` and :meth:`backfill` made.

        Args:
            client: as for ``create``.
            name: name of the table.
            encoder: encoder that must be the table's; None: it is rebuilt from what the table keeps.
            model: model that makes the query's tokens, as for ``create``; None: it is not compared.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such table, or this library did not make it.
            EncoderMismatch: another encoder filled it, or its encoder must be given.
            ModelMismatch: the table keeps another model.
        """
        _check(client, encoder)
        opened = lifecycle.open_collection(name, encoder, as_token_model(model))
        return cls(client, await _run(client, name, opened, retry), retry, write_retry)

    @classmethod
    async def adopt(
        cls,
        client: AsyncConnection,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        id_column: str = ID,
        tokens_metric: Metric = "dot",
        model: TokenModel | str | None = None,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncLanceMuvera:
        """Takes over a table of someone else, or gives one of this library another FDE column.

        Nothing of it is changed. FDEs that are there are compared with this encoder's; where there are none, run
        :meth:`backfill`::

            store = await AsyncLanceMuvera.adopt(client, "pages", encoder, tokens_vector="colbert")
            report = await store.backfill(progress=True)

        Args:
            client: as for ``create``.
            name: name of the table.
            encoder: encoder to search with.
            tokens_vector: name of a multivector column; None: there are no tokens.
            fde_vector: name of the column that has the FDEs, or that is to get them.
            id_column: name of a column of strings or int64, whose values are unique.
            tokens_metric: similarity of tokens, as for ``create``.
            model: model of the stored tokens, as for ``create``; kept with the table once it has FDEs.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            SchemaMismatch: the table does not fit; the message names every reason.
            EncoderMismatch: FDEs that are there are not this encoder's.
            ModelMismatch: the table keeps another model.
        """
        _check(client, encoder)
        named = as_token_model(model)
        adopted = lifecycle.adopt(name, encoder, fde_vector, tokens_vector, tokens_metric, id_column, named)
        return cls(client, await _run(client, name, adopted, retry), retry, write_retry)

    async def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        refresh: bool = False,
        quantization: Quantization = "auto",
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        A column for FDEs is added, and no other column changes. Others may read and write meanwhile: documents that
        arrive are picked up, and tokens are read again after each write, so that a replaced document does not keep the
        FDE of the old one. Repeated after a kill at any point, it does what is left. At the end a sample is checked.

        Args:
            progress: show a bar.
            dry_run: write nothing; the report has numbers, sizes and an estimate of the time.
            refresh: compare the FDE of every document with its tokens, and write those that are stale again. Otherwise
                only a sample is compared, and all documents where the sample has stale ones.
            quantization: as for ``create``; used when the column is added.

        Raises:
            InvalidInput: the table has no tokens, or there are no such codes.
            MuveraError: documents kept changing, or the sample disagrees.
        """
        schema.check_codes(quantization)
        add = partial(lifecycle.add_fde, self._collection, quantization)
        filled = backfilling.backfill(self._collection, add, lifecycle.keep_state, dry_run, progress, refresh)
        report, self._collection = await self._write("backfill", filled)
        return report

    async def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares the FDE of every document with its stored tokens; nothing is written.

        Another program may have replaced tokens without the FDE: ``backfill(refresh=True)`` writes such FDEs again.

        Args:
            limit: number of documents to compare, the first in the order of keys; None: all of them.
            progress: show a bar.

        Raises:
            InvalidInput: no tokens are stored, there are no FDEs yet, or ``limit`` is below 1.
        """
        return await self._read("verify", backfilling.verify(self._collection, limit, progress))

    async def fit_queries(
        self,
        queries: Sequence[ArrayLike] | None = None,
        documents: int = 2_000,
        *,
        rank: int = 64,
        seed: int = 42,
        progress: bool = False,
    ) -> QueryFit:
        """Learns a correction of query FDEs from a sample of the collection; nothing is written.

        Half of the sample is fitted to, with the stored FDEs as they are; the other half judges. Pass the result as
        ``search(query_fit=...)``, or save it to a file with its ``save``.

        Args:
            queries: at least 20 queries, each (m_i, token_dim), of which a random half is fitted to and the other half
                judges. None: the fit sees tokens of documents only, and queries of 4 to 32 tokens of a document each
                judge it; these documents are neither fitted to nor ranked. Real queries may gain more or less.
            documents: maximum number of documents to read, at least 100, drawn at random. The ids of all documents are
                read first.
            rank: rank of the correction, to which the size of the saved fit is proportional.
            seed: seed of all choices.
            progress: whether to show a progress bar.

        Returns:
            The fit; its ``report`` has the recall of plain and corrected queries, on documents and queries that it has
            not seen.

        Raises:
            NoGain: recall there is not higher for any number of candidates, or lower for one, beyond the intervals;
                ``report`` has what was measured.
            InvalidInput: there are too few documents or queries, or a query cannot be encoded.
            Unsupported: no tokens are stored, or the encoder's queries are not sums over tokens (a regression encoder).
        """
        access = query_fitting.access(self._collection)
        return await self._read("fit_queries", fit_queries(access, queries, documents, rank, seed, progress))

    async def remove_fde(self) -> None:
        """Undoes an adoption: removes the FDE column, its index, and what this library keeps, and nothing else.

        The table is the caller's as before.
        """
        await self._write("remove_fde", lifecycle.remove_fde(self._collection))
        self._collection = dataclasses.replace(self._collection, fde_exists=False, has_fde=False)

    async def upsert(
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
        """Encodes and writes documents in batches by bytes.

        Of a document that is there, the FDE, the tokens, the vectors and the payload keys that the call names are
        written; everything else stays. A batch is one version of the table for all documents that name the same
        columns. Keys of the JSON column are read and written again, and an update of such keys by someone else between
        the two is lost.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None. None or an empty dictionary leaves a payload as it is.
            progress: show a bar.
            vectors: values of other vector columns by name, n of each; None: not written.
            replace: write the whole document; whatever the call does not name is gone.
            zero_rows: what to do with token vectors that are all zeros: ``"refuse"``, or ``"drop"`` to leave them out.

        Returns:
            Every document as written or failed; failed are those that the database rejected individually.

        Raises:
            InvalidInput: lengths differ, an id is not valid or given twice, a payload cannot be stored, a vector is
                unknown, or tokens cannot be encoded or exceed float16; the message says where. Nothing was written.
            WriteInterrupted: the directory cannot be written any more; ``report`` has what was written. Repeat the
                call.
        """
        written = writing.upsert(self._collection, ids, tokens, payloads, progress, vectors, replace, zero_rows)
        return await self._write("upsert", written)

    async def search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: str | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[Also] | None = None,
        fusion: Fusion | None = None,
        weights: ArrayLike | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        nprobes: int | None = None,
        refine_factor: int | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Finds the documents most similar to a query.

        Args:
            query_tokens: (m, token_dim).
            limit: maximum number of hits to return.
            prefetch: number of candidates of the first stage; more of them give a higher recall.
            rerank: ``"client"``: the candidates' tokens are read and scored by this library; ``"native"``: MaxSim by
                LanceDB, of exactly the candidates, where tokens are float32; ``"none"``: the encoder's estimate;
                ``"auto"``: client where there are tokens.
            filter: condition in SQL, applied to both stages.
            offset: number of best hits to skip.
            score_threshold: lowest score of a hit.
            with_payload: return payloads: all, none, or some keys.
            with_tokens: return token matrices.
            with_fde_score: accepted as by all stores; every mode returns it anyway.
            nprobes: number of partitions of the index to look into; None: LanceDB's default, of at least 20.
            refine_factor: times as many candidates are found by codes and compared by their FDEs again; None: 2 where
                the table has codes.
            count_missing: count the documents that have no FDE, which no search finds; at most every 30 seconds,
                beside the search.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`; ``fde_score`` is then the corrected
                estimate, whose differences between documents are those of MaxSim and whose level says nothing.
            also: further searches for candidates: :class:`~muvera_adapters.lancedb.also.Near` for vectors of other
                models, and full-text queries of ``lancedb.query`` or
                :class:`~muvera_adapters.lancedb.also.FullText`. Their documents and those of the FDEs are reranked
                together. Each search brings at most ``prefetch`` of them, or as many as its own limit. ``filter`` holds
                for all searches.
            fusion: ``"rrf"``, or an :class:`~muvera_adapters.RRF`: hits are ranked by their ranks in the lists of
                ``also`` and in that by MaxSim (with ``rerank="none"``, by FDEs). None: by MaxSim alone.
            weights: (m,) weights of the query's tokens in both stages, at least 0; None: 1 each.
            group_by: payload key, or path of keys with dots, of whose values the best hits are returned; ``limit`` and
                ``offset`` count values then. See ``Hits.groups``.
            group_size: maximum number of hits of one value.
            stop_after: with ``rerank="client"``, the number of candidates in a row without one of the best hits, after
                which no more tokens are fetched; None: all candidates are scored. ``rerank="auto"`` becomes client.
            timeout: seconds to wait for the database in all: requests, retries and pauses. None: 10 seconds, and in
                :meth:`search_batch` another for each query after the first; ``math.inf``: no limit.

        Returns:
            At most ``limit`` hits, best first; their ``unscored`` lists candidates that have no tokens, and their
            ``without_fde`` is the number of documents that no search finds (None where more than 1 GB of encodings
            would have to be read to count them).

        Raises:
            EncoderMismatch: ``query_fit`` corrects another encoder.
            InvalidInput: the query cannot be encoded, a number is out of range, a filter's parentheses or quotes are
                not closed, or tokens are not stored.
            StoreUnavailable: LanceDB did not answer within ``timeout`` seconds, or repeating has not helped.
            Unsupported: ``rerank="native"`` and tokens are not float32.
        """
        options = Options(
            limit=limit,
            prefetch=prefetch,
            rerank=rerank,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            query_fit=query_fit,
            also=None if also is None else [also],
            fusion=fusion,
            weights=None if weights is None else [weights],
            group_by=group_by,
            group_size=group_size,
            stop_after=stop_after,
            nprobes=nprobes,
            refine_factor=refine_factor,
            count_missing=count_missing,
        )
        found = await self._read(
            "search", searching.search(self._collection, [query_tokens], options), search_limit(timeout)
        )
        return found[0]

    async def prefetch(
        self,
        query_tokens: ArrayLike,
        limit: int = 200,
        *,
        filter: str | None = None,
        weights: ArrayLike | None = None,
        query_fit: QueryFit | None = None,
        nprobes: int | None = None,
        refine_factor: int | None = None,
    ) -> Any:
        """The first stage of :meth:`search` as a query of the client, to which you can add and which you run.

        Distances are 1 minus the dot product with an FDE that was scaled, so only their order is that of
        ``fde_score``.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            limit: number of candidates.
            filter: condition that its documents must pass.
            weights: (m,) weights of the query's tokens; None: 1 each.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`.
            nprobes: as for :meth:`search`.
            refine_factor: as for :meth:`search`.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, or there are no FDEs yet.
        """
        options = Options(
            limit=limit,
            prefetch=limit,
            filter=filter,
            weights=None if weights is None else [weights],
            query_fit=query_fit,
            nprobes=nprobes,
            refine_factor=refine_factor,
        )
        prepared = searching.prefetch(self._collection, query_tokens, options)
        vector, tuning = await self._read("prefetch", prepared, search_limit(None))
        return first_stage(self._collection.table, checked(filter), limit, vector, self.fde_name, tuning=tuning)

    def point_id(self, document_id: DocumentId) -> Key:
        """The value of the id column of a document, as :meth:`upsert` writes it.

        Raises:
            InvalidInput: not a valid id, or one that the column cannot hold.
        """
        return to_key(document_id, 0, self._collection.keys)

    def document_id(self, point: Mapping[str, Any]) -> DocumentId:
        """The id that :meth:`upsert` was given, from a row that the client returned.

        Raises:
            InvalidInput: the row lacks the id column.
        """
        return reading.document_id(self._collection, point)

    async def search_batch(
        self,
        queries: Sequence[ArrayLike],
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: str | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[Sequence[Also] | None] | None = None,
        fusion: Fusion | None = None,
        weights: Sequence[ArrayLike | None] | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        nprobes: int | None = None,
        refine_factor: int | None = None,
        at_once: int = 4,
        timeout: float | None = None,
    ) -> list[Hits]:
        """:meth:`search` for several queries, of which at most ``at_once`` are in progress at a time.

        ``also`` and ``weights`` have one entry, or None, for each query.

        Returns:
            The hits of every query, in the order of the queries.
        """
        options = Options(
            limit=limit,
            prefetch=prefetch,
            rerank=rerank,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            query_fit=query_fit,
            also=also,
            fusion=fusion,
            weights=weights,
            group_by=group_by,
            group_size=group_size,
            stop_after=stop_after,
            nprobes=nprobes,
            refine_factor=refine_factor,
            count_missing=count_missing,
        )
        return await self._read(
            "search_batch",
            searching.search(self._collection, queries, options, at_once),
            search_limit(timeout, len(queries)),
        )

    async def exact_search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        *,
        filter: str | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_tokens: bool = False,
        weights: ArrayLike | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Scores every document by MaxSim: the truth that :meth:`search` approximates.

        It reads all tokens. Arguments are those of :meth:`search`, but without ``timeout``
        the whole call has no limit.

        Raises:
            InvalidInput: as for :meth:`search`.
        """
        options = Options(
            limit=limit,
            prefetch=limit,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            weights=None if weights is None else [weights],
        )
        return await self._read(
            "exact_search", searching.exact_search(self._collection, query_tokens, options), timeout
        )

    async def explain(
        self,
        query_tokens: ArrayLike,
        ids_or_hits: Explained | Sequence[Explained],
        *,
        weights: ArrayLike | None = None,
        best: int = 1,
        timeout: float | None = None,
    ) -> list[Explanation | None]:
        """The document token that each query token matches, its similarity, and its share of the score.

        They are computed here from the stored tokens, in one read by ids. Contributions sum to the score of
        :meth:`search` with reranking, to the precision in which the database scores.

        Args:
            query_tokens: tokens of the query, (m, token_dim).
            ids_or_hits: ids, and hits of a search: one, or several in any mixture. Hits that have their tokens
                (``with_tokens=True``) are not read again.
            weights: weight of each query token, m numbers of at least 0; None: all are 1.
            best: number of document tokens to name for each query token (``Match.best``).
            timeout: seconds to wait for the database in all; None: no limit.

        Returns:
            One explanation for each document, in their order. None for an id that is not there, and for a document
            without tokens.

        Raises:
            InvalidInput: the query cannot be encoded, a weight or ``best`` is out of range, an id is not valid, tokens
                are not stored, or those of a document have another width, NaN or infinite values.
        """
        read = partial(reading.get, self._collection, with_tokens=True)
        explained = explain(
            self._collection, query_tokens, ids_or_hits, check_encodable, read, weights=weights, best=best
        )
        return await self._read("explain", explained, timeout)

    async def get(
        self, ids: Sequence[DocumentId], *, with_tokens: bool = False, timeout: float | None = None
    ) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none.

        Args:
            ids: ids of the documents.
            with_tokens: return token matrices.
            timeout: seconds to wait for the database in all; None: no limit.
        """
        return await self._read("get", reading.get(self._collection, ids, with_tokens), timeout)

    async def scroll(
        self, *, filter: str | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> AsyncIterator[Document]:
        """All documents that pass the filter, in the order of keys, ``page_size`` per request."""
        chosen, cursor = checked(filter), None
        while True:
            page = reading.one_page(self._collection, chosen, page_size, cursor, with_tokens)
            documents, cursor = await self._read("scroll", page)
            for document in documents:
                yield document
            if cursor is None:
                return

    async def count(self, *, filter: str | None = None, timeout: float | None = None) -> int:
        """The exact number of documents that pass the filter.

        Args:
            filter: condition in SQL.
            timeout: seconds to wait for the database in all; None: no limit.
        """
        return await self._read("count", reading.count(self._collection, filter), timeout)

    async def filter_of(self, condition: Condition) -> str:
        """The SQL of a condition in no database's words, for ``filter=`` of the other methods.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`.

        Raises:
            Unsupported: a comparison of dates, or ``text`` of a key that is not a column; the message names the
                operator.
            InvalidInput: an id is not valid, or a key cannot be written in SQL.
        """
        return to_filter(condition, self._collection)

    async def delete(
        self, ids: Sequence[DocumentId] | None = None, *, filter: str | None = None, everything: bool = False
    ) -> None:
        """Deletes documents by ids, or those that pass a filter; ids that are not there are no error.

        Args:
            ids: ids of documents.
            filter: condition in SQL.
            everything: delete all documents; needed where ``filter`` is None or empty.

        Raises:
            InvalidInput: both or neither of ``ids`` and ``filter`` are given, or the filter is empty.
        """
        await self._write("delete", writing.delete(self._collection, ids, filter, everything))

    async def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Builds the index of the FDEs, takes new documents into it, and joins small files; call it after a load.

        LanceDB indexes nothing by itself: documents without an index are compared one by one in every search, and
        found as well. Fewer than 1,000 documents get no index.

        Args:
            timeout: seconds after which an error is raised; the work is done before that.

        Returns:
            Number of documents without index, as ``info().unindexed``.

        Raises:
            StoreUnavailable: it took longer than ``timeout`` seconds.
        """
        return await self._write("wait_indexed", writing.wait_indexed(self._collection, timeout))

    async def ping(self, timeout: float = 5.0) -> float:
        """Looks for the newest version of the table, and for a document that need not exist.

        It is sent once, without repetition.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Seconds that the answer took.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or cannot be reached.
            CollectionNotFound: the collection is gone.
        """
        return await self._do("ping", timed(reading.ping(self._collection)), timeout, ONCE, fresh=False)

    async def info(self) -> StoreInfo:
        """Numbers, sizes and state of the table; the size of tokens is estimated from a sample.

        Where there is more than 1 GB of tokens, so is the number of documents without tokens.
        """
        return await self._read("info", reading.info(self._collection))

    async def drop(self) -> None:
        """Deletes the table; one that is gone is no error."""
        await self._do("drop", lifecycle.drop(self._collection), None, self._write_retry, fresh=False)

    async def close(self) -> None:
        """Does nothing, as a store keeps nothing open: the client is the caller's, who closes it."""

    async def __aenter__(self) -> AsyncLanceMuvera:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        encoder = self._collection.encoder
        return (
            f"{type(self).__name__}({self.name!r}, encoder {encoder.fingerprint[:8]} of {encoder.dim} dimensions, "
            f"{self._collection.engine})"
        )

    async def _do(
        self, call: str, operation: Operation[T], timeout: float | None, retry: Retry, *, fresh: bool = True
    ) -> T:
        """Runs an operation; unless ``fresh`` is False, on the newest version of the table, whoever wrote it."""
        database = f"{self._collection.engine} at {address_of(self.client)}"
        deadline = deadline_of(operation, timeout, database)
        with traced(call, self.name, database) as done:
            if fresh:
                try:
                    await _run(self.client, self.name, reading.refresh(self._collection), retry, deadline)
                except BaseException:
                    operation.close()
                    raise
            return done(await _run(self.client, self.name, operation, retry, deadline))

    async def _read(self, call: str, operation: Operation[T], timeout: float | None = None) -> T:
        return await self._do(call, operation, timeout, self._retry)

    async def _write(self, call: str, operation: Operation[T]) -> T:
        return await self._do(call, operation, None, self._write_retry)


def _check(client: Any, encoder: Any) -> None:
    check_kind(client, AsyncConnection)
    if encoder is not None:
        check_encoder_type(encoder)


async def _run(
    client: AsyncConnection, name: str, operation: Operation[T], retry: Retry, deadline: Deadline | None = None
) -> T:
    async def carry_out(call: Call[Any]) -> Any:
        try:
            return call.read(await send(client, call))
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its engine raises
            raise translate(error, name) from error

    return await run_async(operation, carry_out, retry, deadline)
