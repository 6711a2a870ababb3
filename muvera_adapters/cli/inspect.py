"""``muvera inspect``: the contents of a source, and their size in each database."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from muvera_adapters.cli import options as o
from muvera_adapters.databases import specs
from muvera_adapters.migration import MigrationEstimate, estimate
from muvera_adapters.sources import TokenSource, open_source
from muvera_adapters.stores.database import Target
from muvera_core import FDEConfig, FDEEncoder

EXAMPLES = o.examples(
    "muvera inspect index/",
    "muvera inspect docs.npz --ids ids.txt",
    f"muvera inspect {o.EXAMPLE} --collection docs",
)


def inspect(
    data: o.Data,
    ids: o.Ids = None,
    texts: o.Texts = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    drop: o.Drop = None,
    collection: o.DataCollection = None,
    tokens_vector: o.TokensVector = None,
    tenant: o.DataTenant = None,
    as_json: o.Json = False,
) -> None:
    """Show what token embeddings DATA has, and their size in each database.

    Nothing is written.
    """
    o.check_collection(data, collection)
    with o.shown_warnings() as warned:
        opened = open_source(
            o.of_tenant(data, tenant),
            ids=ids,
            texts=texts,
            collection=collection,
            tokens_vector=tokens_vector,
            tokens=tokens,
            lengths=lengths,
            drop=drop or (),
        )
        try:
            first = next(iter(opened.documents()), None)
            encoder = FDEEncoder(FDEConfig.of_size(opened.dim, o.FDE_DIM))
            # one for each form of a target; no database is contacted
            targets = [Target(spec.scheme, form.location, form.place) for spec in specs() for form in spec.forms]
            size = estimate(opened, encoder, targets[0])
            sizes = {str(target): size.into(target) for target in targets}
            found = _facts(opened, first, size)
        finally:
            opened.close()
    if as_json:
        in_targets = {name: each.sizes() for name, each in sizes.items()}
        print(json.dumps({**found, "warnings": warned, "fde_dim": encoder.dim, "targets": in_targets}, indent=2))
        return
    _print(found, sizes, encoder.dim)


def _facts(source: TokenSource, first: Any, size: MigrationEstimate) -> dict[str, Any]:
    lengths = source.lengths[source.lengths > 0] if source.lengths is not None else None
    return {
        "source": source.place,
        "format": source.format,
        "documents": len(source),
        "positions": source.n_positions,
        "tokens": size.tokens,
        "tokens_exact": size.exact,
        "dim": source.dim,
        "tokens_per_document": None
        if lengths is None or not len(lengths)
        else {"least": int(lengths.min()), "median": float(np.median(lengths)), "most": int(lengths.max())},
        "source_bytes": size.source_bytes,
        "model": None if source.model is None else str(source.model),
        "first_id": None if first is None else first.id if isinstance(first.id, int) else str(first.id),
        "payload_keys": sorted(first.payload) if first is not None else [],
    }


def _print(found: dict[str, Any], sizes: dict[str, MigrationEstimate], fde_dim: int) -> None:
    console = o.console()
    gone = found["positions"] - found["documents"]
    lines = {
        "format": found["format"],
        "documents": f"{found['documents']:,}" + (f" ({gone:,} positions are deleted)" if gone else ""),
        "tokens": ("" if found["tokens_exact"] else "about ") + f"{found['tokens']:,} of {found['dim']} dims",
    }
    if found["tokens_per_document"]:
        spread = found["tokens_per_document"]
        lines["a document"] = f"{spread['least']:,} to {spread['most']:,} tokens, median {spread['median']:,.0f}"
    if found["source_bytes"]:
        lines["files"] = o.readable(found["source_bytes"])
    lines["first id"] = repr(found["first_id"])
    lines["payload"] = ", ".join(found["payload_keys"]) or "none"
    if found["model"]:
        lines["model"] = f"{found['model']} (queries need it)"
    for name, text in lines.items():
        console.print(f"{name:<12}{text}", markup=False, soft_wrap=True)
    console.print(f"\nin a collection made with the defaults (FDEs of {fde_dim:,} dims), about")
    table = o.table("target", "FDEs", "codes", "tokens", "index, log", "total")
    for name, size in sizes.items():
        parts = (size.fde_bytes, size.code_bytes, size.token_bytes, size.other_bytes, size.total_bytes)
        table.add_row(name, *map(o.readable, parts))
    console.print(table)
