"""What a fit to a live collection samples, and when it is refused."""

from __future__ import annotations

import numpy as np
import pytest

from muvera_adapters.errors import NoGain
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.stores.backfilling import Stored
from muvera_adapters.stores.checks import check_encodable
from muvera_adapters.stores.operations import Retry, run
from muvera_adapters.stores.query_fitting import FitAccess, _recalls, _sample
from muvera_adapters.testing.corpus import DIM, ENCODER, unit_rows


async def _keys(cursor):
    start = cursor or 0
    return list(range(start, start + 10)), start + 10 if start < 90 else None


async def _read(keys):
    tokens = np.ones((2, DIM), np.float32)
    broken = {3: np.zeros((2, DIM), np.float32), 5: np.full((2, DIM), np.nan, np.float32)}
    # 4 has no FDE, 6 has no tokens
    fde = np.ones(ENCODER.dim, np.float32)
    return [Stored(key, key, broken.get(key, tokens), None if key == 4 else fde) for key in keys if key != 6]


def drawn(count, seed):
    access = FitAccess(None, check_encodable, _keys, _read, False)
    found = run(_sample(access, count, seed, False), lambda request: request.call(), Retry(attempts=1))
    return [document.key for document in found]


def test_the_sample_is_drawn_from_all_documents_that_can_be_encoded():
    assert sorted(drawn(1000, 0)) == sorted({*range(100)} - {3, 4, 5, 6})
    some = drawn(20, 0)
    assert len(set(some)) == len(some) <= 20
    assert max(some) > 60
    assert some == drawn(20, 0) != drawn(20, 1)


def test_recall_is_of_the_exact_top_ten_among_the_first_candidates():
    exact = np.arange(300, dtype=np.float32)[::-1][None]
    assert np.array_equal(_recalls(exact, exact), [[1, 1, 1]])
    shifted = exact.copy()
    shifted[:, 10:25] += 1000  # the ten best are at 15 to 24
    assert np.array_equal(_recalls(exact, shifted), [[0.5, 1, 1]])
    assert np.array_equal(_recalls(exact[:, :150], -exact[:, :150]), [[0, 0]])


def test_a_fit_that_does_not_gain_is_not_given(tmp_path):
    generator = np.random.default_rng(0)
    documents = [unit_rows(generator, int(n)) for n in generator.integers(2, 12, 200)]
    with QdrantEdgeMuvera.create(tmp_path, "random", ENCODER) as store:
        store.upsert(range(200), documents)
        with pytest.raises(NoGain, match="do not find more than the plain ones") as error:
            store.fit_queries()
        assert store.count() == 200
    report = error.value.report
    assert not report.gained
    assert (report.fitted_documents, report.judged_documents, report.judged_queries) == (100, 80, 20)
    assert (report.origin, report.fitted_queries, report.candidates) == ("documents", 0, (20,))
