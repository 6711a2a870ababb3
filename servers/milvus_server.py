"""Milvus on this machine: 2.3.5 from its PyPI wheel (`milvus`, Linux on x86-64), and milvus-lite; one process each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muvera_adapters.testing import CannotStart

HELP = "pip install 'muvera-adapters[milvus-server]' (Linux on x86-64), which has a standalone Milvus 2.3.5"

# what an idle server waits between its rounds; without these a new collection takes seconds to be loaded
_BRISK = {
    "PROXY_TIMETICKINTERVAL": "50",
    "QUERYCOORD_CHECKINTERVAL": "100",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "100",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "100",
    "QUERYCOORD_CHECKINDEXINTERVAL": "500",
    "QUERYCOORD_DISTPULLINTERVAL": "50",
    "QUERYCOORD_LEADERVIEWUPDATEINTERVAL": "1",
}

_ETCD = """name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""


class MilvusServer:
    """One process with its data in ``path``, on free ports; started again, it finds its data.

    The wheel's own starter leaves the server running when its caller is killed, so the process is started here.
    """

    def __init__(self, path: Path) -> None:
        try:
            import milvus
        except ImportError:
            raise CannotStart(HELP) from None
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        settings = milvus.MilvusServerConfig()
        names = [name for name in settings.configurable_items if name.endswith("_port")]
        self.port, self._health, peer, *others = free_ports(len(names) + 2)
        ports = dict(zip([name for name in names if name != "proxy_port"], others, strict=True))
        settings.update(data_dir=str(path), proxy_port=self.port, **ports)
        settings.resolve_all_listen_ports()
        settings.cleanup_listen_ports()
        settings.resolve_storage()
        settings.write_config()
        # without this its etcd takes 2379 and 2380, which another server may have
        (path / "etcd.yaml").write_text(_ETCD.format(client=ports["etcd_port"], peer=peer))
        milvus._initialize_data_files(str(path))

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._path),
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._health),
            "MILVUS_RUN_DIR": str(self._path / "run"),
            "LD_LIBRARY_PATH": str(self._path / "bin"),
            "ETCD_CONFIG_PATH": str(self._path / "etcd.yaml"),
            "GOMAXPROCS": "2",
            **_BRISK,
        }
        command = [str(self._path / "bin" / "milvus"), "run", "standalone"]
        with open(self._path / "log", "ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._path)
        self._wait_ready(180)

    def kill(self) -> None:
        """As a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """It answers SIGTERM with a slow farewell to its own parts; what is acknowledged survives a kill too."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def _wait_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz", timeout=5) as reply:
                    if b"OK" in reply.read():
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        self.stop()
        tail = (self._path / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"Milvus did not become ready; the end of its log:\n{tail}")


class LiteServer:
    """milvus-lite in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self._path / "data")]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]  # its default is all interfaces
        with open(self._path / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 600  # a busy machine takes minutes over its imports
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise RuntimeError((self._path / "log").read_text(errors="replace")[-2000:]) from None
                time.sleep(0.2)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


@contextmanager
def standalone() -> Iterator[str]:
    """URI of a :class:`MilvusServer` with a temporary directory."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        server = MilvusServer(Path(path))
        try:
            server.start()
            yield server.uri
        finally:
            server.stop()


@contextmanager
def lite() -> Iterator[str]:
    """URI of a :class:`LiteServer` with a temporary directory."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        server = LiteServer(Path(path))
        try:
            server.start()
            yield server.uri
        finally:
            server.stop()


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
