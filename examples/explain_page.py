"""Draws over a page which parts of it match a question, with a ColPali model and Qdrant in memory.

python examples/explain_page.py "revenue by quarter" page.png --out map.png
python examples/explain_page.py "revenue by quarter" --out map.png --stand-in    # no model: a page that is drawn here
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from qdrant_client import QdrantClient

from muvera_adapters.qdrant import QdrantMuvera
from muvera_core import FDEConfig, FDEEncoder

MODEL = "vidore/colpali-v1.3"


class Model:
    """Pages and questions to token matrices."""

    def __init__(self) -> None:
        import torch
        from colpali_engine.models import ColPali, ColPaliProcessor

        self.no_grad = torch.no_grad
        self.model = ColPali.from_pretrained(MODEL, torch_dtype=torch.bfloat16).eval()
        self.processor = ColPaliProcessor.from_pretrained(MODEL)

    def page(self, path: str) -> tuple[np.ndarray, Any, int, int, int]:
        """Image, token matrix, rows and columns of patches, and position of the first patch."""
        from PIL import Image

        image = Image.open(path).convert("RGB")
        batch = self.processor.process_images([image])
        with self.no_grad():
            tokens = self.model(**batch)[0]
        columns, rows = self.processor.get_n_patches(image.size, patch_size=self.model.patch_size)
        first = int(self.processor.get_image_mask(batch)[0].int().argmax())
        return np.asarray(image), tokens, rows, columns, first

    def question(self, text: str) -> tuple[Any, list[str]]:
        """Token matrix, and the text of each token."""
        batch = self.processor.process_queries([text])
        with self.no_grad():
            tokens = self.model(**batch)[0]
        return tokens, self.processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0])


class StandIn:
    """A page of words; a patch is the words in it, and a little of the words beside it, as in a real model."""

    ROWS = COLUMNS = 32
    LINES = (
        (2, 3, "Annual report"),
        (6, 3, "Revenue by quarter"),
        (9, 3, "First quarter"),
        (9, 20, "12 million"),
        (11, 3, "Second quarter"),
        (11, 20, "14 million"),
        (13, 3, "Third quarter"),
        (13, 20, "11 million"),
        (18, 3, "Offices and staff"),
        (21, 3, "We opened an office in Oslo"),
        (23, 3, "and moved the one in Lisbon."),
        (28, 3, "All revenue is in euros"),
    )

    def page(self, path: str | None) -> tuple[np.ndarray, Any, int, int, int]:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from stand_in import DIM, embed

        figure = Figure((3.2, 3.2), dpi=100)
        canvas = FigureCanvasAgg(figure)
        rng = np.random.default_rng(1)
        patches = 0.4 * rng.normal(size=(self.ROWS, self.COLUMNS, DIM)) / np.sqrt(DIM)
        patches += next(embed(["blank"]))
        for row, column, line in self.LINES:
            end = float(column)
            for word in line.split():
                text = figure.text(
                    end / self.COLUMNS, 1 - (row + 0.5) / self.ROWS, word, size=7.5, va="center", family="DejaVu Sans"
                )
                width = text.get_window_extent(canvas.get_renderer()).width / 10  # 10 pixels a patch
                inside = slice(int(end), int(end + width) + 1)
                patches[row, inside] += 4 * next(embed([word]))
                patches[row - 1 : row + 2, max(0, inside.start - 2) : inside.stop + 2] += next(embed([word]))
                end += width + 0.4
        canvas.draw()
        tokens = patches.reshape(-1, DIM)
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        prompt = next(embed(["Describe the image"]))  # as ColPali: the patches first, then the tokens of the prompt
        return np.asarray(canvas.buffer_rgba()), np.vstack([tokens, prompt]), self.ROWS, self.COLUMNS, 0

    def question(self, text: str) -> tuple[Any, list[str]]:
        from stand_in import embed

        return next(embed([text])), text.split()


def draw(image: np.ndarray, maps: dict[str, np.ndarray], file: str) -> None:
    """Each map over the page, with its title."""
    figure = Figure((2.6 * len(maps), 2.9), dpi=100, layout="constrained")
    low, high = min(each.min() for each in maps.values()), max(each.max() for each in maps.values())
    for axes, (title, each) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        axes.imshow(image, extent=(0, 1, 0, 1))
        axes.imshow(each, extent=(0, 1, 0, 1), cmap="YlOrRd", alpha=0.5, vmin=low, vmax=high)
        axes.set_title(title, size=9)
        axes.axis("off")
    figure.savefig(file, metadata={"Software": None}, pil_kwargs={"optimize": True})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("page", nargs="?", help="image file of the page")
    parser.add_argument("--out", default="map.png", help="image file to write")
    parser.add_argument("--tokens", type=int, default=2, help="number of query tokens to draw, those that match best")
    parser.add_argument("--stand-in", action="store_true", help="use a page that is drawn here instead of a model")
    arguments = parser.parse_args()
    model = StandIn() if arguments.stand_in else Model()
    image, tokens, rows, columns, first = model.page(arguments.page)
    question, texts = model.question(arguments.question)

    store = QdrantMuvera.create(QdrantClient(":memory:"), "pages", FDEEncoder(FDEConfig(dim=128)))
    store.upsert(["page"], [tokens])
    hits = store.search(question, limit=1)
    (explanation,) = store.explain(question, hits)
    print(explanation.table(query_texts=texts, order="contribution"))

    maps = {"all tokens": explanation.heatmap(rows, columns, first=first)}
    best = sorted(explanation.matches, key=lambda match: -match.contribution)[: arguments.tokens]
    for match in best:
        i = match.query_token
        maps[f"{texts[i]}: {match.similarity:.2f}"] = explanation.heatmap(rows, columns, i, first=first)
    draw(image, maps, arguments.out)


if __name__ == "__main__":
    main()
