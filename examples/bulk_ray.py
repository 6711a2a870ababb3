"""Encodes and loads a corpus into Weaviate or Qdrant in parallel, on as many machines as the Ray cluster has.

python examples/bulk_ray.py corpus.jsonl weaviate:http://localhost:8080      # lines {"id": ..., "text": ...}
python examples/bulk_ray.py corpus.jsonl qdrant:http://localhost:6333 [--workers 2] [--stand-in]

After a failure, run it again: it skips documents that exist, and `upsert` replaces by id. Each worker embeds, encodes
and writes its batches over its own connection; Ray repeats the batches of machines that fail.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

import numpy as np
import ray

from muvera_adapters.databases import Database
from muvera_adapters.errors import CollectionExists
from muvera_core import FDEConfig, FDEEncoder

COLLECTION = "ExampleCorpus"


class EncodeAndLoad:
    """One worker: made once, called with batches of columns `id` and `text`."""

    def __init__(self, target: str, stand_in: bool) -> None:
        if stand_in:
            from stand_in import embed

            self.embed = embed
        else:
            from fastembed import LateInteractionTextEmbedding

            self.embed = LateInteractionTextEmbedding("colbert-ir/colbertv2.0").embed
        self.database = Database(target)  # kept open as long as the worker lives
        self.store = self.database.open(COLLECTION)  # with the encoder that the collection keeps

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids, texts = batch["id"].tolist(), batch["text"].tolist()
        new = [i for i, document in enumerate(self.store.get(ids)) if document is None]
        ids, texts = [ids[i] for i in new], [texts[i] for i in new]
        failed: dict[Any, str] = {}
        if ids:
            failed = self.store.upsert(ids, self.embed(texts), [{"text": text} for text in texts]).failed
        errors = [str(failed.get(i, "")) for i in ids]  # "": written
        return {"id": np.array(ids, object), "error": np.array(errors, object)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("target", help="target of a server, with a URL that the workers can reach")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--batch", type=int, default=64, help="number of documents that a worker has in memory at a time"
    )
    parser.add_argument("--stand-in", action="store_true", help="use vectors of words instead of a model")
    arguments = parser.parse_args()
    with Database(arguments.target) as database, contextlib.suppress(CollectionExists):
        database.create(COLLECTION, FDEEncoder(FDEConfig(dim=128)))

    results = ray.data.read_json(arguments.corpus, lines=True).map_batches(
        EncodeAndLoad,
        fn_constructor_args=(arguments.target, arguments.stand_in),
        batch_size=arguments.batch,
        concurrency=arguments.workers,
        num_cpus=0.5,  # what Ray reserves for a worker: with a whole one for each, two cores leave none for reading
    )
    written = failed = 0
    for row in results.iter_rows():
        written += not row["error"]
        if row["error"]:
            failed += 1
            print(f"{row['id']}: {row['error']}", file=sys.stderr)
    print(f"{written} written, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
