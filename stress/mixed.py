"""Reads and writes concurrently for a limited time, and reports errors, growth of memory, and recall at the end.

python -m stress.mixed --store edge --threads 8 --minutes 60 --seed 1
python -m stress.mixed --store weaviate --tasks 8 --minutes 60       # asyncio; WEAVIATE_BIN names a Weaviate server

Every worker owns a share of the ids. It writes, replaces and deletes only its own documents, so that the expected state
at the end is known, and searches and counts all documents. A search must return hits in the order of their scores, and
no document twice. At the end, every document is compared with the last acknowledged write. Searches before and after
are compared with exact MaxSim.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import resource
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.databases import Database
from muvera_core import FDEConfig, FDEEncoder, maxsim
from servers.milvus_server import LiteServer
from servers.weaviate_server import WeaviateServer, binary

DIM = 32
ENCODER = FDEEncoder(FDEConfig(dim=DIM, r_reps=8, k_sim=3, d_proj=16))
IDS = 2_000
_TOKENS = 12
_SAMPLE_SECONDS = 10.0
_PATIENCE = 600.0  # time limit of a search in seconds; on a busy machine, a slow one is not a failure


def tokens_of(document: int, version: int) -> npt.NDArray[np.float32]:
    """Tokens (12, 32) of a version of a document; float16 keeps them."""
    rng = np.random.default_rng([document, version])
    return rng.normal(size=(_TOKENS, DIM)).astype(np.float16).astype(np.float32)


class Share:
    """What one worker does with its ids."""

    def __init__(self, number: int, workers: int, seed: int) -> None:
        self.ids = list(range(number, IDS, workers))
        self.rng = Random(seed * 1_000 + number)
        #: id -> version that was acknowledged last
        self.there: dict[int, int] = {}
        self.version = 0
        self.calls: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()

    def step(self) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any], Callable[[Any], None]]]:
        """The next call: name, arguments, and what its result must be."""
        kind = self.rng.choices(["search", "upsert", "get", "delete", "count"], [50, 25, 15, 7, 3])[0]
        self.calls[kind] += 1
        if kind == "upsert":
            ids = self.rng.sample(self.ids, self.rng.randrange(1, 20))
            self.version += 1
            new = [tokens_of(i, self.version) for i in ids]

            def written(report: Any) -> None:
                assert report.written == len(ids), report.failed
                self.there.update(dict.fromkeys(ids, self.version))

            yield kind, (ids, new, [{"v": self.version}] * len(ids)), {}, written
        elif kind == "delete":
            ids = self.rng.sample(self.ids, self.rng.randrange(1, 8))

            def deleted(_: Any) -> None:
                for i in ids:
                    self.there.pop(i, None)

            yield kind, (ids,), {}, deleted
        elif kind == "get":
            ids = self.rng.sample(self.ids, 10)
            expected = [self.there.get(i) for i in ids]

            def got(documents: Any) -> None:
                assert [None if d is None else d.payload["v"] for d in documents] == expected, "not what was written"

            yield kind, (ids,), {}, got
        elif kind == "search":
            query = tokens_of(self.rng.randrange(IDS), 0)[:4]

            def found(hits: Any) -> None:
                ids = [hit.id for hit in hits]
                assert len(set(ids)) == len(ids), "a document twice"
                scores = [hit.score for hit in hits]
                assert scores == sorted(scores, reverse=True), "not in the order of scores"

            yield kind, (query, 10, 100), {"count_missing": False, "timeout": _PATIENCE}, found
        else:
            yield kind, (), {}, lambda count: None

    def failed(self, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.errors[f"{type(error).__name__}: {str(error)[:160]} ({Path(where.filename).name}:{where.lineno})"] += 1


class End:
    """When the workers stop: after some minutes, or at SIGINT (Ctrl+C) or SIGTERM."""

    def __init__(self, minutes: float) -> None:
        self._began = time.monotonic()
        self._end = self._began + minutes * 60
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def __call__(self) -> bool:
        return self._asked or time.monotonic() > self._end

    def minutes(self) -> float:
        """Since the beginning."""
        return (time.monotonic() - self._began) / 60


def threads(store: Any, shares: list[Share], end: End) -> None:
    """Runs every share in its own thread, with one store."""

    def work(share: Share) -> None:
        while not end():
            for name, arguments, options, check in share.step():
                try:
                    check(getattr(store, name)(*arguments, **options))
                except Exception as error:
                    share.failed(error)

    running = [threading.Thread(target=work, args=(share,)) for share in shares]
    for each in running:
        each.start()
    for each in running:
        each.join()


async def tasks(store: Any, shares: list[Share], end: End) -> None:
    """Runs every share in its own task, with one asynchronous store."""

    async def work(share: Share) -> None:
        while not end():
            for name, arguments, options, check in share.step():
                try:
                    check(await getattr(store, name)(*arguments, **options))
                except Exception as error:
                    share.failed(error)

    await asyncio.gather(*map(work, shares))


class Memory(threading.Thread):
    """Notes the resident bytes of this process and of a server."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self.samples: list[tuple[float, list[int]]] = []
        self._began = time.monotonic()

    def run(self) -> None:
        while True:
            pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids]
            self.samples.append((time.monotonic() - self._began, [p * resource.getpagesize() >> 20 for p in pages]))
            time.sleep(_SAMPLE_SECONDS)


