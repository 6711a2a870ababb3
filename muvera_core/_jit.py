"""Compilation of kernels, with the compiled code cached on disk."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

#: files whose code ends up in compiled kernels
SOURCES = ("_layout.py", "_simd.py", "_*kernels.py")


def digest(folder: Path) -> str:
    """Hash of the text of all SOURCES in a folder."""
    files = sorted(file for pattern in SOURCES for file in folder.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_LOG = logging.getLogger("muvera_core")

_DIGEST = digest(Path(__file__).parent)


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache, which here also notices changes of the code that a kernel calls in another file.

    numba itself only looks at the time and size of the kernel's own file and at the kernel's bytecode.
    """

    # the cache only saves time: a full disk, a quota, a damaged file or that of another user must not stop an encoder
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            _not_kept(error)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _DIGEST)


def jit(function: Callable[..., Any]) -> Any:
    """Compiles a kernel at its first call with each combination of argument types; the kernel releases the GIL."""
    # "reassoc" lets plain reductions vectorise; their order is fixed when the code is compiled
    compiled = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})(function)
    try:
        compiled._cache = _Cache(function)
    except (
        RuntimeError,
        OSError,
    ) as error:  # no directory can store the compiled code: a read-only disk, or no home directory
        _not_kept(error)
    return compiled


def _not_kept(error: Exception) -> None:
    _LOG.info("compiled code cannot be cached on disk, so every process compiles for some seconds: %s", error)
