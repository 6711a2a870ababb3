"""Compiled kernels on disk."""

import importlib.util
import sys

import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from muvera_core import _jit, _kernels, _pooling_kernels, _regression_kernels, _simd


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Imports a file with a kernel anew, as another process would, and calls it."""
    file = tmp_path / "added_kernels.py"
    file.write_text("from muvera_core._jit import jit\n\n\n@jit\ndef add_one(x):\n    return x + 1\n")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))

    def load():
        spec = importlib.util.spec_from_file_location("added_kernels", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "added_kernels", module)
        spec.loader.exec_module(module)
        assert module.add_one(1) == 2
        return module.add_one.stats

    return load


def test_a_kernel_is_compiled_once(kernel):
    first, again = kernel(), kernel()
    assert (sum(first.cache_hits.values()), sum(first.cache_misses.values())) == (0, 1)
    assert (sum(again.cache_hits.values()), sum(again.cache_misses.values())) == (1, 0)


def test_a_kernel_is_compiled_again_when_another_file_of_kernels_has_changed(kernel, monkeypatch):
    kernel()
    monkeypatch.setattr(_jit, "_DIGEST", "of the changed files")
    changed = kernel()
    assert (sum(changed.cache_hits.values()), sum(changed.cache_misses.values())) == (0, 1)


def test_a_full_disk_keeps_nothing_and_stops_nothing(kernel, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._dump", full)
    kernel()
    kernel()
    monkeypatch.undo()


@pytest.mark.parametrize("content", [b"", b"no pickle", None])
def test_files_that_cannot_be_read_are_as_good_as_none(kernel, tmp_path, content):
    kernel()
    for file in (tmp_path / "cache").rglob("*.nb[ic]"):
        file.unlink()
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content)
    assert sum(kernel().cache_misses.values()) == 1


def test_a_file_in_the_place_of_the_directory(kernel, tmp_path):
    (tmp_path / "cache").write_text("")
    kernel()


@pytest.mark.parametrize("name", ["_layout.py", "_simd.py", "_kernels.py", "_regression_kernels.py"])
def test_the_digest_is_of_every_file_with_compiled_code(tmp_path, name):
    for file in ("_layout.py", "_simd.py", "_kernels.py", "_regression_kernels.py"):
        (tmp_path / file).write_text(file)
    before = _jit.digest(tmp_path)
    assert _jit.digest(tmp_path) == before
    (tmp_path / name).write_text(name.upper())
    assert _jit.digest(tmp_path) != before


@pytest.mark.parametrize("module", [_simd, _kernels, _regression_kernels, _pooling_kernels])
def test_kernels_call_only_what_the_digest_is_of(module):
    compiled = [value for value in vars(module).values() if isinstance(value, Dispatcher | _Intrinsic)]
    assert compiled
    for function in compiled:
        package, _, name = function.__module__.rpartition(".")
        assert package == "muvera_core"
        assert name == "_simd" or name.endswith("_kernels")
