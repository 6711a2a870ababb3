"""Token matrices: checks and conversions of all the forms in which embedding models return them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

Tokens: TypeAlias = npt.NDArray[Any]  # float32 or float16
#: numpy array, torch tensor, nested list, and whatever else ``numpy.asarray`` or torch's ``.numpy()`` can convert
ArrayLike: TypeAlias = Any


class InvalidTokens(ValueError):
    """Token matrices that cannot be encoded.

    Attributes:
        position: index of the document or query in its batch; None where the error concerns the whole batch.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class TokenBatch:
    """Token matrices of different lengths, concatenated in one array.

    Args:
        values: (n_tokens, dim) float32 or float16 token vectors of all matrices; not copied if C-contiguous.
        offsets: (n + 1,) integers from 0 to n_tokens; matrix i is ``values[offsets[i]:offsets[i + 1]]``.

    Raises:
        InvalidTokens: shapes, dtypes or offsets do not fit, or a matrix is empty.
    """

    __slots__ = ("offsets", "values")

    values: Tokens
    offsets: npt.NDArray[np.int64]

    def __init__(self, values: Tokens, offsets: npt.ArrayLike) -> None:
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype not in (np.float32, np.float16):
            raise InvalidTokens(
                f"values must be an (n_tokens, dim) array of float32 or float16, got {_describe(values)}"
            )
        ends = np.asarray(offsets)
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0:
            raise InvalidTokens(f"offsets must be (n + 1,) integers, got {_describe(ends)}")
        self.values = np.ascontiguousarray(values)
        self.offsets = ends.astype(np.int64)
        if self.offsets[0] != 0 or self.offsets[-1] != len(values):
            raise InvalidTokens(
                f"offsets must run from 0 to the number of tokens, {len(values)}; "
                f"they run from {self.offsets[0]} to {self.offsets[-1]}"
            )
        wrong = np.flatnonzero(np.diff(self.offsets) < 1)
        if len(wrong):
            i = int(wrong[0])
            raise InvalidTokens(f"position {i} has no tokens (offsets {ends[i]} to {ends[i + 1]})", i)

    @classmethod
    def from_list(cls, arrays: Iterable[ArrayLike]) -> TokenBatch:
        """Joins (n_i, dim) matrices: to float16 if all are float16, otherwise to float32.

        Raises:
            InvalidTokens: a matrix is empty, has another width or is not numeric; the message names its position.
        """
        return to_batch(arrays, what="position")

    @classmethod
    def from_padded(cls, array: ArrayLike, mask: ArrayLike) -> TokenBatch:
        """Takes the real tokens of a padded batch.

        Args:
            array: (n, t, dim) padded batch of token vectors.
            mask: (n, t) mask as tokenizers and models return it, True or 1 for a real token.

        Raises:
            InvalidTokens: the shapes do not fit, mask holds anything but 0 and 1, or a row has no real token.
        """
        padded, real = _to_numpy(array, "padded array"), np.asarray(_detached(mask))
        if padded.ndim != 3:
            raise InvalidTokens(f"a padded batch has shape (n, t, dim), got {padded.shape}")
        if real.shape != padded.shape[:2]:
            raise InvalidTokens(
                f"mask has shape {real.shape}, but a batch of shape {padded.shape} needs a mask of shape "
                f"{padded.shape[:2]}"
            )
        if real.dtype != np.bool_:
            if not np.isin(real, (0, 1)).all():
                raise InvalidTokens("mask must hold 1 (or True) for real tokens and 0 for padding, nothing else")
            real = real.astype(np.bool_)
        lengths = real.sum(axis=1)
        if len(lengths) and not lengths.all():
            i = int(np.argmin(lengths))
            raise InvalidTokens(f"position {i} has no tokens: its mask is all zeros", i)
        return cls(padded[real], np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @property
    def dim(self) -> int:
        """Width of a token vector."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(n,) numbers of tokens of the matrices."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> TokenBatch: ...
    def __getitem__(self, index: int | slice) -> Tokens | TokenBatch:
        """Matrix i, or a batch of the matrices in a contiguous slice; both are views."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"slices of a TokenBatch must be contiguous (step 1), got step {step}")
            offsets = self.offsets[start : max(start, stop) + 1]
            return TokenBatch(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        i = range(len(self))[index]
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def __repr__(self) -> str:
        return f"TokenBatch({len(self)} x {self.dim}, {len(self.values)} tokens, {self.values.dtype})"


def to_batch(docs: Any, mask: ArrayLike | None = None, *, dim: int | None = None, what: str = "document") -> TokenBatch:
    """Converts documents in any form that :func:`to_matrices` takes to one batch."""
    found = to_matrices(docs, mask, dim=dim, what=what)
    if isinstance(found, TokenBatch):
        return found
    if not found:
        return TokenBatch(np.empty((0, dim or 0), np.float32), [0])
    return TokenBatch(np.concatenate(found), np.concatenate([[0], np.cumsum([len(m) for m in found])]))


def to_matrices(
    docs: Any, mask: ArrayLike | None = None, *, dim: int | None = None, what: str = "document"
) -> TokenBatch | list[Tokens]:
    """Checks shapes and dtypes of documents, but not their values, and copies only what needs conversion.

    Args:
        docs: a TokenBatch, an (n, t, dim) array with ``mask``, or an iterable of (n_i, dim) matrices. The iterable can
            also be an object array, or a column of pandas, polars or pyarrow.
        mask: (n, t) mask of a padded batch.
        dim: expected width of the token vectors; None: that of the first document.
        what: noun for one document in messages.
    """
    if mask is not None:
        docs = TokenBatch.from_padded(docs, mask)
    if isinstance(docs, TokenBatch):
        if dim is not None and docs.dim != dim:
            raise InvalidTokens(f"the batch has token vectors of width {docs.dim}, expected {dim}")
        return docs
    # a one-dimensional array can be an object array of matrices, or a column of pandas or polars with a matrix per cell
    if hasattr(docs, "ndim") and hasattr(docs, "shape") and (docs.ndim != 1 or _is_numeric(docs)):
        if docs.ndim == 1:
            raise InvalidTokens(f"got a {tuple(docs.shape)} array of numbers where a batch of matrices is expected")
        if docs.ndim == 2:
            raise InvalidTokens(
                f"got one {docs.shape} matrix where a batch of matrices is expected: put it into a list"
            )
        raise InvalidTokens(
            f"got a {tuple(docs.shape)} array: pass mask=, an {tuple(docs.shape[:2])} array with 1 for real tokens "
            "(all ones if nothing is padded), or a list of matrices"
        )
    if isinstance(docs, str | bytes | dict) or not isinstance(docs, Iterable):
        raise InvalidTokens(f"expected token matrices, got {type(docs).__name__}")
    matrices = []
    for position, tokens in enumerate(docs):
        matrix = to_matrix(tokens, dim=dim, what=f"{what} {position}", position=position)
        if dim is None:
            dim = matrix.shape[1]
        matrices.append(matrix)
    return matrices


def to_matrix(tokens: ArrayLike, *, dim: int | None, what: str, position: int | None = None) -> Tokens:
    """Converts one (n, dim) matrix to float32 unless it is float16; values are not checked."""
    matrix = _to_numpy(tokens, what, position)
    if matrix.ndim == 3 and matrix.shape[0] == 1:  # a model returned a batch of one
        matrix = matrix[0]
    if matrix.ndim == 1 and not matrix.size:
        raise InvalidTokens(f"{what} has no tokens", position)
    if matrix.ndim != 2:
        hint = "; a single token is an array of shape (1, dim)" if matrix.ndim == 1 and matrix.size else ""
        raise InvalidTokens(f"{what} must be an (n, dim) matrix, got shape {matrix.shape}{hint}", position)
    if matrix.shape[0] == 0:
        raise InvalidTokens(f"{what} has no tokens", position)
    if matrix.shape[1] != dim and (dim is not None or matrix.shape[1] == 0):
        expected = "at least 1" if dim is None else dim
        raise InvalidTokens(f"{what} has token vectors of width {matrix.shape[1]}, expected {expected}", position)
    return matrix


def weighted_sum(weights: ArrayLike, contributions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The (dim,) sum of the (n, dim) contributions of tokens, each multiplied by its weight.

    Raises:
        ValueError: the weights are not n finite numbers.
    """
    factors = np.asarray(_detached(weights), np.float32)
    if factors.shape != contributions.shape[:1] or not np.isfinite(factors).all():
        raise ValueError(f"weights must be {len(contributions)} finite numbers, one for each token of the query")
    return factors @ contributions


def _to_numpy(tokens: ArrayLike, what: str, position: int | None = None) -> Tokens:
    if isinstance(tokens, np.ndarray) and tokens.dtype == np.float32:
        return tokens
    try:
        array = _stacked(np.asarray(_detached(tokens)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTokens(f"{what} is not an array of numbers: {error}", position) from error
    if array.dtype in (np.float16, np.float32):
        return array
    # bfloat16 of the ml_dtypes package is a void type to numpy, but converts
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InvalidTokens(f"{what} has dtype {array.dtype}, expected floating point", position)
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, which a later check reports
        return array.astype(np.float32)


def _is_numeric(docs: Any) -> bool:
    """Whether a one-dimensional array holds numbers, not matrices."""
    dtype = getattr(docs, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


def _stacked(array: npt.NDArray[Any], depth: int = 2) -> npt.NDArray[Any]:
    """Converts an object array of rows, which pandas makes of a list of vectors, to an array of numbers.

    Raises:
        ValueError: rows have different widths, or a value is missing.
    """
    if array.dtype != object:
        return array
    if any(item is None for item in array.flat):
        raise ValueError("a value is missing")
    if array.ndim != 1:
        return np.array(array.tolist())
    return np.array([_stacked(np.asarray(_detached(row)), depth - 1) if depth else row for row in array])


def _detached(tokens: ArrayLike) -> ArrayLike:
    """Converts torch tensors (on any device, in any graph, also bfloat16) and cells of pyarrow to what numpy takes."""
    if hasattr(tokens, "as_py"):
        return getattr(tokens, "values", None) if hasattr(tokens, "values") else tokens.as_py()
    if hasattr(tokens, "detach") and hasattr(tokens, "cpu"):
        tensor = tokens.detach().cpu()
        return tensor.float() if "bfloat16" in str(tensor.dtype) else tensor
    return tokens


def _describe(thing: Any) -> str:
    return f"{thing.dtype} {thing.shape}" if isinstance(thing, np.ndarray) else type(thing).__name__


class Located:
    """Memory addresses of the tokens of checked matrices, so that the kernels read them without joining them.

    Attributes:
        addresses: (n,) int64 addresses of the first tokens of the matrices.
        offsets: (n + 1,) int64 running numbers of tokens.
        half: whether values are float16; otherwise they are float32.
    """

    def __init__(self, matrices: TokenBatch | Sequence[Tokens], what: str, first: int = 0) -> None:
        self._what, self._first = what, first
        if isinstance(matrices, TokenBatch):
            values = matrices.values
            self.offsets = matrices.offsets
            self.addresses = values.ctypes.data + self.offsets[:-1] * values.strides[0]
            self.half = values.dtype == np.float16
            self._alive: TokenBatch | Sequence[Tokens] = matrices
            return
        self.half = bool(matrices) and all(m.dtype == np.float16 for m in matrices)
        if not self.half:
            matrices = [m.astype(np.float32, copy=False) for m in matrices]
        matrices = [m if m.flags.c_contiguous else np.ascontiguousarray(m) for m in matrices]
        self.offsets = np.zeros(len(matrices) + 1, np.int64)
        np.cumsum([len(m) for m in matrices], out=self.offsets[1:])
        self.addresses = np.array([m.__array_interface__["data"][0] for m in matrices], np.int64)
        self._alive = matrices

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(n,) numbers of tokens of the matrices."""
        return np.diff(self.offsets)

    def checked(self) -> Iterator[npt.NDArray[np.float32]]:
        """Each matrix as float32.

        Raises:
            InvalidTokens: a token is NaN, infinite or all zeros.
        """
        matrices = self._alive
        for position in range(len(self.addresses)):
            tokens = matrices[position].astype(np.float32, copy=False)
            finite = np.asarray(np.isfinite(tokens).all(axis=1))
            good = finite & tokens.any(axis=1)
            if not good.all():
                token = int(np.argmin(good))
                raise self.bad_token(not finite[token], position, token)
            yield tokens

    def bad_token(self, not_finite: bool, position: int, token: int) -> InvalidTokens:
        """The error for a token that a kernel rejected; positions count from ``first``."""
        position += self._first
        where = f"{self._what} {position}, token {token}"
        if not_finite:
            return InvalidTokens(f"{where} has a NaN or infinite value", position)
        return InvalidTokens(
            f"{where} is all zeros: padding? Drop such tokens, or pass mask= with a padded array", position
        )


def first_bad_token(batch: TokenBatch) -> tuple[bool, int, int] | None:
    """Finds the first token that is NaN, infinite or all zeros: whether it is not finite, its matrix and its position.

    None if all tokens are finite and not zero.
    """
    finite = np.asarray(np.isfinite(batch.values).all(axis=1))
    bad = np.flatnonzero(~finite | ~batch.values.any(axis=1))
    if not len(bad):
        return None
    position = int(np.searchsorted(batch.offsets, bad[0], side="right")) - 1
    return not finite[bad[0]], position, int(bad[0] - batch.offsets[position])
