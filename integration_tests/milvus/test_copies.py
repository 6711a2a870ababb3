"""Backfills into a copy of a collection: an alias that moves to it, a killed copy, and fields that are left out."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from integration_tests.engines.milvus import text
from integration_tests.milvus.conftest import IDS, STRONG, filled
from muvera_adapters.errors import CollectionExists, InvalidInput, MuveraError, Unsupported
from muvera_adapters.milvus import MilvusMuvera, copying
from muvera_adapters.testing.corpus import COUNT, DOCUMENTS, ENCODER, OTHER_ENCODER, QUERIES, best, truth


class TestCopies:
    def test_a_copy_takes_over_by_an_alias_and_loses_nothing(self, client, name):
        filled(client, name)
        second = MilvusMuvera.adopt(client, name, OTHER_ENCODER, tokens_vector="muvera_tokens", fde_vector="fde_v2")
        with pytest.raises(Unsupported, match="into="):
            second.backfill()
        report = second.backfill(into=f"{name}_v2", alias=f"{name}_alias", leave_out=["fde"])
        assert (report.written, report.copied, report.remaining) == (COUNT, COUNT, 0)
        assert report.verified > 0
        opened = MilvusMuvera.open(client, f"{name}_alias", **STRONG)
        assert opened.encoder.fingerprint == OTHER_ENCODER.fingerprint
        assert [hit.id for hit in opened.search(QUERIES[0], 8, COUNT)] == best(truth(QUERIES[0]), 8)
        documents = {d.id: d for d in opened.scroll(with_tokens=True)}
        assert sorted(documents) == IDS
        assert all(np.array_equal(documents[i].tokens, DOCUMENTS[i]) for i in IDS)
        assert all(documents[i].payload == {"n": i, "parity": i % 2} for i in IDS)
        assert MilvusMuvera.open(client, name).count() == COUNT, "the old one is left as it was"

    def test_a_killed_copy_is_completed_by_the_next_run(self, lite, monkeypatch):
        filled(lite, "c")
        adopt = {"tokens_vector": "muvera_tokens", "fde_vector": "fde_v2"}
        second = MilvusMuvera.adopt(lite, "c", OTHER_ENCODER, **adopt)
        monkeypatch.setattr(copying, "_PAGE", 16)
        write, calls = copying._write, []

        async def dying(*args):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            await write(*args)

        monkeypatch.setattr(copying, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            second.backfill(into="v2")
        with pytest.raises(MuveraError, match="unfinished copy"):
            MilvusMuvera.open(lite, "v2")
        monkeypatch.setattr(copying, "_write", write)
        MilvusMuvera.open(lite, "c").delete([0])  # copied already
        MilvusMuvera.open(lite, "c").upsert([1], DOCUMENTS[5:6])
        report = second.backfill(into="v2")
        assert report.written == COUNT - 32 + 1, "what was done is not done again"
        opened = MilvusMuvera.open(lite, "v2", **STRONG)
        assert opened.count() == COUNT - 1
        assert np.array_equal(opened.get([1], with_tokens=True)[0].tokens, DOCUMENTS[5])
        with pytest.raises(CollectionExists, match="not an unfinished copy"):
            second.backfill(into="v2")

    def test_what_is_left_out_must_be_there_and_not_needed(self, lite):
        filled(lite, "c")
        second = MilvusMuvera.adopt(lite, "c", OTHER_ENCODER, tokens_vector="muvera_tokens", fde_vector="fde_v2")
        for field in ("nothing", "muvera_tokens_0", "muvera_id"):
            with pytest.raises(InvalidInput, match="leave_out"):
                second.backfill(into="v2", leave_out=[field])

    def test_vectors_of_others_survive_upserts(self, lite):
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=20)
        schema.add_field("title", DataType.FLOAT_VECTOR, dim=2)
        schema.add_field("colbert_0", DataType.VARCHAR, max_length=65_535)
        lite.create_collection("c", schema=schema)
        lite.insert("c", [{"pk": "a", "title": [1.0, 2.0], "colbert_0": text(DOCUMENTS[0])}])
        params = MilvusClient.prepare_index_params()
        params.add_index("title", index_type="HNSW", metric_type="L2")
        lite.create_index("c", params)
        MilvusMuvera.adopt(lite, "c", ENCODER).backfill(into="d")
        store = MilvusMuvera.open(lite, "d")
        titles = {"title": [None, [3.0, 4.0]]}
        assert store.upsert(["a", "b"], DOCUMENTS[1:3], [{"n": 1}, None], vectors=titles).written == 2
        rows = lite.query("d", filter='pk >= ""', output_fields=["pk", "title", "n"])
        assert {row["pk"]: list(row["title"]) for row in rows} == {"a": [1.0, 2.0], "b": [3.0, 4.0]}
        with pytest.raises(InvalidInput, match="strings"):
            store.get([7])
        with pytest.raises(InvalidInput, match="vectors="):
            store.upsert(["b"], DOCUMENTS[:1], [{"title": [3.0, 4.0]}])
