"""Qdrant Edge: Qdrant's engine in this process, on a directory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    EncoderMismatch,
    InvalidInput,
    MissingExtra,
    MuveraError,
    StoreUnavailable,
)
from muvera_adapters.ids import ID_KEY, from_point_id, to_point_id
from muvera_adapters.results import DocumentId, Hit, WriteReport
from muvera_core import Encoder, TokenBatch, encoder_from_dict
from muvera_core.tokens import ArrayLike, to_batch, to_matrix

try:
    import qdrant_edge as edge
except ImportError as error:
    raise MissingExtra("qdrant-edge-py", "edge") from error

FDE, TOKENS = "fde", "tokens"

Quantization = Literal["int8"] | None
Rerank = Literal["auto", "native", "none"]

# bytes of vectors in one write: a batch is a record of the write-ahead log, whose segments hold 32 MB
_BATCH_BYTES = 16 << 20


class QdrantEdgeMuvera:
    """Two-stage search in an embedded Qdrant: FDEs in an HNSW index, tokens as a multivector without one.

    A collection is a shard directory with a ``.muvera.json`` file beside it, which keeps the encoder. One process at
    a time may have it open. The engine holds Python's global lock while it works. Nothing is indexed until
    :meth:`wait_indexed`; until then the first stage scans.

    Made by :meth:`create` or :meth:`open`; close it, or use it in a ``with`` statement.
    """

    def __init__(self, shard: edge.EdgeShard, path: Path, encoder: Encoder, store_tokens: bool) -> None:
        self._shard: edge.EdgeShard | None = shard
        self._path = path
        self._store_tokens = store_tokens
        self.encoder = encoder

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        name: str,
        encoder: Encoder,
        *,
        quantization: Quantization = "int8",
        store_tokens: bool = True,
    ) -> QdrantEdgeMuvera:
        """Makes an empty collection ``directory/name``.

        Args:
            directory: parent of the collection's directory; made if missing.
            name: of the collection.
            encoder: what documents and queries are encoded with.
            quantization: of the FDEs that the index compares; the originals (float16) stay on disk. None: none.
            store_tokens: keep token matrices (float16) for the second stage.

        Raises:
            CollectionExists: the directory is not empty.
        """
        path, sidecar = _paths(directory, name)
        if sidecar.exists() or (path.exists() and any(path.iterdir())):
            raise CollectionExists(f"{path} exists; open it, or drop it first")
        path.mkdir(parents=True, exist_ok=True)
        shard = edge.EdgeShard.create(str(path), _config(encoder, quantization, store_tokens))
        description = {"version": 1, "encoder": encoder.to_dict(), "store_tokens": store_tokens}
        partial = sidecar.with_suffix(".part")
        partial.write_text(json.dumps(description), encoding="utf-8")
        partial.replace(sidecar)
        return cls(shard, path, encoder, store_tokens)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], name: str, encoder: Encoder | None = None) -> QdrantEdgeMuvera:
        """Opens a collection that :meth:`create` made.

        Args:
            directory: as given to ``create``.
            name: as given to ``create``.
            encoder: the one to use; None: rebuild it from what the collection keeps.

        Raises:
            CollectionNotFound: there is no such collection.
            EncoderMismatch: ``encoder`` is not the one that the collection was filled with.
            StoreUnavailable: another process has it open, or its files are damaged.
        """
        path, sidecar = _paths(directory, name)
        try:
            description = json.loads(sidecar.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CollectionNotFound(f"{path} is no collection of this library ({sidecar.name} is missing)") from None
        kept = description["encoder"]
        if encoder is None:
            encoder = encoder_from_dict(kept)
        elif encoder.fingerprint != kept["fingerprint"]:
            raise EncoderMismatch(
                f"{path} was filled by encoder {kept['fingerprint']}, the one given is {encoder.fingerprint}"
            )
        try:
            shard = edge.EdgeShard.load(str(path))
        except Exception as error:  # the engine raises nothing more specific
            busy = "WouldBlock" in str(error)
            reason = "another process (or another object of this one) has it open" if busy else str(error)
            raise StoreUnavailable(f"cannot open {path}: {reason}") from error
        return cls(shard, path, encoder, description["store_tokens"])

    def upsert(
        self,
        ids: Sequence[DocumentId],
        tokens: Any,
        payloads: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        progress: bool = False,
    ) -> WriteReport:
        """Encodes and writes documents, replacing those whose id is there.

        Args:
            ids: n integers, strings or UUIDs.
            tokens: n token matrices, in any form that ``encoder.encode_documents`` takes.
            payloads: n dictionaries of JSON values, or None.
            progress: show a bar.

        Raises:
            InvalidInput: lengths differ, an id is no id, an id is given twice, or tokens cannot be encoded; the
                message says where. Nothing was written.
            MuveraError: the engine refused a batch; ``report`` of the error says what had been written.
        """
        batch, points = self._prepare(ids, tokens, payloads)
        report = WriteReport()
        with tqdm(total=len(points), unit="doc", desc="upsert", disable=not progress) as bar:
            for i, j in self._batches(batch):
                fdes = self.encoder.encode_documents(batch[i:j])
                records = [
                    edge.Point(point_id, self._vectors(fde, batch[k]), payload)
                    for k, fde, (point_id, payload) in zip(range(i, j), fdes, points[i:j], strict=True)
                ]
                self._call("write", lambda shard, r=records: shard.update(edge.UpdateOperation.upsert_points(r)))
                report.written += j - i
                bar.update(j - i)
        self._call("flush", lambda shard: shard.flush())
        return report

    def search(
        self,
        query_tokens: ArrayLike,
        limit: int = 10,
        prefetch: int = 200,
        *,
        rerank: Rerank = "auto",
        with_payload: bool = True,
    ) -> list[Hit]:
        """The documents most similar to a query.

        Args:
            query_tokens: (m, token_dim).
            limit: documents to return.
            prefetch: candidates that the first stage hands to the second; more of them, higher recall.
            rerank: ``"native"``: exact MaxSim by the engine; ``"none"``: the encoder's estimate; ``"auto"``: native
                where tokens are stored.
            with_payload: return payloads.

        Returns:
            At most ``limit`` hits, best first.

        Raises:
            InvalidInput: the query cannot be encoded, limit is below 1, or tokens to rerank with are not stored.
        """
        query = self._query(query_tokens)
        if rerank == "native" and not self._store_tokens:
            raise InvalidInput("this collection stores no tokens: use rerank='none'")
        if limit < 1 or prefetch < 1:
            raise InvalidInput(f"limit and prefetch must be at least 1, got {limit} and {prefetch}")
        fde = self.encoder.encode_queries([query])[0]
        two_stage = self._store_tokens if rerank == "auto" else rerank == "native"
        candidates = max(limit, prefetch) if two_stage else limit
        # a beam twice the candidates brings them nearly all at no cost that can be measured (the vectors are long);
        # rescoring would read the originals from disk, which the second stage makes needless
        params = edge.SearchParams(
            hnsw_ef=max(128, 2 * candidates), quantization=edge.QuantizationSearchParams(rescore=False)
        )
        first = edge.Query.Nearest(fde, using=FDE)
        if not two_stage:
            return self._hits(first, limit, with_payload, params=params)
        stage = edge.Prefetch(candidates, query=first, params=params)
        return self._hits(edge.Query.Nearest(query, using=TOKENS), limit, with_payload, prefetches=[stage])

    def exact_search(self, query_tokens: ArrayLike, limit: int = 10, *, with_payload: bool = True) -> list[Hit]:
        """MaxSim over every document: the truth that :meth:`search` approximates."""
        if not self._store_tokens:
            raise InvalidInput("this collection stores no tokens: there is nothing to score exactly")
        return self._hits(edge.Query.Nearest(self._query(query_tokens), using=TOKENS), limit, with_payload)

    def wait_indexed(self) -> None:
        """Builds the index and the quantized codes of everything written so far; returns when done."""
        self._call("index", lambda shard: shard.optimize())

    def count(self) -> int:
        """Documents stored."""
        return int(self._call("count", lambda shard: shard.count(edge.CountRequest(exact=True))))

    def close(self) -> None:
        """Writes everything to disk and releases the directory; closing twice is allowed."""
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None

    def drop(self) -> None:
        """Deletes the collection's directory and closes it."""
        self.close()
        _paths(self._path.parent, self._path.name)[1].unlink(missing_ok=True)
        shutil.rmtree(self._path)

    def __enter__(self) -> QdrantEdgeMuvera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(
        self, ids: Sequence[DocumentId], tokens: Any, payloads: Sequence[Mapping[str, Any] | None] | None
    ) -> tuple[TokenBatch, list[tuple[int | str, dict[str, Any]]]]:
        try:
            batch = to_batch(tokens, dim=self.encoder.token_dim)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        if len(ids) != len(batch) or (payloads is not None and len(payloads) != len(ids)):
            given = "" if payloads is None else f", {len(payloads)} payloads"
            raise InvalidInput(f"{len(ids)} ids, {len(batch)} token matrices{given}: the numbers must be equal")
        points: list[tuple[int | str, dict[str, Any]]] = []
        seen: dict[int | str, int] = {}
        for position, document_id in enumerate(ids):
            point_id, kept = to_point_id(document_id, position)
            if seen.setdefault(point_id, position) != position:
                raise InvalidInput(f"id {document_id!r} is given twice, at positions {seen[point_id]} and {position}")
            payload = dict((payloads[position] if payloads is not None else None) or {})
            if ID_KEY in payload:
                raise InvalidInput(f"the payload at position {position} has the reserved key {ID_KEY!r}")
            if kept is not None:
                payload[ID_KEY] = kept
            points.append((point_id, payload))
        finite = np.isfinite(batch.values).all(axis=1)
        if not finite.all():  # the engine would store them; checked before anything is written
            position = int(np.searchsorted(batch.offsets, np.argmin(finite), side="right")) - 1
            raise InvalidInput(f"document {position} (id {ids[position]!r}) has a NaN or infinite value")
        return batch, points

    def _batches(self, batch: TokenBatch) -> Iterator[tuple[int, int]]:
        per_token = 4 * batch.dim if self._store_tokens else 0
        sizes = 4 * self.encoder.dim + per_token * batch.lengths
        start, total = 0, 0
        for i, size in enumerate(sizes):
            if total + size > _BATCH_BYTES and i > start:
                yield start, i
                start, total = i, 0
            total += int(size)
        if start < len(batch):
            yield start, len(batch)

    def _vectors(self, fde: Any, tokens: Any) -> dict[str, Any]:
        return {FDE: fde, TOKENS: tokens} if self._store_tokens else {FDE: fde}

    def _query(self, query_tokens: ArrayLike) -> Any:
        try:
            return to_matrix(query_tokens, dim=self.encoder.token_dim, what="query").astype(np.float32)
        except ValueError as error:
            raise InvalidInput(str(error)) from error

    def _hits(self, query: edge.Query, limit: int, with_payload: bool, **stages: Any) -> list[Hit]:
        wanted = True if with_payload else edge.PayloadSelector.Include([ID_KEY])
        request = edge.QueryRequest(limit, query=query, with_payload=wanted, **stages)
        reranked = "params" not in stages
        hits = []
        for point in self._call("search", lambda shard: shard.query(request)):
            payload = dict(point.payload or {})
            document_id = from_point_id(point.id, payload)
            payload.pop(ID_KEY, None)
            fde_score = None if reranked else point.score
            hits.append(Hit(document_id, point.score, fde_score, payload if with_payload else None))
        return hits

    def _call(self, action: str, call: Any) -> Any:
        if self._shard is None:
            raise StoreUnavailable(f"{self._path} is closed")
        try:
            return call(self._shard)
        except Exception as error:  # the engine raises nothing more specific
            raise MuveraError(f"Qdrant Edge could not {action}: {error}") from error


