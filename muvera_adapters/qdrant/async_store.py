"""AsyncQdrantMuvera: two-stage search in Qdrant for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, models

from muvera_adapters.errors import MuveraError
from muvera_adapters.qdrant import backfilling, client_collection, client_copy, reading, searching, writing
from muvera_adapters.qdrant.client_calls import TIMEOUT, to_call, wire_of
from muvera_adapters.qdrant.client_errors import Target, translate
from muvera_adapters.qdrant.client_schema import FDE, Quantization, fde_params, plan
from muvera_adapters.qdrant.requests import Collection
from muvera_adapters.qdrant.searching import Options, Rerank
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_adapters.stores.operations import DEFAULT_RETRY, Operation, Retry, run_async
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class AsyncQdrantMuvera:
    """:class:`~muvera_adapters.qdrant.QdrantMuvera` with an ``AsyncQdrantClient``: same methods, same meaning.

    Arguments, results and errors are documented there. Encoding runs in a thread, so the event loop goes on.
    qdrant-client's local mode is not concurrent under asyncio either.
    """

    def __init__(self, client: AsyncQdrantClient, target: Target, collection: Collection, retry: Retry) -> None:
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
    async def create(
        cls,
        client: AsyncQdrantClient,
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
    ) -> AsyncQdrantMuvera:
        """Makes an empty collection."""
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
        target = await _connect(client, name, timeout, retry)
        made = client_collection.create(target, encoder, planned, tenant_field)
        return cls(client, target, await _run(client, target, made, retry), retry)

    @classmethod
    async def open(
        cls,
        client: AsyncQdrantClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> AsyncQdrantMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made."""
        target = await _connect(client, name, timeout, retry)
        collection = await _run(client, target, client_collection.open_collection(target, encoder), retry)
        return cls(client, target, collection, retry)

    @classmethod
    async def adopt(
        cls,
        client: AsyncQdrantClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        timeout: int | None = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> AsyncQdrantMuvera:
        """Takes over a collection of someone else."""
        target = await _connect(client, name, timeout, retry, fde_vector)
        adopted = client_collection.adopt(target, encoder, fde_vector, tokens_vector)
        return cls(client, target, await _run(client, target, adopted, retry), retry)

    async def backfill(
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
        """Computes the FDEs of documents that have none, from their stored tokens."""
        params = fde_params(self.encoder, quantization, datatype, hnsw_config, on_disk)
        if into is not None and not dry_run:
            return await self._do(client_copy.copy(self._target, self._collection, into, alias, params, progress))
        add = client_collection.fde_adder(self._target, self._collection, params)
        return await self._do(backfilling.backfill(self._collection, add, dry_run, progress, shard_key_selector))

    async def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
        *,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> WriteReport:
        """Encodes and writes documents in batches by bytes, replacing those whose id is there."""
        return await self._do(writing.upsert(self._collection, ids, tokens, payloads, progress, shard_key_selector))

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
        search_params: models.SearchParams | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> Hits:
        """The documents most similar to a query."""
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
        return (await self._do(searching.search(self._collection, [query_tokens], o)))[0]

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
        return await self._do(searching.search(self._collection, queries, o))

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
        return await self._do(searching.exact_search(self._collection, query_tokens, o))

    async def get(
        self,
        ids: Sequence[DocumentId],
        *,
        with_tokens: bool = False,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        return await self._do(reading.get(self._collection, ids, with_tokens, shard_key_selector))

    async def scroll(
        self,
        *,
        filter: models.Filter | None = None,
        with_tokens: bool = False,
        page_size: int = 100,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> AsyncIterator[Document]:
        """All documents, in the order of the points' ids, ``page_size`` at a request."""
        offset = None
        while True:
            page = reading.page(self._collection, filter, page_size, offset, with_tokens, shard_key_selector)
            documents, offset = await self._do(page)
            for document in documents:
                yield document
            if offset is None:
                return

    async def count(
        self, *, filter: models.Filter | None = None, shard_key_selector: models.ShardKeySelector | None = None
    ) -> int:
        """Documents stored, exactly."""
        return await self._do(reading.count(self._collection, filter, shard_key_selector))

    async def delete(
        self,
        ids: Sequence[DocumentId] | None = None,
        *,
        filter: models.Filter | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Deletes documents by ids, or those of a filter; ids that are not there are no error."""
        await self._do(writing.delete(self._collection, ids, filter, shard_key_selector))

    async def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Returns when the server indexes no more; StoreUnavailable after ``timeout`` seconds.

        Segments below the indexing threshold stay without index and codes; searches go through all of their documents.

        Returns:
            Number of such documents, as ``info().unindexed``; None where a strict mode forbids to count.
        """
        return await self._do(writing.wait_indexed(self._collection, timeout))

    async def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection."""
        return await self._do(reading.info(self._collection))

    async def drop(self) -> None:
        """Deletes the collection."""
        await self._do(client_collection.drop(self._target))

    async def _do(self, operation: Operation[T]) -> T:
        return await _run(self.client, self._target, operation, self._retry)


async def _connect(client: AsyncQdrantClient, name: str, timeout: int | None, retry: Retry, fde: str = FDE) -> Target:
    wire = wire_of(client)
    unknown = Target(name, "Qdrant", (), wire, timeout, fde)
    return await _run(client, unknown, client_collection.connect(name, wire, timeout, fde), retry)


async def _run(client: AsyncQdrantClient, target: Target, operation: Operation[T], retry: Retry) -> T:
    async def send(request: Any) -> Any:
        call = to_call(request, target)
        if call is None:
            return None
        try:
            reply = await getattr(client, call.method)(**call.arguments)
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            raise translate(error, target) from error
        return call.read(reply)

    return await run_async(operation, send, retry)
