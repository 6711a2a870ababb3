"""MaxSim with tokens that the library did not write."""

import numpy as np

from muvera_adapters.stores.searching import maxsim_of_stored
from tests.core.reference import chamfer
from tests.drawn import gaussian


def test_scores_are_maxsim():
    query = gaussian(0, 4, 8)
    matrices = [gaussian(i, n, 8) for i, n in enumerate((1, 5, 30), start=1)]
    expected = [chamfer(query, matrix) for matrix in matrices]
    np.testing.assert_allclose(maxsim_of_stored(query, matrices), expected, rtol=1e-5)


def test_padding_counts_as_it_is_stored():
    query, matrix = -np.ones((2, 8), np.float32), np.ones((3, 8), np.float32)
    padded = np.vstack([matrix, np.zeros((1, 8), np.float32)])
    scores = maxsim_of_stored(query, [matrix, padded])
    assert scores.tolist() == [-16, 0]  # zeros are nearer than what points away


def test_no_documents():
    assert maxsim_of_stored(gaussian(0, 2, 8), []).shape == (0,)
