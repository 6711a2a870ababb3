"""Tokens in struct arrays, which only the stub has: scores, replies, token indexes and backfills in place."""

from __future__ import annotations

import numpy as np
import pytest

from integration_tests.milvus.conftest import STRONG, filled
from muvera_adapters.errors import MuveraError, Unsupported
from muvera_adapters.milvus import MilvusMuvera, requests
from muvera_adapters.testing.corpus import COUNT, ENCODER, OTHER_ENCODER, QUERIES, best, truth, two_stage


class TestStructs:
    def test_candidates_that_the_server_leaves_out_are_scored_here(self, stub, monkeypatch):
        client, servicer = stub
        store = filled(client, "c")
        monkeypatch.setattr(requests, "_MAX_RATIO", 0.1)
        for query in QUERIES:
            hits = store.search(query, 8, 40, rerank="native")
            assert [hit.id for hit in hits] == two_stage(query, 8, 40)
            assert np.allclose([hit.score for hit in hits], truth(query)[[hit.id for hit in hits]], atol=1e-4)
            assert hits.unscored == []
        assert max(servicer.searches) > 10, "the stub did leave some out"

    def test_by_default_none_is_left_out(self, stub):
        client, servicer = stub
        store = filled(client, "c")
        for query in QUERIES:
            store.search(query, 8, 40)
        assert servicer.searches == [0] * len(QUERIES)

    def test_only_what_is_shown_travels(self, stub):
        client, servicer = stub
        store = filled(client, "c")
        servicer.asked.clear()
        store.search(QUERIES[0], 3, 20, with_payload=["n"])
        assert servicer.asked == [["muvera_id"], ["muvera_id"], ["n"]]
        servicer.asked.clear()
        store.search(QUERIES[0], 3, 20, with_payload=False)
        assert servicer.asked == [["muvera_id"], ["muvera_id"]]

    def test_milvus_own_muvera_is_passed_through_only_where_it_is(self, stub):
        plain = filled(stub[0], "plain")
        with pytest.raises(Unsupported, match="emb_list_strategy"):
            plain.search(QUERIES[0], rerank="native_muvera")
        own = filled(stub[0], "own", tokens_index_params={"emb_list_strategy": "muvera"})
        assert [hit.id for hit in own.search(QUERIES[0], 5, COUNT, rerank="native_muvera")] == best(
            truth(QUERIES[0]), 5
        )

    def test_coded_token_indexes_are_not_trusted_by_auto(self, stub):
        client, servicer = stub
        store = filled(client, "c", tokens_index_type="HNSW_SQ", tokens_index_params={"sq_type": "SQ8"})
        assert [hit.id for hit in store.search(QUERIES[0], 8, 40)] == two_stage(QUERIES[0], 8, 40)
        assert servicer.searches == []

    def test_what_is_no_index_of_tokens_leaves_nothing_behind(self, stub):
        with pytest.raises(MuveraError, match="can't build"):
            MilvusMuvera.create(stub[0], "c", ENCODER, tokens_index_type="FLAT")
        assert not stub[0].has_collection("c")

    def test_in_place_backfills_say_what_old_servers_lack(self, stub):
        client, servicer = stub
        filled(client, "c")
        servicer.adds_vectors = False
        second = MilvusMuvera.adopt(client, "c", OTHER_ENCODER, tokens_vector="muvera_tokens", fde_vector="fde_v2")
        with pytest.raises(Unsupported, match=r"2\.6\.18.*into="):
            second.backfill()
        servicer.adds_vectors, servicer.updates_structs = True, False
        with pytest.raises(Unsupported, match=r"2\.6\.20.*into="):
            second.backfill()
        assert MilvusMuvera.open(client, "c").encoder.fingerprint == ENCODER.fingerprint
        servicer.updates_structs = True
        assert second.backfill().written == COUNT
        opened = MilvusMuvera.open(client, "c", **STRONG)
        assert opened.encoder.fingerprint == OTHER_ENCODER.fingerprint
        assert [hit.id for hit in opened.search(QUERIES[0], 8, COUNT)] == best(truth(QUERIES[0]), 8)

    def test_messages_over_64_mb_are_halved(self, stub, monkeypatch):
        store = MilvusMuvera.create(stub[0], "c", ENCODER, timeout=60)
        monkeypatch.setattr(requests, "WRITE_BYTES", 1 << 40)
        tokens = [np.ones((2_000, 16), np.float32)] * 700  # 90 MB
        report = store.upsert(list(range(700)), tokens)
        assert (report.written, report.failed, store.count()) == (700, {}, 700)
