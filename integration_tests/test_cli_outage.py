"""A migration by the command line into a server that goes away for a while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from servers.qdrant_stub import StubServer

pytest.importorskip("qdrant_client")


def test_an_outage_is_announced_and_survived(tmp_path: Path) -> None:
    stub = StubServer()
    stub.start()
    stub.faults.append("drop")
    thread = stub.restart_at(write=1, pause=2.0)
    np.savez(tmp_path / "all.npz", embeddings=np.ones((6, 16), np.float32), lengths=[3, 3], ids=[1, 2])
    command = [sys.executable, "-c", "from muvera_adapters.cli import app; app()", "migrate", "all.npz"]
    command += ["--to", f"qdrant:{stub.url}", "--collection", "c", "--fde-dim", "160", "--no-verify"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    thread.join()
    stub.stop()
    assert done.returncode == 0, done.stderr
    assert sorted(stub.points) == [1, 2]
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if "trying again in" in line]
    assert lines, done.stderr
    assert all(line.startswith("muvera: Qdrant") and stub.url in line for line in lines), "each on a line of its own"
    assert "(attempt 2 of 30)" in lines[0]
