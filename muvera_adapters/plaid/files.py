"""Files that the formats share: JSON, lists of document lengths, numbered chunks."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning

Int64 = npt.NDArray[np.int64]

# maximum size of a JSON file; the largest seen, the lengths of 9 million documents in one list, has 30 MB
_MAX_JSON_BYTES = 1 << 30


#: directories in an index of PyLate that contain an index of another library
INNER_FOLDERS = ("fast_plaid_index", "warp_index")

# not lock files, which libraries leave behind even when they only read, nor other files in the directory: queries, a
# collection or the journal of a migration
_INDEX_FILES = re.compile(
    r"\d+\.((codes|residuals|passage_ids)\.(pt|npy)|metadata\.json|pt)|doclens\.\d+\.(json|npy)"
    r"|(centroids|buckets|avg_residual|ivf|ivf\.pid|ivf_lengths|bucket_weights|bucket_cutoffs|cluster_threshold)\.(pt|npy)"
    r"|(sizes|codes|residuals|residuals\.repacked|tails|offsets)\.compacted\.pt|(deleted_)?pids\.npy"
    r"|merged_\w+\.(npy|manifest\.json)|(embeddings|buffer)(_lengths|_info)?\.(npy|json)"
    r"|(metadata|plan|build_state|pid_docid_map|docid_metadata_map|collection)\.json|metadata\.(db|duckdb)"
    r"|(plaid|warp)_ids_to_documents_ids\.\w+|documents_ids_to_(plaid|warp)_ids\.\w+|docnos\.pkl\.gz"
)


def is_index_file(name: str) -> bool:
    """Whether an index of one of the formats has files of this name."""
    return _INDEX_FILES.fullmatch(name) is not None


def require_file(path: Path) -> Path:
    """The path itself.

    Raises:
        IndexDamaged: the path is missing, not a file (opening a pipe would wait forever), or not readable.
    """
    if not path.exists():
        raise IndexDamaged(path, "the file is missing: an unfinished build, or a partial copy")
    if not path.is_file():
        raise IndexDamaged(path, "expected a file")
    if not os.access(path, os.R_OK):
        raise IndexDamaged(path, "no permission to read it")
    return path


def read_json(path: Path) -> Any:
    """Parses one JSON file.

    Raises:
        IndexDamaged: the file is missing, larger than 1 GB, or not valid JSON.
    """
    size = require_file(path).stat().st_size
    if size > _MAX_JSON_BYTES:
        raise IndexDamaged(path, f"{size} bytes, too many for this file")
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IndexDamaged(path, f"not valid JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Parses a JSON file that must hold one object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise IndexDamaged(path, "expected one JSON object")
    return value


def read_metadata(directory: Path) -> tuple[dict[str, Any], int]:
    """The object in ``metadata.json``, which builds write last, and its number of chunks; newer chunks are ignored.

    Raises:
        IndexDamaged: the file is missing, or has no ``num_chunks``.
    """
    path = directory / "metadata.json"
    if not path.exists() and (directory / "plan.json").exists():
        planned = read_object(directory / "plan.json").get("num_chunks")
        done = len(_chunk_numbers(directory))
        raise IndexDamaged(path, f"the file is missing: an unfinished build, {done} of {planned} chunks are there")
    metadata = read_json(path)
    count = metadata.get("num_chunks") if isinstance(metadata, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise IndexDamaged(path, "the number of chunks (num_chunks) is missing or not valid")
    extra = sorted(n for n in _chunk_numbers(directory) if n >= count)
    if extra:
        warnings.warn(
            f"{directory}: ignored the files of chunk {extra[0]} and later; metadata.json has {count} chunks "
            "(an update that was interrupted, or files of an older index)",
            IndexWarning,
            stacklevel=2,
        )
    return metadata, count


def _chunk_numbers(directory: Path) -> set[int]:
    found = (re.fullmatch(r"(\d{1,9})\.codes\.(?:pt|npy)|doclens\.(\d{1,9})\.\w+", p.name) for p in directory.iterdir())
    return {int(m[1] or m[2]) for m in found if m}


def read_lengths(path: Path) -> Int64:
    """(n,) numbers of tokens per document, from a JSON list."""
    lengths = read_json(path)
    # updated indexes hold floats: 17.0
    if not isinstance(lengths, list) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < 2**40 and n == int(n) for n in lengths
    ):
        raise IndexDamaged(path, "expected a list of document lengths")
    return np.array(lengths, np.int64)
