"""AsyncQdrantMuvera: two-stage search in a Qdrant server, or in qdrant-client's local mode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, models

from muvera_adapters.errors import StoreUnavailable
from muvera_adapters.explanation import Explanation
from muvera_adapters.qdrant import backfilling, copying, lifecycle, query_fitting, reading, searching, writing
from muvera_adapters.qdrant.client import (
    TIMEOUT,
    Connection,
    address_of,
    check_kind,
    filters_of,
    send_async,
    to_prefetch,
    wire_of,
)
from muvera_adapters.qdrant.collection import FDE, LOCAL, Collection
from muvera_adapters.qdrant.conditions import to_filter
from muvera_adapters.qdrant.prepare import check_query
from muvera_adapters.qdrant.schema import FDEQuantization, Quantization, Tokens, fde_params, plan
from muvera_adapters.qdrant.search_plan import Options
from muvera_adapters.qdrant.searching import Rerank
from muvera_adapters.results import (
    BackfillReport,
    Document,
    DocumentId,
    Hits,
    StoreInfo,
    VerifyReport,
    WriteReport,
)
from muvera_adapters.stores.checks import ZeroRows, check_encoder_type
from muvera_adapters.stores.choosing import EncoderOption
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.explaining import Explained, explain
from muvera_adapters.stores.ids import to_point_id
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


class AsyncQdrantMuvera:
    """Two-stage search in Qdrant: FDEs in an HNSW index, tokens as a multivector without an index.

    :meth:`create`, :meth:`open` and :meth:`adopt` make a store. The client stays the caller's: the store never closes
    or reconfigures it, not even in :meth:`close` and at the end of ``async with``. A client made with
    ``prefer_grpc=True`` sends a fifth of the bytes. The asynchronous store encodes in a worker thread, so that it does
    not block the event loop; qdrant-client's local mode does block it.

    Every error is a :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as ``__cause__``:
    ``InvalidInput`` (before anything is sent), ``CollectionNotFound``, ``Rejected`` (by the database),
    ``AccessDenied``, ``Unsupported`` or ``StoreUnavailable`` (after the retries).

    Example::

        encoder = FDEEncoder(FDEConfig(dim=128))
        store = await AsyncQdrantMuvera.create(client, "passages", encoder)
        await store.upsert(["a", "b"], [tokens_of_a, tokens_of_b], [{"year": 1980}, {"year": 1990}])
        await store.wait_indexed()
        for hit in await store.search(query_tokens, limit=10):
            print(hit.id, hit.score, hit.payload)

    Attributes:
        client: the caller's client.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
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
        self._closed = False

    def __repr__(self) -> str:
        encoder = self._collection.encoder
        return (
            f"AsyncQdrantMuvera({self.name!r}, encoder {encoder.fingerprint[:8]} of {encoder.dim} dimensions, "
            f"{self._connection.engine})"
        )

    @property
    def encoder(self) -> Encoder:
        """Encoder of documents and queries."""
        return self._collection.encoder

    @property
    def name(self) -> str:
        """Name of the collection, or the alias by which it was opened."""
        return self._collection.name

    @property
    def fde_name(self) -> str:
        """Name of the vector with the FDEs."""
        return self._collection.fde

    @property
    def tokens_name(self) -> str | None:
        """Name of the multivector with the tokens; None if tokens are not stored."""
        return self._collection.tokens

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as given to :meth:`create` or :meth:`adopt`; None: not given."""
        return self._collection.model

    @classmethod
    async def create(
        cls,
        client: AsyncQdrantClient,
        name: str,
        encoder: EncoderOption,
        *,
        sample: Any = None,
        quantization: FDEQuantization = "auto",
        store_tokens: bool = True,
        datatype: models.Datatype = models.Datatype.FLOAT16,
        on_disk: bool | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        tokens: Tokens = "float16",
        tokens_quantization: Quantization = None,
        tokens_on_disk: bool | None = True,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        shard_number: int | None = None,
        sharding_method: models.ShardingMethod | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        on_disk_payload: bool | None = None,
        tenant_field: str | None = None,
        model: TokenModel | str | None = None,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncQdrantMuvera:
        """Creates an empty collection.

        Args:
            client: client of a server >= 1.16, or of qdrant-client's local mode.
            name: name of the new collection.
            encoder: encoder of documents and queries; it is stored in the collection's metadata. ``"auto"``: the
                smallest encoder that reaches a recall of .95 on ``sample``.
            sample: token matrices of some thousand documents; needed with ``encoder="auto"``, not allowed otherwise.
                The choice takes up to a minute.
            quantization: quantization of the FDEs in the index: ``"int8"``, ``"turbo4"`` and ``"turbo2"`` (server >=
                1.18), ``"binary"`` (2 bits), ``"product"`` (2 bits), None, or an object of ``models``. ``"auto"``:
                ``"turbo2"`` from 1,280 dimensions on if the server has it, otherwise ``"int8"``.
            store_tokens: whether to store token matrices for the second stage.
            datatype: data type of the stored FDEs.
            on_disk: whether to keep FDEs on disk instead of in memory; None: only if they are quantized.
            hnsw_config: parameters of the FDE index; None: m=16, ef_construct=100.
            tokens: how token matrices are stored: ``"float32"``, ``"float16"``, ``"turbo8"`` (8 bits, server >= 1.20),
                ``"turbo4"`` (4 bits, server >= 1.19), or a ``models.Datatype``. FDEs are computed from the given
                tokens, not from the stored ones.
            tokens_quantization: quantization of the token matrices.
            tokens_on_disk: whether to keep token matrices on disk instead of in memory.
            optimizers_config: settings of the optimizers; None: a segment is indexed when its FDEs, or its tokens, take
                as many bytes as 2,000 FDEs, and at least 10 MB.
            shard_number: as in ``create_collection``, like the next four.
            sharding_method: as in ``create_collection``; custom sharding needs ``shard_key_selector`` in the calls.
            replication_factor: as in ``create_collection``.
            write_consistency_factor: as in ``create_collection``.
            on_disk_payload: as in ``create_collection``.
            tenant_field: payload key that holds the tenant. It gets a tenant index; filter by it in every search.
            model: model of the tokens: its name (``"org/model@revision"``), or a :class:`~muvera_adapters.TokenModel`
                with its prompts. It is stored with the collection. None: unknown.
            timeout: time limit of one request, in seconds; None: that of the client (5 by default). Writes over gRPC
                always use the client's.
            retry: how to repeat requests that failed because the database was unreachable or overloaded.
            write_retry: the same for bulk writes (``upsert``, ``backfill``, ``delete``, ``remove_fde``, ``drop``) and
                ``wait_indexed``. The default outlasts a restart of the server that takes a minute.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            Unsupported: the server is too old.
            InvalidInput: ``"auto"`` without a sample, a sample without ``"auto"``, or a sample that cannot be used.
        """
        named = as_token_model(model)
        connection = await _connect(client, name, timeout, retry)
        choosing = lifecycle.choose(connection, encoder, sample, quantization)
        choice = await _run(client, connection, choosing, retry)
        check_encoder_type(choice.encoder)
        planned = plan(
            choice.encoder,
            connection.version,
            quantization=choice.quantization,
            store_tokens=store_tokens,
            datatype=datatype,
            on_disk=on_disk,
            hnsw_config=hnsw_config,
            tokens=tokens,
            tokens_quantization=tokens_quantization,
            tokens_on_disk=tokens_on_disk,
            optimizers_config=optimizers_config,
            shard_number=shard_number,
            sharding_method=sharding_method,
            replication_factor=replication_factor,
            write_consistency_factor=write_consistency_factor,
            on_disk_payload=on_disk_payload,
            model=named,
        )
        made = lifecycle.create(connection, choice.encoder, planned, tenant_field, named)
        return cls(client, connection, await _run(client, connection, made, retry), retry, write_retry)

    @classmethod
    async def open(
        cls,
        client: AsyncQdrantClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        model: TokenModel | str | None = None,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncQdrantMuvera:
        """Opens a collection that :meth:`create` made, or that was adopted and backfilled.

        Args:
            client: as for ``create``.
            name: name of the collection, or of an alias.
            encoder: encoder to use, which must be the one that filled the collection; None: it is rebuilt from what the
                collection stores.
            model: model that makes the query tokens, as for ``create``; it is compared with the model that the
                collection stores. None: not compared.
            timeout: as for ``create``.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such collection, or this library did not create or adopt it.
            EncoderMismatch: the collection was filled with another encoder, or its encoder cannot be rebuilt and must
                be given.
            ModelMismatch: the collection stores another model.
            SchemaMismatch: the collection's vectors were changed; the message names each difference.
        """
        named = as_token_model(model)
        connection = await _connect(client, name, timeout, retry)
        opened = lifecycle.open_collection(connection, encoder, named)
        return cls(client, connection, await _run(client, connection, opened, retry), retry, write_retry)

    @classmethod
    async def adopt(
        cls,
        client: AsyncQdrantClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        model: TokenModel | str | None = None,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> AsyncQdrantMuvera:
        """Takes over an existing collection, or gives one of this library another FDE vector.

        If ``fde_vector`` already has FDEs (of fastembed, say: ``FDEConfig.fastembed``), a sample of them is compared
        with what the encoder makes of the stored tokens, and the encoder is written to the metadata. Otherwise nothing
        is written, and :meth:`backfill` adds the FDEs.

        To change to another encoder, name another ``fde_vector`` (``"fde_v2"``). :meth:`open` still gives the old
        vector until :meth:`backfill` of this store has filled the new one. :meth:`remove_fde` undoes an adoption.

        Args:
            client: as for ``create``.
            name: name of the collection.
            encoder: encoder of the FDEs, existing or future.
            tokens_vector: name of the multivector with the tokens (MaxSim; dot or cosine); ``""``: the one without a
                name; None: there is none.
            fde_vector: name of the vector with the FDEs; :meth:`backfill` adds it if it is missing.
            model: model of the stored tokens, as for ``create``; it is stored with the collection once there are FDEs.
            timeout: as for ``create``.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unsuitable; the message names each difference.
            EncoderMismatch: the stored FDEs are those of another encoder.
            ModelMismatch: the collection stores another model.
        """
        named = as_token_model(model)
        connection = await _connect(client, name, timeout, retry)
        adopted = lifecycle.adopt(connection, encoder, fde_vector, tokens_vector, named)
        return cls(client, connection, await _run(client, connection, adopted, retry), retry, write_retry)

    async def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        refresh: bool = False,
        quantization: FDEQuantization = "auto",
        datatype: models.Datatype = models.Datatype.FLOAT16,
        on_disk: bool | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        into: str | None = None,
        alias: str | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        In place (server >= 1.18, local mode), the FDE vector is added to the collection, and nothing else in it
        changes. Others may read and write meanwhile: new documents get an FDE too, and tokens are read again after each
        write, so that a replaced document does not keep the FDE of its old tokens. After a kill at any point, repeat
        the call to do the rest. At the end, a random sample of FDEs is compared with the tokens. If one of them is
        stale (computed from other tokens), all are compared and stale ones are written again, as with ``refresh``.

        Args:
            progress: whether to show a progress bar.
            dry_run: whether to write nothing; the report has numbers, sizes and an estimate of the time.
            refresh: whether to compare the FDE of every document with its tokens, and to write stale ones again. It
                reads all tokens. An FDE becomes stale when another program replaces the tokens without it.
            quantization: as for ``create``; used when the vector is added.
            datatype: as for ``create``; used when the vector is added.
            on_disk: as for ``create``; used when the vector is added.
            hnsw_config: as for ``create``; used when the vector is added.
            into: name of a new collection to copy everything to instead, for servers that cannot add a vector. Passes
                are repeated until the copy equals the collection. Open the copy afterwards: this store stays with the
                old collection. A multivector without a name is called ``tokens`` in the copy.
            alias: alias to point to the new collection when it is complete.
            shard_key_selector: shards to work on, in a collection with custom sharding.

        Raises:
            Unsupported: the server is older than 1.18 and ``into`` is not given, or the collection to copy is sharded
                by keys.
            CollectionExists: ``into`` exists and is not an unfinished copy of this collection.
            MuveraError: documents kept changing.
        """
        version = self._connection.version
        params = fde_params(self.encoder, quantization, datatype, hnsw_config, on_disk, version)
        if into is not None and not dry_run:
            return await self._write(
                "backfill", copying.copy(self._connection, self._collection, into, alias, params, progress)
            )
        add = partial(lifecycle.add_fde, self._connection, self._collection, params)
        keep = partial(lifecycle.keep, self._connection)
        filled = backfilling.backfill(
            self._collection, add, keep, dry_run, progress, shard_key_selector, refresh=refresh
        )
        report, self._collection = await self._write("backfill", filled)
        return report

    async def verify(
        self,
        limit: int | None = None,
        progress: bool = False,
        *,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> VerifyReport:
        """Compares the FDEs of documents with their stored tokens; nothing is written.

        ``backfill(refresh=True)`` writes stale FDEs again.

        Args:
            limit: number of documents to read, in the order of the points' ids; None: all of them.
            progress: whether to show a progress bar.
            shard_key_selector: shards to read, in a collection with custom sharding.

        Returns:
            Ids of documents whose FDE is stale (computed from other tokens), and numbers of documents without an FDE.

        Raises:
            InvalidInput: no tokens are stored.
        """
        return await self._do("verify", backfilling.verify(self._collection, limit, progress, shard_key_selector))

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
        """Removes the FDE vector and its metadata; everything else stays.

        It undoes :meth:`adopt` and :meth:`backfill`. Documents that this store wrote stay, with ``_muvera_id`` in their
        payload if their id differs from that of the point.

        Raises:
            Unsupported: the server is older than 1.18; an empty vector stays.
        """
        self._collection = await self._write("remove_fde", lifecycle.remove_fde(self._connection, self._collection))

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
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> WriteReport:
        """Encodes documents and writes them, in batches limited by bytes.

        A document that already exists keeps what the call does not name: other vectors, other top-level keys of its
        payload, and its whole payload if none is given for it.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries (None: no payload), or None; :mod:`muvera_adapters.stores.payloads` lists the
                values that can be stored.
            progress: whether to show a progress bar.
            vectors: other vectors of the collection by name, n of each (None: not written), as lists, arrays,
                ``models.SparseVector`` ...
            replace: whether documents that already exist lose everything that the call does not name.
            zero_rows: what to do with all-zero token vectors (padding): ``"refuse"`` the documents, or ``"drop"`` the
                vectors and count them.
            shard_key_selector: shard to write to, in a collection with custom sharding.

        Returns:
            A report in which every document is either written or failed; failed are those that the database rejected
            individually.

        Raises:
            InvalidInput: lengths differ, an id is not valid or given twice, a payload cannot be stored, a vector is not
                in the collection, or tokens cannot be encoded or exceed a limit of Qdrant; the message says where.
                Nothing was written.
            WriteInterrupted: the database stopped answering; ``report`` has what was written. Repeat the call.
        """
        written = writing.upsert(
            self._collection,
            ids,
            tokens,
            payloads,
            progress,
            shard_key_selector,
            vectors=vectors,
            replace=replace,
            zero_rows=zero_rows,
        )
        return await self._write("upsert", written)

    async def search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: models.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] | models.PayloadSelector = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[models.Prefetch] | None = None,
        fusion: Fusion | None = None,
        weights: ArrayLike | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        search_params: models.SearchParams | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Finds the documents most similar to a query.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: maximum number of hits to return.
            prefetch: number of candidates of the first stage, in every shard; more candidates give a higher recall.
            rerank: how candidates are scored. ``"native"``: MaxSim by the server, in the same request. ``"client"``:
                tokens are fetched and scored in this process. ``"none"``: no second stage; scores are the encoder's
                estimates. ``"auto"``: native if tokens are stored.
            filter: condition that documents must pass, in both stages.
            offset: number of hits to skip.
            score_threshold: minimum score of a hit.
            with_payload: whether to return payloads: all, none, some keys, or by a selector.
            with_tokens: whether to return token matrices.
            with_fde_score: whether to return ``fde_score`` even if that takes a second query in the request.
            count_missing: whether to count the documents without an FDE, which no search finds, for
                ``Hits.without_fde`` and a warning. The count runs beside the search, at most every 30 seconds.
            query_fit: correction of the query FDE, from :meth:`fit_queries`. ``fde_score`` is then the corrected
                estimate: its differences between documents estimate those of MaxSim, its absolute value means nothing.
            also: further searches for candidates: ``models.Prefetch`` of qdrant-client, which may be nested. Their
                documents are reranked together with those of the FDEs. Each search adds at most ``prefetch`` documents,
                or as many as its own limit. ``filter`` applies to all searches.
            fusion: ``"rrf"``, or an :class:`~muvera_adapters.RRF`: hits are ranked by their ranks in the lists of
                ``also`` and in the MaxSim ranking (with ``rerank="none"``, the FDE ranking). None: by MaxSim alone.
            weights: weights of the query tokens in both stages, (m,), at least 0; None: all are 1.
            group_by: payload key, or path of keys joined by dots; the best hits of each of its values are returned, and
                ``limit`` and ``offset`` count values. See ``Hits.groups``.
            group_size: maximum number of hits of one value.
            stop_after: with ``rerank="client"`` (which ``"auto"`` then means), stop fetching tokens after this number
                of consecutive candidates of which none is among the best hits; None: score all candidates.
            search_params: parameters of the first stage; None: a beam of twice the candidates, and rescoring of binary
                and product codes with the original FDEs.
            shard_key_selector: shards to search, in a collection with custom sharding.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; ``math.inf``: no
                limit. None: 10 seconds, and in :meth:`search_batch` one more second for each query after the first. The
                local mode cannot be interrupted: there, time is checked only between requests.

        Returns:
            At most ``limit`` hits, best first. ``Hits.unscored`` lists candidates that have no tokens.
            ``Hits.without_fde`` is the number of documents without an FDE; if it is above 0, a
            :class:`~muvera_adapters.errors.MissingFDEs` warning is given, once.

        Raises:
            EncoderMismatch: ``query_fit`` corrects another encoder.
            InvalidInput: the query cannot be encoded, a number is out of range, or tokens are not stored.
            StoreUnavailable: the server did not answer within ``timeout`` seconds, or retries did not help.
        """
        o = Options(
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
            fde_scores=with_fde_score,
            params=search_params,
            shard_key=shard_key_selector,
        )
        found = await self._do(
            "search", searching.search(self._collection, [query_tokens], o, count_missing), search_limit(timeout)
        )
        return found[0]

    async def prefetch(
        self,
        query_tokens: ArrayLike,
        limit: int = 200,
        *,
        filter: models.Filter | None = None,
        weights: ArrayLike | None = None,
        query_fit: QueryFit | None = None,
        search_params: models.SearchParams | None = None,
    ) -> models.Prefetch:
        """Returns the first stage of :meth:`search` as a ``models.Prefetch``, for a query of your own.

        The FDE in it is scaled: scores that the database returns have the order of ``fde_score``, but not its values.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: number of candidates.
            filter: condition that documents must pass.
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
            params=search_params,
        )
        first = await self._do(
            "prefetch", searching.prefetch(self._collection, query_tokens, options), search_limit(None)
        )
        return to_prefetch(first, self._connection.wire)

    def point_id(self, document_id: DocumentId) -> int | str:
        """Returns the id of a document's point, as :meth:`upsert` writes it.

        Raises:
            InvalidInput: ``document_id`` is not a valid id.
        """
        return to_point_id(document_id, 0)[0]

    def document_id(self, point: models.Record | models.ScoredPoint) -> DocumentId:
        """Returns the id that :meth:`upsert` was given, from a point that the client returned with its payload.

        Raises:
            InvalidInput: the point has no payload, which may hold the id.
        """
        return reading.document_id(point.id, point.payload)

    async def search_batch(
        self,
        queries: Sequence[ArrayLike],
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: models.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] | models.PayloadSelector = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[Sequence[models.Prefetch] | None] | None = None,
        fusion: Fusion | None = None,
        weights: Sequence[ArrayLike | None] | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        search_params: models.SearchParams | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Runs :meth:`search` for several queries, in as few requests as their bytes allow.

        ``also`` and ``weights`` have one entry, or None, for each query.
        """
        o = Options(
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
            fde_scores=with_fde_score,
            params=search_params,
            shard_key=shard_key_selector,
        )
        return await self._do(
            "search_batch",
            searching.search(self._collection, queries, o, count_missing),
            search_limit(timeout, len(queries)),
        )

    async def exact_search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        *,
        filter: models.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] | models.PayloadSelector = True,
        with_tokens: bool = False,
        weights: ArrayLike | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Ranks all documents by MaxSim: the exact ranking that :meth:`search` approximates.

        Arguments are those of :meth:`search`, but ``timeout=None`` means no limit. A server in strict mode may forbid
        it.
        """
        o = Options(
            limit=limit,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            weights=None if weights is None else [weights],
            shard_key=shard_key_selector,
        )
        return await self._do("exact_search", searching.exact_search(self._collection, query_tokens, o), timeout)

    async def explain(
        self,
        query_tokens: ArrayLike,
        ids_or_hits: Explained | Sequence[Explained],
        *,
        weights: ArrayLike | None = None,
        best: int = 1,
        shard_key_selector: models.ShardKeySelector | None = None,
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
            shard_key_selector: shards to read, in a collection with custom sharding.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.

        Returns:
            One explanation for each document, in the given order; None for an id that does not exist and for a document
            without tokens.

        Raises:
            InvalidInput: the query cannot be encoded, a weight or ``best`` is out of range, an id is not valid, tokens
                are not stored, or those of a document have another width, NaN or infinite values.
        """
        read = partial(reading.get, self._collection, with_tokens=True, shard_key=shard_key_selector)
        explained = explain(self._collection, query_tokens, ids_or_hits, check_query, read, weights=weights, best=best)
        return await self._do("explain", explained, timeout)

    async def get(
        self,
        ids: Sequence[DocumentId],
        *,
        with_tokens: bool = False,
        shard_key_selector: models.ShardKeySelector | None = None,
        timeout: float | None = None,
    ) -> list[Document | None]:
        """Returns documents in the order of ``ids``, None for each id that does not exist.

        Args:
            ids: ids of the documents.
            with_tokens: whether to return token matrices.
            shard_key_selector: shards to read, in a collection with custom sharding.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return await self._do("get", reading.get(self._collection, ids, with_tokens, shard_key_selector), timeout)

    async def scroll(
        self,
        *,
        filter: models.Filter | None = None,
        with_tokens: bool = False,
        page_size: int = 100,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> AsyncIterator[Document]:
        """Yields all documents that pass the filter, in the order of point ids, reading ``page_size`` at a time."""
        offset = None
        while True:
            page = reading.page(self._collection, filter, page_size, offset, with_tokens, shard_key_selector)
            documents, offset = await self._do("scroll", page)
            for document in documents:
                yield document
            if offset is None:
                return

    async def count(
        self,
        *,
        filter: models.Filter | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        timeout: float | None = None,
    ) -> int:
        """Returns the exact number of documents that pass the filter.

        Args:
            filter: condition that documents must pass.
            shard_key_selector: shards to count in, in a collection with custom sharding.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return await self._do("count", reading.count(self._collection, filter, shard_key_selector), timeout)

    async def filter_of(self, condition: Condition) -> models.Filter:
        """Translates a condition that is independent of the database, for ``filter=`` of the other methods.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`.

        Raises:
            InvalidInput: an id is not valid, or a key cannot be part of a path.
            Unsupported: the condition searches within a text, and the server is older than 1.20.
        """
        return to_filter(condition, filters_of(self._connection))

    async def delete(
        self,
        ids: Sequence[DocumentId] | None = None,
        *,
        filter: models.Filter | None = None,
        everything: bool = False,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Deletes documents by ids or by filter; ids that do not exist are ignored.

        Args:
            ids: ids of the documents.
            filter: condition that documents must pass.
            everything: whether to delete all documents; needed if ``filter`` has no conditions, or if neither ``ids``
                nor ``filter`` is given.
            shard_key_selector: shards to delete in, in a collection with custom sharding.

        Raises:
            InvalidInput: not exactly one of ``ids`` and ``filter`` is given, or the filter has no conditions; see
                ``everything``.
        """
        await self._write(
            "delete", writing.delete(self._collection, ids, filter, shard_key_selector, everything=everything)
        )

    async def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Waits until the server has finished indexing.

        Segments below the indexing threshold stay without index and quantization; searches scan all of their documents.

        Args:
            timeout: maximum number of seconds to wait; None: no limit.

        Returns:
            Number of such documents, as ``info().unindexed``; None if strict mode forbids counting.

        Raises:
            StoreUnavailable: indexing was not finished after ``timeout`` seconds, or it failed.
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
        """Returns numbers, sizes and state of the collection."""
        return await self._do("info", reading.info(self._collection))

    async def drop(self) -> None:
        """Deletes the collection."""
        await self._write("drop", lifecycle.drop(self._connection))

    async def close(self) -> None:
        """Ends the use of this store; the client stays open. Closing twice is allowed."""
        self._closed = True

    async def __aenter__(self) -> AsyncQdrantMuvera:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(
        self, call: str, operation: Operation[T], timeout: float | None = None, retry: Retry | None = None
    ) -> T:
        if self._closed:
            operation.close()
            raise StoreUnavailable(f"the store of {self.name} is closed")
        connection = self._connection
        deadline = deadline_of(operation, timeout, connection.database, interrupts=connection.wire is not LOCAL)
        with traced(call, self.name, connection.database) as done:
            return done(await _run(self.client, connection, operation, retry or self._retry, deadline))

    async def _write(self, call: str, operation: Operation[T]) -> T:
        return await self._do(call, operation, retry=self._write_retry)


async def _connect(client: AsyncQdrantClient, name: str, timeout: int | None, retry: Retry) -> Connection:
    check_kind(client, AsyncQdrantClient)
    wire, address = wire_of(client), address_of(client)
    unknown = Connection(name, "Qdrant", (), wire, timeout, address)
    return await _run(client, unknown, lifecycle.connect(name, wire, timeout, address), retry)


async def _run(
    client: AsyncQdrantClient,
    connection: Connection,
    operation: Operation[T],
    retry: Retry,
    deadline: Deadline | None = None,
) -> T:
    deadline = Deadline() if deadline is None else deadline

    async def carry_out(request: Any) -> Any:
        return await send_async(client, connection.limited(deadline.left), request)

    return await run_async(operation, carry_out, retry, deadline)
