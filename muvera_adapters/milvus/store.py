# Generated from async_store.py by tools/make_sync.py; edit that file and run it.
"""Two-stage search in Milvus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from pymilvus import AnnSearchRequest, DataType, FieldSchema, MilvusClient

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
from muvera_adapters.milvus.schema import Plan, Quantization, check_codes
from muvera_adapters.milvus.searching import Options, Rerank
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, VerifyReport, WriteReport
from muvera_adapters.stores.checks import ZeroRows, check_encodable, check_encoder_type
from muvera_adapters.stores.choosing import EncoderOption, choose
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.explaining import Explained, explain
from muvera_adapters.stores.keys import to_key
from muvera_adapters.stores.operations import (
    DEFAULT_RETRY,
    DEFAULT_WRITE_RETRY,
    ONCE,
    Deadline,
    Operation,
    Retry,
    deadline_of,
    run,
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


class MilvusMuvera:
    """Two-stage search in Milvus: FDEs in an index, tokens in an array of structs, or as text where there is none.

    Made by :meth:`create`, :meth:`open` or :meth:`adopt`. The client is the caller's: it is never closed or
    reconfigured. Every method raises :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as
    ``__cause__``: ``CollectionNotFound``, ``InvalidInput`` (found before anything is sent), ``Rejected`` (by the
    database), ``AccessDenied``, ``Unsupported`` or ``StoreUnavailable`` (after the retries). Filters are expressions
    of Milvus.

    Attributes:
        client: the caller's client.
        encoder: encoder of documents and queries.
        name: name of the collection, or the alias it was opened by.
        fde_name: name of the field with the FDEs.
        tokens_name: name of the array of structs, or what the names of the text fields begin with.
        token_storage: how tokens are stored: ``"struct"``, ``"blob"`` (text) or ``"none"``.

    Example::

        client = MilvusClient("http://localhost:19530")
        encoder = FDEEncoder(FDEConfig.of_size(128, 640))
        store = MilvusMuvera.create(client, "passages", encoder)
        store.upsert(["a", "b"], token_matrices, [{"year": 2024}, {"year": 2025}])
        hits = store.search(query_tokens, limit=10, filter="year > 2024")
    """

    def __init__(
        self,
        client: MilvusClient,
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
        """Name of the collection, or the alias it was opened by."""
        return self._connection.name

    @property
    def fde_name(self) -> str:
        """Name of the field with the FDEs, under which other programs can write them."""
        return self._collection.fde

    @property
    def tokens_name(self) -> str | None:
        """Name of the array of structs, or what the names of the text fields begin with; None without tokens."""
        return self._collection.tokens

    @property
    def token_storage(self) -> str:
        """How tokens are stored: ``"struct"``, ``"blob"`` (text) or ``"none"``."""
        return self._collection.storage

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as :meth:`create` or :meth:`adopt` was told; None: nobody named it."""
        return self._collection.model

    @classmethod
    def create(
        cls,
        client: MilvusClient,
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
    ) -> MilvusMuvera:
        """Makes an empty collection.

        Args:
            client: client of a server, a cluster, or a file of milvus-lite.
            name: name of the new collection.
            encoder: encoder of documents and queries; it is kept in the collection's properties.
                ``"auto"``: the smallest that keeps a recall of .95 on ``sample``.
            sample: some thousand documents to choose for, as token matrices; only with ``"auto"``. It takes up to a
                minute.
            store_tokens: keep token matrices for the second stage.
            token_storage: ``"struct"``: an array of structs, which the server scores (Milvus >= 2.6.4); ``"blob"``:
                text, which is scored by this library; None: the first of them that the server has.
            max_tokens: largest number of tokens of a document, at most 4,096. For text it decides the number of fields.
            tokens: how token matrices are stored: ``"float32"``, ``"float16"`` or ``"int8"`` (scaled by token).
                None: ``"float16"`` in text, and ``"float32"`` in structs, which have no other. The two small ones are
                kept as text in every version. FDEs are made of the given tokens, not of the stored ones.
            tokens_metric: metric that tokens are compared by: ``"IP"``, or ``"COSINE"`` for tokens that are not of unit
                length.
            tokens_index_type: type of the structs' index; None: a small HNSW, which the second stage hardly uses.
            tokens_index_params: parameters of the structs' index. ``{"emb_list_strategy": "muvera"}`` is Milvus 3's own
                encoding, for ``rerank="native_muvera"``.
            datatype: data type of FDEs: FLOAT_VECTOR, FLOAT16_VECTOR or BFLOAT16_VECTOR (which needs ``ml_dtypes``).
            quantization: codes of the FDEs in the index: ``"sq8"``, 8 bits a dimension (``HNSW_SQ``), or None, float32
                (``HNSW``). ``"auto"``: ``"sq8"`` in milvus-lite and Milvus >= 2.5, else None. A managed service, which
                does not tell its version, has ``AUTOINDEX`` in place of ``HNSW``.
            index_type: type of the FDEs' index, any that the server has, such as ``"IVF_RABITQ"`` or ``"DISKANN"``, in
                place of ``quantization``.
            index_params: parameters of the FDEs' index, such as ``{"M": 32, "efConstruction": 400}``.
            fields: declared fields of the payload; one of them may be the partition key.
            dynamic: whether payloads may have keys that are not declared.
            model: model of the tokens, by name (``"org/model@revision"``) or with its prompts
                (:class:`~muvera_adapters.TokenModel`); kept with the collection. None: unknown.
            consistency_level: consistency of searches, ``"Strong"``, ``"Session"``, ``"Bounded"`` or ``"Eventually"``.
                Counting, scrolling and reading by id are always strong.
            timeout: seconds that one request may take, the client's own retries included.
            retry: repetition of requests that failed because the database was unreachable or overloaded.
            write_retry: the same for bulk writes (``upsert``, ``backfill``, ``delete``, ``remove_fde``, ``drop``)
                and ``wait_indexed``. The default survives a restart of the server that takes a minute.
            **options: options of ``client.create_collection``: ``num_shards``, ``num_partitions``, ``properties``.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            InvalidInput: the encoder or an argument does not fit Milvus; ``"auto"`` without a sample, a sample without
                ``"auto"``, or a sample that cannot be used.
            Unsupported: the server cannot do what was asked.
        """
        check_kind(client, MilvusClient)
        connection = Connection(name, timeout)
        choosing = choose(encoder, sample, quantization, MILVUS.quantizations, WORTH_TRYING)
        choice = _run(client, connection, choosing, retry)
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
        collection = _run(client, connection, lifecycle.create(name, choice.encoder, plan), retry)
        return cls(client, connection, collection, retry, write_retry)

    @classmethod
    def open(
        cls,
        client: MilvusClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        model: TokenModel | str | None = None,
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> MilvusMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made, and loads it.

        Args:
            client: as for ``create``.
            name: name of the collection, or an alias of it.
            encoder: encoder that must be the collection's; None: it is rebuilt from what the collection keeps.
            model: model that makes the query's tokens, as for ``create``; None: it is not compared.
            consistency_level: consistency of searches; None: the collection's own.
            timeout: as for ``create``.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such collection, or this library did not make it.
            EncoderMismatch: another encoder filled it, or its encoder must be given.
            ModelMismatch: the collection keeps another model.
        """
        _check(client, encoder)
        connection = Connection(name, timeout)
        opened = lifecycle.open_collection(name, encoder, as_token_model(model), consistency_level)
        return cls(client, connection, _run(client, connection, opened, retry), retry, write_retry)

    @classmethod
    def adopt(
        cls,
        client: MilvusClient,
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
    ) -> MilvusMuvera:
        """Takes over a collection of someone else, or gives one of this library another FDE field.

        Nothing of it is changed. FDEs that are there are compared with this encoder's; where there are none, run
        :meth:`backfill`::

            store = MilvusMuvera.adopt(client, "pages", encoder, tokens_vector="colbert")
            report = store.backfill(progress=True)

        Args:
            client: as for ``create``.
            name: name of the collection.
            encoder: encoder to search with.
            tokens_vector: name of an array of structs with one float vector, or what the names of text fields begin
                with (``colbert_0``, ``colbert_1`` ...); None: there are no tokens.
            fde_vector: name of the field that has the FDEs, or that is to get them.
            tokens_metric: metric that tokens in text are compared by; the index of structs says theirs.
            model: model of the stored tokens, as for ``create``; kept with the collection once it has FDEs.
            consistency_level: as for ``open``.
            timeout: as for ``create``.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            SchemaMismatch: the collection does not fit; the message names every reason.
            EncoderMismatch: FDEs that are there are not this encoder's.
            ModelMismatch: the collection keeps another model.
        """
        _check(client, encoder)
        connection = Connection(name, timeout)
        named = as_token_model(model)
        adopted = lifecycle.adopt(name, encoder, fde_vector, tokens_vector, tokens_metric, named, consistency_level)
        return cls(client, connection, _run(client, connection, adopted, retry), retry, write_retry)

    def backfill(
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

        In place (Milvus >= 2.6.18; with struct arrays >= 2.6.20) an FDE field and a mark are added, and nothing else of
        the collection changes. Others may read and write meanwhile: documents that arrive are picked up, and tokens are
        read again after each write, so that a replaced document does not keep the FDE of the old one. Repeated after a
        kill at any point, it does what is left. At the end a sample is checked.

        Args:
            progress: show a bar.
            dry_run: write nothing; the report has numbers, sizes and an estimate of the time.
            into: name of a new collection that everything is copied to instead, for servers that cannot add a vector;
                passes are repeated until the copy equals the collection. ``open`` it afterwards: this store stays at
                the old one.
            alias: name that is made to point to the new collection when it is complete.
            leave_out: fields that the copy does not get, such as the old vector where a server takes only one.
            refresh: compare the FDE of every document with its tokens, and write those that are stale again. Otherwise
                only a sample is compared, and all documents where the sample has stale ones.
            datatype: as for ``create``, like the next three; used when the field is added.
            quantization: codes of the FDEs in the index.
            index_type: type of the FDEs' index.
            index_params: parameters of the FDEs' index.

        Raises:
            Unsupported: the server cannot add a vector and ``into`` is not given.
            CollectionExists: ``into`` exists and is not an unfinished copy of this collection.
            InvalidInput: ``refresh`` and ``into`` are both given, or the codes do not fit the index.
            MuveraError: documents kept changing, or the sample disagrees.
        """
        if refresh and into is not None:
            raise InvalidInput("refresh=True compares the FDEs of this collection: it does not go with into=")
        plan = Plan(
            datatype=datatype, quantization=quantization, index_type=index_type, index_params=index_params or {}
        )
        check_codes(plan)
        if into is not None and not dry_run:
            return self._write("backfill", copying.copy(self._collection, into, alias, leave_out, plan, progress))
        add, keep = partial(lifecycle.add_fde, self._collection, plan), lifecycle.write_state
        filled = backfilling.backfill(self._collection, add, keep, dry_run, progress, refresh)
        report, self._collection = self._write("backfill", filled)
        return report

    def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares the FDE of every document with its stored tokens; nothing is written.

        Another program may have replaced tokens without the FDE: ``backfill(refresh=True)`` writes such FDEs again.

        Args:
            limit: number of documents to compare, the first in the order of keys; None: all of them.
            progress: show a bar.

        Raises:
            InvalidInput: no tokens are stored, there are no FDEs yet, or ``limit`` is below 1.
        """
        return self._do("verify", backfilling.verify(self._collection, limit, progress))

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
        return self._do("fit_queries", fit_queries(access, queries, documents, rank, seed, progress))

    def remove_fde(self) -> None:
        """Undoes an adoption: removes the FDE field and what this library keeps with the collection, and nothing else.

        The collection is the caller's as before. Milvus removes fields since 3.0.

        Raises:
            Unsupported: the server cannot remove the field. It stays, emptied where it may be empty; everything else of
                this library is removed.
        """
        problem = self._write("remove_fde", lifecycle.remove_fde(self._collection))
        self._collection = dataclasses.replace(
            self._collection, fde_exists=problem is not None, has_fde=False, marker=False
        )
        if problem is not None:
            raise problem

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
        """Encodes and writes documents in batches by bytes.

        Of a document that is there, the FDE, the tokens, the vectors and the payload keys that the call names are
        written; everything else stays. Servers before Milvus 2.6.20 cannot do that themselves: there, documents are
        read and written again, and an update by someone else between the two is lost.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None. None or an empty dictionary leaves a payload as it is.
            progress: show a bar.
            vectors: values of other vector fields by name, n of each, as the client takes them; None: not written.
            replace: write the whole document; whatever the call does not name is gone.
            zero_rows: what to do with token vectors that are all zeros: ``"refuse"``, or ``"drop"`` to leave them out.

        Returns:
            Every document as written or failed; failed are those that the database rejected individually.

        Raises:
            InvalidInput: lengths differ, an id is not valid or given twice, a payload cannot be stored, a vector is
                unknown, tokens cannot be encoded or exceed a limit of Milvus; the message says where. Nothing was
                written.
            WriteInterrupted: the database stopped answering or takes no writes; ``report`` has what was written.
                Repeat the call.
        """
        written = writing.upsert(self._collection, ids, tokens, payloads, progress, vectors, replace, zero_rows)
        return self._write("upsert", written)

    def search(
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
            query_tokens: (m, token_dim).
            limit: maximum number of hits to return.
            prefetch: number of candidates of the first stage; more of them give a higher recall.
            rerank: ``"native"``: MaxSim by the server, of exactly the candidates (those that it leaves out are scored
                by this library); ``"client"``: the candidates' tokens are fetched and scored by this library;
                ``"none"``: the encoder's estimate; ``"native_muvera"``: Milvus's own encoding in one request, which
                reranks ``prefetch``; ``"auto"``: native where the server has the tokens in structs and without codes,
                else client.
            filter: expression, applied to both stages.
            offset: number of best hits to skip.
            score_threshold: lowest score of a hit.
            with_payload: return payloads: all, none, or some keys.
            with_tokens: return token matrices.
            with_fde_score: accepted as by all stores; every mode but ``"native_muvera"`` returns it anyway.
            search_params: search parameters of the FDEs' index, such as ``{"nprobe": 64}``; None: a beam of twice the
                candidates in HNSW, what DISKANN needs at least, and the server's defaults elsewhere.
            count_missing: count the documents that have no FDE, which no search finds; at most every 30 seconds,
                beside the search.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`; ``fde_score`` is then the corrected
                estimate, whose differences between documents are those of MaxSim and whose level says nothing.
            also: further searches for candidates: ``AnnSearchRequest`` of pymilvus for other fields, and expressions,
                whose documents come without an order. Their documents and those of the FDEs are reranked together. Each
                search brings at most ``prefetch`` of them, or as many as its own limit. ``filter`` holds for all
                searches.
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
            ``without_fde`` is the number of documents that no search finds (None where Milvus cannot tell).

        Raises:
            EncoderMismatch: ``query_fit`` corrects another encoder.
            InvalidInput: the query cannot be encoded, a number is out of range, an expression's brackets or quotes are
                not closed, or tokens are not stored.
            StoreUnavailable: the server did not answer within ``timeout`` seconds, or repeating has not helped.
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
        found = self._do("search", searching.search(self._collection, [query_tokens], options), search_limit(timeout))
        return found[0]

    def prefetch(
        self,
        query_tokens: ArrayLike,
        limit: int = 200,
        *,
        filter: str | None = None,
        weights: ArrayLike | None = None,
        query_fit: QueryFit | None = None,
        search_params: Mapping[str, Any] | None = None,
    ) -> AnnSearchRequest:
        """The first stage of :meth:`search` as an ``AnnSearchRequest``, for a ``hybrid_search`` of your own.

        Scores of the database are those of an FDE that was scaled, so only their order is that of ``fde_score``.

        Args:
            query_tokens: (m, token_dim) token vectors of the query.
            limit: number of candidates.
            filter: condition that its documents must pass.
            weights: (m,) weights of the query's tokens; None: 1 each.
            query_fit: correction of the query's FDE, from :meth:`fit_queries`.
            search_params: parameters of the index; None: those of :meth:`search`.

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
        return self._do("prefetch", searching.prefetch(self._collection, query_tokens, options), search_limit(None))

    def point_id(self, document_id: DocumentId) -> int | str:
        """The primary key of a document, as :meth:`upsert` writes it.

        Raises:
            InvalidInput: not a valid id, or one that the collection's keys cannot hold.
        """
        return to_key(document_id, 0, self._collection.keys, self._collection.max_key)

    def document_id(self, point: Mapping[str, Any]) -> DocumentId:
        """The id that :meth:`upsert` was given, from a hit or a row that the client returned.

        Raises:
            InvalidInput: it has no primary key.
        """
        return reading.document_id(self._collection, point)

    def search_batch(
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
            search_params=search_params,
            count_missing=count_missing,
        )
        return self._do(
            "search_batch",
            searching.search(self._collection, queries, options, at_once),
            search_limit(timeout, len(queries)),
        )

    def exact_search(
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

        It takes a request for every 1,000 documents. Arguments are those of :meth:`search`, but without ``timeout``
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
        return self._do("exact_search", searching.exact_search(self._collection, query_tokens, options), timeout)

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
        return self._do("explain", explained, timeout)

    def get(
        self, ids: Sequence[DocumentId], *, with_tokens: bool = False, timeout: float | None = None
    ) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none.

        Args:
            ids: ids of the documents.
            with_tokens: return token matrices.
            timeout: seconds to wait for the database in all; None: no limit.
        """
        return self._do("get", reading.get(self._collection, ids, with_tokens), timeout)

    def scroll(
        self, *, filter: str | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> Iterator[Document]:
        """All documents that pass the filter, in the order of keys, ``page_size`` per request."""
        chosen, cursor = checked(filter), None
        while True:
            page = reading.one_page(self._collection, chosen, page_size, cursor, with_tokens)
            documents, cursor = self._do("scroll", page)
            for document in documents:
                yield document
            if cursor is None:
                return

    def count(self, *, filter: str | None = None, timeout: float | None = None) -> int:
        """The exact number of documents that pass the filter.

        Args:
            filter: expression.
            timeout: seconds to wait for the database in all; None: no limit.
        """
        return self._do("count", reading.count(self._collection, checked(filter)), timeout)

    def filter_of(self, condition: Condition) -> str:
        """The expression of a condition in no database's words, for ``filter=`` of the other methods.

        On milvus-lite, booleans are equal to 0 and 1.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`.

        Raises:
            Unsupported: ``text``, a comparison of dates, or, on servers, ``empty`` of a key that is not declared; the
                message names the operator.
            InvalidInput: an id is not valid, or a key cannot be written in an expression.
        """
        return to_expression(condition, self._collection)

    def delete(
        self, ids: Sequence[DocumentId] | None = None, *, filter: str | None = None, everything: bool = False
    ) -> None:
        """Deletes documents by ids, or those that pass a filter; ids that are not there are no error.

        Args:
            ids: ids of documents.
            filter: expression.
            everything: delete all documents; needed where ``filter`` is None or empty.

        Raises:
            InvalidInput: both or neither of ``ids`` and ``filter`` are given, or the filter is empty.
        """
        self._write("delete", writing.delete(self._collection, ids, filter, everything))

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Flushes, and returns when nothing is left to index.

        Returns:
            Number of documents without index, as ``info().unindexed``; None of milvus-lite, which does not say. A
            server counts segments of fewer than 1,024 documents as indexed, though it builds no index for them.

        Raises:
            StoreUnavailable: documents are still being indexed after ``timeout`` seconds.
        """
        return self._write("wait_indexed", writing.wait_indexed(self._collection, timeout))

    def ping(self, timeout: float = 5.0) -> float:
        """Asks the database for a document that need not exist: the cheapest request that needs the collection.

        It is sent once, without repetition.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Seconds that the answer took.

        Raises:
            StoreUnavailable: the database did not answer within ``timeout`` seconds, or cannot be reached.
            AccessDenied: the database rejects the credentials.
            CollectionNotFound: the collection is gone.
        """
        return self._do("ping", timed(reading.ping(self._collection)), timeout, ONCE)

    def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection; documents without tokens in structs, exact up to 1,000."""
        return self._do("info", reading.info(self._collection))

    def drop(self) -> None:
        """Deletes the collection."""
        self._write("drop", lifecycle.drop(self._collection.name))

    def close(self) -> None:
        """Does nothing, as a store keeps nothing open: the client is the caller's, who closes it."""

    def __enter__(self) -> MilvusMuvera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        encoder = self._collection.encoder
        return (
            f"{type(self).__name__}({self.name!r}, encoder {encoder.fingerprint[:8]} of {encoder.dim} dimensions, "
            f"{self._collection.server.engine})"
        )

    def _do(self, call: str, operation: Operation[T], timeout: float | None = None, retry: Retry | None = None) -> T:
        engine, place = self._collection.server.engine, address_of(self.client)
        database = f"{engine} at {place}" if place else engine
        deadline = deadline_of(operation, timeout, database)
        with traced(call, self.name, database) as done:
            return done(_run(self.client, self._connection, operation, retry or self._retry, deadline))

    def _write(self, call: str, operation: Operation[T]) -> T:
        return self._do(call, operation, retry=self._write_retry)


def _check(client: Any, encoder: Any) -> None:
    check_kind(client, MilvusClient)
    if encoder is not None:
        check_encoder_type(encoder)


def _run(
    client: MilvusClient,
    connection: Connection,
    operation: Operation[T],
    retry: Retry,
    deadline: Deadline | None = None,
) -> T:
    deadline = Deadline() if deadline is None else deadline

    def carry_out(call: Call[Any, Any]) -> Any:
        try:
            return call.read(send(client, connection, call, deadline.left))
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            raise translate(error, connection.name, address_of(client)) from error

    return run(operation, carry_out, retry, deadline)
