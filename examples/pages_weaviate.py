"""Searches pages as images in Weaviate, with a ColPali-like model of colpali-engine.

python examples/pages_weaviate.py "quarterly revenue" page1.png page2.png ... [--port 8080] [--stand-in]
"""

from __future__ import annotations

import argparse
from typing import Any

import weaviate

from muvera_adapters.weaviate import WeaviateMuvera
from muvera_core import FDEConfig, FDEEncoder, TokenBatch

MODEL = "vidore/colqwen2-v1.0"
BATCH = 4  # pages at a time through the model


class Model:
    """Pages and questions to token matrices."""

    def __init__(self) -> None:
        import torch
        from colpali_engine.models import ColQwen2, ColQwen2Processor

        self.no_grad = torch.no_grad
        self.model = ColQwen2.from_pretrained(MODEL, torch_dtype=torch.bfloat16).eval()
        self.processor = ColQwen2Processor.from_pretrained(MODEL)

    def pages(self, paths: list[str]) -> TokenBatch:
        from PIL import Image

        return self._tokens(self.processor.process_images([Image.open(path) for path in paths]))

    def question(self, text: str) -> Any:
        return self._tokens(self.processor.process_queries([text]))[0]

    def _tokens(self, batch: Any) -> TokenBatch:
        with self.no_grad():
            return TokenBatch.from_padded(self.model(**batch), batch["attention_mask"])


class StandIn:
    """The words of the file's name stand for the page."""

    def pages(self, paths: list[str]) -> TokenBatch:
        from stand_in import embed

        return TokenBatch.from_list(embed(path.replace("_", " ") for path in paths))

    def question(self, text: str) -> Any:
        from stand_in import embed

        return next(embed([text]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("pages", nargs="+", help="image files of the pages")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=50051)
    parser.add_argument("--stand-in", action="store_true", help="use words of the file names instead of a model")
    arguments = parser.parse_args()
    model = StandIn() if arguments.stand_in else Model()
    with weaviate.connect_to_local(arguments.host, arguments.port, arguments.grpc_port) as client:
        store = WeaviateMuvera.create(client, "ExamplePages", FDEEncoder(FDEConfig(dim=128)))
        for start in range(0, len(arguments.pages), BATCH):
            paths = arguments.pages[start : start + BATCH]
            store.upsert(paths, model.pages(paths))  # a page's id is its file
        for hit in store.search(model.question(arguments.question), limit=3):
            print(f"{hit.score:6.2f}  {hit.id}")
        store.drop()


if __name__ == "__main__":
    main()
