"""MilvusMuvera: two-stage search in Milvus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pymilvus import DataType, FieldSchema, MilvusClient

from muvera_adapters.errors import MuveraError
from muvera_adapters.milvus import backfilling, collections, copying, reading, searching, writing
from muvera_adapters.milvus.blobs import TokenType
from muvera_adapters.milvus.calls import DEFAULT_RETRY, TIMEOUT, Target, arguments_of
from muvera_adapters.milvus.client_errors import translate
from muvera_adapters.milvus.expressions import checked
from muvera_adapters.milvus.requests import Call, Collection, Metric
from muvera_adapters.milvus.schema import FDE, Plan
from muvera_adapters.milvus.searching import Options, Rerank
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_adapters.stores.operations import Operation, Retry, run
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class MilvusMuvera:
    """Two-stage search in Milvus: FDEs in an index, tokens in an array of structs, or as text where there is none.

    Made by :meth:`create`, :meth:`open` or :meth:`adopt`. The client is the caller's: it is never closed or
    reconfigured. Every method raises :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as
    ``__cause__``: ``CollectionNotFound``, ``InvalidInput`` (found before anything is sent), ``Rejected`` (by the
    database), ``Unsupported`` or ``StoreUnavailable`` (after the retries). Filters are expressions of Milvus.

    Attributes:
        client: as given.
        encoder: of this collection.
        name: of the collection, or the alias it was opened by.
        token_storage: ``"struct"``, ``"blob"`` (text) or ``"none"``.
    """

    def __init__(self, client: MilvusClient, target: Target, collection: Collection, retry: Retry) -> None:
        self.client = client
        self._target = target
        self._collection = collection
        self._retry = retry

    @property
    def encoder(self) -> Encoder:
        """What documents and queries are encoded with."""
        return self._collection.encoder

    @property
    def name(self) -> str:
        """Of the collection."""
        return self._target.name

    @property
    def token_storage(self) -> str:
        """How tokens are kept."""
        return self._collection.storage

    @classmethod
    def create(
        cls,
        client: MilvusClient,
        name: str,
        encoder: Encoder,
        *,
        store_tokens: bool = True,
        token_storage: Literal["struct", "blob"] | None = None,
        max_tokens: int = 2_048,
        tokens_datatype: TokenType = "float16",
        tokens_metric: Metric = "IP",
        tokens_index_type: str | None = None,
        tokens_index_params: Mapping[str, Any] | None = None,
        datatype: DataType = DataType.FLOAT_VECTOR,
        index_type: str | None = None,
        index_params: Mapping[str, Any] | None = None,
        fields: Sequence[FieldSchema] = (),
        dynamic: bool = True,
        consistency_level: str = "Session",
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        **options: Any,
    ) -> MilvusMuvera:
        """Makes an empty collection.

        Args:
            client: of a server, a cluster, or a file of milvus-lite.
            name: of the collection.
            encoder: what documents and queries are encoded with; it travels in the collection's properties.
            store_tokens: keep token matrices for the second stage.
            token_storage: ``"struct"``: an array of structs, which the server scores (Milvus >= 2.6.4); ``"blob"``:
                text, which is scored here; None: the first that the server has.
            max_tokens: that one document may have, at most 4,096. As text, they decide how many fields there are.
            tokens_datatype: of tokens as text. In structs they are float32.
            tokens_metric: tokens are compared by ``"IP"``, or by ``"COSINE"``, for tokens that are not of unit length.
            tokens_index_type: of the structs; None: a small HNSW, which the second stage hardly uses.
            tokens_index_params: of it. ``{"emb_list_strategy": "muvera"}`` is Milvus 3's own encoding, for
                ``rerank="native_muvera"``.
            datatype: of FDEs: FLOAT_VECTOR, FLOAT16_VECTOR or BFLOAT16_VECTOR (this one needs ``ml_dtypes``).
            index_type: of FDEs, any that the server has: ``"HNSW_SQ"``, ``"IVF_RABITQ"``, ``"DISKANN"`` ...; None:
                HNSW, or ``AUTOINDEX`` of a managed service.
            index_params: of it, such as ``{"M": 16, "efConstruction": 200, "sq_type": "SQ8"}``.
            fields: declared fields of the payload; one of them may be the partition key.
            dynamic: payloads may have keys that are not declared.
            consistency_level: of searches, ``"Strong"``, ``"Session"``, ``"Bounded"`` or ``"Eventually"``. Counting and
                reading by id are always strong.
            timeout: seconds that a request may take, the client's own retries included.
            retry: of requests that failed because the database was unreachable.
            **options: of ``client.create_collection``: ``num_shards``, ``num_partitions``, ``properties``.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            InvalidInput: the encoder or an argument does not fit Milvus.
            Unsupported: the server cannot do what was asked.
        """
        plan = Plan(
            storage=token_storage if store_tokens else "none",
            max_tokens=max_tokens,
            precision=tokens_datatype,
            metric=tokens_metric,
            datatype=datatype,
            index_type=index_type,
            index_params=index_params or {},
            token_index_type=tokens_index_type,
            token_index_params=tokens_index_params or {},
            fields=fields,
            dynamic=dynamic,
            consistency=consistency_level,
            options=options,
        )
        target = Target(name, timeout)
        return cls(client, target, _run(client, target, collections.create(name, encoder, plan), retry), retry)

    @classmethod
    def open(
        cls,
        client: MilvusClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> MilvusMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made, and loads it.

        Args:
            client: as for ``create``.
            name: of the collection, or an alias.
            encoder: checked against the collection's; None: rebuilt from what the collection keeps.
            consistency_level: of searches; None: the collection's.
            timeout: as for ``create``.
            retry: as for ``create``.

        Raises:
            CollectionNotFound: no such collection, or none that this library made.
            EncoderMismatch: it was filled by another encoder, or its encoder must be given.
        """
        target = Target(name, timeout)
        opened = collections.open_collection(name, encoder, consistency_level)
        return cls(client, target, _run(client, target, opened, retry), retry)

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
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> MilvusMuvera:
        """Takes over a collection of someone else, or gives one of this library another FDE field.

        Nothing of it is changed. FDEs that are there are compared with this encoder's; where there are none, run
        :meth:`backfill`.

        Args:
            client: as for ``create``.
            name: of the collection.
            encoder: to search with.
            tokens_vector: an array of structs with one float vector, or what the names of text fields begin with
                (``colbert_0``, ``colbert_1`` ...); None: there are no tokens.
            fde_vector: field of the FDEs, or for them.
            tokens_metric: of tokens as text; of structs the index says it.
            consistency_level: as for ``open``.
            timeout: as for ``create``.
            retry: as for ``create``.

        Raises:
            SchemaMismatch: the collection does not fit; the message names everything.
            EncoderMismatch: FDEs that are there are not this encoder's.
        """
        target = Target(name, timeout)
        adopted = collections.adopt(name, encoder, fde_vector, tokens_vector, tokens_metric, consistency_level)
        return cls(client, target, _run(client, target, adopted, retry), retry)

    def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        into: str | None = None,
        alias: str | None = None,
        leave_out: Sequence[str] = (),
        datatype: DataType = DataType.FLOAT_VECTOR,
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
            into: copy everything into this new collection instead, for servers that cannot add a vector; repeated until
                the copy equals the collection. ``open`` it afterwards: this store stays at the old one.
            alias: name that is made to point to the new collection when it is complete.
            leave_out: fields that the copy does not get, such as the old vector where a server takes only one.
            datatype: as for ``create``, like the next two; used when the field is added.
            index_type: of FDEs.
            index_params: of it.

        Raises:
            Unsupported: the server cannot add a vector and ``into`` is not given.
            CollectionExists: ``into`` is no unfinished copy of this collection.
            MuveraError: documents kept changing, or the sample disagrees.
        """
        plan = Plan(datatype=datatype, index_type=index_type, index_params=index_params or {})
        if into is not None and not dry_run:
            return self._do(copying.copy(self._collection, into, alias, leave_out, plan, progress))
        add = collections.fde_adder(self._collection, plan)
        return self._do(backfilling.backfill(self._collection, add, dry_run, progress))

    def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
    ) -> WriteReport:
        """Encodes and writes documents in batches by bytes, replacing those whose id is there.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None.
            progress: show a bar.

        Returns:
            Every document as written or failed; failed are those that the database refused for themselves.

        Raises:
            InvalidInput: lengths differ, an id is no id or given twice, tokens cannot be encoded or exceed a limit
                of Milvus; the message says where. Nothing was written.
            WriteInterrupted: the database stopped answering or takes no writes; ``report`` has what was written.
                Repeat the call.
        """
        return self._do(writing.upsert(self._collection, ids, tokens, payloads, progress))

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
        search_params: Mapping[str, Any] | None = None,
    ) -> Hits:
        """The documents most similar to a query.

        Args:
            query_tokens: (m, token_dim).
            limit: documents to return.
            prefetch: candidates of the first stage; more of them, higher recall.
            rerank: ``"native"``: MaxSim by the server, of exactly the candidates (those that it leaves out are scored
                here); ``"client"``: the candidates' tokens are fetched and scored here; ``"none"``: the encoder's
                estimate; ``"native_muvera"``: Milvus's own encoding in one request, which reranks ``prefetch``;
                ``"auto"``: native where the server has the tokens in structs and without codes, else client.
            filter: expression; applied to both stages.
            offset: hits to skip.
            score_threshold: least score of a hit.
            with_payload: all, none, or some keys.
            with_tokens: return token matrices.
            with_fde_score: there for all stores alike; every mode but ``"native_muvera"`` brings it anyway.
            search_params: of the first stage's index, such as ``{"nprobe": 64}``; None: a beam of twice the candidates
                in HNSW, what DISKANN needs at least, and the server's defaults elsewhere.

        Returns:
            At most ``limit`` hits, best first; ``unscored`` of it lists candidates that have no tokens.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, an expression's brackets or quotes are
                not closed, or tokens are not stored.
            Unsupported: the server cannot score the tokens as ``rerank`` asks.
        """
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens, search_params)
        return self._do(searching.search(self._collection, [query_tokens], o))[0]

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
        search_params: Mapping[str, Any] | None = None,
        at_once: int = 4,
    ) -> list[Hits]:
        """:meth:`search` for several queries, of which ``at_once`` are under way at a time."""
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens, search_params)
        return self._do(searching.search(self._collection, queries, o, at_once))

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
    ) -> Hits:
        """MaxSim over every document: the truth that :meth:`search` approximates; a request for every 1,000 of them."""
        o = Options(limit, limit, "auto", filter, offset, score_threshold, with_payload, with_tokens)
        return self._do(searching.exact_search(self._collection, query_tokens, o))

    def get(self, ids: Sequence[DocumentId], *, with_tokens: bool = False) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        return self._do(reading.get(self._collection, ids, with_tokens))

    def scroll(
        self, *, filter: str | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> Iterator[Document]:
        """All documents, in the order of keys, ``page_size`` at a request."""
        chosen, cursor = checked(filter), None
        while True:
            documents, cursor = self._do(reading.one_page(self._collection, chosen, page_size, cursor, with_tokens))
            yield from documents
            if cursor is None:
                return

    def count(self, *, filter: str | None = None) -> int:
        """Documents stored, exactly."""
        return self._do(reading.count(self._collection, checked(filter)))

    def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: str | None = None) -> None:
        """Deletes documents by ids, or those of a filter; ids that are not there are no error."""
        self._do(writing.delete(self._collection, ids, filter))

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Flushes, and returns when nothing is left to index; StoreUnavailable after ``timeout`` seconds.

        Returns:
            Number of documents without index, as ``info().unindexed``; None of milvus-lite, which does not say. A
            server counts segments of fewer than 1,024 documents as indexed, though it builds no index for them.
        """
        return self._do(writing.wait_indexed(self._collection, timeout))

    def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection; documents without tokens in structs, exact up to 1,000."""
        return self._do(reading.info(self._collection))

    def drop(self) -> None:
        """Deletes the collection."""
        self._do(collections.drop(self._collection.name))

    def _do(self, operation: Operation[T]) -> T:
        return _run(self.client, self._target, operation, self._retry)


def _run(client: MilvusClient, target: Target, operation: Operation[T], retry: Retry) -> T:
    def send(call: Call[Any]) -> Any:
        try:
            reply = getattr(client, call.method)(**arguments_of(call, target))
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            raise translate(error, target.name) from error
        return call.read(reply)

    return run(operation, send, retry)
