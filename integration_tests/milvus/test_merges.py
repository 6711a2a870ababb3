"""Upserts that name some fields of a document: the others stay, with and without updates of single fields."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from pymilvus import DataType, FieldSchema, MilvusClient

from integration_tests.engines.milvus import text
from integration_tests.milvus.conftest import IDS, STRONG, connect, filled
from muvera_adapters.milvus import MilvusMuvera, requests
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER

SCALARS = [
    FieldSchema("year", DataType.INT64),
    FieldSchema("title", DataType.VARCHAR, max_length=100),
    FieldSchema("more", DataType.JSON),
]


class TestMerges:
    """Servers that update single fields, and those for which documents are read and written again."""

    @pytest.fixture(params=["file", "standalone", "stub"])
    def merging(self, request, tmp_path, stub) -> Iterator[tuple[MilvusClient, str]]:
        made = f"muvera_test_{uuid.uuid4().hex[:8]}"
        connected = stub[0] if request.param == "stub" else connect(request.param, tmp_path)
        yield connected, made
        connected.drop_collection(made)

    def test_declared_fields_and_keys_of_the_dynamic_field(self, merging):
        store = MilvusMuvera.create(*merging, ENCODER, fields=SCALARS, **STRONG)
        whole = {"year": 2000, "title": "x", "more": {"a": 1, "b": 2}, "k": 1, "deep": {"a": 1, "b": [None]}}
        assert store.upsert([1, "two", 3], DOCUMENTS[:3], [whole] * 3).written == 3
        store.wait_indexed()
        named = [{"year": 2001, "k": None}, {"deep": {"c": 1}, "new": "x"}, None, {**whole, "k": 9}]
        report = store.upsert([1, "two", 3, 4], DOCUMENTS[3:7], named)
        assert (report.written, report.failed, store.count()) == (4, {}, 4)
        found = store.get([1, "two", 3, 4], with_tokens=True)
        assert [document.payload for document in found] == [
            {**whole, "year": 2001, "k": None},
            {**whole, "deep": {"c": 1}, "new": "x"},
            whole,
            {**whole, "k": 9},
        ]
        assert all(np.array_equal(d.tokens, t) for d, t in zip(found, DOCUMENTS[3:7], strict=True))
        assert store.upsert([3], DOCUMENTS[:1], [{"year": 1}], replace=True).failed.keys() == {3}, "no title"
        assert store.upsert([3], DOCUMENTS[:1], [{"year": 1, "title": "", "more": {}}], replace=True).written == 1
        assert store.get([3])[0].payload == {"year": 1, "title": "", "more": {}}

    def test_a_new_document_needs_what_the_collection_demands(self, merging):
        store = MilvusMuvera.create(*merging, ENCODER, fields=SCALARS[:2], **STRONG)
        report = store.upsert([1, 2], DOCUMENTS[:2], [{"year": 1, "title": "a"}, {"year": 2}])
        assert (report.written, list(report.failed)) == (1, [2])
        assert [document.id for document in store.scroll()] == [1]

    def test_a_fresh_load_reads_nothing_but_one_count(self, stub, monkeypatch):
        client, servicer = stub
        monkeypatch.setattr(requests, "WRITE_BYTES", 20_000)
        store = MilvusMuvera.create(client, "c", ENCODER, token_storage="blob", **STRONG)
        servicer.asked.clear()
        assert store.upsert(IDS, DOCUMENTS).written == COUNT
        assert servicer.asked == [["count(*)"]]

    def test_stale_fdes_are_refreshed_by_reading_and_writing_again(self, client, name):
        store = filled(client, name)
        names = ["muvera_id", "fde", "$meta"]
        rows = client.query(name, filter='muvera_id == "#3"', output_fields=names, **STRONG)
        texts = [each["name"] for each in client.describe_collection(name)["fields"] if "_tokens_" in each["name"]]
        row = {**rows[0], **dict.fromkeys(texts, ""), texts[0]: text(DOCUMENTS[50])}
        client.upsert(name, [row])
        assert store.verify().stale == [3]
        report = store.backfill(refresh=True)
        assert (report.refreshed, report.written, report.failed) == (1, 0, {})
        assert store.verify().passed
        assert store.get([3])[0].payload == {"n": 3, "parity": 1}
        assert store.count() == COUNT
        assert store.search(DOCUMENTS[50], 2, 2)[0].id in (3, 50)
