"""``muvera search``: searches with the queries of a file, given as token vectors or as text."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

from muvera_adapters.cli import options as o
from muvera_adapters.databases import Database
from muvera_adapters.embedding import embed_queries
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.evidence.measuring import queries_of
from muvera_adapters.explanation import Explanation
from muvera_adapters.migration import Condition
from muvera_adapters.results import Hit
from muvera_adapters.sources import open_queries
from muvera_adapters.stores.conditions import All

_TEXT_COLUMNS = 100
_INDENT = " " * 5


EXAMPLES = o.examples(
    f"muvera search {o.EXAMPLE} --collection docs --queries query.npy",
    f"muvera search {o.EXAMPLE} --collection docs --text-file questions.txt",
    f"echo 'sort a list' | muvera search {o.EXAMPLE} --collection docs --text-file -",
    f"muvera search {o.EXAMPLE} --collection docs --queries q.npy --filter 'year>1999'",
)


def search(
    target: o.Target,
    collection: o.CollectionName,
    queries: Annotated[
        Path | None,
        o.option(
            "--queries",
            metavar="FILE",
            help="Token vectors of queries: .npz, .npy, .safetensors or .pt, for example queries.npz. Either --queries "
            "or --text-file is needed.",
        ),
    ] = None,
    text_file: Annotated[
        Path | None,
        o.option(
            "--text-file",
            metavar="FILE",
            help="Queries as text, one per line, for example questions.txt, or - for the standard input. fastembed "
            "embeds them with the model of --model, or the one stored with the collection.",
        ),
    ] = None,
    limit: Annotated[int, o.option("--limit", metavar="N", min=1, help="Maximum number of hits of each query.")] = 10,
    prefetch: o.Prefetch = 200,
    filter: o.Filter = None,
    rerank: Annotated[
        o.Rerank,
        o.option(
            "--rerank",
            metavar="MODE",
            help="How candidates are scored: native (by the database), client (by this program), none (not at all), "
            "native_muvera (by the database's own MUVERA), or auto (native if it is exact, otherwise client).",
        ),
    ] = "auto",
    exact: Annotated[
        bool, o.flag("--exact", help="Score all documents by MaxSim, instead of searching in two stages.")
    ] = False,
    explain: Annotated[
        bool, o.flag("--explain", help="Show what each query token matches in each hit, and its share of the score.")
    ] = False,
    query_fit: o.QueryFitFile = None,
    model: o.Model = None,
    tenant: o.Tenant = None,
    as_json: o.Json = False,
) -> None:
    """Search a collection in two stages."""
    if exact and query_fit is not None:
        raise WrongUsage("--exact uses no FDEs: leave --query-fit out")
    if (queries is None) == (text_file is None):
        raise WrongUsage("give either --queries or --text-file")
    texts = _lines(text_file) if text_file is not None else None
    asked = queries_of(open_queries(queries)) if queries is not None else []
    conditions = [Condition.parse(text).as_filter() for text in filter or ()]
    fit = o.load_query_fit(query_fit)
    with o.shown_warnings(), Database(o.of_tenant(target, tenant)) as database:
        store = database.open(collection, model=model)
        if texts is not None:
            asked = queries_of(embed_queries(texts, model or store.model, store.encoder.token_dim))
        chosen = store.filter_of(All(conditions)) if conditions else None
        if exact:
            found = [store.exact_search(query, limit, filter=chosen, with_tokens=explain) for query in asked]
        else:
            candidates = max(prefetch, limit)
            found = store.search_batch(
                asked, limit, candidates, rerank=rerank, filter=chosen, query_fit=fit, with_tokens=explain
            )
        explained: list[Sequence[Explanation | None]] = [[None] * len(hits) for hits in found]
        if explain:  # the hits have their tokens, which are therefore not read again
            explained = [store.explain(query, hits) for query, hits in zip(asked, found, strict=True)]
    results = [list(zip(hits, each, strict=True)) for hits, each in zip(found, explained, strict=True)]
    if as_json:
        shown = [[_as_json(hit, explain, why) for hit, why in pairs] for pairs in results]
        print(json.dumps({"collection": collection, "results": shown}, indent=2, default=str))
        return
    for number, pairs in enumerate(results):
        if texts is not None:
            print(texts[number])
        elif len(results) > 1:
            print(f"query {number}")
        if not pairs:
            print("  no hits")
        for place, (hit, why) in enumerate(pairs, 1):
            text = " ".join(str((hit.payload or {}).get("text", "")).split())
            print(f"{place:3}  {hit.score:9.4f}  {hit.id}" + (f"  {text[:_TEXT_COLUMNS]}" if text else ""))
            if explain:
                print(indent("no tokens are stored with this document" if why is None else str(why), _INDENT))


def _lines(path: Path) -> list[str]:
    """Non-empty lines of a file, or of the standard input for ``-``."""
    name = "the standard input" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name} cannot be read as text in UTF-8: {error}") from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise InvalidInput(f"{name} has no queries: write one query per line")
    return found


def _as_json(hit: Hit, explain: bool, why: Explanation | None) -> dict[str, Any]:
    names = ("id", "score", "fde_score", "reranked", "payload")
    shown = {name: getattr(hit, name) for name in names}
    if explain:
        shown["explanation"] = why and {"score": why.score, "matches": [asdict(match) for match in why.matches]}
    return shown
