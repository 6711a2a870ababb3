"""Explanations of scores, and how they are shown."""

import uuid
from types import SimpleNamespace

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.results import Document, Hit
from muvera_adapters.stores.checks import check_encodable, check_weights
from muvera_adapters.stores.explaining import explain
from muvera_adapters.stores.operations import Retry, run
from muvera_adapters.stores.searching import maxsim_of_stored
from tests.drawn import gaussian

DIM = 8
QUERY = np.eye(DIM, dtype=np.float32)[:3]
#: of the first query token: .2, .9, .9; of the second: -.5, -.1, -.3; of the third: 0, 0, .6
TOKENS = np.zeros((3, DIM), np.float32)
TOKENS[:, :3] = [[0.2, -0.5, 0], [0.9, -0.1, 0], [0.9, -0.3, 0.6]]


def explained(documents, query=QUERY, stored=None, cosine=False, **options):
    """Explanations, and the ids that were read."""
    collection = SimpleNamespace(name="docs", encoder=SimpleNamespace(token_dim=DIM), cosine=cosine)
    read = []

    async def get(ids):
        read.extend(ids)
        return [Document(i, {}, stored[i]) if i in stored else None for i in ids]

    operation = explain(collection, query, documents, check_encodable, get, **options)
    return run(operation, None, Retry(attempts=1)), read


def one(tokens=TOKENS, **options):
    ((explanation,), _) = explained(Hit("a", 0.0, tokens=tokens), **options)
    return explanation


class TestMatches:
    def test_each_query_token_has_its_best_document_token(self):
        explanation = one(best=2)
        assert explanation.score == pytest.approx(1.4)
        assert [match.document_token for match in explanation.matches] == [1, 1, 2]  # of equal ones the first
        assert [match.contribution for match in explanation.matches] == pytest.approx([0.9, -0.1, 0.6])
        assert [match.share for match in explanation.matches] == pytest.approx([0.9 / 1.4, -0.1 / 1.4, 0.6 / 1.4])
        assert [[token for token, _ in match.best] for match in explanation.matches] == [[1, 2], [1, 2], [2, 0]]
        assert all(match.best[0] == (match.document_token, match.similarity) for match in explanation.matches)

    def test_a_score_that_is_not_positive_has_no_shares(self):
        for tokens in (TOKENS * [0, 1, 0, 0, 0, 0, 0, 0], np.eye(DIM)[5:]):
            explanation = one(tokens)
            assert explanation.score <= 0
            assert [match.share for match in explanation.matches] == [None] * 3
            assert str(explanation).splitlines()[2].endswith(" -")

    @pytest.mark.parametrize("cosine", [False, True])
    def test_scores_are_those_of_the_rerank(self, cosine):
        """Also of padding, which is nearer than what points away, and of one query token and many document tokens."""
        matrices = [gaussian(1, 1, DIM), gaussian(2, 3_000, DIM), np.vstack([-np.abs(gaussian(3, 4, DIM)), 0 * TOKENS])]
        for query in (np.abs(gaussian(0, 1, DIM)), np.abs(gaussian(4, 20, DIM))):
            ours, read = explained([0, 1, 2, 0], 3 * query, dict(enumerate(matrices)), cosine)
            assert read == [0, 1, 2, 0]
            compared = query / np.linalg.norm(query, axis=1, keepdims=True) if cosine else 3 * query
            expected = maxsim_of_stored(compared, [*matrices, matrices[0]], cosine=cosine)
            assert [each.score for each in ours] == pytest.approx(expected.tolist(), abs=1e-4)
        assert ours[2].score == 0
        assert ours[2].matches[0].document_token == 4

    def test_half_precision_tokens(self):
        assert one(TOKENS.astype(np.float16)).score == pytest.approx(1.4, abs=2e-3)


class TestDocuments:
    def test_only_hits_without_tokens_are_read(self):
        name = uuid.UUID(int=7)
        documents = [Hit(1, 0.0, tokens=TOKENS), 2, Hit("x", 0.0), name, np.int64(2), Hit(9, 0.0), 3, 4]
        stored = {2: TOKENS, "x": TOKENS, name: TOKENS, 3: None, 4: TOKENS[:0]}
        found, read = explained(documents, stored=stored)
        assert read == [2, "x", name, 2, 9, 3, 4]
        assert [each and each.id for each in found] == [1, 2, "x", name, 2, None, None, None]
        assert explained("x", stored=stored)[0] == explained(["x"], stored=stored)[0] == found[2:3]

    @pytest.mark.parametrize(
        ("document", "problem"),
        [
            (2.5, "document 0 is a float: pass ids"),
            ([1, None], "document 1 is a NoneType"),
            ([1, True], "document 1 is a bool"),
            ([[1, 2]], "document 0 is a list"),
            (Hit("x", 0.0, tokens=TOKENS[:, 1:]), r"document 0 \(id 'x'\).* width"),
            (Hit("x", 0.0, tokens=TOKENS * np.nan), r"document 0 \(id 'x'\), token 0 has a NaN"),
        ],
    )
    def test_what_is_not_a_document_is_refused(self, document, problem):
        with pytest.raises(InvalidInput, match=problem):
            explained(document, stored={1: TOKENS})


