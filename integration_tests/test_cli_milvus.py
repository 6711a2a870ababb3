"""The commands with Milvus, whose collections keep tokens as text (milvus-lite) or in struct arrays (a stub)."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from pymilvus import MilvusClient

from integration_tests.engines.milvus import MilvusSession
from muvera_adapters.cli import app
from muvera_adapters.databases import Database
from muvera_adapters.errors import SchemaMismatch
from muvera_adapters.testing.corpus import DIM, DOCUMENTS
from muvera_core import FDEConfig, FDEEncoder
from servers import milvus_stub

COUNT = 30
IDS = list(range(COUNT))
SIZES = ["--fde-dim", "160"]


class Output(NamedTuple):
    stdout: str
    stderr: str


class Foreign:
    """A collection "pages" that this library did not make."""

    def __init__(self, target: str, storage: str) -> None:
        self.target = target
        self.storage = storage
        self.client = MilvusClient(target.partition(":")[2])
        self._session = MilvusSession(self.client, storage)
        self._session._prefix = ""
        self._session.foreign("pages", IDS[:COUNT], DOCUMENTS[:COUNT])

    def close(self) -> None:
        self.client.close()


@pytest.fixture(params=["text", "struct"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Foreign]:
    if request.param == "text":
        made = Foreign(f"milvus:{tmp_path / 'data.db'}", "blob")
        made.close()
        yield made
        return
    with milvus_stub.serving(tmp_path / "stub") as (uri, _):
        made = Foreign(f"milvus:{uri}", "struct")
        yield made
        made.close()


def muvera(*arguments: Any, status: int = 0) -> Output:
    """Runs the command in this process, which has a milvus-lite file until it ends."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["muvera", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app()
    assert (ended.value.code or 0) == status, (out.getvalue(), err.getvalue())
    return Output(out.getvalue(), err.getvalue())


def test_backfill_finds_the_width_of_tokens(foreign: Foreign, tmp_path: Path) -> None:
    command = ["backfill", foreign.target, "--collection", "pages", "--tokens-vector", "colbert", *SIZES]
    assert f"{COUNT} documents have no FDE" in muvera(*command, "--dry-run").stdout
    # milvus-lite cannot add a vector to a collection
    copy = ["--into", "filled", "--leave-out", "title"] if foreign.storage == "blob" else []
    report = json.loads(muvera(*command, *copy, "--json").stdout)
    assert (report["written"], report["copied"]) == (COUNT, COUNT if copy else 0)
    np.save(tmp_path / "q.npy", DOCUMENTS[4])
    collection = "filled" if copy else "pages"
    found = json.loads(muvera("collections", foreign.target, "--json").stdout)["collections"]
    listed = {each["name"]: each for each in found}
    assert listed[collection]["has_fde"]
    assert list(listed[collection]["multivectors"]) == ["colbert"]
    assert listed["pages"]["documents"] == COUNT
    assert listed["pages"]["has_fde"] is (collection == "pages")
    command = ["search", foreign.target, "--collection", collection, "--queries", tmp_path / "q.npy", "--json"]
    assert json.loads(muvera(*command).stdout)["results"][0][0]["id"] == IDS[4]


def test_migrate_finds_the_width_of_tokens(foreign: Foreign, tmp_path: Path) -> None:
    to = f"qdrant-edge:{tmp_path / 'edge'}"
    command = ["migrate", foreign.target, "--from-collection", "pages", "--tokens-vector", "colbert"]
    report = json.loads(muvera(*command, "--to", to, "--collection", "x", *SIZES, "--json").stdout)
    assert report["migration"]["written"] == COUNT
    assert report["verification"]["passed"]


def test_without_such_a_vector(foreign: Foreign) -> None:
    with Database(foreign.target) as database, pytest.raises(SchemaMismatch, match="no vector 'x'; there are: 'colb"):
        database.token_dim("pages", "x")


def test_a_vector_that_is_not_a_multivector(tmp_path: Path) -> None:
    made = Foreign(f"milvus:{tmp_path / 'data.db'}", "blob")
    made.close()
    with Database(made.target) as database, pytest.raises(SchemaMismatch, match="'title' is not a multivector"):
        database.token_dim("pages", "title")


@pytest.mark.parametrize("store_tokens", [True, False])
def test_collections_of_this_library(tmp_path: Path, store_tokens: bool) -> None:
    encoder = FDEEncoder(FDEConfig.of_size(DIM, 160))
    with Database(f"milvus:{tmp_path / 'data.db'}") as database:
        store = database.create("own", encoder, store_tokens=store_tokens)
        says = "no document has tokens" if store_tokens else "no vector 'muvera_tokens'; there are: none"
        with pytest.raises(SchemaMismatch, match=says):
            database.token_dim("own", "muvera_tokens")
        if store_tokens:
            store.upsert(["a"], DOCUMENTS[:1])
            assert database.token_dim("own", "muvera_tokens") == DIM


def test_a_copy_with_an_alias(foreign: Foreign) -> None:
    command = ["backfill", foreign.target, "--collection", "pages", "--tokens-vector", "colbert", *SIZES]
    complaint = muvera(*command, "--alias", "current", status=2).stderr
    assert "--into" in complaint.splitlines()[-1]
    if foreign.storage == "struct":
        report = json.loads(muvera(*command, "--into", "filled", "--alias", "current", "--json").stdout)
        assert report["copied"] == COUNT
        assert foreign.client.describe_alias("current")["collection_name"] == "filled"


def test_quantization(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    np.savez(tmp_path / "tokens.npz", tokens=rng.normal(size=(60, DIM)).astype("f4"), lengths=np.full(20, 3))
    to = ["--to", f"milvus:{tmp_path / 'data.db'}", "--collection", "x", "--quantization", "sq8"]
    report = json.loads(muvera("migrate", tmp_path / "tokens.npz", *to, *SIZES, "--json").stdout)
    assert report["estimate"]["code_bytes"] == 20 * 160
    with Database(f"milvus:{tmp_path / 'data.db'}") as database:
        assert database.open("x").info().code_bytes == 20 * 160
