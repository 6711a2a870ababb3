"""Which kind of source a path or a target is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from muvera_adapters.databases import is_target, parse_target
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.plaid import UnknownFormat
from muvera_adapters.sources.arrays import ArrayFile, ArraySource
from muvera_adapters.sources.base import TokenSource, to_float32
from muvera_adapters.sources.collection import CollectionSource
from muvera_adapters.sources.npz import NpzFile
from muvera_adapters.sources.parquet import ParquetSource
from muvera_adapters.sources.plaid import PlaidSource
from muvera_adapters.sources.safetensors import SafetensorsFile
from muvera_core import TokenBatch


def open_source(
    path: str | os.PathLike[str],
    *,
    ids: str | os.PathLike[str] | None = None,
    texts: str | os.PathLike[str] | None = None,
    originals: bool = True,
    tokens_column: str | None = None,
    id_column: str | None = None,
    collection: str | None = None,
    tokens_vector: str | None = None,
) -> TokenSource:
    """Opens anything that holds token embeddings; close it when done.

    Args:
        path: directory of a PLAID index; ``.npz`` or ``.safetensors`` file; ``.parquet`` file or directory of such; or
            a target (``scheme:URL`` ...) with ``collection``.
        ids: of a PLAID index, like the next two; see :func:`muvera_adapters.plaid.open_index`.
        texts: likewise.
        originals: likewise.
        tokens_column: of Parquet, with the lists of vectors; None: the only one of that type.
        id_column: of Parquet; None: ``id`` or the like, else row numbers are the ids.
        collection: of a target.
        tokens_vector: of a target's collection that this library did not make: name of its multivector.

    Raises:
        WrongUsage: an argument does not belong to that kind of source, or the target is not valid.
        MuveraError: the source cannot be read; the message says why.
    """
    text = os.fspath(path)
    if is_target(text):
        if collection is None:
            raise WrongUsage(f"{text}: name the collection to read (--from-collection)")
        _refuse(text, ids=ids, texts=texts, tokens_column=tokens_column, id_column=id_column)
        return CollectionSource(parse_target(text), collection, tokens_vector=tokens_vector)
    _refuse(text, from_collection=collection, tokens_vector=tokens_vector)
    found = Path(path)
    tables = [found] if found.suffix == ".parquet" else []
    if found.is_dir() and not tables:
        tables = sorted(found.glob("*.parquet"))
    if tables:
        _need_file(tables[0])
        _refuse(text, ids=ids, texts=texts)
        return ParquetSource(tables, text, tokens_column=tokens_column, id_column=id_column)
    _refuse(text, tokens_column=tokens_column, id_column=id_column)
    if found.suffix in (".npz", ".safetensors"):
        _refuse(text, ids=ids, texts=texts)
        return _arrays(found)
    if not found.is_dir():
        raise UnknownFormat(
            f"{text} is no directory of an index, .npz, .safetensors or .parquet file, or target"
            if found.exists()
            else f"{text}: no such file or directory"
        )
    return PlaidSource(found, ids=Path(ids) if ids else None, texts=Path(texts) if texts else None, originals=originals)


def open_queries(path: str | os.PathLike[str]) -> TokenBatch:
    """Token matrices of queries, all in memory.

    Args:
        path: ``.npy`` with one query (m, dim) or n of equal length (n, m, dim); or ``.npz`` or ``.safetensors`` as for
            documents, where arrays whose names begin with ``q`` are taken if there are such.

    Raises:
        InvalidInput: no such file, or its arrays are no token matrices.
    """
    found = Path(path)
    _need_file(found)
    if found.suffix in (".npz", ".safetensors"):
        source = _arrays(found, queries=True)
        try:
            return TokenBatch.from_list(document.tokens for document in source.documents())
        finally:
            source.close()
    try:
        values = np.load(found, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"{found}: no .npy, .npz or .safetensors file of numbers: {error}") from error
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or not values.size:
        raise InvalidInput(f"{found}: expected one query (m, dim) or queries of equal length (n, m, dim)")
    matrices = to_float32(values, str(found))
    return TokenBatch.from_list([matrices] if matrices.ndim == 2 else list(matrices))


def _arrays(path: Path, *, queries: bool = False) -> ArraySource:
    _need_file(path)
    file: ArrayFile = NpzFile(path) if path.suffix == ".npz" else SafetensorsFile(path)
    try:
        return ArraySource(file, path.suffix[1:], queries=queries)
    except BaseException:
        file.close()
        raise


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")


def _refuse(source: str, **given: object) -> None:
    """Raises WrongUsage for arguments of other kinds of sources."""
    for name, value in given.items():
        if value is not None:
            raise WrongUsage(f"{source}: --{name.replace('_', '-')} does not apply to this kind of source")
