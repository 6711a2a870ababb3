"""The journal of a migration: a SQLite file with its progress, written after the database has replied."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from muvera_adapters.errors import EncoderMismatch, MuveraError
from muvera_adapters.results import DocumentId
from muvera_adapters.sources.base import TokenSource
from muvera_adapters.stores.database import Target

Phase = Literal["new", "creating", "loading", "loaded"]

_VERSION = 2
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE progress (
    one INTEGER PRIMARY KEY CHECK (one = 1), phase TEXT NOT NULL, there_before INTEGER NOT NULL,
    position INTEGER NOT NULL, documents INTEGER NOT NULL, tokens INTEGER NOT NULL, last_id TEXT
);
CREATE TABLE failed (position INTEGER PRIMARY KEY, id TEXT NOT NULL, reason TEXT NOT NULL);
INSERT INTO progress VALUES (1, 'new', 0, 0, 0, 0, NULL);
"""


class SourceChanged(MuveraError):
    """The source has changed since the migration began."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be migrated.

    Attributes:
        position: position of the document in the source.
        id: id of the document; a UUID is a string once it was in the journal.
        reason: message of the encoder or the database.
    """

    position: int
    id: DocumentId
    reason: str


@dataclass(frozen=True, slots=True)
class Migration:
    """The migration that a journal belongs to; a run continues with the journal of an equal migration.

    Attributes:
        source: format, width, number of documents and state of the files of the source.
        place: location of the source, for messages: an index may be moved.
        target: target as the user wrote it.
        collection: name of the collection.
        encoder: fingerprint of the encoder.
        conditions: conditions that choose documents.
    """

    source: dict[str, Any]
    place: str
    target: str
    collection: str
    encoder: str
    conditions: list[str]


def snapshot_of(source: TokenSource) -> dict[str, Any]:
    """State of a source, to detect changes: sizes and times of files by name; for a collection, its count."""
    root = Path(source.place)
    files = {}
    for file in source.files:
        try:
            status = file.stat()
        except OSError as error:
            raise SourceChanged(f"{file} of {source.place} can no longer be read: {error}") from error
        name = file.relative_to(root).as_posix() if file != root and file.is_relative_to(root) else file.name
        files[name] = [status.st_size, status.st_mtime_ns]
    return {"format": source.format, "dim": source.dim, "documents": len(source), "files": files}


def check_unchanged(source: TokenSource, before: dict[str, Any]) -> None:
    """Raises SourceChanged if a source has changed since ``snapshot_of`` returned ``before``."""
    if not all(file.exists() for file in source.files):
        raise SourceChanged(f"files of {source.place} were removed while it was read")
    difference = _difference(before, snapshot_of(source))
    if difference:
        raise SourceChanged(
            f"{source.place} changed while it was read ({difference}); what was written may mix two states of it: drop "
            "the collection and migrate a copy"
        )


def default_path(target: Target, collection: str) -> Path:
    """Default path of a journal: beside an embedded database; for a server, in the working directory."""
    collection = re.sub(r"[/\\]", "-", collection)  # the name may have slashes
    name = f"{collection}.migration.sqlite"
    if target.is_server:
        parts = [target.location.partition("://")[2], *target.store_options.values()]
        server = re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-")
        return Path(f"{collection}.{target.scheme}-{server}.migration.sqlite")
    return Path(f"{target.location}.{name}" if target.place == "file" else f"{target.location}/{name}")


