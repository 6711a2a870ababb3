"""The orthogonal draws of "muvera-2": what their matrices and the estimates made of them must fulfil."""

import numpy as np
import pytest

from muvera_core import FDEConfig, FDEEncoder
from muvera_core._draws import draw
from tests.core import reference
from tests.drawn import gaussian

DIMS = [pytest.param(64, id="fast"), pytest.param(48, id="uniform"), pytest.param(13, id="odd")]


def unit_hyperplanes(config):
    rows = draw(config).hyperplanes.reshape(-1, config.dim)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("k", [3, 5, 16])
def test_hyperplanes_are_the_rows_of_rotations(dim, k):
    rows = unit_hyperplanes(FDEConfig(dim, r_reps=2 * dim // k + 3, k_sim=k, d_proj=4))
    assert len(rows) > 2 * dim
    for start in range(0, len(rows), dim):
        rotation = rows[start : start + dim]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(rotation)), atol=1e-12)
    assert np.abs(rows[:dim] @ rows[dim : 2 * dim].T).max() < 0.999  # the next rotation is another one


def test_fast_hyperplanes_are_integers():
    """No machine may round their float64 dot products differently."""
    planes = draw(FDEConfig(128, r_reps=40, k_sim=3, d_proj=8)).hyperplanes
    np.testing.assert_array_equal(planes, np.rint(planes))
    np.testing.assert_array_equal(planes.reshape(-1, 128) @ planes.reshape(-1, 128).T, 128.0**3 * np.eye(120))


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("d_proj", [1, 5, 8])
def test_projections_are_disjoint_parts_of_rotations(dim, d_proj):
    shared = dim // d_proj
    matrices = draw(FDEConfig(dim, r_reps=2 * shared + 1, k_sim=1, d_proj=d_proj)).projections * np.sqrt(d_proj / dim)
    for start in range(0, len(matrices), shared):
        together = np.concatenate(list(matrices[start : start + shared]), axis=1)
        np.testing.assert_allclose(together.T @ together, np.eye(together.shape[1]), atol=1e-12)


@pytest.mark.parametrize("d_proj", [40, 64])
def test_wide_projections_have_a_rotation_each(d_proj):
    matrices = draw(FDEConfig(64, r_reps=3, k_sim=1, d_proj=d_proj)).projections
    for matrix in matrices:
        np.testing.assert_allclose(matrix.T @ matrix, 64 / d_proj * np.eye(d_proj), atol=1e-12)
    assert np.abs(matrices[0] - matrices[1]).max() > 0.1


@pytest.mark.parametrize("dim", DIMS)
def test_fitted_projections_keep_the_mean_and_are_disjoint_besides(dim):
    mean = gaussian(3, 1, dim)[0]
    matrices = draw(FDEConfig(dim, r_reps=6, k_sim=2, d_proj=3), mean).projections
    direction = mean / np.linalg.norm(mean)
    for matrix in matrices:
        np.testing.assert_allclose(matrix[:, 0], direction, atol=1e-6)
        np.testing.assert_allclose(direction @ matrix[:, 1:], 0, atol=1e-6)
    np.testing.assert_allclose(matrices[0][:, 1:].T @ matrices[1][:, 1:], 0, atol=1e-12)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("d_proj", [None, 4, 40])
def test_fewer_repetitions_are_a_prefix(dim, d_proj):
    if d_proj is not None and d_proj > dim:
        return
    tokens = gaussian(1, 30, dim)
    for k in (3, 7):
        long, short = (FDEEncoder(FDEConfig(dim, r, k, d_proj, normalize=False)) for r in (23, 11))
        for name in ("encode_document", "encode_query"):
            np.testing.assert_array_equal(getattr(short, name)(tokens), getattr(long, name)(tokens)[: short.dim])


def test_seeds_repetitions_and_algorithms_share_nothing():
    sizes = {"r_reps": 60, "k_sim": 3, "d_proj": 8}
    configs = [FDEConfig(64, **sizes, **o) for o in ({}, {"seed": 43}, {"algorithm": "muvera-1"})]
    rows = np.concatenate([unit_hyperplanes(config) for config in configs])
    dots = np.abs(rows @ rows.T) - np.eye(len(rows))
    assert dots.max() < 0.8  # of 146,000 random pairs in 64 dimensions some reach .6
    assert len({config.fingerprint for config in configs}) == 3


