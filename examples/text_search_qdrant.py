"""Text search in Qdrant with a ColBERT model of fastembed.

python examples/text_search_qdrant.py "how do I sort a list" [--url http://localhost:6333] [--stand-in]
"""

from __future__ import annotations

import argparse

from qdrant_client import QdrantClient

from muvera_adapters.qdrant import QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder

TEXTS = [
    "Sort a list in place with list.sort, or make a sorted copy with sorted.",
    "Open a file and read it line by line.",
    "Create a temporary file that is removed when it is closed.",
    "Split a URL into its components.",
    "Replace all matches of a regular expression in a string.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--url", help="URL of a Qdrant server; default: Qdrant in memory")
    parser.add_argument("--stand-in", action="store_true", help="use vectors of words instead of a model")
    arguments = parser.parse_args()
    if arguments.stand_in:
        from stand_in import embed

        embed_query = embed
    else:
        from fastembed import LateInteractionTextEmbedding

        model = LateInteractionTextEmbedding("colbert-ir/colbertv2.0")
        embed, embed_query = model.embed, model.query_embed

    client = QdrantClient(arguments.url, timeout=60) if arguments.url else QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "example_texts", FDEEncoder(FDEConfig(dim=128)))
    report = store.upsert(range(len(TEXTS)), embed(TEXTS), [{"text": text} for text in TEXTS])
    print(f"{report.written} written, {len(report.failed)} failed")
    query_tokens = next(iter(embed_query([arguments.question])))
    for hit in store.search(query_tokens, limit=3):
        print(f"{hit.score:6.2f}  {hit.payload['text']}")
    store.drop()
    client.close()


if __name__ == "__main__":
    main()
