"""How tokens and payloads are stored in Milvus: text or struct arrays, one field or several, declared fields."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType, FieldSchema

from integration_tests.milvus.conftest import IDS, STRONG
from muvera_adapters.errors import InvalidInput, Unsupported
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, QUERIES


class TestStorage:
    def test_what_the_server_has_decides(self, stub, lite):
        assert MilvusMuvera.create(stub[0], "c", ENCODER).token_storage == "struct"
        assert MilvusMuvera.create(lite, "c", ENCODER).token_storage == "blob"
        assert MilvusMuvera.create(stub[0], "b", ENCODER, token_storage="blob").token_storage == "blob"
        assert MilvusMuvera.open(stub[0], "b").token_storage == "blob"
        with pytest.raises(Unsupported, match="arrays of structs"):
            MilvusMuvera.create(lite, "s", ENCODER, token_storage="struct")
        assert not lite.has_collection("s"), "nothing is left of it"

    def test_long_documents_are_split_over_fields(self, client, name):
        store = MilvusMuvera.create(client, name, ENCODER, max_tokens=4_000, **STRONG)
        long = np.tile(DOCUMENTS[0], (4_000 // len(DOCUMENTS[0]), 1))
        assert len(long) * 16 * 2 * 4 / 3 > 65_535 * 2
        assert store.upsert(["long"], [long]).written == 1
        assert np.array_equal(store.get(["long"], with_tokens=True)[0].tokens, long)

    def test_float32_text_is_exact(self, lite):
        tokens = [matrix / np.float32(3) for matrix in DOCUMENTS[:9]]
        store = MilvusMuvera.create(lite, "c", ENCODER, tokens="float32", **STRONG)
        store.upsert(IDS[:9], tokens)
        assert all(
            np.array_equal(d.tokens, t) for d, t in zip(store.get(IDS[:9], with_tokens=True), tokens, strict=True)
        )

    @pytest.mark.parametrize("metric", ["IP", "COSINE"])
    def test_both_storages_score_alike(self, stub, metric):
        scaled = [m * np.linspace(1, 3, len(m), dtype=np.float32)[:, None] for m in DOCUMENTS]
        found = []
        for storage in ("struct", "blob"):
            options = {"token_storage": storage, "tokens_metric": metric, "tokens": "float32"}
            store = MilvusMuvera.create(stub[0], storage, ENCODER, **options, **STRONG)
            store.upsert(IDS, scaled)
            found.append([[(h.id, round(h.score, 3)) for h in store.search(q, 8, 40)] for q in QUERIES])
        assert found[0] == found[1]

    def test_declared_fields_and_a_partition_key(self, lite):
        fields = [
            FieldSchema("tenant", DataType.VARCHAR, max_length=64, is_partition_key=True),
            FieldSchema("year", DataType.INT64),
        ]
        store = MilvusMuvera.create(lite, "c", ENCODER, fields=fields, dynamic=False, num_partitions=4, **STRONG)
        payloads = [{"tenant": "ab"[i % 2], "year": 2000 + i} for i in IDS]
        assert store.upsert(IDS, DOCUMENTS, payloads).written == COUNT
        hits = store.search(QUERIES[1], 50, 50, filter='tenant == "b"')
        assert {hit.id for hit in hits} == set(IDS[1::2])
        assert hits[0].payload == payloads[hits[0].id]
        with pytest.raises(InvalidInput, match="no field 'color'"):
            store.upsert([1], DOCUMENTS[:1], [{"tenant": "a", "year": 1, "color": "red"}])
        report = store.upsert(["x", "y"], DOCUMENTS[:2], [{"tenant": "a", "year": 1}, {"tenant": "a", "year": "no"}])
        assert (report.written, list(report.failed)) == (1, ["y"])

    def test_reserved_keys_and_payloads_over_the_limit_are_refused(self, lite):
        store = MilvusMuvera.create(lite, "c", ENCODER)
        for payload, problem in (({"muvera_tokens_0": "x"}, "reserved"), ({"a": "x" * 70_000}, "65536")):
            with pytest.raises(InvalidInput, match=problem):
                store.upsert([1], DOCUMENTS[:1], [payload])
        assert store.count() == 0
