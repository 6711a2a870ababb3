"""Relevance judgements, and the quality of rankings by them (with ir-measures)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from muvera_adapters.errors import InvalidInput, MissingExtra
from muvera_adapters.results import DocumentId

#: query id -> document id -> grade; ids are text
Judgements: TypeAlias = Mapping[str, Mapping[str, int]]


def read_judgements(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Reads judgements from a TREC qrels file (query, iteration, document, grade), or from a TSV or BEIR file.

    The columns of a TSV file are query, document and an optional grade (1 without it), separated by tabs. A first line
    without a number in the grade column is a header.

    Raises:
        InvalidInput: the file is missing, has no judgements, or has a line that is not a judgement; the message names
            the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{os.fspath(path)} cannot be read as judgements: {error}") from error
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) not in (2, 3, 4):
            raise InvalidInput(f"{os.fspath(path)}, line {number}: expected 2 to 4 columns, got {len(parts)}")
        query, document = parts[0].strip(), parts[2 if len(parts) == 4 else 1].strip()
        grade = parts[-1].strip() if len(parts) > 2 else "1"
        try:
            value = int(float(grade))
        except ValueError:
            if number == 1:
                continue
            raise InvalidInput(f"{os.fspath(path)}, line {number}: the grade {grade!r} is not a number") from None
        if number == 1 and len(parts) == 2 and "id" in query.lower() and "id" in document.lower():
            continue
        found.setdefault(query, {})[document] = value
    if not found:
        raise InvalidInput(f"{os.fspath(path)} has no judgements")
    return found


def check_installed(judgements: Judgements | None) -> None:
    """Checks that rankings can be judged, before anything is measured.

    Raises:
        MissingExtra: there are judgements, but ir-measures is not installed.
    """
    if judgements is not None and find_spec("ir_measures") is None:
        raise MissingExtra("ir-measures", "eval")


def quality(
    found: Sequence[Sequence[DocumentId]], query_ids: Sequence[str], judgements: Judgements
) -> dict[str, float]:
    """Computes nDCG@10, RR@10 and R@100 with ir-measures, as means over the judged queries; empty if none is judged.

    Args:
        found: a ranking for each query, best first.
        query_ids: ids of the queries.
        judgements: judgements, possibly also of other queries.

    Raises:
        MissingExtra: ir-measures is not installed.
    """
    try:
        import ir_measures
        from ir_measures import RR, R, nDCG
    except ModuleNotFoundError as error:
        raise MissingExtra("ir-measures", "eval") from error
    judged = {query: dict(judgements[query]) for query in query_ids if judgements.get(query)}
    if not judged:
        return {}
    run = {
        query: {str(document): -float(place) for place, document in enumerate(ranking)}
        for query, ranking in zip(query_ids, found, strict=True)
        if query in judged
    }
    depth = min(map(len, run.values()))
    measures = [nDCG @ 10, RR @ 10] + ([R @ 100] if depth >= 100 else [])
    scores = ir_measures.calc_aggregate(measures, judged, run)
    return {str(measure): float(scores[measure]) for measure in measures}
