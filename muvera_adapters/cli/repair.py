"""``muvera repair``: indexes documents again that a killed server has lost from its indexes."""

from __future__ import annotations

import json
from typing import Any

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.errors import WrongUsage

EXAMPLES = o.examples("muvera repair TARGET --collection docs")


def repair(target: o.Target, collection: o.CollectionName, tenant: o.Tenant = None, as_json: o.Json = False) -> None:
    """Index documents again that a killed server has lost from its indexes."""
    target = o.of_tenant(target, tenant)
    with o.shown_warnings(), Database(target) as database:
        if not database.spec.repairs:
            applies = o.databases_to_repair()
            raise WrongUsage(f"{target}: {database.spec.title} needs no repair; the command applies to {applies}")
        store: Any = database.open(collection)
        repaired: int = store.repair(progress=not as_json)
    if as_json:
        print(json.dumps({"repaired": repaired}))
    else:
        print(f"{repaired:,} documents were lost from the indexes of {collection} and are indexed again")
