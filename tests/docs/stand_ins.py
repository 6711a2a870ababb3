"""Models of the pages that go end to end: the same interface, and equal words get equal vectors."""

from __future__ import annotations

import re
import sys
import types
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np

#: pages whose blocks of text are what their code prints
PAGES = ("text.md", "page-images.md")

_FILES = {
    "report-0000.png": "annual report of the company contents and imprint",
    "report-0001.png": "revenue by quarter first quarter twelve million second quarter fourteen million",
    "report-0002.png": "offices we opened an office in Oslo and moved the offices in Lisbon",
}


def word_vectors(text, dim):
    """(n_words, dim) float32 of unit length."""
    words = re.findall(r"\w+", text.lower())
    rows = np.stack([np.random.default_rng(zlib.crc32(word.encode())).normal(size=dim) for word in words])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class LateInteractionTextEmbedding:
    """fastembed's, of 96 dimensions."""

    def __init__(self, model_name):
        assert model_name.startswith("answerdotai/")

    def embed(self, documents):
        return (word_vectors(text, 96) for text in documents)

    def query_embed(self, query):
        return (word_vectors(text, 96) for text in ([query] if isinstance(query, str) else query))


class _Batch(dict):
    """What a processor gives; padded, as transformers' BatchFeature."""

    def to(self, device):
        return self


class _Processor:
    @classmethod
    def from_pretrained(cls, name):
        return cls()

    def process_images(self, images):
        return _padded([image.info["words"] for image in images])

    def process_queries(self, texts):
        return _padded(texts)


def _padded(texts):
    matrices = [word_vectors(text, 128) for text in texts]
    longest = max(map(len, matrices))
    padded = np.stack([np.pad(matrix, ((0, longest - len(matrix)), (0, 0))) for matrix in matrices])
    mask = np.array([[1] * len(matrix) + [0] * (longest - len(matrix)) for matrix in matrices])
    return _Batch(pixel_values=padded, attention_mask=mask)


class _Model:
    device = "cpu"

    @classmethod
    def from_pretrained(cls, name, *, torch_dtype, device_map):
        return cls()

    def eval(self):
        return self

    def __call__(self, pixel_values, attention_mask):
        return pixel_values


def install(page, directory, monkeypatch):
    """Puts the stand-ins of a page where its imports find them, and makes the files that it reads."""
    if page == "text.md":
        import fastembed

        real = fastembed.LateInteractionTextEmbedding
        assert all(hasattr(real, name) for name in ("embed", "query_embed"))
        monkeypatch.setattr(fastembed, "LateInteractionTextEmbedding", LateInteractionTextEmbedding)
    if page == "page-images.md":
        torch = types.ModuleType("torch")
        torch.bfloat16, torch.no_grad = "bfloat16", nullcontext
        models = types.ModuleType("colpali_engine.models")
        models.ColQwen2, models.ColQwen2Processor = _Model, _Processor
        for name, module in (("torch", torch), ("colpali_engine", models), ("colpali_engine.models", models)):
            monkeypatch.setitem(sys.modules, name, module)
        _draw(Path(directory) / "pages")


def _draw(directory):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    directory.mkdir()
    for name, words in _FILES.items():
        about = PngInfo()
        about.add_text("words", words)
        Image.new("RGB", (32, 32), "white").save(directory / name, pnginfo=about)
