import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera_core import TokenBatch, maxsim
from tests.core.reference import chamfer
from tests.drawn import gaussian


@given(
    st.integers(0, 2**32), st.integers(1, 40), st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 300)
)
def test_equals_the_definition(seed, m, lengths, dim):
    query = gaussian(seed, m, dim)
    documents = [gaussian(seed + i + 1, n, dim) for i, n in enumerate(lengths)]
    expected = [chamfer(query, d) for d in documents]
    np.testing.assert_allclose(maxsim(query, documents), expected, rtol=1e-5, atol=1e-4 * m)


def test_negative_scores_and_single_tokens():
    x = np.array([[1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(maxsim(x, [-x, x, np.concatenate([-x, 0.5 * x])]), [-1, 1, 0.5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_does_not_depend_on_batch_or_threads(dtype, rng):
    documents = [rng.standard_normal((n, 64)).astype(dtype) for n in rng.integers(1, 90, 150)]
    query = rng.standard_normal((33, 64))
    one_by_one = np.concatenate([maxsim(query, [d]) for d in documents])
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(maxsim(query, documents, threads=threads), one_by_one)
        np.testing.assert_array_equal(maxsim(query, TokenBatch.from_list(documents), threads=threads), one_by_one)


def test_more_tokens_never_lower_a_score(rng):
    query, document = rng.standard_normal((8, 32)), rng.standard_normal((20, 32)).astype(np.float32)
    scores = maxsim(query, [document[: i + 1] for i in range(20)])
    assert (np.diff(scores) >= 0).all()
