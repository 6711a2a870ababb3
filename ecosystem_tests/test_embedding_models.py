"""What models emit goes into a store as it is, and MaxSim is what their own library computes.

The models are real classes of their packages with random weights, as nothing is downloaded; where a package cannot make
one, the test says what stands in. Each runs where its package is installed.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from muvera_adapters.qdrant import QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder, TokenBatch

TEXTS = ["create a file", "delete the list of text , sort", "open", "close the file .", "sort a list of number"]
QUERY = "create the file"
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] [Q] [D] a the of file list text number delete create open close sort . ,"
IDS = list(range(len(TEXTS)))

# of the libraries themselves
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def scores_by_id(dim, documents, query):
    """All documents' scores from a store that they were put into."""
    client = QdrantClient(":memory:")
    store = QdrantMuvera.create(client, "texts", FDEEncoder(FDEConfig(dim=dim, r_reps=5, k_sim=3, d_proj=8)))
    report = store.upsert(IDS, documents)
    assert report.written == len(IDS)
    hits = store.search(query, limit=len(IDS))
    client.close()
    assert all(hit.reranked for hit in hits)
    return [hit.score for hit in sorted(hits, key=lambda hit: hit.id)]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory) -> Path:
    """A BERT of one layer and a vocabulary of a few words, as a directory that a hub would give."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    directory = tmp_path_factory.mktemp("bert")
    (directory / "vocab.txt").write_text("\n".join(WORDS.split()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.BertTokenizerFast(vocab_file=str(directory / "vocab.txt")).save_pretrained(directory)
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(WORDS.split()),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        transformers.BertModel(config).save_pretrained(directory)
    return directory


def test_sentence_transformers(tiny_bert):
    library = pytest.importorskip("sentence_transformers", minversion="6")
    model = library.MultiVectorEncoder(str(tiny_bert), device="cpu")
    documents, query = model.encode_document(TEXTS), model.encode_query(QUERY)
    expected = model.similarity([query], documents)[0].tolist()
    # float16 in the store
    np.testing.assert_allclose(scores_by_id(query.shape[1], documents, query), expected, atol=2e-2)


def test_pylate(tiny_bert):
    pytest.importorskip("pylate")
    from pylate import models, scores

    model = models.ColBERT(str(tiny_bert), embedding_size=16, query_length=8, document_length=16, device="cpu")
    documents = model.encode(TEXTS, is_query=False, show_progress_bar=False)
    (query,) = model.encode([QUERY], is_query=True, show_progress_bar=False)
    expected = [float(scores.colbert_scores([query], [document])[0, 0]) for document in documents]
    np.testing.assert_allclose(scores_by_id(16, documents, query), expected, atol=2e-2)


def test_fastembed():
    """Its models are downloaded, so the generators of its documented output type stand in."""
    from fastembed.late_interaction import LateInteractionTextEmbedding
    from fastembed.late_interaction_multimodal import LateInteractionMultimodalEmbedding

    for method in ("embed", "query_embed"):
        assert hasattr(LateInteractionTextEmbedding, method)
    for method in ("embed_text", "embed_image"):
        assert hasattr(LateInteractionMultimodalEmbedding, method)
    generator = np.random.default_rng(3)
    documents = [generator.normal(size=(int(n), 16)).astype(np.float32) for n in (3, 9, 4, 5, 7)]
    query = next(iter(d for d in documents[2:]))
    expected = [float((query @ d.T).max(axis=1).sum()) for d in documents]
    np.testing.assert_allclose(scores_by_id(16, (d for d in documents), query), expected, rtol=2e-2)


def test_padded_batch_with_its_mask():
    """What a model of transformers or colpali-engine returns: (n, t, dim), padding left or right, half precision."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 1]])
    output = torch.nn.functional.normalize(torch.randn(5, 4, 16, requires_grad=True), dim=-1).to(torch.bfloat16)
    output = output * mask.unsqueeze(-1)
    query = output[1]
    real = [output[i][mask[i].bool()].float().detach() for i in IDS]
    expected = [float((query.float() @ d.T).max(dim=1).values.sum()) for d in real]
    found = scores_by_id(16, TokenBatch.from_padded(output, mask), query)
    np.testing.assert_allclose(found, expected, atol=2e-2)
