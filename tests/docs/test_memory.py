"""The tables of docs/memory.md are what ``estimate`` says; a failure shows the lines that the page has to have."""

from __future__ import annotations

import re
from pathlib import Path

from muvera_adapters.evidence import estimate

PAGE = Path(__file__).parents[2] / "docs" / "memory.md"
MODELS = {
    "answerai-colbert-small-v1": (96, 80),
    "ColBERTv2": (128, 80),
    "jina-colbert-v2": (128, 500),
    "ColQwen2": (128, 750),
    "ColPali": (128, 1030),
}
TARGETS = {
    "Qdrant": "qdrant:http://localhost:6333",
    "Weaviate": "weaviate:http://localhost:8080",
    "Milvus": "milvus:http://localhost:19530",
}
DIM = 2560


def gigabytes(n_bytes):
    return f"{n_bytes / 1e9:,.1f}" if n_bytes < 100e9 else f"{n_bytes / 1e9:,.0f}"


def rows():
    for model, (token_dim, tokens) in MODELS.items():
        for database, target in TARGETS.items():
            two, per_token = estimate(1_000_000, tokens, DIM, token_dim=token_dim, databases=[target])
            sizes = (two.ram, two.disk, per_token.ram)
            yield f"| {model} | {tokens:,} x {token_dim} | {database} | {' | '.join(map(gigabytes, sizes))} |"


def stored_rows():
    for preset in ("float16", "turbo8", "turbo4"):
        (token_dim, tokens), target = MODELS["ColPali"], TARGETS["Qdrant"]
        two, _ = estimate(1_000_000, tokens, DIM, token_dim=token_dim, databases=[target], tokens_as=preset)
        yield f'| `"{preset}"` | {gigabytes(two.ram)} | {gigabytes(two.disk)} |'


def test_tables_of_memory_are_those_of_estimate():
    expected = [*rows(), *stored_rows()]
    shown = [line for line in PAGE.read_text().splitlines() if re.match(r"\| .* [\d.,]+ \| [\d.,]+ \|$", line)]
    assert len(expected) == len(MODELS) * len(TARGETS) + 3
    assert shown == expected, "docs/memory.md has to have:\n" + "\n".join(expected)
