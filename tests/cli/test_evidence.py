"""``muvera diagnose``, ``evaluate``, ``tune`` and ``estimate`` as a user runs them."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from muvera_adapters.evidence.measuring import exact_top
from muvera_adapters.evidence.target_recall import grown
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_core import FDEConfig, FDEEncoder
from tests.cli.command import MUVERA, run


@pytest.fixture(scope="module")
def data(tmp_path_factory, pydocs, pydocs_documents):
    """Documents, queries, judgements and a collection, as files."""
    path = tmp_path_factory.mktemp("evidence")
    documents = pydocs_documents[:300]
    np.savez(path / "docs.npz", doc_tokens=documents.values, doc_offsets=documents.offsets)
    np.savez(path / "queries.npz", query_tokens=pydocs.queries.values, query_offsets=pydocs.queries.offsets)
    top = exact_top(pydocs.queries, documents, list(range(300)), 1)
    (path / "qrels.tsv").write_text("".join(f"{i}\t{ids[0]}\t1\n" for i, ids in enumerate(top)))
    with QdrantEdgeMuvera.create(path, "docs", FDEEncoder(FDEConfig(128, r_reps=10, k_sim=4, d_proj=8))) as store:
        store.upsert(range(300), documents)
        store.wait_indexed()
    return path


def test_diagnose(data):
    result = run("diagnose", "docs.npz", "--queries", "queries.npz", "--json", cwd=data)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["documents"], content["verdict"], content["queries_are"]) == (300, "fde", "given")
    shown = run("diagnose", "docs.npz", "--sample", "100", cwd=data)
    assert shown.returncode == 0, shown.stderr
    for text in ("squared norm of the mean", "An FDE fits", "pseudo-queries", "100 random documents of 300"):
        assert text in " ".join(shown.stdout.split())
    assert "\r" not in shown.stderr  # no bars without a terminal


def test_evaluate_writes_the_report(data, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["evaluate", str(data / "docs.npz"), "--queries", str(data / "queries.npz"), "--encoder", "fde:1280"]
    arguments += ["--judgements", str(data / "qrels.tsv"), "--candidates", "10,100", "--quantization", "int8"]
    result = run(*arguments, "--report", "out", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content == json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert content["exact_quality"]["RR@10"] == 1
    assert [c["how"] for c in content["curves"]] == ["brute force", "index"]
    assert content["source"].startswith(f"{data / 'docs.npz'}: 300 documents of width 128; queries of ")
    assert content["machine"]["processor"]
    lost = next(example for example in content["examples"] if example["kind"] == "lost")
    assert len(lost["places"]) == 10
    assert sum(place["two_stages"] is not None for place in lost["places"]) == round(10 * lost["reranked"]) < 10
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    for text in ("A query gained", "A query lost", content["began"], "r_reps 40, k_sim 2"):
        assert text in page
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"evaluation.{e}" for e in ("html", "json", "md")]


def test_evaluate_without_an_index_is_the_same_for_the_same_seed(data):
    def once(seed):
        result = run("evaluate", "docs.npz", "--encoder", "fitted:1280", "--quantization", "none", "--pseudo", "20",
                     "--candidates", "20", "--seed", seed, "--json", cwd=data)  # fmt: skip
        assert result.returncode == 0, result.stderr
        content = json.loads(result.stdout)
        return {key: value for key, value in content.items() if key not in ("exact_latency", "began", "seconds")}

    assert once("3") == once("3") != once("4")


def test_evaluate_a_collection(data):
    arguments = [
        "evaluate",
        "qdrant-edge:.",
        "--collection",
        "docs",
        "--queries",
        "queries.npz",
        "--candidates",
        "20,300",
    ]
    result = run(*arguments, cwd=data)
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "exact_search of the collection docs" in text
    assert re.search(r"\d\.\d{3} \(\d\.\d\d.\d\.\d\d\)", text)  # the interval
    assert "p95 ms" in text
    assert max(map(len, result.stdout.splitlines()[6:])) <= 80
    sampled = run(*arguments, "--truth", "sample", "--sample", "100", "--json", cwd=data)
    assert sampled.returncode == 0, sampled.stderr
    assert json.loads(sampled.stdout)["documents"] == 100


def test_recommend(data):
    arguments = ["recommend", "docs.npz", "--queries", "queries.npz", "--recall", "0.8"]
    result = run(*arguments, "--json", cwd=data)
    assert result.returncode == 0, result.stderr + result.stdout
    content = json.loads(result.stdout)
    assert (content["documents"], content["queries_are"], content["held"]) == (300, "given", True)
    assert content["encoder"]["type"] == "fde"
    shown = run(*arguments, "--documents", "30000", cwd=data)
    assert shown.returncode == 0, shown.stderr
    more = f"prefetch={grown(content['prefetch'], 300, 30_000)}"
    for text in (content["setting"]["encoder"], f"{more} for 30,000 documents", "chosen; recall,", "wait_indexed()"):
        assert text in shown.stdout
    assert max(map(len, shown.stdout.split("\nfrom ")[0].splitlines())) <= 80
    small = run(*arguments, "--max-bytes", "10", cwd=data)
    assert small.returncode == 1
    assert "the least is" in small.stderr


def test_tune_a_collection(data):
    arguments = ["tune", "qdrant-edge:.", "--collection", "docs", "--queries", "queries.npz", "--json"]
    result = run(*arguments, "--recall", "0.8", cwd=data)
    assert result.returncode == 0, result.stderr + result.stdout
    assert json.loads(result.stdout)["held"] is True
    missed = run(*arguments, "--recall", "1", "--max-prefetch", "10", cwd=data)
    assert missed.returncode == 1
    assert json.loads(missed.stdout)["prefetch"] is None


def test_estimate():
    result = run("estimate", "1000000", "--tokens", "100", "--fde-dim", "1024", "--database", "qdrant", "--json")
    assert result.returncode == 0, result.stderr
    two, tokens = json.loads(result.stdout)["estimates"]
    assert two["ram"] < tokens["ram"] / 10
    shown = run("estimate", "1000", "--tokens", "50")
    for text in (
        "weaviate:URL: two stages",
        "milvus:URL: a vector per token",
        "total",
        "no collection like this was measured",
        "Processor time: load ",
        "Processor time: not measured.",
    ):
        assert text in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["diagnose", "nothing.npz"], 1, "nothing.npz: no such file"),
        (["evaluate", "docs.npz", "--encoder", "magic"], 2, "'magic' is not an encoder"),
        (["evaluate", "docs.npz", "--encoder", "fde:1,2"], 2, "--encoder fde:1,2"),
        (["evaluate", "docs.npz", "--candidates", "ten"], 2, "takes numbers with commas"),
        (["evaluate", "qdrant-edge:."], 2, "name the collection"),
        (["evaluate", "qdrant-edge:.", "--collection", "none"], 1, "none"),
        (["tune", "docs.npz", "--recall", "95"], 2, "above 0 and at most 1"),
        (["estimate", "10", "--tokens", "5", "--database", "oracle"], 2, "'oracle' is not a database"),
        (["estimate", "10"], 2, "tokens"),
    ],
)
def test_failures_say_why(data, arguments, status, message):
    result = run(*arguments, cwd=data)
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("module", "options"), [("matplotlib", ["--report", "out"]), ("ir_measures", ["--judgements", "qrels.tsv"])]
)
def test_missing_extras_are_found_before_anything_is_measured(data, module, options):
    # documents are not even read
    code = f"import sys; sys.modules[{module!r}] = None; {MUVERA[-1]}"
    command = [sys.executable, "-c", code, "evaluate", "docs.npz", "--pseudo", "4", *options]
    result = subprocess.run(command, capture_output=True, text=True, cwd=data, check=False)
    assert result.returncode == 1
    assert "pip install 'muvera-adapters[eval]'" in result.stderr
    assert not (data / "out").exists()
