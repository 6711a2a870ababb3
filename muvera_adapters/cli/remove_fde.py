"""``muvera remove-fde``: removes the FDEs and the metadata of this library from a collection."""

from __future__ import annotations

import json
from typing import Annotated

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database

EXAMPLES = o.examples(
    f"muvera remove-fde {o.EXAMPLE} --collection pages --dry-run",
    f"muvera remove-fde {o.EXAMPLE} --collection pages",
)


def remove_fde(
    target: o.Target,
    collection: o.CollectionName,
    tenant: o.Tenant = None,
    dry_run: Annotated[bool, o.flag("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    as_json: o.Json = False,
) -> None:
    """Remove the FDEs of a collection; documents and tokens stay.

    It also removes the metadata that muvera stores with the collection. muvera backfill computes the FDEs again.
    """
    target = o.of_tenant(target, tenant)
    with o.shown_warnings(), Database(target) as database:
        store = database.open(collection)
        info, vector = store.info(), store.fde_name
        if not dry_run:
            store.remove_fde()
    if as_json:
        content = {"collection": collection, "fde_vector": vector, "documents": info.documents, "removed": not dry_run}
        print(json.dumps(content, indent=2))
    elif dry_run:
        print(
            f"the FDEs of {info.documents:,} documents ({o.readable(info.fde_bytes)} in {vector!r}) would be removed; "
            "nothing was removed"
        )
    else:
        print(
            f"the FDEs of {info.documents:,} documents were removed from {collection}; to compute them again: muvera "
            f"backfill {target} --collection {collection} --tokens-vector {store.tokens_name or 'NAME'}"
        )
