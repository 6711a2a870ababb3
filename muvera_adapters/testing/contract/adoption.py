"""Tests with collections of other programs: adoption, backfill, a second encoder, and removal of FDEs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import CollectionNotFound, EncoderMismatch, InvalidInput, SchemaMismatch, Unsupported
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS
from muvera_adapters.testing.corpus import (
    COUNT,
    DIM,
    DOCUMENTS,
    ENCODER,
    OTHER_ENCODER,
    QUERIES,
    best,
    truth,
    two_stage,
)
from muvera_core import FDEConfig, FDEEncoder


class TestAdoption:
    """A collection of another program gets two-stage search and keeps its data; one that does not fit is an error."""

    @pytest.mark.parametrize("cosine", [False, True])
    def test_an_existing_collection_gets_two_stage_search(self, session: Session, cosine: bool) -> None:
        """After ``adopt`` and ``backfill``, searches are exact, and payloads and tokens are as they were."""
        scaled = [3 * matrix for matrix in DOCUMENTS]
        session.foreign("pages", IDS, scaled, cosine=cosine)
        before = session.content("pages")
        store = session.adopt("pages", ENCODER)
        with pytest.raises(InvalidInput, match="backfill"):
            store.search(QUERIES[0])
        report = store.backfill(**session.exact())
        assert (report.written, report.remaining, report.without_tokens, report.failed) == (COUNT, 0, 0, {})
        assert report.verified > 0

        for query in QUERIES:
            query = query * np.linspace(1, 4, len(query), dtype=np.float32)[:, None]
            hits = store.search(query, 10, COUNT)
            unit = query / np.linalg.norm(query, axis=1, keepdims=True)
            documents = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in scaled] if cosine else scaled
            expected = truth(unit if cosine else query, documents)
            assert [hit.id for hit in hits] == best(expected, 10)
            assert np.allclose([hit.score for hit in hits], np.sort(expected)[::-1][:10], rtol=1e-3)
            client = store.search(query, 10, COUNT, rerank="client")
            assert np.allclose([hit.score for hit in client], [hit.score for hit in hits], rtol=1e-3)

        after = session.content("pages")
        assert after.keys() == before.keys()
        for point, (payload, vectors) in before.items():
            assert after[point][0] == payload
            # local mode normalises vectors again when it writes them under cosine distance
            assert np.allclose(after[point][1]["colbert"], vectors["colbert"], rtol=0, atol=1e-6 if cosine else 0)
            assert after[point][1].keys() == {"colbert", "fde"}
        assert session.open("pages").search(QUERIES[0], 3, COUNT) == session.adopt("pages", ENCODER).search(
            QUERIES[0], 3, COUNT
        )

    def test_a_vector_that_backfill_adds_has_the_codes_of_create(self, session: Session) -> None:
        """``backfill`` chooses codes for a new FDE vector as ``create`` does, and keeps those of an existing one."""
        created = session.create("created", ENCODER)
        created.upsert(IDS, DOCUMENTS)
        session.foreign("without", IDS, DOCUMENTS)
        store = session.adopt("without", ENCODER)
        store.backfill()
        assert store.info().code_bytes == created.info().code_bytes
        session.foreign("with", IDS, DOCUMENTS, fdes=ENCODER.encode_documents(DOCUMENTS))
        before = session.adopt("with", ENCODER)
        codes = before.info().code_bytes
        before.backfill()
        assert session.open("with").info().code_bytes == codes == 0

    def test_documents_added_later_are_like_those_backfilled(self, session: Session) -> None:
        """An upsert after a backfill gives a document the same FDE as the backfill would."""
        longest = max(IDS, key=lambda i: len(DOCUMENTS[i]))
        # under cosine distance, the lengths of vectors do not matter, so this is the same document
        scaled = DOCUMENTS[longest] * np.linspace(1, 5, len(DOCUMENTS[longest]))[:, None]
        session.foreign("pages", IDS, DOCUMENTS, cosine=True)
        store = session.adopt("pages", ENCODER)
        store.backfill(**session.exact())
        store.upsert([500], [scaled])
        hits = {hit.id: hit for hit in store.search(DOCUMENTS[longest], 2, COUNT, with_fde_score=True)}
        assert hits.keys() == {longest, 500}
        assert hits[longest].fde_score == pytest.approx(hits[500].fde_score, rel=1e-3)

    def test_a_dry_run_writes_nothing_and_gives_sizes(self, session: Session) -> None:
        """``backfill(dry_run=True)`` writes nothing, and estimates bytes and time."""
        session.foreign("pages", IDS, DOCUMENTS)
        before = session.content("pages")
        report = session.adopt("pages", ENCODER).backfill(dry_run=True)
        assert report.dry_run
        assert (report.written, report.remaining) == (0, COUNT)
        assert report.fde_bytes == 4 * ENCODER.dim * COUNT
        assert 0.3 < report.read_bytes / (4 * sum(m.size for m in DOCUMENTS)) < 3
        assert report.seconds > 0
        after = session.content("pages")
        assert all(vectors.keys() == {"colbert"} for _, vectors in after.values())
        assert after.keys() == before.keys()
        with pytest.raises(CollectionNotFound):
            session.open("pages")

    def test_backfill_does_only_what_is_missing(self, session: Session) -> None:
        """A repeated backfill writes only documents that have no FDE."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector, so no document can lack it")
        session.foreign("pages", IDS[:50], DOCUMENTS[:50])
        assert session.adopt("pages", ENCODER).backfill().written == 50
        assert session.open("pages").backfill().written == 0
        session.foreign_write("pages", IDS[45:60], DOCUMENTS[45:60])  # replaces 45 to 49, which removes their FDEs
        store = session.open("pages")
        assert store.info().without_fde == 15
        assert store.backfill().written == 15
        assert store.info().without_fde == 0

    def test_documents_that_cannot_be_encoded_are_reported(self, session: Session) -> None:
        """A backfill reports documents whose tokens cannot be encoded, and fills all others."""
        broken = DOCUMENTS[4].copy()
        broken[0, 3] = np.inf
        try:
            session.foreign("pages", [10, 11, 12, 13, 14], [*DOCUMENTS[:4], broken])
        except Exception as error:  # clients raise different exceptions
            pytest.skip(f"the database stores no infinite values: {error}")
        report = session.adopt("pages", ENCODER).backfill()
        assert report.written == 4
        assert list(report.failed) == [14]
        assert "NaN or infinite" in report.failed[14]

    def test_fdes_of_the_same_encoder_are_taken_over(self, session: Session) -> None:
        """``adopt`` takes over FDEs that were computed with the same encoder."""
        fdes = ENCODER.encode_documents(DOCUMENTS)
        session.foreign("theirs", IDS, DOCUMENTS, fdes=fdes)
        store = session.adopt("theirs", ENCODER)
        assert [hit.id for hit in store.search(QUERIES[2], 6, COUNT)] == best(truth(QUERIES[2]), 6)
        assert store.backfill().written == 0

    def test_fdes_of_fastembed_are_taken_over(self, session: Session) -> None:
        """``adopt`` takes over the FDEs of fastembed with its configuration, and rejects them with another."""
        muvera = pytest.importorskip("fastembed.postprocess").Muvera(dim=DIM, k_sim=3, dim_proj=8, r_reps=6)
        fdes = np.stack([muvera.process_document(matrix) for matrix in DOCUMENTS])
        session.foreign("theirs", IDS, DOCUMENTS, fdes=fdes)
        with pytest.raises(EncoderMismatch, match="median cosine"):
            session.adopt("theirs", ENCODER)
        same = FDEEncoder(FDEConfig.fastembed(DIM, k_sim=3, dim_proj=8, r_reps=6))
        assert len(session.adopt("theirs", same).search(QUERIES[0], 5)) == 5
        assert session.open("theirs").encoder.fingerprint == same.fingerprint

    @pytest.mark.parametrize(
        ("options", "dim", "problem"),
        [
            ({"tokens_vector": "wrong"}, DIM, "no vector 'wrong'; there are: 'colbert'"),
            ({}, 2 * DIM, f"'colbert' has {DIM} dimensions, the encoder takes {2 * DIM}"),
            ({"fde_vector": "colbert"}, DIM, "multivector, FDEs are single"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, session: Session, options: dict[str, Any], dim: int, problem: str
    ) -> None:
        """``adopt`` raises ``SchemaMismatch``, which names the vector that does not fit."""
        session.foreign("theirs", IDS[:3], DOCUMENTS[:3])
        encoder = FDEEncoder(FDEConfig(dim=dim, r_reps=6, k_sim=3, d_proj=8))
        with pytest.raises(SchemaMismatch, match=problem):
            session.adopt("theirs", encoder, **options)

    def test_an_adopted_collection_cannot_be_adopted_with_another_encoder(self, session: Session) -> None:
        """A second ``adopt`` with another encoder raises ``EncoderMismatch``."""
        session.foreign("theirs", IDS[:9], DOCUMENTS[:9])
        session.adopt("theirs", ENCODER).backfill()
        with pytest.raises(EncoderMismatch):
            session.adopt("theirs", OTHER_ENCODER)


class TestInAndOutAgain:
    """A collection can be adopted again with another encoder, and an adoption can be undone."""

    def test_a_second_encoder_beside_the_first(self, session: Session) -> None:
        """``adopt`` with another ``fde_vector`` adds FDEs of another encoder and keeps the first ones."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector")
        session.foreign("pages", IDS, DOCUMENTS)
        first = session.adopt("pages", ENCODER)
        assert first.backfill(**session.exact()).written == COUNT
        second = session.adopt("pages", OTHER_ENCODER, fde_vector="fde_v2")
        report = second.backfill(**session.exact())
        assert (report.written, report.failed) == (COUNT, {})
        assert second.encoder.fingerprint == OTHER_ENCODER.fingerprint
        found = [hit.id for hit in second.search(QUERIES[2], 6, 12)]
        assert found == two_stage(QUERIES[2], 6, 12, OTHER_ENCODER)
        content = session.content("pages")
        assert all({"colbert", "fde", "fde_v2"} <= vectors.keys() for _, vectors in content.values())

    def test_an_adoption_can_be_undone(self, session: Session) -> None:
        """``remove_fde`` restores the collection as it was before, if the database can drop a vector."""
        if not session.backfills_in_place():
            pytest.skip("the database cannot add a vector")
        session.foreign("pages", IDS[:20], DOCUMENTS[:20])
        before = session.content("pages")
        store = session.adopt("pages", ENCODER)
        store.backfill()
        if session.removes_fdes():
            store.remove_fde()
        else:
            with pytest.raises(Unsupported, match="fde"):
                store.remove_fde()
        with pytest.raises(CollectionNotFound):
            session.open("pages")
        after = session.content("pages")
        assert after.keys() == before.keys()
        for i, (payload, vectors) in before.items():
            assert after[i][0] == payload
            assert np.allclose(after[i][1]["colbert"], vectors["colbert"])
            assert after[i][1].keys() == vectors.keys() or not session.removes_fdes()
        assert session.adopt("pages", OTHER_ENCODER).backfill().written == 20
