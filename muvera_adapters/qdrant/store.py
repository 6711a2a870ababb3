"""QdrantMuvera: two-stage search in a Qdrant server, or in qdrant-client's local mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models

from muvera_adapters.errors import MuveraError
from muvera_adapters.qdrant import backfilling, client_collection, client_copy, reading, searching, writing
from muvera_adapters.qdrant.client_calls import TIMEOUT, to_call, wire_of
from muvera_adapters.qdrant.client_errors import Target, translate
from muvera_adapters.qdrant.client_schema import FDE, Quantization, fde_params, plan
from muvera_adapters.qdrant.requests import Collection
from muvera_adapters.qdrant.searching import Options, Rerank
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_adapters.stores.operations import DEFAULT_RETRY, Operation, Retry, run
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class QdrantMuvera:
    """Two-stage search in Qdrant: FDEs in an HNSW index, tokens as a multivector without one.

    Made by :meth:`create`, :meth:`open` or :meth:`adopt`. The client is the caller's: it is never closed or
    reconfigured. One made with ``prefer_grpc=True`` sends a fifth of the bytes. Every method raises
    :class:`~muvera_adapters.errors.MuveraError`, with the client's own error as ``__cause__``:
    ``CollectionNotFound``, ``InvalidInput`` (found before anything is sent), ``Rejected`` (by the database),
    ``Unsupported`` or ``StoreUnavailable`` (after the retries).

    Attributes:
        client: as given.
        encoder: of this collection.
        name: of the collection.
    """

    def __init__(self, client: QdrantClient, target: Target, collection: Collection, retry: Retry) -> None:
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

    @classmethod
    def create(
        cls,
        client: QdrantClient,
        name: str,
        encoder: Encoder,
        *,
        quantization: Quantization = "int8",
        store_tokens: bool = True,
        datatype: models.Datatype = models.Datatype.FLOAT16,
        on_disk: bool | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        tokens_datatype: models.Datatype = models.Datatype.FLOAT16,
        tokens_quantization: Quantization = None,
        tokens_on_disk: bool | None = True,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        shard_number: int | None = None,
        sharding_method: models.ShardingMethod | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        on_disk_payload: bool | None = None,
        tenant_field: str | None = None,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> QdrantMuvera:
        """Makes an empty collection.

        Args:
            client: of a server >= 1.16, or of local mode.
            name: of the collection.
            encoder: what documents and queries are encoded with; it travels in the collection's metadata.
            quantization: of the FDEs that the index compares: ``"int8"``, ``"turbo4"`` and ``"turbo2"`` (server
                >= 1.18), ``"binary"`` (2 bits), ``"product"`` (2 bits), None, or an object of ``models``.
            store_tokens: keep token matrices for the second stage.
            datatype: of the FDEs.
            on_disk: keep FDEs out of memory; None: when there are codes.
            hnsw_config: of the FDE index, None: m=16, ef_construct=100.
            tokens_datatype: of the token matrices.
            tokens_quantization: of the token matrices.
            tokens_on_disk: keep token matrices out of memory.
            optimizers_config: None: an indexing threshold of some 2,000 documents of 300 tokens in a segment.
            shard_number: as in ``create_collection``, like the next four.
            sharding_method: custom sharding needs ``shard_key_selector`` in the calls.
            replication_factor: passed on.
            write_consistency_factor: passed on.
            on_disk_payload: passed on.
            tenant_field: payload key with the tenant, which gets a tenant index; filter by it in every search.
            timeout: seconds of one request, None: the client's (5 by default); gRPC always uses the client's.
            retry: of requests that failed because the database was unreachable or overloaded.

        Raises:
            CollectionExists: the name is taken; nothing was changed.
            Unsupported: the server is too old.
        """
        planned = plan(
            encoder,
            quantization=quantization,
            store_tokens=store_tokens,
            datatype=datatype,
            on_disk=on_disk,
            hnsw_config=hnsw_config,
            tokens_datatype=tokens_datatype,
            tokens_quantization=tokens_quantization,
            tokens_on_disk=tokens_on_disk,
            optimizers_config=optimizers_config,
            shard_number=shard_number,
            sharding_method=sharding_method,
            replication_factor=replication_factor,
            write_consistency_factor=write_consistency_factor,
            on_disk_payload=on_disk_payload,
        )
        target = _connect(client, name, timeout, retry)
        made = client_collection.create(target, encoder, planned, tenant_field)
        return cls(client, target, _run(client, target, made, retry), retry)

    @classmethod
    def open(
        cls,
        client: QdrantClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> QdrantMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made.

        Args:
            client: as for ``create``.
            name: of the collection, or an alias.
            encoder: the one to use; None: rebuild it from what the collection keeps.
            timeout: as for ``create``.
            retry: as for ``create``.

        Raises:
            CollectionNotFound: there is none, or it is not of this library.
            EncoderMismatch: ``encoder`` is not the one that the collection was filled with.
            SchemaMismatch: its vectors were changed; the message names each difference.
        """
        target = _connect(client, name, timeout, retry)
        collection = _run(client, target, client_collection.open_collection(target, encoder), retry)
        return cls(client, target, collection, retry)

    @classmethod
    def adopt(
        cls,
        client: QdrantClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> QdrantMuvera:
        """Takes over a collection of someone else.

        If it has a vector ``fde_vector`` with FDEs in it (of fastembed, say: ``FDEConfig.fastembed``), a sample is
        compared with what the encoder makes of the stored tokens, and the encoder is written to the metadata. Else
        nothing is written; :meth:`backfill` adds the FDEs.

        Args:
            client: as for ``create``.
            name: of the collection.
            encoder: what its FDEs are made by, or shall be.
            tokens_vector: name of its multivector (MaxSim; dot or cosine); None: there is none.
            fde_vector: name of the vector with the FDEs, now or later.
            timeout: as for ``create``.
            retry: as for ``create``.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unfit; the message names each difference.
            EncoderMismatch: the stored FDEs are of another encoder.
        """
        target = _connect(client, name, timeout, retry, fde_vector)
        adopted = client_collection.adopt(target, encoder, fde_vector, tokens_vector)
        return cls(client, target, _run(client, target, adopted, retry), retry)

    def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        quantization: Quantization = "int8",
        datatype: models.Datatype = models.Datatype.FLOAT16,
        on_disk: bool | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        into: str | None = None,
        alias: str | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens.

        In place (server >= 1.18, local mode) the FDE vector is added to the collection, and nothing else of it
        changes. Others may read and write meanwhile: documents that arrive are picked up, and tokens are read again
        after each write, so that a replaced document does not keep the FDE of the old one. Repeated after a kill at any
        point, it does what is left. At the end a random sample is checked.

        Args:
            progress: show a bar.
            dry_run: write nothing; the report has numbers, sizes and an estimate of the time.
            quantization: as for ``create``, like the next three; used when the vector is added.
            datatype: of the FDEs.
            on_disk: keep FDEs out of memory.
            hnsw_config: of the FDE index.
            into: copy everything into this new collection instead, for servers that cannot add a vector; repeated
                until the copy equals the collection. ``open`` it afterwards: this store stays at the old one.
            alias: name that is made to point to the new collection when it is complete.
            shard_key_selector: of a collection with custom sharding.

        Raises:
            Unsupported: the server is older than 1.18 and ``into`` is not given.
            CollectionExists: ``into`` is no unfinished copy of this collection.
            MuveraError: documents kept changing, or the sample disagrees.
        """
        params = fde_params(self.encoder, quantization, datatype, hnsw_config, on_disk)
        if into is not None and not dry_run:
            return self._do(client_copy.copy(self._target, self._collection, into, alias, params, progress))
        add = client_collection.fde_adder(self._target, self._collection, params)
        return self._do(backfilling.backfill(self._collection, add, dry_run, progress, shard_key_selector))

    def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
        *,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> WriteReport:
        """Encodes and writes documents in batches by bytes, replacing those whose id is there.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None.
            progress: show a bar.
            shard_key_selector: of a collection with custom sharding.

        Returns:
            Every document as written or failed; failed are those that the database refused for themselves.

        Raises:
            InvalidInput: lengths differ, an id is no id or given twice, tokens cannot be encoded or exceed a limit
                of Qdrant; the message says where. Nothing was written.
            WriteInterrupted: the database stopped answering; ``report`` has what was written. Repeat the call.
        """
        return self._do(writing.upsert(self._collection, ids, tokens, payloads, progress, shard_key_selector))

    def search(
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
        search_params: models.SearchParams | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Hits:
        """The documents most similar to a query.

        Args:
            query_tokens: (m, token_dim).
            limit: documents to return.
            prefetch: candidates of the first stage, in every shard; more of them, higher recall.
            rerank: ``"native"``: MaxSim by the server, in the same request; ``"client"``: tokens are fetched and scored
                here; ``"none"``: the encoder's estimate; ``"auto"``: native where tokens are stored.
            filter: applied to both stages.
            offset: hits to skip.
            score_threshold: least score of a hit.
            with_payload: all, none, some keys, or a selector.
            with_tokens: return token matrices.
            with_fde_score: set ``fde_score`` where the mode does not bring it anyway (a second query in the request).
            search_params: of the first stage; None: a beam of twice the candidates, and rescoring of
                binary and product codes with the original FDEs.
            shard_key_selector: shards to search.

        Returns:
            At most ``limit`` hits, best first; ``unscored`` of it lists candidates that have no tokens.

        Raises:
            InvalidInput: the query cannot be encoded, a number is out of range, or tokens are not stored.
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
            fde_scores=with_fde_score,
            params=search_params,
            shard_key=shard_key_selector,
        )
        return self._do(searching.search(self._collection, [query_tokens], o))[0]

    def search_batch(
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
        search_params: models.SearchParams | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> list[Hits]:
        """:meth:`search` for several queries, in as few requests as their bytes allow."""
        o = Options(
            limit=limit,
            prefetch=prefetch,
            rerank=rerank,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            fde_scores=with_fde_score,
            params=search_params,
            shard_key=shard_key_selector,
        )
        return self._do(searching.search(self._collection, queries, o))

    def exact_search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        *,
        filter: models.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] | models.PayloadSelector = True,
        with_tokens: bool = False,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Hits:
        """MaxSim over every document: the truth that :meth:`search` approximates. A strict mode may forbid it."""
        o = Options(
            limit=limit,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            payload=with_payload,
            tokens=with_tokens,
            shard_key=shard_key_selector,
        )
        return self._do(searching.exact_search(self._collection, query_tokens, o))

    def get(
        self,
        ids: Sequence[DocumentId],
        *,
        with_tokens: bool = False,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        return self._do(reading.get(self._collection, ids, with_tokens, shard_key_selector))

    def scroll(
        self,
        *,
        filter: models.Filter | None = None,
        with_tokens: bool = False,
        page_size: int = 100,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Iterator[Document]:
        """All documents, in the order of the points' ids, ``page_size`` at a request."""
        offset = None
        while True:
            page = reading.page(self._collection, filter, page_size, offset, with_tokens, shard_key_selector)
            documents, offset = self._do(page)
            yield from documents
            if offset is None:
                return

    def count(
        self, *, filter: models.Filter | None = None, shard_key_selector: models.ShardKeySelector | None = None
    ) -> int:
        """Documents stored, exactly."""
        return self._do(reading.count(self._collection, filter, shard_key_selector))

    def delete(
        self,
        ids: Sequence[DocumentId] | None = None,
        *,
        filter: models.Filter | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Deletes documents by ids, or those of a filter; ids that are not there are no error."""
        self._do(writing.delete(self._collection, ids, filter, shard_key_selector))

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Returns when the server indexes no more; StoreUnavailable after ``timeout`` seconds.

        Segments below the indexing threshold stay without index and codes; searches go through all of their documents.

        Returns:
            Number of such documents, as ``info().unindexed``; None where a strict mode forbids to count.
        """
        return self._do(writing.wait_indexed(self._collection, timeout))

    def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection."""
        return self._do(reading.info(self._collection))

    def drop(self) -> None:
        """Deletes the collection."""
        self._do(client_collection.drop(self._target))

    def _do(self, operation: Operation[T]) -> T:
        return _run(self.client, self._target, operation, self._retry)


def _connect(client: QdrantClient, name: str, timeout: int | None, retry: Retry, fde: str = FDE) -> Target:
    wire = wire_of(client)
    unknown = Target(name, "Qdrant", (), wire, timeout, fde)
    return _run(client, unknown, client_collection.connect(name, wire, timeout, fde), retry)


def _run(client: QdrantClient, target: Target, operation: Operation[T], retry: Retry) -> T:
    def send(request: Any) -> Any:
        call = to_call(request, target)
        if call is None:
            return None
        try:
            reply = getattr(client, call.method)(**call.arguments)
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            raise translate(error, target) from error
        return call.read(reply)

    return run(operation, send, retry)
