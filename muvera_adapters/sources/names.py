"""Finds out what an array or column contains: by its exact name, otherwise by a guess with a warning."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Sequence

from muvera_adapters.errors import InvalidInput
from muvera_adapters.logs import LOG

#: exact names, in order of preference
TOKENS = (
    "tokens", "embeddings", "embedding", "vectors", "token_embeddings", "token_vectors", "colbert", "multivector",
    "multivectors", "emb", "embs", "documents", "docs",
)  # fmt: skip
LENGTHS = ("lengths", "length", "doclens", "lens", "offsets", "indptr", "n_tokens", "num_tokens", "token_counts")
MASKS = ("mask", "masks", "attention_mask", "attention_masks")
#: exact names of the document of each token
OF_TOKENS = (
    "doc_index", "document_index", "doc_indices", "document_indices", "token_to_doc", "token_to_document",
    "doc_of_token", "document_of_token", "token_doc_ids", "token_document_ids",
)  # fmt: skip
IDS = ("id", "ids", "_id", "doc_id", "doc_ids", "docid", "docids", "document_id", "document_ids")
#: prefixes of the exact names
DOCUMENT_PREFIXES = ("doc_", "docs_", "document_", "documents_", "passage_", "passages_")
QUERY_PREFIXES = ("query_", "queries_", "q_")
#: value of ``ids`` if positions are the ids
NO_IDS = "none"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# ids of words, from tokenizers
_NOT_IDS = ("input_ids", "token_ids", "token_type_ids", "position_ids")


class SourceWarning(UserWarning):
    """Something about a source was guessed or left out; the message says what."""


def exact(names: Iterable[str], wanted: Sequence[str], prefixes: Sequence[str] = ("",)) -> list[str]:
    """Names that are one of ``wanted`` with one of ``prefixes`` before it, in the order of these; case is ignored."""
    order = {prefix + name: (i, k) for i, prefix in enumerate(prefixes) for k, name in reversed([*enumerate(wanted)])}
    found = [name for name in names if name.lower() in order]
    return sorted(found, key=lambda name: order[name.lower()])


def is_of_queries(name: str) -> bool:
    """Whether the name is that of queries: ``queries``, ``query_tokens``, ``q_lengths`` ..."""
    lowered = name.lower()
    return lowered in ("query", "queries") or (
        lowered.startswith(QUERY_PREFIXES) and lowered.partition("_")[2] in {*TOKENS, *LENGTHS, *MASKS, *IDS}
    )


def id_like(names: Iterable[str]) -> list[str]:
    """Names with the word id or ids in them: ``page_id``, ``pageIds``, not ``width`` or ``input_ids``."""
    return [
        name
        for name in names
        if name.lower() not in _NOT_IDS
        and {"id", "ids"} & {word.lower() for word in _WORD.findall(name.replace("IDs", "Ids"))}
    ]


def choose_ids(names: Collection[str], where: str, kind: str) -> str | None:
    """Name of the array or column with the ids: an exact name, otherwise the only id-like one, with a warning.

    Args:
        names: names to choose from.
        where: name of the source, for messages.
        kind: ``array`` or ``column``.

    Raises:
        InvalidInput: several names have the word in them, and none is exact.
    """
    found = exact(names, IDS, ("", *DOCUMENT_PREFIXES))
    if found:
        return found[0]
    found = id_like(names)
    if len(found) > 1:
        raise InvalidInput(
            f"{where}: several {kind}s may hold the ids: {', '.join(found)}; name one with --ids, or use --ids "
            f"{NO_IDS} for positions"
        )
    if found:
        guessed(
            where, f"ids are taken from the {kind} {found[0]!r}; --ids names another, --ids {NO_IDS} uses positions"
        )
    return found[0] if found else None


def guessed(where: str, what: str) -> None:
    """Warns about a guess, and logs it."""
    LOG.info("%s: guessed: %s", where, what)
    warnings.warn(f"{where}: guessed: {what}", SourceWarning, stacklevel=2)
