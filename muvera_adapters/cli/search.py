"""``muvera search``: queries whose token vectors are in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.errors import WrongUsage
from muvera_adapters.evidence.measuring import queries_of
from muvera_adapters.sources import open_queries

_TEXT_COLUMNS = 100


def search(
    target: o.Target,
    collection: o.CollectionName,
    query_npy: Annotated[
        Path, typer.Option(help="Token vectors of queries: .npy (m, dim) or (n, m, dim), or .npz, .safetensors.")
    ],
    limit: Annotated[int, typer.Option(min=1, help="Hits of each query.")] = 10,
    prefetch: o.Prefetch = 200,
    rerank: Annotated[str, typer.Option(help="auto, native, client or none.")] = "auto",
    query_fit: o.QueryFitFile = None,
    exact: Annotated[bool, typer.Option("--exact", help="MaxSim over all documents instead.")] = False,
    model: o.Model = None,
    tenant: o.Tenant = None,
    as_json: o.Json = False,
) -> None:
    """Search a collection in two stages."""
    if exact and query_fit is not None:
        raise WrongUsage("--exact uses no FDEs: leave --query-fit out")
    queries, fit = open_queries(query_npy), o.load_query_fit(query_fit)
    with o.shown_warnings(), Database(o.of_tenant(target, tenant)) as database:
        store = database.open(collection, model=model)
        if exact:
            found = [store.exact_search(query, limit) for query in queries_of(queries)]
        else:
            candidates = max(prefetch, limit)
            found = store.search_batch(queries_of(queries), limit, candidates, rerank=rerank, query_fit=fit)
    if as_json:
        hits = [
            [
                {"id": h.id, "score": h.score, "fde_score": h.fde_score, "reranked": h.reranked, "payload": h.payload}
                for h in one
            ]
            for one in found
        ]
        print(json.dumps({"collection": collection, "results": hits}, indent=2, default=str))
        return
    for number, one in enumerate(found):
        if len(found) > 1:
            print(f"query {number}")
        for place, hit in enumerate(one, 1):
            text = " ".join(str((hit.payload or {}).get("text", "")).split())
            print(f"{place:3}  {hit.score:9.4f}  {hit.id}" + (f"  {text[:_TEXT_COLUMNS]}" if text else ""))
