"""Indexes of PyLate, 1.3 to 1.6: a stanford, fast-plaid or xtr-warp-rs index and a map to the documents' ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from muvera_adapters.plaid.chunks import ChunkedIndex, Labels
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.fast_plaid import open_fast_plaid
from muvera_adapters.plaid.files import require_file
from muvera_adapters.plaid.pickles import load_plain
from muvera_adapters.plaid.sqlite_file import open_database, table_columns
from muvera_adapters.plaid.stanford import open_stanford
from muvera_adapters.plaid.xtr_warp import open_xtr_warp_rs
from muvera_adapters.results import DocumentId

_MAP, _WARP_MAP = "plaid_ids_to_documents_ids", "warp_ids_to_documents_ids"
# maximum size of a pickled map, which PyLate itself keeps in memory
_MAX_MAP_BYTES = 1 << 30
_REMEDY = "pass ids= with the right ids, or index again"


def open_pylate_stanford(directory: Path, *, own_ids: bool = True) -> ChunkedIndex:
    """``PLAID(use_fast=False)``, and all of PyLate before fast-plaid: a stanford index with an id map beside it.

    Args:
        directory: directory of the index.
        own_ids: whether to read the map; False: positions are the ids.

    Raises:
        IndexDamaged: a file is missing or contradicts another, or the map contradicts the index.
    """
    index = open_stanford(directory)
    index.format = "pylate-stanford"
    return _with_ids(directory, index) if own_ids else index


def open_pylate_fast_plaid(directory: Path, *, own_ids: bool = True, originals: bool = True) -> ChunkedIndex:
    """``PLAID()`` of PyLate 1.3 and later: a fast-plaid index in ``fast_plaid_index``, the id map above it.

    Up to 1.3, a deletion only removed the document from the map: a position that is not mapped is a deleted document.
    Arguments and errors as for :func:`open_pylate_stanford` and :func:`.fast_plaid.open_fast_plaid`.
    """
    index = open_fast_plaid(directory / "fast_plaid_index", originals=originals)
    index.format = "pylate-fast-plaid"
    return _with_ids(directory, index) if own_ids else index


def open_pylate_warp(directory: Path, *, own_ids: bool = True) -> ChunkedIndex:
    """``WARP()`` of PyLate 1.6: an xtr-warp-rs index in ``warp_index``, the map from its passage ids above it.

    Arguments and errors as for :func:`open_pylate_stanford`.
    """
    index = open_xtr_warp_rs(directory / "warp_index")
    index.format = "pylate-warp"
    if not own_ids:
        return index
    path, found = _read_map(directory, _WARP_MAP)
    assert index.labels.ids is not None
    passages = list(index.labels.ids())
    unknown = found.keys() - set(passages)
    if unknown:
        raise IndexDamaged(
            path, f"it maps passage {max(unknown)}, which the index does not have: it belongs to another state of the "
            f"index; {_REMEDY}"
        )  # fmt: skip
    positions = {position: found[int(passage)] for position, passage in enumerate(passages) if passage in found}
    return _labelled(path, index, positions)


def _with_ids(directory: Path, index: ChunkedIndex) -> ChunkedIndex:
    path, found = _read_map(directory, _MAP)
    n = len(index.lengths)
    outside = [p for p in found if not 0 <= p < n]
    if outside:
        raise IndexDamaged(
            path, f"it maps position {max(outside)}, but the index has {n} documents: it belongs to another state of "
            f"the index, and the ids may be shifted; {_REMEDY}"
        )  # fmt: skip
    gone = [p for p in sorted(found) if not index.lengths[p]]
    # a deletion has not changed a map that has every position
    if gone and len(found) < n:
        raise IndexDamaged(
            path, f"it maps position {gone[0]} to {found[gone[0]]!r}, but that document was deleted: the ids are "
            f"shifted; {_REMEDY}"
        )  # fmt: skip
    return _labelled(path, index, found)


def _labelled(path: Path, index: ChunkedIndex, found: dict[int, int | str]) -> ChunkedIndex:
    """The index with ids by position; documents without id, and older ones of the same id, are left out."""
    alive = index.lengths > 0
    if index.labels.deleted is not None:
        alive &= ~index.labels.deleted
    found = {p: i for p, i in found.items() if alive[p]}
    newest = {found[p]: p for p in sorted(found)}
    if len(newest) < len(found):
        example = next(found[p] for p in sorted(found) if newest[found[p]] != p)
        warnings.warn(
            f"{path}: {len(found) - len(newest)} documents share their id with a newer one ({example!r}); "
            "only the newest of each is read",
            IndexWarning,
            stacklevel=5,
        )
    n = len(index.lengths)
    deleted = np.ones(n, bool)
    deleted[list(newest.values())] = False

    def ids() -> Iterator[DocumentId]:
        return (found.get(position, position) for position in range(n))

    return index.with_labels(Labels(ids, index.labels.payloads, deleted))


def _read_map(directory: Path, name: str) -> tuple[Path, dict[int, int | str]]:
    path = directory / f"{name}.pkl"
    if path.exists():
        if require_file(path).stat().st_size > _MAX_MAP_BYTES:
            raise IndexDamaged(path, "larger than 1 GB")
        found = load_plain(path, path.read_bytes())
    else:
        path = directory / f"{name}.sqlite"
        found = _read_sqlite(path)
    if not isinstance(found, dict) or not all(
        type(position) is int and type(identifier) in (int, str) for position, identifier in found.items()
    ):
        raise IndexDamaged(path, "expected a map from positions to ids that are strings or integers; pass ids= instead")
    return path, found


def _read_sqlite(path: Path) -> dict[object, object]:
    """Reads a map that sqlitedict wrote: keys as text, values as pickles."""
    with open_database(path) as connection:
        if not {"key", "value"} <= set(table_columns(connection, path, "unnamed")):
            raise IndexDamaged(path, "expected columns key and value in the table unnamed")
        found: dict[object, object] = {}
        for key, value in connection.execute('SELECT "key", "value" FROM "unnamed"'):
            if not isinstance(key, str) or not key.isdecimal() or len(key) > 18 or not isinstance(value, bytes):
                raise IndexDamaged(path, f"expected a position and a pickled id, found the key {key!r}")
            found[int(key)] = load_plain(path, value)
        return found
