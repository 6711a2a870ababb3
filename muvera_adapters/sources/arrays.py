"""Token matrices in files of arrays: finds out what each array is, and reads them a slice at a time.

Four layouts are understood:

- *joined*: one (tokens, dim) array of floats, and integers that divide it: (n,) lengths, (n + 1,) offsets from 0, or
  for each token the number or id of its document;
- *padded*: one (n, t, dim) array, with an (n, t) mask, with (n,) lengths, or without: then nothing is padding;
- *list*: a list of (n_i, dim) matrices, as object arrays and ``torch.save`` keep it;
- *one for each*: an (n_i, dim) array for every document, whose name is its id.

All of them may have an array of ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import InvalidInput
from muvera_adapters.plaid.text_files import IdFile
from muvera_adapters.results import DocumentId
from muvera_adapters.sources import names as n
from muvera_adapters.sources.base import SourceDocument, check_unique, to_float32
from muvera_adapters.stores.token_model import TokenModel

_SLICE_TOKENS = 32_768

#: reads an array of a ``.npy`` file
ReadArray = Callable[[Path], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape and type of one array in a file.

    Attributes:
        shape: shape as in numpy; of a list, (number of items,).
        kind: numpy's letter of the type, ``f`` (bfloat16 too), ``i``, ``u``, ``b``, ``U`` ...; ``L`` for a list of
            matrices, ``O`` for other objects, ``?`` for types that are not read.
    """

    shape: tuple[int, ...]
    kind: str


