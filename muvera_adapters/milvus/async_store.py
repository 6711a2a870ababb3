"""AsyncMilvusMuvera: two-stage search in Milvus, for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pymilvus import AsyncMilvusClient, DataType, FieldSchema

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
from muvera_adapters.stores.operations import Operation, Retry, run_async
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class AsyncMilvusMuvera:
    """:class:`~muvera_adapters.milvus.MilvusMuvera` with an ``AsyncMilvusClient``: same methods, same meaning.

    Arguments, results and errors are documented there. Encoding runs in a thread, so the event loop goes on.
    """

    def __init__(self, client: AsyncMilvusClient, target: Target, collection: Collection, retry: Retry) -> None:
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
    async def create(
        cls,
        client: AsyncMilvusClient,
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
    ) -> AsyncMilvusMuvera:
        """Makes an empty collection."""
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
        return cls(client, target, await _run(client, target, collections.create(name, encoder, plan), retry), retry)

    @classmethod
    async def open(
        cls,
        client: AsyncMilvusClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> AsyncMilvusMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made, and loads it."""
        target = Target(name, timeout)
        opened = collections.open_collection(name, encoder, consistency_level)
        return cls(client, target, await _run(client, target, opened, retry), retry)

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
        consistency_level: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
    ) -> AsyncMilvusMuvera:
        """Takes over a collection of someone else, or gives one of this library another FDE field."""
        target = Target(name, timeout)
        adopted = collections.adopt(name, encoder, fde_vector, tokens_vector, tokens_metric, consistency_level)
        return cls(client, target, await _run(client, target, adopted, retry), retry)

    async def backfill(
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
        """Computes the FDEs of documents that have none, from their stored tokens."""
        plan = Plan(datatype=datatype, index_type=index_type, index_params=index_params or {})
        if into is not None and not dry_run:
            return await self._do(copying.copy(self._collection, into, alias, leave_out, plan, progress))
        add = collections.fde_adder(self._collection, plan)
        return await self._do(backfilling.backfill(self._collection, add, dry_run, progress))

    async def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
    ) -> WriteReport:
        """Encodes and writes documents in batches by bytes, replacing those whose id is there."""
        return await self._do(writing.upsert(self._collection, ids, tokens, payloads, progress))

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
        search_params: Mapping[str, Any] | None = None,
    ) -> Hits:
        """The documents most similar to a query."""
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens, search_params)
        return (await self._do(searching.search(self._collection, [query_tokens], o)))[0]

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
        search_params: Mapping[str, Any] | None = None,
        at_once: int = 4,
    ) -> list[Hits]:
        """:meth:`search` for several queries, of which ``at_once`` are under way at a time."""
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens, search_params)
        return await self._do(searching.search(self._collection, queries, o, at_once))

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
    ) -> Hits:
        """MaxSim over every document: the truth that :meth:`search` approximates; a request for every 1,000 of them."""
        o = Options(limit, limit, "auto", filter, offset, score_threshold, with_payload, with_tokens)
        return await self._do(searching.exact_search(self._collection, query_tokens, o))

    async def get(self, ids: Sequence[DocumentId], *, with_tokens: bool = False) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        return await self._do(reading.get(self._collection, ids, with_tokens))

    async def scroll(
        self, *, filter: str | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> AsyncIterator[Document]:
        """All documents, in the order of keys, ``page_size`` at a request."""
        chosen, cursor = checked(filter), None
        while True:
            documents, cursor = await self._do(
                reading.one_page(self._collection, chosen, page_size, cursor, with_tokens)
            )
            for document in documents:
                yield document
            if cursor is None:
                return

    async def count(self, *, filter: str | None = None) -> int:
        """Documents stored, exactly."""
        return await self._do(reading.count(self._collection, checked(filter)))

    async def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: str | None = None) -> None:
        """Deletes documents by ids, or those of a filter; ids that are not there are no error."""
        await self._do(writing.delete(self._collection, ids, filter))

    async def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Flushes, and returns when nothing is left to index; StoreUnavailable after ``timeout`` seconds.

        Returns:
            Number of documents without index, as ``info().unindexed``; None of milvus-lite, which does not say. A
            server counts segments of fewer than 1,024 documents as indexed, though it builds no index for them.
        """
        return await self._do(writing.wait_indexed(self._collection, timeout))

    async def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection; documents without tokens in structs, exact up to 1,000."""
        return await self._do(reading.info(self._collection))

    async def drop(self) -> None:
        """Deletes the collection."""
        await self._do(collections.drop(self._collection.name))

    async def _do(self, operation: Operation[T]) -> T:
        return await _run(self.client, self._target, operation, self._retry)


async def _run(client: AsyncMilvusClient, target: Target, operation: Operation[T], retry: Retry) -> T:
    async def send(call: Call[Any]) -> Any:
        try:
            reply = await getattr(client, call.method)(**arguments_of(call, target))
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            raise translate(error, target.name) from error
        return call.read(reply)

    return await run_async(operation, send, retry)
