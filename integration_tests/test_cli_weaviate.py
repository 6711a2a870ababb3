"""The commands with tenants of Weaviate, and with a server that wants a key."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weaviate
from weaviate.classes.config import Configure
from weaviate.classes.tenants import Tenant

from muvera_adapters.databases import Database
from muvera_adapters.errors import AccessDenied
from muvera_adapters.testing import CannotStart
from muvera_adapters.testing.corpus import DIM, DOCUMENTS
from muvera_adapters.weaviate import WeaviateMuvera
from muvera_core import FDEConfig, FDEEncoder
from servers import shared, weaviate_server

COUNT = 12
MUVERA = [sys.executable, "-c", "from muvera_adapters.cli import app; app()"]
SIZES = ["--fde-dim", "160"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MUVERA, *arguments], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def server() -> Iterator[tuple[Any, str, str]]:
    """A client, a target, and the name of a collection that is dropped afterwards."""
    try:
        host, port, grpc_port = shared(weaviate_server.running)
    except CannotStart as problem:
        pytest.skip(str(problem))
    name = f"Tenants{uuid.uuid4().hex[:8]}"
    with weaviate.connect_to_local(host, port, grpc_port) as client:
        yield client, f"weaviate:http://{host}:{port}?grpc_port={grpc_port}", name
        client.collections.delete([name, name + "Copy"])


def test_every_command_takes_a_tenant(server, tmp_path):
    client, target, name = server
    made = client.collections.create(
        name,
        multi_tenancy_config=Configure.multi_tenancy(True),
        vector_config=[Configure.MultiVectors.self_provided(name="colbert")],
    )
    made.tenants.create([Tenant(name="one"), Tenant(name="two")])
    for i in range(COUNT):
        made.with_tenant("one").data.insert({"n": i}, uuid=uuid.UUID(int=i), vector={"colbert": DOCUMENTS[i].tolist()})
    np.save(tmp_path / "query.npy", DOCUMENTS[3])
    of_one = ["--collection", name, "--tenant", "one"]
    copy = ["--to", target, "--collection", name + "Copy", "--tenant", "three"]
    for command, expected in [
        (["backfill", target, *of_one, "--tokens-vector", "colbert", *SIZES], f"{COUNT} documents got their FDE"),
        (["search", target, *of_one, "--queries", "query.npy", "--limit", "1"], str(uuid.UUID(int=3))),
        (["verify", target, *of_one], f"{COUNT} documents were compared: 0"),
        (["repair", target, *of_one], "0 documents"),
        (["inspect", target, "--collection", name, "--tenant", "one"], f"documents   {COUNT}"),
        (["migrate", target, "--from-collection", name, "--from-tenant", "one", *copy, *SIZES], f"{COUNT} documents"),
    ]:
        done = run(*command, cwd=tmp_path)
        assert (done.returncode, done.stderr if done.returncode else "") == (0, "")
        assert expected in done.stdout
    listed = json.loads(run("collections", target, "--json", cwd=tmp_path).stdout)["collections"]
    # a collection of tenants has no number of documents of its own, and the schema no widths
    assert {"name": name, "documents": None, "has_fde": True, "multivectors": {"colbert": 0}} in listed
    assert WeaviateMuvera.open(client, name + "Copy", tenant="three").count() == COUNT
    assert made.with_tenant("two").aggregate.over_all(total_count=True).total_count == 0


@pytest.mark.parametrize("command", ["search", "backfill", "verify"])
def test_a_tenant_that_is_not_named_is_asked_for(server, tmp_path, command):
    client, target, name = server
    encoder = FDEEncoder(FDEConfig.of_size(DIM, 160))
    WeaviateMuvera.create(client, name, encoder, tenant="one").upsert([1], DOCUMENTS[:1])
    np.save(tmp_path / "query.npy", DOCUMENTS[0])
    more = {"search": ["--queries", "query.npy"], "backfill": ["--tokens-vector", "tokens"], "verify": []}[command]
    done = run(command, target, "--collection", name, *more, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "--tenant" in done.stderr


def test_rejected_credentials(tmp_path, monkeypatch):
    try:
        binary = weaviate_server.binary()
    except CannotStart as problem:
        pytest.skip(str(problem))
    keys = {"AUTHENTICATION_APIKEY_ALLOWED_KEYS": "right,reader", "AUTHENTICATION_APIKEY_USERS": "admin,reader"}
    admins = {"AUTHORIZATION_ADMINLIST_ENABLED": "true", "AUTHORIZATION_ADMINLIST_USERS": "admin"}
    readers = {"AUTHORIZATION_ADMINLIST_READONLY_USERS": "reader", "AUTHENTICATION_APIKEY_ENABLED": "true"}
    closed = {"AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false"}
    server = weaviate_server.WeaviateServer(binary, tmp_path, **keys, **admins, **readers, **closed)
    server.start()
    encoder = FDEEncoder(FDEConfig.of_size(DIM, 160))
    target = f"weaviate:http://127.0.0.1:{server.port}?grpc_port={server.grpc_port}"
    try:
        monkeypatch.setenv("WEAVIATE_API_KEY", "right")
        with Database(target) as database:
            database.create("Mine", encoder).upsert([1], DOCUMENTS[:1])
        monkeypatch.setenv("WEAVIATE_API_KEY", "reader")
        with Database(target) as database:
            store = database.open("Mine")
            assert store.count() == 1
            for call in (
                lambda: store.upsert([2], DOCUMENTS[1:2]),
                lambda: store.upsert([1], DOCUMENTS[1:2], [{"new": 1}]),
                lambda: store.delete([1]),
                store.drop,
            ):
                with pytest.raises(AccessDenied):
                    call()
        monkeypatch.setenv("WEAVIATE_API_KEY", "wrong")
        with Database(target) as database, pytest.raises(AccessDenied, match="WEAVIATE_API_KEY"):
            database.open("Mine")
    finally:
        server.stop()
