"""Kills clients and servers at random moments of loads, backfills and migrations, and checks that nothing is lost.

python -m stress.kills --kills 100 --seed 1 --out kills.jsonl          # WEAVIATE_BIN names a Weaviate server

A child process does the work and notes every document that it is told is written. It, or its server, is killed after a
random part of the time that the work takes undisturbed. Then the server is started again, and every document that was
reported as written must be there; the same work is started again, until an attempt ends by itself. Then every document
must be there once, with its tokens, its payload and a right FDE, and the last report must say so.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from muvera_adapters import databases
from muvera_adapters.databases import Database
from muvera_adapters.errors import MuveraError, WriteInterrupted
from muvera_adapters.migration import migrate, pipeline
from muvera_adapters.sources import open_source
from muvera_adapters.stores.operations import ONCE
from muvera_adapters.testing import CannotStart
from muvera_core import FDEConfig, FDEEncoder
from servers.milvus_server import LiteServer
from servers.weaviate_server import WeaviateServer, binary

ENCODER = FDEEncoder(FDEConfig(dim=32, r_reps=4, k_sim=3, d_proj=8))
COUNT = 300
IDS = list(range(COUNT))
# float16 keeps them, and some stores keep float16
TOKENS = list(np.random.default_rng(8).normal(size=(COUNT, 12, 32)).astype(np.float16).astype(np.float32))
PAYLOADS = [{"n": i} for i in IDS]
NAME = "Killed"
#: store, work, who is killed
CASES = [
    *(("edge", work, "client") for work in ("load", "backfill", "migration")),
    *(("weaviate", work, who) for work in ("load", "backfill", "migration") for who in ("client", "server")),
    *(("milvus-lite", work, who) for work in ("load", "migration") for who in ("client", "server")),
]
# children are forks of a process that has imported what they need, which costs a hundred times what their work does
_CONTEXT = multiprocessing.get_context("forkserver")
_INTERRUPTED = 3  # exit status of work that ended with StoreUnavailable or WriteInterrupted


class _Place:
    """One collection of one store in a directory, and the server that has it."""

    def __init__(self, store: str, path: Path) -> None:
        self.path = path
        self._server: Any = None
        if store == "edge":
            self.target = f"qdrant-edge:{path / 'data'}"
        elif store == "weaviate":
            self._server = WeaviateServer(binary(), path / "server")
            self._server.start()
            self.target = f"weaviate:http://127.0.0.1:{self._server.port}?grpc_port={self._server.grpc_port}"
        else:
            self._server = LiteServer(path)
            self._server.start()
            self.target = f"milvus:{self._server.uri}"

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


def work(kind: str, target: str, place: Path, seed: int, under_way: Connection) -> None:
    """The child: does the work, and notes in a file what it is told."""
    notes = place / "notes"
    with (place / "errors").open("a") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    databases._PATIENT = ONCE  # a killed server ends the work, so that its report is seen
    with notes.open("a") as file, Database(target) as database:

        def note(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        note(began=True)
        under_way.close()
        try:
            if kind == "load":
                _load(database, Random(seed), note)
            elif kind == "backfill":
                report = database.adopt(NAME, ENCODER, tokens_vector="tokens").backfill()
                note(done=report.remaining == 0 and not report.failed)
            else:
                pipeline._BATCH_DOCUMENTS = 16
                source = open_source(notes.with_name("all.npz"))
                _, moved = migrate(source, database, NAME, ENCODER, journal=notes.with_name("journal"))
                note(done=moved.complete and moved.written == COUNT and not moved.failed)
        except WriteInterrupted as error:
            failed = error.report.failed
            note(interrupted=str(error)[:200], failed=sorted(failed), written=error.report.written)
            sys.exit(_INTERRUPTED)
        except MuveraError as error:
            note(interrupted=f"{type(error).__name__}: {str(error)[:200]}")
            sys.exit(_INTERRUPTED)


def _load(database: Database, rng: Random, note: Any) -> None:
    try:
        store = database.open(NAME)
    except MuveraError:
        store = database.create(NAME, ENCODER)
    begin = 0
    while begin < COUNT:
        end = min(COUNT, begin + rng.randrange(1, 60))
        note(sent=[begin, end])
        report = store.upsert(IDS[begin:end], TOKENS[begin:end], PAYLOADS[begin:end])
        note(acknowledged=[i for i in IDS[begin:end] if i not in report.failed], written=report.written)
        begin = end
    note(done=True)


def _prepare(kind: str, place: _Place) -> None:
    np.savez(place.path / "all.npz", embeddings=np.vstack(TOKENS), lengths=[len(t) for t in TOKENS], ids=IDS)
    if kind == "backfill":
        with Database(place.target) as database:
            store = database.create(NAME, ENCODER)
            store.upsert(IDS, TOKENS, PAYLOADS)
            store.remove_fde()


def _start(kind: str, place: _Place, seed: int) -> BaseProcess:
    """Starts the work, and returns when it is under way."""
    receiving, sending = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(target=work, args=(kind, place.target, place.path, seed, sending))
    child.start()
    sending.close()
    receiving.poll(None)  # until the child's end is closed, too
    receiving.close()
    return child


def _notes(place: _Place) -> list[dict[str, Any]]:
    lines = (place.path / "notes").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _acknowledged(notes: list[dict[str, Any]]) -> set[int]:
    told: set[int] = set()
    for at, note in enumerate(notes):
        told |= set(note.get("acknowledged", ()))
        if "failed" in note and "sent" in notes[at - 1]:
            told |= set(range(*notes[at - 1]["sent"])) - set(note["failed"])
    return told


def _misreported(notes: list[dict[str, Any]]) -> int:
    """Reports whose numbers do not add up."""
    wrong = sum(note["written"] != len(note["acknowledged"]) for note in notes if "acknowledged" in note)
    for at, note in enumerate(notes):
        if "failed" in note and "sent" in notes[at - 1]:
            begin, end = notes[at - 1]["sent"]
            wrong += note["written"] + len(note["failed"]) != end - begin
    return wrong


def _check(kind: str, place: _Place, tally: collections.Counter[str]) -> None:
    """Counts what is not as it must be when the work was done."""
    with Database(place.target) as database:
        store = database.open(NAME)
        repair = getattr(store, "repair", None)
        if repair is not None:
            tally["repaired"] += repair()
        found = [document for document in store.scroll(with_tokens=True) if document.tokens is not None]
        there = collections.Counter(document.id for document in found)
        tally["lost"] += len(set(IDS) - set(there))
        tally["doubled"] += sum(count - 1 for count in there.values()) + len(set(there) - set(IDS))
        tally["wrong"] += sum(
            not np.array_equal(document.tokens, TOKENS[int(document.id)])  # type: ignore[arg-type]
            or (kind != "migration" and document.payload != PAYLOADS[int(document.id)])
            for document in found
        )
        tally["misreported"] += store.count() != len(found)
        verified = store.verify()
        tally["wrong"] += len(verified.stale) + verified.without_fde + len(verified.unreadable)
        for i in IDS[::50]:
            hits = store.search(TOKENS[i], 1, 100)
            tally["not found"] += not hits or hits[0].id != i


def run(case: tuple[str, str, str], seed: int, kills: int, usual: dict[tuple[str, str], float]) -> dict[str, Any]:
    """One collection, whose work is killed some times and then ends by itself."""
    store, kind, who = case
    rng, tally = Random(seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        place = _Place(store, Path(path))
        try:
            _prepare(kind, place)
            for _ in range(kills):
                child = _start(kind, place, seed)
                began, moment = time.monotonic(), rng.uniform(0, usual.get((store, kind), 1.0))
                while child.exitcode is None and time.monotonic() - began < moment:
                    time.sleep(0.001)
                tally["early" if child.exitcode is not None else "kills"] += 1
                if who == "client":
                    child.kill()
                else:
                    place.kill_server()
                child.join()
                if who == "server":
                    place.start_server()
                notes = _notes(place)
                if kind == "load" and _acknowledged(notes):
                    with Database(place.target) as database:
                        present = {document.id for document in database.open(NAME).scroll()}
                    tally["lost"] += len(_acknowledged(notes) - present)
                if any(note.get("done") for note in notes):
                    break
            done = any(note.get("done") for note in _notes(place))
            for _ in range(0 if done else 3):
                began = time.monotonic()
                child = _start(kind, place, seed)
                child.join()
                usual[store, kind] = max(0.05, min(usual.get((store, kind), 1e9), time.monotonic() - began))
                if child.exitcode == 0:
                    break
            else:
                tally["not completed"] += not done
            notes = _notes(place)
            tally["misreported"] += _misreported(notes) + (notes[-1].get("done") is not True and not done)
            _check(kind, place, tally)
        finally:
            place.stop()
            errors = (place.path / "errors").read_text()[-1500:] if (place.path / "errors").exists() else ""
    problems = any(tally[name] for name in ("lost", "doubled", "wrong", "misreported", "not found", "not completed"))
    return {"case": case, "seed": seed, **tally, **({"errors": errors, "notes": notes[-3:]} if problems else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills in all")
    parser.add_argument("--each", type=int, default=3, help="maximum number of kills of one collection's work")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time, however many are done")
    parser.add_argument("--stores", nargs="+", default=["edge", "weaviate", "milvus-lite"])
    parser.add_argument("--who", nargs="+", default=["client", "server"], help="kinds of processes to kill")
    parser.add_argument("--out", type=Path, default=Path("kills.jsonl"))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and stop the server
    _CONTEXT.set_forkserver_preload(["stress.kills", "muvera_adapters.qdrant.edge", "pymilvus"])
    cases = [case for case in CASES if case[0] in arguments.stores and case[2] in arguments.who]
    total: collections.Counter[str] = collections.Counter()
    usual: dict[tuple[str, str], float] = {}
    began, number = time.monotonic(), 0
    with arguments.out.open("w") as out:
        while total["kills"] < arguments.kills and time.monotonic() - began < arguments.minutes * 60:
            case = cases[number % len(cases)]
            seed = arguments.seed * 1_000 + number
            try:
                found = run(case, seed, arguments.each, usual)
            except (CannotStart, RuntimeError) as error:  # a server that a busy machine did not start in time
                found = {"case": case, "seed": seed, "not started": 1, "error": str(error)[-500:]}
            out.write(json.dumps(found, default=str) + "\n")
            out.flush()
            total.update({name: count for name, count in found.items() if isinstance(count, int) and name != "seed"})
            number += 1
    print(json.dumps({**total, "collections": number, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
