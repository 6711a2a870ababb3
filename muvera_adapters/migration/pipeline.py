"""Migrates batches of documents from a source to a store, and records acknowledged ones in the journal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from muvera_adapters.databases import Database
from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    EncoderMismatch,
    InvalidInput,
    ModelMismatch,
    MuveraError,
    SchemaMismatch,
    StoreUnavailable,
    WrongUsage,
)
from muvera_adapters.migration.journal import (
    Failure,
    Journal,
    Migration,
    SourceChanged,
    check_unchanged,
    default_path,
    snapshot_of,
)
from muvera_adapters.migration.selecting import Condition
from muvera_adapters.progress import progress_bar
from muvera_adapters.sources.base import SourceDocument, TokenSource
from muvera_adapters.stores.checks import without_zero_rows
from muvera_adapters.stores.protocol import Store
from muvera_adapters.stores.token_model import TokenModel, as_token_model, check_model
from muvera_core import Encoder, InvalidTokens

# limits of one batch: 8 MB of tokens at 128 dims, and 2.6 MB of FDEs at the default 2,560 dims
_BATCH_TOKENS = 16_384
_BATCH_DOCUMENTS = 256
# number of skipped positions after which progress is recorded anyway
_BATCH_POSITIONS = 20_000
# number of failures without a success after which a migration stops
_HOPELESS = 100


@dataclass
class MigrationReport:
    """The result of a migration.

    Attributes:
        documents: number of documents that this run and earlier ones read and chose; all are written or failed.
        written: number of documents that the database acknowledged.
        failed: documents that failed.
        tokens: number of tokens of the written documents.
        resumed: number of documents that earlier runs had done.
        complete: whether the source was read to its end; False if ``limit`` ended the run.
        seconds: duration of this run in seconds, until the last document was acknowledged.
        index_seconds: seconds from then until the database had finished indexing.
        unindexed: number of documents without index, as ``StoreInfo.unindexed``.
        journal: journal with which the next run would continue.
        there_before: number of documents in the collection before the migration.
        zero_rows: number of all-zero token vectors that this run left out.
        repaired: number of documents that the database had lost from its indexes and this run has indexed again.
        position: position in the source where the next run continues.
    """

    documents: int = 0
    written: int = 0
    failed: list[Failure] = field(default_factory=list)
    tokens: int = 0
    resumed: int = 0
    complete: bool = False
    seconds: float = 0.0
    index_seconds: float = 0.0
    unindexed: int | None = None
    journal: str = ""
    there_before: int = 0
    zero_rows: int = 0
    repaired: int = 0
    position: int = 0


@dataclass(frozen=True)
class _Batch:
    documents: list[SourceDocument]
    next_position: int


def migrate(
    source: TokenSource,
    database: Database,
    collection: str,
    encoder: Encoder,
    *,
    journal: Path | None = None,
    limit: int | None = None,
    where: Sequence[Condition] = (),
    keep: Callable[[str], bool] | None = None,
    workers: int = 1,
    into_existing: bool = False,
    model: TokenModel | str | None = None,
    progress: bool = False,
    **options: Any,
) -> tuple[Store, MigrationReport]:
    """Migrates documents into a new collection, or continues an interrupted migration.

    It needs memory for a few batches, whatever the size of the source. A kill at any moment loses nothing: the journal
    is written after the database has acknowledged a batch, and a batch that is written twice has the same ids.

    Args:
        source: source of the documents.
        database: database to write to.
        collection: name of the collection; it must not exist unless a run of this migration created it.
        encoder: encoder of the documents.
        journal: file that records the progress; None: beside an embedded database, otherwise in the working directory.
        limit: maximum number of documents, including those of earlier runs.
        where: conditions that a document's payload must meet.
        keep: function that tells whether a payload key is copied; None: all are.
        workers: number of batches written at a time; more than one only for a server.
        into_existing: whether to write into an existing collection of this library; documents with the same ids are
            replaced.
        model: model of the tokens, which is stored with a new collection. None: that of the source, which is stored
            only if the source is a collection that stores it; the checkpoint of an index may be a path, and is only
            compared.
        progress: whether to show a progress bar.
        **options: options of the store's ``create``.

    Returns:
        The store, and the report. Documents that failed in an earlier run are tried again.

    Raises:
        CollectionExists: the collection exists, and this migration did not create it.
        SourceChanged: the source has changed since the migration began.
        EncoderMismatch: the migration, or the collection, has another encoder.
        ModelMismatch: the source, or the existing collection, has another model.
        StoreUnavailable: the database stopped answering; repeat the call to continue.
        WrongUsage: several workers on an embedded database.
    """
    if workers > 1 and not database.target.is_server:
        raise WrongUsage(f"{database.target} is embedded and takes one worker")
    model = as_token_model(model)
    in_database = not source.files
    if in_database:
        check_model(source.place, source.model, model)
    known = model or source.model
    if model is not None or (in_database and known is not None):
        options["model"] = known
    started = time.monotonic()
    before = snapshot_of(source)
    path = journal or default_path(database.target, collection)
    about = Migration(
        before, source.place, str(database.target), collection, encoder.fingerprint, [c.text for c in where]
    )
    with Journal(path, about) as kept:
        begun = kept.phase != "new"
        try:
            store = _open_store(database, collection, encoder, known, kept, into_existing, options)
        except ModelMismatch as error:
            kept.discard_if_new()
            if model is not None:
                raise
            raise ModelMismatch(
                f"{error}; {source.place} names the model: if both are the same model, give the "
                "collection's name for it with --model"
            ) from error
        except BaseException:
            kept.discard_if_new()
            raise
        resumed = kept.documents
        write = _Writer(store, keep)
        with progress_bar(
            total=len(source) if limit is None else min(limit, len(source)),
            initial=resumed,
            unit="doc",
            desc=f"migrate into {collection}",
            disable=not progress,
        ) as bar:
            if resumed:
                _retry(source, kept, write)
            try:
                complete = kept.phase == "loaded" or _load(source, kept, write, where, limit, workers, bar)
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"{error}; {kept.documents:,} documents are done, run the same command again to go on"
                ) from (error.__cause__ or error)
        check_unchanged(source, before)
        if complete:
            kept.enter("loaded")
        failures = kept.failures
        report = MigrationReport(
            documents=kept.documents,
            written=kept.documents - len(failures),
            failed=failures,
            tokens=kept.tokens,
            resumed=resumed,
            complete=complete,
            journal=str(path),
            there_before=kept.there_before,
            position=kept.position,
        )
    report.zero_rows = write.zero_rows
    report.seconds = time.monotonic() - started
    if begun and database.spec.repairs:
        # an earlier run may have ended by a kill of the server, perhaps before it acknowledged a document
        report.repaired = getattr(store, "repair")(progress=progress)  # noqa: B009 (not a part of the protocol)
    report.unindexed = store.wait_indexed()
    report.index_seconds = time.monotonic() - started - report.seconds
    return store, report


def _open_store(
    database: Database,
    name: str,
    encoder: Encoder,
    model: TokenModel | None,
    journal: Journal,
    into_existing: bool,
    options: Mapping[str, Any],
) -> Store:
    """Opens the collection of this migration that the journal has recorded, or creates a new one."""
    if journal.phase in ("loading", "loaded"):
        try:
            return database.open(name, encoder, model=model)
        except CollectionNotFound as error:
            raise CollectionNotFound(
                f"{error}; the journal recorded {journal.documents:,} documents in it: delete {journal.path} to begin "
                "anew"
            ) from error
    store: Store | None = None
    try:
        store = database.open(name, encoder, model=model)
    except CollectionNotFound:
        taken = False
    except (EncoderMismatch, ModelMismatch, SchemaMismatch):
        if into_existing:
            raise
        taken = True
    else:
        taken = True
    if not taken:
        journal.enter("creating")
        try:
            store = database.create(name, encoder, **options)
        except (CollectionExists, InvalidInput):
            journal.enter("new")
            raise
    # a run that was killed while it created the collection left an empty one
    elif not into_existing and not (journal.phase == "creating" and store is not None and store.count() == 0):
        raise CollectionExists(
            f"{database.target} has a collection {name} already: choose another name, or --into-existing to add to it; "
            "to go on with a migration into it, name its --journal"
        )
    assert store is not None
    journal.enter("loading", there_before=store.count())
    return store


def _load(
    source: TokenSource,
    journal: Journal,
    write: _Writer,
    where: Sequence[Condition],
    limit: int | None,
    workers: int,
    bar: Any,
) -> bool:
    """Writes all documents from the journal's position on; returns whether the source was read to its end."""
    left = None if limit is None else max(0, limit - journal.documents)
    batches = _batches(_from(source, journal, where), journal.position, source.n_positions, where, left)
    with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as executor:
        under_way: deque[tuple[_Batch, Future[list[Failure]]]] = deque()

        def finish(batch: _Batch, failures: list[Failure]) -> None:
            lost = {f.position for f in failures}
            tokens = sum(len(d.tokens) for d in batch.documents if d.position not in lost)
            last = batch.documents[-1].id if batch.documents else None
            journal.advance(batch.next_position, len(batch.documents), tokens, last, failures)
            bar.update(len(batch.documents))
            if failures and journal.documents >= _HOPELESS and len(journal.failures) == journal.documents:
                raise MuveraError(
                    f"the first {journal.documents} documents all failed, the last: {failures[-1].reason}"
                )

        try:
            for batch in batches:
                if executor is None:
                    finish(batch, write(batch.documents))
                    continue
                under_way.append((batch, executor.submit(write, batch.documents)))
                # in order, so that everything before the journal's position is done
                while len(under_way) > workers:
                    first, future = under_way.popleft()
                    finish(first, future.result())
            while under_way:
                first, future = under_way.popleft()
                finish(first, future.result())
        except BaseException:
            for _, future in under_way:
                future.cancel()
            raise
    return journal.position >= source.n_positions


