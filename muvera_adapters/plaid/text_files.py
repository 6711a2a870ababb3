"""Streams ids and texts from files: RAGatouille's collection, and files of the caller with one entry per position."""

from __future__ import annotations

import json
import mmap
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from muvera_adapters.errors import InvalidInput
from muvera_adapters.plaid.errors import IndexDamaged
from muvera_adapters.plaid.files import Int64, require_file
from muvera_adapters.results import DocumentId


class JsonStrings:
    """The strings of a JSON list, one at a time: such a list has all texts of a collection.

    Raises:
        IndexDamaged: the file is missing, or not a list of strings.
    """

    _ITEM = re.compile(rb'[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*([,\]])', re.DOTALL)

    def __init__(self, path: Path) -> None:
        self._path = require_file(path)
        self._count = sum(1 for _ in self._spans())

    def __len__(self) -> int:
        return self._count

    def read(self) -> Iterator[str]:
        """All strings in order."""
        try:
            for item in self._spans():
                yield json.loads(str(item, "utf-8"))
        except ValueError as error:
            raise IndexDamaged(self._path, f"not valid JSON: {error}") from error
        raise IndexDamaged(self._path, "changed while it was read")

    def _spans(self) -> Iterator[bytes]:
        if not self._path.stat().st_size:
            raise IndexDamaged(self._path, "empty, expected a JSON list of strings")
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*(\])?").match(data)
            end = b"]" if start and start[1] else b""
            at = start.end() if start else 0
            while start and end != b"]":
                match = self._ITEM.match(data, at)
                if not match:
                    break
                yield match[1]
                at, end = match.end(), match[2]
            if end != b"]" or data[at : at + 4096].strip():
                raise IndexDamaged(self._path, f"cut short, or not a list of strings: byte {at} is unexpected")


class IdFile:
    """The caller's ids: one per line, or, in a file named ``.json``, a list of strings and integers.

    Args:
        path: path of the file.
        n_documents: number of positions in the index, including deleted documents.

    Raises:
        InvalidInput: the number of ids differs, an id is there twice, or one is empty.
    """

    def __init__(self, path: Path, n_documents: int) -> None:
        self.path = path
        hashes = array("q", (hash(i) for i in self.read()))
        _check_count(path, len(hashes), n_documents, "ids")
        self._check_unique(np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64))

    def read(self) -> Iterator[DocumentId]:
        """All ids in order."""
        if self.path.suffix == ".json":
            items = _parse(self.path, 0, _open(self.path).read_bytes())
            if not isinstance(items, list) or not all(type(i) in (int, str) for i in items):
                raise InvalidInput(f"{self.path}: expected a list of strings and integers")
            numbered: Iterator[tuple[int, DocumentId]] = enumerate(items, 1)
        else:
            numbered = ((number, line.strip()) for number, line in _lines(self.path))
        for number, identifier in numbered:
            if identifier == "":
                raise InvalidInput(f"{self.path}: id {number} is empty")
            yield identifier

    def _check_unique(self, hashes: Int64) -> None:
        # eight bytes per id; ids with equal hashes are compared, as they may differ
        values, counts = np.unique(hashes, return_counts=True)
        suspects = set(values[counts > 1].tolist())
        seen: dict[DocumentId, int] = {}
        for number, identifier in enumerate(self.read(), 1) if suspects else ():
            if hash(identifier) in suspects:
                if identifier in seen:
                    raise InvalidInput(
                        f"{self.path}: ids {seen[identifier]} and {number} are both {identifier!r}; ids must differ"
                    )
                seen[identifier] = number


