"""The regression encoder on the device of torch tensors. The module is imported only for such tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from muvera_core._parallel import for_chunks
from muvera_core._regression_fit import Fitted, Float32, Float64, Half
from muvera_core.tokens import ArrayLike, Located, Tokens, to_matrices, to_matrix

# the largest intermediate is (tokens, sample) float32: 0.2 GB with a sample of 12,000
_CHUNK_TOKENS = 4096


def encode(fitted: Fitted, docs: Any, mask: ArrayLike | None, what: str) -> Float32:
    """Encodes documents or queries (``what``) to numpy float32 vectors; errors are the same as on the CPU."""
    parts, matrices = [], None
    for first, tensors in _chunks(docs, mask, fitted.sample.shape[1], what):
        if matrices is None:
            matrices = {
                name: torch.as_tensor(array, dtype=torch.float32, device=tensors[0].device)
                for name, array in fitted._asdict().items()
            }
        values = torch.cat([tensor.to(tensors[0].device, torch.float32) for tensor in tensors])
        lengths = torch.tensor([len(tensor) for tensor in tensors], device=values.device)
        _check(values, tensors, what, first)
        make = _documents if what == "document" else _queries
        parts.append(make(matrices, values, lengths).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, len(fitted.lift)), np.float32)


class Device:
    """The operations of a fit on a device (``_regression_fit.Arithmetic``). Arguments and results are numpy arrays."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def maxima(self, documents: list[Tokens], sample: Half) -> Float32:
        against, parts = self._to(sample).float(), []

        def work(i: int, j: int) -> None:
            values = self._to(np.concatenate(documents[i:j])).float()
            lengths = torch.tensor([len(document) for document in documents[i:j]], device=self._device)
            parts.append(_numpy(_best(values, lengths, against)))

        for_chunks(np.array([len(document) for document in documents]), _CHUNK_TOKENS, 1, work)
        return np.ascontiguousarray(np.concatenate(parts).T)

    def product(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
        wider = np.result_type(left, right)
        return _numpy(self._to(left.astype(wider, copy=False)) @ self._to(right.astype(wider, copy=False)))

    def factor(self, positive: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        lower = torch.linalg.cholesky(self._to(positive))
        identity = torch.eye(len(lower), dtype=lower.dtype, device=self._device)
        return _numpy(lower), _numpy(torch.linalg.solve_triangular(lower, identity, upper=False))

    def solve(self, matrix: Float64, right: Float64) -> Float64:
        return _numpy(torch.linalg.solve(self._to(matrix), self._to(right)))

    def _to(self, array: npt.NDArray[Any]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _numpy(tensor: Any) -> npt.NDArray[Any]:
    result: npt.NDArray[Any] = tensor.cpu().numpy()
    return result


def _best(values: Any, lengths: Any, sample: Any) -> Any:
    """(n, s) largest dot product of each of n documents with each of s sample tokens."""
    dots = values @ sample.T
    owners = torch.repeat_interleave(torch.arange(len(lengths), device=values.device), lengths)
    best = torch.full((len(lengths), dots.shape[1]), -torch.inf, device=values.device)
    return best.scatter_reduce(0, owners[:, None].expand_as(dots), dots, "amax")


def _documents(m: dict[str, Any], values: Any, lengths: Any) -> Any:
    vectors = (_best(values, lengths, m["sample"]) - m["centres"]) @ m["documents"]
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    lifts = torch.sqrt((1 - norms**2).clamp(min=0))
    return (vectors + lifts * m["lift"]) / torch.hypot(norms, lifts)


def _queries(m: dict[str, Any], values: Any, lengths: Any) -> Any:
    features = torch.relu(values @ m["weights"] - m["thresholds"])
    owners = torch.repeat_interleave(torch.arange(len(lengths), device=values.device), lengths)
    sums = torch.zeros((len(lengths), features.shape[1]), device=values.device).index_add(0, owners, features)
    vectors = sums @ m["queries"]
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def _chunks(docs: Any, mask: ArrayLike | None, dim: int, what: str) -> Iterator[tuple[int, list[Any]]]:
    """Slices of some tokens, as (position of the first document, tensors), with checked shapes."""
    held: list[Any] = []
    tokens = first = 0
    for position, tensor in enumerate(_matrices(docs, mask, dim)):
        tensor = torch.as_tensor(tensor).detach()
        # the shared checks look at shape and dtype only, so an array without memory can stand for the tensor
        stand_in = np.broadcast_to(np.float32(1), tuple(tensor.shape))
        to_matrix(stand_in, dim=dim, what=f"{what} {position}", position=position)
        held.append(tensor)
        tokens += len(tensor)
        if tokens >= _CHUNK_TOKENS:
            yield first, held
            held, tokens, first = [], 0, position + 1
    if held:
        yield first, held


def _matrices(docs: Any, mask: ArrayLike | None, dim: int) -> Iterable[Any]:
    if mask is None:
        if hasattr(docs, "shape"):
            to_matrices(
                np.broadcast_to(np.float32(1), tuple(docs.shape)), dim=dim
            )  # always raises: neither a list nor a mask
        return docs
    real = torch.as_tensor(mask, device=docs.device)
    if docs.ndim != 3 or real.shape != docs.shape[:2] or not bool(((real == 0) | (real == 1)).all()):
        # raises with the reason
        to_matrices(np.broadcast_to(np.float32(1), tuple(docs.shape)), real.cpu().numpy(), dim=dim)
    return (matrix[keep.bool()] for matrix, keep in zip(docs, real, strict=True))


def _check(values: Any, tensors: list[Any], what: str, first: int) -> None:
    finite = torch.isfinite(values).all(dim=1)
    bad = torch.nonzero(~finite | ~(values != 0).any(dim=1))
    if len(bad) == 0:
        return
    token, position = int(bad[0]), 0
    while token >= len(tensors[position]):
        token -= len(tensors[position])
        position += 1
    raise Located([], what, first).bad_token(not bool(finite[int(bad[0])]), position, token)
