"""``muvera search --explain``."""

import json

import numpy as np
import pytest

from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER, QUERIES
from tests.cli.command import run

SEARCH = ["search", "qdrant-edge:data", "--collection", "docs", "--queries", "q.npy", "--limit", "3", "--explain"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("search")
    with QdrantEdgeMuvera.create(path / "data", "docs", ENCODER) as store:
        store.upsert(range(9), DOCUMENTS[:9])
    np.save(path / "q.npy", QUERIES[1])
    return path


def test_every_hit_is_explained(home):
    done = run(*SEARCH, cwd=home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * (1 + 2 + len(QUERIES[1]))  # the hit; the title and the heads of columns; the query tokens
    score, name = lines[0].split()[1:]
    assert lines[1].strip() == f"document {name}, score {score}"


@pytest.mark.parametrize("options", [[], ["--exact"], ["--rerank", "none"]])
def test_explanations_in_json(home, options):
    done = run(*SEARCH, "--json", *options, cwd=home)
    assert done.returncode == 0, done.stderr
    (hits,) = json.loads(done.stdout)["results"]
    for hit in hits:
        why, similarities = hit["explanation"], QUERIES[1] @ DOCUMENTS[hit["id"]].T
        assert why["score"] == pytest.approx(similarities.max(axis=1).sum(), abs=1e-4)
        assert [match["document_token"] for match in why["matches"]] == similarities.argmax(axis=1).tolist()
        assert sum(match["share"] for match in why["matches"]) == pytest.approx(1)
        assert hit["score"] == pytest.approx(why["score"], abs=1e-4) or options == ["--rerank", "none"]
