"""Projected times: what was measured comes back, the rest grows from it, and the figures are those of the docs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from muvera_adapters.databases import specs
from muvera_adapters.evidence import estimate
from muvera_adapters.stores.sizes import Planned
from muvera_adapters.stores.times import CANDIDATES, planned_time

MEASURED = [(spec, each) for spec in specs() for each in spec.times]
ROWS = json.loads((Path(__file__).parents[2] / "docs" / "figures" / "scale.json").read_text())
ENGINES = {"qdrant-edge": "edge", "qdrant": "qdrant", "weaviate": "weaviate"}


def planned(each, **changes):
    return replace(
        Planned(each.documents, each.tokens, each.dim, each.token_dim, each.quantization, each.place), **changes
    )


@pytest.mark.parametrize(("spec", "each"), MEASURED, ids=lambda value: getattr(value, "scheme", ""))
def test_a_measured_collection_gives_its_own_times_and_others_grow_from_it(spec, each):
    same = planned_time(planned(each), spec.times)
    assert same.measured is each
    assert (same.load_s, same.build_s, *same.search_ms) == pytest.approx(
        (each.load_s, each.build_s, each.search_ms, each.search_ms)
    )
    larger = planned_time(planned(each, documents=2 * each.documents), [each])
    assert 2 * each.load_s <= larger.load_s < (2.001 if each.build_s else 2.5) * each.load_s
    assert 2 * each.build_s <= larger.build_s <= 2.5 * each.build_s
    assert each.search_ms < larger.search_ms[0] == larger.search_ms[1] < 1.25 * each.search_ms
    longer = planned_time(planned(each, tokens=4 * each.tokens), [each])
    assert longer.build_s == pytest.approx(each.build_s)
    assert longer.load_s > 1.5 * each.load_s
    assert longer.search_ms == pytest.approx((each.search_ms, 4 * each.search_ms))


@pytest.mark.parametrize(("spec", "each"), MEASURED, ids=lambda value: getattr(value, "scheme", ""))
def test_measured_times_are_those_of_the_docs(spec, each):
    row = next(
        row
        for key, row in ROWS.items()
        if key.startswith(f"{ENGINES[spec.scheme]}, ")
        and (row["documents"], row["codes"]) == (each.documents, each.quantization)
        and row["encoder"].endswith(f" {each.dim:,}")
    )
    searched = row[f"{CANDIDATES} candidates, 1 clients"]["cpu_ms"]
    assert (each.load_s, each.build_s, each.search_ms) == pytest.approx(
        (row["load_cpu_s"], row["build_cpu_s"], searched), rel=0.05, abs=0.05
    )


def test_what_was_not_measured_has_no_time():
    for target in ("qdrant:data", "milvus:data.db"):
        assert estimate(1000, 30, 2560, databases=[target])[0].time is None
    two, tokens = estimate(1_000_000, 100, 2560, databases=["qdrant-edge"])
    assert two.time is not None
    assert two.to_dict()["time"]["measured"]["documents"] == two.time.measured.documents
    assert tokens.time is None
