"""Compiles the kernels that an application uses, while its image is built; see docs/containers.md.

python examples/precompile.py [ENCODER.npz ...]
"""

from __future__ import annotations

import sys

import numpy as np

from muvera_core import FDEConfig, FDEEncoder, load_encoder, maxsim

# the application's encoder: kernels are compiled for the options that it uses
encoders = [load_encoder(path) for path in sys.argv[1:]] or [FDEEncoder(FDEConfig(dim=128))]
for encoder in encoders:
    for dtype in (np.float32, np.float16):  # what models emit
        tokens = np.eye(16, encoder.token_dim, dtype=dtype)
        encoder.encode_query(tokens)
        encoder.encode_queries([tokens] * 64)
        encoder.encode_documents([tokens] * 64)
        maxsim(tokens, [tokens] * 64)  # rerank="client" and exact_search
print(f"compiled for {len(encoders)} encoder(s)")
