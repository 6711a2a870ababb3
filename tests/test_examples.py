"""Examples run as a reader runs them, with stand-in embeddings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def output(name, *arguments):
    """What the script prints; it has to succeed."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments), "--stand-in"]
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
