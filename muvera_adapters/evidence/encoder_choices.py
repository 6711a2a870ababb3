"""Encoders to try on a sample, each with the code that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from muvera_adapters.stores.shared_direction import FIT_FROM
from muvera_core import Encoder, FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch

#: numbers of dimensions of the FDEs to try
FDE_DIMS = (640, 2_560, 10_240)
REGRESSION_DIMS = (256, 512)
# with so many centres, encoding a document takes a sixth of the time, at nearly the same recall (docs/encoders.md)
_CENTRES = 2_000


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder to try.

    Attributes:
        name: short name for tables.
        code: Python expression that makes the encoder; it may use the variable ``documents``.
        make: function that makes the encoder from the documents.
        travels: whether a collection keeps the whole encoder; if not, the user must save it.
    """

    name: str
    code: str
    make: Callable[[TokenBatch], Encoder]
    travels: bool = True


def default_encoders(documents: TokenBatch, seed: int) -> list[EncoderChoice]:
    """FDEs of three sizes, fitted if the tokens share a direction, and regression encoders of two sizes.

    :func:`diagnose`, :func:`tune` and :func:`recommend` all choose from this list.

    Args:
        documents: documents to choose for; no token may be all zeros.
        seed: seed of the encoders.
    """
    found = []
    fitted = documents.dim > 1 and squared_mean_norm(documents) >= FIT_FROM
    for size in FDE_DIMS:
        config = FDEConfig.of_size(documents.dim, size, float(documents.lengths.mean()), seed=seed)
        # sizes are written out, so that the code makes this encoder even if a later version changes of_size()
        sizes = f"r_reps={config.r_reps}, k_sim={config.k_sim}, d_proj={config.d_proj}"
        text = f"FDEConfig(dim={config.dim}, {sizes}, seed={seed})"
        name, code, make = f"FDE {config.fde_dim:,}", f"FDEEncoder({text})", partial(_plain, config)
        if fitted:
            name, code, make = f"{name}, fitted", f"FDEEncoder.fit({text}, documents)", partial(_fitted, config)
        found.append(EncoderChoice(name, code, make))
    for dim in REGRESSION_DIMS:
        code = f"RegressionEncoder.fit(documents, dim={dim}, seed={seed}, centres={_CENTRES})"
        found.append(EncoderChoice(f"regression {dim:,}", code, partial(_regression, dim, seed), travels=False))
    return found


def squared_mean_norm(documents: TokenBatch) -> float:
    """Squared norm of the mean of the normalised tokens, 0 to 1: how strongly they share a direction."""
    values = documents.values.astype(np.float32)
    mean = (values / np.linalg.norm(values, axis=1, keepdims=True)).mean(axis=0, dtype=np.float64)
    return float(mean @ mean)


def _plain(config: FDEConfig, documents: TokenBatch) -> Encoder:
    return FDEEncoder(config)


def _fitted(config: FDEConfig, documents: TokenBatch) -> Encoder:
    return FDEEncoder.fit(config, documents)


def _regression(dim: int, seed: int, documents: TokenBatch) -> Encoder:
    return RegressionEncoder.fit(documents, dim=dim, seed=seed, centres=_CENTRES)
