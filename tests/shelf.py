"""A database of another distribution, as its author would write it: brute force over one file a collection."""

import pickle
from pathlib import Path

import numpy as np

from muvera_adapters.errors import CollectionExists, CollectionNotFound
from muvera_adapters.results import BackfillReport, Document, Hit, Hits, StoreInfo, VerifyReport, WriteReport
from muvera_adapters.stores.database import DatabaseSpec, Form, Target, dim_of
from muvera_adapters.stores.sizes import Part
from muvera_core import encoder_from_dict, maxsim


class ShelfStore:
    """Documents in a dictionary, pickled after each write."""

    model = None

    def __init__(self, path, encoder, documents):
        self.path, self.encoder, self._documents = path, encoder, documents
        self.name = path.stem

    @classmethod
    def create(cls, client, name, encoder, *, quantization="auto"):
        path = Path(client) / f"{name}.shelf"
        if path.exists():
            raise CollectionExists(f"{path} exists")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = cls(path, encoder, {})
        made._save()
        return made

    @classmethod
    def open(cls, client, name, encoder=None):
        path = Path(client) / f"{name}.shelf"
        if not path.exists():
            raise CollectionNotFound(f"there is no {path}")
        kept, documents = pickle.loads(path.read_bytes())
        return cls(path, encoder or encoder_from_dict(kept), documents)

    @classmethod
    def adopt(cls, client, name, encoder, *, tokens_vector, fde_vector):
        return cls.open(client, name, encoder)

    def upsert(self, ids, tokens, payloads=None, progress=False, *, vectors=None, replace=False, zero_rows="refuse"):
        self.encoder.encode_documents(tokens)
        for i, matrix, payload in zip(ids, tokens, payloads or [{}] * len(ids), strict=True):
            kept = {} if replace or i not in self._documents else self._documents[i][1]
            self._documents[i] = (np.asarray(matrix, np.float32), {**kept, **(payload or {})})
        self._save()
        return WriteReport(len(ids))

    def exact_search(self, query_tokens, limit=10, **_):
        ids = list(self._documents)
        scores = maxsim(np.asarray(query_tokens), [self._documents[i][0] for i in ids])
        best = np.argsort(-scores)[:limit]
        return Hits(Hit(ids[k], float(scores[k]), float(scores[k]), {}, reranked=True) for k in best)

    def search(self, query_tokens, limit=10, prefetch=200, **_):
        return self.exact_search(query_tokens, limit)

    def search_batch(self, queries, limit=10, prefetch=200, **_):
        return [self.exact_search(query, limit) for query in queries]

    def get(self, ids, *, with_tokens=False, timeout=None):
        return [self._document(i) if i in self._documents else None for i in ids]

    def scroll(self, *, filter=None, with_tokens=False, page_size=100):
        return iter([self._document(i) for i in self._documents])

    def count(self, *, filter=None, timeout=None):
        return len(self._documents)

    def delete(self, ids=None, *, filter=None, everything=False):
        for i in list(self._documents) if everything else ids or ():
            self._documents.pop(i, None)
        self._save()

    def backfill(self, *, progress=False, dry_run=False, refresh=False, into=None):
        return BackfillReport(written=0, dry_run=dry_run)

    def verify(self, limit=None, progress=False):
        return VerifyReport(checked=len(self._documents))

    def remove_fde(self):
        """There is nothing to remove: FDEs are made when they are needed."""

    def repair(self, progress=False):
        return 3

    def close(self):
        """Nothing is open between two calls."""

    def wait_indexed(self, timeout=None):
        return None

    def ping(self, timeout=5.0):
        return 0.0

    def info(self):
        n = self.count()
        return StoreInfo(self.name, "Shelf", n, 0, 0, 1, True, self.encoder.fingerprint, self.encoder.dim, 0, 0, 0)

    def drop(self):
        self.path.unlink()

    def _document(self, i):
        matrix, payload = self._documents[i]
        return Document(i, payload, matrix)

    def _save(self):
        self.path.write_bytes(pickle.dumps((self.encoder.to_dict(), self._documents)))


def _two_stages(planned):
    values = 4 * planned.documents * planned.dim
    return [
        Part("encodings", values, values, "4 * dim", "Shelf", "encodings"),
        Part("tokens", 0, 4 * planned.token_values, "4 * token_dim a token", "Shelf", "tokens"),
    ]


SHELF = DatabaseSpec(
    scheme="shelf",
    title="Shelf",
    forms=(Form("DIR", "directory"),),
    package="pip",
    module="pickle",
    parse=lambda location: Target("shelf", location, "directory", text=f"shelf:{location}"),
    connect=lambda target: target.location,
    disconnect=lambda _: None,
    store="shelf:ShelfStore",
    retries=False,
    repairs=True,
    token_dim=lambda client, name, vector: dim_of(
        name, vector, {"tokens": ShelfStore.open(client, name).encoder.token_dim}
    ),
    quantizations={"none": 0},
    auto_quantization=lambda dim, place: "none",
    two_stages=_two_stages,
    per_token=lambda planned: _two_stages(planned)[1:],
    backfill_options=frozenset({"into"}),
)
