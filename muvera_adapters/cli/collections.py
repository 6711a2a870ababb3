"""``muvera collections``: the collections of a database."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database

EXAMPLES = o.examples(f"muvera collections {o.EXAMPLE}", f"muvera collections {o.EXAMPLE} --json")


def collections(target: o.Target, as_json: o.Json = False) -> None:
    """List the collections of a database, and their multivectors.

    muvera backfill adds FDEs to collections that have a multivector and no FDEs of muvera.
    """
    with o.shown_warnings(), Database(target) as database:
        found = database.collections()
    if as_json:
        print(json.dumps({"target": target, "collections": [asdict(each) for each in found]}, indent=2))
        return
    if not found:
        print(f"{target} has no collections")
        return
    table = o.table("collection", "documents", "FDEs", "multivectors (width)")
    table.columns[2].justify = table.columns[3].justify = "left"
    for each in found:
        vectors = ", ".join(f"{name or '(unnamed)'} ({dim or 'unknown'})" for name, dim in each.multivectors.items())
        documents = "unknown" if each.documents is None else f"{each.documents:,}"
        table.add_row(each.name, documents, "yes" if each.has_fde else "no", vectors or "none")
    o.console().print(table)
    hint: Any = next((each for each in found if not each.has_fde and each.multivectors), None)
    if hint is not None:
        vector = next(iter(hint.multivectors)) or '""'
        print(f"to add FDEs: muvera backfill {target} --collection {hint.name} --tokens-vector {vector}")
