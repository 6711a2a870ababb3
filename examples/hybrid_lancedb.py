"""Docstrings of Python in LanceDB, found by their tokens, by keywords, and with a filter in SQL.

python examples/hybrid_lancedb.py [DIRECTORY]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile

import lancedb
import pyarrow as pa
from lancedb.index import FTS
from lancedb.query import MatchQuery

from muvera_adapters.lancedb import LanceMuvera
from muvera_adapters.samples import docstring, load_pydocs
from muvera_core import FDEConfig, FDEEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", help="directory of the database; default: a temporary one")
    parser.add_argument("--limit", type=int, default=1_200, help="number of documents")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments.directory or temporary, arguments.limit)


def run(directory: str, limit: int) -> None:
    sample = load_pydocs()
    documents = list(itertools.islice(sample.source.documents(), limit))
    names = sample.ids[:limit]
    payloads = [{"module": name.partition(".")[0], "text": docstring(name) or name, "name": name} for name in names]

    client = lancedb.connect(directory)
    columns = pa.schema([("module", pa.string()), ("text", pa.string())])
    encoder = FDEEncoder(FDEConfig.of_size(128, 2_560))
    store = LanceMuvera.create(client, "pydocs", encoder, columns=columns)
    report = store.upsert(names, [document.tokens for document in documents], payloads)
    store.wait_indexed()
    client.open_table("pydocs").create_index("text", config=FTS())
    print(f"{report.written} written, {store.info().unindexed} not indexed")

    question, tokens = sample.questions[0].text, sample.queries[0]
    print(question)
    for title, options in {
        "by tokens": {},
        "by tokens and keywords": {"also": [MatchQuery(question, "text")], "fusion": "rrf"},
        "in one module": {"filter": f"module = '{names[0].partition('.')[0]}'"},
    }.items():
        hits = store.search(tokens, limit=3, **options)
        print(f"{title}: {', '.join(str(hit.id) for hit in hits)}")


if __name__ == "__main__":
    main()
