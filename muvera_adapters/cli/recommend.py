"""``muvera recommend``: chooses encoder, quantization and number of candidates for the given documents."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from muvera_adapters.cli import evidence_input as i
from muvera_adapters.cli import options as o
from muvera_adapters.evidence.recommendation import SAMPLE
from muvera_adapters.evidence.recommendation import recommend as choose
from muvera_adapters.evidence.target_recall import MAX_PREFETCH

EXAMPLES = o.examples(
    "muvera recommend docs.npz --queries queries.npz --recall 0.95",
    "muvera recommend docs.npz --documents 2000000 --max-bytes 400",
)


def recommend(
    data: o.Data,
    queries: o.Queries = None,
    recall: i.Recall = 0.95,
    max_bytes: i.MaxBytes = None,
    max_prefetch: i.MaxPrefetch = MAX_PREFETCH,
    documents: Annotated[
        int | None,
        o.option(
            "--documents",
            metavar="N",
            min=1,
            help="Number of documents in the collection that DATA is a sample of, for example 2000000. Default: the "
            "number in DATA.",
        ),
    ] = None,
    sample: i.SampleSize = SAMPLE,
    seed: o.Seed = 42,
    ids: o.Ids = None,
    tokens: o.Tokens = None,
    lengths: o.Lengths = None,
    collection: o.DataCollection = None,
    tokens_vector: o.TokensVector = None,
    tenant: o.DataTenant = None,
    as_json: o.Json = False,
) -> None:
    """Choose encoder, quantization and number of candidates for a wanted recall.

    The choice is measured on queries that were not used to make it. The exit status is 1 if the recall is not reached.
    """
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
        recall=recall,
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
        # lets scripts notice that the recall was not reached
        raise typer.Exit(1)