class ArrayFile(Protocol):
    """A file with named arrays.

    Attributes:
        path: path of the file.
        single: whether it has one array without a name, which is called ``tokens`` here.
    """

    path: Path
    single: bool

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Shapes of all arrays, by name."""
        ...

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array; for a list, an object array of its items."""
        ...

    def rows(self, name: str, start: int, ends: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Rows from ``start`` to the first end, from there to the second, and so on."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


class ArraySource:
    """See :class:`~muvera_adapters.sources.base.TokenSource`.

    Args:
        file: file with the arrays.
        format: name of the file's format.
        queries: whether to read queries: arrays called ``query_tokens``, ``queries`` and the like come first.
        tokens: name of the array with the tokens; None: found by its name, otherwise guessed.
        lengths: name of the array that tells which tokens belong to which document, or a ``.npy`` file with it; None:
            found by its name, otherwise guessed.
        ids: name of the array with the ids, or a file (``.npy``, ``.json``, or one id per line); ``none``: positions
            are the ids; None: found by its name, otherwise guessed.
        read_array: function that reads a ``.npy`` file.

    Raises:
        InvalidInput: no layout fits, or ids cannot be used; the message names the arrays.
    """

    seekable = True
    model: TokenModel | None = None
    n_tokens: int | None

    def __init__(
        self,
        file: ArrayFile,
        format: str,
        *,
        queries: bool = False,
        tokens: str | None = None,
        lengths: str | None = None,
        ids: str | None = None,
        read_array: ReadArray,
    ) -> None:
        self._file, self._queries, self._read_array = file, queries, read_array
        self.place = str(file.path)
        extra = [Path(text) for text in (lengths, ids) if text not in (None, n.NO_IDS) and text not in file.shapes]
        self.files: Sequence[Path] = (file.path, *extra)
        self._names: list[str] = []
        #: use of each array, by name
        self._used: dict[str, str] = {}
        #: ids that the array of documents per token has
        self._part_ids: list[DocumentId] | None = None
        if tokens is None and lengths is None and (found := self._one_for_each(ids)):
            self._layout, self._names = "one for each", found
            self._offsets = np.concatenate([[0], np.cumsum([_rows(file.shapes[name]) for name in found])])
        else:
            self._tokens = self._choose_tokens(tokens)
            self._used[self._tokens] = "tokens"
            self._layout = {2: "joined", 3: "padded"}.get(len(self._shape.shape), "list")
            self._mask: npt.NDArray[np.bool_] | None = None
            self._offsets = self._find_offsets(lengths)
        self.n_positions, self.n_tokens = len(self._offsets) - 1, int(self._offsets[-1])
        self.lengths: npt.NDArray[np.int64] | None = np.diff(self._offsets)
        self._ids = self._find_ids(ids)
        self.dim = self._find_dim()
        self.format = f"{format}, {self._described()}"

    def __len__(self) -> int:
        return self.n_positions

    def documents(self, start: int = 0) -> Iterator[SourceDocument]:
        """Documents in the order of the file."""
        for position, tokens in enumerate(self._matrices(start), start):
            yield SourceDocument(position, self._ids[position] if self._ids is not None else position, tokens, {})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def _shape(self) -> Shape:
        return self._file.shapes[self._tokens]

    def _matrices(self, start: int) -> Iterator[npt.NDArray[np.float32]]:
        if self._layout == "one for each":
            for name in self._names[start:]:
                yield self._matrix(self._file.read(name), name)
            return
        if self._layout == "list":
            for position, item in enumerate(self._file.read(self._tokens)[start:], start):
                yield self._matrix(item, f"{self._tokens}, item {position}")
            return
        bounds = [start]
        while bounds[-1] < self.n_positions:
            i = bounds[-1]
            if self._layout == "padded":
                j = i + _SLICE_TOKENS // max(1, self._shape.shape[1])
            else:
                j = int(np.searchsorted(self._offsets, self._offsets[i] + _SLICE_TOKENS, side="right")) - 1
            bounds.append(min(max(j, i + 1), self.n_positions))
        padded = self._layout == "padded"
        ends = bounds[1:] if padded else self._offsets[bounds[1:]].tolist()
        parts = self._file.rows(self._tokens, start if padded else int(self._offsets[start]), ends)
        for i, j, values in zip(bounds, bounds[1:], parts, strict=False):
            tokens = to_float32(values, self._where(self._tokens))
            for k in range(i, j):
                if padded:
                    yield tokens[k - i] if self._mask is None else tokens[k - i][self._mask[k]]
                else:
                    yield tokens[self._offsets[k] - self._offsets[i] : self._offsets[k + 1] - self._offsets[i]]

    def _matrix(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
        """(n, dim) of one document's array; also (1, n, dim), and (0, dim) of an empty one."""
        if not values.size:
            return np.zeros((0, self.dim), np.float32)
        return to_float32(values.reshape(values.shape[-2:]), self._where(name))

    def _where(self, name: str) -> str:
        return str(self._file.path) if self._file.single else f"{self._file.path}: {name}"

    def _one_for_each(self, ids: str | None) -> list[str] | None:
        """Names of the documents' arrays if every array, except those of ids, is a document."""
        shapes = self._file.shapes
        if self._file.single:
            return None
        aside = {ids} if ids is not None and ids in shapes else set(n.exact(_lists(shapes), n.IDS)[:1])
        found = [name for name in shapes if name not in aside]
        matrices = [name for name in found if _is_matrix(shapes[name])]
        alone = len(found) == 1 and len(shapes[found[0]].shape) == 3
        if not found or len(matrices) != len(found) or alone:
            return None
        # ids of several documents, or of tokens, next to one array
        if len(found) == 1 and any(shapes[name].shape != (1,) for name in aside if name in shapes):
            return None
        called = n.exact(found, n.TOKENS, ("", *n.DOCUMENT_PREFIXES, *n.QUERY_PREFIXES))
        if called:
            n.guessed(
                str(self._file.path),
                f"every array is one {'query' if self._queries else 'document'}, {called[0]!r} too; if it has the "
                "tokens of several, name the array of their lengths with --lengths",
            )
        return _in_order(found)

    def _choose_tokens(self, wanted: str | None) -> str:
        shapes = self._file.shapes
        possible = [name for name, s in shapes.items() if s.kind == "L" or (s.kind == "f" and len(s.shape) in (2, 3))]
        if wanted is not None:
            if wanted not in possible:
                why = "is not a (tokens, dim) or (n, t, dim) array of floats or a list of matrices"
                raise InvalidInput(
                    f"{self._file.path}: {wanted!r} {why if wanted in shapes else 'is not there'}; it has "
                    f"{_listed(shapes)}"
                )
            return wanted
        prefixes = ("", *n.DOCUMENT_PREFIXES)
        found = n.exact(possible, n.TOKENS, prefixes)
        if self._queries:
            found = [
                *n.exact(possible, ("queries", "query")),
                *n.exact(possible, n.TOKENS, n.QUERY_PREFIXES),
                *n.exact(possible, n.TOKENS),
            ]
        if found:
            return found[0]
        for name in n.exact([name for name, s in shapes.items() if s.kind == "?"], n.TOKENS, prefixes):
            self._file.read(name)  # raises the reason why it cannot be read
        others = [name for name in possible if not n.is_of_queries(name)] or possible
        if len(others) == 1:
            self._guess(f"tokens are taken from the array {others[0]!r}; --tokens names another")
            return others[0]
        raise InvalidInput(
            f"{self._file.path}: expected one (tokens, dim) array of floats with one array of offsets or lengths, one "
            "(n, t, dim) array, a list of matrices, or nothing but (tokens, dim) arrays, one for each document; it has "
            f"{_listed(shapes)}" + ("; name the tokens with --tokens" if others else "")
        )

    def _guess(self, what: str) -> None:
        n.guessed(str(self._file.path), what)

    def _find_offsets(self, wanted: str | None) -> npt.NDArray[np.int64]:
        if self._layout == "list":
            if wanted is not None:
                raise InvalidInput(f"{self._file.path}: --lengths does not apply to a list of matrices")
            lengths = []
            for position, item in enumerate(self._file.read(self._tokens)):
                if item.size and not _is_matrix(Shape(item.shape, _kind(item))):
                    raise InvalidInput(
                        f"{self._where(self._tokens)}, item {position} has shape {item.shape} of {item.dtype}, "
                        "expected an (n, dim) matrix of floats"
                    )
                lengths.append(item.shape[-2] if item.size else 0)
            self._check_no_padding(lengths)
            return _ends(np.array(lengths, np.int64))
        if wanted is not None:
            values = self._named(wanted, "--lengths")
            if wanted in self._file.shapes:
                self._used[wanted] = "lengths"
            offsets = self._pad(values) if self._layout == "padded" else self._part(values)
            if offsets is None:
                raise InvalidInput(f"{self._file.path}: {wanted!r} {self._misfit(values)}")
            return offsets
        kinds = "iubf" if self._layout == "padded" else "iu"
        free = [name for name, s in self._file.shapes.items() if s.kind in kinds and name != self._tokens]
        candidates = [name for name in free if self._may_part(self._file.shapes[name])]
        prefixes = ["", *n.DOCUMENT_PREFIXES]
        if self._queries:
            prefixes = [*n.QUERY_PREFIXES, ""] if n.is_of_queries(self._tokens) else ["", *n.QUERY_PREFIXES]
        padded = self._layout == "padded"
        # a mask of another shape must not be ignored, as nothing else would tell what is padding
        exact = n.exact(free if padded else candidates, [*n.LENGTHS, *(n.MASKS if padded else n.OF_TOKENS)], prefixes)
        for name in exact:
            values = self._file.read(name)
            if padded:
                offsets = self._pad(values)
            elif n.exact([name], n.LENGTHS, prefixes):
                offsets = self._part(values, numbers=False)
            else:
                offsets = self._runs(values, name) if len(values) == self._shape.shape[0] else None
            if offsets is not None:
                self._used[name] = "lengths"
                return offsets
        if exact:
            misfit = self._misfit(self._file.read(exact[0]))
            raise InvalidInput(f"{self._file.path}: {exact[0]!r} {misfit}; name another with --lengths")
        return self._guess_offsets([c for c in candidates if not n.exact([c], [*n.IDS, *n.MASKS], prefixes)])

    def _guess_offsets(self, candidates: Sequence[str]) -> npt.NDArray[np.int64]:
        rows = self._shape.shape[0]
        own = [name for name in candidates if n.is_of_queries(name) == n.is_of_queries(self._tokens)] or candidates
        found = [
            (name, offsets)
            for name in own
            if (offsets := self._pad(self._file.read(name)) if self._layout == "padded" else
                self._part(self._file.read(name), numbers=False)) is not None
        ]  # fmt: skip
        if self._layout == "padded":
            found = [f for f in found if len(self._file.shapes[f[0]].shape) == 2]
        if len(found) == 1:
            name, offsets = found[0]
            self._used[name] = "lengths"
            self._guess(f"{name!r} tells which tokens belong to which document; --lengths names another")
            if self._layout == "padded":
                self._pad(self._file.read(name))
            return offsets
        if self._layout == "padded":
            if found:
                raise InvalidInput(
                    f"{self._file.path}: several arrays may be the mask: {', '.join(f[0] for f in found)}; name one "
                    "with --lengths"
                )
            self._mask = None
            n_documents, t, _ = self._shape.shape
            return np.arange(n_documents + 1, dtype=np.int64) * t
        if not found:
            of_tokens = n.exact(
                [name for name, s in self._file.shapes.items() if s.shape == (rows,) and s.kind in "iuUSO"], n.IDS,
                ("", *n.DOCUMENT_PREFIXES),
            )  # fmt: skip
            if of_tokens:
                self._used[of_tokens[0]] = "the document of each token"
                self._guess(f"{of_tokens[0]!r} has the document of each token; --lengths names another array")
                return self._runs(self._file.read(of_tokens[0]), of_tokens[0])
            if self._file.single:
                if self._queries:
                    return np.array([0, rows])
                raise InvalidInput(
                    f"{self._file.path}: one array of {rows} tokens: name a .npy file with --lengths that has the "
                    "lengths or offsets of the documents, or the document of each token"
                )
        raise InvalidInput(
            f"{self._file.path}: {'no array' if not found else 'more than one array'} of integers divides the "
            f"{rows} rows of {self._tokens!r} (offsets from 0 to {rows}, or lengths that add up to it); it has "
            f"{_listed(self._file.shapes)}; name it with --lengths"
        )

    def _check_no_padding(self, lengths: Sequence[int]) -> None:
        """Raises InvalidInput if lengths or a mask show that the matrices of a list are padded."""
        for name in n.exact(self._file.shapes, [*n.LENGTHS, *n.MASKS]):
            values = self._file.read(name)
            if values.dtype == object or values.ndim != 1 or values.tolist() not in (
                list(lengths), np.cumsum([0, *lengths]).tolist(),
            ):  # fmt: skip
                raise InvalidInput(
                    f"{self._file.path}: {name!r} beside the list of matrices {self._tokens!r} does not say their "
                    "lengths; if they are padded, save them without padding, or as one (n, t, dim) array"
                )

    def _may_part(self, shape: Shape) -> bool:
        if self._layout == "padded":
            return shape.shape in (self._shape.shape[:2], self._shape.shape[:1])
        return len(shape.shape) == 1

    def _part(self, values: npt.NDArray[Any], numbers: bool = True) -> npt.NDArray[np.int64] | None:
        """Offsets of joined tokens from an array of offsets, lengths or, if allowed, the document of each token."""
        total = self._shape.shape[0]
        if values.ndim != 1:
            return None
        if values.dtype.kind in "iu" and len(values) and values.min() >= 0:
            integers = values.astype(np.int64)
            if integers[0] == 0 and integers[-1] == total and (np.diff(integers) >= 0).all():
                return integers
            # one number per token is the document of each, unless every document has one token
            if integers.sum() == total and not (numbers and len(integers) == total and (integers != 1).any()):
                return _ends(integers)
        if numbers and len(values) == total and total:
            return self._runs(values, "--lengths")
        return None

    def _runs(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
        """Offsets where the document of each token changes; the documents' ids are the values."""
        changes = np.flatnonzero(values[1:] != values[:-1]) + 1
        starts = np.concatenate([[0], changes])
        ids = _plain_ids(values[starts], f"{self._file.path}: {name}")
        if len(set(ids)) != len(ids):
            raise InvalidInput(
                f"{self._file.path}: {name} has the document of each token, but the tokens of a document are not next "
                "to one another: sort both arrays by it (numpy.argsort with kind='stable')"
            )
        self._part_ids = ids
        return np.concatenate([starts, [len(values)]]).astype(np.int64)

    def _pad(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
        """Offsets of padded tokens from a mask or lengths."""
        n_documents, t = self._shape.shape[:2]
        if values.shape == (n_documents, t) and values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all():
            self._mask = values.astype(np.bool_)
        elif (
            values.shape == (n_documents,)
            and values.dtype.kind in "iu"
            and (not n_documents or (values.min() >= 0 and values.max() <= t))
        ):
            self._mask = np.arange(t) < values.astype(np.int64)[:, None]
        else:
            return None
        return _ends(self._mask.sum(axis=1))

    def _misfit(self, values: npt.NDArray[Any]) -> str:
        """The reason why an array does not divide the tokens."""
        shape = self._shape.shape
        if self._layout == "padded":
            return (
                f"is a {values.dtype} array of shape {values.shape}: expected a {shape[:2]} mask of 0 and 1, or "
                f"{shape[:1]} lengths of at most {shape[1]}"
            )
        found = f"is a {values.dtype} array of shape {values.shape}"
        if values.ndim == 1 and values.dtype.kind in "iu":
            found += f" that adds up to {values.sum()}"
        return (
            f"{found}: it does not divide the {shape[0]} rows of {self._tokens!r}; expected lengths that add up to it, "
            f"offsets from 0 to {shape[0]}, or the document of each of the {shape[0]} tokens"
        )

    def _named(self, text: str, option: str) -> npt.NDArray[Any]:
        """An array of the file, or of a ``.npy`` file."""
        if text in self._file.shapes:
            return self._file.read(text)
        path = Path(text)
        if path.suffix == ".npy" and path.is_file():
            return self._read_array(path)
        raise InvalidInput(
            f"{self._file.path}: {option} {text}: there is no array of this name"
            + ("" if self._file.single else f" (it has {_listed(self._file.shapes)})")
            + ", and no .npy file"
        )

    def _find_ids(self, wanted: str | None) -> Sequence[DocumentId] | None:
        if wanted == n.NO_IDS:
            return None
        of_names = (
            list(self._names)
            if self._layout == "one for each" and not all(re.fullmatch(r"arr_\d+", name) for name in self._names)
            else self._part_ids
        )
        shapes = self._file.shapes
        if wanted is None:
            free = [
                name
                for name in shapes
                if name not in self._used and name not in self._names and n.is_of_queries(name) == self._is_of_queries
            ]
            if self._layout == "one for each":
                wanted = next(iter(n.exact(free, n.IDS)), None)
            elif self._part_ids is not None:
                wanted = next(iter(n.exact(free, n.IDS, ("", *n.DOCUMENT_PREFIXES))), None)
            else:
                wanted = next(iter(n.exact(free, n.IDS, n.QUERY_PREFIXES)), None) if self._is_of_queries else None
                wanted = wanted or n.choose_ids(free, str(self._file.path), "array")
            if wanted is None:
                return of_names
        where = f"{self._file.path}: {wanted}"
        if wanted in shapes:
            self._used[wanted] = "ids"
            values = self._file.read(wanted)
            self._count_empty(len(values))
            ids = _plain_ids(values, where, self.n_positions)
        else:
            path = Path(wanted)
            if not path.is_file():
                raise InvalidInput(
                    f"{self._file.path}: --ids {wanted}: there is no array and no file of this name; it has "
                    f"{_listed(shapes)}"
                )
            if path.suffix != ".npy":
                return list(IdFile(path, self.n_positions).read())
            where = str(path)
            ids = _plain_ids(self._read_array(path), where, self.n_positions)
        check_unique(lambda: ids, where)
        return ids

    def _count_empty(self, count: int) -> None:
        """Adds documents without tokens, if every token has the number of its document among ``count``."""
        numbers = self._part_ids
        if not numbers or not all(isinstance(i, int) for i in numbers):
            return
        found = np.array(numbers)
        if (np.diff(found) > 0).all() and found[0] >= 0 and found[-1] < count:
            lengths = np.zeros(count, np.int64)
            lengths[found] = np.diff(self._offsets)
            self._offsets, self.lengths, self.n_positions = _ends(lengths), lengths, count

    @property
    def _is_of_queries(self) -> bool:
        return self._layout != "one for each" and n.is_of_queries(self._tokens)

    def _find_dim(self) -> int:
        if self._layout == "one for each":
            widths = {s.shape[-1] for s in map(self._file.shapes.__getitem__, self._names) if np.prod(s.shape)}
        elif self._layout == "list":
            widths = {item.shape[-1] for item in self._file.read(self._tokens) if item.size}
        else:
            widths = {self._shape.shape[-1]}
        widths.discard(0)
        if not widths or not self.n_tokens:
            raise InvalidInput(f"{self._file.path}: no document has tokens; it has {_listed(self._file.shapes)}")
        if len(widths) > 1:
            raise InvalidInput(f"{self._file.path}: token vectors of different widths: {sorted(widths)}")
        return int(widths.pop())

    def _described(self) -> str:
        """A description of the arrays that were chosen, and of those that are not read."""
        parts = {
            "one for each": "one array for each document",
            "joined": "joined",
            "padded": "padded",
            "list": "a list of matrices",
        }
        text = parts[self._layout]
        if self._layout == "padded" and self._mask is None:
            text = "matrices of equal lengths without a mask"
        if not self._file.single:
            text = ", ".join([text, *(f"{what} in {name!r}" for name, what in self._used.items())])
        if self._ids is None:
            text += ", ids are positions"
        unused = [name for name in self._file.shapes if name not in self._used and name not in self._names]
        return text + (f", not read: {', '.join(map(repr, unused[:8]))}" if unused else "")


def _lists(shapes: Mapping[str, Shape]) -> list[str]:
    """Names of the arrays that can be ids."""
    return [name for name, s in shapes.items() if s.kind not in "fL"]


def _is_matrix(shape: Shape) -> bool:
    """(n, dim) or (1, n, dim) floats, or an empty array."""
    dims = shape.shape
    return shape.kind == "f" and (len(dims) == 2 or (len(dims) == 3 and dims[0] == 1) or dims == (0,))


def _rows(shape: Shape) -> int:
    return shape.shape[-2] if len(shape.shape) > 1 and np.prod(shape.shape) else 0


def _kind(values: npt.NDArray[Any]) -> str:
    return "f" if values.dtype.names == ("bfloat16",) else values.dtype.kind


def _ends(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _plain_ids(values: npt.NDArray[Any], where: str, count: int | None = None) -> list[DocumentId]:
    """Ids of an array as integers and strings.

    Raises:
        InvalidInput: the array is not a list of ``count`` integers or strings.
    """
    if values.ndim != 1 or (count is not None and len(values) != count):
        expected = "one id for each token" if count is None else f"{count} ids, one for each document"
        raise InvalidInput(
            f"{where} has shape {values.shape}, expected {expected}; name another array or file with --ids, or use "
            f"--ids {n.NO_IDS} for positions"
        )
    try:
        ids = [i.decode() if isinstance(i, bytes) else i for i in values.tolist()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where}: an id is not UTF-8: {error}") from error
    wrong = [i for i in ids if type(i) not in (int, str)]
    if wrong:
        raise InvalidInput(
            f"{where} has {wrong[0]!r} ({values.dtype}); ids are integers and strings: convert them, name another "
            f"array or file with --ids, or use --ids {n.NO_IDS} for positions"
        )
    return ids


def _in_order(names: Sequence[str]) -> list[str]:
    """Names in numeric order (arr_2 before arr_10); names without numbers stay in the file's order."""
    if all(re.search(r"\d+$", name) for name in names):
        return sorted(
            names, key=lambda name: [(len(n), n) if n.isdigit() else (0, n) for n in re.split(r"(\d+)", name)]
        )
    return list(names)


def _listed(shapes: Mapping[str, Shape]) -> str:
    shown = [f"{name} {'x'.join(map(str, s.shape))} {s.kind}" for name, s in list(shapes.items())[:8]]
    return ", ".join(shown) + (f" and {len(shapes) - 8} more" if len(shapes) > 8 else "") if shapes else "no arrays"
