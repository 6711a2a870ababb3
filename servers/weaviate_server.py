"""A Weaviate on loopback, run from the binary that WEAVIATE_BIN names, or the one at WEAVIATE_URL."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import weaviate

from muvera_adapters.testing import CannotStart

HELP = (
    "set WEAVIATE_URL (and WEAVIATE_GRPC_PORT) to a Weaviate >= 1.31, or WEAVIATE_BIN to a server binary: "
    "CGO_ENABLED=0 go install github.com/weaviate/weaviate/cmd/weaviate-server@v1.39.0"
)


class WeaviateServer:
    """One process with its data in ``path``, on free ports; started again, it finds its data."""

    def __init__(self, binary: str, path: Path, **environment: str) -> None:
        self._binary = binary
        self._path = path
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._take_ports()

    def _take_ports(self) -> None:
        # a cluster on localhost takes its data port for the gossip port + 1, its raft RPC port for the raft port + 1
        self.gossip, self.raft, self.port, self.grpc_port = _free_ports(4)

    def start(self) -> None:
        """Starts the server, and waits until it is ready; with a port that somebody took meanwhile, on other ports."""
        for _ in range(5):
            new = not (self._path / "data").exists()
            try:
                return self._start()
            except RuntimeError as error:
                if not new or "address already in use" not in str(error):
                    raise
                shutil.rmtree(self._path / "data", ignore_errors=True)
                self._take_ports()
        raise CannotStart("Weaviate finds no free ports")

    def _start(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._path),
            "PERSISTENCE_DATA_PATH": str(self._path / "data"),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "CLUSTER_HOSTNAME": "node1",  # the name in the raft log, which a restart must find again
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_BIND_ADDR": "127.0.0.1",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_GOSSIP_BIND_PORT": str(self.gossip),
            "CLUSTER_DATA_BIND_PORT": str(self.gossip + 1),
            "RAFT_PORT": str(self.raft),
            "RAFT_INTERNAL_RPC_PORT": str(self.raft + 1),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "GRPC_PORT": str(self.grpc_port),
            "ENABLE_MODULES": "",
            "DEFAULT_VECTORIZER_MODULE": "none",
            "DISABLE_TELEMETRY": "true",
            "GO_PROFILING_DISABLE": "true",
            "LIMIT_RESOURCES": "false",
            "LOG_LEVEL": "warning",
            "DISK_USE_READONLY_PERCENTAGE": "99",
            "DISK_USE_WARNING_PERCENTAGE": "99",
            "GOMAXPROCS": "2",
            "ENABLE_EXPERIMENTAL_ALTER_SCHEMA_DROP_VECTOR_INDEX_ENDPOINT": "true",
            **self.environment,
        }
        command = [self._binary, "--scheme", "http", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--read-timeout=600s", "--write-timeout=600s"]
        with open(self._path / "log", "ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._path)
        self._wait_ready(600)  # a graph of a million tokens takes minutes to load

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def memory_bytes(self, field: str) -> int:
        """Of the process: VmRSS, or RssAnon without mapped files (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field + ":"))

    def disk_bytes(self) -> int:
        """Of the data."""
        return sum(file.stat().st_blocks * 512 for file in (self._path / "data").rglob("*") if file.is_file())

    def connect(self) -> weaviate.WeaviateClient:
        return weaviate.connect_to_local("127.0.0.1", self.port, self.grpc_port)

    def _wait_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/.well-known/ready", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.stop()
        tail = (self._path / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"Weaviate did not become ready; the end of its log:\n{tail}")


@contextmanager
def start_cluster(binary: str, path: Path, count: int) -> Iterator[list[WeaviateServer]]:
    """Nodes that know each other, on loopback."""
    servers = [WeaviateServer(binary, path / str(i)) for i in range(count)]
    members = ",".join(f"node{i}:{server.raft}" for i, server in enumerate(servers))
    for i, server in enumerate(servers):
        server.environment |= {
            "CLUSTER_HOSTNAME": f"node{i}",
            "RAFT_JOIN": members,
            "RAFT_BOOTSTRAP_EXPECT": str(count),
            **({"CLUSTER_JOIN": f"127.0.0.1:{servers[0].gossip}"} if i else {}),
        }
    try:
        # a node is ready when all are there
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(WeaviateServer.start, servers))
        yield servers
    finally:
        for server in servers:
            server.stop()


def binary() -> str:
    """WEAVIATE_BIN."""
    found = os.environ.get("WEAVIATE_BIN")
    if not found:
        raise CannotStart(HELP)
    return found


@contextmanager
def address(path: Path, **environment: str) -> Iterator[tuple[str, int, int]]:
    """Host, port and gRPC port of a running server; one that is started here gets the environment."""
    url = os.environ.get("WEAVIATE_URL")
    if url:
        parts = urlsplit(url)
        yield parts.hostname or "127.0.0.1", parts.port or 8080, int(os.environ.get("WEAVIATE_GRPC_PORT", "50051"))
        return
    server = WeaviateServer(binary(), path, **environment)
    server.start()
    try:
        yield "127.0.0.1", server.port, server.grpc_port
    finally:
        server.stop()


@contextmanager
def running() -> Iterator[tuple[str, int, int]]:
    """:func:`address` with a temporary directory."""
    with tempfile.TemporaryDirectory() as path, address(Path(path)) as found:
        yield found


def _free_ports(n: int) -> list[int]:
    """Ports of which the next is free, too, and no other's.

    They lie below those that systems give to outgoing connections, which could take one while a server is down.
    """
    found: list[int] = []
    while len(found) < n:
        port = random.randrange(15_000, 32_000, 2)
        if port not in found and _is_free(port) and _is_free(port + 1):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
