"""Indexes of ColBERT v1 (2020 to 2021), which store token vectors uncompressed; written from its source code."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from muvera_adapters.plaid.chunks import Chunk, ChunkedIndex, Float32, Labels, Rows
from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.files import read_lengths, require_file
from muvera_adapters.plaid.pickles import load_plain
from muvera_adapters.plaid.residuals import forget
from muvera_adapters.plaid.torch_file import load_tensors
from muvera_adapters.results import DocumentId

# maximum number of bytes of the unpacked list of ids: some per document, and some more
_ID_BYTES, _MAX_IDS_BYTES = 1_024, 1 << 30


def open_colbert_v1(directory: Path, *, own_ids: bool = True) -> ChunkedIndex:
    """Opens a directory written by ColBERT v1 or PyTerrier; not tested with a real one.

    Vectors are returned as they are stored, as float32. Ids are positions, or PyTerrier's ``docnos.pkl.gz``.

    Args:
        directory: directory of the index.
        own_ids: whether to read PyTerrier's ids; False: positions are the ids.

    Raises:
        IndexDamaged: a file is missing or contradicts another.
    """
    numbers = sorted(int(p.stem) for p in directory.glob("*.pt") if p.stem.isdecimal())
    chunks, dim = [], 0
    for number in range(max(numbers) + 1):
        lengths = read_lengths(directory / f"doclens.{number}.json")
        read = partial(_rows, directory / f"{number}.pt", int(lengths.sum()), dim)
        dim = read()(0, 0).shape[1]
        chunks.append(Chunk(lengths, read))
    index = ChunkedIndex("colbert-v1", dim, chunks)
    path = directory / "docnos.pkl.gz"
    return index.with_labels(_labels(path, len(index.lengths))) if own_ids and path.exists() else index


def _rows(path: Path, n_tokens: int, dim: int) -> Rows:
    """Rows of one chunk; ``dim`` is that of the chunks before, 0 for the first."""
    found = load_tensors(path)
    parts: list[Any] = list(found) if isinstance(found, tuple | list) else [found]
    if not parts or not all(isinstance(p, np.ndarray) and p.ndim == 2 and p.dtype.kind == "f" for p in parts):
        raise IndexDamaged(path, "expected one (n, dim) tensor of floats, or a list of them")
    width = dim or parts[0].shape[1]
    if not width or any(p.shape[1] != width for p in parts):
        raise IndexDamaged(path, f"expected rows of {width} dims everywhere")
    ends = np.cumsum([len(p) for p in parts])
    if ends[-1] != n_tokens:
        raise IndexDamaged(path, f"{ends[-1]} rows, but doclens.{path.stem}.json adds up to {n_tokens} tokens")

    def rows(begin: int, end: int) -> Float32:
        pieces = [
            part[max(0, begin - start) : max(0, end - start)]
            for part, start in zip(parts, [0, *ends[:-1].tolist()], strict=True)
        ]
        tokens = np.concatenate(pieces).astype(np.float32)
        for part in parts:
            forget(part)
        if not np.isfinite(tokens).all():
            raise IndexDamaged(path, "a vector is NaN or infinite")
        return tokens

    return rows


def _labels(path: Path, n_documents: int) -> Labels:
    limit = min(_MAX_IDS_BYTES, _ID_BYTES * (n_documents + 64))
    try:
        with gzip.open(require_file(path)) as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise IndexDamaged(path, f"cut short, or not gzipped: {error}") from error
    if len(data) > limit:
        raise IndexDamaged(path, f"more than {limit} bytes unpacked, too many for the ids of {n_documents} documents")
    found = load_plain(path, data)
    if not isinstance(found, list) or not all(isinstance(i, str) for i in found):
        raise IndexDamaged(path, "expected a list of strings")
    if len(found) != n_documents or len(set(found)) != len(found):
        raise IndexDamaged(
            path, f"{len(found)} ids, {len(set(found))} of them different, but the index has {n_documents} documents; "
            "pass ids= with the right ones"
        )  # fmt: skip

    def ids() -> Iterator[DocumentId]:
        return iter(found)

    return Labels(ids)