class Journal:
    """Progress of one migration; one process at a time may have it open.

    Every change is on disk when its method returns.

    Args:
        path: path of the file, which is created if missing, with its directory.
        migration: the migration that the journal belongs to.

    Raises:
        SourceChanged: the migration began with another state of the source.
        EncoderMismatch: the migration began with another encoder.
        MuveraError: the file belongs to another migration, is in use, or is not a journal.
    """

    def __init__(self, path: Path, migration: Migration) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise MuveraError(
                f"{path}: the journal of the migration cannot be written here: {error}; name another file with "
                "--journal"
            ) from error
        try:
            self._open(migration)
        except sqlite3.OperationalError as error:
            self.close()
            why = "is another migration using it?" if "locked" in str(error) else "name another file with --journal"
            raise MuveraError(f"{path} cannot be opened ({error}): {why}") from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise MuveraError(f"{path} is not a journal of a migration: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def phase(self) -> Phase:
        """Phase: ``new``, ``creating`` the collection, ``loading`` documents, or ``loaded`` once all are written."""
        return self._one("phase")

    @property
    def there_before(self) -> int:
        """Number of documents that the collection had before the migration."""
        return self._one("there_before")

    @property
    def position(self) -> int:
        """Position in the source before which every document is acknowledged or failed."""
        return self._one("position")

    @property
    def documents(self) -> int:
        """Number of documents that are acknowledged or failed."""
        return self._one("documents")

    @property
    def tokens(self) -> int:
        """Number of tokens of the acknowledged documents."""
        return self._one("tokens")

    @property
    def last_id(self) -> DocumentId | None:
        """Id of the last document before ``position``; a UUID is a string."""
        text = self._one("last_id")
        return None if text is None else json.loads(text)

    @property
    def failures(self) -> list[Failure]:
        """Failed documents, by position."""
        rows = self._execute("SELECT position, id, reason FROM failed ORDER BY position")
        return [Failure(position, json.loads(text), reason) for position, text, reason in rows]

    def enter(self, phase: Phase, *, there_before: int | None = None) -> None:
        """Records that a phase begins."""
        self._execute("UPDATE progress SET phase = ?, there_before = coalesce(?, there_before)", (phase, there_before))

    def advance(
        self, position: int, documents: int, tokens: int, last_id: DocumentId | None, failures: Sequence[Failure]
    ) -> None:
        """Records a batch.

        Args:
            position: position where the next batch begins.
            documents: number of documents of the batch, including failed ones.
            tokens: number of tokens of the acknowledged documents.
            last_id: id of the last document; None for an empty batch.
            failures: failed documents of the batch.
        """
        text = None if last_id is None else _id_text(last_id)
        self._execute("BEGIN")
        for failure in failures:
            row = (failure.position, _id_text(failure.id), failure.reason)
            self._execute("INSERT OR REPLACE INTO failed VALUES (?, ?, ?)", row)
        self._execute(
            "UPDATE progress SET position = ?, documents = documents + ?, tokens = tokens + ?, "
            "last_id = coalesce(?, last_id)",
            (position, documents, tokens, text),
        )
        self._execute("COMMIT")

    def retried(self, position: int, tokens: int, failure: Failure | None) -> None:
        """Records the retry of a failed document: its new failure, or None if it is written now."""
        self._execute("BEGIN")
        self._execute("DELETE FROM failed WHERE position = ?", (position,))
        if failure is not None:
            row = (position, _id_text(failure.id), failure.reason)
            self._execute("INSERT INTO failed VALUES (?, ?, ?)", row)
        self._execute("UPDATE progress SET tokens = tokens + ?", (tokens,))
        self._execute("COMMIT")

    def close(self) -> None:
        """Closes the file, so that another process can use it."""
        self._database.close()

    def discard_if_new(self) -> None:
        """Deletes the journal of a migration that has not begun."""
        unused = self.phase == "new"
        self.close()
        if unused:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, migration: Migration) -> None:
        # the lock is held until the file is closed, however the process ends
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("BEGIN EXCLUSIVE")
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        wanted = {
            "version": _VERSION,
            "source": migration.source,
            "place": migration.place,
            "target": migration.target,
            "collection": migration.collection,
            "encoder": migration.encoder,
            "conditions": migration.conditions,
        }
        if not tables:
            for statement in filter(str.strip, _TABLES.split(";")):
                self._database.execute(statement)
            rows = [(key, json.dumps(value)) for key, value in wanted.items()]
            self._database.executemany("INSERT INTO about VALUES (?, ?)", rows)
        elif not {"about", "progress", "failed"} <= tables:
            raise MuveraError(f"{self.path} is not a journal of a migration; name another file with --journal")
        self._database.execute("COMMIT")
        self._check({key: json.loads(text) for key, text in self._database.execute("SELECT * FROM about")}, wanted)

    def _check(self, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
        anew = f"; to begin anew, drop the collection and delete {self.path}"
        if kept.get("version") != _VERSION:
            raise MuveraError(f"{self.path} was written by another version of this library")
        for key in ("target", "collection"):
            if kept[key] != wanted[key]:
                raise MuveraError(
                    f"{self.path} is the journal of a migration into {kept['target']} {kept['collection']}; name "
                    "another file with --journal"
                )
        difference = _difference(kept["source"], wanted["source"])
        if difference:
            raise SourceChanged(
                f"{wanted['place']} is not what the migration was begun with ({difference}); documents may have moved, "
                f"so it cannot continue{anew}"
            )
        if kept["encoder"] != wanted["encoder"]:
            raise EncoderMismatch(
                f"the migration was begun with encoder {kept['encoder']}, and this run has {wanted['encoder']}{anew}"
            )
        if kept["conditions"] != wanted["conditions"]:
            begun = " ".join(kept["conditions"]) or "all documents"
            raise MuveraError(f"the migration was begun with other documents ({begun}){anew}")

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise MuveraError(f"{self.path}: the journal cannot be read or written: {error}") from error

    def _one(self, column: str) -> Any:
        return self._execute(f"SELECT {column} FROM progress").fetchone()[0]  # noqa: S608 (our own names)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first difference, in words; '' if there is none."""
    for key in ("format", "dim", "documents"):
        if before[key] != now[key]:
            return f"{key}: {before[key]} then, {now[key]} now"
    for name in sorted(before["files"].keys() | now["files"].keys()):
        if before["files"].get(name) != now["files"].get(name):
            return f"the file {name} was " + (
                "added" if name not in before["files"] else "taken away" if name not in now["files"] else "written"
            )
    return ""


def _id_text(identifier: DocumentId) -> str:
    return json.dumps(identifier, default=str)