class TestWeights:
    def test_they_multiply(self):
        explanation = one(weights=[2, 0, 0.5])
        assert [match.contribution for match in explanation.matches] == pytest.approx([1.8, 0, 0.3])
        assert explanation.score == pytest.approx(2.1)

    @pytest.mark.parametrize(
        ("weights", "problem"),
        [
            ([1, 2], r"3 tokens.*shape \(2,\)"),
            (1, "3 tokens"),
            (["a", 1, 1], "must be numbers"),
            ([1, -1, 1], r"token 1 is -1\.0"),
            ([1, 1, np.inf], "token 2 is inf"),
            ([0, 0, 0], "all weights are 0"),
        ],
    )
    def test_what_is_not_a_weight_is_refused(self, weights, problem):
        with pytest.raises(InvalidInput, match=problem):
            check_weights(weights, 3)


class TestTable:
    def test_positions_and_texts_are_aligned(self):
        explanation = one(best=2)
        assert str(explanation).splitlines() == [
            "document 'a', score 1.4000",
            "query token  document token  similarity   share  next best",
            "0            1                   0.9000  64.3 %  2 (0.9000)",
            "1            1                  -0.1000  -7.1 %  2 (-0.3000)",
            "2            2                   0.6000  42.9 %  0 (0.0000)",
        ]
        texts = {"query_texts": ["how", "to", "[MASK]"], "document_texts": ["日本", "sort\n", "liste"]}
        assert one().table(**texts, order="contribution").splitlines() == [
            "document 'a', score 1.4000",
            "query token  document token  similarity   share",
            r"0 how        1 sort\n            0.9000  64.3 %",
            "2 [MASK]     2 liste             0.6000  42.9 %",
            r"1 to         1 sort\n           -0.1000  -7.1 %",
        ]
        wide = one(TOKENS[[2, 0, 0]]).table(**texts).splitlines()[2]
        assert wide == "0 how        0 日本              0.9000   75.0 %"

    def test_weights_are_shown(self):
        lines = one(weights=[2, 0, 0.5]).table().splitlines()
        assert lines[1] == "query token  document token  similarity  weight  contribution   share"
        assert lines[4] == "2            2                   0.6000     0.5        0.3000  14.3 %"

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"query_texts": ["a"]}, "query_texts must be a list of 3 texts.*got 1"),
            ({"document_texts": "abc"}, "document_texts must be a list of 3 texts.*got 'abc'"),
            ({"document_texts": ["a", "b", 3]}, "position 2 must be a text, got 3"),
            ({"order": "score"}, "order must be"),
        ],
    )
    def test_wrong_texts_are_refused(self, options, problem):
        with pytest.raises(InvalidInput, match=problem):
            one().table(**options)


class TestHeatmap:
    """Page of 2 rows of 3 patches behind one token of the prompt, and before two."""

    @pytest.fixture
    def page(self):
        tokens = np.zeros((9, DIM), np.float32)
        tokens[:, 0] = np.arange(9)
        tokens[:, 1] = 10
        return one(tokens, weights=[3, 1, 0])

    def test_patches_are_in_rows(self, page):
        assert page.heatmap(2, 3, 0, first=1).tolist() == [[1, 2, 3], [4, 5, 6]]
        assert page.heatmap(1, 9, 1).tolist() == [[10] * 9]
        assert page.heatmap(2, 3, 0).dtype == np.float32

    def test_without_a_query_token_it_is_the_weighted_mean(self, page):
        expected = 0.75 * np.array([[1, 2, 3], [4, 5, 6]]) + 2.5
        np.testing.assert_allclose(page.heatmap(2, 3, first=1), expected, rtol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ((2, 5), "9 stored tokens; 2 rows of 5 patches from token 0 on need 10"),
            ((3, 3, 0, 1), "from token 1 on need 10"),
            ((0, 3), "rows must be an integer of at least 1"),
            ((2, 3, 3), "query_token must be below 3"),
            ((2, 3, -1), "query_token must be"),
            ((2, 3, None, -1), "first must be"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, page, arguments, problem):
        with pytest.raises(InvalidInput, match=problem):
            page.heatmap(*arguments)
