"""Moves a PLAID index (ColBERT, RAGatouille, PyLate, fast-plaid, ...) to Milvus, without torch and without the model.

python examples/plaid_to_milvus.py INDEX milvus:http://localhost:19530      # or milvus:FILE.db for milvus-lite
python examples/plaid_to_milvus.py --stand-in milvus:FILE.db                # the sample's index

If it is killed, run it again and it continues where it stopped. `muvera migrate` does the same with more options.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from muvera_adapters import samples
from muvera_adapters.databases import Database
from muvera_adapters.migration import migrate
from muvera_adapters.sources import open_source
from muvera_core import FDEConfig, FDEEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", help="directory of the index")
    parser.add_argument("target")
    parser.add_argument("--collection", default="example_plaid")
    parser.add_argument("--limit", type=int, help="maximum number of documents to move")
    parser.add_argument("--stand-in", action="store_true", help="use the index that comes with the package")
    arguments = parser.parse_args()
    index = Path(samples.__file__).parent / "pydocs" / "index" if arguments.stand_in else arguments.index
    if index is None:
        parser.error("name the directory of an index, or give --stand-in")
    with closing(open_source(index)) as source, Database(arguments.target) as database:
        encoder = FDEEncoder(FDEConfig(dim=source.dim))
        store, report = migrate(source, database, arguments.collection, encoder, limit=arguments.limit, progress=True)
        print(f"{report.written} written, {len(report.failed)} failed, {store.count()} in the collection")
        # a document's own tokens have to find it
        (document,) = store.get([next(iter(source.documents())).id], with_tokens=True)
        print(f"document {document.id!r} finds {store.search(document.tokens, limit=1)[0].id!r}")


if __name__ == "__main__":
    main()
