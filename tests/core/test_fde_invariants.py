"""What must be true of every FDE, whatever the sizes (MUVERA, section 2 and appendix A)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera_core import FDEConfig, FDEEncoder, maxsim
from muvera_core._draws import draw
from tests.core.reference import chamfer, nearest, partitions
from tests.drawn import configs, gaussian

PLAIN = {"normalize": False}


seeds = st.integers(0, 2**32)
counts = st.integers(1, 40)


def close(a, b, scale=1.0):
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(scale, float(np.abs(b).max())))


@given(configs(), seeds, counts, counts)
def test_query_is_additive_over_tokens(config, seed, m, n):  # invariant 1
    encoder = FDEEncoder(config)
    a, b = gaussian(seed, m, config.dim), gaussian(seed + 1, n, config.dim)
    close(encoder.encode_query(np.concatenate([a, b])), encoder.encode_query(a) + encoder.encode_query(b))
    close(encoder.encode_query(np.concatenate([a, a])), 2 * encoder.encode_query(a))


@given(configs(**PLAIN), seeds, counts, st.floats(0.01, 100))
def test_scaling_tokens_scales_the_fde(config, seed, n, factor):  # invariant 2
    encoder, tokens = FDEEncoder(config), gaussian(seed, n, config.dim)
    scaled = tokens * np.float32(factor)
    close(encoder.encode_query(scaled), factor * encoder.encode_query(tokens))
    close(encoder.encode_document(scaled), factor * encoder.encode_document(tokens))


def test_a_negative_factor_flips_the_partitions(rng):  # invariant 2, the other half
    encoder = FDEEncoder(FDEConfig(16, k_sim=4, normalize=False))
    tokens = rng.standard_normal((9, 16)).astype(np.float32)
    assert not np.allclose(encoder.encode_query(-tokens), -encoder.encode_query(tokens), atol=1e-3)


@given(configs(fill_empty=False), seeds, counts)
def test_order_of_tokens_does_not_matter(config, seed, n):  # invariant 3
    encoder, tokens = FDEEncoder(config), gaussian(seed, n, config.dim)
    mixed = tokens[np.random.default_rng(seed).permutation(n)]
    close(encoder.encode_query(mixed), encoder.encode_query(tokens))
    close(encoder.encode_document(mixed), encoder.encode_document(tokens))


def test_ties_of_the_fill_go_to_the_first_token():  # invariant 3: with fill, order may matter
    config = FDEConfig(8, r_reps=1, k_sim=5, d_proj=None, normalize=False)
    encoder = FDEEncoder(config)
    for seed in range(20):
        tokens = gaussian(seed, 4, 8)
        ids = partitions(config, tokens)[:, 0]
        blocks = encoder.encode_document(tokens).reshape(32, 8)
        for b in set(range(32)) - set(ids):
            np.testing.assert_array_equal(blocks[b], tokens[nearest(ids, b)])


@given(configs(), seeds, counts)
def test_a_document_twice_is_the_document(config, seed, n):  # invariant 4
    encoder, tokens = FDEEncoder(config), gaussian(seed, n, config.dim)
    close(encoder.encode_document(np.concatenate([tokens, tokens])), encoder.encode_document(tokens))


@given(configs(d_proj=None, fill_empty=True, **PLAIN), seeds, counts)
def test_one_token_document_is_exact(config, seed, m):  # invariant 5
    encoder = FDEEncoder(config)
    query, document = gaussian(seed, m, config.dim), gaussian(seed + 1, 1, config.dim)
    dot = float(encoder.encode_query(query) @ encoder.encode_document(document))
    assert dot == pytest.approx(config.r_reps * chamfer(query, document), abs=1e-3 * config.r_reps * m)


@given(seeds, counts)
def test_one_token_query_is_the_mean_of_its_partition(seed, n):  # invariant 5
    config = FDEConfig(16, r_reps=1, k_sim=3, d_proj=None, normalize=False)
    encoder = FDEEncoder(config)
    query, document = gaussian(seed, 1, 16), gaussian(seed + 1, n, 16)
    bucket, ids = partitions(config, query)[0, 0], partitions(config, document)[:, 0]
    mates = np.flatnonzero(ids == bucket)
    chosen = mates if len(mates) else [nearest(ids, bucket)]
    expected = float((document[chosen] @ query[0]).mean())
    dot = float(encoder.encode_query(query) @ encoder.encode_document(document))
    assert dot == pytest.approx(expected, abs=1e-4)


@given(seeds, counts, counts, st.integers(1, 5))
def test_without_hyperplanes_it_is_mean_pooling(seed, m, n, reps):  # invariant 6
    encoder = FDEEncoder(FDEConfig(12, r_reps=reps, k_sim=0, d_proj=None, normalize=False))
    query, document = gaussian(seed, m, 12), gaussian(seed + 1, n, 12)
    expected = reps * float(query.sum(axis=0) @ document.mean(axis=0))
    dot = float(encoder.encode_query(query) @ encoder.encode_document(document))
    assert dot == pytest.approx(expected, abs=1e-3 * reps * m)


@given(configs(d_proj=None, fill_empty=True, **PLAIN), seeds, counts, counts)
def test_never_above_chamfer_nor_below_the_minima(config, seed, m, n):  # invariant 7, lemma A.3
    encoder = FDEEncoder(config)
    rng = np.random.default_rng(seed)
    query, document = gaussian(seed, m, config.dim), gaussian(seed + 1, n, config.dim)
    document *= rng.uniform(0.1, 3, (n, 1)).astype(np.float32)  # any norms
    dot = float(encoder.encode_query(query) @ encoder.encode_document(document)) / config.r_reps
    similarity = query.astype(np.float64) @ document.T
    slack = 1e-4 * m * config.dim
    assert similarity.min(axis=1).sum() - slack <= dot <= similarity.max(axis=1).sum() + slack


def test_without_fill_the_bound_breaks():  # invariant 7: why documents are filled
    config = FDEConfig(8, r_reps=1, k_sim=6, d_proj=None, normalize=False, fill_empty=False)
    encoder = FDEEncoder(config)
    query = gaussian(0, 1, 8)
    document = -query + 0.1 * gaussian(1, 1, 8)  # all dots negative: an empty partition scores 0, above the maximum
    assert float(encoder.encode_query(query) @ encoder.encode_document(document)) > chamfer(query, document)


@pytest.mark.parametrize("projection", ["orthonormal", "rademacher", "count_sketch"])
def test_projection_is_unbiased_with_the_known_variance(projection):  # invariant 8, section 1.2
    d, p, draws = 32, 8, 3000
    x, y = gaussian(3, 2, d).astype(np.float64)
    matrices = draw(
        FDEConfig(d, r_reps=draws, k_sim=0, d_proj=p, projection=projection, algorithm="muvera-1")
    ).projections
    assert matrices is not None
    products = ((x @ matrices) * (y @ matrices)).sum(axis=-1)
    dense = ((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 * y**2).sum()) / p
    assert abs(products.mean() - x @ y) < 5 * np.sqrt(dense / draws)
    ratio = products.var() / dense
    if projection == "orthonormal":
        assert ratio < 0.95  # about 1 - p / d of the Gaussian's
    else:
        assert 0.85 < ratio < 1.15


def test_final_sketch_is_unbiased_with_at_most_the_count_sketch_variance():  # invariant 8
    sizes = {"dim": 16, "r_reps": 2, "k_sim": 3, "d_proj": None, "normalize": False}
    query, document = gaussian(1, 6, 16), gaussian(2, 9, 16)
    plain = FDEEncoder(FDEConfig(**sizes))
    sketched, bounds, biases = [], [], []
    for seed in range(400):
        full = FDEEncoder(FDEConfig(**sizes, seed=seed))
        a, b = full.encode_query(query).astype(np.float64), full.encode_document(document).astype(np.float64)
        final = FDEEncoder(FDEConfig(**sizes, seed=seed, d_final=64))
        sketched.append(float(final.encode_query(query) @ final.encode_document(document)))
        biases.append(sketched[-1] - a @ b)
        bounds.append(((a @ a) * (b @ b) + (a @ b) ** 2 - 2 * (a**2 * b**2).sum()) / 64)
    assert plain.dim == 2 * 8 * 16
    sd = np.sqrt(np.mean(bounds))
    assert abs(np.mean(biases)) < 5 * sd / np.sqrt(len(biases))
    assert np.std(biases) < 1.15 * sd
    assert np.std(biases) > 0.3 * sd  # it does project


@given(seeds)
def test_estimate_becomes_exact_when_the_query_is_in_the_document(seed):  # invariant 9
    tokens = gaussian(seed, 12, 16)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    query, exact = tokens[:4], 4.0
    gaps = []
    for k in (1, 14):
        encoder = FDEEncoder(FDEConfig(16, r_reps=8, k_sim=k, d_proj=None, normalize=False))
        gaps.append(exact - float(encoder.encode_query(query) @ encoder.encode_document(tokens)) / 8)
    assert gaps[1] < 0.15 * gaps[0]


@given(st.integers(0, 8), seeds, counts)
def test_fast_fill_equals_brute_force(k, seed, n):  # invariant 10
    config = FDEConfig(4, r_reps=3, k_sim=k, d_proj=None, normalize=False)
    tokens = gaussian(seed, n, 4)
    ids = partitions(config, tokens)
    blocks = FDEEncoder(config).encode_document(tokens).reshape(3, config.n_partitions, 4)
    for r in range(3):
        for b in set(range(config.n_partitions)) - set(ids[:, r]):
            np.testing.assert_array_equal(blocks[r, b], tokens[nearest(ids[:, r], b)])


@given(configs(**PLAIN), seeds, counts)
def test_projecting_before_or_after_the_sum_is_the_same(config, seed, n):  # invariant 11
    if config.d_proj is None:
        return
    unprojected = FDEConfig(**{**config.to_dict(), "d_proj": None})
    tokens = gaussian(seed, n, config.dim)
    blocks = FDEEncoder(unprojected).encode_document(tokens).reshape(config.r_reps, config.n_partitions, config.dim)
    matrices = draw(config).projections
    assert matrices is not None
    expected = np.einsum("rbd,rdp->rbp", blocks, matrices).reshape(-1)
    close(FDEEncoder(config).encode_document(tokens), expected)


@given(configs(), seeds, counts)
def test_a_query_touches_at_most_a_partition_per_token(config, seed, m):  # invariant 12
    fde = FDEEncoder(config).encode_query(gaussian(seed, m, config.dim))
    blocks = fde.reshape(config.r_reps, config.n_partitions, config.block_dim)
    assert (blocks.any(axis=2).sum(axis=1) <= min(m, config.n_partitions)).all()


def test_rotating_tokens_and_hyperplanes_keeps_dot_products(rng, monkeypatch):  # invariant 13
    config = FDEConfig(16, r_reps=4, k_sim=4, d_proj=None, normalize=False)
    query, document = gaussian(0, 7, 16), gaussian(1, 20, 16)
    encoder = FDEEncoder(config)
    before = encoder.encode_query(query) @ encoder.encode_document(document)
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    draws = draw(config)
    turned = type(draws)(draws.hyperplanes @ rotation, draws.thresholds, None, None, None)
    monkeypatch.setattr("muvera_core.fde.draw", lambda *_: turned)
    other = FDEEncoder(config)
    after = other.encode_query((query @ rotation).astype(np.float32)) @ other.encode_document(
        (document @ rotation).astype(np.float32)
    )
    assert after == pytest.approx(before, rel=1e-4)


@given(seeds)
def test_a_shift_of_document_values_is_the_same_for_all_documents(seed):  # invariant 14
    config = FDEConfig(16, r_reps=3, k_sim=4, d_proj=None, normalize=False)
    mean = np.full(16, 0.3, np.float32)
    query, documents = gaussian(seed, 5, 16), [gaussian(seed + i, n, 16) for i, n in ((1, 3), (2, 30), (3, 9))]
    fde = FDEEncoder(config).encode_query(query)
    shifts = []
    for tokens in documents:
        blocks = FDEEncoder(config).encode_document(tokens).reshape(3, 16, 16)
        moved = (blocks - mean).reshape(-1)  # the partition's mean of x - mean, filled or not
        shifts.append(float(fde @ moved - fde @ blocks.reshape(-1)))
    np.testing.assert_allclose(shifts, shifts[0], rtol=1e-3, atol=1e-3)
    exact = maxsim(query, documents) - maxsim(query, [(d - mean).astype(np.float32) for d in documents])
    np.testing.assert_allclose(exact, float(query.sum(axis=0) @ mean), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dim", [128, 130])
@given(seeds)
def test_partitions_are_those_of_float64(dim, seed):  # invariant 15
    config = FDEConfig(dim, r_reps=8, k_sim=6, d_proj=None, normalize=False)
    tokens = gaussian(seed, 64, dim)
    # tokens on a hyperplane but for float32 rounding: the signs a float32 product gets wrong
    g = draw(config).hyperplanes[0, 0]
    tokens[:32] -= np.outer(tokens[:32] @ g / (g @ g), g).astype(np.float32)
    sums = FDEEncoder(config).encode_query(tokens).reshape(8, 64, dim)
    ids = partitions(config, tokens)
    for r in range(8):
        for b in range(64):
            close(sums[r, b], tokens[ids[:, r] == b].sum(axis=0, dtype=np.float64), scale=8)


@pytest.mark.parametrize(("cosine", "k"), [(0.9, 4), (0.5, 4), (0.0, 2), (-0.5, 1)])
def test_collision_probability(cosine, k):  # invariant 16: (1 - angle / pi) ** k
    config = FDEConfig(16, r_reps=4000, k_sim=k, d_proj=1, algorithm="muvera-1")
    x = np.zeros((2, 16), np.float32)
    x[0, 0] = 1
    x[1, :2] = cosine, np.sqrt(1 - cosine**2)
    ids = partitions(config, x)
    expected = (1 - np.arccos(cosine) / np.pi) ** k
    sd = np.sqrt(expected * (1 - expected) / 4000)
    assert abs((ids[0] == ids[1]).mean() - expected) < 5 * sd
