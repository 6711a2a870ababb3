"""The command as a user runs it."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.cli.command import run


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    directory = tmp_path_factory.mktemp("quickstart")
    return directory, run("quickstart", "--json", cwd=directory)


def test_json(first):
    _, result = first
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["documents"], content["tokens"], content["questions"]) == (2041, 127226, 55)
    rows = {row["mode"]: row for row in content["rows"]}
    assert list(rows) == ["fde", "two_stage", "exact"]
    assert rows["two_stage"]["recall_at_10"] >= 0.975
    assert rows["exact"]["recall_at_10"] >= 0.995  # the engine stores float16
    assert rows["exact"]["success_at_10"] == pytest.approx(52 / 55)
    assert 0 < rows["fde"]["p50_ms"] <= rows["fde"]["p95_ms"]
    recalls = [row["recall_at_10"] for row in content["recall_by_candidates"]]
    assert recalls == sorted(recalls)


def test_again_uses_what_is_there(first):
    directory, _ = first
    result = run("quickstart", cwd=directory)
    assert result.returncode == 0, result.stderr
    assert "2,041 documents are in muvera-data/pydocs already" in result.stdout
    for text in ("two stages, 200 candidates", "recall@10", "split a url into its components", "urllib.parse", "Next:"):
        assert text in result.stdout
    assert max(map(len, result.stdout.splitlines()[:30])) <= 100


def test_an_interrupted_load_is_finished(first, tmp_path):
    from muvera_adapters.qdrant import QdrantEdgeMuvera
    from muvera_core import FDEConfig, FDEEncoder

    with QdrantEdgeMuvera.create(tmp_path / "data", "pydocs", FDEEncoder(FDEConfig(128))) as store:
        store.upsert(["json.dumps"], [[[1.0] * 128]])
    result = run("quickstart", "--data", "data", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"][2]["recall_at_10"] >= 0.995


def test_another_collection_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "muvera-data" / "pydocs").mkdir(parents=True)
    (tmp_path / "muvera-data" / "pydocs" / "mine.txt").write_text("mine")
    result = run("quickstart", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("muvera: muvera-data/pydocs exists")
    assert (tmp_path / "muvera-data" / "pydocs" / "mine.txt").read_text() == "mine"


def test_version_and_usage():
    assert run("--version").stdout.strip() == version("muvera-adapters")
    module = subprocess.run(
        [sys.executable, "-m", "muvera_adapters", "-h"], capture_output=True, text=True, check=False
    )
    assert (module.returncode, module.stdout) == (0, run("--help").stdout)
    assert run("quickstart", "--nonsense").returncode == 2
    assert "quickstart" in run("--help").stdout


def test_missing_extra_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['qdrant_edge'] = None; sys.argv = ['muvera', 'quickstart']; "
        "from muvera_adapters.cli import app; app()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "pip install 'muvera-adapters[edge]'" in result.stderr
    assert not list(tmp_path.iterdir())
