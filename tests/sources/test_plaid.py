"""Directories of PLAID-family indexes as sources."""

import shutil
import warnings

import numpy as np
import pytest

from muvera_adapters.plaid import IndexWarning
from muvera_adapters.sources import open_source
from tests.plaid.files import INDEXES


@pytest.mark.parametrize("name", sorted(p.name for p in INDEXES.iterdir()))
@pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
def test_an_index_from_any_position(name):
    source = open_source(INDEXES / name / "index" / ("colbert" if name.startswith("pylate") else ""))
    everything = list(source.documents())
    assert len(everything) == len(source)
    assert sum(len(d.tokens) for d in everything) == source.n_tokens
    for start in (1, everything[-1].position // 2, everything[-1].position, source.n_positions):
        found = list(source.documents(start))
        expected = [d for d in everything if d.position >= start]
        assert [(d.position, d.id, d.payload) for d in found] == [(d.position, d.id, d.payload) for d in expected]
        assert all(np.allclose(a.tokens, b.tokens, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_files_of_an_index_are_its_own(tmp_path):
    """Not what a user, a migration or a library's lock puts beside them."""
    for name in sorted(p.name for p in INDEXES.iterdir()):
        path = shutil.copytree(INDEXES / name / "index", tmp_path / name)
        path = path / "colbert" if name.startswith("pylate") else path
        everything = sorted(p for p in path.rglob("*") if p.is_file())
        (path / "data" / "docs").mkdir(parents=True)
        for other in (
            "merged_codes.lock", "docs.migration.sqlite", "my.journal", "docs.muvera.json", "queries.npy", "ids.json",
            "ids.txt", "meta.json", "data/docs/centroids.npy", "data.db",
        ):  # fmt: skip
            (path / other).write_text("x")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IndexWarning)
            assert sorted(open_source(path).files) == everything, name
