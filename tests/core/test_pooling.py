import numpy as np
import pytest

from muvera_core import InvalidTokens, TokenBatch, pool_tokens
from tests.core.test_regression import BAD, DIM, documents


def plainly(tokens, count):
    """Ward by its definition: the pair whose merger adds least to the squared distances, looked for anew each time."""
    tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    clusters = [[i] for i in range(len(tokens))]

    def spread(cluster):
        rows = tokens[cluster].astype(float)
        return ((rows - rows.mean(axis=0)) ** 2).sum()

    while len(clusters) > count:
        pairs = [(i, j) for i in range(len(clusters)) for j in range(i + 1, len(clusters))]
        rise = [spread(clusters[i] + clusters[j]) - spread(clusters[i]) - spread(clusters[j]) for i, j in pairs]
        i, j = pairs[int(np.argmin(rise))]
        clusters[i] += clusters.pop(j)
    means = np.stack([tokens[c].mean(axis=0) for c in sorted(clusters, key=min)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 9, 100])
def test_it_is_wards_clustering(factor):
    docs = documents(0, 25)
    pooled = pool_tokens(docs, factor)
    assert pooled.values.dtype == np.float32
    for i, tokens in enumerate(docs):
        expected = plainly(tokens, -(-len(tokens) // factor))
        assert pooled[i].shape == expected.shape
        np.testing.assert_allclose(pooled[i], expected, atol=1e-5)


def test_it_agrees_with_scipy():
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    for tokens in documents(1, 20):
        if len(tokens) < 4:
            continue
        count = -(-len(tokens) // 3)
        labels = hierarchy.fcluster(hierarchy.linkage(tokens, "ward"), count, "maxclust")
        firsts = sorted({int(np.flatnonzero(labels == label)[0]) for label in labels})
        means = np.stack([tokens[labels == labels[f]].mean(axis=0) for f in firsts])
        expected = means / np.linalg.norm(means, axis=1, keepdims=True)
        np.testing.assert_allclose(pool_tokens([tokens], 3)[0], expected, atol=1e-5)


def test_clusters_are_in_the_order_of_their_first_tokens():
    a, b, c = np.eye(3, dtype=np.float32)
    pooled = pool_tokens([[c, a, b, a, c, b]], 2)
    np.testing.assert_allclose(pooled[0], [c, a, b], atol=1e-6)


def test_of_equally_near_pairs_the_first_is_merged():
    rows = np.eye(4, dtype=np.float32)
    half = np.sqrt(np.float32(0.5))
    np.testing.assert_allclose(pool_tokens([rows[:3]], 2)[0], [[half, half, 0, 0], rows[2]], atol=1e-6)


def test_the_result_depends_on_directions_and_on_the_document_alone():
    docs = documents(2, 60)
    whole = pool_tokens(docs, 3)
    assert whole.lengths.tolist() == [-(-len(d) // 3) for d in docs]
    np.testing.assert_array_equal(pool_tokens(TokenBatch.from_list(docs), 3, threads=1).values, whole.values)
    for i in (0, 17, 59):
        np.testing.assert_array_equal(pool_tokens([docs[i]], 3)[0], whole[i])
        longer = docs[i] * np.random.default_rng(i).uniform(1, 1000, (len(docs[i]), 1))
        np.testing.assert_allclose(pool_tokens([longer], 3)[0], whole[i], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(whole.values, axis=1), 1, rtol=1e-5)


def test_opposite_tokens_do_not_vanish():
    token = np.eye(DIM, dtype=np.float32)[:1]
    np.testing.assert_array_equal(pool_tokens([np.vstack([token, -token])], 2)[0], token)


@pytest.mark.parametrize(("tokens", "problem"), BAD)
def test_what_cannot_be_pooled_is_named(tokens, problem):
    with pytest.raises(InvalidTokens, match=problem) as caught:
        pool_tokens([*documents(3, 4), tokens], 2)
    assert caught.value.position == 4


def test_factors_are_checked():
    for factor in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            pool_tokens(documents(0, 2), factor)
    for factor in (1.5, True, "2"):
        with pytest.raises(TypeError, match="an integer"):
            pool_tokens(documents(0, 2), factor)


def test_no_documents():
    assert len(pool_tokens([], 2)) == 0
