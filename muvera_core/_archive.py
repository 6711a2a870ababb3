"""The files of saved encoders and fits: a JSON description and plain arrays in one .npz file, without pickle."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: exceptions when a file is read that is damaged or of another kind
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
)


def write(
    path: str | os.PathLike[str], kind: str, content: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Writes a file, replacing it atomically; ``kind`` is the name of the description in it."""
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    description = np.frombuffer(json.dumps(content).encode(), np.uint8)
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **{kind: description}, **arrays)
    os.replace(partial, path)


def read(path: str | os.PathLike[str], kind: str) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """Reads the description and the arrays of a file; nothing in it is executed. Raises one of ``DAMAGED``."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(bytes(arrays.pop(kind))), arrays