@contextmanager
def running(store: str, path: Path) -> Iterator[tuple[str, list[int]]]:
    """Target of a store, and pids of its processes beside this one."""
    if store == "edge":
        yield f"qdrant-edge:{path / 'data'}", []
    elif store == "local":
        yield f"qdrant:{path / 'data'}", []
    else:
        server: Any = WeaviateServer(binary(), path / "server") if store == "weaviate" else LiteServer(path)
        server.start()
        try:
            yield (
                (
                    f"weaviate:http://127.0.0.1:{server.port}?grpc_port={server.grpc_port}"
                    if store == "weaviate"
                    else f"milvus:{server.uri}"
                ),
                [server.pid] if store == "weaviate" else [server._process.pid],
            )
        finally:
            server.stop()


async def _with_async(target: str, shares: list[Share], end: End) -> None:
    if target.startswith("weaviate"):
        import weaviate

        from muvera_adapters.weaviate import AsyncWeaviateMuvera

        port, _, grpc_port = target.rpartition(":")[2].partition("?grpc_port=")
        async with weaviate.use_async_with_local("127.0.0.1", int(port), int(grpc_port)) as client:
            await tasks(await AsyncWeaviateMuvera.open(client, "Mixed"), shares, end)
    else:
        from pymilvus import AsyncMilvusClient

        from muvera_adapters.milvus import AsyncMilvusMuvera

        client = AsyncMilvusClient(target.partition(":")[2])
        await tasks(await AsyncMilvusMuvera.open(client, "Mixed"), shares, end)
        await client.close()


def check(store: Any, shares: list[Share]) -> dict[str, Any]:
    """Compares everything with what was acknowledged last."""
    expected = {i: version for share in shares for i, version in share.there.items()}
    store.wait_indexed(timeout=300)
    found = {d.id: d for d in store.scroll(with_tokens=True)}
    wrong = [i for i in expected if i in found and not np.array_equal(found[i].tokens, tokens_of(i, expected[i]))]
    return {
        "documents": len(expected),
        "lost": len(expected.keys() - found.keys()),
        "undead": len(found.keys() - expected.keys()),
        "wrong": len(wrong),
        "count": store.count(),
        "stale": len(store.verify().stale),
    }


def recall(store: Any, shares: list[Share]) -> tuple[float, float]:
    """Recall@10 of exact MaxSim by searches, and by the 200 best documents of exact FDEs, which searches can attain."""
    expected = {i: version for share in shares for i, version in share.there.items()}
    ids = sorted(expected)
    matrices = [tokens_of(i, expected[i]) for i in ids]
    fdes = ENCODER.encode_documents(matrices)
    hits = attainable = 0
    for i in range(50):
        query = tokens_of(i, 0)[:4]
        best = {ids[k] for k in np.argsort(-maxsim(query, matrices))[:10].tolist()}
        hits += len(best & {hit.id for hit in store.search(query, 10, 200, timeout=_PATIENCE)})
        candidates = np.argsort(-(fdes @ ENCODER.encode_query(query)))[:200].tolist()
        attainable += len(best & {ids[k] for k in candidates})
    return hits / 500, attainable / 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["edge", "weaviate", "milvus-lite", "local"], default="edge")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=0, help="number of asyncio tasks instead of threads; 0: threads")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    workers = arguments.tasks or arguments.threads
    shares = [Share(number, workers, arguments.seed) for number in range(workers)]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path,
        running(arguments.store, Path(path)) as (target, pids),
        Database(target) as database,
    ):
        store = database.create("Mixed", ENCODER)
        for share in shares:  # half of the documents are there from the start
            first = share.ids[::2]
            store.upsert(first, [tokens_of(i, 0) for i in first], [{"v": 0}] * len(first))
            share.there.update(dict.fromkeys(first, 0))
        store.wait_indexed(timeout=300)
        before = recall(store, shares)
        memory = Memory([os.getpid(), *pids])
        memory.start()
        end = End(arguments.minutes)
        if arguments.tasks:
            asyncio.run(_with_async(target, shares, end))
        else:
            threads(store, shares, end)
        samples, minutes = memory.samples, end.minutes()
        found = check(store, shares)
        after = recall(store, shares)
    calls: collections.Counter[str] = sum((share.calls for share in shares), collections.Counter())
    errors: collections.Counter[str] = sum((share.errors for share in shares), collections.Counter())
    tenth = max(1, len(samples) // 10)
    print(
        json.dumps(
            {
                "store": arguments.store,
                "workers": f"{workers} {'tasks' if arguments.tasks else 'threads'}",
                "minutes": round(minutes, 1),
                "seed": arguments.seed,
                "calls": dict(calls),
                "errors": dict(errors.most_common(10)),
                # after a tenth of the time, at half of it and in the end: this process, then the server
                "resident MB": [samples[k][1] for k in (tenth - 1, len(samples) // 2, -1)],
                **found,
                # of searches, and of the 200 best documents by exact FDEs
                "recall at the beginning": before,
                "recall at the end": after,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
