"""Adopted collections: undoing an adoption, two encoders side by side, integer keys, and text that holds no tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from integration_tests.engines.milvus import text
from integration_tests.milvus.conftest import STRONG
from muvera_adapters.errors import CollectionNotFound, InvalidInput, MissingFDEs, MuveraError, Unsupported
from muvera_adapters.milvus import MilvusMuvera
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER, OTHER_ENCODER, QUERIES


class TestGuests:
    """What an adoption leaves, and what others see."""

    def adopted(self, client: MilvusClient) -> MilvusMuvera:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("pk", DataType.INT64, is_primary=True)
        for field in ("colbert_0", "colbert_1"):
            schema.add_field(field, DataType.VARCHAR, max_length=65_535)
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=2)
        params = MilvusClient.prepare_index_params()
        params.add_index("dense", index_type="HNSW", metric_type="L2", params={"M": 4, "efConstruction": 40})
        client.create_collection("c", schema=schema, index_params=params, **STRONG)
        rows = [
            {"pk": i - 5, "colbert_0": text(DOCUMENTS[i]), "colbert_1": "", "dense": [1.0, float(i)], "n": i}
            for i in range(12)
        ]
        client.insert("c", rows)
        return MilvusMuvera.adopt(client, "c", ENCODER, **STRONG)

    def content(self, client: MilvusClient) -> list[dict[str, Any]]:
        fields = [each["name"] for each in client.describe_collection("c")["fields"]]
        rows = client.query("c", filter="pk >= -100", output_fields=[*fields, "$meta"], limit=100, **STRONG)
        return sorted((dict(row) for row in rows), key=lambda row: row["pk"])

    @pytest.mark.parametrize("drops", [True, False])
    def test_an_adoption_is_undone(self, stub, drops):
        client, servicer = stub
        servicer.drops_fields = drops
        store = self.adopted(client)
        before = self.content(client)
        assert store.backfill().written == 12
        if drops:
            store.remove_fde()
            assert self.content(client) == before
        else:
            with pytest.raises(Unsupported, match="'fde' of c stays, and is empty now"):
                store.remove_fde()
            after = self.content(client)
            assert all(not np.any(row.pop("fde")) and row.pop("muvera_fde") is None for row in after)
            assert [{**row, "dense": list(row["dense"])} for row in after] == [
                {**row, "dense": list(row["dense"])} for row in before
            ]
        with pytest.raises(InvalidInput, match=r"backfill\(\)"):
            store.search(QUERIES[0])
        with pytest.raises(CollectionNotFound, match="adopt"):
            MilvusMuvera.open(client, "c")
        assert MilvusMuvera.adopt(client, "c", ENCODER, **STRONG).backfill().written == 12

    def test_the_first_encoder_goes_on_beside_the_second(self, stub):
        client, _ = stub
        first = self.adopted(client)
        first.backfill()
        second = MilvusMuvera.adopt(client, "c", OTHER_ENCODER, fde_vector="fde_v2", **STRONG)
        assert second.backfill().written == 12
        for store in (first, second):
            hits = store.search(QUERIES[0], 3, 12)
            assert (hits.without_fde, store.info().without_fde, store.verify().passed) == (0, 0, True)
            assert all(set(hit.payload) == {"n"} for hit in hits)
        assert second.upsert([1], DOCUMENTS[40:41]).written == 1
        assert first.verify().stale == [1], "its FDE is that of the old tokens"
        assert MilvusMuvera.open(client, "c").encoder.fingerprint == OTHER_ENCODER.fingerprint

    def test_integer_keys_in_any_spelling(self, stub):
        store = self.adopted(stub[0])
        store.backfill()
        assert [document.payload["n"] for document in store.get(["-5", -4, "1", np.int64(2)])] == [0, 1, 6, 7]
        assert store.upsert(["1"], DOCUMENTS[20:21], [{"new": 1}]).written == 1
        assert store.get([1])[0].payload == {"n": 6, "new": 1}
        store.delete(["-5", "1"])
        assert store.count() == 10

    def test_text_that_is_no_tokens_is_reported_and_ends_nothing(self, stub):
        client, _ = stub
        store = self.adopted(client)
        client.upsert("c", [{"pk": 2, "colbert_0": "no tokens"}], partial_update=True)
        report = store.backfill()
        assert (report.written, list(report.failed)) == (11, [2])
        assert "cannot be read" in report.failed[2]
        client.upsert("c", [{"pk": 1, "colbert_0": "no tokens"}], partial_update=True)
        found = store.verify()
        assert (found.checked, sorted(found.unreadable)) == (10, [1, 2])
        with pytest.warns(MissingFDEs, match="1 documents"):
            hits = store.search(QUERIES[0], 20, 20)
        assert sum(hit.reranked for hit in hits) == 10
        assert 1 in [hit.id for hit in hits.unscored]
        assert store.get([2])[0].payload == {"n": 7}
        with pytest.raises(MuveraError, match="cannot be read"):
            store.get([2], with_tokens=True)

    def test_marks_and_vectors_are_no_payload(self, stub):
        store = self.adopted(stub[0])
        store.backfill()
        for key, problem in (("muvera_fde", "reserved"), ("dense", "vectors=")):
            with pytest.raises(InvalidInput, match=problem):
                store.upsert([1], DOCUMENTS[:1], [{key: [1.0, 2.0]}])