def _from(source: TokenSource, journal: Journal, where: Sequence[Condition]) -> Iterator[SourceDocument]:
    """The remaining documents. Without files that show a change, the document before them must be the same."""
    if source.files or where or journal.last_id is None:
        return source.documents(journal.position)
    documents = source.documents(journal.position - 1)
    first = next(documents, None)
    if first is None or str(first.id) != str(journal.last_id):
        raise SourceChanged(
            f"{source.place} changed: where {journal.last_id!r} was, there is {None if first is None else first.id!r} "
            "now; drop the collection and start again"
        )
    return documents


def _batches(
    documents: Iterator[SourceDocument],
    position: int,
    end: int,
    where: Sequence[Condition],
    left: int | None,
) -> Iterator[_Batch]:
    chosen: list[SourceDocument] = []
    tokens, begin = 0, position
    for document in documents if left is None or left > 0 else ():
        position = document.position + 1
        if all(condition(document.payload) for condition in where):
            chosen.append(document)
            tokens += len(document.tokens)
            if left is not None and (left := left - 1) == 0:
                yield _Batch(chosen, position if next(documents, None) is not None else end)
                return
        if tokens >= _BATCH_TOKENS or len(chosen) >= _BATCH_DOCUMENTS or position - begin >= _BATCH_POSITIONS:
            yield _Batch(chosen, position)
            chosen, tokens, begin = [], 0, position
    if left is None or left > 0:
        yield _Batch(chosen, end)


