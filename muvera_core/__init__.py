"""MUVERA Fixed Dimensional Encodings (FDEs): one vector for each document, whose dot products approximate MaxSim."""

import logging

from muvera_core.config import FDEConfig
from muvera_core.encoder import Encoder, encoder_from_dict, load_encoder
from muvera_core.fde import FDEEncoder
from muvera_core.pooling import pool_tokens
from muvera_core.query_fit import FitReport, QueryFit
from muvera_core.regression import RegressionEncoder
from muvera_core.scoring import maxsim
from muvera_core.tokens import InvalidTokens, TokenBatch

__all__ = [
    "Encoder",
    "FDEConfig",
    "FDEEncoder",
    "FitReport",
    "InvalidTokens",
    "QueryFit",
    "RegressionEncoder",
    "TokenBatch",
    "encoder_from_dict",
    "load_encoder",
    "maxsim",
    "pool_tokens",
]

logging.getLogger("muvera_core").addHandler(logging.NullHandler())
