"""``muvera recommend``: encoder, codes and number of candidates for documents like these."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.evidence.recommendation import SAMPLE
from muvera_adapters.evidence.recommendation import recommend as choose
from muvera_adapters.evidence.target_recall import MAX_PREFETCH


def recommend(
    data: i.Source,
    queries: i.QueryFile = None,
    target: i.Target = 0.95,
    max_bytes: Annotated[
        float | None, typer.Option("--bytes", help="Most bytes of a document in memory in the first stage.")
    ] = None,
    max_prefetch: Annotated[int, typer.Option(min=1, help="Most candidates to rerank.")] = MAX_PREFETCH,
    sample: i.SampleSize = SAMPLE,
    documents: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of documents of the collection that DATA is a sample of. Default: those of DATA."
        ),
    ] = None,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: i.CollectionName = None,
    tokens_vector: i.TokensVector = None,
    tenant: o.Tenant = None,
    seed: i.Seed = 42,
    as_json: i.Json = False,
) -> None:
    """Choose encoder, codes and number of candidates, and measure the choice on queries that had no part in it."""
    found = i.read_documents(
        o.of_tenant(data, tenant),
        sample=sample,
        seed=seed,
        ids=ids,
        tokens=tokens,
        lengths=lengths,
        collection=collection,
        tokens_vector=tokens_vector,
        quiet=as_json,
    )
    result = choose(
        found.documents,
        None if queries is None else i.read_queries(queries, None, None, 0, seed),
        recall=target,
        bytes_per_document=max_bytes,
        max_prefetch=max_prefetch,
        sample=sample,
        collection=documents or (found.total if found.total > sample else None),
        seed=seed,
        progress=not as_json,
    )
    if as_json:
        content = result.to_dict()
        print(json.dumps({**content, "warnings": content["warnings"] + found.left_out}, indent=2))
    else:
        print(result)
        for note in found.left_out:
            print(f"! {note}")
        print(f"\n{result.code}")
    if not (result.reached and result.held):
        # a script must not take what was not reached for what was
        raise typer.Exit(1)
