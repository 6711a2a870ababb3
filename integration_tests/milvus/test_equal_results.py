"""One program gives equal results on a file, on a server and with struct arrays."""

from __future__ import annotations

import uuid
from typing import Any

from pymilvus import MilvusClient

from integration_tests.milvus.conftest import IDS, connect
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES


def script(client: MilvusClient, name: str) -> list[Any]:
    """What a program does, whatever it is connected to."""
    store = MilvusMuvera.create(client, name, ENCODER)
    payloads = [{"n": i, "parity": i % 2, "words": {"deep": [i]}} for i in IDS]
    ids = [f"d'\"\\é{i}" if i % 3 else i for i in IDS]
    report = store.upsert(ids, DOCUMENTS, payloads)
    seen: list[Any] = [report.written, report.failed, store.count(), store.count(filter="parity == 1")]
    store = MilvusMuvera.open(client, name)
    for query in QUERIES:
        for options in (
            {},
            {"filter": "parity == 0 or n == 3"},
            {"offset": 3},
            {"rerank": "client"},
            {"rerank": "none"},
        ):
            hits = store.search(query, 7, 30, **options)
            seen.append([(hit.id, round(hit.score, 3), hit.payload, hit.reranked) for hit in hits])
        seen.append([(hit.id, round(hit.score, 3)) for hit in store.exact_search(query, 5)])
    store.delete(ids[:5])
    store.delete(filter="n > 70")
    seen += [store.count(), sorted(map(str, (d.id for d in store.scroll(page_size=9))))]
    seen += [None if d is None else (d.id, d.payload, d.tokens.tolist()) for d in store.get(ids[:8], with_tokens=True)]
    store.drop()
    return seen


def test_one_script_gives_equal_results_on_a_file_a_server_and_struct_arrays(tmp_path, stub):
    name = f"muvera_test_{uuid.uuid4().hex[:8]}"
    file, server = connect("file", tmp_path), connect("standalone", tmp_path)
    results = [script(each, name) for each in (file, server, stub[0])]
    for each in (file, server):
        each.close()
    assert results[0] == results[1]
    assert results[0] == results[2]
    assert results[0][:4] == [COUNT, {}, COUNT, COUNT // 2]
