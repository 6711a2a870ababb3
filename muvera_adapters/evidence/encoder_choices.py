"""Encoders that tuning tries, each with the code that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

#: r_reps, k_sim, d_proj of 1,280 to 10,240 dimensions
FDE_SIZES = ((10, 4, 8), (20, 4, 8), (20, 5, 8), (20, 5, 16))
REGRESSION_DIMS = (256, 512, 1024)


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder that :func:`tune` tries.

    Attributes:
        name: short name for tables.
        code: Python expression that makes the encoder; it may use the variable ``documents``.
        make: function that makes the encoder from the documents.
    """

    name: str
    code: str
    make: Callable[[TokenBatch], Encoder]


def default_encoders(token_dim: int, seed: int) -> list[EncoderChoice]:
    """FDEs of four sizes, plain and fitted, and regression encoders of three."""
    found = []
    for r_reps, k_sim, d_proj in FDE_SIZES:
        width = min(d_proj, token_dim)
        config = FDEConfig(token_dim, r_reps=r_reps, k_sim=k_sim, d_proj=width, seed=seed)
        text = f"FDEConfig(dim={token_dim}, r_reps={r_reps}, k_sim={k_sim}, d_proj={width}, seed={seed})"
        found.append(EncoderChoice(f"FDE {config.fde_dim:,}", f"FDEEncoder({text})", partial(_plain, config)))
        if width > 1:
            name = f"FDE {config.fde_dim:,}, fitted"
            found.append(EncoderChoice(name, f"FDEEncoder.fit({text}, documents)", partial(_fitted, config)))
    for dim in REGRESSION_DIMS:
        code = f"RegressionEncoder.fit(documents, dim={dim}, seed={seed})"
        found.append(EncoderChoice(f"regression {dim:,}", code, partial(_regression, dim, seed)))
    return found


def _plain(config: FDEConfig, documents: TokenBatch) -> Encoder:
    return FDEEncoder(config)


def _fitted(config: FDEConfig, documents: TokenBatch) -> Encoder:
    return FDEEncoder.fit(config, documents)


def _regression(dim: int, seed: int, documents: TokenBatch) -> Encoder:
    return RegressionEncoder.fit(documents, dim=dim, seed=seed)
