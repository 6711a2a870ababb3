"""Recall and its interval, pseudo-queries and judgements."""

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence import Queries, pseudo_queries, read_judgements
from muvera_adapters.evidence.judgements import quality
from muvera_adapters.evidence.measuring import Interval, exact_top, positions, queries_of, recalls
from muvera_adapters.evidence.queries import as_queries
from muvera_adapters.evidence.target_recall import grid, grid_of_sample, lower_bound, reaches
from muvera_core import InvalidTokens, TokenBatch, maxsim
from tests.drawn import gaussian


def test_recall_counts_what_is_among_the_candidates():
    exact = [["a", "b", "c"], ["x", "y", "z"]]
    found = [["b", "q", "a", "r"], ["p", "q", "z"]]
    places = positions(found, exact)
    assert places.tolist() == [[2, 0, np.inf], [np.inf, np.inf, 2]]
    assert recalls(places, 1).tolist() == [1, 0]
    assert recalls(places, 1, candidates=2).tolist() == [0, 0]
    assert recalls(places, 2, candidates=1).tolist() == [0.5, 0]
    assert recalls(places, 3).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_the_first_place_counts_where_an_id_is_found_twice():
    assert positions([["a", "b", "a"]], [["a"]]).tolist() == [[0]]


def test_exact_top_is_maxsim_with_ties_by_position():
    documents = [gaussian(i, 4, 8) for i in range(12)]
    documents[9] = documents[2]
    query = gaussian(50, 3, 8)
    scores = maxsim(query, documents)
    top = exact_top(TokenBatch.from_list([query]), TokenBatch.from_list(documents), list(range(12)), 12)[0]
    assert scores[top].tolist() == sorted(scores.tolist(), reverse=True)
    assert top.index(2) < top.index(9)


def test_intervals_hold_the_mean_of_the_population_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [Interval.of(rng.beta(8, 2, 60), seed) for seed in range(200)]
    holds = [interval.low <= 0.8 <= interval.high for interval in intervals]
    assert 0.88 < np.mean(holds) < 1
    wide, narrow = Interval.of(rng.beta(8, 2, 20), 0), Interval.of(rng.beta(8, 2, 2000), 0)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_intervals_depend_on_the_seed_alone():
    values = np.random.default_rng(1).random(30)
    assert Interval.of(values, 3) == Interval.of(values, 3) != Interval.of(values, 4)


def test_reaching_a_target_takes_more_than_the_mean():
    values = np.array([1.0] * 18 + [0.0] * 2)  # mean .9
    assert not reaches(values, 0.8)
    assert reaches(values, 0.7)
    assert reaches(np.ones(5), 1.0)
    assert not reaches(np.ones(1), 0.5)


@pytest.mark.parametrize("n", [5, 28, 100])
def test_other_queries_exceed_the_lower_bound_in_19_of_20_cases(n):
    rng = np.random.default_rng(0)
    holds = [rng.normal(0.9, 0.1, n).mean() >= lower_bound(rng.normal(0.9, 0.1, n)) for _ in range(4000)]
    assert 0.94 < np.mean(holds) < 0.96


def test_a_sample_is_not_searched_for_more_than_half_of_it():
    assert grid_of_sample(10, 500, 400)[-1] == 200
    assert grid_of_sample(10, 70, 400)[-1] == 70
    assert grid_of_sample(10, 500, 20) == [10]


def test_the_grid_runs_from_k_to_the_most():
    assert grid(10, 70) == [10, 15, 20, 30, 50, 70]
    assert grid(10, 60)[-1] == 60
    assert grid(10, 10) == [10]


def test_pseudo_queries_are_marked_and_repeatable(pydocs_documents):
    first, again = pseudo_queries(pydocs_documents, 30, seed=5), pseudo_queries(pydocs_documents, 30, seed=5)
    assert first.origin == "pseudo"
    assert first.label == "30 pseudo-queries"
    assert "pseudo-queries" in first.notes[0]
    np.testing.assert_array_equal(first.tokens.values, again.tokens.values)
    assert not np.array_equal(first.tokens.values, pseudo_queries(pydocs_documents, 30, seed=6).tokens.values)
    assert set(first.tokens.lengths) <= set(range(1, 17))
    np.testing.assert_allclose(np.linalg.norm(first.tokens.values, axis=1), 1, rtol=1e-5)


def test_pseudo_queries_come_from_documents_and_not_just_one(pydocs_documents):
    documents = pydocs_documents[:200]
    found = pseudo_queries(documents, 60, noise=0, seed=1)
    ids = list(range(200))
    exact = exact_top(found.tokens, documents, ids, 1)
    best = [maxsim(q, documents).max() / len(q) for q in queries_of(found.tokens)]
    assert min(best) == pytest.approx(1, abs=1e-5)  # its own document
    assert len({top[0] for top in exact}) > 40


def test_bad_queries_are_named():
    with pytest.raises(InvalidInput, match="there are no queries"):
        as_queries([])
    with pytest.raises(InvalidInput, match="3 query ids, 2 queries"):
        as_queries([np.ones((1, 4)), np.ones((1, 4))], ["a", "b", "c"])
    with pytest.raises(InvalidTokens, match="query 1"):
        as_queries([np.ones((1, 4)), np.ones((1, 5))])
    with pytest.raises(InvalidInput, match="3 queries cannot be split"):
        as_queries([np.ones((1, 4))] * 3).halves(0)


def test_halves_share_nothing_and_lose_nothing():
    queries = Queries(TokenBatch.from_list([np.full((1, 2), i + 1.0) for i in range(11)]), [str(i) for i in range(11)])
    a, b = queries.halves(3)
    assert (len(a), len(b)) == (6, 5)
    assert sorted([*a.ids, *b.ids]) == sorted(queries.ids)
    assert [a.tokens[i][0, 0] - 1 for i in range(6)] == [int(x) for x in a.ids]
    assert list(queries.halves(3)[0].ids) == list(a.ids) != list(queries.halves(4)[0].ids)


@pytest.mark.parametrize(
    "text",
    [
        "1 0 doc-a 2\n1 0 doc-b 0\n2 0 doc-c 1\n",
        "query-id\tcorpus-id\tscore\n1\tdoc-a\t2\n1\tdoc-b\t0\n2\tdoc-c\t1\n",
        "\ufeff1\tdoc-a\t2\n\n1\tdoc-b\t0\n2\tdoc-c\t1\n",
    ],
)
def test_judgements_of_every_form(tmp_path, text):
    (tmp_path / "qrels").write_text(text, encoding="utf-8")
    assert read_judgements(tmp_path / "qrels") == {"1": {"doc-a": 2, "doc-b": 0}, "2": {"doc-c": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\ta\t1\n1\tb\tbad\n", "line 2: the grade 'bad'"),
        ("1\ta\t1\n1\n", "line 2: expected 2 to 4 columns"),
        ("", "has no judgements"),
    ],
)
def test_bad_judgements_are_named(tmp_path, text, message):
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_judgements(tmp_path / "qrels")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_judgements(tmp_path / "nothing")


def test_quality_by_hand():
    pytest.importorskip("ir_measures")
    judgements = {"1": {"7": 1, "8": 0}, "2": {"3": 1}, "9": {"1": 1}}
    found = quality([[5, 7, 8], [4, 3, 6], [1, 2, 3]], ["1", "2", "unjudged"], judgements)
    assert found["RR@10"] == pytest.approx(0.5)
    assert found["nDCG@10"] == pytest.approx(1 / np.log2(3))
    assert quality([[1]], ["unjudged"], judgements) == {}
