"""A PLAID index as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from muvera_adapters.plaid import Document, open_index


class PlaidSource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`.

    Arguments and errors as of :func:`muvera_adapters.plaid.open_index`.
    """

    seekable = True

    def __init__(
        self, path: Path, *, ids: Path | None = None, texts: Path | None = None, originals: bool = True
    ) -> None:
        self.index = open_index(path, ids=ids, texts=texts, originals=originals)
        self.format, self.dim, self.place = self.index.format, self.index.dim, str(path)
        self.n_tokens: int | None = self.index.n_tokens
        self.n_positions = len(self.index.lengths)
        # an index's own library leaves locks behind when it only reads
        inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".lock")
        self.files: Sequence[Path] = (*inside, *(p for p in (ids, texts) if p is not None))

    def __len__(self) -> int:
        return len(self.index)

    def documents(self, start: int = 0) -> Iterator[Document]:
        """In the order of the index, deleted ones left out."""
        return self.index.documents(start)

    def close(self) -> None:
        """Nothing is kept open."""
