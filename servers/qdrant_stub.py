"""A few of Qdrant's REST endpoints on loopback, which fail on command: what retries are tested against.

It stores points and counts them; it searches nothing. It is no stand-in for a server in any other test.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubServer:
    """Listens on a port of 127.0.0.1 from :meth:`start` to :meth:`stop`; state survives a restart.

    Attributes:
        faults: what becomes of the next writes of points, one each: ``"ok"``, an HTTP status, ``"429:SECONDS"``,
            ``"drop"`` (no answer), ``"lost"`` (applied, then no answer), ``"slow"`` (answers after ``delay`` seconds).
        always: a fault for all writes when ``faults`` is empty.
        poison: ids that make a whole write fail with 400.
        points: id -> point as received.
        writes: ids of every write that was received, applied or not.
        largest: bytes of the largest body.
        lose_creation: the next collection is made, and the reply lost.
        arrivals: times of writes.
        settled: number of requests that wait for all shards.
    """

    def __init__(self) -> None:
        self.faults: deque[str] = deque()
        self.always = "ok"
        self.delay = 3.0
        self.poison: set[Any] = set()
        self.points: dict[Any, Any] = {}
        self.writes: list[list[Any]] = []
        self.arrivals: list[float] = []
        self.largest = 0
        self.settled = 0
        self.collections: dict[str, Any] = {}
        self.on_write: Callable[[], None] = lambda: None
        self.lose_creation = False
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def restart_at(self, write: int, pause: float) -> threading.Thread:
        """Goes away while it answers that write, counted from 1, and is back after ``pause`` seconds.

        Returns:
            The thread that does it, to be joined after the write.
        """
        stopped = threading.Event()

        def restart() -> None:
            self.stop()
            stopped.set()
            time.sleep(pause)
            self.start()

        def stop_once() -> None:
            if len(self.writes) == write:
                thread.start()
                stopped.wait()  # else a busy machine may answer before the thread runs

        thread = threading.Thread(target=restart)
        self.on_write = stop_once
        return thread

    def upsert(self, points: list[Any]) -> tuple[str, str]:
        """The fault to play, and why a write is refused."""
        self.arrivals.append(time.monotonic())
        self.writes.append([point["id"] for point in points])
        self.on_write()
        fault = self.faults.popleft() if self.faults else self.always
        bad = self.poison & set(self.writes[-1])
        if fault in ("ok", "slow", "lost") and bad:
            return "400", f"point {sorted(bad)[0]} is refused"
        if fault in ("ok", "slow", "lost"):
            self.points.update((point["id"], point) for point in points)
        return fault, "on command"


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/").split("/")
        if path == [""]:
            self._raw(200, {"title": "qdrant - vector search engine", "version": "1.19.0", "commit": "stub"})
        elif path[-1] == "exists":
            self._result({"exists": path[1] in self.stub.collections})
        elif path[1] in self.stub.collections:
            self._result(_description(self.stub.collections[path[1]], len(self.stub.points)))
        else:
            self._error(404, f"Not found: Collection `{path[1]}` doesn't exist!")

    def do_PUT(self) -> None:
        path, body = self.path.split("?")[0].strip("/").split("/"), self._body()
        if path[-1] != "points":
            self._create(path[1], body)
            return
        self._write(body["points"])

    def _write(self, points: list[Any]) -> None:
        fault, reason = self.stub.upsert(points)
        if fault in ("drop", "lost"):
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(self.stub.delay)
        if fault in ("ok", "slow"):
            done = {"operation_id": len(self.stub.writes), "status": "completed"}
            self._result([done] if self.path.split("?")[0].endswith("batch") else done)
        else:
            status, _, retry_after = fault.partition(":")
            self._error(int(status), reason, {"Retry-After": retry_after} if retry_after else {})

    def _create(self, name: str, body: Any) -> None:
        if name in self.stub.collections:
            self._error(409, f"Wrong input: Collection `{name}` already exists!")
            return
        self.stub.collections[name] = body
        if self.stub.lose_creation:
            self.stub.lose_creation = False
            self.close_connection = True
            return
        self._result(True)

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0].strip("/").split("/"), self._body()
        if path[-2:] == ["payload", "delete"]:
            self.stub.settled += 1
            self._result({"operation_id": 0, "status": "completed"})
        elif path[-1] == "count":
            self._result({"count": len(self.stub.points)})
        elif path[-1] == "scroll":
            page = list(self.stub.points.values())[: body["limit"]]
            self._result({"points": [{"id": point["id"]} for point in page], "next_page_offset": None})
        elif path[-1] == "batch":
            self._write([each for operation in body["operations"] for each in _written(operation)])
        elif path[-1] == "points":
            found = [self.stub.points[i] for i in body["ids"] if i in self.stub.points]
            self._result([{"id": point["id"], "payload": point["payload"]} for point in found])
        else:
            self._error(501, f"the stub has no {self.path}")

    def _body(self) -> Any:
        length = int(self.headers.get("Content-Length", 0))
        self.stub.largest = max(self.stub.largest, length)
        return json.loads(self.rfile.read(length))

    def _result(self, result: Any) -> None:
        self._raw(200, {"result": result, "status": "ok", "time": 0.0})

    def _error(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        self._raw(status, {"status": {"error": reason}, "time": 0.0}, headers)

    def _raw(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        try:
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has given up waiting

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _written(operation: Any) -> list[Any]:
    """Points of an operation that writes whole points or their vectors; payloads of known points are not kept."""
    (kind, content), *_ = operation.items()
    return content["points"] if kind in ("upsert", "update_vectors") else []


def _description(created: Any, points: int) -> Any:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "points_count": points,
        "segments_count": 1,
        "config": {
            "params": {"vectors": created["vectors"]},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "metadata": created.get("metadata"),
        },
        "payload_schema": {},
    }
