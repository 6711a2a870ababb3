"""What a server in strict mode, with shard keys or of another version refuses, played by an engine in this process."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages

from muvera_adapters.databases import parse_target
from muvera_adapters.errors import InvalidInput, Rejected, StoreUnavailable, Unsupported, WriteInterrupted
from muvera_adapters.qdrant import QdrantEdgeMuvera, QdrantMuvera
from muvera_adapters.qdrant import requests as r
from muvera_adapters.qdrant.collection import Collection, Wire
from muvera_adapters.qdrant.database import QDRANT
from muvera_adapters.qdrant.writing import upsert
from muvera_adapters.stores.conditions import Compare
from muvera_adapters.stores.operations import ONCE, run
from muvera_core import FDEConfig, FDEEncoder

ENCODER = FDEEncoder(FDEConfig(dim=8, r_reps=2, k_sim=2, d_proj=4))
COUNT = 30
TOKENS = list(np.random.default_rng(1).normal(size=(COUNT, 3, 8)).astype(np.float32))


class Strict(QdrantMuvera):
    """A store whose engine has a strict mode: no exact counts, and at most four searches in a request."""

    asked = ()

    def limit(self):
        self.asked = []
        count, batch = self.client.count, self.client.query_batch_points

        def counting(**arguments):
            self.asked.append("exact" if arguments["exact"] else "estimate")
            if arguments["exact"]:
                raise ValueError("Exact search disabled!")
            return count(**arguments)

        def searching(requests, **arguments):
            self.asked.append(len(requests))
            if len(requests) > 4:
                raise ValueError("Limit exceeded for search batch size")
            return batch(requests=requests, **arguments)

        self.client.count, self.client.query_batch_points = counting, searching
        return self


@pytest.fixture
def strict():
    store = Strict.create(QdrantClient(":memory:"), "c", ENCODER)
    store.upsert(range(COUNT), TOKENS, [{"even": i % 2 == 0} for i in range(COUNT)])
    yield store.limit()
    store.client.close()


def test_search_count_and_info_need_no_exact_counts(strict):
    assert strict.search(TOKENS[7], 1)[0].id == 7
    assert strict.search(TOKENS[7], 1).without_fde == 0
    assert strict.asked == ["exact", "estimate", "estimate"]  # a refusal is not asked for again
    info = strict.info()
    assert (info.documents, info.without_fde, info.without_tokens) == (COUNT, 0, 0)
    even = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
    asked = len(strict.asked)
    assert (strict.count(), strict.count(filter=even)) == (COUNT, COUNT // 2)
    assert len(strict.asked) == asked  # counted one by one, not estimated


def test_batches_of_searches_are_split_at_the_limit_which_is_learned_once(strict):
    for _ in range(2):
        found = strict.search_batch(TOKENS, 1, count_missing=False)
        assert [hits[0].id for hits in found] == list(range(COUNT))
    sizes = [each for each in strict.asked if isinstance(each, int)]
    assert [size for size in sizes if size > 4] == [30, 15, 7]
    assert sum(size for size in sizes if size <= 4) == 2 * COUNT


def test_a_search_that_is_rejected_for_itself_stays_rejected(strict):
    def refuse(**_):
        raise ValueError("no such field")

    strict.client.query_batch_points = refuse
    with pytest.raises(Rejected, match="no such field"):
        strict.search_batch(TOKENS[:6], 1, count_missing=False)
    assert strict.search(TOKENS[2], 1)[0].id == 2


def test_documents_are_read_in_pages_of_the_size_that_is_allowed(strict):
    scroll, sizes = strict.client.scroll, []

    def paging(limit, **arguments):
        sizes.append(limit)
        if limit > 16:
            raise ValueError("Limit exceeded")
        return scroll(limit=limit, **arguments)

    strict.client.scroll = paging
    assert strict.count() == COUNT
    assert sizes == [1_000, 500, 250, 125, 62, 31, 15, 15]
    assert (strict.count(), len(list(strict.scroll(page_size=20)))) == (COUNT, COUNT)
    assert sizes[8:] == [15] * 4  # learned once


def test_parts_of_texts_are_looked_for_only_where_the_server_can(strict):
    """A server 1.19 answers that the filter has a wrong form."""
    part = Compare("text", "text", "cme")
    assert strict.filter_of(part).must[0].match.substring == "cme"
    strict._connection = replace(strict._connection, version=(1, 19))
    with pytest.raises(Unsupported, match=r"'text'.* from 1\.20 on"):
        strict.filter_of(part)
    assert strict.count(filter=strict.filter_of(Compare("even", "==", True))) == COUNT // 2


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_shard_key_that_is_wrong_is_no_documents_fault(key):
    def refuse(request):
        if isinstance(request, r.Fetch) and request.shard_key is None:
            return []
        if isinstance(request, r.Flush):
            return None
        raise Rejected(f"shard key {request.shard_key}, {len(getattr(request, 'points', []))} documents")

    with pytest.raises(Rejected, match=f"shard key {key}, 0 documents"):
        run(upsert(Collection("c", ENCODER), range(COUNT), TOKENS, None, False, key), refuse, ONCE)


def test_a_load_of_several_batches_that_finds_no_server_reports_every_document():
    def gone(request):
        raise StoreUnavailable(f"no server for {type(request).__name__}")

    several = Collection("c", ENCODER, wire=Wire(bytes_per_float=4, target=1_000, cap=1_000_000))
    with pytest.raises(WriteInterrupted, match="no server for Page") as caught:
        run(upsert(several, range(COUNT), TOKENS, None, False), gone, ONCE)
    assert sorted(caught.value.report.failed) == list(range(COUNT))


@pytest.mark.parametrize("name", ["UINT8", "TURBO16"])
@pytest.mark.parametrize("argument", ["datatype", "tokens"])
def test_datatypes_that_lose_values_are_refused_before_anything_is_made(tmp_path, argument, name):
    client = QdrantClient(":memory:")
    with pytest.raises(InvalidInput, match=f"{argument} must be one of FLOAT16, FLOAT32"):
        QdrantMuvera.create(client, "c", ENCODER, **{argument: models.Datatype[name]})
    assert not client.collection_exists("c")
    with pytest.raises(InvalidInput, match=f"{argument} must be one of Float16, Float32"):
        QdrantEdgeMuvera.create(
            tmp_path, "c", ENCODER, **{argument: getattr(edge.VectorStorageDatatype, name.capitalize())}
        )
    assert not list(tmp_path.iterdir())
    client.close()


class Root(BaseHTTPRequestHandler):
    """REST of a server that says its version, and nothing else."""

    def do_GET(self):
        body = b'{"title": "qdrant - vector search engine", "version": "1.19.0", "commit": "stub"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def rest():
    """Port of a REST server, above which a port is free."""
    for _ in range(50):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Root)
        port = server.server_address[1]
        with socket.socket() as above:
            try:
                above.bind(("127.0.0.1", port + 1))
            except OSError:
                server.server_close()
                continue
        break
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("version", "used", "said"),
    [
        ("1.19.0", True, "reached by gRPC"),
        ("1.18.0", False, "another server answers"),
        (None, False, "gRPC does not answer"),
    ],
)
def test_targets_use_grpc_where_the_server_answers_there(rest, version, used, said, caplog):
    class Health(messages.QdrantServicer):
        def HealthCheck(self, request, context):  # noqa: N802
            return messages.HealthCheckReply(title="qdrant", version=version)

    server = grpc.server(ThreadPoolExecutor(1))
    if version is not None:
        messages.add_QdrantServicer_to_server(Health(), server)
        server.add_insecure_port(f"127.0.0.1:{rest + 1}")
        server.start()
    target = parse_target(f"qdrant:http://127.0.0.1:{rest}")
    with caplog.at_level("INFO", "muvera_adapters"):
        client = QDRANT.connect(target)
    assert client.init_options["prefer_grpc"] is used
    client.close()
    assert said in caplog.text
    assert str(rest + 1) in caplog.text
    server.stop(None)
