# Generated from async_store.py by tools/make_sync.py; edit that file and run it.
"""WeaviateMuvera: two-stage search in a Weaviate server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar

from weaviate import WeaviateClient
from weaviate.classes.config import ConsistencyLevel, Property
from weaviate.collections.classes.config_vector_index import VectorIndexConfigCreate
from weaviate.collections.classes.filters import FilterReturn
from weaviate.collections.classes.internal import Object

from muvera_adapters.errors import MuveraError
from muvera_adapters.explanation import Explanation
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, VerifyReport, WriteReport
from muvera_adapters.stores.checks import ZeroRows, check_encoder_type
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
    run,
    search_limit,
    timed,
)
from muvera_adapters.stores.query_fitting import fit_queries
from muvera_adapters.stores.searching import Fusion, SearchOptions
from muvera_adapters.stores.token_model import TokenModel, as_token_model
from muvera_adapters.tracing import traced
from muvera_adapters.weaviate import backfilling, lifecycle, query_fitting, reading, repairing, searching, writing
from muvera_adapters.weaviate.also import Also
from muvera_adapters.weaviate.client import Call, Connection, address, check_kind
from muvera_adapters.weaviate.client import send as send_call
from muvera_adapters.weaviate.collection import Collection
from muvera_adapters.weaviate.conditions import to_filter
from muvera_adapters.weaviate.database import WEAVIATE, WORTH_TRYING
from muvera_adapters.weaviate.errors import is_doubtful, starting, translate
from muvera_adapters.weaviate.ids import from_uuid, to_uuid
from muvera_adapters.weaviate.prepare import check_matrix
from muvera_adapters.weaviate.requests import exists
from muvera_adapters.weaviate.schema import FDE, Quantization, TokensIndex, check_tokens, creation
from muvera_adapters.weaviate.searching import Rerank
from muvera_core import Encoder, QueryFit
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class WeaviateMuvera:
    """Two-stage search in Weaviate: FDEs in an HNSW index, tokens as a multi-vector in the smallest possible index.

    :meth:`create`, :meth:`open` and :meth:`adopt` make a store. The client stays the caller's: the store never closes
    or reconfigures it, not even in :meth:`close` and at the end of ``with``. Its timeouts apply.

    Every error is a :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as ``__cause__``:
    ``InvalidInput`` (before anything is sent), ``CollectionNotFound``, ``Rejected`` (by the database),
    ``AccessDenied``, ``Unsupported`` or ``StoreUnavailable`` (after the retries).

    Attributes:
        client: the caller's client.
        encoder: encoder of documents and queries.
        name: name of the collection.
        tenant: tenant that this store reads and writes; None in a collection without tenants.

    Example:
        ```python
        store = WeaviateMuvera.create(client, "Passages", encoder)
        store.upsert(["a", "b"], [tokens_a, tokens_b], [{"year": 1999}, {"year": 2024}])
        hits = store.search(query_tokens, limit=10, filter=Filter.by_property("year").greater_than(2000))
        ```
    """

    def __init__(
        self,
        client: WeaviateClient,
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

    def __repr__(self) -> str:
        of, encoder = self._collection, self.encoder
        tenant = "" if self.tenant is None else f", tenant={self.tenant!r}"
        return (
            f"{type(self).__name__}({of.name!r}{tenant}, encoder {encoder.fingerprint[:8]} of {encoder.dim} dimensions "
            f"in {of.fde!r}, {of.server.engine})"
        )

    def __enter__(self) -> WeaviateMuvera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the use of this store; the client stays open. Closing twice is allowed."""

    @property
    def encoder(self) -> Encoder:
        """Encoder of documents and queries."""
        return self._collection.encoder

    @property
    def name(self) -> str:
        """Name of the collection, as Weaviate writes it (with a capital)."""
        return self._collection.name

    @property
    def fde_name(self) -> str:
        """Name of the vector with the FDEs."""
        return self._collection.fde

    @property
    def tokens_name(self) -> str | None:
        """Name of the multi-vector with the tokens; None if tokens are not stored."""
        return self._collection.tokens

    @property
    def tenant(self) -> str | None:
        """Tenant that this store reads and writes; None in a collection without tenants."""
        return self._connection.tenant

    @property
    def model(self) -> TokenModel | None:
        """Model of the tokens, as given to :meth:`create` or :meth:`adopt`; None: not given."""
        return self._collection.model

    @classmethod
    def create(
        cls,
        client: WeaviateClient,
        name: str,
        encoder: EncoderOption,
        *,
        sample: Any = None,
        quantization: Quantization = "auto",
        store_tokens: bool = True,
        tokens: Literal["float32"] = "float32",
        vector_index_config: VectorIndexConfigCreate | None = None,
        tokens_index: TokensIndex = "rerank",
        properties: Sequence[Property] = (),
        model: TokenModel | str | None = None,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
        **options: Any,
    ) -> WeaviateMuvera:
        """Creates an empty collection.

        Args:
            client: client connected to a server >= 1.31.
            name: name of the new collection.
            encoder: encoder of documents and queries; it is stored in the description of the property ``muvera_id``.
                ``"auto"``: the smallest encoder that reaches a recall of .95 on ``sample``.
            sample: token matrices of some thousand documents; needed with ``encoder="auto"``, not allowed otherwise.
                The choice takes up to a minute.
            quantization: quantization of the FDEs in the index: ``"rq8"``, ``"rq4"`` (both without rescoring, which
                would read whole objects), ``"rq1"`` (rescores 512 candidates), None (float32), or an object of
                ``Configure.VectorIndex.Quantizer``. ``"auto"``: ``"rq8"``.
            store_tokens: whether to store token matrices for the second stage.
            tokens: how token matrices are stored: ``"float32"``. Weaviate has no other way: it quantizes only indexes.
            vector_index_config: index of the FDEs, of ``Configure.VectorIndex``; None: HNSW with 32 connections.
                Distance and quantizer are set if they are left open. ``hfresh`` compares by cosine, which needs
                document FDEs of unit length (the encoders' default), and returns at most its ``rescore_limit``. A
                fitted encoder of few dimensions finds more with a larger ``ef``.
            tokens_index: index of the token matrices. ``"rerank"``: two floats and a few links a document, used only to
                rerank on the server. ``"none"``: no index; reranking is ``"client"``. ``"hnsw"``: a node for every
                token, all of them in memory. ``Configure.VectorIndex.MultiVector.Encoding.muvera()``: Weaviate's own
                encoding, for ``rerank="native_muvera"``.
            properties: your own properties; others are left to the server's auto-schema.
            model: model of the tokens: its name (``"org/model@revision"``), or a :class:`~muvera_adapters.TokenModel`
                with its prompts. It is stored with the collection. None: unknown.
            tenant: tenant that this store reads and writes. Where it is given without ``multi_tenancy_config``, the
                collection gets tenants, of which this is the first.
            consistency_level: consistency level of reads and writes.
            retry: how to repeat requests that failed because the database was unreachable or overloaded.
            write_retry: the same for bulk writes (``upsert``, ``backfill``, ``delete``, ``remove_fde``, ``drop``,
                ``repair``) and ``wait_indexed``. The default outlasts a restart of the server that takes a minute.
            **options: options of ``client.collections.create``: ``description``, ``references``,
                ``inverted_index_config``, ``multi_tenancy_config``, ``replication_config``, ``sharding_config``.

        Returns:
            The store of the new collection.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            InvalidInput: an option is not valid, or this library sets it; ``"auto"`` without a sample, a sample without
                ``"auto"``, or a sample that cannot be used.
            Unsupported: the server is too old.
        """
        check_kind(client)
        check_tokens(tokens)
        named = as_token_model(model)
        connection = Connection(name, tenant, consistency_level)
        choosing = choose(encoder, sample, quantization, WEAVIATE.quantizations, WORTH_TRYING)
        choice = _run(client, connection, choosing, retry)
        check_encoder_type(choice.encoder)
        arguments = creation(
            choice.encoder,
            choice.quantization,
            store_tokens,
            vector_index_config,
            tokens_index,
            properties,
            options,
            named,
        )
        created = _run(client, connection, lifecycle.create(name, choice.encoder, arguments, tenant), retry)
        return cls(client, connection, created, retry, write_retry)

    @classmethod
    def open(
        cls,
        client: WeaviateClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        model: TokenModel | str | None = None,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> WeaviateMuvera:
        """Opens a collection that :meth:`create` made, or that was adopted and backfilled.

        Args:
            client: as for ``create``.
            name: name of the collection.
            encoder: encoder to use, which must be the one that filled the collection; None: it is rebuilt from what the
                collection stores.
            model: model that makes the query tokens, as for ``create``; it is compared with the model that the
                collection stores. None: not compared.
            tenant: tenant that this store reads and writes.
            consistency_level: consistency level of reads and writes.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Returns:
            The store of the collection.

        Raises:
            CollectionNotFound: there is no such collection, or this library did not create or adopt it.
            EncoderMismatch: the collection was filled with another encoder, or its encoder cannot be rebuilt and must
                be given.
            ModelMismatch: the collection stores another model.
            SchemaMismatch: the collection's vectors were changed; the message names each difference.
        """
        check_kind(client)
        connection = Connection(name, tenant, consistency_level)
        opening = lifecycle.open_collection(name, encoder, as_token_model(model))
        opened = _run(client, connection, opening, retry)
        return cls(client, connection, opened, retry, write_retry)

    @classmethod
    def adopt(
        cls,
        client: WeaviateClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        model: TokenModel | str | None = None,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
        write_retry: Retry = DEFAULT_WRITE_RETRY,
    ) -> WeaviateMuvera:
        """Takes over an existing collection, or gives one of this library another FDE vector.

        If ``fde_vector`` already has FDEs, a sample of them is compared with what the encoder makes of the stored
        tokens, and the encoder is written to the collection. Otherwise nothing is written, and :meth:`backfill` adds
        the FDEs.

        To change to another encoder, name another ``fde_vector`` (``"fde_v2"``). Searches use the old vector until
        :meth:`backfill` has filled the new one. :meth:`remove_fde` undoes an adoption.

        Args:
            client: as for ``create``.
            name: name of the collection.
            encoder: encoder of the FDEs, existing or future.
            tokens_vector: name of the multi-vector with the tokens; None: there is none.
            fde_vector: name of the vector with the FDEs; :meth:`backfill` adds it if it is missing.
            model: model of the stored tokens, as for ``create``; it is stored with the collection once there are FDEs.
            tenant: tenant to adopt; a collection with tenants is adopted and backfilled tenant by tenant.
            consistency_level: consistency level of reads and writes.
            retry: as for ``create``.
            write_retry: as for ``create``.

        Returns:
            The store of the collection.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unsuitable; the message names each difference.
            EncoderMismatch: the stored FDEs are those of another encoder.
            ModelMismatch: the collection stores another model.
        """
        check_kind(client)
        check_encoder_type(encoder)
        connection = Connection(name, tenant, consistency_level)
        adoption = lifecycle.adopt(
            name, encoder, fde_vector, tokens_vector, as_token_model(model), backfilling.check_adopted
        )
        return cls(client, connection, _run(client, connection, adoption, retry), retry, write_retry)

    def with_tenant(self, tenant: str) -> WeaviateMuvera:
        """Returns a store of the same collection for another tenant, which must exist."""
        connection = self._connection.of_tenant(tenant)
        return WeaviateMuvera(self.client, connection, self._collection, self._retry, self._write_retry)

    def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        refresh: bool = False,
        quantization: Quantization = "auto",
        vector_index_config: VectorIndexConfigCreate | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens, in place.

        Each document is patched, so its properties, references and other vectors stay. Weaviate indexes all vectors of
        a patched document anew, which takes long if tokens have an HNSW graph. Others may read and write meanwhile: new
        documents get an FDE too, and tokens are read again after each write, so that a replaced document does not keep
        the FDE of its old tokens. After a kill at any point, repeat the call to do the rest. At the end, a sample of
        FDEs is compared with the tokens. If one of them is stale (computed from other tokens), all are compared and
        stale ones are written again, as with ``refresh``.

        Args:
            progress: whether to show a progress bar.
            dry_run: whether to write nothing; the report has numbers (exact up to 1,000 documents), sizes and an
                estimate of the time.
            refresh: whether to compare the FDE of every document with its tokens, and to write stale ones again. It
                reads all tokens. An FDE becomes stale when another program replaces the tokens without it.
            quantization: as for ``create``; used when the vector is added.
            vector_index_config: as for ``create``; used when the vector is added.

        Returns:
            What was done, or would be done.

        Raises:
            InvalidInput: the collection stores no tokens.
            MuveraError: documents kept changing while their FDEs were compared.
        """
        self._collection, report = self._write(
            "backfill",
            backfilling.backfill(self._collection, quantization, vector_index_config, dry_run, progress, refresh),
        )
        return report

    def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares the FDEs of documents with their stored tokens; nothing is written.

        ``backfill(refresh=True)`` writes stale FDEs again.

        Args:
            limit: number of documents to read, in the order of their objects' UUIDs; None: all of them.
            progress: whether to show a progress bar.

        Returns:
            Ids of documents whose FDE is stale (computed from other tokens), and numbers of documents without an FDE.

        Raises:
            InvalidInput: no tokens are stored, or there are no FDEs yet.
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
        return self._do("fit_queries", fit_queries(access, queries, documents, rank, seed, progress))

    def remove_fde(self) -> None:
        """Removes the FDE vector and what this library stores in the collection; everything else stays.

        It undoes :meth:`adopt` and :meth:`backfill`. Documents keep their tokens, properties and other vectors, and the
        collection can be adopted again. Weaviate cannot remove properties: ``muvera_id``, ``muvera_fde`` and
        ``muvera_json`` stay declared, the first and the last with the values that ids and payloads need. In a
        collection with tenants, call it for each tenant.

        Raises:
            Unsupported: the server does not drop vectors, which is experimental in Weaviate 1.39 and must be enabled
                there; the rest has been removed.
        """
        self._collection = self._write("remove_fde", lifecycle.remove_fde(self._collection))

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
        """Encodes documents and writes them, in batches limited by bytes.

        A document that already exists keeps what the call does not name: other vectors, other properties, and
        references.

        Properties that do not exist are declared first, by the values of this call. Values that Weaviate would change
        (None, lists of lists, keys that are not valid names, ...) are stored as JSON in ``muvera_json``, where filters
        do not find them. The server rejects a number or text that does not fit a declared property.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries (None: no payload), or None; :mod:`muvera_adapters.stores.payloads` lists the
                values that can be stored.
            progress: whether to show a progress bar.
            vectors: other vectors of the collection by name, n of each (None: not written), in the form that Weaviate's
                client takes.
            replace: whether documents that already exist lose everything that the call does not name.
            zero_rows: what to do with all-zero token vectors (padding): ``"refuse"`` the documents, or ``"drop"`` the
                vectors and count them.

        Returns:
            A report in which every document is either written or failed; failed are those that the database rejected
            individually.

        Raises:
            InvalidInput: lengths differ, an id is not valid or given twice, or tokens cannot be encoded or exceed a
                limit of Weaviate; the message says where. Nothing was written.
            WriteInterrupted: the database stopped answering or takes no writes; ``report`` has what was written. Repeat
                the call.
        """
        return self._write(
            "upsert",
            writing.upsert(
                self._collection,
                ids,
                tokens,
                payloads,
                progress,
                vectors=vectors,
                replace=replace,
                zero_rows=zero_rows,
            ),
        )

    def search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: FilterReturn | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[Any] = True,
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
        timeout: float | None = None,
    ) -> Hits:
        """Finds the documents most similar to a query.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: maximum number of hits to return.
            prefetch: number of candidates of the first stage; more candidates give a higher recall.
            rerank: how candidates are scored. ``"native"``: MaxSim by the server, in a second request; if tokens are
                compared by cosine, it is exact only if they were stored at unit length. ``"client"``: tokens are
                fetched with the candidates and scored in this process. ``"none"``: no second stage; scores are the
                encoder's estimates. ``"native_muvera"``: Weaviate's own encoding in one request, which reranks
                ``prefetch`` candidates. ``"auto"``: native if it is exact for every candidate, otherwise client.
            filter: condition that documents must pass, in both stages.
            offset: number of hits to skip.
            score_threshold: minimum score of a hit.
            with_payload: whether to return payloads: all, none, or some properties, by name or ``QueryNested``.
            with_tokens: whether to return token matrices.
            with_fde_score: has no effect: every mode but ``"native_muvera"`` returns ``fde_score`` anyway.
            count_missing: whether to count the documents without an FDE, which no search finds, for
                ``Hits.without_fde`` and a warning. The count runs beside the search, at most every 30 seconds.
            query_fit: correction of the query FDE, from :meth:`fit_queries`. ``fde_score`` is then the corrected
                estimate: its differences between documents estimate those of MaxSim, its absolute value means nothing.
            also: further searches for candidates: :class:`~muvera_adapters.weaviate.BM25` and
                :class:`~muvera_adapters.weaviate.NearVector`. Their documents are reranked together with those of the
                FDEs. Each search adds at most ``prefetch`` documents, or as many as its own limit. ``filter`` applies
                to all searches.
            fusion: ``"rrf"``, or an :class:`~muvera_adapters.RRF`: hits are ranked by their ranks in the lists of
                ``also`` and in the MaxSim ranking (with ``rerank="none"``, the FDE ranking). None: by MaxSim alone.
            weights: weights of the query tokens in both stages, (m,), at least 0; None: all are 1.
            group_by: payload key, or path of keys joined by dots; the best hits of each of its values are returned, and
                ``limit`` and ``offset`` count values. See ``Hits.groups``.
            group_size: maximum number of hits of one value.
            stop_after: with ``rerank="client"`` (which ``"auto"`` then means), stop fetching tokens after this number
                of consecutive candidates of which none is among the best hits; None: score all candidates.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; ``math.inf``: no
                limit. None: 10 seconds, and in :meth:`search_batch` one more second for each query after the first.

        Returns:
            At most ``limit`` hits, best first. ``Hits.unscored`` lists candidates that have no tokens.
            ``Hits.without_fde`` is the number of documents without an FDE.

        Raises:
            EncoderMismatch: ``query_fit`` corrects another encoder.
            InvalidInput: the query cannot be encoded, a number is out of range, or tokens are not stored.
            StoreUnavailable: the server did not answer within ``timeout`` seconds, or retries did not help.
            Unsupported: the token index cannot do what ``rerank`` asks for.
        """
        o = SearchOptions(
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
        )
        (hits,) = self._do(
            "search",
            searching.search(self._collection, [query_tokens], o, missing=count_missing),
            search_limit(timeout),
        )
        return hits

    def prefetch(
        self,
        query_tokens: ArrayLike,
        limit: int = 200,
        *,
        filter: FilterReturn | None = None,
        weights: ArrayLike | None = None,
        query_fit: QueryFit | None = None,
    ) -> dict[str, Any]:
        """Returns the first stage of :meth:`search` as keyword arguments of ``collection.query.near_vector``.

        The FDE in it is scaled: scores that the database returns have the order of ``fde_score``, but not its values.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: number of candidates.
            filter: condition that documents must pass.
            weights: weights of the query tokens, (m,), at least 0; None: all are 1.
            query_fit: correction of the query FDE, from :meth:`fit_queries`.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, or there are no FDEs yet.
        """
        options = SearchOptions(
            limit=limit,
            prefetch=limit,
            filter=filter,
            weights=None if weights is None else [weights],
            query_fit=query_fit,
        )
        return self._do("prefetch", searching.prefetch(self._collection, query_tokens, options), search_limit(None))

    def point_id(self, document_id: DocumentId) -> str:
        """Returns the UUID of a document's object, as :meth:`upsert` writes it.

        Raises:
            InvalidInput: ``document_id`` is not a valid id.
        """
        return to_uuid(document_id, 0)[0]

    def document_id(self, point: Object[Any, Any]) -> DocumentId:
        """Returns the id that :meth:`upsert` was given, from an object that the client returned with its properties."""
        return from_uuid(str(point.uuid), point.properties or {})

    def search_batch(
        self,
        queries: Sequence[ArrayLike],
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: FilterReturn | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[Any] = True,
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
        at_once: int = 4,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Runs :meth:`search` for several queries.

        Args:
            queries: queries, each (m_i, token_dim).
            limit: as for :meth:`search`.
            prefetch: as for :meth:`search`.
            rerank: as for :meth:`search`.
            filter: as for :meth:`search`.
            offset: as for :meth:`search`.
            score_threshold: as for :meth:`search`.
            with_payload: as for :meth:`search`.
            with_tokens: as for :meth:`search`.
            with_fde_score: as for :meth:`search`.
            count_missing: as for :meth:`search`.
            query_fit: as for :meth:`search`.
            also: one list of further searches, or None, for each query.
            fusion: as for :meth:`search`.
            weights: weights of each query's tokens, or None, for each query.
            group_by: as for :meth:`search`.
            group_size: as for :meth:`search`.
            stop_after: as for :meth:`search`.
            at_once: maximum number of queries in progress at a time.
            timeout: as for :meth:`search`.

        Returns:
            The hits of every query, in the order of the queries.

        Raises:
            InvalidInput: as for :meth:`search`; the message has the position of the query.
            Unsupported: the token index cannot do what ``rerank`` asks for.
        """
        o = SearchOptions(
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
        )
        return self._do(
            "search_batch",
            searching.search(self._collection, queries, o, at_once, count_missing),
            search_limit(timeout, len(queries)),
        )

    def exact_search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        *,
        filter: FilterReturn | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[Any] = True,
        with_tokens: bool = False,
        weights: ArrayLike | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Ranks all documents by MaxSim: the exact ranking that :meth:`search` approximates.

        It sends one request for every 1,000 documents.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: maximum number of hits to return.
            filter: condition that documents must pass.
            offset: number of hits to skip.
            score_threshold: minimum score of a hit.
            with_payload: whether to return payloads: all, none, or some properties, by name or ``QueryNested``.
            with_tokens: whether to return token matrices.
            weights: as for :meth:`search`.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.

        Returns:
            At most ``limit`` hits, best first.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, or tokens are not stored.
        """
        o = SearchOptions(
            limit=limit,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            weights=None if weights is None else [weights],
        )
        return self._do("exact_search", searching.exact_search(self._collection, query_tokens, o), timeout)

    def explain(
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
        explained = explain(self._collection, query_tokens, ids_or_hits, check_matrix, read, weights=weights, best=best)
        return self._do("explain", explained, timeout)

    def get(
        self, ids: Sequence[DocumentId], *, with_tokens: bool = False, timeout: float | None = None
    ) -> list[Document | None]:
        """Returns documents in the order of ``ids``, None for each id that does not exist.

        Args:
            ids: ids of the documents.
            with_tokens: whether to return token matrices.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return self._do("get", reading.get(self._collection, ids, with_tokens), timeout)

    def scroll(
        self, *, filter: FilterReturn | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> Iterator[Document]:
        """Yields all documents that pass the filter, in the order of their UUIDs, reading ``page_size`` at a time."""
        after = None
        while True:
            page = reading.one_page(self._collection, filter, page_size, after, with_tokens)
            documents, after = self._do("scroll", page)
            for document in documents:
                yield document
            if after is None:
                return

    def count(self, *, filter: FilterReturn | None = None, timeout: float | None = None) -> int:
        """Returns the exact number of documents that pass the filter.

        Args:
            filter: condition that documents must pass.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return self._do("count", reading.count(filter), timeout)

    def filter_of(self, condition: Condition) -> FilterReturn:
        """Translates a condition that is independent of the database, for ``filter=`` of the other methods.

        Values that Weaviate cannot store as properties (lists of several types, for example) are stored as JSON and not
        found. Spaces around a text are ignored.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`.

        Raises:
            Unsupported: ``text``, a key within an object, ``empty`` of a date or an array of numbers, dates that are
                not a DATE, a text that the collection indexes word by word, or any ``Not`` before Weaviate 1.33; the
                message names the operator.
            InvalidInput: an id is not valid.
        """
        return self._do("filter_of", to_filter(condition, self._collection))

    def delete(
        self,
        ids: Sequence[DocumentId] | None = None,
        *,
        filter: FilterReturn | None = None,
        everything: bool = False,
    ) -> None:
        """Deletes documents by ids or by filter; ids that do not exist are ignored.

        Args:
            ids: ids of the documents.
            filter: condition that documents must pass.
            everything: whether to delete all documents; needed if ``filter`` has no conditions, or if neither ``ids``
                nor ``filter`` is given.

        Raises:
            InvalidInput: not exactly one of ``ids`` and ``filter`` is given, or the filter has no conditions; see
                ``everything``.
        """
        self._write("delete", writing.delete(self._collection, ids, filter, everything))

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Waits until the server has finished indexing.

        Args:
            timeout: maximum number of seconds to wait; None: no limit.

        Returns:
            Number of documents that are not indexed yet, as ``info().unindexed``: 0.

        Raises:
            StoreUnavailable: indexing was not finished after ``timeout`` seconds.
        """
        return self._write("wait_indexed", writing.wait_indexed(self._collection, timeout))

    def repair(self, progress: bool = False) -> int:
        """Indexes documents again that a killed server has lost from its indexes.

        Call it after every crash of the server, once it is up again, and after repeating an ``upsert`` that the crash
        interrupted. After a kill, Weaviate 1.39 has objects that no filter by id and no vector search finds, among them
        acknowledged ones. Writing them again does not help, because unchanged objects are skipped.

        It waits until the server has finished indexing. Then it looks up every document, 1,000 in a request, and
        patches those that an index lacks with their own vectors. FDEs in an hfresh index, or in a graph whose
        ``flat_search_cutoff`` is 1,000 or less, cannot be looked up: then all documents are patched.

        Args:
            progress: whether to show a progress bar.

        Returns:
            Number of documents that were patched.
        """
        return self._write("repair", repairing.repair(self._collection, progress))

    def ping(self, timeout: float = 5.0) -> float:
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
        return self._do("ping", timed(reading.ping(self._collection)), timeout, ONCE)

    def info(self) -> StoreInfo:
        """Returns numbers, sizes and state of the collection.

        Numbers of documents that others wrote are exact up to 1,000.
        """
        return self._do("info", reading.info(self._collection))

    def drop(self) -> None:
        """Deletes the collection, with all its tenants."""
        self._write("drop", lifecycle.drop(self._collection.name))

    def _do(self, call: str, operation: Operation[T], timeout: float | None = None, retry: Retry | None = None) -> T:
        engine, place = self._collection.server.engine, address(self.client)
        database = f"{engine} at {place}" if place else engine
        deadline = deadline_of(operation, timeout, database)
        with traced(call, self.name, database) as done:
            return done(_run(self.client, self._connection, operation, retry or self._retry, deadline))

    def _write(self, call: str, operation: Operation[T]) -> T:
        return self._do(call, operation, retry=self._write_retry)


def _run(
    client: WeaviateClient,
    connection: Connection,
    operation: Operation[T],
    retry: Retry,
    deadline: Deadline | None = None,
) -> T:
    deadline = Deadline() if deadline is None else deadline

    def send(call: Call[Any, Any]) -> Any:
        try:
            return call.read(send_call(client, connection, call, deadline.left))
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            problem = translate(error, connection.name, address(client))
            if is_doubtful(error, problem) and send(exists(connection.name)):
                problem = starting(problem)
            raise problem from error

    return run(operation, send, retry, deadline)
