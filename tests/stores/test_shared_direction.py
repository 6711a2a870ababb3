"""Tokens that share a direction, measured as they are written."""

import numpy as np
import pytest

from muvera_adapters.evidence.diagnosis import FIT_FROM
from muvera_adapters.samples import anisotropic
from muvera_adapters.stores.shared_direction import DirectionOfTokens
from tests.drawn import gaussian

WIDTH = 32


def documents(count, mean=0.0, seed=0):
    return [gaussian(seed * 1000 + i, 4, WIDTH) + mean for i in range(count)]


def mean_norm2(matrices):
    """Squared norm of the mean of the tokens at unit length."""
    tokens = np.concatenate(matrices).astype(np.float64)
    mean = (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).mean(axis=0)
    return mean @ mean


@pytest.mark.parametrize("mean", [0.0, 0.5, 3.0])
def test_it_is_the_squared_norm_of_the_mean(mean):
    matrices = documents(100, mean)
    assert DirectionOfTokens().add(matrices) == pytest.approx(mean_norm2(matrices), abs=0.02)


def test_the_sample_is_below_the_limit_wherever_it_begins(pydocs_documents):
    for begin in range(0, len(pydocs_documents) - 64, 16):
        found = DirectionOfTokens().add([pydocs_documents[i] for i in range(begin, begin + 64)])
        assert 0.05 < found < FIT_FROM


def test_an_anisotropic_set_is_above_it(pydocs_documents):
    moved = anisotropic(pydocs_documents, pydocs_documents.values.mean(axis=0), 1.5)
    assert DirectionOfTokens().add(moved) == pytest.approx(0.77, abs=0.03)


def test_documents_of_several_writes_count_together():
    direction = DirectionOfTokens()
    assert [direction.add(documents(20, 3.0, seed)) for seed in range(3)] == [None] * 3
    assert direction.add(documents(20, 3.0, 3)) > 0.8
    assert direction.settled
    assert direction.add(documents(100, 3.0, 4)) is None


def test_few_documents_settle_nothing():
    direction = DirectionOfTokens()
    alike = [np.ones((1000, WIDTH), np.float32)]
    assert [direction.add(alike) for _ in range(100)] == [None] * 100
    assert direction.add([np.zeros((3, WIDTH), np.float32)] * 100) is None
    assert direction.add([]) is None
    assert not direction.settled
