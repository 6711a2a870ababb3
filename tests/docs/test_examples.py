"""Examples run as a reader runs them, with stand-in embeddings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from muvera_adapters.samples import load_pydocs
from muvera_adapters.testing import CannotStart
from servers import weaviate_server

EXAMPLES = Path(__file__).parents[2] / "examples"


def output(name, *arguments, stand_in=True):
    """What the script prints; it has to succeed."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments), *(["--stand-in"] if stand_in else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_text_search_in_qdrant():
    written, first, *_ = output("text_search_qdrant.py", "how do I sort a list")
    assert written == "5 written, 0 failed"
    assert "list.sort" in first


def test_existing_collection_is_backfilled():
    assert output("backfill_existing.py") == [
        "50 written, 0 remaining, 0 failed",
        "20 of 20 documents find themselves",
    ]
    (planned,) = output("backfill_existing.py", "--dry-run")
    assert planned == "0 written, 50 remaining, 0 failed"


def test_plaid_index_moves_to_milvus(tmp_path):
    pytest.importorskip("milvus_lite", reason="pip install pymilvus milvus-lite")
    command = ["plaid_to_milvus.py", f"milvus:{tmp_path / 'docs.db'}", "--limit"]
    assert output(*command, 40)[0] == "40 written, 0 failed, 40 in the collection"
    more, found = output(*command, 60)  # goes on
    assert more == "60 written, 0 failed, 60 in the collection"
    assert found == "document 0 finds 0"


def test_docstrings_in_lancedb(tmp_path):
    pytest.importorskip("lancedb", reason="pip install 'muvera-adapters[lancedb]'")
    loaded, _, by_tokens, both, filtered = output("hybrid_lancedb.py", tmp_path, stand_in=False)
    assert loaded == "1200 written, 0 not indexed"
    assert by_tokens.startswith("by tokens: ")
    assert both.startswith("by tokens and keywords: ")
    module = load_pydocs().ids[0].partition(".")[0]
    assert all(name.startswith(module) for name in filtered.removeprefix("in one module: ").split(", "))


def test_page_is_explained(tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'muvera-adapters[eval]'")
    found = output("explain_page.py", "revenue by quarter", "--out", tmp_path / "map.png")
    matches = [line.split() for line in found[2:]]
    assert {word for _, word, *_ in matches} == {"revenue", "by", "quarter"}
    # rows of 32 patches: the words are in the page's line 6
    assert {int(document_token) // 32 for _, word, document_token, *_ in matches if word != "quarter"} == {6}
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_pages_in_weaviate(tmp_path):
    try:
        with weaviate_server.address(tmp_path) as (host, port, grpc_port):
            pages = ["annual_report_cover.png", "revenue_by_quarter.png", "list_of_offices.png"]
            where = ["--host", host, "--port", port, "--grpc-port", grpc_port]
            found = output("pages_weaviate.py", "revenue of the quarter", *pages, *where)
    except CannotStart as problem:
        pytest.skip(str(problem))
    assert found[0].split()[1] == "revenue_by_quarter.png"
    assert len(found) == 3
