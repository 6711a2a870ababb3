"""Paths and options that ``open_source`` refuses, and queries that ``open_queries`` reads or refuses."""

import sys

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, MissingExtra, MuveraError, WrongUsage
from muvera_adapters.sources import open_queries, open_source
from tests.sources.conftest import DIM


def test_queries(tmp_path, rng):
    matrix = rng.normal(size=(3, 5, DIM))
    np.save(tmp_path / "three.npy", matrix)
    np.save(tmp_path / "one.npy", matrix[1])
    np.save(tmp_path / "none.npy", matrix[0, 0])
    assert open_queries(tmp_path / "three.npy").lengths.tolist() == [5, 5, 5]
    np.testing.assert_array_equal(open_queries(tmp_path / "one.npy")[0], matrix[1].astype("f4"))
    with pytest.raises(InvalidInput, match="expected one"):
        open_queries(tmp_path / "none.npy")
    with pytest.raises(InvalidInput, match="no such file"):
        open_queries(tmp_path / "absent.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(InvalidInput, match=r"not a \.npy"):
        open_queries(tmp_path / "text.npy")


def test_what_is_no_source(tmp_path):
    with pytest.raises(MuveraError, match="no such file or directory"):
        open_source(tmp_path / "absent")
    with pytest.raises(MuveraError, match="no such file"):
        open_source(tmp_path / "absent.npz")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(MuveraError, match="not a directory of an index"):
        open_source(tmp_path / "x.csv")
    with pytest.raises(WrongUsage, match="--texts does not apply"):
        open_source(tmp_path / "x.npz", texts="texts.tsv")
    with pytest.raises(WrongUsage, match="--from-collection does not apply"):
        open_source(tmp_path, collection="x")


@pytest.mark.parametrize(("module", "suffix"), [("safetensors", "safetensors"), ("pyarrow", "parquet")])
def test_missing_extras(tmp_path, monkeypatch, module, suffix):
    (tmp_path / f"x.{suffix}").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"muvera-adapters\[{suffix}\]"):
        open_source(tmp_path / f"x.{suffix}")


@pytest.mark.parametrize("suffix", ["npz", "npy", "safetensors", "pt", "parquet", "arrow"])
def test_files_that_cannot_be_read(tmp_path, suffix):
    pytest.importorskip("pyarrow")
    path = tmp_path / f"x.{suffix}"
    for content in (b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"ARROW1\0\0", b"PAR1", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(MuveraError):
            open_source(path)
