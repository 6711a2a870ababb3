"""A migration that says on its standard output which document it reads; run as a program, to be killed.

Told a place of the source, it reads ten documents more and then waits for the kill.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muvera_adapters.databases import Database
from muvera_adapters.migration import migrate, pipeline
from muvera_adapters.sources import open_source
from muvera_core import FDEConfig, FDEEncoder

_PACE = 0.02  # seconds a document, so that kills after one place find the run in different states


class Talking:
    """A source that prints each position before it gives the document, and stays where it is after ``last``."""

    def __init__(self, source: Any, last: int) -> None:
        self._source = source
        self._last = last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def documents(self, start: int = 0) -> Iterator[Any]:
        for document in self._source.documents(start):
            sys.stdout.write(f"{document.position}\n")
            sys.stdout.flush()
            time.sleep(_PACE)
            if document.position > self._last:
                threading.Event().wait()
            yield document


def main(path: str, target: str, collection: str, journal: str, place: str = "") -> None:
    # many batches of a small index
    pipeline._BATCH_DOCUMENTS = 5
    source: Any = Talking(open_source(path), int(place) + 10 if place else sys.maxsize)
    with Database(target) as database:
        migrate(source, database, collection, FDEEncoder(FDEConfig(source.dim)), journal=Path(journal))


if __name__ == "__main__":
    main(*sys.argv[1:])
