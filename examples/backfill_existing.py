"""Adds FDEs to an existing Qdrant collection of ColBERT vectors, and searches it in two stages.

python examples/backfill_existing.py COLLECTION --vector colbert --url http://localhost:6333 [--dry-run]
python examples/backfill_existing.py --stand-in      # makes such a collection in memory first
"""

from __future__ import annotations

import argparse

from qdrant_client import QdrantClient, models

from muvera_adapters.qdrant import QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder


def existing(client: QdrantClient, name: str, vector: str) -> None:
    """What someone made without this library."""
    from stand_in import DIM, embed

    params = models.VectorParams(
        size=DIM,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(name, vectors_config={vector: params})
    texts = [f"page {i} about topic{i % 7} and item{i}" for i in range(50)]
    points = [models.PointStruct(id=i, vector={vector: m.tolist()}) for i, m in enumerate(embed(texts))]
    client.upsert(name, points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", nargs="?", default="example_pages")
    parser.add_argument("--vector", default="colbert", help="name of the multivector of the collection")
    parser.add_argument("--url", default="http://localhost:6333")
    parser.add_argument("--dry-run", action="store_true", help="write nothing, only report what would be done")
    parser.add_argument("--stand-in", action="store_true", help="use a collection made in memory")
    arguments = parser.parse_args()
    client = QdrantClient(":memory:") if arguments.stand_in else QdrantClient(arguments.url, timeout=60)
    if arguments.stand_in:
        existing(client, arguments.collection, arguments.vector)

    multivector = client.get_collection(arguments.collection).config.params.vectors[arguments.vector]
    encoder = FDEEncoder(FDEConfig(dim=multivector.size))
    store = QdrantMuvera.adopt(client, arguments.collection, encoder, tokens_vector=arguments.vector)
    report = store.backfill(progress=True, dry_run=arguments.dry_run)
    print(f"{report.written} written, {report.remaining} remaining, {len(report.failed)} failed")
    if not arguments.dry_run:
        # each of some documents, asked with its own tokens, has to find itself
        documents = [d for _, d in zip(range(20), store.scroll(with_tokens=True), strict=False)]
        found = sum(store.search(d.tokens, limit=1)[0].id == d.id for d in documents)
        print(f"{found} of {len(documents)} documents find themselves")
    client.close()


if __name__ == "__main__":
    main()
