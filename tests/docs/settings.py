"""What the code in the documentation finds when it is run, beside what its page has defined before."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from muvera_adapters import samples
from muvera_adapters.samples import load_pydocs
from muvera_core import FDEConfig, FDEEncoder

COUNT = 60
#: pages about a database that needs more than the others
DATABASES = {"weaviate.md": "weaviate", "milvus.md": "milvus"}

#: what a page needs beside the extra "dev"
PACKAGES = {"frameworks.md": ("langchain_core", "llama_index.core", "haystack")}


class NotHere(Exception):
    """The page's database cannot be started; the message says what it needs."""


def common() -> dict[str, Any]:
    """Names of every page: documents as a user has them."""
    sample = load_pydocs()
    documents = [d.tokens for _, d in zip(range(COUNT), sample.source.documents(), strict=False)]
    return {
        "ids": list(range(COUNT)),
        "token_matrices": documents,
        "tokens": documents,
        "payloads": [{"n": i, "text": f"text {i}", "customer": "ab"[i % 2]} for i in range(COUNT)],
        "query_tokens": sample.queries[0],
        "encoder": FDEEncoder(FDEConfig(dim=128)),
        "nullcontext": nullcontext,
    }


def files(directory: Path) -> None:
    """A PLAID index where the pages have theirs, with lists of its ids and texts."""
    sample = load_pydocs()
    for name in ("my_index", "path/to/index"):
        shutil.copytree(Path(samples.__file__).parent / "pydocs" / "index", directory / name)
    (directory / "ids.txt").write_text("".join(f"{name}\n" for name in sample.ids))
    rows = (f"{i}\t{'word ' * (len(d.tokens) - 2)}\n" for i, d in enumerate(sample.source.documents()))
    (directory / "collection.tsv").write_text("".join(rows))


@contextmanager
def qdrant(directory: Path) -> Iterator[dict[str, Any]]:
    """Local mode, with a collection "pages" of someone else, which has dense and sparse vectors too."""
    from qdrant_client import AsyncQdrantClient, QdrantClient, models

    client = QdrantClient(":memory:")
    colbert = models.VectorParams(
        size=128,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(
        "pages",
        vectors_config={"colbert": colbert, "dense": models.VectorParams(size=4, distance=models.Distance.COSINE)},
        sparse_vectors_config={"bm25": models.SparseVectorParams()},
    )
    points = [
        models.PointStruct(id=i, vector={"colbert": t.tolist()}) for i, t in enumerate(common()["token_matrices"])
    ]
    client.upsert("pages", points)
    try:
        yield {
            "client": client,
            "async_client": AsyncQdrantClient(":memory:"),
            "dense_vectors": [[1.0, 2.0, 3.0, float(i)] for i in range(COUNT)],
        }
    finally:
        client.close()


@contextmanager
def weaviate(directory: Path) -> Iterator[dict[str, Any]]:
    """The server that WEAVIATE_URL or WEAVIATE_BIN names, with a collection "Pages" of someone else.

    backup.md needs its module "backup-filesystem".
    """
    import weaviate
    from weaviate.classes.config import Configure, VectorDistances
    from weaviate.classes.data import DataObject

    from muvera_adapters.testing import CannotStart
    from servers import weaviate_server

    with ExitStack() as stack:
        try:
            backups = {"ENABLE_MODULES": "backup-filesystem", "BACKUP_FILESYSTEM_PATH": str(directory / "backups")}
            address = weaviate_server.address(directory / "weaviate", **backups)
            host, port, grpc_port = stack.enter_context(address)
        except CannotStart as problem:
            raise NotHere(str(problem)) from None
        client = stack.enter_context(weaviate.connect_to_local(host, port, grpc_port))
        before = set(client.collections.list_all())
        index = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.DOT)
        vector = Configure.MultiVectors.self_provided(name="colbert", vector_index_config=index)
        if "Pages" in before or "Passages" in before:
            raise NotHere("the server has collections of the names that the page uses: Pages, Passages")
        pages = client.collections.create("Pages", vector_config=[vector])
        pages.data.insert_many([DataObject({}, vector={"colbert": t.tolist()}) for t in common()["token_matrices"]])
        try:
            yield {"client": client}
        finally:
            for name in set(client.collections.list_all()) - before:
                client.collections.delete(name)


@contextmanager
def milvus(directory: Path) -> Iterator[dict[str, Any]]:
    """Milvus Lite, in a file."""
    try:
        import milvus_lite  # noqa: F401
        from pymilvus import MilvusClient
    except ImportError:
        raise NotHere("pip install pymilvus milvus-lite") from None
    client = MilvusClient(str(directory / "milvus.db"))
    try:
        yield {"client": client}
    finally:
        client.close()


SETTINGS: dict[str, Callable[[Path], Any]] = {"qdrant": qdrant, "weaviate": weaviate, "milvus": milvus}

# a page connects to where a reader's server is; here the prepared client takes its place
_ADDRESSES = (
    (r'AsyncQdrantClient\("http://localhost:6333"[^)]*\)', "async_client"),
    (r'(?<!Async)QdrantClient\("http://localhost:6333"[^)]*\)', "client"),
    (r"weaviate\.connect_to_local\(\)", "nullcontext(client)"),
    (r'(?<!Async)MilvusClient\((?:uri=)?"[^"]*"[^)]*\)', "client"),
)


def redirected(code: str) -> str:
    """``code`` with the addresses of servers replaced."""
    for pattern, replacement in _ADDRESSES:
        code = re.sub(pattern, replacement, code)
    return code
