"""``muvera estimate``: memory, disk and time of a planned collection."""

from __future__ import annotations

import json
from typing import Annotated

from muvera_adapters.cli import options as o
from muvera_adapters.databases import LOCAL, forms
from muvera_adapters.evidence.sizes import estimate as estimate_sizes
from muvera_adapters.stores.sizes import AUTO, FORMULA
from muvera_adapters.stores.times import CANDIDATES, MACHINE, PlannedTime

EXAMPLES = o.examples(
    "muvera estimate 1000000 --tokens 100",
    f"muvera estimate 1000000 --tokens 1030 --fde-dim 5120 --database {LOCAL}",
)


def estimate(
    documents: Annotated[int, o.argument("N", "Number of documents, for example 1000000.", min=1)],
    tokens: Annotated[
        float, o.option("--tokens", metavar="N", min=1, help="Mean number of tokens of a document, for example 100.")
    ],
    fde_dim: Annotated[
        int, o.option("--fde-dim", metavar="N", min=1, help="Dimensions of an encoding, for example 1024.")
    ] = o.FDE_DIM,
    token_dim: Annotated[
        int, o.option("--token-dim", metavar="N", min=1, help="Dimensions of a token vector, for example 96.")
    ] = 128,
    database: Annotated[
        list[str] | None,
        o.option(
            "--database",
            metavar="NAME",
            help=f"Database, for example {LOCAL}, or its target ({forms()}). Can be repeated. Default: all databases.",
        ),
    ] = None,
    quantization: o.Quantization = AUTO,
    tokens_as: Annotated[
        o.TokenPresetName,
        o.option(
            "--tokens-as",
            metavar="PRESET",
            help=f"How token vectors are stored: auto, or a preset of the database ({o.token_presets()}).",
        ),
    ] = AUTO,
    as_json: o.Json = False,
) -> None:
    """Estimate memory, disk and time of N documents in each database.

    For comparison with two-stage search, it also estimates a collection with one graph node for each token vector.
    """
    found = estimate_sizes(
        documents,
        tokens,
        fde_dim,
        token_dim=token_dim,
        databases=database,
        quantization=quantization,
        tokens_as=tokens_as,
    )
    if as_json:
        print(json.dumps({"estimates": [e.to_dict() for e in found]}, indent=2))
        return
    console = o.console()
    for place, e in enumerate(found):
        if place:
            console.print()
        table = o.table(
            "part", "memory", "disk", "bytes of a document", title=f"{e.target}: {e.layout}, {e.documents:,} documents"
        )
        table.columns[-1].justify = "left"
        for part in e.parts:
            table.add_row(part.name, _size(part.ram), _size(part.disk), part.formula)
        table.add_section()
        table.add_row("total", _size(e.ram), _size(e.disk), "")
        console.print(table)
        if e.time is not None:
            console.print(_times(e.time), markup=False)
        elif e.layout == "two stages":
            console.print("Processor time: not measured.")
        if any(part.source == FORMULA for part in e.parts):
            console.print("Computed by formulas only: no collection like this was measured.")
    console.print("Not counted: replicas, payloads and a process's own needs. Indexing takes more memory.")


def _times(time: PlannedTime) -> str:
    low, high = (_duration(ms / 1000) for ms in time.search_ms)
    search = low if low == high else f"{low} to {high}"
    index = f"then index {_duration(time.build_s)}" if time.build_s else "index included"
    m = time.measured
    return (
        f"Processor time: load {_duration(time.load_s)}, {index}; a search of "
        f"{CANDIDATES} candidates {search}; client and database together.\nProjected from {m.documents:,} documents of "
        f"{m.tokens:.0f} tokens with {m.dim:,} dimensions, {m.quantization}, on {MACHINE}; other machines differ."
    )


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 1.5 * size:
            return f"{_rounded(seconds / size)} {unit}"
    return f"{_rounded(1000 * seconds)} ms"


def _rounded(number: float) -> str:
    """A number rounded to two digits: a projection has no more precision."""
    return f"{float(f'{number:.2g}'):,g}"


def _size(n_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes:.0f}" if n_bytes else "-"
