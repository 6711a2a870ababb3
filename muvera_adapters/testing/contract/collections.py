"""Tests of collections that the store creates, and of their encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import CollectionExists, CollectionNotFound, EncoderMismatch, InvalidInput, MuveraError
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS, PAYLOADS, RERANKED
from muvera_adapters.testing.corpus import (
    CONFIG,
    COUNT,
    DIM,
    DOCUMENTS,
    ENCODER,
    FITTED_ENCODER,
    OTHER_ENCODER,
    QUERIES,
    best,
    estimates,
    sample,
    truth,
    two_stage,
)
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, load_encoder


class TestCollections:
    """Collections are created, opened, described and dropped, and cannot be used with the wrong encoder."""

    def test_open_rebuilds_the_encoder_and_finds_the_same(self, session: Session, filled: Any) -> None:
        """``open`` without an encoder rebuilds it from the collection, and searches find the same documents."""
        expected = filled.search(QUERIES[1], 5, 30)
        opened = session.open("filled")
        assert opened.encoder.fingerprint == ENCODER.fingerprint
        assert opened.search(QUERIES[1], 5, 30) == expected
        assert session.open("filled", ENCODER).search(QUERIES[1], 5, 30) == expected

    def test_a_fitted_encoder_travels_with_the_collection(self, session: Session) -> None:
        """A fitted FDE encoder is kept with the collection, including its state."""
        fitted = FDEEncoder.fit(CONFIG, np.concatenate(DOCUMENTS) + 0.3)
        session.create("fitted", fitted).upsert(IDS[:9], DOCUMENTS[:9])
        opened = session.open("fitted")
        assert opened.encoder.fingerprint == fitted.fingerprint
        assert np.array_equal(opened.encoder.encode_query(QUERIES[0]), fitted.encode_query(QUERIES[0]))

    def test_an_encoder_is_chosen_for_a_sample(self, session: Session) -> None:
        """``create`` with ``encoder="auto"`` makes a collection with a recall of .95, which keeps its encoder."""
        documents, queries, _ = sample()
        documents = documents[:800]
        store = session.create("chosen", "auto", sample=documents)
        store.upsert(range(800), documents)
        store.wait_indexed()
        opened = session.open("chosen")
        assert opened.encoder.fingerprint == store.encoder.fingerprint
        found = [{hit.id for hit in opened.search(query)} for query in queries]
        exact = [set(best(truth(query, documents), 10)) for query in queries]
        assert sum(len(a & b) for a, b in zip(found, exact, strict=True)) >= 0.95 * 10 * len(queries)

    def test_nothing_is_chosen_without_a_fitting_sample(self, session: Session) -> None:
        """``create`` raises ``InvalidInput`` for ``"auto"`` without a usable sample, and for a sample without it."""
        with pytest.raises(InvalidInput, match="needs sample="):
            session.create("chosen", "auto")
        with pytest.raises(InvalidInput, match="is for encoder='auto'"):
            session.create("chosen", ENCODER, sample=DOCUMENTS)
        with pytest.raises(InvalidInput, match="'best'"):
            session.create("chosen", "best", sample=DOCUMENTS)
        with pytest.raises(InvalidInput, match=r"sample: .*\b3\b"):
            session.create("chosen", "auto", sample=[*DOCUMENTS[:3], np.ones((2, DIM + 1), np.float32)])
        with pytest.raises(InvalidInput, match=r"sample: token 0 of document 1 is all zeros"):
            session.create("chosen", "auto", sample=[DOCUMENTS[0], np.zeros((2, DIM), np.float32), *DOCUMENTS])
        for few in ([], DOCUMENTS[:1], DOCUMENTS[:5]):
            with pytest.raises(InvalidInput, match=f"sample: .* of {len(few)} documents tells nothing"):
                session.create("chosen", "auto", sample=few)
        with pytest.raises(CollectionNotFound):
            session.open("chosen")

    def test_another_encoder_is_an_error_that_shows_both(self, session: Session, filled: Any) -> None:
        """``open`` with another encoder raises ``EncoderMismatch`` with both fingerprints."""
        with pytest.raises(EncoderMismatch) as caught:
            session.open("filled", OTHER_ENCODER)
        assert ENCODER.fingerprint in str(caught.value)
        assert OTHER_ENCODER.fingerprint in str(caught.value)

    def test_create_never_touches_what_is_there(self, session: Session, filled: Any) -> None:
        """``create`` with the name of an existing collection raises ``CollectionExists`` and changes nothing."""
        with pytest.raises(CollectionExists):
            session.create("filled", OTHER_ENCODER)
        assert session.open("filled", ENCODER).count() == COUNT

    def test_what_is_not_there_cannot_be_opened(self, session: Session) -> None:
        """``open`` of a collection that does not exist raises ``CollectionNotFound``."""
        with pytest.raises(CollectionNotFound):
            session.open("nothing")

    def test_what_others_made_must_be_adopted(self, session: Session) -> None:
        """``open`` of a collection of another program raises ``CollectionNotFound``, which names ``adopt``."""
        session.foreign("theirs", IDS[:3], DOCUMENTS[:3])
        with pytest.raises(CollectionNotFound, match=r"adopt|missing"):
            session.open("theirs")

    def test_drop_leaves_nothing(self, session: Session, filled: Any) -> None:
        """``drop`` removes the collection, so that its name can be used with another encoder."""
        filled.drop()
        with pytest.raises(MuveraError):
            session.open("filled")
        assert session.create("filled", OTHER_ENCODER).count() == 0

    def test_ping_tells_how_long_an_answer_takes(self, session: Session, filled: Any) -> None:
        """``ping`` returns seconds, and raises an error if the collection cannot be reached."""
        assert 0 < filled.ping() < 5
        gone = session.create("gone", ENCODER)
        assert 0 < gone.ping(30.0) < 30, "an empty collection must answer too"
        gone.drop()
        with pytest.raises(MuveraError):
            gone.ping()

    def test_a_time_limit_is_a_number_of_seconds(self, filled: Any) -> None:
        """Reads take ``timeout`` as a number of seconds, and reject other values."""
        assert [hit.id for hit in filled.search(QUERIES[1], 5, timeout=60)] == [
            hit.id for hit in filled.search(QUERIES[1], 5)
        ]
        assert filled.count(timeout=60.0) == COUNT
        assert len(filled.get([0], timeout=60.0)) == 1
        for bad in (0, -1.0, "10"):
            for read in (filled.search, filled.exact_search):
                with pytest.raises(InvalidInput, match="timeout"):
                    read(QUERIES[1], 5, timeout=bad)

    def test_info_adds_up(self, session: Session, filled: Any) -> None:
        """``info`` has correct counts and sizes, and says after ``wait_indexed`` that everything is indexed."""
        info = filled.info()
        assert (info.documents, info.without_fde, info.without_tokens) == (COUNT, 0, 0)
        assert (info.fde_dim, info.fingerprint) == (ENCODER.dim, ENCODER.fingerprint)
        assert info.fde_bytes == 4 * ENCODER.dim * COUNT
        floats = sum(
            matrix.size for matrix in DOCUMENTS
        )  # two or four bytes each; the store estimates the size from a sample
        assert floats < info.token_bytes < 8 * floats
        filled.wait_indexed()
        assert filled.info().indexed

    def test_codes_are_chosen_by_create_unless_they_are_given(self, session: Session) -> None:
        """``quantization="auto"`` is the default, None means no codes, and ``info`` has the size of the codes."""
        choices: dict[str, dict[str, Any]] = {
            "default": {},
            "automatic": {"quantization": "auto"},
            "none": {"quantization": None},
        }
        codes = {}
        for name, options in choices.items():
            store = session.create(name, ENCODER, **options)
            store.upsert(IDS, DOCUMENTS)
            codes[name] = store.info().code_bytes
        assert codes["default"] == codes["automatic"]
        assert codes["none"] == 0
        with pytest.raises(InvalidInput, match="auto"):
            session.create("unknown", ENCODER, quantization="int3")

    def test_encoders_too_long_for_the_database_are_refused(self, session: Session) -> None:
        """``create`` raises ``InvalidInput`` for an encoder with more dimensions than the database takes."""
        encoder = FDEEncoder(FDEConfig(dim=128, k_sim=7, d_proj=32, r_reps=20))
        with pytest.raises(InvalidInput, match="81920 dimensions"):
            session.create("long", encoder)
        with pytest.raises(CollectionNotFound):
            session.open("long")


class TestEncoderKeptInAFile:
    """A regression encoder can be used although its state is too large to be kept with the collection."""

    @pytest.fixture
    def fitted(self, session: Session) -> Any:
        """A collection of all documents, with FDEs that are not quantized."""
        store = session.create("fitted", FITTED_ENCODER, **session.exact())
        report = store.upsert(IDS, DOCUMENTS, PAYLOADS)
        assert (report.written, report.failed) == (COUNT, {})
        return store

    @pytest.mark.parametrize("rerank", [*RERANKED, "none"])
    def test_search(self, fitted: Any, rerank: str) -> None:
        """Searches with this encoder are exact too."""
        for query in QUERIES:
            hits = fitted.search(query, 8, 12, rerank=rerank, with_fde_score=True)
            expected = estimates(query, FITTED_ENCODER)
            found = best(expected, 8) if rerank == "none" else two_stage(query, 8, 12, FITTED_ENCODER)
            assert [hit.id for hit in hits] == found
            assert np.allclose([hit.fde_score for hit in hits], expected[found], atol=1e-4)

    def test_quantized_and_indexed_search_keeps_the_recall_of_the_first_stage(self, session: Session) -> None:
        """With the codes that ``create`` chooses, an indexed search finds 90 % of the hits of an exact first stage."""
        store = session.create("quantized", FITTED_ENCODER)
        store.upsert(IDS, DOCUMENTS)
        store.wait_indexed()
        found = [[hit.id for hit in store.search(query, 10, 40)] for query in QUERIES]
        expected = [two_stage(query, 10, 40, FITTED_ENCODER) for query in QUERIES]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)]) >= 0.9

    def test_it_is_opened_with_the_encoder_or_its_file(self, session: Session, fitted: Any, tmp_path: Path) -> None:
        """``open`` takes the encoder itself, or the encoder loaded from its file."""
        FITTED_ENCODER.save(tmp_path / "encoder.npz")
        expected = fitted.search(QUERIES[1], 8, 20)
        for encoder in (FITTED_ENCODER, load_encoder(tmp_path / "encoder.npz")):
            store = session.open("fitted", encoder)
            assert store.search(QUERIES[1], 8, 20) == expected
            assert store.info().fingerprint == FITTED_ENCODER.fingerprint
        store.upsert([500], [DOCUMENTS[4]])
        assert {hit.id for hit in store.search(DOCUMENTS[4], 2, COUNT)} == {4, 500}

    def test_without_it_the_error_says_what_to_do(self, session: Session, fitted: Any) -> None:
        """``open`` without the encoder raises ``EncoderMismatch``, which says how to load it."""
        with pytest.raises(EncoderMismatch, match=r"too large to be kept.*load_encoder\(path\)") as caught:
            session.open("fitted")
        assert FITTED_ENCODER.fingerprint in str(caught.value)
        assert session.open("fitted", FITTED_ENCODER).count() == COUNT

    def test_another_encoder_is_refused(self, session: Session, fitted: Any) -> None:
        """``open`` with another encoder of any kind raises ``EncoderMismatch`` with both fingerprints."""
        other = RegressionEncoder.fit(DOCUMENTS, dim=64, features=128, seed=7)
        for encoder in (other, ENCODER):
            with pytest.raises(EncoderMismatch) as caught:
                session.open("fitted", encoder)
            assert encoder.fingerprint in str(caught.value)
            assert FITTED_ENCODER.fingerprint in str(caught.value)

    def test_an_existing_collection_is_backfilled(self, session: Session) -> None:
        """An adopted collection can be backfilled with this encoder."""
        session.foreign("pages", IDS, DOCUMENTS)
        store = session.adopt("pages", FITTED_ENCODER)
        report = store.backfill(**session.exact())
        assert (report.written, report.remaining, report.failed) == (COUNT, 0, {})
        assert report.verified > 0
        found = [hit.id for hit in session.adopt("pages", FITTED_ENCODER).search(QUERIES[2], 6, 12)]
        assert found == two_stage(QUERIES[2], 6, 12, FITTED_ENCODER)


class TestErrors:
    """Wrong arguments and encoders raise errors that say what is wrong and what to do."""

    def test_a_config_is_not_an_encoder(self, session: Session) -> None:
        """Given a config, ``create``, ``open`` and ``adopt`` say how to make an encoder from it."""
        session.foreign("theirs", IDS[:3], DOCUMENTS[:3])
        calls: list[Callable[[], Any]] = [
            lambda: session.create("new", CONFIG),
            lambda: session.adopt("theirs", CONFIG),
        ]
        session.create("own", ENCODER)
        calls.append(lambda: session.open("own", CONFIG))
        for call in calls:
            with pytest.raises(InvalidInput, match=r"FDEEncoder\(config\)"):
                call()
        with pytest.raises(CollectionNotFound):
            session.open("new")

    @pytest.mark.parametrize("options", [{"prefetch": "many"}, {"limit": 2.5}, {"offset": None}])
    def test_numbers_are_numbers(self, filled: Any, options: dict[str, Any]) -> None:
        """Options that are not integers raise ``InvalidInput``."""
        with pytest.raises(InvalidInput):
            filled.search(QUERIES[0], **options)

    def test_another_encoder_is_told_by_what_differs(self, session: Session, filled: Any) -> None:
        """``EncoderMismatch`` names the fields that differ, with both values."""
        with pytest.raises(EncoderMismatch, match="seed=42 there, 7 given"):
            session.open("filled", OTHER_ENCODER)


class TestOwnership:
    """A store can be closed and shown, and the client still belongs to the user."""

    def test_a_closed_store_leaves_the_database_open(self, session: Session, filled: Any) -> None:
        """``close`` can be called twice, ``with`` closes the store, and other stores still work afterwards."""
        with session.open("filled") as store:
            assert store.count() == COUNT
        store.close()
        assert session.open("filled").count() == COUNT

    def test_it_is_shown_with_name_and_encoder(self, filled: Any) -> None:
        """``repr`` has the name of the collection, and the fingerprint and size of its encoder."""
        shown = repr(filled)
        assert filled.name in shown
        assert ENCODER.fingerprint[:8] in shown
        assert str(ENCODER.dim) in shown
