"""The bulk loading example, with two workers against a real server; killed in the middle, it is repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import weaviate

from muvera_adapters.testing import CannotStart
from muvera_adapters.weaviate import WeaviateMuvera
from muvera_core import FDEConfig
from servers import weaviate_server
from servers.relay import Relay

SCRIPT = Path(__file__).parents[1] / "examples" / "bulk_ray.py"
COUNT = 600
# what the first run may send, so that it cannot end before it is killed: a quarter of all FDEs
FIRST_BYTES = COUNT * FDEConfig(dim=128).fde_dim

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # of clients that are imported here for the first time


@pytest.fixture
def address(tmp_path):
    try:
        with weaviate_server.address(tmp_path / "server") as found:
            yield found
    except CannotStart as problem:
        pytest.skip(str(problem))


def start(corpus, address, workers=2):
    host, port, grpc_port = map(str, address)
    target = f"weaviate:http://{host}:{port}?grpc_port={grpc_port}"
    command = [sys.executable, SCRIPT, corpus, target, "--stand-in", "--batch", "20", "--workers", str(workers)]
    environment = {**os.environ, "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finish(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return out.splitlines()[-1]


def test_killed_and_repeated(tmp_path, address):
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": f"doc-{i}", "text": f"passage number{i} on topic{i % 9}"} for i in range(COUNT)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    host, port, grpc_port = address
    if host not in ("127.0.0.1", "localhost"):
        pytest.skip(f"the relay reaches no server on {host}")
    relay = Relay(grpc_port, limit=FIRST_BYTES)
    with weaviate.connect_to_local(*address) as client:
        first = start(corpus, (host, port, relay.port))
        deadline = time.monotonic() + 120
        loaded = 0
        while not loaded and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.1)
            if client.collections.exists("ExampleCorpus"):
                loaded = client.collections.use("ExampleCorpus").aggregate.over_all().total_count or 0
        os.killpg(first.pid, signal.SIGKILL)
        relay.close()
        assert 0 < loaded < COUNT, first.communicate()

        written = int(finish(start(corpus, address)).split()[0])
        assert 0 < written < COUNT  # what was there was passed over
        assert finish(start(corpus, address)) == "0 written, 0 failed"

        store = WeaviateMuvera.open(client, "ExampleCorpus")
        stored = {d.id: d.payload["text"] for d in store.scroll()}
        assert stored == {row["id"]: row["text"] for row in rows}
        document = store.get(["doc-77"], with_tokens=True)[0]
        assert store.search(document.tokens, limit=1)[0].id == "doc-77"
        store.drop()
