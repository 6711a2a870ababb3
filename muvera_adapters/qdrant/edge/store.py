"""QdrantEdgeMuvera: Qdrant's engine in this process, on a directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import qdrant_edge as edge

from muvera_adapters.errors import CollectionExists, CollectionNotFound, StoreUnavailable
from muvera_adapters.explanation import Explanation
from muvera_adapters.qdrant import backfilling, query_fitting, reading, searching, writing
from muvera_adapters.qdrant.collection import EDGE, FDE, MAX_DIM, TOKENS, Collection, describe
from muvera_adapters.qdrant.conditions import to_filter
from muvera_adapters.qdrant.database import QDRANT_EDGE, WORTH_TRYING
from muvera_adapters.qdrant.edge.client import (
    ENGINE,
    FILTERS,
    LOG_OPTIONS,
    Quantization,
    Shard,
    Tokens,
    fde_params,
    to_prefetch,
    token_datatype,
    token_params,
    translate,
)
from muvera_adapters.qdrant.edge.files import (
    has_log_options,
    paths,
    reaching,
    read_sidecar,
    read_sparse,
    read_vectors,
    set_log_options,
    set_params,
    write_sidecar,
)
from muvera_adapters.qdrant.prepare import check_query
from muvera_adapters.qdrant.requests import Count, GetStatus, Where
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
from muvera_adapters.stores.checks import ZeroRows, check_dimensions, check_encoder_type
from muvera_adapters.stores.choosing import EncoderOption, chosen
from muvera_adapters.stores.conditions import Condition
from muvera_adapters.stores.explaining import Explained, explain
from muvera_adapters.stores.ids import to_point_id
from muvera_adapters.stores.kept import adopted_model, choose_encoder, kept_model, new_state, read_state
from muvera_adapters.stores.operations import ONCE, Operation, deadline_of, run, search_limit, timed
from muvera_adapters.stores.query_fitting import fit_queries
from muvera_adapters.stores.searching import Fusion
from muvera_adapters.stores.token_model import TokenModel, as_token_model, check_model
from muvera_adapters.tracing import traced
from muvera_core import Encoder, QueryFit
from muvera_core.tokens import ArrayLike

T = TypeVar("T")


class QdrantEdgeMuvera:
    """Two-stage search in an embedded Qdrant: FDEs in an HNSW index, tokens as a multivector without an index.

    :meth:`create`, :meth:`open` and :meth:`adopt` make a store. Close it, or use it in a ``with`` statement. Its
    methods are those of :class:`~muvera_adapters.qdrant.QdrantMuvera`, with the same arguments, but filters, search
    parameters and quantization are objects of ``qdrant_edge``, and there are no shard keys.

    A collection is a shard directory, with a ``.muvera.json`` file beside it that stores the encoder. Only one process
    at a time may have it open, and a fork of that process may not use it. Nothing is indexed before
    :meth:`wait_indexed`; until then the first stage scans. Writes survive a kill of the process (write-ahead log). The
    engine holds Python's global lock while it works.

    Every error is a :class:`~muvera_adapters.errors.MuveraError`: ``InvalidInput`` before anything is written, and
    ``Rejected`` or ``StoreUnavailable`` with the engine's own error as ``__cause__``.

    Example::

        encoder = FDEEncoder(FDEConfig(dim=128))
        with QdrantEdgeMuvera.create("data", "passages", encoder) as store:
            store.upsert(["a", "b"], [tokens_of_a, tokens_of_b], [{"year": 1980}, {"year": 1990}])
            store.wait_indexed()
            for hit in store.search(query_tokens, limit=10):
                print(hit.id, hit.score, hit.payload)
    """

    def __init__(self, shard: Shard, collection: Collection) -> None:
        self._shard = shard
        self._collection = collection

    def __repr__(self) -> str:
        encoder = self._collection.encoder
        return (
            f"QdrantEdgeMuvera({self.name!r}, encoder {encoder.fingerprint[:8]} of {encoder.dim} dimensions, {ENGINE}, "
            f"{self._shard.path})"
        )

    @property
    def encoder(self) -> Encoder:
        """Encoder of documents and queries."""
        return self._collection.encoder

    @property
    def name(self) -> str:
        """Name of the collection."""
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
    def create(
        cls,
        directory: str | os.PathLike[str],
        name: str,
        encoder: EncoderOption,
        *,
        sample: Any = None,
        quantization: Quantization = "auto",
        store_tokens: bool = True,
        datatype: edge.VectorStorageDatatype = edge.VectorStorageDatatype.Float16,
        hnsw_config: edge.HnswIndexConfig | None = None,
        tokens: Tokens = "float16",
        optimizers: edge.EdgeOptimizersConfig | None = None,
        model: TokenModel | str | None = None,
    ) -> QdrantEdgeMuvera:
        """Creates an empty collection ``directory/name``.

        Args:
            directory: parent of the collection's directory; created if missing.
            name: name of the new collection.
            encoder: encoder of documents and queries; it is stored in ``directory/name.muvera.json``. ``"auto"``: the
                smallest encoder that reaches a recall of .95 on ``sample``.
            sample: token matrices of some thousand documents; needed with ``encoder="auto"``, not allowed otherwise.
                The choice takes up to a minute.
            quantization: quantization of the FDEs in the index: ``"int8"``, ``"turbo4"``, ``"turbo2"``, ``"binary"`` (2
                bits), ``"product"`` (2 bits), None, or an object of ``qdrant_edge``. ``"auto"``: ``"turbo2"`` from
                1,280 dimensions on, otherwise ``"int8"``. The FDEs themselves stay on disk.
            store_tokens: whether to store token matrices for the second stage.
            datatype: data type of the stored FDEs.
            hnsw_config: parameters of the FDE index; None: m=16, ef_construct=100.
            tokens: how token matrices are stored: ``"float32"``, ``"float16"``, ``"turbo8"`` (8 bits), ``"turbo4"`` (4
                bits), or an ``edge.VectorStorageDatatype``. FDEs are computed from the given tokens, not from the
                stored ones.
            optimizers: settings of the optimizers; None: the defaults of the engine.
            model: model of the tokens: its name (``"org/model@revision"``), or a :class:`~muvera_adapters.TokenModel`
                with its prompts. It is stored with the collection. None: unknown.

        Raises:
            CollectionExists: the directory is not empty.
            StoreUnavailable: the directory cannot be created or written to.
            InvalidInput: ``"auto"`` without a sample, a sample without ``"auto"``, or a sample that cannot be used.
        """
        path, sidecar = paths(directory, name)
        choice = chosen(encoder, sample, quantization, QDRANT_EDGE.quantizations, WORTH_TRYING)
        encoder, quantization = choice.encoder, choice.quantization
        check_encoder_type(encoder)
        check_dimensions(encoder, MAX_DIM, "Qdrant")
        vectors = {FDE: fde_params(encoder, quantization, datatype, hnsw_config)}
        if store_tokens:
            vectors[TOKENS] = token_params(encoder, token_datatype(tokens))
        named, vector = as_token_model(model), TOKENS if store_tokens else None
        with reaching(path):
            _make(path, sidecar, new_state(encoder, FDE, vector, named), vectors, optimizers)
        return cls._of(_load(path), path, encoder, FDE, vector, named)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        name: str,
        encoder: Encoder | None = None,
        *,
        model: TokenModel | str | None = None,
    ) -> QdrantEdgeMuvera:
        """Opens a collection that :meth:`create` made, or that was adopted and backfilled.

        Args:
            directory: as for ``create``.
            name: name of the collection.
            encoder: encoder to use, which must be the one that filled the collection; None: it is rebuilt from what the
                collection stores.
            model: model that makes the query tokens, as for ``create``; it is compared with the model that the
                collection stores. None: not compared.

        Raises:
            CollectionNotFound: there is no such collection, or this library did not create or adopt it.
            EncoderMismatch: the collection was filled with another encoder, or its encoder cannot be rebuilt and must
                be given.
            ModelMismatch: the collection stores another model.
            SchemaMismatch: the collection's vectors were changed.
            StoreUnavailable: another process has the collection open, or its files are damaged.
        """
        path, sidecar = paths(directory, name)
        if encoder is not None:
            check_encoder_type(encoder)
        with reaching(path):
            state = read_state(str(path), read_sidecar(sidecar))
            if not path.is_dir():
                raise CollectionNotFound(f"{path} is missing: it was moved, or its creation was interrupted")
        chosen = choose_encoder(str(path), state["encoder"], encoder)
        kept = kept_model(state)
        check_model(str(path), kept, model)
        return cls._of(_load(path), path, chosen, state["fde"], state["tokens"], kept)

    @classmethod
    def adopt(
        cls,
        directory: str | os.PathLike[str],
        name: str,
        encoder: Encoder,
        *,
        tokens_vector: str | None = "colbert",
        fde_vector: str = FDE,
        model: TokenModel | str | None = None,
    ) -> QdrantEdgeMuvera:
        """Takes over an existing shard directory, or gives one of this library another FDE vector.

        If ``fde_vector`` already has FDEs, a sample of them is compared with what the encoder makes of the stored
        tokens, and the encoder is written beside the directory. Otherwise nothing is written, and :meth:`backfill` adds
        the FDEs.

        To change to another encoder, name another ``fde_vector`` (``"fde_v2"``). :meth:`open` still gives the old
        vector until :meth:`backfill` of this store has filled the new one. :meth:`remove_fde` undoes an adoption.

        Args:
            directory: parent of the shard's directory.
            name: name of the shard's directory.
            encoder: encoder of the FDEs, existing or future.
            tokens_vector: name of the multivector with the tokens (MaxSim; dot or cosine); ``""``: the one without a
                name; None: there is none.
            fde_vector: name of the vector with the FDEs; :meth:`backfill` adds it if it is missing.
            model: model of the stored tokens, as for ``create``; it is stored with the collection once there are FDEs.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unsuitable; the message names each difference.
            EncoderMismatch: the stored FDEs are those of another encoder.
            ModelMismatch: the collection stores another model.
            StoreUnavailable: another process has the collection open.
        """
        path, sidecar = paths(directory, name)
        check_encoder_type(encoder)
        with reaching(path):
            state = read_state(str(path), read_sidecar(sidecar)) if sidecar.exists() else None
        if state is not None and state["fde"] == fde_vector:
            choose_encoder(str(path), state["encoder"], encoder)
        kept, named = adopted_model(str(path), state, as_token_model(model))
        store = cls._of(_load(path), path, encoder, fde_vector, tokens_vector, kept, need_fde=tokens_vector is None)
        collection = store._collection
        try:
            if named is not None:
                with reaching(path):
                    write_sidecar(sidecar, named)
            if state is not None and state["fde"] != fde_vector:
                # a vector that was added is filled by backfill() before it can be searched
                store._collection = replace(collection, has_fde=False, kept=False)
            elif collection.has_fde and state is None:
                if tokens_vector is not None and store._do("adopt", _filled(collection)) == 0:
                    # the vector was added and nothing written: backfill() continues
                    store._collection = replace(collection, has_fde=False)
                else:
                    store._do("adopt", backfilling.check_adopted(collection))
                    store._keep(collection)
        except BaseException:
            store.close()
            raise
        return store

    def backfill(
        self,
        *,
        progress: bool = False,
        dry_run: bool = False,
        refresh: bool = False,
        quantization: Quantization = "auto",
        datatype: edge.VectorStorageDatatype = edge.VectorStorageDatatype.Float16,
        hnsw_config: edge.HnswIndexConfig | None = None,
    ) -> BackfillReport:
        """Computes the FDEs of documents that have none, from their stored tokens, in place.

        After a kill at any point, repeat the call to do the rest. At the end, a random sample of FDEs is compared with
        the tokens. If one of them is stale (computed from other tokens), all are compared and stale ones are written
        again, as with ``refresh``.

        Args:
            progress: whether to show a progress bar.
            dry_run: whether to write nothing; the report has numbers, sizes and an estimate of the time.
            refresh: whether to compare the FDE of every document with its tokens, and to write stale ones again. It
                reads all tokens. An FDE becomes stale when another program replaces the tokens without it.
            quantization: as for ``create``; used when the vector is added.
            datatype: as for ``create``; used when the vector is added.
            hnsw_config: as for ``create``; used when the vector is added.

        Raises:
            StoreUnavailable: the directory cannot be written to.
        """

        async def add() -> Collection:
            self._add_fde(fde_params(self.encoder, quantization, datatype, hnsw_config))
            return self._collection

        async def keep(collection: Collection) -> Collection:
            return self._keep(collection)

        filled = backfilling.backfill(self._collection, add, keep, dry_run, progress, refresh=refresh)
        report, self._collection = self._do("backfill", filled)
        return report

    def verify(self, limit: int | None = None, progress: bool = False) -> VerifyReport:
        """Compares the FDEs of documents with their stored tokens; nothing is written.

        ``backfill(refresh=True)`` writes stale FDEs again.

        Args:
            limit: number of documents to read, in the order of the points' ids; None: all of them.
            progress: whether to show a progress bar.

        Returns:
            Ids of documents whose FDE is stale (computed from other tokens), and numbers of documents without an FDE.

        Raises:
            InvalidInput: no tokens are stored.
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
        """Removes the FDE vector, and its metadata beside the directory; everything else stays.

        It undoes :meth:`adopt` and :meth:`backfill`.
        """
        fde, path = self._collection.fde, self._shard.path
        sidecar = paths(path.parent, path.name)[1]
        with reaching(path):
            self._do("remove_fde", _check_open(self._collection))
            there = fde in read_vectors(path)
            if sidecar.exists() and read_state(str(path), read_sidecar(sidecar))["fde"] == fde:
                sidecar.unlink()
        self._shard.close()
        if there:
            _change(path, edge.UpdateOperation.delete_vector_name(fde))
        tokens, model = self._collection.tokens, self._collection.model
        left = QdrantEdgeMuvera._of(_load(path), path, self.encoder, fde, tokens, model, need_fde=False)
        self._shard, self._collection = left._shard, replace(left._collection, seen=self._collection.seen)

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

        A document that already exists keeps what the call does not name: other vectors, other top-level keys of its
        payload, and its whole payload if none is given for it.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices (n_i, token_dim), in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries (None: no payload), or None; :mod:`muvera_adapters.stores.payloads` lists the
                values that can be stored.
            progress: whether to show a progress bar.
            vectors: other vectors of the collection by name, n of each (None: not written), as lists, arrays or
                ``qdrant_edge.SparseVector``.
            replace: whether documents that already exist lose everything that the call does not name.
            zero_rows: what to do with all-zero token vectors (padding): ``"refuse"`` the documents, or ``"drop"`` the
                vectors and count them.

        Returns:
            A report in which every document is either written or failed; failed are those that the database rejected
            individually.

        Raises:
            InvalidInput: lengths differ, an id is not valid or given twice, a payload cannot be stored, a vector is not
                in the collection, or tokens cannot be encoded or exceed a limit of Qdrant; the message says where.
                Nothing was written.
            WriteInterrupted: the engine stopped writing (disk full); ``report`` has what was written. Repeat the call.
        """
        written = writing.upsert(
            self._collection, ids, tokens, payloads, progress, vectors=vectors, replace=replace, zero_rows=zero_rows
        )
        return self._do("upsert", written)

    def search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: edge.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[edge.Prefetch] | None = None,
        fusion: Fusion | None = None,
        weights: ArrayLike | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        search_params: edge.SearchParams | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Finds the documents most similar to a query.

        Args:
            query_tokens: token vectors of the query, (m, token_dim).
            limit: maximum number of hits to return.
            prefetch: number of candidates of the first stage; more candidates give a higher recall.
            rerank: how candidates are scored. ``"native"``: MaxSim by the engine. ``"client"``: tokens are fetched and
                scored in this process. ``"none"``: no second stage; scores are the encoder's estimates. ``"auto"``:
                native if tokens are stored.
            filter: condition that documents must pass, in both stages.
            offset: number of hits to skip.
            score_threshold: minimum score of a hit.
            with_payload: whether to return payloads: all, none, or some keys.
            with_tokens: whether to return token matrices.
            with_fde_score: whether to return ``fde_score`` even if that takes a second query in the request.
            count_missing: whether to count the documents without an FDE, which no search finds, for
                ``Hits.without_fde`` and a warning. The count runs beside the search, at most every 30 seconds.
            query_fit: correction of the query FDE, from :meth:`fit_queries`. ``fde_score`` is then the corrected
                estimate: its differences between documents estimate those of MaxSim, its absolute value means nothing.
            also: further searches for candidates: ``Prefetch`` of qdrant_edge, which may be nested. Their documents are
                reranked together with those of the FDEs. Each search adds at most ``prefetch`` documents, or as many as
                its own limit. ``filter`` applies to all searches.
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
            timeout: maximum number of seconds to wait for the database, including retries and pauses; ``math.inf``: no
                limit. None: 10 seconds, and in :meth:`search_batch` one more second for each query after the first. The
                engine cannot be interrupted: time is checked only between its requests.

        Returns:
            At most ``limit`` hits, best first. ``Hits.unscored`` lists candidates that have no tokens.
            ``Hits.without_fde`` is the number of documents without an FDE; if it is above 0, a
            :class:`~muvera_adapters.errors.MissingFDEs` warning is given, once.

        Raises:
            EncoderMismatch: ``query_fit`` corrects another encoder.
            InvalidInput: the query cannot be encoded, a number is out of range, or tokens are not stored.
            StoreUnavailable: the engine did not answer within ``timeout`` seconds.
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
        )
        return self._do(
            "search", searching.search(self._collection, [query_tokens], o, count_missing), search_limit(timeout)
        )[0]

    def prefetch(
        self,
        query_tokens: ArrayLike,
        limit: int = 200,
        *,
        filter: edge.Filter | None = None,
        weights: ArrayLike | None = None,
        query_fit: QueryFit | None = None,
        search_params: edge.SearchParams | None = None,
    ) -> edge.Prefetch:
        """Returns the first stage of :meth:`search` as a ``Prefetch`` of qdrant_edge, for a query of your own.

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
        first_stage = searching.prefetch(self._collection, query_tokens, options)
        return to_prefetch(self._do("prefetch", first_stage, search_limit(None)))

    def point_id(self, document_id: DocumentId) -> int | str:
        """Returns the id of a document's point, as :meth:`upsert` writes it.

        Raises:
            InvalidInput: ``document_id`` is not a valid id.
        """
        return to_point_id(document_id, 0)[0]

    def document_id(self, point: edge.Record | edge.ScoredPoint) -> DocumentId:
        """Returns the id that :meth:`upsert` was given, from a point that the engine returned with its payload.

        Raises:
            InvalidInput: the point has no payload, which may hold the id.
        """
        return reading.document_id(point.id, point.payload)

    def search_batch(
        self,
        queries: Sequence[ArrayLike],
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        filter: edge.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_tokens: bool = False,
        with_fde_score: bool = False,
        count_missing: bool = True,
        query_fit: QueryFit | None = None,
        also: Sequence[Sequence[edge.Prefetch] | None] | None = None,
        fusion: Fusion | None = None,
        weights: Sequence[ArrayLike | None] | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        stop_after: int | None = None,
        search_params: edge.SearchParams | None = None,
        timeout: float | None = None,
    ) -> list[Hits]:
        """Runs :meth:`search` for several queries.

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
        )
        return self._do(
            "search_batch",
            searching.search(self._collection, queries, o, count_missing),
            search_limit(timeout, len(queries)),
        )

    def exact_search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        *,
        filter: edge.Filter | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_tokens: bool = False,
        weights: ArrayLike | None = None,
        timeout: float | None = None,
    ) -> Hits:
        """Ranks all documents by MaxSim: the exact ranking that :meth:`search` approximates.

        Arguments are those of :meth:`search`, but ``timeout=None`` means no limit.
        """
        o = Options(
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
        explained = explain(self._collection, query_tokens, ids_or_hits, check_query, read, weights=weights, best=best)
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
        self, *, filter: edge.Filter | None = None, with_tokens: bool = False, page_size: int = 100
    ) -> Iterator[Document]:
        """Yields all documents that pass the filter, in the order of point ids, reading ``page_size`` at a time."""
        offset = None
        while True:
            documents, offset = self._do(
                "scroll", reading.page(self._collection, filter, page_size, offset, with_tokens)
            )
            yield from documents
            if offset is None:
                return

    def count(self, *, filter: edge.Filter | None = None, timeout: float | None = None) -> int:
        """Returns the exact number of documents that pass the filter.

        Args:
            filter: condition that documents must pass.
            timeout: maximum number of seconds to wait for the database, including retries and pauses; None: no limit.
        """
        return self._do("count", reading.count(self._collection, filter), timeout)

    def filter_of(self, condition: Condition) -> edge.Filter:
        """Translates a condition that is independent of the database, for ``filter=`` of the other methods.

        Args:
            condition: condition of :mod:`muvera_adapters.stores.conditions`.

        Raises:
            InvalidInput: an id is not valid, or a key cannot be part of a path.
        """
        return to_filter(condition, FILTERS)

    def delete(
        self,
        ids: Sequence[DocumentId] | None = None,
        *,
        filter: edge.Filter | None = None,
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
        self._do("delete", writing.delete(self._collection, ids, filter, everything=everything))

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Builds the index and the quantization of what was written so far.

        Segments below the indexing threshold stay without index and quantization; searches scan all of their documents.

        Args:
            timeout: has no effect: the engine cannot be interrupted.

        Returns:
            Number of such documents, as ``info().unindexed``.
        """
        return self._do("wait_indexed", writing.wait_indexed(self._collection, timeout))

    def ping(self, timeout: float = 5.0) -> float:
        """Reads a document that need not exist, which shows that the collection is open.

        Args:
            timeout: has no effect: the engine cannot be interrupted.

        Returns:
            Seconds that the answer took.

        Raises:
            StoreUnavailable: the store is closed.
        """
        return self._do("ping", timed(reading.ping(self._collection)), timeout)

    def info(self) -> StoreInfo:
        """Returns numbers, sizes and state of the collection."""
        return self._do("info", reading.info(self._collection))

    def close(self) -> None:
        """Writes everything to disk and releases the directory. Closing twice is allowed."""
        self._shard.close()

    def drop(self) -> None:
        """Closes the store and deletes the collection's directory."""
        self.close()
        path = self._shard.path
        if self._shard.owner != os.getpid():
            raise StoreUnavailable(f"{path} was opened by process {self._shard.owner}, of which this one is a fork")
        with reaching(path):
            paths(path.parent, path.name)[1].unlink(missing_ok=True)
            shutil.rmtree(path)

    def __enter__(self) -> QdrantEdgeMuvera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def _of(
        cls,
        shard: edge.EdgeShard,
        path: Path,
        encoder: Encoder,
        fde: str,
        tokens: str | None,
        model: TokenModel | None,
        need_fde: bool = True,
    ) -> QdrantEdgeMuvera:
        try:
            with reaching(path):
                vectors = read_vectors(path)
                short_log = has_log_options(path, LOG_OPTIONS)
            known = describe(str(path), vectors, encoder, fde, tokens, EDGE, need_fde=need_fde, exclusive=True)
        except BaseException:
            shard.close()
            raise
        info = vectors.get(fde)
        sizes = (info.float_bytes, info.code_bits) if info else (4.0, 0.0)
        known = replace(known, name=path.name, model=model)
        return cls(Shard(shard, path, *sizes, (*vectors, *read_sparse(path)), short_log=short_log), known)

    def _add_fde(self, params: edge.EdgeVectorParams) -> None:
        """Adds the vector, and reopens the shard with its index and quantization, which only its configuration sets."""
        path, fde, kept = self._shard.path, self._collection.fde, self._collection.kept
        self._shard.close()
        with reaching(path):
            there = read_vectors(path)
            if fde not in there:
                added = edge.UpdateOperation.create_dense_vector(
                    fde, params.size, params.distance, None, params.datatype
                )
                _change(path, added)
            # an existing vector keeps its codes; one without codes may be left by a run that was killed here
            if fde not in there or there[fde].quantization is None:
                set_params(path, fde, params)
        tokens, model = self._collection.tokens, self._collection.model
        reopened = QdrantEdgeMuvera._of(_load(path), path, self.encoder, fde, tokens, model)
        self._shard = reopened._shard
        self._collection = replace(reopened._collection, kept=kept, seen=self._collection.seen)
        if kept:
            self._keep(self._collection)

    def _keep(self, collection: Collection) -> Collection:
        """Writes the sidecar of this encoder and FDE vector."""
        path = self._shard.path
        with reaching(path):
            state = new_state(collection.encoder, collection.fde, collection.tokens, collection.model)
            write_sidecar(paths(path.parent, path.name)[1], state)
        return replace(collection, kept=True)

    def _do(self, call: str, operation: Operation[T], timeout: float | None = None) -> T:
        # the engine works in this thread and cannot be interrupted
        database = f"{ENGINE} on {self._shard.path}"
        deadline = deadline_of(operation, timeout, database, interrupts=False)
        with traced(call, self.name, database) as done:
            return done(run(operation, lambda request: self._shard.send(request), ONCE, deadline))


