"""Indexes of stanford ColBERT (colbert-ai 0.2.x)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.codec import ResidualCodec
from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.source import Document
from muvera_adapters.plaid.torch_file import load_tensors

# tokens decoded at once: 16 MB at 128 dims
_SLICE_TOKENS = 32_768


@dataclass(frozen=True)
class _Chunk:
    number: int
    first_position: int
    lengths: npt.NDArray[np.int64]


class StanfordIndex:
    """A directory written by colbert-ai 0.2.x; see :class:`muvera_adapters.plaid.source.Source`.

    Trusted are the files' own sizes and the lists of document lengths alone: the counts in ``metadata.json`` are wrong
    in many healthy indexes. A length of 0 is a deleted document; the others keep their positions. Memory: the
    centroids and 16 MB of decoded tokens, whatever the size of the index.

    Args:
        directory: of the index.

    Raises:
        IndexDamaged: a file is missing or contradicts another. Tensors' sizes are checked when they are read.
    """

    format = "stanford"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        metadata = self._json("metadata.json")
        count = metadata.get("num_chunks") if isinstance(metadata, dict) else None
        if not isinstance(count, int) or count < 1:
            raise IndexDamaged(directory / "metadata.json", "no number of chunks (num_chunks) in it")
        self._chunks = []
        position = 0
        for number in range(count):
            lengths = self._lengths(number)
            self._chunks.append(_Chunk(number, position, lengths))
            position += len(lengths)

    @property
    def dim(self) -> int:
        """Width of a token vector."""
        return self._codec.dim

    @property
    def n_tokens(self) -> int:
        """Token vectors of all documents."""
        return int(sum(c.lengths.sum() for c in self._chunks))

    def __len__(self) -> int:
        return int(sum(np.count_nonzero(c.lengths) for c in self._chunks))

    def documents(self) -> Iterator[Document]:
        """Documents in order; ``id`` is the passage's position, as in colbert-ai's own results."""
        for chunk in self._chunks:
            codes, residuals = self._tensors(chunk)
            ends = np.cumsum(chunk.lengths)
            i = 0
            while i < len(ends):
                begin = int(ends[i] - chunk.lengths[i])
                j = max(i + 1, int(np.searchsorted(ends, begin + _SLICE_TOKENS, side="right")))
                tokens = self._decode(chunk, codes[begin : ends[j - 1]], residuals[begin : ends[j - 1]])
                for k in range(i, j):
                    if chunk.lengths[k]:
                        rows = tokens[ends[k] - chunk.lengths[k] - begin : ends[k] - begin]
                        position = chunk.first_position + k
                        yield Document(position, position, rows, {})
                i = j

    @cached_property
    def _codec(self) -> ResidualCodec:
        path = self._directory / "centroids.pt"
        centroids = load_tensors(path)
        if not isinstance(centroids, np.ndarray) or centroids.ndim != 2 or centroids.dtype.kind != "f":
            raise IndexDamaged(path, "expected one (centroids, dim) tensor of floats")
        path = self._directory / "buckets.pt"
        buckets = load_tensors(path)
        weights: Any = buckets[1] if isinstance(buckets, tuple | list) and len(buckets) == 2 else None
        nbits = {2: 1, 4: 2, 16: 4, 256: 8}.get(weights.size) if isinstance(weights, np.ndarray) else None
        if nbits is None or weights.ndim != 1 or weights.dtype.kind != "f":
            raise IndexDamaged(path, "expected cut-offs and 2, 4, 16 or 256 bucket weights")
        if not (np.isfinite(weights).all() and np.isfinite(centroids).all()):
            raise IndexDamaged(self._directory, "centroids or bucket weights are NaN or infinite")
        if centroids.shape[1] * nbits % 8:
            raise IndexDamaged(path, f"{nbits} bits times {centroids.shape[1]} dims are no whole bytes")
        return ResidualCodec(centroids, weights, nbits)

    def _tensors(self, chunk: _Chunk) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        codec, expected = self._codec, int(chunk.lengths.sum())
        codes_path = self._directory / f"{chunk.number}.codes.pt"
        codes = load_tensors(codes_path)
        if not isinstance(codes, np.ndarray) or codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise IndexDamaged(codes_path, "expected one tensor of integers")
        residuals_path = self._directory / f"{chunk.number}.residuals.pt"
        residuals = load_tensors(residuals_path)
        width = codec.dim * codec.nbits // 8
        if not isinstance(residuals, np.ndarray) or residuals.dtype != np.uint8 or residuals.shape[1:] != (width,):
            raise IndexDamaged(residuals_path, f"expected an (n, {width}) tensor of bytes")
        for path, rows in ((codes_path, len(codes)), (residuals_path, len(residuals))):
            if rows != expected:
                raise IndexDamaged(
                    path, f"{rows} rows, but doclens.{chunk.number}.json adds up to {expected} tokens: "
                    "an interrupted update, or files of different builds"
                )  # fmt: skip
        return codes, residuals

    def _decode(self, chunk: _Chunk, codes: npt.NDArray[Any], residuals: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        codec = self._codec
        if len(codes) and not 0 <= codes.min() <= codes.max() < codec.n_centroids:
            path = self._directory / f"{chunk.number}.codes.pt"
            raise IndexDamaged(path, f"a code is outside the {codec.n_centroids} centroids: files of different builds")
        return codec.decode(codes, residuals)

    def _lengths(self, number: int) -> npt.NDArray[np.int64]:
        name = f"doclens.{number}.json"
        lengths = self._json(name)
        # updated indexes hold floats: 17.0
        if not isinstance(lengths, list) or not all(
            isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < 2**40 and n == int(n) for n in lengths
        ):
            raise IndexDamaged(self._directory / name, "expected a list of document lengths")
        return np.array(lengths, np.int64)

    def _json(self, name: str) -> Any:
        path = self._directory / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            raise IndexDamaged(path, "the file is missing: an unfinished build, or a partial copy") from None
        except (OSError, ValueError, RecursionError) as error:
            raise IndexDamaged(path, f"no JSON: {error}") from error