def _retry(source: TokenSource, journal: Journal, write: _Writer) -> None:
    """Tries documents again that failed in an earlier run, as the cause may be gone."""
    for failure in journal.failures:
        document = next(islice(source.documents(failure.position), 1), None)
        if document is None or document.position != failure.position or str(document.id) != str(failure.id):
            raise SourceChanged(f"{source.place} no longer has {failure.id!r} at position {failure.position}")
        again = write([document])
        journal.retried(failure.position, 0 if again else len(document.tokens), again[0] if again else None)


class _Writer:
    """Writes batches, and returns the documents that failed, each with its reason."""

    def __init__(self, store: Store, keep: Callable[[str], bool] | None) -> None:
        self._store = store
        self._keep = keep
        self.zero_rows = 0
        self._lock = Lock()  # several workers call it

    def __call__(self, documents: Sequence[SourceDocument]) -> list[Failure]:
        # all-zero rows are padding, which sources do not remove
        present = [d._replace(tokens=without_zero_rows(d.tokens)) for d in documents]
        without = [d for d in present if not len(d.tokens)]
        failures = [Failure(d.position, d.id, "all its tokens are zeros, or it has none") for d in without]
        failures += self._write([d for d in present if len(d.tokens)])
        lost = {failure.position for failure in failures}
        pairs = zip(documents, present, strict=True)
        dropped = sum(len(d.tokens) - len(p.tokens) for d, p in pairs if d.position not in lost)
        with self._lock:
            self.zero_rows += dropped
        return failures

    def _write(self, documents: Sequence[SourceDocument]) -> list[Failure]:
        if not documents:
            return []
        try:
            # whole documents, so that the database need not read existing ones
            report = self._store.upsert(
                [d.id for d in documents],
                [d.tokens for d in documents],
                [self._payload(d.payload) for d in documents],
                replace=True,
            )
        except (InvalidInput, InvalidTokens) as error:
            # one bad document fails the whole batch before anything is sent
            if len(documents) == 1:
                return [Failure(documents[0].position, documents[0].id, str(error))]
            half = len(documents) // 2
            return [*self._write(documents[:half]), *self._write(documents[half:])]
        return [Failure(d.position, d.id, report.failed[d.id]) for d in _found(documents, report.failed)]

    def _payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return payload if self._keep is None else {k: v for k, v in payload.items() if self._keep(k)}


def _found(documents: Iterable[SourceDocument], failed: Mapping[Any, str]) -> list[SourceDocument]:
    return [d for d in documents if d.id in failed]
