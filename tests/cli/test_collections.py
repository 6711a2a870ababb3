"""``muvera collections`` and ``remove-fde``, and searches by text and with conditions."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from muvera_adapters.cli import _typer
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER, QUERIES
from tests.cli.command import MUVERA, run

# a stand-in for fastembed's model: each text is the name of a query
FASTEMBED = f"""
import sys, types
import numpy as np
class Model:
    def __init__(self, name): pass
    @staticmethod
    def list_supported_models(): return [{{"model": "org/Model"}}]
    def query_embed(self, texts): return (np.load("queries.npz")[text] for text in texts)
sys.modules["fastembed"] = types.SimpleNamespace(LateInteractionTextEmbedding=Model)
{MUVERA[-1]}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    with QdrantEdgeMuvera.create(tmp_path / "data", "docs", ENCODER, model="org/model@2") as store:
        store.upsert(range(9), DOCUMENTS[:9], [{"year": 2000 + i, "even": i % 2 == 0} for i in range(9)])
    np.save(tmp_path / "q.npy", QUERIES[1])
    np.savez(tmp_path / "queries.npz", first=QUERIES[0], second=QUERIES[1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*arguments):
    done = CliRunner().invoke(_typer, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def search(*options):
    found = called("search", "qdrant-edge:data", "--collection", "docs", "--json", *options)
    return [[hit["id"] for hit in hits] for hits in json.loads(found)["results"]]


def test_collections_and_removal(home):
    vectors = {"tokens": ENCODER.token_dim}
    named = {"name": "docs", "documents": 9, "has_fde": True, "multivectors": vectors}
    assert json.loads(called("collections", "qdrant-edge:data", "--json"))["collections"] == [named]
    remove = ["remove-fde", "qdrant-edge:data", "--collection", "docs"]
    assert "9 documents" in called(*remove, "--dry-run")
    assert search("--queries", "q.npy") != [[]]
    assert json.loads(called(*remove, "--json"))["removed"]
    shown = called("collections", "qdrant-edge:data")
    assert shown.splitlines()[3].split() == ["docs", "9", "no", "tokens", f"({ENCODER.token_dim})"]
    hint = shown.splitlines()[-1]
    assert hint.startswith("to add FDEs: muvera backfill qdrant-edge:data --collection docs --tokens-vector tokens")
    called(*hint.partition("muvera ")[2].split())
    assert json.loads(called("collections", "qdrant-edge:data", "--json"))["collections"] == [named]


def test_conditions(home):
    assert sorted(search("--queries", "q.npy", "--filter", "year>=2006")[0]) == [6, 7, 8]
    assert sorted(search("--queries", "q.npy", "--filter", "year<2003", "--filter", "even!=true", "--exact")[0]) == [1]
    assert search("--queries", "q.npy", "--filter", "none=1") == [[]]
    wrong = run("search", "qdrant-edge:data", "--collection", "docs", "--queries", "q.npy", "--filter", "year>x")
    assert (wrong.returncode, "--filter 'year>x'" in wrong.stderr) == (2, True)


def test_queries_as_text(home):
    """fastembed embeds them with the model of the collection, which has another spelling there."""
    command = ["search", "qdrant-edge:data", "--collection", "docs", "--text-file", "-", "--limit", "2"]

    def asked(text, *more):
        return subprocess.run(
            [sys.executable, "-c", FASTEMBED, *command, *more], input=text, capture_output=True, text=True, check=False
        )

    done = asked("first\n\nsecond\n", "--json")
    assert done.returncode == 0, done.stderr
    found = [[hit["id"] for hit in hits] for hits in json.loads(done.stdout)["results"]]
    assert found == search("--queries", "queries.npz", "--limit", "2")
    refused = asked("first\n", "--model", "org/other")
    assert (refused.returncode, "org/model@2" in refused.stderr) == (1, True)
    assert "give either --queries or --text-file" in asked("first\n", "--queries", "q.npy").stderr
