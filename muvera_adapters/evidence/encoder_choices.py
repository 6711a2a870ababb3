"""Encoders that tuning tries, each with the code that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

FDE_DIMS = (640, 1280, 2560, 5120, 10240)
REGRESSION_DIMS = (512, 1024, 2048)


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


def default_encoders(token_dim: int, seed: int, tokens: float | None = None) -> list[EncoderChoice]:
    """FDEs of five sizes, plain and fitted, and regression encoders of three.

    Args:
        token_dim: width of a token vector.
        seed: seed of all encoders.
        tokens: typical number of tokens of a document, which ``FDEConfig.of_size`` takes into account.
    """
    found = []
    for fde_dim in FDE_DIMS:
        config = FDEConfig.of_size(token_dim, fde_dim, tokens, seed=seed)
        # the sizes themselves: the code makes this encoder even where the rule of of_size() changes
        sizes = f"r_reps={config.r_reps}, k_sim={config.k_sim}, d_proj={config.d_proj}"
        text = f"FDEConfig(dim={token_dim}, {sizes}, seed={seed})"
        found.append(EncoderChoice(f"FDE {config.fde_dim:,}", f"FDEEncoder({text})", partial(_plain, config)))
        if config.block_dim > 1:
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
