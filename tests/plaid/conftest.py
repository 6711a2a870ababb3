"""A fixture that copies indexes, and functions that read and compare their documents."""

import shutil

import numpy as np
import pytest

from muvera_adapters.plaid import open_index
from tests.plaid.files import INDEXES


def read(path, **options):
    return list(open_index(path, **options).documents())


def assert_same(found, expected, *, tolerance=0.0):
    assert [(d.position, d.id, d.payload) for d in found] == [(d.position, d.id, d.payload) for d in expected]
    assert_same_tokens(found, expected, tolerance=tolerance)


def assert_same_tokens(found, expected, *, tolerance=0.0):
    assert [len(d.tokens) for d in found] == [len(d.tokens) for d in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.tokens, b.tokens, rtol=0, atol=tolerance)


@pytest.fixture
def copy(tmp_path):
    """Copies an index to a place where it can be changed."""

    def copy(name):
        return shutil.copytree(INDEXES / name, tmp_path / "index")

    return copy
