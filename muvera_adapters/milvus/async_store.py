"""Two-stage search in Milvus."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from pymilvus import AnnSearchRequest, AsyncMilvusClient, DataType, FieldSchema

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.explanation import Explanation
from muvera_adapters.milvus import backfilling, copying, lifecycle, query_fitting, reading, searching, writing
from muvera_adapters.milvus.also import Also
from muvera_adapters.milvus.blobs import TokenType
from muvera_adapters.milvus.client import TIMEOUT, Call, Connection, address_of, check_kind, send
from muvera_adapters.milvus.collection import FDE, Collection, Metric
from muvera_adapters.milvus.conditions import to_expression
from muvera_adapters.milvus.database import MILVUS, WORTH_TRYING
from muvera_adapters.milvus.errors import translate
from muvera_adapters.milvus.expressions import checked
from muvera_adapters.milvus.ids import to_key
from muvera_adapters.milvus.schema import Plan, Quantization, check_codes
from muvera_adapters.milvus.searching import Options, Rerank
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, VerifyReport, WriteReport
from muvera_adapters.stores.checks import ZeroRows, check_encodable, check_encoder_type
from muvera_adapters.stores.choosing import EncoderOption, choose
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.explaining import Explained, explain
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


class AsyncMilvusMuvera:
    """Two-stage search in Milvus: FDEs in an index; tokens in an array of structs, or as text.

    :meth:`create`, :meth:`open` and :meth:`adopt` make a store. The client stays the caller's: the store never closes
    or reconfigures it, not even in :meth:`close` and at the end of ``async with``. Filters are expressions of Milvus.

    Every error is a :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as ``__cause__``:
    ``InvalidInput`` (before anything is sent), ``CollectionNotFound``, ``Rejected`` (by the database),
    ``AccessDenied``, ``Unsupported`` or ``StoreUnavailable`` (after the retries).

    Attributes:
        client: the caller's client.
        encoder: encoder of documents and queries.
        name: name of the collection, or the alias by which it was opened.
        fde_name: name of the field with the FDEs.
        tokens_name: name of the array of structs, or prefix of the names of the text fields.
        token_storage: how tokens are stored: ``"struct"``, ``"blob"`` (text) or ``"none"``.

    Example::

        client = AsyncMilvusClient("http://localhost:19530")
        encoder = FDEEncoder(FDEConfig.of_size(128, 640))
        store = await AsyncMilvusMuvera.create(client, "passages", encoder)
        await store.upsert(["a", "b"], token_matrices, [{"year": 2024}, {"year": 2025}])
        hits = await store.search(query_tokens, limit=10, filter="year > 2024")
    """

    def __init__(
        self,
        client: AsyncMilvusClient,
        connection: Connection,
        collection: Collection,
        retry: Retry,
        write_retry: Retry,
    ) -> None:
        self.client = client
        self._connection = connection
        self._collection = collection
        self._retry = retry
        self._write_retry = write_retry

    @property
    def encoder(self) -> Encoder:
        """Encoder of documents and queries."""
        return self._collection.encoder

    @property
    def name(self) -> str:
        """Name of the collection, or the alias by which it was opened."""
        return self._connection.name

    @property
    def fde_name(self) -> str:
        """Name of the field with the FDEs."""
        return self._collection.fde

    @property
    def tokens_name(self) -> str | None:
        """Name of the array of structs, or prefix of the names of the text fields; None if tokens are not stored."""
        return self._collection.tokens

    @property
    def token_storage(self) -> str:
        """How tokens are stored: ``"struct"``, ``"blob"`` (text) or ``"none"``."""
        return self._collection.storage

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as given to :meth:`create` or :meth:`adopt`; None: not given."""
        return self._collection.model

    @classmethod
    async def create(
        cls,
        client: AsyncMilvusClient,
        name: str,
        encoder: EncoderOption,
        *,
        sample: Any = None,
        store_tokens: bool = True,
        token_storage: Literal["struct", "blob"] | None = None,
        max_tokens: int = 2_048,
        tokens: TokenType | None = None,
        tokens_metric: Metric = "IP",
        tokens_index_type: str | None = None,
        tokens_index_params: Mapping[str, Any] | None = None,
        datatype: DataType = DataType.FLOAT_VECTOR,
        quantization: Quantization = "auto",
        index_type: str | None = None,
        index_params: Mapping[str, Any] | None = None,
        fields: Sequence[FieldSchema] = (),
        dynamic: bool = True,
        model: TokenModel | str | None = None,
        consistency_level: str = "Session",
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
        **options: Any,
    ) -> AsyncMilvusMuvera:
        """Creates an empty collection.

        Args:
            client: client of a server, a cluster, or a file of milvus-lite.
            name: name of the new collection.
            encoder: encoder of documents and queries; it is stored in the collection's properties. ``"auto"``: the
                smallest encoder that reaches a recall of .95 on ``sample``.
            sample: token matrices of some thousand documents; needed with ``encoder="auto"``, not allowed otherwise.
                The choice takes up to a minute.
            store_tokens: whether to store token matrices for the second stage.
            token_storage: where tokens are stored. ``"struct"``: in an array of structs, which the server scores
                (Milvus >= 2.6.4). ``"blob"``: as text, which this library scores. None: in structs if the server has
                them, otherwise as text.
            max_tokens: maximum number of tokens of a document, at most 4,096. For text, it determines the number of
                fields.
            tokens: how token matrices are stored: ``"float32"``, ``"float16"`` or ``"int8"`` (scaled by token). None:
                ``"float16"`` in text, ``"float32"`` in structs, which support no other. ``"float16"`` and
                ``"int8"`` are stored as text in every version. FDEs are computed from the given tokens, not from the
                stored ones.
            tokens_metric: metric by which tokens are compared: ``"IP"``, or ``"COSINE"`` for tokens that are not of
                unit length.
            tokens_index_type: type of the structs' index; None: a small HNSW index, which the second stage hardly uses.
            tokens_index_params: parameters of the structs' index. ``{"emb_list_strategy": "muvera"}`` is Milvus 3's own
                encoding, for ``rerank="native_muvera"``.
            datatype: data type of the stored FDEs: FLOAT_VECTOR, FLOAT16_VECTOR or BFLOAT16_VECTOR (which needs
                ``ml_dtypes``).
            quantization: quantization of the FDEs in the index: ``"sq8"`` (8 bits a dimension, ``HNSW_SQ``) or None
                (float32, ``HNSW``). ``"auto"``: ``"sq8"`` in milvus-lite and Milvus >= 2.5, otherwise None. A managed
                service, which does not report its version, gets ``AUTOINDEX`` instead of ``HNSW``.
            index_type: type of the FDE index, any that the server has, such as ``"IVF_RABITQ"`` or ``"DISKANN"``; it
                replaces ``quantization``.
            index_params: parameters of the FDE index, such as ``{"M": 32, "efConstruction": 400}``.
            fields: declared fields of the payload; one of them may be the partition key.
            dynamic: whether payloads may have keys that are not declared.
            model: model of the tokens: its name (``"org/model@revision"``), or a :class:`~muvera_adapters.TokenModel`
                with its prompts. It is stored with the collection. None: unknown.
            consistency_level: consistency level of searches: ``"Strong"``, ``"Session"``, ``"Bounded"`` or
                ``"Eventually"``. Counting, scrolling and reading by id are always strong.
            timeout: time limit of one request, in seconds, including the client's own retries.
            retry: how to repeat requests that failed because the database was unreachable or overloaded.
            write_retry: the same for bulk writes (``upsert``, ``backfill``, ``delete``, ``remove_fde``, ``drop``) and
                ``wait_indexed``. The default outlasts a restart of the server that takes a minute.
            **options: options of ``client.create_collection``: ``num_shards``, ``num_partitions``, ``properties``.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            InvalidInput: the encoder or an argument does not fit Milvus; ``"auto"`` without a sample, a sample without
                ``"auto"``, or a sample that cannot be used.
            Unsupported: the server cannot do what was asked.
        """
        check_kind(client, AsyncMilvusClient)
        connection = Connection(name, timeout)
        choosing = choose(encoder, sample, quantization, MILVUS.quantizations, WORTH_TRYING)
        choice = await _run(client, connection, choosing, retry)
        check_encoder_type(choice.encoder)
        plan = Plan(
            storage=token_storage if store_tokens else "none",
            max_tokens=max_tokens,
            precision=tokens,
            metric=tokens_metric,
            datatype=datatype,
            quantization=quantization,
            index_type=index_type,
            index_params=index_params or {},
            token_index_type=tokens_index_type,
            token_index_params=tokens_index_params or {},
            fields=fields,
            dynamic=dynamic,
            consistency=consistency_level,
            options=options,
            model=as_token_model(model),
        )
        collection = await _run(client, connection, lifecycle.create(name, choice.encoder, plan), retry)
        return cls(client, connection, collection, retry, write_retry)

    @classmethod
    async def open(
        cls,
        client: AsyncMilvusClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        model: TokenModel | str | None = None,
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncMilvusMuvera:
        """Opens a collection that :meth:`create` made, or that was adopted and backfilled, and loads it.

        Args:
            client: as for ``create``.
            name: name of the collection, or of an alias.
            encoder: encoder to use, which must be the one that filled the collection; None: it is rebuilt from what the
                collection stores.
            model: model that makes the query tokens, as for ``create``; it is compared with the model that the
                collection stores. None: not compared.
            consistency_level: consistency level of searches; None: that of the collection.
            timeout: as for ``create``.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such collection, or this library did not create or adopt it.
            EncoderMismatch: the collection was filled with another encoder, or its encoder cannot be rebuilt and must
                be given.
            ModelMismatch: the collection stores another model.
        """
        _check(client, encoder)
        connection = Connection(name, timeout)
        opened = lifecycle.open_collection(name, encoder, as_token_model(model), consistency_level)
        return cls(client, connection, await _run(client, connection, opened, retry), retry, write_retry)

    @classmethod
    async def adopt(
        cls,
        client: AsyncMilvusClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        tokens_metric: Metric = "IP",
        model: TokenModel | str | None = None,
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncMilvusMuvera:
        """Takes over an existing collection, or gives one of this library another FDE field.

        Nothing in the collection is changed. FDEs that exist are compared with those of this encoder. If there are
        none, run :meth:`backfill`::

            store = await AsyncMilvusMuvera.adopt(client, "pages", encoder, tokens_vector="colbert")
            report = await store.backfill(progress=True)

        Args:
            client: as for ``create``.
            name: name of the collection.
            encoder: encoder of the FDEs, existing or future.
            tokens_vector: name of the array of structs with one float vector, or prefix of the names of the text fields
                (``colbert_0``, ``colbert_1`` ...); None: there are no tokens.
            fde_vector: name of the field with the FDEs; :meth:`backfill` adds it if it is missing.
            tokens_metric: metric by which tokens in text are compared; for structs, their index has the metric.
            model: model of the stored tokens, as for ``create``; it is stored with the collection once there are FDEs.
            consistency_level: as for ``open``.
            timeout: as for ``create``.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            SchemaMismatch: the collection does not fit; the message names every reason.
            EncoderMismatch: the stored FDEs are those of another encoder.
            ModelMismatch: the collection stores another model.
        """
        _check(client, encoder)
        connection = Connection(name, timeout)
        named = as_token_model(model)
        adopted = lifecycle.adopt(name, encoder, fde_vector, tokens_vector, tokens_metric, named, consistency_level)
        return cls(client, connection, await _run(client, connection, adopted, retry), retry, write_retry)

    async def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        into: str | None = None,
        alias: str | None = None,
        leave_out: Sequence[str] = (),
        refresh: bool = False,
        datatype: DataType = DataType.FLOAT_VECTOR,
        quantization: Quantization = "auto",
        index_type: str | None = None,
        index_params: Mapping[str, Any] | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        In place (Milvus >= 2.6.18; with struct arrays >= 2.6.20), an FDE field and a mark are added, and nothing else
        in the collection changes. Others may read and write meanwhile: new documents get an FDE too, and tokens are
        read again after each write, so that a replaced document does not keep the FDE of its old tokens. After a kill
        at any point, repeat the call to do the rest. At the end, a sample of FDEs is compared with the tokens. If one
        of them is stale (computed from other tokens), all are compared and stale ones are written again, as with
        ``refresh``.

        Args:
            progress: whether to show a progress bar.
            dry_run: whether to write nothing; the report has numbers, sizes and an estimate of the time.
            into: name of a new collection to copy everything to instead, for servers that cannot add a vector. Passes
                are repeated until the copy equals the collection. Open the copy afterwards: this store stays with the
                old collection.
            alias: alias to point to the new collection when it is complete.
            leave_out: fields that the copy does not get, such as the old vector if the server allows only one.
            refresh: whether to compare the FDE of every document with its tokens, and to write stale ones again. It
                reads all tokens. An FDE becomes stale when another program replaces the tokens without it.
            datatype: as for ``create``; used when the field is added.
            quantization: as for ``create``; used when the field is added.
            index_type: as for ``create``; used when the field is added.
            index_params: as for ``create``; used when the field is added.

        Raises:
            Unsupported: the server cannot add a vector and ``into`` is not given.
            CollectionExists: ``into`` exists and is not an unfinished copy of this collection.
            InvalidInput: ``refresh`` and ``into`` are both given, or the quantization does not fit the index.
            MuveraError: documents kept changing, or the sample disagrees.
        """
        if refresh and into is not None:
            raise InvalidInput("refresh=True compares the FDEs of this collection: it does not go with into=")
        plan = Plan(
            datatype=datatype, quantization=quantization, index_type=index_type, index_params=index_params or {}
        )
        check_codes(plan)
        if into is not None and not dry_run:
            return await self._write("backfill", copying.copy(self._collection, into, alias, leave_out, plan, progress))
        add, keep = partial(lifecycle.add_fde, self._collection, plan), lifecycle.write_state
        filled = backfilling.backfill(self._collection, add, keep, dry_run, progress, refresh)
        report, self._collection = await self._write("backfill", filled)
        return report

    async def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares the FDEs of documents with their stored tokens; nothing is written.

        ``backfill(refresh=True)`` writes stale FDEs again.

        Args:
            limit: number of documents to read, in the order of keys; None: all of them.
            progress: whether to show a progress bar.

        Returns:
            Ids of documents whose FDE is stale (computed from other tokens), and numbers of documents without an FDE.

        Raises:
            InvalidInput: no tokens are stored, there are no FDEs yet, or ``limit`` is below 1.
        """
        return await self._do("verify", backfilling.verify(self._collection, limit, progress))

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

        The correction is fitted to one half of the sample, with the stored FDEs as they are, and measured on the other
        half. Pass the result to :meth:`search` as ``query_fit``, or save it to a file with its ``save``.

        Args:
            queries: at least 20 queries, each (m_i, token_dim); a random half is used to fit, the other half to
                measure. None: the fit uses only tokens of documents, and is measured with queries of 4 to 32 tokens,
                each from one document; these documents are neither fitted to nor ranked. Real queries may gain more or
                less.
            documents: maximum number of documents to read, at least 100, drawn at random. The ids of all documents are
                read first.
            rank: rank of the correction; the size of the saved fit is proportional to it.
            seed: seed of all random choices.
            progress: whether to show a progress bar.

        Returns:
            The fit. Its ``report`` has the recall of plain and corrected queries, on documents and queries that were
            not used to fit.

        Raises:
            NoGain: the correction does not help: beyond the confidence intervals, recall is not higher for any number
                of candidates, or is lower for one. ``report`` has what was measured.
            InvalidInput: there are too few documents or queries, or a query cannot be encoded.
            Unsupported: no tokens are stored, or the encoder's queries are not sums over tokens (a regression encoder).
        """
        access = query_fitting.access(self._collection)
        return await self._do("fit_queries", fit_queries(access, queries, documents, rank, seed, progress))

    async def remove_fde(self) -> None:
        """Removes the FDE field and what this library stores in the collection; everything else stays.

        It undoes :meth:`adopt` and :meth:`backfill`. Milvus can remove fields from 3.0 on.

        Raises:
            Unsupported: the server cannot remove the field. The field stays, emptied if it may be empty; everything
                else of this library is removed.
        """
        problem = await self._write("remove_fde", lifecycle.remove_fde(self._collection))
        self._collection = dataclasses.replace(
            self._collection, fde_exists=problem is not None, has_fde=False, marker=False
        )
        if problem is not None:
            raise problem

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
        """Encodes documents and writes them, in batches limited by bytes.

        A document that already exists keeps what the call does not name: other vectors, other keys of its payload, and
        its whole payload if none is given for it. Servers before Milvus 2.6.20 cannot do that themselves: there,
        documents are read and written again, and an update by someone else between the two is lost.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries (None: no payload), or None; :mod:`muvera_adapters.stores.payloads` lists the
                values that can be stored.
            progress: whether to show a progress bar.
            vectors: other vectors of the collection by name, n of each (None: not written), in the form that the client
                takes.
            replace: whether documents that already exist lose everything that the call does not name.
            zero_rows: what to do with all-zero token vectors (padding): ``"refuse"`` the documents, or ``"drop"`` the
                vectors and count them.

        Returns:
            A report in which every document is either written or failed; failed are those that the database rejected
            individually.

        Raises:
            InvalidInput: lengths differ, an id is not valid or given twice, a payload cannot be stored, a vector is
                unknown, or tokens cannot be encoded or exceed a limit of Milvus; the message says where. Nothing was
                written.
            WriteInterrupted: the database stopped answering or takes no writes; ``report`` has what was written. Repeat
                the call.
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
        search_params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Finds the documents most similar to a query.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: maximum number of hits to return.
            prefetch: number of candidates of the first stage; more candidates give a higher recall.
            rerank: how candidates are scored. ``"native"``: MaxSim by the server, of exactly the candidates (those that
                it leaves out are scored in this process). ``"client"``: tokens are fetched and scored in this process.
                ``"none"``: no second stage; scores are the encoder's estimates. ``"native_muvera"``: Milvus's own
                encoding in one request, which reranks ``prefetch`` candidates. ``"auto"``: native if the server has the
                tokens in structs and not quantized, otherwise client.
            filter: expression that documents must pass, in both stages.
            offset: number of hits to skip.
            score_threshold: minimum score of a hit.
            with_payload: whether to return payloads: all, none, or some keys.
            with_tokens: whether to return token matrices.
            with_fde_score: has no effect: every mode but ``"native_muvera"`` returns ``fde_score`` anyway.
            count_missing: whether to count the documents without an FDE, which no search finds, for
                ``Hits.without_fde`` and a warning. The count runs beside the search, at most every 30 seconds.
            query_fit: correction of the query FDE, from :meth:`fit_queries`. ``fde_score`` is then the corrected
                estimate: its differences between documents estimate those of MaxSim, its absolute value means nothing.
            also: further searches for candidates: ``AnnSearchRequest`` of pymilvus for other fields, and expressions,
                whose documents have no order. Their documents are reranked together with those of the FDEs. Each search
                adds at most ``prefetch`` documents, or as many as its own limit. ``filter`` applies to all searches.
            fusion: ``"rrf"``, or an :class:`~muvera_adapters.RRF`: hits are ranked by their ranks in the lists of
                ``also`` and in the MaxSim ranking (with ``rerank="none"``, the FDE ranking). None: by MaxSim alone.
            weights: weights of the query tokens in both stages, (m,), at least 0; None: all are 1.
            group_by: payload key, or path of keys joined by dots; the best hits of each of its values are returned, and
                ``limit`` and ``offset`` count values. See ``Hits.groups``.
            group_size: maximum number of hits of one value.
            stop_after: with ``rerank="client"`` (which ``"auto"`` then means), stop fetching tokens after this number
                of consecutive candidates of which none is among the best hits; None: score all candidates.
            search_params: parameters of the first stage, such as ``{"nprobe": 64}``; None: a beam of twice the
                candidates in HNSW, the minimum that DISKANN needs, and the server's defaults for other indexes.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; ``math.inf``: no
                limit. None: 10 seconds, and in :meth:`search_batch` one more second for each query after the first.

        Returns:
            At most ``limit`` hits, best first. ``Hits.unscored`` lists candidates that have no tokens.
            ``Hits.without_fde`` is the number of documents without an FDE (None if Milvus cannot tell).

        Raises:
            EncoderMismatch: ``query_fit`` corrects another encoder.
            InvalidInput: the query cannot be encoded, a number is out of range, an expression's brackets or quotes are
                not closed, or tokens are not stored.
            StoreUnavailable: the server did not answer within ``timeout`` seconds, or retries did not help.
            Unsupported: the server cannot score the tokens as ``rerank`` asks.
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
            search_params=search_params,
            count_missing=count_missing,
        )
        found = await self._do(
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
        search_params: Mapping[str, Any] | None = None,
    ) -> AnnSearchRequest:
        """Returns the first stage of :meth:`search` as an ``AnnSearchRequest``, for a ``hybrid_search`` of your own.

        The FDE in it is scaled: scores that the database returns have the order of ``fde_score``, but not its values.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: number of candidates.
            filter: expression that documents must pass.
            weights: weights of the query tokens, (m,), at least 0; None: all are 1.
            query_fit: correction of the query FDE, from :meth:`fit_queries`.
            search_params: parameters of the first stage; None: those of :meth:`search`.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, or there are no FDEs yet.
        """
        options = Options(
            limit=limit,
            prefetch=limit,
            filter=filter,
            weights=None if weights is None else [weights],
            query_fit=query_fit,
            search_params=search_params,
        )
        return await self._do(
            "prefetch", searching.prefetch(self._collection, query_tokens, options), search_limit(None)
        )

    def point_id(self, document_id: DocumentId) -> int | str:
        """Returns the primary key of a document, as :meth:`upsert` writes it.

        Raises:
            InvalidInput: ``document_id`` is not a valid id, or the collection's keys cannot hold it.
        """
        return to_key(document_id, 0, self._collection.keys, self._collection.max_key)

    def document_id(self, point: Mapping[str, Any]) -> DocumentId:
        """Returns the id that :meth:`upsert` was given, from a hit or a row that the client returned.

        Raises:
            InvalidInput: ``point`` has no primary key.
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
        search_params: Mapping[str, Any] | None = None,
        at_once: int = 4,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Runs :meth:`search` for several queries, of which at most ``at_once`` are in progress at a time.

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
            search_params=search_params,
            count_missing=count_missing,
        )
        return await self._do(
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
        """Ranks all documents by MaxSim: the exact ranking that :meth:`search` approximates.

        It sends one request for every 1,000 documents. Arguments are those of :meth:`search`, but ``timeout=None``
        means no limit.

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
        return await self._do("exact_search", searching.exact_search(self._collection, query_tokens, options), timeout)

    async def explain(
        self,
        query_tokens: ArrayLike,
        ids_or_hits: Explained | Sequence[Explained],
        *,
        weights: ArrayLike | None = None,
        best: int = 1,
        timeout: float | None = None,
    ) -> list[Explanation | None]:
        """Explains scores: the document token that each query token matches, its similarity and share of the score.

        They are computed in this process from the stored tokens, in one read by ids. The contributions sum to the score
        of :meth:`search` with reranking, to the precision in which the database scores.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            ids_or_hits: ids of documents, or hits of a search: one, or a sequence in any mixture. Tokens of hits that
                have them (``with_tokens=True``) are not read again.
            weights: weights of the query tokens, (m,), at least 0; None: all are 1.
            best: number of document tokens to name for each query token (``Match.best``).
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.

        Returns:
            One explanation for each document, in the given order; None for an id that does not exist and for a document
            without tokens.

        Raises:
            InvalidInput: the query cannot be encoded, a weight or ``best`` is out of range, an id is not valid, tokens
                are not stored, or those of a document have another width, NaN or infinite values.
        """
        read = partial(reading.get, self._collection, with_tokens=True)
        explained = explain(
            self._collection, query_tokens, ids_or_hits, check_encodable, read, weights=weights, best=best
        )
        return await self._do("explain", explained, timeout)

    async def get(
        self, ids: Sequence[DocumentId], *, with_tokens: bool = False, timeout: float | None = None
    ) -> list[Document | None]:
        """Returns documents in the order of ``ids``, None for each id that does not exist.

        Args:
            ids: ids of the documents.
            with_tokens: whether to return token matrices.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return await self._do("get", reading.get(self._collection, ids, with_tokens), timeout)

    async def scroll(
        self, *, filter: str | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> AsyncIterator[Document]:
        """Yields all documents that pass the filter, in the order of their keys, reading ``page_size`` at a time."""
        chosen, cursor = checked(filter), None
        while True:
            page = reading.one_page(self._collection, chosen, page_size, cursor, with_tokens)
            documents, cursor = await self._do("scroll", page)
            for document in documents:
                yield document
            if cursor is None:
                return

    async def count(self, *, filter: str | None = None, timeout: float | None = None) -> int:
        """Returns the exact number of documents that pass the filter.

        Args:
            filter: expression that documents must pass.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return await self._do("count", reading.count(self._collection, checked(filter)), timeout)

    async def filter_of(self, condition: Condition) -> str:
        """Translates a condition that is independent of the database, for ``filter=`` of the other methods.

        In milvus-lite, booleans are equal to 0 and 1.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`.

        Raises:
            Unsupported: ``text``, a comparison of dates, or, on servers, ``empty`` of a key that is not declared; the
                message names the operator.
            InvalidInput: an id is not valid, or a key cannot be written in an expression.
        """
        return to_expression(condition, self._collection)

    async def delete(
        self, ids: Sequence[DocumentId] | None = None, *, filter: str | None = None, everything: bool = False
    ) -> None:
        """Deletes documents by ids or by filter; ids that do not exist are ignored.

        Args:
            ids: ids of the documents.
            filter: expression that documents must pass.
            everything: whether to delete all documents; needed if ``filter`` has no conditions, or if neither ``ids``
                nor ``filter`` is given.

        Raises:
            InvalidInput: not exactly one of ``ids`` and ``filter`` is given, or the filter has no conditions; see
                ``everything``.
        """
        await self._write("delete", writing.delete(self._collection, ids, filter, everything))

    async def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Flushes, and waits until the server has finished indexing.

        Args:
            timeout: maximum number of seconds to wait; None: no limit.

        Returns:
            Number of documents without index, as ``info().unindexed``; None for milvus-lite, which does not report it.
            A server counts segments of fewer than 1,024 documents as indexed, though it builds no index for them.

        Raises:
            StoreUnavailable: indexing was not finished after ``timeout`` seconds.
        """
        return await self._write("wait_indexed", writing.wait_indexed(self._collection, timeout))

    async def ping(self, timeout: float = 5.0) -> float:
        """Measures the cheapest request that needs the collection: a read of a document that need not exist.

        The request is sent once, without retries.

        Args:
            timeout: maximum number of seconds to wait for the answer.

        Returns:
            Seconds that the answer took.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or cannot be reached.
            AccessDenied: the database rejects the credentials.
            CollectionNotFound: the collection no longer exists.
        """
        return await self._do("ping", timed(reading.ping(self._collection)), timeout, ONCE)

    async def info(self) -> StoreInfo:
        """Returns numbers, sizes and state of the collection.

        The number of documents without tokens in structs is exact up to 1,000.
        """
        return await self._do("info", reading.info(self._collection))

    async def drop(self) -> None:
        """Deletes the collection."""
        await self._write("drop", lifecycle.drop(self._collection.name))

    async def close(self) -> None:
        """Ends the use of this store; the client stays open. Closing twice is allowed."""

    async def __aenter__(self) -> AsyncMilvusMuvera:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        encoder = self._collection.encoder
        return (
            f"{type(self).__name__}({self.name!r}, encoder {encoder.fingerprint[:8]} of {encoder.dim} dimensions, "
            f"{self._collection.server.engine})"
        )

    async def _do(
        self, call: str, operation: Operation[T], timeout: float | None = None, retry: Retry | None = None
    ) -> T:
        engine, place = self._collection.server.engine, address_of(self.client)
        database = f"{engine} at {place}" if place else engine
        deadline = deadline_of(operation, timeout, database)
        with traced(call, self.name, database) as done:
            return done(await _run(self.client, self._connection, operation, retry or self._retry, deadline))

    async def _write(self, call: str, operation: Operation[T]) -> T:
        return await self._do(call, operation, retry=self._write_retry)


def _check(client: Any, encoder: Any) -> None:
    check_kind(client, AsyncMilvusClient)
    if encoder is not None:
        check_encoder_type(encoder)


async def _run(
    client: AsyncMilvusClient,
    connection: Connection,
    operation: Operation[T],
    retry: Retry,
    deadline: Deadline | None = None,
) -> T:
    deadline = Deadline() if deadline is None else deadline

    async def carry_out(call: Call[Any, Any]) -> Any:
        try:
            return call.read(await send(client, connection, call, deadline.left))
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            raise translate(error, connection.name, address_of(client)) from error

    return await run_async(operation, carry_out, retry, deadline)
