"""WeaviateMuvera: two-stage search in a Weaviate server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from weaviate import WeaviateClient
from weaviate.classes.config import ConsistencyLevel, Property
from weaviate.collections.classes.config_vector_index import VectorIndexConfigCreate
from weaviate.collections.classes.filters import FilterReturn

from muvera_adapters.errors import MuveraError
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_adapters.stores.operations import Operation, Retry, run
from muvera_adapters.weaviate import backfilling, collections, reading, repairing, searching, writing
from muvera_adapters.weaviate.calls import DEFAULT_RETRY, Target, method_of
from muvera_adapters.weaviate.client_errors import is_doubtful, starting, translate
from muvera_adapters.weaviate.requests import Call, Collection, exists
from muvera_adapters.weaviate.schema import FDE, Quantization, TokensIndex, creation
from muvera_adapters.weaviate.searching import Options, Rerank
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class WeaviateMuvera:
    """Two-stage search in Weaviate: FDEs in an HNSW index, tokens as a multi-vector in the smallest index there is.

    Made by :meth:`create`, :meth:`open` or :meth:`adopt`. The client is the caller's: it is never closed or
    reconfigured; its timeouts apply. Every method raises :class:`~muvera_adapters.errors.MuveraError`, with the
    client's own error as ``__cause__``: ``CollectionNotFound``, ``InvalidInput`` (found before anything is sent),
    ``Rejected`` (by the database), ``Unsupported`` or ``StoreUnavailable`` (after the retries).

    Attributes:
        client: as given.
        encoder: of this collection.
        name: of the collection.
        tenant: all calls are about, None in a collection without tenants.
    """

    def __init__(self, client: WeaviateClient, target: Target, collection: Collection, retry: Retry) -> None:
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
        """Of the collection, as Weaviate writes it (with a capital)."""
        return self._collection.name

    @property
    def tenant(self) -> str | None:
        """What all calls are about."""
        return self._target.tenant

    @classmethod
    def create(
        cls,
        client: WeaviateClient,
        name: str,
        encoder: Encoder,
        *,
        quantization: Quantization = "rq8",
        store_tokens: bool = True,
        vector_index_config: VectorIndexConfigCreate | None = None,
        tokens_index: TokensIndex = "rerank",
        properties: Sequence[Property] = (),
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
        **options: Any,
    ) -> WeaviateMuvera:
        """Makes an empty collection.

        Args:
            client: connected to a server >= 1.31.
            name: of the collection.
            encoder: what documents and queries are encoded with; it travels in the description of the property
                ``muvera_id``.
            quantization: of the FDEs: ``"rq8"``, ``"rq4"`` (both without rescoring, which would read whole objects),
                ``"rq1"`` (rescores 512), None (float32), or an object of ``Configure.VectorIndex.Quantizer``.
            store_tokens: keep token matrices for the second stage.
            vector_index_config: of the FDEs, of ``Configure.VectorIndex``; None: HNSW with 32 connections. Distance and
                quantizer are set where it leaves them open; ``hfresh`` compares by cosine, which needs document FDEs of
                unit length, as encoders make them by default, and gives at most its ``rescore_limit``. A fitted encoder
                of few dimensions finds more with a larger ``ef``.
            tokens_index: of the token matrices. ``"rerank"``: two floats and a few links a document, which serve to
                rerank on the server and for nothing else; ``"none"``: only stored, reranking is ``"client"``;
                ``"hnsw"``: a node for every token, all of them in memory; or Weaviate's own encoding,
                ``Configure.VectorIndex.MultiVector.Encoding.muvera()``, for ``rerank="native_muvera"``.
            properties: of the user; those not declared are left to the server's auto-schema.
            tenant: that this store's calls are about, in a collection with ``multi_tenancy_config``.
            consistency_level: of reads and writes.
            retry: of requests that failed because the database was unreachable.
            **options: of ``client.collections.create``: ``description``, ``references``, ``inverted_index_config``,
                ``multi_tenancy_config``, ``replication_config``, ``sharding_config``.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            Unsupported: the server is too old.
        """
        arguments = creation(
            encoder, quantization, store_tokens, vector_index_config, tokens_index, properties, options
        )
        target = Target(name, tenant, consistency_level)
        return cls(client, target, _run(client, target, collections.create(name, encoder, arguments), retry), retry)

    @classmethod
    def open(
        cls,
        client: WeaviateClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
    ) -> WeaviateMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made.

        Args:
            client: as for ``create``.
            name: of the collection.
            encoder: the one to use; None: rebuild it from what the collection keeps.
            tenant: as for ``create``.
            consistency_level: as for ``create``.
            retry: as for ``create``.

        Raises:
            CollectionNotFound: there is none, or it is not of this library.
            EncoderMismatch: ``encoder`` is not the one that the collection was filled with.
            SchemaMismatch: its vectors were changed; the message names each difference.
        """
        target = Target(name, tenant, consistency_level)
        return cls(client, target, _run(client, target, collections.open_collection(name, encoder), retry), retry)

    @classmethod
    def adopt(
        cls,
        client: WeaviateClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
    ) -> WeaviateMuvera:
        """Takes over a collection of someone else, or gives one of this library another FDE vector.

        If it has a vector ``fde_vector`` with FDEs in it, a sample is compared with what the encoder makes of the
        stored tokens, and the encoder is written to the collection. Else nothing is written; :meth:`backfill` adds the
        FDEs.
        For another encoder, name another ``fde_vector`` (``"fde_v2"``): Weaviate never gives a dropped name again. The
        collection stays with its old vector until :meth:`backfill` has filled the new one.

        Args:
            client: as for ``create``.
            name: of the collection.
            encoder: what its FDEs are made by, or shall be.
            tokens_vector: name of its multi-vector; None: there is none.
            fde_vector: name of the vector with the FDEs, now or later.
            tenant: as for ``create``; a collection with tenants is adopted and backfilled tenant by tenant.
            consistency_level: as for ``create``.
            retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unfit; the message names each difference.
            EncoderMismatch: the stored FDEs are of another encoder.
        """
        target = Target(name, tenant, consistency_level)
        adopted = collections.adopt(name, encoder, fde_vector, tokens_vector)
        return cls(client, target, _run(client, target, adopted, retry), retry)

    def with_tenant(self, tenant: str) -> WeaviateMuvera:
        """The same collection, about another tenant, which must exist."""
        return WeaviateMuvera(self.client, self._target.of_tenant(tenant), self._collection, self._retry)

    def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        quantization: Quantization = "rq8",
        vector_index_config: VectorIndexConfigCreate | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens, in place.

        Each document is patched, so its properties, references and other vectors stay; Weaviate indexes all its vectors
        anew, which takes long where the tokens have an HNSW graph. Others may read and write meanwhile: documents that
        arrive are picked up, and tokens are read again after each write, so that a replaced document does not keep the
        FDE of the old one. Repeated after a kill at any point, it does what is left. At the end a sample is checked.

        Args:
            progress: show a bar.
            dry_run: write nothing; the report has numbers (exact up to 1,000 documents), sizes and an estimate of the
                time.
            quantization: as for ``create``, like the next; used when the vector is added.
            vector_index_config: of the FDEs.

        Raises:
            MuveraError: documents kept changing, or the sample disagrees.
        """
        add = collections.fde_adder(self._collection, quantization, vector_index_config)
        return self._do(backfilling.backfill(self._collection, add, dry_run, progress))

    def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
    ) -> WriteReport:
        """Encodes and writes documents in batches by bytes.

        Of a document whose id is there, tokens and FDE are replaced, and the properties that its payload names; a value
        of None removes one. Properties that it does not name, and vectors and references that are not of this library,
        stay.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None for none.
            progress: show a bar.

        Returns:
            Every document as written or failed; failed are those that the database refused for themselves.

        Raises:
            InvalidInput: lengths differ, an id is no id or given twice, tokens cannot be encoded or exceed a limit
                of Weaviate; the message says where. Nothing was written.
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
        filter: FilterReturn | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[Any] = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
    ) -> Hits:
        """The documents most similar to a query.

        Args:
            query_tokens: (m, token_dim).
            limit: documents to return.
            prefetch: candidates of the first stage; more of them, higher recall.
            rerank: ``"native"``: MaxSim by the server, in a second request; where tokens are compared by cosine it is
                exact only if they were stored at unit length. ``"client"``: tokens come with the candidates and are
                scored here; ``"none"``: the encoder's estimate; ``"native_muvera"``: Weaviate's own encoding in one
                request, which reranks ``prefetch``; ``"auto"``: native where that is exact for every candidate, else
                client.
            filter: applied to both stages.
            offset: hits to skip.
            score_threshold: least score of a hit.
            with_payload: all properties, none, or some, by name or ``QueryNested``.
            with_tokens: return token matrices.
            with_fde_score: there for all stores alike; every mode but ``"native_muvera"`` brings it anyway.

        Returns:
            At most ``limit`` hits, best first; ``unscored`` of it lists candidates that have no tokens.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, or tokens are not stored.
            Unsupported: the token index cannot do what ``rerank`` asks for.
        """
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens)
        return self._do(searching.search(self._collection, [query_tokens], o))[0]

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
        at_once: int = 4,
    ) -> list[Hits]:
        """:meth:`search` for several queries, of which ``at_once`` are under way at a time."""
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens)
        return self._do(searching.search(self._collection, queries, o, at_once))

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
    ) -> Hits:
        """MaxSim over every document: the truth that :meth:`search` approximates; a request for every 1,000 of them."""
        o = Options(limit, limit, "auto", filter, offset, score_threshold, with_payload, with_tokens)
        return self._do(searching.exact_search(self._collection, query_tokens, o))

    def get(self, ids: Sequence[DocumentId], *, with_tokens: bool = False) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        return self._do(reading.get(self._collection, ids, with_tokens))

    def scroll(
        self, *, filter: FilterReturn | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> Iterator[Document]:
        """All documents, in the order of the objects' ids, ``page_size`` at a request."""
        after = None
        while True:
            page = reading.one_page(self._collection, filter, page_size, after, with_tokens)
            documents, after = self._do(page)
            yield from documents
            if after is None:
                return

    def count(self, *, filter: FilterReturn | None = None) -> int:
        """Documents stored, exactly."""
        return self._do(reading.count(filter))

    def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: FilterReturn | None = None) -> None:
        """Deletes documents by ids, or those of a filter; ids that are not there are no error."""
        self._do(writing.delete(self._collection, ids, filter))

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Returns when the server has nothing left to index; StoreUnavailable after ``timeout`` seconds.

        Returns:
            Number of documents that still wait, as ``info().unindexed``: 0.
        """
        return self._do(writing.wait_indexed(self._collection, timeout))

    def repair(self, progress: bool = False) -> int:
        """Has documents indexed anew that a killed server has lost from its indexes; returns how many.

        After a kill, Weaviate 1.39 has objects that no filter by id or vector finds, acknowledged ones among them, and
        writing them again changes nothing, as an unchanged object is passed over. So call this after every crash of
        the server, when it is up again, and after repeating an ``upsert`` that it interrupted. What waits to be indexed
        is waited for; then every document is looked up, 1,000 in a request, and those that an index lacks are patched
        with their own vectors. FDEs in an hfresh index, or in a graph whose ``flat_search_cutoff`` is 1,000 or less,
        cannot be looked up: then all documents are patched.

        Args:
            progress: show a bar.
        """
        return self._do(repairing.repair(self._collection, progress))

    def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection; of documents that others wrote, exact up to 1,000."""
        return self._do(reading.info(self._collection))

    def drop(self) -> None:
        """Deletes the collection, of all tenants."""
        self._do(collections.drop(self._collection.name))

    def _do(self, operation: Operation[T]) -> T:
        return _run(self.client, self._target, operation, self._retry)


def _run(client: WeaviateClient, target: Target, operation: Operation[T], retry: Retry) -> T:
    def send(call: Call[Any]) -> Any:
        try:
            reply = method_of(client, target, call)(**call.arguments)
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            problem = translate(error, target.name)
            if is_doubtful(error, problem) and send(exists(target.name)):
                problem = starting(problem)
            raise problem from error
        return call.read(reply)

    return run(operation, send, retry)
