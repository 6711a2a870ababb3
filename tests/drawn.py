"""Vectors and configurations drawn at random."""

import numpy as np
from hypothesis import strategies as st

from muvera_core import FDEConfig


def gaussian(seed, n, dim):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@st.composite
def configs(draw_, **fixed):
    dim = draw_(st.sampled_from([3, 8, 16, 33, 64, 130]))
    algorithm = fixed.get("algorithm") or draw_(st.sampled_from(["muvera-2", "muvera-1"]))
    sizes = {
        "dim": dim,
        "r_reps": draw_(st.integers(1, 4)),
        "k_sim": draw_(st.integers(0, 6)),
        "d_proj": draw_(st.sampled_from([None, 1, min(dim, 5), min(dim, 16)])),
        "algorithm": algorithm,
        "projection": draw_(st.sampled_from(["orthonormal", "rademacher", "count_sketch"])),
        "seed": draw_(st.integers(0, 2**32)),
        "fill_empty": draw_(st.booleans()),
        "normalize": draw_(st.booleans()),
    }
    return FDEConfig(**{**sizes, **fixed})
