"""Input of the measuring commands: documents of any source, and queries from a file or made from documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from muvera_adapters.cli import options as o
from muvera_adapters.databases import local_spec
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.evidence.queries import Queries, as_queries, pseudo_queries
from muvera_adapters.progress import progress_bar
from muvera_adapters.results import DocumentId
from muvera_adapters.sources import SourceDocument, open_queries, open_source
from muvera_adapters.stores.checks import has_zero_rows, without_zero_rows
from muvera_adapters.stores.sizes import NO_CODES
from muvera_core import Encoder, FDEConfig, FDEEncoder, TokenBatch, load_encoder

if TYPE_CHECKING:
    LocalQuantization = str
else:
    # a choice that can be repeated has to be an Enum
    LocalQuantization = o.Word("LocalQuantization", {preset: preset for preset in local_spec().quantizations})

QueryIds = Annotated[
    Path | None,
    o.option(
        "--query-ids",
        metavar="FILE",
        help="Ids of the queries as in --judgements, one per line, for example query_ids.txt. Default: positions.",
    ),
]
Pseudo = Annotated[
    int,
    o.option(
        "--pseudo", metavar="N", min=4, help="Number of queries to make from tokens of documents, without --queries."
    ),
]
Recall = Annotated[
    float,
    o.option(
        "--recall",
        metavar="SHARE",
        help="Wanted recall: share of the exact top 10 that is among the candidates, which exact reranking then "
        "returns. Above 0 and at most 1.",
    ),
]
MaxBytes = Annotated[
    float | None,
    o.option(
        "--max-bytes",
        metavar="N",
        help="Maximum memory of the first stage, in bytes per document, for example 400. Default: no limit.",
    ),
]
MaxPrefetch = Annotated[
    int, o.option("--max-prefetch", metavar="N", min=1, help="Maximum number of candidates to rerank.")
]
Quantizations = Annotated[
    list[LocalQuantization] | None,
    o.option(
        "--quantization",
        metavar="PRESET",
        help=f"Quantization to measure with: {', '.join(local_spec().quantizations)} (none: no index). Can be "
        "repeated. Default: chosen by the size of the encodings.",
    ),
]
SampleSize = Annotated[
    int, o.option("--sample", metavar="N", min=20, help="Maximum number of documents to measure on, drawn at random.")
]


@dataclass(frozen=True, slots=True)
class Input:
    """Documents in memory.

    Attributes:
        ids: ids of the documents.
        documents: tokens of the documents.
        total: number of documents in the source, of which these are a random sample or all.
        left_out: notes on documents and rows of the sample that were left out.
    """

    ids: list[DocumentId]
    documents: TokenBatch
    total: int
    left_out: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Notes for the reader of the results."""
        if len(self.documents) == self.total:
            return self.left_out
        return [
            *self.left_out,
            f"Measured on {len(self.documents):,} random documents of {self.total:,}. Over all of them, recall with "
            "the same number of candidates is lower.",
        ]


def with_codes(presets: list[LocalQuantization] | None) -> list[str] | None:
    """Quantization presets to measure with. An empty list: no index; None: the store chooses."""
    return None if presets is None else [str(preset) for preset in presets if preset != NO_CODES]


def read_documents(
    source: str,
    *,
    sample: int,
    seed: int,
    ids: str | None,
    tokens: str | None,
    lengths: str | None,
    collection: str | None,
    tokens_vector: str | None,
    quiet: bool,
) -> Input:
    """Reads a random sample of a source's documents; the same for the same seed.

    Raises:
        MuveraError: the source cannot be read, or has no documents.
    """
    o.check_collection(source, collection)
    with o.shown_warnings():
        opened = open_source(
            source,
            ids=ids,
            tokens=tokens,
            lengths=lengths,
            payload=(),
            collection=collection,
            tokens_vector=tokens_vector,
        )
    try:
        total = len(opened)
        chosen = set(np.random.default_rng(seed).permutation(total)[:sample].tolist())
        bar = progress_bar(opened.documents(), total=total, desc="read documents", unit="doc", disable=quiet)
        kept = [document for place, document in enumerate(bar) if place in chosen]
    finally:
        opened.close()
    kept, left_out = _usable(kept)
    if not kept:
        raise InvalidInput(f"{source} has no documents with tokens")
    return Input([d.id for d in kept], TokenBatch.from_list(d.tokens for d in kept), total, left_out)


def _usable(documents: list[SourceDocument]) -> tuple[list[SourceDocument], list[str]]:
    """The documents that can be encoded, without all-zero rows; and notes on what was left out."""
    notes = []
    broken = [d.id for d in documents if not np.isfinite(d.tokens).all()]
    if broken:
        shown = ", ".join(map(repr, broken[:5])) + (" ..." if len(broken) > 5 else "")
        notes.append(f"{len(broken):,} documents with NaN or infinite values are left out: {shown}.")
        documents = [d for d in documents if np.isfinite(d.tokens).all()]
    padded = sum(has_zero_rows(d.tokens) for d in documents)
    if padded:
        notes.append(f"{padded:,} documents have rows of zeros (padding), which are left out.")
        documents = [d._replace(tokens=without_zero_rows(d.tokens)) for d in documents]
    return [d for d in documents if len(d.tokens)], notes


def read_queries(path: Path | None, ids: Path | None, documents: TokenBatch | None, n: int, seed: int) -> Queries:
    """Queries of a file, or pseudo-queries without one."""
    if path is None:
        assert documents is not None
        if ids is not None:
            raise WrongUsage("--query-ids needs --queries")
        return pseudo_queries(documents, n, seed=seed)
    with o.shown_warnings():
        queries = open_queries(path)
    return as_queries(queries, None if ids is None else _lines(ids))


def encoders_of(names: list[str], documents: TokenBatch, seed: int) -> dict[str, Encoder]:
    """Encoders for the values of ``--encoder``, by their names in tables.

    Raises:
        WrongUsage: a value does not name an encoder.
        InvalidInput: a file is not an encoder for tokens of this width.
    """
    from muvera_core import RegressionEncoder

    found: dict[str, Encoder] = {}
    for name in names:
        kind, _, size = name.partition(":")
        try:
            if kind in ("fde", "fitted"):
                tokens = float(documents.lengths.mean())
                config = FDEConfig.of_size(documents.dim, int(size or o.FDE_DIM), tokens, seed=seed)
                plain = kind == "fde"
                encoder: Encoder = FDEEncoder(config) if plain else FDEEncoder.fit(config, documents)
                found[f"FDE {encoder.dim:,}{'' if plain else ', fitted'}"] = encoder
            elif kind == "regression":
                encoder = RegressionEncoder.fit(documents, dim=int(size or 1024), seed=seed)
                found[f"regression {encoder.dim:,}"] = encoder
            elif Path(name).is_file():
                encoder = load_encoder(name)
                if encoder.token_dim != documents.dim:
                    raise InvalidInput(
                        f"{name} is an encoder for tokens of width {encoder.token_dim}; these have {documents.dim}"
                    )
                found[Path(name).stem] = encoder
            else:
                raise WrongUsage(
                    f"{name!r} is not an encoder: write fde, fitted or regression, each with :DIM for another "
                    "number of dimensions (fde:1280), or the path of a saved encoder"
                )
        except InvalidInput:
            raise
        except ValueError as error:
            raise WrongUsage(f"--encoder {name}: {error}") from error
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
