"""Indexes of RAGatouille 0.0.8 and later: a stanford index, the texts, and a map from passages to documents' ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_adapters.plaid.chunks import ChunkedIndex, Labels
from muvera_adapters.plaid.errors import IndexDamaged, IndexWarning
from muvera_adapters.plaid.files import read_object
from muvera_adapters.plaid.stanford import open_stanford
from muvera_adapters.plaid.text_files import JsonStrings


def open_ragatouille(directory: Path, *, own_ids: bool = True) -> ChunkedIndex:
    """Opens a directory written by RAGatouille.

    RAGatouille splits documents into passages, and searches passages. The id is the passage's position, since several
    passages share a document's id. The payload has the document's metadata, its ``document_id``, and ``text``;
    metadata of the user under one of these two keys is kept as ``metadata_document_id`` and ``metadata_text``.

    Args:
        directory: directory of the index.
        own_ids: whether to read the map, metadata and texts; False: positions are the ids, and there is no payload.

    Raises:
        IndexDamaged: a file is missing or contradicts another, or the map contradicts the index.
    """
    index = open_stanford(directory)
    index.format = "ragatouille"
    if not own_ids:
        return index
    path = directory / "pid_docid_map.json"
    documents = _read_map(path, index)
    payloads = _read_metadata(directory / "docid_metadata_map.json")
    alive = index.lengths > 0
    texts = _texts(directory / "collection.json", path, documents, alive)
    all_texts = texts is not None and len(texts) == len(alive)

    def read() -> Iterator[Mapping[str, Any]]:
        text = texts.read() if texts else None
        for position in range(len(alive)):
            own_text = next(text) if text and (all_texts or alive[position]) else None
            if position in documents:
                identifier = documents[position]
                extra = {} if own_text is None else {"text": own_text}
                yield _payload(payloads.get(str(identifier), {}), {"document_id": identifier, **extra})
            else:
                yield {}

    return index.with_labels(Labels(payloads=read))


def _payload(metadata: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The user's metadata and our own keys; a user's key that equals one of ours gets the prefix ``metadata_``."""
    result: dict[str, Any] = {key: value for key, value in metadata.items() if key not in own}
    for key in own:
        if key in metadata:
            name = f"metadata_{key}"
            while name in metadata:
                name = f"metadata_{name}"
            result[name] = metadata[key]
    return {**result, **own}


def _read_map(path: Path, index: ChunkedIndex) -> dict[int, int | str]:
    found = {}
    for key, identifier in read_object(path).items():
        if not key.isdecimal() or len(key) > 18 or type(identifier) not in (int, str):
            raise IndexDamaged(path, f"expected a map from passage numbers to document ids, found {key!r}")
        found[int(key)] = identifier
    n = len(index.lengths)
    # a deletion did not change the map; a map of every position cannot be shifted
    if found.keys() == set(range(n)):
        return found
    # after a deletion of the last passages RAGatouille and colbert-ai number new ones differently
    wrong = next((p for p in sorted(found) if p >= n or not index.lengths[p]), None)
    if wrong is not None:
        raise IndexDamaged(
            path, f"it maps passage {wrong} to {found[wrong]!r}, but the index has "
            + (f"only {n} passages" if wrong >= n else "deleted that passage")
            + ": the map is shifted; pass ids= and texts= with the right ones, or index again"
        )  # fmt: skip
    return found


def _read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    found = read_object(path)
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def _texts(
    path: Path, map_path: Path, documents: Mapping[int, Any], alive: npt.NDArray[np.bool_]
) -> JsonStrings | None:
    """The list of texts, with one for every position, or one for every remaining passage.

    A deletion removes items from the list without renumbering the map (RAGatouille issue 222), or leaves both files as
    they were (issue 192).
    """
    if not path.exists():
        return None
    texts = JsonStrings(path)
    n_passages = int(np.count_nonzero(alive))
    if not {len(texts), len(documents)} <= {n_passages, len(alive)}:
        warnings.warn(
            f"{path}: texts left out: {len(texts)} texts, {len(documents)} passages in {map_path.name} and "
            f"{n_passages} in the index cannot be matched; pass texts=",
            IndexWarning,
            stacklevel=4,
        )
        return None
    return texts
