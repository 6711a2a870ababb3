"""A PLAID index as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid import open_index
from muvera_adapters.plaid.files import INNER_FOLDERS, is_index_file, read_json
from muvera_adapters.sources.base import SourceDocument
from muvera_adapters.stores.token_model import TokenModel


class PlaidSource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`.

    Arguments and errors are those of :func:`muvera_adapters.plaid.open_index`.
    """

    seekable = True

    def __init__(
        self, path: Path, *, ids: Path | None = None, texts: Path | None = None, originals: bool = True
    ) -> None:
        self.index = open_index(path, ids=ids, texts=texts, originals=originals)
        self.format = self.index.format + ("" if originals else ", originals left out")
        self.dim, self.place = self.index.dim, str(path)
        self.n_tokens: int | None = self.index.n_tokens
        self.n_positions = len(self.index.lengths)
        self.lengths: npt.NDArray[np.int64] | None = self.index.lengths
        folders = [path, *(path / name for name in INNER_FOLDERS)]
        inside = sorted(p for f in folders if f.is_dir() for p in f.iterdir() if is_index_file(p.name) and p.is_file())
        self.model = _checkpoint(path)
        self.files: Sequence[Path] = (*inside, *(p for p in (ids, texts) if p is not None))

    def __len__(self) -> int:
        return len(self.index)

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents in the order of the index, without deleted ones."""
        for document in self.index.documents(start):
            yield SourceDocument(*document)

    def close(self) -> None:
        """Does nothing: no file is open."""


def _checkpoint(path: Path) -> TokenModel | None:
    """The model that made an index, as a name or a path; only stanford indexes store it."""
    file = path / "metadata.json"
    metadata = read_json(file) if file.exists() else None
    config = metadata.get("config") if isinstance(metadata, dict) else None
    name = config.get("checkpoint") if isinstance(config, dict) else None
    return TokenModel(name) if isinstance(name, str) and name.strip() else None
