"""The commands around migrations, as a user runs them; and what they say when something is wrong."""

import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.cli.command import MUVERA
from tests.plaid.files import INDEXES

DIM, N = 16, 60
SIZES = ["--fde-dim", "160"]


def muvera(*arguments, cwd=None, status=0, first=""):
    command = [sys.executable, "-c", first + MUVERA[-1]]
    result = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)
    assert result.returncode == status, (result.stdout, result.stderr)
    return result


def complaint(*arguments, cwd, status=1, first=""):
    """The error, which is one line."""
    result = muvera(*arguments, cwd=cwd, status=status, first=first)
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("muvera: ")
    return last


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(3)
    found = rng.normal(size=(N, 5, DIM)).astype("f4")
    return found / np.linalg.norm(found, axis=2, keepdims=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("migrate")
    np.savez(path / "tokens.npz", tokens=tokens.reshape(-1, DIM), lengths=np.full(N, 5))
    np.save(path / "queries.npy", tokens[:3])
    return path


@pytest.fixture(scope="module")
def migrated(home):
    command = ["migrate", "tokens.npz", "--to", "qdrant-edge:data", "--collection", "x", *SIZES]
    return muvera(*command, "--queries", "queries.npy", "--json", cwd=home)


def test_migrate(migrated):
    report = json.loads(migrated.stdout)
    assert report["source"]["documents"] == N
    assert report["estimate"]["token_bytes"] == 2 * N * 5 * DIM
    assert report["migration"]["written"] == N
    assert report["migration"]["failed"] == []
    assert report["verification"]["passed"]
    assert "rankings" in [check["name"] for check in report["verification"]["checks"]]


def test_migrate_again_and_in_words(home, migrated):
    result = muvera("migrate", "tokens.npz", "--to", "qdrant-edge:data", "--collection", "x", *SIZES, cwd=home)
    assert f"{N} documents ({N} by earlier runs), {N * 5} tokens are in qdrant-edge:data x" in result.stdout
    assert "FAIL" not in result.stdout
    assert "  ok   self-retrieval" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_search(home, migrated, tokens):
    command = ["search", "qdrant-edge:data", "--collection", "x", "--queries", "queries.npy", "--limit", "2"]
    found = json.loads(muvera(*command, "--json", cwd=home).stdout)["results"]
    assert [hits[0]["id"] for hits in found] == [0, 1, 2]
    assert found[0][0]["score"] == pytest.approx(5, abs=0.01)
    words = muvera(*command, "--exact", cwd=home).stdout.splitlines()
    assert words[0] == "query 0"
    assert words[1].split() == ["1", words[1].split()[1], "0"]


def test_queries_of_another_model(home, tmp_path):
    named = f"qdrant-edge:{tmp_path}"
    command = ["migrate", "tokens.npz", "--to", named, "--collection", "x", *SIZES, "--limit", "9"]
    muvera(*command, "--model", "org/model@1", "--no-verify", cwd=home)
    search = ["search", named, "--collection", "x", "--queries", "queries.npy"]
    muvera(*search, "--model", "org/model", cwd=home)
    refused = complaint(*search, "--model", "org/other", cwd=home)
    assert "org/model@1" in refused
    assert "org/other" in refused


def test_dry_run_writes_nothing(home):
    before = sorted(p.name for p in home.rglob("*"))
    command = ["migrate", "tokens.npz", "--to", "qdrant:elsewhere", "--collection", "y", "--dry-run"]
    assert "nothing was written" in muvera(*command, cwd=home).stdout
    assert json.loads(muvera(*command, "--json", cwd=home).stdout)["migration"] is None
    assert sorted(p.name for p in home.rglob("*")) == before


def test_failures_are_told_and_end_with_status_1(tmp_path, tokens):
    broken = tokens.reshape(-1, DIM).copy()
    broken[37, 3] = np.nan
    broken[12] = 0  # padding, which is left out
    broken[50:55] = 0
    np.savez(tmp_path / "tokens.npz", tokens=broken, lengths=np.full(N, 5))
    command = ["migrate", "tokens.npz", "--to", "qdrant:data", "--collection", "x", *SIZES]
    report = json.loads(muvera(*command, "--json", cwd=tmp_path, status=1).stdout)
    assert [(f["id"], f["position"]) for f in report["migration"]["failed"]] == [(7, 7), (10, 10)]
    reasons = [failure["reason"] for failure in report["migration"]["failed"]]
    assert "token 2 has a NaN" in reasons[0]
    assert "not all zeros" in reasons[1]
    assert (report["migration"]["written"], report["migration"]["zero_rows"]) == (N - 2, 1)
    assert report["verification"]["passed"]
    result = muvera(*command, cwd=tmp_path, status=1)
    assert "2 documents failed:\n  7 at position 7: " in result.stdout


def test_texts_of_a_plaid_index(tmp_path):
    path = INDEXES / "stanford_nbits2_updated" / "index"
    lengths = [json.loads(p.read_text()) for p in sorted(path.glob("doclens.*.json"))]
    n = sum(map(len, lengths))
    (tmp_path / "ids.txt").write_text("".join(f"name{i}\n" for i in range(n)))
    lines = (f"{i}\t{'word ' * k}\n" for i, k in enumerate(k for part in lengths for k in part))
    (tmp_path / "texts.tsv").write_text("".join(lines))
    files = ["--ids", "ids.txt", "--texts", "texts.tsv"]
    found = json.loads(muvera("inspect", path, *files, "--json", cwd=tmp_path).stdout)
    assert (found["positions"], found["payload_keys"], found["first_id"]) == (n, ["text"], "name0")
    assert found["documents"] < n
    command = ["migrate", path, *files, "--to", "qdrant-edge:data", "--collection", "x", "--limit", "30"]
    assert json.loads(muvera(*command, "--json", cwd=tmp_path).stdout)["verification"]["passed"]


@pytest.mark.parametrize("target", ["qdrant-edge:data", "qdrant-edge:."])
def test_inside_the_index(tmp_path, target):
    """The collection and the journal lie among the index's files, and are not taken for them."""
    path = shutil.copytree(INDEXES / "stanford_nbits2" / "index", tmp_path / "index")
    size = json.loads(muvera("inspect", ".", "--json", cwd=path).stdout)["source_bytes"]
    command = ["migrate", ".", "--to", target, "--collection", "docs", *SIZES, "--no-verify", "--limit"]
    muvera(*command, "20", cwd=path)
    (path / "queries.npy").write_bytes(b"of the user")
    muvera(*command, "40", cwd=path)
    assert json.loads(muvera("inspect", ".", "--json", cwd=path).stdout)["source_bytes"] == size
    (path / "doclens.0.json").touch()
    assert "the file doclens.0.json was written" in complaint(*command, "60", cwd=path)


def test_paths_that_cannot_be_written(home, tmp_path):
    """A file in the place of a directory stops the superuser too."""
    (tmp_path / "occupied").write_text("")
    np.savez(tmp_path / "tokens.npz", **np.load(home / "tokens.npz"))
    command = ["migrate", "tokens.npz", "--to", "qdrant-edge:data", "--collection", "x", *SIZES]
    for options in (["--journal", "occupied/journal"], ["--journal", "."]):
        assert "name another file with --journal" in complaint(*command, *options, cwd=tmp_path)
    for arguments in (
        [*command[:3], "qdrant-edge:occupied/data", *command[4:]],
        ["quickstart", "--data", "occupied/data"],
        ["evaluate", "tokens.npz", "--pseudo", "4", "--encoder", "fde:160", "--report", "occupied/report"],
    ):
        assert "occupied" in complaint(*arguments, cwd=tmp_path)


def test_columns_that_are_left_out(tmp_path, tokens):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"page_id": range(N), "title": ["t"] * N, "image": [b"x"] * N, "emb": tokens.tolist()}
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    command = ["migrate", "x.parquet", "--to", "qdrant-edge:data", "--collection", "x", *SIZES]
    assert "column 'image' (binary); leave it out with --drop image" in complaint(*command, cwd=tmp_path)
    done = muvera(*command, "--drop", "image", "--json", cwd=tmp_path)
    assert "guessed: ids are taken from the column 'page_id'" in done.stderr
    assert json.loads(done.stdout)["migration"]["written"] == N
    assert json.loads(done.stdout)["source"]["format"] == "parquet, tokens in 'emb', ids in 'page_id'"
    command = ["migrate", "x.parquet", "--to", "qdrant-edge:data", "--collection", "y", *SIZES, "--ids", "none"]
    done = muvera(*command, "--payload", "none", "--filter", "page_id<30", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["migration"]["written"] == 30
    found = json.loads(muvera("inspect", "x.parquet", "--drop", "image", "--json", cwd=tmp_path).stdout)
    assert found["payload_keys"] == ["title"]
    assert "guessed" in found["warnings"][0]


def test_documents_that_cannot_be_encoded_are_named_and_left_out(tmp_path, tokens):
    """As collections have them; here too a source may begin with documents without tokens."""
    broken = tokens.copy()
    broken[3, 2] = 0
    broken[7, 1, 0] = np.nan
    lengths = np.concatenate([np.zeros(300, "i8"), np.full(N, 5)])
    np.savez(tmp_path / "tokens.npz", tokens=broken.reshape(-1, DIM), lengths=lengths)
    assert "300 of 16 dims" in muvera("inspect", "tokens.npz", cwd=tmp_path).stdout
    found = json.loads(muvera("diagnose", "tokens.npz", "--json", cwd=tmp_path).stdout)
    assert "1 documents with NaN or infinite values are left out: 307." in found["notes"]
    assert "1 documents have rows of zeros (padding), which are left out." in found["notes"]


def test_inspect(home):
    words = muvera("inspect", "tokens.npz", cwd=home).stdout
    assert "300 of 16 dims" in words
    assert "weaviate:URL" in words
    found = json.loads(muvera("inspect", INDEXES / "fastplaid170_nbits4" / "index", "--json").stdout)
    assert (found["format"], found["documents"], found["dim"]) == ("fast-plaid", 240, 128)
    assert found["targets"]["qdrant-edge:DIR"]["token_bytes"] == 2 * found["tokens"] * 128


def test_backfill(tmp_path, tokens):
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(tmp_path / "data"))
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vector = models.VectorParams(size=DIM, distance=models.Distance.COSINE, multivector_config=multi)
    client.create_collection("pages", vectors_config={"colbert": vector})
    points = [models.PointStruct(id=i, vector={"colbert": m.tolist()}) for i, m in enumerate(tokens)]
    client.upsert("pages", points)
    client.close()
    command = ["backfill", "qdrant:data", "--collection", "pages", "--tokens-vector", "colbert", *SIZES]
    dry = muvera(*command, "--dry-run", cwd=tmp_path)
    assert "60 documents have no FDE" in dry.stdout
    assert json.loads(muvera(*command, "--json", cwd=tmp_path).stdout)["written"] == N
    assert "0 documents got their FDE" in muvera(*command, cwd=tmp_path).stdout
    verify = ["verify", "qdrant:data", "--collection", "pages"]
    assert "60 documents were compared: 0 have a stale FDE" in muvera(*verify, cwd=tmp_path).stdout
    client = QdrantClient(path=str(tmp_path / "data"))
    client.update_vectors("pages", [models.PointVectors(id=3, vector={"colbert": tokens[5].tolist()})])
    client.upsert("pages", [models.PointStruct(id=100, vector={"colbert": tokens[6].tolist()})])
    client.close()
    found = json.loads(muvera(*verify, "--json", cwd=tmp_path, status=1).stdout)
    assert (found["passed"], found["checked"], found["stale"], found["without_fde"]) == (False, N, [3], 1)
    assert "3 is stale" in muvera(*verify, cwd=tmp_path, status=1).stdout
    assert "1 stale FDEs were written again" in muvera(*command, "--refresh", cwd=tmp_path).stdout
    assert json.loads(muvera(*verify, "--json", cwd=tmp_path).stdout)["passed"]
    assert "--refresh" in complaint(*command, "--refresh", "--dry-run", cwd=tmp_path, status=2)
    np.save(tmp_path / "q.npy", tokens[4])
    found = muvera("search", "qdrant:data", "--collection", "pages", "--queries", "q.npy", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["results"][0][0]["id"] == 4
    wrong = ["backfill", "qdrant:data", "--collection", "pages", "--tokens-vector", "pages"]
    assert "no vector 'pages'; there are: 'colbert', 'fde'" in complaint(*wrong, cwd=tmp_path)
    assert "no collection other" in complaint(*[*wrong[:3], "other", *wrong[4:]], cwd=tmp_path)
    assert "WrongUsage" not in complaint(
        "backfill", "qdrant-edge:e", "--collection", "x", "--tokens-vector", "t", "--into", "y", cwd=tmp_path, status=2
    )


def test_complaints(home, migrated):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"qdrant:http://127.0.0.1:{free.getsockname()[1]}"
        to = ["--to", "qdrant-edge:data", "--collection"]
        for arguments, status, says in [
            (["migrate", "absent", *to, "y"], 1, "absent: no such file or directory"),
            (["migrate", ".", *to, "y"], 1, "not a PLAID index"),
            (["migrate", "tokens.npz", "--to", "edge:data", "--collection", "y"], 2, "targets are qdrant-edge:DIR"),
            (["migrate", "tokens.npz", "--to", "qdrant:localhost:6333", "--collection", "y"], 2, "http://localhost"),
            (["migrate", "tokens.npz", "--to", down, "--collection", "y"], 1, "is the server running?"),
            (["migrate", "tokens.npz", *to, "x", *SIZES, "--journal", "other"], 1, "--into-existing"),
            (["migrate", "tokens.npz", *to, "y", "--quantization", "rq8"], 2, "int8"),
            (["migrate", "tokens.npz", *to, "y", "--fde-dim", "99"], 2, "at least 160 dimensions"),
            (["migrate", "tokens.npz", *to, "y", "--encoder", "absent.npz"], 1, "absent.npz: no such file"),
            (["migrate", "tokens.npz", *to, "y", "--filter", "lang"], 2, "KEY=VALUE"),
            (["migrate", "tokens.npz", *to, "y", "--ids", "ids.txt"], 1, "no array and no file of this name"),
            (["migrate", "tokens.npz", *to, "y", "--texts", "t.tsv"], 2, "--texts does not apply"),
            (["migrate", "tokens.npz", *to, "y", "--lengths", "widths"], 1, "there is no array of this name"),
            (["migrate", "tokens.npz", *to, "y", "--old-results", "r.json"], 2, "--queries"),
            (["migrate", "tokens.npz", *to, "y", "--workers", "2"], 2, "one worker"),
            (["migrate", "qdrant-edge:data", "--from-collection", "no", *to, "y"], 1, "no.muvera.json is missing"),
            (["search", "qdrant-edge:data", "--collection", "no", "--queries", "queries.npy"], 1, "missing"),
            (["search", "qdrant:absent", "--collection", "x", "--queries", "queries.npy"], 1, "there is no absent"),
            (["search", "qdrant-edge:data", "--collection", "x", "--queries", "absent.npy"], 1, "no such file"),
            (["inspect", "absent"], 1, "no such file or directory"),
        ]:
            assert says in complaint(*arguments, cwd=home, status=status), arguments
    assert not (home / "absent").exists()
    # whatever failed left no journal and no collection
    assert sorted(p.name for p in home.rglob("*.sqlite")) == ["x.migration.sqlite"]
    assert muvera("migrate", "tokens.npz", cwd=home, status=2).returncode == 2


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("qdrant-edge:e", "qdrant_edge", "edge"),
        ("qdrant:q", "qdrant_client", "qdrant"),
        ("weaviate:http://127.0.0.1:1", "weaviate", "weaviate"),
    ],
)
def test_missing_extras(home, target, module, extra):
    first = f"import sys; sys.modules[{module!r}] = None; "
    command = ["migrate", "tokens.npz", "--to", target, "--collection", "z"]
    assert f"pip install 'muvera-adapters[{extra}]'" in complaint(*command, cwd=home, first=first)
