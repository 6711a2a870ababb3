"""``muvera fit-queries``, and searches with the file that it writes."""

import json

import numpy as np
import pytest

from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.testing.corpus import sample
from muvera_core import FDEConfig, FDEEncoder, QueryFit
from tests.cli.command import run


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A collection with much to correct, another one of the same documents, and the queries of the sample."""
    path = tmp_path_factory.mktemp("fit")
    documents, queries, encoder = sample()
    small = FDEEncoder(FDEConfig(dim=128, r_reps=5, k_sim=3, d_proj=8, normalize=False))
    for name, each in (("small", small), ("other", encoder)):
        with QdrantEdgeMuvera.create(path / "data", name, each) as store:
            store.upsert(range(400), documents[:1600:4])
    np.savez(
        path / "queries.npz", query_tokens=np.concatenate(queries), query_lengths=[len(query) for query in queries]
    )
    np.save(path / "one.npy", queries[0])
    return path


@pytest.fixture(scope="module")
def fitted(home):
    return run(
        "fit-queries", "qdrant-edge:data", "--collection", "small", "--queries", "queries.npz", "--documents", "400",
        "--out", "fit.npz", "--json", cwd=home,
    )  # fmt: skip


def test_the_report_and_the_file(home, fitted):
    assert fitted.returncode == 0, fitted.stderr
    report = json.loads(fitted.stdout)
    assert (report["gained"], report["out"], report["judged_queries"]) == (True, "fit.npz", 28)
    assert report["corrected"][0] > report["plain"][0]
    assert QueryFit.load(home / "fit.npz").report.judged_documents == 200


def test_searches_use_the_file(home, fitted):
    command = ["search", "qdrant-edge:data", "--collection", "small", "--queries", "one.npy", "--rerank", "none"]
    plain = json.loads(run(*command, "--json", cwd=home).stdout)["results"][0]
    corrected = json.loads(run(*command, "--query-fit", "fit.npz", "--json", cwd=home).stdout)["results"][0]
    assert [hit["id"] for hit in plain] != [hit["id"] for hit in corrected]
    exact = run(*command, "--query-fit", "fit.npz", "--exact", cwd=home)
    assert (exact.returncode, "leave --query-fit out" in exact.stderr) == (2, True)


def test_what_does_not_fit_is_one_line(home, fitted):
    command = ["search", "qdrant-edge:data", "--collection", "other", "--queries", "one.npy", "--query-fit"]
    for file, problem in (
        ("fit.npz", "corrects queries of encoder"),
        ("one.npy", "saved query fit"),
        ("no", "no such"),
    ):
        result = run(*command, file, cwd=home)
        assert result.returncode == 1
        assert problem in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_without_a_gain_no_file_is_written(home):
    command = ["fit-queries", "qdrant-edge:data", "--collection", "other", "--queries", "queries.npz"]
    result = run(*command, "--out", "no.npz", "--documents", "400", "--json", cwd=home)
    assert result.returncode == 1
    assert "do not find more than the plain ones" in result.stderr
    assert not json.loads(result.stdout)["gained"]
    assert not (home / "no.npz").exists()


def test_a_file_that_cannot_be_written_is_refused_first(home):
    for out, problem in (("nowhere/fit.npz", "there is no directory nowhere"), ("data", "is a directory")):
        result = run("fit-queries", "qdrant-edge:data", "--collection", "other", "--out", out, cwd=home)
        assert result.returncode == 2
        assert result.stderr == f"muvera: --out {out}: {problem}\n"


def test_numbers_and_modes_that_cannot_be_meant_are_wrong_usage(home):
    command = ["search", "qdrant-edge:data", "--collection", "other", "--queries", "queries.npz"]
    for options in (["--prefetch", "0"], ["--rerank", "best"], ["--model", " "]):
        result = run(*command, *options, cwd=home)
        assert result.returncode == 2
        assert options[0][2:] in result.stderr
        assert "Traceback" not in result.stderr
