"""A collection of a database as a source, for moving documents from one database to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muvera_adapters.databases import Database
from muvera_adapters.errors import CollectionNotFound, InvalidInput
from muvera_adapters.sources.base import SourceDocument
from muvera_adapters.stores.database import Target
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import FDEConfig, FDEEncoder

# name for adopt(), so that it finds no FDEs and therefore writes nothing
_NO_FDE = "muvera_no_such_vector"


class CollectionSource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`. Nothing is written to the collection.

    Args:
        target: target of the database.
        collection: name of the collection.
        tokens_vector: name of the multivector of a collection that this library did not create; otherwise None.

    Raises:
        CollectionNotFound: there is no such collection, or this library did not create it and ``tokens_vector`` is
            not given.
        SchemaMismatch: the collection has no such multivector.
        InvalidInput: the collection is empty.
    """

    format = "collection"
    n_tokens: int | None = None
    lengths: npt.NDArray[np.int64] | None = None
    files: Sequence[Path] = ()
    seekable = False

    def __init__(self, target: Target, collection: str, *, tokens_vector: str | None = None) -> None:
        self.place = f"{target} {collection}"
        self._database = Database(target)
        try:
            try:
                self._store = self._database.open(collection)
            except CollectionNotFound as error:
                if tokens_vector is None:
                    raise CollectionNotFound(
                        f"{error}; name its multivector (--tokens-vector) if this library did not create it"
                    ) from error
                dim = self._database.token_dim(collection, tokens_vector)
                plain = FDEEncoder(FDEConfig(dim, d_proj=None, k_sim=1, r_reps=1))
                options = {"tokens_vector": tokens_vector, "fde_vector": _NO_FDE}
                self._store = self._database.adopt(collection, plain, **options)
            self.dim: int = self._store.encoder.token_dim
            self.n_positions: int = self._store.count()
            self.model: TokenModel | None = self._store.model
        except BaseException:
            self._database.close()
            raise
        if not self.n_positions:
            self._database.close()
            raise InvalidInput(f"{self.place} is empty")

    def __len__(self) -> int:
        return self.n_positions

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents in the order of the database; those before ``start`` are read and skipped."""
        stored = self._store.scroll(with_tokens=True)
        for position, found in enumerate(islice(stored, start, None), start):
            tokens = found.tokens if found.tokens is not None else np.zeros((0, self.dim), np.float32)
            yield SourceDocument(position, found.id, tokens, found.payload)

    def close(self) -> None:
        """Closes the database."""
        self._database.close()
