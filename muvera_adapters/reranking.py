"""MaxSim with tokens that others stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core import InvalidTokens, maxsim


def maxsim_of_stored(query: npt.NDArray[np.float32], matrices: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """(n,) scores of a query (m, dim) with (n_i, dim) matrices.

    Tokens that others stored may be all zeros (padding), which databases score as they are.
    """
    if not len(matrices):
        return np.empty(0, np.float32)
    try:
        return maxsim(query, matrices)
    except InvalidTokens:
        return np.array([(query @ m.T).max(axis=1).sum() for m in matrices], np.float32)
