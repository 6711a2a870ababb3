"""Detects the format of a directory, and opens it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from muvera_adapters.plaid.chunks import ChunkedIndex
from muvera_adapters.plaid.colbert_v1 import open_colbert_v1
from muvera_adapters.plaid.errors import IndexWarning, UnknownFormat
from muvera_adapters.plaid.fast_plaid import open_fast_plaid, open_next_plaid
from muvera_adapters.plaid.files import read_json
from muvera_adapters.plaid.pylate import open_pylate_fast_plaid, open_pylate_stanford, open_pylate_warp
from muvera_adapters.plaid.ragatouille import open_ragatouille
from muvera_adapters.plaid.source import Source
from muvera_adapters.plaid.stanford import open_stanford
from muvera_adapters.plaid.text_files import IdFile, TextFile, check_order
from muvera_adapters.plaid.xtr_warp import open_xtr_warp, open_xtr_warp_rs

#: functions that open each format, given the directory, whether to read its own ids, and whether to use originals
_OPENERS: dict[str, Callable[[Path, bool, bool], ChunkedIndex]] = {
    "stanford": lambda d, _ids, _originals: open_stanford(d),
    "ragatouille": lambda d, ids, _originals: open_ragatouille(d, own_ids=ids),
    "pylate-stanford": lambda d, ids, _originals: open_pylate_stanford(d, own_ids=ids),
    "pylate-fast-plaid": lambda d, ids, originals: open_pylate_fast_plaid(d, own_ids=ids, originals=originals),
    "pylate-warp": lambda d, ids, _originals: open_pylate_warp(d, own_ids=ids),
    "fast-plaid": lambda d, _ids, originals: open_fast_plaid(d, originals=originals),
    "next-plaid": lambda d, _ids, originals: open_next_plaid(d, originals=originals),
    "xtr-warp": lambda d, _ids, _originals: open_xtr_warp(d),
    "xtr-warp-rs": lambda d, _ids, _originals: open_xtr_warp_rs(d),
    "colbert-v1": lambda d, ids, _originals: open_colbert_v1(d, own_ids=ids),
}


def detect(path: str | os.PathLike[str]) -> str:
    """Name of the format of the index in a directory, from the names of files and from ``metadata.json``.

    Raises:
        UnknownFormat: there is no such directory, or it has no index that can be read.
        IndexDamaged: ``metadata.json`` is not valid JSON.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise UnknownFormat(f"{directory} is not a directory")
    found = _detect(directory)
    if found:
        _refuse_binary(directory)
        return found
    if (directory / "plan.json").exists():
        raise UnknownFormat(f"{directory} is a PLAID index whose build was not finished (no centroids)")
    for name, what in _NOT_READ.items():
        if next(directory.glob(name), None):
            raise UnknownFormat(f"{directory} is {what}, which is not supported")
    inside = sorted(p.name for p in directory.iterdir() if p.is_dir() and _detect(p))
    hint = f"; did you mean {directory / inside[0]}?" if inside else f"; formats read: {', '.join(_OPENERS)}"
    raise UnknownFormat(f"{directory} is not a PLAID index (it has no centroids){hint}")


def _refuse_binary(directory: Path) -> None:
    path = directory / "metadata.json"
    metadata = read_json(path) if path.exists() else None
    if isinstance(metadata, dict) and metadata.get("binary"):
        raise UnknownFormat(
            f"{directory} is a binary index of next-plaid (1.8 and later), which has only the signs of values and is "
            "not supported; build the index again without binary"
        )


_NOT_READ = {
    "*.residuals.bn": "an index of ColBERT's binarization branch",
    "index_config.json.gz": "an index of Byaldi",
    "flattened_embeddings.npy": "a ScaNN index of PyLate",
    "index.voyager": "a Voyager index of PyLate",
    "tachiom.bin": "a TACHIOM index of PyLate",
}


def _detect(directory: Path) -> str | None:
    def has(*names: str) -> bool:
        return any((directory / name).exists() for name in names)

    if has("fast_plaid_index/metadata.json", "fast_plaid_index/plan.json"):
        return "pylate-fast-plaid"
    if has("warp_ids_to_documents_ids.pkl") and has("warp_index"):
        return "pylate-warp"
    if has("residuals.repacked.compacted.pt"):
        return "xtr-warp"
    if next(directory.glob("*.passage_ids.npy"), None):
        return "xtr-warp-rs"
    metadata = read_json(directory / "metadata.json") if has("metadata.json") else None
    metadata = metadata if isinstance(metadata, dict) else {}
    if has("centroids.pt"):
        if any(has(f"{a}.pkl", f"{a}.sqlite") for a in ("documents_ids_to_plaid_ids", "plaid_ids_to_documents_ids")):
            return "pylate-stanford"
        return "ragatouille" if has("pid_docid_map.json") or "RAGatouille" in metadata else "stanford"
    if has("centroids.npy"):
        newer = metadata.get("next_plaid_compatible") is True or has("embeddings_lengths.json")
        return "next-plaid" if newer else "fast-plaid"
    return "colbert-v1" if has("0.pt") and has("doclens.0.json") else None


def open_index(
    path: str | os.PathLike[str],
    *,
    ids: str | os.PathLike[str] | None = None,
    texts: str | os.PathLike[str] | None = None,
    originals: bool = True,
) -> Source:
    """Opens the index in a directory, whatever its format.

    Nothing in the index is executed: its pickles are read by parsers that know only arrays, or strings and integers.
    Nothing is written, and all sizes are checked before the first document.

    Args:
        path: directory of the index.
        ids: file with the ids of all positions in order, including deleted documents: one id per line, or a list in a
            ``.json`` file. It replaces the index's own id map, which is then not read.
        texts: ``.tsv`` (position, text, optional title) or ``.jsonl`` file with the text of every position in order,
            for the payload.
        originals: whether to use the original vectors where the index stores them beside the compressed ones
            (fast-plaid with up to 1,000 documents); False: decode all, as the index's own search does.

    Raises:
        UnknownFormat: there is no such directory, or it has no index that can be read.
        IndexDamaged: a file is missing, cut short, or contradicts another; the message names it.
        InvalidInput: ``ids`` or ``texts`` do not fit the index.
    """
    directory, format = Path(path), detect(path)
    parent = directory.resolve().parent
    if ids is None and (format, _detect(parent)) in _INSIDE_PYLATE:
        warnings.warn(
            f"{directory}: ids are the index's own numbers; open {parent} for those of PyLate", IndexWarning, 2
        )
    index = _OPENERS[format](directory, ids is None, originals)
    labels, n = index.labels, len(index.lengths)
    if ids is not None:
        labels = replace(labels, ids=IdFile(Path(ids), n).read)
    if texts is not None:
        file = TextFile(Path(texts), n)
        check_order(Path(texts), file.lengths, index.lengths)
        labels = replace(labels, payloads=_joined(labels.payloads, file.read))
    return index.with_labels(labels)


#: formats of a directory and of its parent, where PyLate stores the ids
_INSIDE_PYLATE = {("fast-plaid", "pylate-fast-plaid"), ("xtr-warp-rs", "pylate-warp")}

_Payloads = Callable[[], Iterator[Mapping[str, Any]]]


def _joined(own: _Payloads | None, given: _Payloads) -> _Payloads:
    if own is None:
        return given
    first = own

    def read() -> Iterator[Mapping[str, Any]]:
        for a, b in zip(first(), given(), strict=False):
            yield {**a, **b}

    return read
