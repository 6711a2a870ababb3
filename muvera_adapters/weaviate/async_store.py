"""AsyncWeaviateMuvera: two-stage search in a Weaviate server, for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from weaviate import WeaviateAsyncClient
from weaviate.classes.config import ConsistencyLevel, Property
from weaviate.collections.classes.config_vector_index import VectorIndexConfigCreate
from weaviate.collections.classes.filters import FilterReturn

from muvera_adapters.errors import MuveraError
from muvera_adapters.results import BackfillReport, Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_adapters.stores.operations import Operation, Retry, run_async
from muvera_adapters.weaviate import backfilling, collections, reading, repairing, searching, writing
from muvera_adapters.weaviate.calls import DEFAULT_RETRY, Target, method_of
from muvera_adapters.weaviate.client_errors import is_doubtful, starting, translate
from muvera_adapters.weaviate.requests import Call, Collection, exists
from muvera_adapters.weaviate.schema import FDE, Quantization, TokensIndex, creation
from muvera_adapters.weaviate.searching import Options, Rerank
from muvera_core import Encoder
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class AsyncWeaviateMuvera:
    """:class:`~muvera_adapters.weaviate.WeaviateMuvera` with a ``WeaviateAsyncClient``: same methods, same meaning.

    Arguments, results and errors are documented there. Encoding runs in a thread, so the event loop goes on.
    """

    def __init__(self, client: WeaviateAsyncClient, target: Target, collection: Collection, retry: Retry) -> None:
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
    async def create(
        cls,
        client: WeaviateAsyncClient,
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
    ) -> AsyncWeaviateMuvera:
        """Makes an empty collection."""
        arguments = creation(
            encoder, quantization, store_tokens, vector_index_config, tokens_index, properties, options
        )
        target = Target(name, tenant, consistency_level)
        return cls(
            client, target, await _run(client, target, collections.create(name, encoder, arguments), retry), retry
        )

    @classmethod
    async def open(
        cls,
        client: WeaviateAsyncClient,
        name: str,
        encoder: Encoder | None = None,
        *,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
    ) -> AsyncWeaviateMuvera:
        """Opens a collection that :meth:`create` or :meth:`adopt` and :meth:`backfill` made."""
        target = Target(name, tenant, consistency_level)
        return cls(client, target, await _run(client, target, collections.open_collection(name, encoder), retry), retry)

    @classmethod
    async def adopt(
        cls,
        client: WeaviateAsyncClient,
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        tenant: str | None = None,
        consistency_level: ConsistencyLevel | None = None,
        retry: Retry = DEFAULT_RETRY,
    ) -> AsyncWeaviateMuvera:
        """Takes over a collection of someone else, or gives one of this library another FDE vector."""
        target = Target(name, tenant, consistency_level)
        adopted = collections.adopt(name, encoder, fde_vector, tokens_vector)
        return cls(client, target, await _run(client, target, adopted, retry), retry)

    def with_tenant(self, tenant: str) -> AsyncWeaviateMuvera:
        """The same collection, about another tenant, which must exist."""
        return AsyncWeaviateMuvera(self.client, self._target.of_tenant(tenant), self._collection, self._retry)

    async def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        quantization: Quantization = "rq8",
        vector_index_config: VectorIndexConfigCreate | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens, in place."""
        add = collections.fde_adder(self._collection, quantization, vector_index_config)
        return await self._do(backfilling.backfill(self._collection, add, dry_run, progress))

    async def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        progress: bool = False,
    ) -> WriteReport:
        """Encodes and writes documents in batches by bytes; what is not named stays."""
        return await self._do(writing.upsert(self._collection, ids, tokens, payloads, progress))

    async def search(
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
        """The documents most similar to a query."""
        o = Options(limit, prefetch, rerank, filter, offset, score_threshold, with_payload, with_tokens)
        return (await self._do(searching.search(self._collection, [query_tokens], o)))[0]

    async def search_batch(
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
        return await self._do(searching.search(self._collection, queries, o, at_once))

    async def exact_search(
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
        return await self._do(searching.exact_search(self._collection, query_tokens, o))

    async def get(self, ids: Sequence[DocumentId], *, with_tokens: bool = False) -> list[Document | None]:
        """Documents in the order of ``ids``; None where there is none."""
        return await self._do(reading.get(self._collection, ids, with_tokens))

    async def scroll(
        self, *, filter: FilterReturn | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> AsyncIterator[Document]:
        """All documents, in the order of the objects' ids, ``page_size`` at a request."""
        after = None
        while True:
            page = reading.one_page(self._collection, filter, page_size, after, with_tokens)
            documents, after = await self._do(page)
            for document in documents:
                yield document
            if after is None:
                return

    async def count(self, *, filter: FilterReturn | None = None) -> int:
        """Documents stored, exactly."""
        return await self._do(reading.count(filter))

    async def delete(self, ids: Sequence[DocumentId] | None = None, *, filter: FilterReturn | None = None) -> None:
        """Deletes documents by ids, or those of a filter; ids that are not there are no error."""
        await self._do(writing.delete(self._collection, ids, filter))

    async def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Returns when the server has nothing left to index; StoreUnavailable after ``timeout`` seconds.

        Returns:
            Number of documents that still wait, as ``info().unindexed``: 0.
        """
        return await self._do(writing.wait_indexed(self._collection, timeout))

    async def repair(self, progress: bool = False) -> int:
        """Has documents indexed anew that a killed server has lost from its indexes; returns how many."""
        return await self._do(repairing.repair(self._collection, progress))

    async def info(self) -> StoreInfo:
        """Numbers, sizes and state of the collection; of documents that others wrote, exact up to 1,000."""
        return await self._do(reading.info(self._collection))

    async def drop(self) -> None:
        """Deletes the collection, of all tenants."""
        await self._do(collections.drop(self._collection.name))

    async def _do(self, operation: Operation[T]) -> T:
        return await _run(self.client, self._target, operation, self._retry)


async def _run(client: WeaviateAsyncClient, target: Target, operation: Operation[T], retry: Retry) -> T:
    async def send(call: Call[Any]) -> Any:
        try:
            reply = await method_of(client, target, call)(**call.arguments)
        except MuveraError:
            raise
        except Exception as error:  # the client raises what its transport raises
            problem = translate(error, target.name)
            if is_doubtful(error, problem) and await send(exists(target.name)):
                problem = starting(problem)
            raise problem from error
        return call.read(reply)

    return await run_async(operation, send, retry)
