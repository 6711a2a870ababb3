"""What a store says of the model that made the tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from muvera_adapters.errors import SharedDirection
from muvera_adapters.testing import Session
from muvera_adapters.testing.contract.shared import IDS
from muvera_adapters.testing.corpus import COUNT, DIM, DOCUMENTS, ENCODER
from muvera_core import FDEEncoder

# as of models whose token vectors share a direction: the squared norm of their mean is about .6
_DIRECTED = [(m + 1.2 * np.eye(DIM, dtype=np.float32)[0]).astype(np.float16).astype(np.float32) for m in DOCUMENTS]


@contextmanager
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SharedDirection)
        yield


class TestSharedDirection:
    """Tokens that share a direction are warned of where a plain FDE is made of them."""

    def test_writing_them_warns_once(self, session: Session) -> None:
        """The first ``upsert`` of enough documents warns, with the line that cures it; the next ones do not."""
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
        """An encoder that was fitted to such tokens gives no warning."""
        store = session.create("fitted", FDEEncoder.fit(ENCODER.config, np.concatenate(_DIRECTED)))
        with _no_warning():
            assert store.upsert(IDS, _DIRECTED).written == COUNT

    def test_other_tokens_give_no_warning(self, session: Session) -> None:
        """Neither many documents without such a direction, nor one document of tokens that are alike, give it."""
        store = session.create("isotropic", ENCODER)
        alike = np.ones((500, DIM)) + 0.01 * np.random.default_rng(1).normal(size=(500, DIM))
        with _no_warning():
            for _ in range(3):
                store.upsert([1000], [alike])
            assert store.upsert(IDS, DOCUMENTS).written == COUNT
