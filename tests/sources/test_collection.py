"""Collections of a database as sources."""

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from muvera_adapters.errors import CollectionNotFound, WrongUsage
from muvera_adapters.qdrant import QdrantMuvera
from muvera_adapters.sources import open_source
from muvera_core import FDEConfig, FDEEncoder
from tests.sources.conftest import DIM


@pytest.mark.parametrize("foreign", [False, True])
def test_a_collection(tmp_path, matrices, foreign):
    target, n = f"qdrant:{tmp_path}", 40
    client = QdrantClient(path=str(tmp_path))
    if foreign:
        multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vector = models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi)
        client.create_collection("theirs", vectors_config={"colbert": vector})
        points = [models.PointStruct(id=i, vector={"colbert": m.tolist()}) for i, m in enumerate(matrices[:n])]
        client.upsert("theirs", points)
    else:
        store = QdrantMuvera.create(client, "theirs", FDEEncoder(FDEConfig(DIM, r_reps=2, k_sim=2, d_proj=4)))
        store.upsert([f"d{i}" for i in range(n)], matrices[:n], [{"n": i} for i in range(n)])
    before = client.get_collection("theirs").model_dump()
    client.close()
    with pytest.raises(CollectionNotFound):
        open_source(target, collection="other", tokens_vector="colbert")
    with pytest.raises(WrongUsage, match="--from-collection"):
        open_source(target)
    if foreign:
        with pytest.raises(CollectionNotFound, match="--tokens-vector"):
            open_source(target, collection="theirs")
    source = open_source(target, collection="theirs", tokens_vector="colbert" if foreign else None)
    assert (source.dim, len(source)) == (DIM, n)
    found = {d.id: d for d in source.documents()}
    for i in range(n):
        document = found[i if foreign else f"d{i}"]
        np.testing.assert_array_equal(document.tokens, matrices[i].astype("f4"))
        assert document.payload == ({} if foreign else {"n": i})
    assert [d.id for d in source.documents(30)] == list(found)[30:]
    source.close()
    client = QdrantClient(path=str(tmp_path))
    assert client.get_collection("theirs").model_dump() == before
    client.close()
