"""``muvera search``: queries whose token vectors are in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.errors import WrongUsage
from muvera_adapters.evidence.measuring import queries_of
from muvera_adapters.explanation import Explanation
from muvera_adapters.results import Hit
from muvera_adapters.sources import open_queries

_TEXT_COLUMNS = 100
_INDENT = " " * 5


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
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each query token matches in each hit, and its share.")
    ] = False,
    model: o.Model = None,
    tenant: o.Tenant = None,
    as_json: o.Json = False,
) -> None:
    """Search a collection in two stages."""
    if exact and query_fit is not None:
        raise WrongUsage("--exact uses no FDEs: leave --query-fit out")
    queries, fit = queries_of(open_queries(query_npy)), o.load_query_fit(query_fit)
    with o.shown_warnings(), Database(o.of_tenant(target, tenant)) as database:
        store = database.open(collection, model=model)
        if exact:
            found = [store.exact_search(query, limit, with_tokens=explain) for query in queries]
        else:
            candidates = max(prefetch, limit)
            found = store.search_batch(queries, limit, candidates, rerank=rerank, query_fit=fit, with_tokens=explain)
        explained: list[Sequence[Explanation | None]] = [[None] * len(hits) for hits in found]
        if explain:  # the hits have their tokens, so these are not read again
            explained = [store.explain(query, hits) for query, hits in zip(queries, found, strict=True)]
    results = [list(zip(hits, each, strict=True)) for hits, each in zip(found, explained, strict=True)]
    if as_json:
        shown = [[_as_json(hit, explain, why) for hit, why in pairs] for pairs in results]
        print(json.dumps({"collection": collection, "results": shown}, indent=2, default=str))
        return
    for number, pairs in enumerate(results):
        if len(results) > 1:
            print(f"query {number}")
        for place, (hit, why) in enumerate(pairs, 1):
            text = " ".join(str((hit.payload or {}).get("text", "")).split())
            print(f"{place:3}  {hit.score:9.4f}  {hit.id}" + (f"  {text[:_TEXT_COLUMNS]}" if text else ""))
            if explain:
                print(indent("no tokens are stored with this document" if why is None else str(why), _INDENT))


def _as_json(hit: Hit, explain: bool, why: Explanation | None) -> dict[str, Any]:
    names = ("id", "score", "fde_score", "reranked", "payload")
    shown = {name: getattr(hit, name) for name in names}
    if explain:
        shown["explanation"] = why and {"score": why.score, "matches": [asdict(match) for match in why.matches]}
    return shown
