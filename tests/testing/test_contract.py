"""The contract suite as the author of another store uses it: from an installed package, in a directory of its own."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import muvera_adapters
from muvera_adapters.testing import contract

ROOT = Path(muvera_adapters.__file__).parents[1]

SUITE = """
import pytest
from qdrant_edge import VectorStorageDatatype

from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.testing.contract import *


class EdgeSession:
    def __init__(self, path):
        self._path = path

    def create(self, name, encoder, **options):
        return QdrantEdgeMuvera.create(self._path, name, encoder, **options)

    def exact(self):
        return {"quantization": None, "datatype": VectorStorageDatatype.Float32}

    def scores_natively(self):
        return False  # so that tests with rerank="native" have to be skipped


@pytest.fixture
def session(tmp_path):
    return EdgeSession(tmp_path)
"""


def run(directory, *arguments):
    """The output and the exit status of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return done.stdout, done.returncode


def test_every_test_is_collected(tmp_path):
    (tmp_path / "test_mine.py").write_text(SUITE)
    listed, _ = run(tmp_path, "--collect-only")
    collected = {re.match(r"test_mine\.py::(\w+)", line)[1] for line in listed.splitlines() if "::" in line}
    assert len(collected) > 5
    names = [m.name for m in pkgutil.iter_modules(contract.__path__, f"{contract.__name__}.")]
    modules = [contract, *map(importlib.import_module, names)]
    assert collected == {name for module in modules for name in vars(module) if re.match(r"(test_|Test)", name)}


def test_a_store_of_another_package_passes(tmp_path):
    (tmp_path / "test_mine.py").write_text(SUITE)
    output, status = run(tmp_path, "-k", "test_reranked_hits_are or test_exact_search_ranks")
    assert status == 0, output
    assert "5 passed, 2 skipped" in output


def test_a_failure_shows_both_sides(tmp_path):
    wrong = SUITE + "\n\nQdrantEdgeMuvera.exact_search = lambda self, query, limit: []\n"
    (tmp_path / "test_mine.py").write_text(wrong)
    output, status = run(tmp_path, "-k", "test_exact_search_ranks")
    assert status == 1, output
    assert re.search(r"assert \[\] == \[\d+, ", output)