def _paths(directory: str | os.PathLike[str], name: str) -> tuple[Path, Path]:
    """The shard's directory and the file beside it."""
    if not name or name in (".", "..") or Path(name).name != name:
        raise InvalidInput(f"{name!r} is no collection name: it becomes one directory")
    path = Path(directory) / name
    return path, path.with_name(name + ".muvera.json")


def _config(encoder: Encoder, quantization: Quantization, store_tokens: bool) -> edge.EdgeConfig:
    """FDEs with a graph over int8 codes; tokens without a graph (m=0); both kept as float16."""
    codes = None
    if quantization == "int8":
        codes = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Cached)
    vectors = {
        FDE: edge.EdgeVectorParams(
            encoder.dim,
            edge.Distance.Dot,
            datatype=edge.VectorStorageDatatype.Float16,
            quantization_config=codes,
            hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
            memory=edge.Memory.Cold if codes else edge.Memory.Cached,
        )
    }
    if store_tokens:
        vectors[TOKENS] = edge.EdgeVectorParams(
            encoder.token_dim,
            edge.Distance.Dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            datatype=edge.VectorStorageDatatype.Float16,
            hnsw_config=edge.HnswIndexConfig(m=0, payload_m=0, ef_construct=100, full_scan_threshold=10_000),
            memory=edge.Memory.Cached,
        )
    return edge.EdgeConfig(vectors=vectors)