def _make(
    path: Path,
    sidecar: Path,
    state: dict[str, Any],
    vectors: Mapping[str, edge.EdgeVectorParams],
    optimizers: edge.EdgeOptimizersConfig | None,
) -> None:
    """Creates an empty shard and its sidecar; after a kill at any point, there is no collection or a whole one."""
    if path.exists() and any(path.iterdir()):
        raise CollectionExists(f"{path} exists; open it, or drop it first")
    # a sidecar without a directory: an earlier creation was killed, or the directory was moved away
    if sidecar.exists() and read_sidecar(sidecar) != state:
        raise CollectionExists(f"{sidecar} exists; put the directory of that collection back, or delete the file")
    partial = path.with_name(f".{path.name}.creating")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        edge.EdgeShard.create(str(partial), edge.EdgeConfig(vectors=dict(vectors), optimizers=optimizers)).close()
    except Exception as error:  # the engine raises nothing more specific
        raise translate(error, path) from error
    # its empty files have the engine's default size; opening makes others
    shutil.rmtree(partial / "wal")
    set_log_options(partial, LOG_OPTIONS)
    write_sidecar(sidecar, state)
    if path.exists():
        path.rmdir()
    partial.rename(path)


async def _filled(collection: Collection) -> int:
    return await Count(collection.name, Where(has=(collection.fde,)))


async def _check_open(collection: Collection) -> None:
    """Raises StoreUnavailable if the shard is closed, or was opened by another process."""
    await GetStatus(collection.name, collection.fde)


def _change(path: Path, operation: edge.UpdateOperation) -> None:
    """Carries out one operation on a closed shard."""
    shard = _load(path)
    try:
        shard.update(operation)
        shard.flush()
    except Exception as error:  # the engine raises nothing more specific
        raise translate(error, path) from error
    finally:
        shard.close()


def count_documents(path: Path) -> int | None:
    """Number of documents of a shard; None if another process has it open."""
    try:
        shard = _load(path)
    except StoreUnavailable:
        return None
    try:
        return int(shard.info().points_count)
    finally:
        shard.close()


def _load(path: Path) -> edge.EdgeShard:
    try:
        return edge.EdgeShard.load(str(path))
    except Exception as error:  # the engine raises nothing more specific
        problem = translate(error, path)
        if isinstance(problem, StoreUnavailable):
            raise problem from error
        raise StoreUnavailable(f"{path} cannot be opened: {error}") from error
