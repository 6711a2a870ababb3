"""MaxSim with tokens that the library did not write."""

from types import SimpleNamespace

import numpy as np
import pytest

from muvera_adapters.errors import MissingFDEs, Rejected
from muvera_adapters.results import Hits
from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.operations import Retry, run
from muvera_adapters.stores.searching import maxsim_of_stored, with_missing
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


def test_zero_rows_are_not_divided_by_under_cosine():
    query, matrix = gaussian(0, 4, 8), gaussian(1, 5, 8)
    padded = np.vstack([matrix, np.zeros((1, 8), np.float32)])
    assert np.isfinite(maxsim_of_stored(query, [padded, matrix], cosine=True)).all()


def test_documents_with_nan_rank_last():
    query, matrix = gaussian(0, 4, 8), gaussian(1, 5, 8)
    broken = np.vstack([matrix, np.full((1, 8), np.nan, np.float32)])
    scores = maxsim_of_stored(query, [broken, matrix])
    assert scores[0] == -np.inf
    assert np.isclose(scores[1], chamfer(query, matrix), rtol=1e-5)


class TestMissing:
    """The number of documents that no search finds."""

    @pytest.fixture
    def collection(self):
        return SimpleNamespace(name="docs", seen=Seen())

    def search(self, collection, missing, wanted=True):
        counted = []

        async def search():
            return [Hits()]

        async def count():
            counted.append(1)
            if isinstance(missing, Exception):
                raise missing
            return missing

        (hits,) = run(with_missing(collection, search(), count(), wanted=wanted), None, Retry(attempts=1))
        return hits.without_fde, len(counted)

    def test_it_is_counted_once_in_a_while_and_warned_of_once(self, collection):
        with pytest.warns(MissingFDEs, match=r"3 documents of docs .*backfill\(\)"):
            assert self.search(collection, 3) == (3, 1)
        assert self.search(collection, 3) == (3, 0)
        collection.seen.without_fde.forget()
        assert self.search(collection, 0) == (0, 1)

    def test_it_is_not_counted_where_it_is_not_wanted(self, collection):
        assert self.search(collection, 3, wanted=False) == (None, 0)

    def test_a_count_that_fails_fails_no_search(self, collection):
        assert self.search(collection, Rejected("exact search disabled")) == (None, 1)
        assert self.search(collection, 3) == (None, 0), "it is not asked for again at once"
