"""Reads the results of the old index's own search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muvera_adapters.errors import InvalidInput


def read_rankings(path: Path, n_queries: int) -> list[list[str]]:
    """Ids of the documents that the old search found, best first, one list for each query.

    Args:
        path: ``.json``: a list for each query, or an object with such a list under ``results``; hits are ids, pairs of
            id and score (fast-plaid), or objects with ``id`` (PyLate) or ``content`` and ``document_id``
            (RAGatouille). Any other suffix: lines of query, id, rank and score between tabs, as ColBERT's
            ``Ranking.save()`` writes; queries count from 0.
        n_queries: number of queries that the file must have.

    Raises:
        InvalidInput: there is no such file, the number of queries differs, or the format of hits is not known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    found = _json(path, text) if path.suffix == ".json" else _lines(path, text, n_queries)
    if len(found) != n_queries:
        raise InvalidInput(f"{path} has results of {len(found)} queries, but there are {n_queries}")
    return found


def _json(path: Path, text: str) -> list[list[str]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{path} is not valid JSON: {error}") from error
    if isinstance(value, Mapping):
        value = value.get("results")
    if not isinstance(value, list) or not all(isinstance(hits, list) for hits in value):
        raise InvalidInput(f"{path}: expected a list of hits for each query")
    return [[_id_of(path, hit) for hit in hits] for hits in value]


def _id_of(path: Path, hit: Any) -> str:
    if isinstance(hit, list) and len(hit) == 2:
        hit = hit[0]
    if isinstance(hit, Mapping):
        hit = hit.get("passage_id", hit.get("id", hit.get("document_id")))
    if type(hit) not in (int, str):
        raise InvalidInput(f"{path}: {hit!r} is not a hit: give ids, pairs of id and score, or objects with an id")
    return str(hit)


def _lines(path: Path, text: str, n_queries: int) -> list[list[str]]:
    found: list[list[tuple[int, str]]] = [[] for _ in range(n_queries)]
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("\t")
        if len(parts) < 3 or not (parts[0].isdecimal() and parts[2].isdecimal()):
            raise InvalidInput(f"{path}, line {number}: expected query, id and rank between tabs, found {line[:60]!r}")
        if int(parts[0]) >= n_queries:
            raise InvalidInput(f"{path}, line {number}: query {parts[0]}, but there are {n_queries}, counted from 0")
        found[int(parts[0])].append((int(parts[2]), parts[1]))
    return [[identifier for _, identifier in sorted(hits, key=lambda hit: hit[0])] for hits in found]
