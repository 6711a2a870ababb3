"""A slow and obvious implementation, straight from the definition (MUVERA, section 2), in float64."""

import numpy as np

from muvera_core import FDEConfig
from muvera_core._draws import draw


def partitions(config: FDEConfig, tokens, mean=None):
    """(n, r_reps) partition of every token; bit j of it is the side of hyperplane j."""
    draws = draw(config, mean)
    ids = np.zeros((len(tokens), config.r_reps), dtype=int)
    for r in range(config.r_reps):
        for j in range(config.k_sim):
            side = tokens.astype(np.float64) @ draws.hyperplanes[r, j] > draws.thresholds[r, j]
            ids[:, r] += side.astype(int) << j
    return ids


def encode(config: FDEConfig, tokens, *, query: bool, mean=None):
    """The FDE of one matrix."""
    draws = draw(config, mean)
    tokens = np.asarray(tokens, np.float64)
    ids = partitions(config, tokens, mean)
    out = np.zeros(config.fde_dim)
    for r in range(config.r_reps):
        for b in range(config.n_partitions):
            members = np.flatnonzero(ids[:, r] == b)
            if len(members):
                block = tokens[members].sum(axis=0) if query else tokens[members].mean(axis=0)
            elif query or not config.fill_empty:
                block = np.zeros(config.dim)
            else:
                block = tokens[nearest(ids[:, r], b, by_partition=config.algorithm == "fastembed-1")]
            if draws.projections is not None:
                block = block @ draws.projections[r]
            if config.d_final is None:
                at = (r * config.n_partitions + b) * config.block_dim
                out[at : at + config.block_dim] = block
            else:
                assert draws.shifts is not None
                assert draws.signs is not None
                for e, value in enumerate(block):
                    out[(draws.shifts[r, b] + e) % config.d_final] += draws.signs[r, b, e] * value
    if config.normalize and not query:
        out /= np.linalg.norm(out)
    return out


def nearest(ids, b, *, by_partition=False):
    """Index of the token nearest to partition b in Hamming distance; ties: the first token, or the lowest partition."""
    return min(range(len(ids)), key=lambda t: (bin(ids[t] ^ b).count("1"), ids[t] if by_partition else 0, t))


def chamfer(query, document):
    """Sum over query tokens of the largest dot product."""
    return float(sum(max(float(q @ x) for x in document) for q in np.asarray(query, np.float64)))
