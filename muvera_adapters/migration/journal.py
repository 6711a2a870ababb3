"""The journal of a migration: a SQLite file that says how far it has come, written after the database's replies."""

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
    """The source is no longer what the migration was begun with."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be migrated.

    Attributes:
        position: in the source.
        id: of the document; a UUID as a string once it was in the journal.
        reason: what the encoder or the database said.
    """

    position: int
    id: DocumentId
    reason: str


@dataclass(frozen=True, slots=True)
class Migration:
    """What a journal is about; a run goes on with a journal of an equal one.

    Attributes:
        source: format, width, number of documents and state of the files.
        place: of the source, for messages: an index may be moved.
        target: as it was written.
        collection: its name.
        encoder: fingerprint.
        conditions: which documents are chosen.
    """

    source: dict[str, Any]
    place: str
    target: str
    collection: str
    encoder: str
    conditions: list[str]


def snapshot_of(source: TokenSource) -> dict[str, Any]:
    """What tells whether a source has changed: sizes and times of its files, by name; of a collection, its count."""
    root = Path(source.place)
    files = {}
    for file in source.files:
        try:
            status = file.stat()
        except OSError as error:
            raise SourceChanged(f"{file} of {source.place} cannot be read any more: {error}") from error
        name = file.relative_to(root).as_posix() if file != root and file.is_relative_to(root) else file.name
        files[name] = [status.st_size, status.st_mtime_ns]
    return {"format": source.format, "dim": source.dim, "documents": len(source), "files": files}


def check_unchanged(source: TokenSource, before: dict[str, Any]) -> None:
    """Raises SourceChanged where a source is not what ``snapshot_of`` said before."""
    if not all(file.exists() for file in source.files):
        raise SourceChanged(f"files of {source.place} were taken away while it was read")
    difference = _difference(before, snapshot_of(source))
    if difference:
        raise SourceChanged(
            f"{source.place} changed while it was read ({difference}); what was written may mix two states of it: drop "
            "the collection and migrate a copy"
        )


def default_path(target: Target, collection: str) -> Path:
    """Beside an embedded database; of a server, in the working directory."""
    collection = re.sub(r"[/\\]", "-", collection)  # one file, whatever the name
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
        path: of the file; made if missing, with its directory.
        migration: what it is about.

    Raises:
        SourceChanged: it was begun with another state of the source.
        EncoderMismatch: it was begun with another encoder.
        MuveraError: it is of another migration, in use, or no journal.
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
            raise MuveraError(f"{path} is no journal of a migration: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def phase(self) -> Phase:
        """``new``; ``creating`` the collection; ``loading`` documents; or ``loaded``, when all documents are in."""
        return self._one("phase")

    @property
    def there_before(self) -> int:
        """Documents that the collection had before the migration."""
        return self._one("there_before")

    @property
    def position(self) -> int:
        """Everything before it is acknowledged or failed."""
        return self._one("position")

    @property
    def documents(self) -> int:
        """Acknowledged or failed."""
        return self._one("documents")

    @property
    def tokens(self) -> int:
        """Of those acknowledged."""
        return self._one("tokens")

    @property
    def last_id(self) -> DocumentId | None:
        """Of the last document before ``position``; a UUID as a string."""
        text = self._one("last_id")
        return None if text is None else json.loads(text)

    @property
    def failures(self) -> list[Failure]:
        """By position."""
        rows = self._execute("SELECT position, id, reason FROM failed ORDER BY position")
        return [Failure(position, json.loads(text), reason) for position, text, reason in rows]

    def enter(self, phase: Phase, *, there_before: int | None = None) -> None:
        """Notes that a phase begins."""
        self._execute("UPDATE progress SET phase = ?, there_before = coalesce(?, there_before)", (phase, there_before))

    def advance(
        self, position: int, documents: int, tokens: int, last_id: DocumentId | None, failures: Sequence[Failure]
    ) -> None:
        """Notes a batch.

        Args:
            position: where the next begins.
            documents: of the batch, failed ones counted.
            tokens: of those acknowledged.
            last_id: of its last document, None in an empty batch.
            failures: of the batch.
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
        """Notes a document that had failed: with its new failure, or written after all."""
        self._execute("BEGIN")
        self._execute("DELETE FROM failed WHERE position = ?", (position,))
        if failure is not None:
            row = (position, _id_text(failure.id), failure.reason)
            self._execute("INSERT INTO failed VALUES (?, ?, ?)", row)
        self._execute("UPDATE progress SET tokens = tokens + ?", (tokens,))
        self._execute("COMMIT")

    def close(self) -> None:
        """Lets another process have it."""
        self._database.close()

    def discard_if_new(self) -> None:
        """Deletes a journal in which nothing was begun."""
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
        # the lock is kept until the file is closed, by whatever end of the process
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
            raise MuveraError(f"{self.path} is no journal of a migration; name another file with --journal")
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
                f"so it cannot go on{anew}"
            )
        if kept["encoder"] != wanted["encoder"]:
            raise EncoderMismatch(
                f"the migration was begun with encoder {kept['encoder']}, now it is {wanted['encoder']}{anew}"
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
    """The first thing that differs, in words; '' where nothing does."""
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