@pytest.mark.parametrize("dim", [64, 128, 48])
@pytest.mark.parametrize("cosine", [0.9, 0.5, 0.0, -0.5])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_hyperplane_separates_as_a_gaussian_one(dim, cosine, kind):
    """P(same side) = 1 - angle / pi. Sparse vectors are the hardest for sign flips."""
    x = np.zeros((2, dim))
    x[0, 0] = 1
    x[1, :2] = cosine, np.sqrt(1 - cosine**2)
    if kind == "dense":
        x = x @ np.linalg.qr(gaussian(0, dim, dim))[0]
    n = 6000
    sides = draw(FDEConfig(dim, r_reps=n, k_sim=1, d_proj=None)).hyperplanes[:, 0] @ x.T > 0
    expected = 1 - np.arccos(cosine) / np.pi
    assert abs((sides[:, 0] == sides[:, 1]).mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


@pytest.mark.parametrize("dim", DIMS)
def test_a_projection_alone_has_the_variance_of_independent_ones(dim):
    x, y = gaussian(3, 2, dim).astype(np.float64)
    errors = {}
    for algorithm in ("muvera-2", "muvera-1"):
        config = FDEConfig(dim, r_reps=4000, k_sim=0, d_proj=4, algorithm=algorithm)
        matrices = draw(config).projections
        errors[algorithm] = ((x @ matrices) * (y @ matrices)).sum(axis=1) - x @ y
    deviation = errors["muvera-1"].std()
    assert abs(errors["muvera-2"].mean()) < 5 * deviation / np.sqrt(4000)
    assert errors["muvera-2"].std() == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize("dim", [64, 48])
def test_a_whole_rotation_of_projections_has_no_error(dim):
    """The repetitions that share a rotation keep everything together: without partitions the estimate is exact."""
    encoder = FDEEncoder(FDEConfig(dim, r_reps=dim // 8, k_sim=0, d_proj=8, normalize=False))
    query, document = gaussian(1, 5, dim), gaussian(2, 9, dim)
    exact = dim // 8 * float(query.sum(axis=0) @ document.mean(axis=0))
    assert float(encoder.encode_query(query) @ encoder.encode_document(document)) == pytest.approx(exact, abs=1e-2)


@pytest.mark.parametrize("dim", [64, 24])
def test_projecting_is_unbiased_and_varies_less_than_independently(dim):
    """Over 200 seeds: the projected estimate less the unprojected one, which has the same partitions."""
    query, document = gaussian(1, 6, dim), gaussian(2, 30, dim)
    spread = {}
    for algorithm in ("muvera-2", "muvera-1"):
        errors = []
        for seed in range(200):
            sizes = {"r_reps": 6, "k_sim": 1, "seed": seed, "normalize": False, "algorithm": algorithm}
            dots = []
            for d_proj in (4, None):
                encoder = FDEEncoder(FDEConfig(dim, d_proj=d_proj, **sizes), threads=1)
                dots.append(float(encoder.encode_query(query) @ encoder.encode_document(document)))
            errors.append(dots[0] - dots[1])
        spread[algorithm] = np.std(errors)
        assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(200)
    assert spread["muvera-2"] < spread["muvera-1"]


@pytest.mark.parametrize("algorithm", ["muvera-2", "muvera-1"])
@pytest.mark.parametrize("k", [0, 2, 5])
def test_unprojected_estimates_never_exceed_maxsim(algorithm, k):
    """Lemma A.3: for every partition whatever, and so for orthogonal hyperplanes too."""
    for seed in range(30):
        encoder = FDEEncoder(FDEConfig(64, 7, k, None, seed=seed, normalize=False, algorithm=algorithm), threads=1)
        query, document = gaussian(seed, 8, 64), gaussian(seed + 1, 3 + 5 * seed, 64)
        dot = float(encoder.encode_query(query) @ encoder.encode_document(document))
        assert dot <= 7 * reference.chamfer(query, document) + 1e-2


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e32, 1e36])
def test_partitions_are_right_at_any_scale_of_tokens(scale):
    """Where sums of a transform would overflow float32, sides are decided in float64."""
    config = FDEConfig(64, r_reps=9, k_sim=4, d_proj=None, normalize=False)
    tokens = gaussian(1, 21, 64) * np.float32(scale)
    expected = reference.encode(config, tokens, query=True)
    np.testing.assert_allclose(FDEEncoder(config).encode_query(tokens), expected, rtol=1e-3, atol=1e-5 * expected.max())
