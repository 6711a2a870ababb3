"""Opens sources and queries, whatever their format."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from muvera_adapters.databases import is_target, parse_target
from muvera_adapters.errors import InvalidInput, MuveraError, WrongUsage
from muvera_adapters.plaid import UnknownFormat, detect
from muvera_adapters.sources.arrays import ArrayFile, ArraySource
from muvera_adapters.sources.base import TokenSource, readable
from muvera_adapters.sources.collection import CollectionSource
from muvera_adapters.sources.names import NO_IDS
from muvera_adapters.sources.npz import NpyFile, NpzFile, read_npy
from muvera_adapters.sources.plaid import PlaidSource
from muvera_adapters.sources.safetensors import SafetensorsFile
from muvera_adapters.sources.tables import TableSource, saved_files
from muvera_adapters.sources.torch import TorchFile
from muvera_core import InvalidTokens, TokenBatch

_ARRAY_FILES: dict[str, Callable[[Path], ArrayFile]] = {
    ".npz": NpzFile,
    ".npy": NpyFile,
    ".safetensors": SafetensorsFile,
    ".pt": TorchFile,
    ".pth": TorchFile,
}
_TABLES = (".parquet", ".arrow")


def open_source(
    path: str | os.PathLike[str],
    *,
    ids: str | os.PathLike[str] | None = None,
    texts: str | os.PathLike[str] | None = None,
    originals: bool = True,
    tokens: str | None = None,
    lengths: str | os.PathLike[str] | None = None,
    drop: Collection[str] = (),
    payload: Collection[str] | None = None,
    collection: str | None = None,
    tokens_vector: str | None = None,
) -> TokenSource:
    """Opens any source of token embeddings; close it when done.

    Arrays and columns are found by their exact names, or otherwise guessed. A :class:`SourceWarning` tells about every
    guess, and ``format`` of the source describes the choice.

    Args:
        path: directory of a PLAID index; ``.npz``, ``.npy``, ``.safetensors`` or ``.pt`` file; ``.parquet`` or
            ``.arrow`` file, directory of such files, also in subdirectories, or one that Hugging Face's
            ``save_to_disk`` wrote; or a target (``scheme:URL`` ...) with ``collection``.
        ids: name of the array or column with the ids; a file with one id for each document (one per line, a list in a
            ``.json`` file, or, for arrays, a ``.npy`` file); or ``none``: positions are the ids. A PLAID index takes a
            file; see :func:`muvera_adapters.plaid.open_index`.
        texts: texts of a PLAID index; see :func:`muvera_adapters.plaid.open_index`.
        originals: whether to use original vectors of a PLAID index; see :func:`muvera_adapters.plaid.open_index`.
        tokens: name of the array or column with the token vectors.
        lengths: name of the array that divides the tokens into documents, or a ``.npy`` file with it: (n,) lengths,
            (n + 1,) offsets, the document of each token, or the (n, t) mask of padded arrays.
        drop: columns of a table to leave out.
        payload: columns of a table for the payload; None: all.
        collection: name of the collection, for a target.
        tokens_vector: name of the multivector of a target's collection, if this library did not create it; ``""`` for
            an unnamed one.

    Raises:
        WrongUsage: an argument does not apply to that kind of source, or the target is not valid.
        MuveraError: the source cannot be read; the message says why.
    """
    text = os.fspath(path)
    lengths = None if lengths is None else os.fspath(lengths)
    with readable(text):
        return _open(text, ids, texts, originals, tokens, lengths, drop, payload, collection, tokens_vector)


def _open(
    text: str,
    ids: str | os.PathLike[str] | None,
    texts: str | os.PathLike[str] | None,
    originals: bool,
    tokens: str | None,
    lengths: str | None,
    drop: Collection[str],
    payload: Collection[str] | None,
    collection: str | None,
    tokens_vector: str | None,
) -> TokenSource:
    if is_target(text):
        if collection is None:
            raise WrongUsage(f"{text}: name the collection to read (--from-collection)")
        _refuse(text, ids=ids, texts=texts, tokens=tokens, lengths=lengths)
        return CollectionSource(parse_target(text), collection, tokens_vector=tokens_vector)
    _refuse(text, from_collection=collection, tokens_vector=tokens_vector)
    found = Path(text)
    if found.suffix in _ARRAY_FILES and not found.is_dir():
        _refuse(text, texts=texts)
        return _arrays(found, tokens=tokens, lengths=lengths, ids=None if ids is None else os.fspath(ids))
    _refuse(text, lengths=lengths)
    tables = _tables(found)
    if tables:
        _need_file(tables[0])
        _refuse(text, texts=texts)
        wanted = None if ids is None else os.fspath(ids)
        return TableSource(tables, text, tokens=tokens, ids=wanted, drop=drop, payload=payload)
    _refuse(text, tokens=tokens)
    if not found.is_dir():
        raise UnknownFormat(
            f"{text} is not a directory of an index, a {', '.join((*_ARRAY_FILES, *_TABLES))} file, or target"
            if found.exists()
            else f"{text}: no such file or directory"
        )
    if ids is not None and os.fspath(ids) == NO_IDS:
        raise WrongUsage(f"{text}: --ids {NO_IDS} does not apply to an index: name a file with its ids")
    return PlaidSource(found, ids=Path(ids) if ids else None, texts=Path(texts) if texts else None, originals=originals)


def open_queries(
    path: str | os.PathLike[str], *, tokens: str | None = None, lengths: str | os.PathLike[str] | None = None
) -> TokenBatch:
    """Reads token matrices of queries into memory.

    Args:
        path: ``.npz``, ``.npy``, ``.safetensors`` or ``.pt`` file as for documents; arrays called ``query_tokens``,
            ``query_lengths``, ``queries`` and the like come before others. A single (m, dim) array is one query.
        tokens: name of the array with the token vectors.
        lengths: name of the array that divides them into queries, or a ``.npy`` file with it.

    Raises:
        InvalidInput: there is no such file, or its arrays are not token matrices.
    """
    found = Path(path)
    if found.suffix not in _ARRAY_FILES:
        _need_file(found)
        raise InvalidInput(f"{found}: queries are read from {', '.join(_ARRAY_FILES)} files")
    with readable(str(found)):
        source = _arrays(found, queries=True, tokens=tokens, lengths=None if lengths is None else os.fspath(lengths))
        try:
            return TokenBatch.from_list(document.tokens for document in source.documents())
        except InvalidTokens as error:
            raise InvalidInput(f"{found}: {error}") from error
        finally:
            source.close()


def _arrays(
    path: Path,
    *,
    queries: bool = False,
    tokens: str | None = None,
    lengths: str | None = None,
    ids: str | None = None,
) -> ArraySource:
    _need_file(path)
    file = _ARRAY_FILES[path.suffix](path)
    try:
        return ArraySource(
            file, path.suffix[1:], queries=queries, tokens=tokens, lengths=lengths, ids=ids, read_array=read_npy
        )
    except BaseException:
        file.close()
        raise


def _tables(path: Path) -> list[Path]:
    """Files of a table: one file, or those in a directory or below it."""
    if not path.is_dir():
        return [path] if path.suffix in _TABLES else []
    found = saved_files(path) or sorted(path.glob("*.parquet")) or sorted(path.glob("*.arrow"))
    if found or _is_index(path):
        return found
    return [
        file
        for file in sorted(path.rglob("*.parquet"))
        # files that other programs write, and embedded databases, which a migration may have created here
        if not any(part[0] in "._" or part.endswith(".db") for part in file.relative_to(path).parts)
    ]


def _is_index(path: Path) -> bool:
    try:
        detect(path)
    except MuveraError:
        return False
    return True


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")


def _refuse(source: str, **given: object) -> None:
    """Raises WrongUsage for arguments that apply to other kinds of sources."""
    for name, value in given.items():
        if value is not None:
            raise WrongUsage(f"{source}: --{name.replace('_', '-')} does not apply to this kind of source")
