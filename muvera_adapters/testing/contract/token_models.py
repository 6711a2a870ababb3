"""Tests of the model that made the tokens of a collection, and of tokens that share a direction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import CollectionNotFound, InvalidInput, ModelMismatch, SharedDirection
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER, QUERIES
from muvera_core import FDEEncoder

_MODEL, _PROMPTS = "org/model@1234", {"query": "[Q] ", "document": "[D] "}
# tokens like those of models whose vectors share a direction: the squared norm of their mean is about .6
_DIRECTED = [(m + 1.2 * np.eye(DIM, dtype=np.float32)[0]).astype(np.float16).astype(np.float32) for m in DOCUMENTS]


@contextmanager
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SharedDirection)
        yield


class TestSharedDirection:
    """Stores warn of tokens that share a direction if their encoder is a plain FDE."""

    def test_writing_them_warns_once(self, session: Session) -> None:
        """The first ``upsert`` of enough documents warns and says what to do; the next ones do not warn."""
        store = session.create("directed", ENCODER)
        with _no_warning():
            store.upsert(IDS[:20], _DIRECTED[:20])
        with pytest.warns(SharedDirection, match=r"directed.*FDEEncoder\.fit\(config, sample\)"):
            store.upsert(IDS[20:], _DIRECTED[20:])
        with _no_warning():
            store.upsert(IDS, _DIRECTED)
        assert store.count() == COUNT

    def test_a_backfill_warns(self, session: Session) -> None:
        """``backfill`` of an adopted collection warns too."""
        session.foreign("theirs", IDS, _DIRECTED)
        store = session.adopt("theirs", ENCODER)
        with pytest.warns(SharedDirection, match=r"FDEEncoder\.fit\(config, sample\)"):
            assert store.backfill().written == COUNT

    def test_a_fitted_encoder_is_the_cure(self, session: Session) -> None:
        """There is no warning with an encoder that was fitted to such tokens."""
        store = session.create("fitted", FDEEncoder.fit(ENCODER.config, np.concatenate(_DIRECTED)))
        with _no_warning():
            assert store.upsert(IDS, _DIRECTED).written == COUNT

    def test_other_tokens_give_no_warning(self, session: Session) -> None:
        """There is no warning for many documents without such a direction, or for one document of similar tokens."""
        store = session.create("isotropic", ENCODER)
        alike = np.ones((500, DIM)) + 0.01 * np.random.default_rng(1).normal(size=(500, DIM))
        with _no_warning():
            for _ in range(3):
                store.upsert([1000], [alike])
            assert store.upsert(IDS, DOCUMENTS).written == COUNT


class TestTokenModel:
    """The collection keeps the model of its tokens if it was named, and other models are rejected."""

    def test_it_is_kept(self, session: Session) -> None:
        """``create(model=...)`` stores the model, and ``open``, ``model`` and ``info`` return it."""
        store = session.create("named", ENCODER, model=TokenModel(_MODEL, _PROMPTS))
        store.upsert(IDS[:3], DOCUMENTS[:3])
        for options in ({}, {"model": None}, {"model": _MODEL}):
            assert store.model == TokenModel(_MODEL, _PROMPTS)
            assert store.info().model == store.model
            store = session.open("named", **options)
        assert store.count() == 3

    @pytest.mark.parametrize("model", ["org/other", "org/model@5678", TokenModel("org/model", {"query": "search: "})])
    def test_another_one_is_an_error_that_shows_both(self, session: Session, model: Any) -> None:
        """``open`` with another name, revision or prompt raises ``ModelMismatch``, which shows both models."""
        session.create("named", ENCODER, model=TokenModel(_MODEL, _PROMPTS))
        with pytest.raises(ModelMismatch) as caught:
            session.open("named", model=model)
        assert _MODEL in str(caught.value)
        assert str(model) in str(caught.value)
        assert session.open("named", model="org/model").count() == 0

    def test_without_one_every_model_is_accepted(self, session: Session) -> None:
        """A collection without a named model can be opened with any model, and that does not store the model."""
        session.create("unnamed", ENCODER)
        store = session.open("unnamed", model=_MODEL)
        store.upsert(IDS[:3], DOCUMENTS[:3])
        assert store.model is None
        assert session.open("unnamed", model="org/other").info().model is None

    def test_adopt_names_it(self, session: Session) -> None:
        """``adopt(model=...)`` stores the model of another program's collection with the FDEs."""
        session.foreign("theirs", IDS[:9], DOCUMENTS[:9])
        store = session.adopt("theirs", ENCODER, model=_MODEL)
        assert store.model == TokenModel(_MODEL)
        store.backfill()
        assert session.open("theirs").model == TokenModel(_MODEL)
        assert session.adopt("theirs", ENCODER).model == TokenModel(_MODEL)
        with pytest.raises(ModelMismatch, match="org/other"):
            session.adopt("theirs", ENCODER, model="org/other")

    def test_adopt_names_it_later(self, session: Session) -> None:
        """A second ``adopt`` stores the model of an adopted collection if it was unknown, and changes nothing else."""
        session.foreign("theirs", IDS[:9], DOCUMENTS[:9])
        session.adopt("theirs", ENCODER).backfill()
        assert session.open("theirs").model is None
        before = session.content("theirs")
        session.adopt("theirs", ENCODER, model=_MODEL)
        store = session.open("theirs", ENCODER)
        assert store.model == TokenModel(_MODEL)
        assert len(store.search(QUERIES[0], 5)) == 5
        assert session.content("theirs").keys() == before.keys()

    def test_what_is_no_model_is_refused(self, session: Session) -> None:
        """An empty name or prompts with unknown names raise ``InvalidInput`` before anything is created."""
        with pytest.raises(InvalidInput, match="org/model@revision"):
            session.create("named", ENCODER, model="")
        with pytest.raises(InvalidInput, match="'query' and 'document'"):
            TokenModel(_MODEL, {"passage": "x"})
        with pytest.raises(CollectionNotFound):
            session.open("named")
