"""What the rest of the package knows of LanceDB: tables in a directory, opened by the process that uses them.

``create`` keeps tokens as float16, and ``wait_indexed`` builds an index of the FDEs with codes.

Source of the sizes: files of lancedb 0.40.0 without old versions. With the sample's 2,041 documents (encodings of 640,
2,560 and 10,240 dimensions) and with 1,000 documents of 40 tokens they took at most 2 % more than the parts below. Old
versions of what was written, joined or indexed come on top until they are removed. Memory is that of the codes, which
are kept in a cache; encodings and tokens are read from the files.
"""

from __future__ import annotations

import re
from typing import Any

from muvera_adapters.errors import CollectionNotFound, SchemaMismatch, StoreUnavailable, WrongUsage
from muvera_adapters.stores.database import DatabaseSpec, Form, Listed, Target, dim_of
from muvera_adapters.stores.sizes import FORMULA, Part, Place, Planned, bytes_formula, token_formula, token_precision

# source of the sizes
_MEASURED = "LanceDB"
#: bits of one dimension by preset
_QUANTIZATIONS = {"sq8": 8, "rq4": 4, "rq1": 1, "none": 0}
#: presets that lose little
WORTH_TRYING = ("sq8", "rq1")
#: dimensions from which on codes of one bit, with a second look at the FDEs, lose nothing
_LONG = 1_024


def _parse(location: str) -> Target:
    text = f"{LANCEDB.scheme}:{location}"
    if re.match(r"[a-z][a-z0-9+.-]*://", location):
        raise WrongUsage(f"{text!r}: write a directory of this machine, as in {LANCEDB.targets[0]}")
    return Target(LANCEDB.scheme, location, "directory", text=text)


def _connect(target: Target) -> Any:
    import lancedb

    try:
        return lancedb.connect(target.location)
    except Exception as error:  # the client raises what its engine raises
        reason = " ".join(str(error).split())[:300]
        raise StoreUnavailable(f"{target} cannot be opened ({reason})") from error


def _disconnect(_: Any) -> None:
    """A connection keeps nothing open."""


def _token_dim(client: Any, name: str, vector: str) -> int:
    from muvera_adapters.lancedb.schema import multivectors

    if name not in _names(client):
        raise CollectionNotFound(f"there is no table {name}")
    schema = client.open_table(name).schema
    widths = multivectors(schema)
    if vector in schema.names and vector not in widths:
        there = ", ".join(repr(each) for each in sorted(widths)) or "none"
        raise SchemaMismatch(f"{name}: {vector!r} is not a multivector; there are: {there}")
    return dim_of(name, vector, widths)


def _collections(client: Any) -> list[Listed]:
    from muvera_adapters.lancedb.errors import translate
    from muvera_adapters.lancedb.schema import kept_state, multivectors

    found, name = [], "the list of tables"
    try:
        for name in _names(client):
            table = client.open_table(name)
            schema = table.schema
            found.append(Listed(name, table.count_rows(), kept_state(schema) is not None, multivectors(schema)))
    except Exception as error:  # the client raises what its engine raises
        raise translate(error, name) from error
    return found


def _names(client: Any) -> list[str]:
    names: list[str] = []
    while True:
        page = client.list_tables(page_token=names[-1] if names else None, limit=1_000)
        names += page.tables
        if not page.tables or not page.page_token:
            return names


def _auto_quantization(dim: int, _place: Place) -> str:
    return "rq1" if dim >= _LONG else "sq8"


def _two_stages(planned: Planned) -> list[Part]:
    values = planned.documents * planned.dim
    parts = [Part("encodings, float32", 0, 4.0 * values, "4 * dim", _MEASURED, "encodings")]
    if planned.quantization != "none":
        bits = _QUANTIZATIONS[planned.quantization]
        codes = values * bits / 8
        formula = bytes_formula("dim", bits)
        parts.append(Part(f"codes, {planned.quantization}", codes, codes, formula, _MEASURED, "codes"))
    return [*parts, *_tokens(planned)]


def _per_token(planned: Planned) -> list[Part]:
    codes = planned.token_values / 16
    return [
        Part("codes of tokens, IVF_PQ", codes, codes, "token_dim / 16 a token", FORMULA, "codes"),
        Part("tokens, float32", 0, 4 * planned.token_values, "4 * token_dim a token", FORMULA, "tokens"),
    ]


def _tokens(planned: Planned) -> list[Part]:
    precision = token_precision(planned, "float16")
    stored = planned.token_bytes(precision)
    return [Part(f"tokens, {precision}", 0, stored, token_formula(precision), _MEASURED, "tokens")]


LANCEDB = DatabaseSpec(
    scheme="lancedb",
    title="LanceDB",
    forms=(Form("DIR", "directory"),),
    package="lancedb",
    module="lancedb",
    extra="lancedb",
    parse=_parse,
    connect=_connect,
    disconnect=_disconnect,
    store="muvera_adapters.lancedb:LanceMuvera",
    token_dim=_token_dim,
    collections=_collections,
    quantizations=_QUANTIZATIONS,
    auto_quantization=_auto_quantization,
    token_presets=("float32", "float16"),
    two_stages=_two_stages,
    per_token=_per_token,
)
