"""Ids and filters in the expressions that Milvus evaluates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, FieldSchema, MilvusClient

from integration_tests.milvus.conftest import IDS, STRONG, filled
from muvera_adapters.errors import InvalidInput
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.stores.conditions import Compare, Condition, Not, matches
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES, best, estimates, truth


class TestExpressions:
    @pytest.mark.parametrize(
        "document_id",
        ["", "#7", "@x", "'", '"', "\\", "a' or 1 == 1", "new\nline", "é日本😀", "%{x}", "\u2028", "\\u0041"],
    )
    def test_any_id_is_found_again(self, client, document_id, request):
        store = self._store(client, request)
        store.upsert([document_id], DOCUMENTS[:1], [{"n": 1}])
        assert [document.id for document in store.get([document_id])] == [document_id]
        assert store.search(DOCUMENTS[0], 1, filter="n == 1 or n == 2")[0].id == document_id
        store.delete([document_id])
        assert store.get([document_id]) == [None]

    def _store(self, client: MilvusClient, request: Any) -> MilvusMuvera:
        """One collection for all of them."""
        name = "muvera_test_ids"
        if client.has_collection(name):
            return MilvusMuvera.open(client, name, **STRONG)
        store = MilvusMuvera.create(client, name, ENCODER, **STRONG)
        store.upsert(["other", "id"], DOCUMENTS[1:3], [{"n": 3}, {"n": 4}])
        return store

    @pytest.mark.parametrize("expression", ["n == 1) or (n == 2", "n == 'x", "(n == 1", 'n == "\\"', "n in [1"])
    def test_what_would_leave_its_parentheses_is_refused(self, lite, expression):
        store = filled(lite, "c")
        for call in (lambda: store.search(QUERIES[0], filter=expression), lambda: store.delete(filter=expression)):
            with pytest.raises(InvalidInput, match="filter"):
                call()
        assert store.count() == COUNT

    def test_an_or_does_not_escape_the_candidates(self, lite):
        store = filled(lite, "c")
        hits = store.search(QUERIES[2], 6, 15, filter="n == 5 or parity == 1")
        chosen = np.array([i == 5 or i % 2 == 1 for i in IDS])
        candidates = best(np.where(chosen, estimates(QUERIES[2]), -np.inf), 15)
        assert [hit.id for hit in hits] == sorted(candidates, key=lambda i: -truth(QUERIES[2])[i])[:6]

    def test_conditions_on_declared_fields(self, lite):
        fields = [
            FieldSchema("year", DataType.INT64, nullable=True),
            FieldSchema("who", DataType.VARCHAR, max_length=64),
            FieldSchema("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=8, max_length=64),
        ]
        store = MilvusMuvera.create(lite, "declared", ENCODER, fields=fields, dynamic=False, **STRONG)
        payloads = [{"year": 2020, "who": "a", "tags": ["x"]}, {"year": 2021, "who": "b", "tags": []}]
        payloads += [{"year": None, "who": "2020", "tags": ["y"]}]
        assert store.upsert([0, 1, 2], DOCUMENTS[:3], payloads).failed == {}
        conditions: list[Condition] = [
            Compare("year", "==", 2020),
            Compare("year", "==", "2020"),
            Compare("year", "in", [2020, "a", 7]),
            Compare("year", ">", 2020),
            Compare("year", "empty"),
            Compare("who", ">", 5),
            Compare("who", "==", "2020"),
            Compare("who", "empty"),
            Compare("tags", "contains", "x"),
            Compare("nowhere", "==", 1),
        ]
        for condition in conditions:
            for each in (condition, Not(condition)):
                expected = [i for i, payload in enumerate(payloads) if matches(each, i, payload)]
                assert sorted(d.id for d in store.scroll(filter=store.filter_of(each))) == expected, each
