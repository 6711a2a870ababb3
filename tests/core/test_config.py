import json

import numpy as np
import pytest

from muvera_core import FDEConfig


def test_sizes():
    config = FDEConfig(dim=128, r_reps=20, k_sim=5, d_proj=16, seed=42)
    assert (config.n_partitions, config.block_dim, config.fde_dim) == (32, 16, 10240)
    assert FDEConfig(128, r_reps=10, k_sim=4, d_proj=None).fde_dim == 10 * 16 * 128
    final = FDEConfig(128, r_reps=40, k_sim=6, d_proj=None, d_final=10240)
    assert (final.unprojected_dim, final.fde_dim) == (327_680, 10240)
    default = FDEConfig(dim=128)
    assert (default.r_reps, default.k_sim, default.d_proj, default.fde_dim) == (40, 3, 8, 2560)
    assert FDEConfig(8).fde_dim == 2560
    with pytest.raises(ValueError, match=r"d_proj=8 is larger than dim=7: .* use d_proj=None to keep all 7"):
        FDEConfig(7)


SIZES = [160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920]


@pytest.mark.parametrize(
    ("tokens", "k_sims"),
    [
        (None, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (60, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (200, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (200.1, [1, 1, 2, 2, 3, 4, 5, 5, 5, 5]),
        (500, [1, 1, 2, 2, 3, 4, 5, 5, 5, 5]),
        (59.9, [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]),
        (500.1, [1, 1, 2, 3, 4, 5, 5, 5, 5, 5]),
    ],
)
def test_of_size(tokens, k_sims):
    configs = [FDEConfig.of_size(128, size, tokens) for size in SIZES]
    assert [c.fde_dim for c in configs] == SIZES
    assert [c.k_sim for c in configs] == k_sims
    assert {c.d_proj for c in configs} == {8}


def test_of_size_is_the_default_at_its_size():
    for dim in (9, 16, 96, 128):
        assert FDEConfig.of_size(dim, 2560) == FDEConfig(dim)
    config = FDEConfig.of_size(128, 640, tokens=np.float64(120), seed=7, normalize=False, algorithm="muvera-1")
    assert config == FDEConfig(128, 20, 2, 8, seed=7, normalize=False, algorithm="muvera-1")
    assert FDEConfig.of_size(np.int64(128), np.int32(640)).fingerprint == FDEConfig.of_size(128, 640).fingerprint


@pytest.mark.parametrize("tokens", [None, 20, 62, 300, 900])
@pytest.mark.parametrize("dim", [1, 3, 8, 128])
def test_of_size_stays_just_below_the_dimensions_asked_for(dim, tokens):
    block = min(dim, 8)
    before = FDEConfig.of_size(dim, 20 * block, tokens)
    for size in range(20 * block, 12_000, 7):
        config = FDEConfig.of_size(dim, size, tokens)
        assert (config.block_dim, config.d_proj) == (block, None if dim <= 8 else 8)
        assert 0 <= size - config.fde_dim < config.n_partitions * block
        assert config.fde_dim >= before.fde_dim
        assert config.k_sim >= before.k_sim
        assert config.r_reps >= (10 if config.k_sim == 1 else 20)
        before = config


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fde_dim": 159}, ValueError, r"fde_dim=159 .* at least 160 dimensions, or a RegressionEncoder"),
        ({"fde_dim": 59, "dim": 3}, ValueError, "at least 60 dimensions"),
        ({"fde_dim": -1}, ValueError, "fde_dim=-1"),
        ({"fde_dim": 1 << 25}, ValueError, "at most 16777216"),
        ({"fde_dim": 640.0}, TypeError, "fde_dim must be an integer"),
        ({"fde_dim": True}, TypeError, "fde_dim must be an integer"),
        ({"tokens": 0}, ValueError, "tokens must be a positive number"),
        ({"tokens": float("nan")}, ValueError, "tokens must be a positive number"),
        ({"dim": 0}, ValueError, "dim must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"k_sim": 2, "d_final": 100}, TypeError, r"got d_final, k_sim; give them to FDEConfig\(\)"),
    ],
)
def test_of_size_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        FDEConfig.of_size(**{"dim": 128, "fde_dim": 640, **arguments})


def test_survives_json():
    for config in (FDEConfig(64), FDEConfig(64, d_proj=None, d_final=500, fill_empty=False), FDEConfig.fastembed(64)):
        again = FDEConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert again.fingerprint == config.fingerprint


def test_fingerprint_changes_with_everything():
    changes = [
        {}, {"dim": 127}, {"r_reps": 39}, {"k_sim": 4}, {"d_proj": 7}, {"d_proj": None}, {"seed": 43},
        {"algorithm": "muvera-1"}, {"projection": "rademacher"}, {"projection": "count_sketch"},
        {"fill_empty": False}, {"normalize": False},
        {"d_final": 1000}, {"algorithm": "fastembed-1"},
    ]  # fmt: skip
    prints = {FDEConfig(**{"dim": 128, **change}).fingerprint for change in changes}
    assert len(prints) == len(changes)
    assert all(len(p) == 32 and int(p, 16) >= 0 for p in prints)


def test_fingerprint_is_stable():
    """What stored collections hold: a change needs a new algorithm version."""
    sizes = {"r_reps": 20, "k_sim": 5, "d_proj": 16}
    assert FDEConfig(128, **sizes, algorithm="muvera-1").fingerprint == "e0c4464fe7f4f41f948d9385bd3abfd2"
    assert FDEConfig(128, **sizes).fingerprint == "032feb18cd3545b4054c48b9c6f3222b"


def test_numpy_integers_are_plain_afterwards():
    config = FDEConfig(np.int64(64), r_reps=np.int32(3))
    assert config.fingerprint == FDEConfig(64, r_reps=3).fingerprint
    json.dumps(config.to_dict())


def test_fastembed():
    config = FDEConfig.fastembed(128, k_sim=4, dim_proj=8, r_reps=10, random_seed=1)
    assert (config.k_sim, config.d_proj, config.r_reps, config.seed, config.normalize) == (4, 8, 10, 1, False)
    assert FDEConfig.fastembed(16).d_proj is None  # dim_proj == dim: fastembed does not project
    with pytest.raises(ValueError, match="fastembed does not allow"):
        FDEConfig.fastembed(8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 0}, ValueError, "dim must be at least 1"),
        ({"dim": "128"}, TypeError, "dim must be an integer"),
        ({"dim": 12.0}, TypeError, "dim must be an integer"),
        ({"r_reps": 0}, ValueError, "r_reps must be at least 1"),
        ({"r_reps": True}, TypeError, "r_reps must be an integer"),
        ({"k_sim": -1}, ValueError, "k_sim must be at least 0"),
        ({"k_sim": 17}, ValueError, "at most 16"),
        ({"d_proj": 0}, ValueError, "d_proj must be at least 1"),
        ({"d_proj": 129}, ValueError, "larger than dim=128"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": None}, TypeError, "seed must be an integer"),
        ({"projection": "gaussian"}, ValueError, "projection must be one of"),
        ({"algorithm": "muvera-0"}, ValueError, "algorithm must be one of"),
        ({"normalize": 1}, TypeError, "normalize must be True or False"),
        ({"d_final": 7}, ValueError, "d_final=7 must be between the 8"),
        ({"d_final": 20_000}, ValueError, "and the 2560"),
        ({"k_sim": 16, "d_proj": None}, ValueError, "at most 16777216"),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        FDEConfig(**{"dim": 128, **arguments})


def test_from_dict_names_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"unknown keys rotation.*keys are algorithm"):
        FDEConfig.from_dict({"dim": 8, "rotation": 1})
    with pytest.raises(ValueError, match="no key 'dim'"):
        FDEConfig.from_dict({})