class TextFile:
    """The caller's texts: ``.tsv`` as ColBERT's collections (position, text, optional title) or ``.jsonl``.

    A JSON line is a string, or an object with ``text``, which becomes the payload as a whole.

    Args:
        path: path of the file.
        n_documents: number of positions in the index, including deleted documents.

    Raises:
        InvalidInput: the number of texts differs, or a line is not a text.
    """

    def __init__(self, path: Path, n_documents: int) -> None:
        if path.suffix not in (".tsv", ".jsonl"):
            raise InvalidInput(f"{path}: texts are read from .tsv and .jsonl files")
        self._path = path
        #: (n,) numbers of characters of the texts
        self.lengths = np.array([len(p["text"]) for p in self.read()], np.int64)
        _check_count(path, len(self.lengths), n_documents, "texts")

    def read(self) -> Iterator[Mapping[str, Any]]:
        """Payloads with ``text`` in order."""
        read = self._tsv if self._path.suffix == ".tsv" else self._jsonl
        for number, line in _lines(self._path):
            yield read(number, line)

    def _tsv(self, number: int, line: str) -> dict[str, Any]:
        first, *rest = line.split("\t")
        if not rest:
            raise InvalidInput(f"{self._path}: line {number} has no tab; expected position, text and an optional title")
        # colbert-ai rejects such a collection too, except one with a header, which it reads as passage 0
        if first != str(number - 1) and not (number == 1 and first == "id"):
            raise InvalidInput(
                f"{self._path}: line {number} begins with {first!r} instead of {number - 1}: in the collection of an "
                "index the first column counts its lines; this is another file, or lines were removed"
            )
        return {"text": rest[0], "title": rest[1]} if len(rest) > 1 and rest[1] else {"text": rest[0]}

    def _jsonl(self, number: int, line: str) -> dict[str, Any]:
        value = _parse(self._path, number, line)
        found = {"text": value} if isinstance(value, str) else value
        if not isinstance(found, dict) or not isinstance(found.get("text"), str):
            raise InvalidInput(f"{self._path}: line {number} is neither a string nor an object with a text")
        return found


def check_order(path: Path, text_lengths: Int64, token_lengths: Int64) -> None:
    """Raises InvalidInput for texts that fit other positions much better: long texts have many tokens.

    Args:
        path: path of the texts, for the error.
        text_lengths: (n,) numbers of characters.
        token_lengths: (n,) numbers of tokens; 0 for a deleted document.

    Raises:
        InvalidInput: the texts of a part of the index are shifted.
    """
    n = len(token_lengths)
    # enough documents to distinguish chance (about 0.07) from a fit (0.8 and more); a shift can begin anywhere
    window, reach = min(200, n), 16
    for begin in np.unique(np.linspace(0, n - window, 20).astype(int)).tolist() if n >= 60 else ():
        best = {shift: _fit(text_lengths, token_lengths, begin, window, shift) for shift in range(-reach, reach + 1)}
        shift = max(best, key=lambda s: best[s])
        if best[0] < 0.5 and best[shift] >= 0.8:
            direction = "later" if shift > 0 else "earlier"
            raise InvalidInput(
                f"{path}: the texts are shifted: around position {begin + window // 2} their lengths fit the token "
                f"counts {abs(shift)} lines {direction} (correlation {best[shift]:.2f} instead of {best[0]:.2f}); list "
                "them in the order of the index, including deleted documents"
            )


def _fit(texts: Int64, tokens: Int64, begin: int, window: int, shift: int) -> float:
    positions = np.arange(begin, begin + window)
    positions = positions[(positions + shift >= 0) & (positions + shift < len(texts))]
    positions = positions[tokens[positions] > 0]
    x, y = texts[positions + shift].astype(float), tokens[positions].astype(float)
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if len(x) >= 40 and norm > 0 else 0.0


def _check_count(path: Path, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise InvalidInput(
            f"{path}: {found} {what}, but the index has {expected} positions; list one for every position in order: "
            "stanford indexes keep those of deleted documents, fast-plaid renumbers the rest"
        )


def _open(path: Path) -> Path:
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    return path


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines, numbered from 1; only line feeds end lines."""
    try:
        with _open(path).open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def _parse(path: Path, number: int, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: {f'line {number} is ' if number else ''}not valid JSON: {error}") from error
