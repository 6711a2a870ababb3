"""Targets as users write them, and what they say when they cannot be reached."""

import socket
import sys

import numpy as np
import pytest

from muvera_adapters.databases import Database, is_target, parse_target
from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    MissingExtra,
    SchemaMismatch,
    StoreUnavailable,
    WrongUsage,
)
from muvera_core import FDEConfig, FDEEncoder

ENCODER = FDEEncoder(FDEConfig(16, r_reps=4, k_sim=2, d_proj=8))


@pytest.mark.parametrize(
    ("text", "place", "location", "options"),
    [
        ("qdrant-edge:some/dir", "directory", "some/dir", {}),
        ("qdrant:/some/dir", "directory", "/some/dir", {}),
        ("qdrant:http://localhost:6333", "server", "http://localhost:6333", {}),
        (
            "qdrant:https://x.qdrant.io:6333/base?grpc_port=6334",
            "server",
            "https://x.qdrant.io:6333/base",
            {"grpc_port": "6334"},
        ),
        ("weaviate:http://[::1]:8080?grpc_port=50052", "server", "http://[::1]:8080", {"grpc_port": "50052"}),
        ("milvus:data/file.db", "file", "data/file.db", {}),
        ("milvus:http://localhost:19530", "server", "http://localhost:19530", {}),
    ],
)
def test_forms(text, place, location, options):
    target = parse_target(text)
    assert (target.place, target.location, target.options) == (place, location, options)
    assert target.scheme == text.partition(":")[0]
    assert str(target) == text
    assert target.is_server == location.startswith("http")
    assert is_target(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "targets are qdrant-edge:DIR"),
        ("pinecone:x", "targets are qdrant-edge:DIR"),
        ("http://localhost:6333", "write the database before the URL"),
        ("qdrant:", "'qdrant:' has no location: give URL or DIR, as in qdrant:URL"),
        ("milvus:", "has no location: give URL or FILE.db"),
        ("qdrant-edge:localhost:6333", "a server as qdrant:http://localhost:6333"),
        ("qdrant:localhost:6333", "qdrant:http://localhost:6333"),
        ("weaviate:localhost", "weaviate:http://localhost"),
        ("milvus:directory", "milvus:FILE.db"),
        ("qdrant-edge:http://localhost:6333", "write a server as qdrant:http://localhost:6333"),
        ("qdrant:http://localhost:6333?grpc=6334", "a qdrant URL has no option grpc"),
        ("milvus:http://localhost:19530?grpc_port=1", "a milvus URL has no option grpc_port"),
        ("qdrant:http://localhost:port", "is not a valid URL"),
        ("qdrant:http://localhost:6333?grpc_port=x", "grpc_port must be a number, got 'x'"),
        ("qdrant:http://", "no host"),
    ],
)
def test_wrong_targets(text, says):
    with pytest.raises(WrongUsage) as caught:
        parse_target(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_in_urls_are_refused_and_not_repeated():
    with pytest.raises(WrongUsage, match="WEAVIATE_API_KEY") as caught:
        parse_target("weaviate:http://user:hunter2@localhost:8080")
    assert "hunter2" not in str(caught.value)


def test_paths_are_no_targets():
    assert not any(is_target(path) for path in ("index", "./qdrant:x", "C:\\index", "data/qdrant", "qdrant"))


@pytest.mark.parametrize("scheme", ["qdrant-edge", "qdrant"])
def test_create_and_open(tmp_path, scheme, rng):
    target = f"{scheme}:{tmp_path / 'data'}"
    tokens = rng.normal(size=(2, 3, 16)).astype("f4")
    with Database(target) as database:
        store = database.create("passages", ENCODER, quantization=None)
        assert store.upsert(["a", "b"], list(tokens)).written == 2
        with pytest.raises(CollectionExists):
            database.create("passages", ENCODER)
    with Database(target) as database:
        store = database.open("passages")
        assert store.encoder.fingerprint == ENCODER.fingerprint
        assert [hit.id for hit in store.search(tokens[1], limit=1)] == ["b"]
        with pytest.raises(CollectionNotFound):
            database.open("pages")
    # everything was closed: another process may have it
    with Database(target) as database:
        assert database.open("passages").count() == 2


@pytest.mark.parametrize("target", ["qdrant-edge:data", "qdrant:data"])
def test_opening_makes_nothing(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    with Database(target) as database, pytest.raises(CollectionNotFound):
        database.open("passages")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["qdrant", "weaviate"])
def test_a_server_that_is_down(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with Database(f"{scheme}:http://127.0.0.1:{port}") as database, pytest.raises(StoreUnavailable) as caught:
            database.open("passages")
    message = str(caught.value)
    assert "cannot be reached: is the server running?" in message
    assert f"{port}" in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client forgets its lock file
def test_a_directory_in_use(tmp_path):
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(tmp_path))
    with Database(f"qdrant:{tmp_path}") as database, pytest.raises(StoreUnavailable, match="already accessed"):
        database.open("passages")
    client.close()


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("qdrant-edge:data", "qdrant_edge", "edge"),
        ("qdrant:data", "qdrant_client", "qdrant"),
        ("weaviate:http://localhost:1", "weaviate", "weaviate"),
        ("milvus:http://localhost:1", "pymilvus", "milvus"),
    ],
)
def test_missing_extras(tmp_path, monkeypatch, target, module, extra):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "muvera_adapters.qdrant.edge.store", raising=False)
    with Database(target) as database, pytest.raises(MissingExtra) as caught:
        database.create("passages", ENCODER)
    assert f"pip install 'muvera-adapters[{extra}]'" in str(caught.value)


@pytest.mark.parametrize("scheme", ["qdrant-edge", "qdrant"])
def test_width_of_foreign_tokens(tmp_path, scheme):
    with Database(f"{scheme}:{tmp_path}") as database:
        database.create("passages", ENCODER)
        assert database.token_dim("passages", "tokens") == 16
        with pytest.raises(SchemaMismatch, match="no vector 'colbert'; there are: 'fde', 'tokens'"):
            database.token_dim("passages", "colbert")
        with pytest.raises(CollectionNotFound):
            database.token_dim("pages", "colbert")


def test_ids_of_tokens_survive(tmp_path):
    with Database(f"qdrant-edge:{tmp_path}") as database:
        store = database.create("passages", ENCODER)
        store.upsert([7, "x"], [np.ones((2, 16)), np.eye(16)[:3]])
        assert {d.id for d in store.scroll()} == {7, "x"}


def test_every_error_is_at_the_top():
    import muvera_adapters
    from muvera_adapters import errors

    own = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    assert own <= set(muvera_adapters.__all__)
