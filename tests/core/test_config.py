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


def test_survives_json():
    for config in (FDEConfig(64), FDEConfig(64, d_proj=None, d_final=500, fill_empty=False), FDEConfig.fastembed(64)):
        again = FDEConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert again.fingerprint == config.fingerprint


def test_fingerprint_changes_with_everything():
    changes = [
        {}, {"dim": 127}, {"r_reps": 19}, {"k_sim": 4}, {"d_proj": 15}, {"d_proj": None}, {"seed": 43},
        {"algorithm": "muvera-1"}, {"algorithm": "muvera-1", "projection": "rademacher"},
        {"algorithm": "muvera-1", "projection": "count_sketch"}, {"fill_empty": False}, {"normalize": False},
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
    with pytest.raises(ValueError, match="fastembed refuses"):
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
        ({"projection": "rademacher"}, ValueError, "not possible with algorithm='muvera-2'"),
        ({"projection": "gaussian"}, ValueError, "projection must be one of"),
        ({"algorithm": "muvera-0"}, ValueError, "algorithm must be one of"),
        ({"normalize": 1}, TypeError, "normalize must be True or False"),
        ({"d_final": 8}, ValueError, "d_final=8 must be between the 16"),
        ({"d_final": 20_000}, ValueError, "and the 10240"),
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
