"""Token matrices, files that hold them as arrays, and a check of what a source reads back."""

import numpy as np
import pytest

DIM = 16


@pytest.fixture
def matrices(rng):
    return [rng.normal(size=(int(n), DIM)).astype("f2") for n in rng.integers(1, 9, 700)]


def save_arrays(tmp_path, form, **arrays):
    if form == "npz":
        np.savez(tmp_path / "x.npz", **arrays)
    else:
        from safetensors.numpy import save_file

        save_file(arrays, tmp_path / "x.safetensors")
    return tmp_path / f"x.{form}"


def check(source, matrices, ids=None):
    assert source.dim == DIM
    assert len(source) == source.n_positions == len(matrices)
    for start in (0, 1, 350, len(matrices) - 1, len(matrices)):
        found = list(source.documents(start))
        assert [d.position for d in found] == list(range(start, len(matrices)))
        assert [d.id for d in found] == list(ids or range(len(matrices)))[start:]
        for document, matrix in zip(found, matrices[start:], strict=True):
            assert document.tokens.dtype == np.float32
            np.testing.assert_array_equal(document.tokens, matrix.astype("f4"))
