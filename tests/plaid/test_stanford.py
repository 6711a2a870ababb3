"""Indexes written by colbert-ai 0.2.22, against the library's own decompressed vectors; and damaged ones."""

import json
import pickle
import random
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, UnknownFormat, open_index
from muvera_adapters.plaid.torch_file import load_tensors
from tests.plaid.files import INDEXES, Evil, save, save_legacy, write_archive

NAMES = sorted(p.name for p in INDEXES.glob("stanford_*"))


@pytest.fixture
def copy(tmp_path):
    """A writable copy of an index."""
    return Path(shutil.copytree(INDEXES / "stanford_nbits2" / "index", tmp_path / "index"))


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_librarys_own_vectors(name):
    truth = np.load(INDEXES / name / "truth.npz")
    source = open_index(INDEXES / name / "index")
    documents = {d.position: d for d in source.documents()}
    lengths = truth["doclens"]
    assert source.format == "stanford"
    assert source.dim == 128
    assert source.n_tokens == lengths.sum() == sum(len(d.tokens) for d in documents.values())
    assert list(documents) == np.flatnonzero(lengths).tolist()  # deleted ones left out, numbers kept
    assert len(source) == len(documents)
    at = 0
    for position in truth["sel_docs"]:
        rows = truth["sel_emb"][at : at + lengths[position]]
        at += len(rows)
        if len(rows):
            np.testing.assert_allclose(documents[position].tokens, rows, rtol=0, atol=1e-6)
    for position, d in documents.items():
        assert d.tokens.dtype == np.float32
        assert d.id == position
        assert d.tokens.sum(dtype=float) == pytest.approx(truth["doc_sum"][position], abs=1e-4)


def test_slices_of_long_documents(monkeypatch):
    whole = [d.tokens for d in open_index(INDEXES / "stanford_nbits4" / "index").documents()]
    for size in (1, 30, 31, 1000):
        monkeypatch.setattr("muvera_adapters.plaid.chunks._SLICE_TOKENS", size)
        parts = [d.tokens for d in open_index(INDEXES / "stanford_nbits4" / "index").documents()]
        assert len(parts) == len(whole)
        for a, b in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(a, b)


def test_lengths_written_as_floats(copy):
    path = copy / "doclens.0.json"
    path.write_text(json.dumps([float(n) for n in json.loads(path.read_text())]))
    assert len(list(open_index(copy).documents())) == 240


def test_needs_no_torch():
    code = (
        "import sys; from muvera_adapters.plaid import open_index; "
        f"list(open_index({str(INDEXES / 'stanford_nbits2' / 'index')!r}).documents()); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_index_is_not_written_to(copy):
    for path in copy.iterdir():
        path.chmod(0o444)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.iterdir()}
    list(open_index(copy).documents())
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.iterdir()} == before


class TestDamage:
    def read(self, path):
        return list(open_index(path).documents())

    def test_no_index(self, tmp_path):
        with pytest.raises(UnknownFormat, match="is not a directory"):
            open_index(tmp_path / "missing")
        with pytest.raises(UnknownFormat, match="is not a PLAID index"):
            open_index(tmp_path)
        (tmp_path / "plan.json").write_text("{}")
        with pytest.raises(UnknownFormat, match="not finished"):
            open_index(tmp_path)

    @pytest.mark.parametrize("name", ["metadata.json", "doclens.1.json", "buckets.pt", "2.codes.pt", "0.residuals.pt"])
    def test_missing_file(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(IndexDamaged, match=f"{name}: the file is missing"):
            self.read(copy)

    @pytest.mark.parametrize("name", ["centroids.pt", "buckets.pt", "1.codes.pt", "1.residuals.pt"])
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95, 0.999])
    def test_truncated_file(self, copy, name, share):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: int(len(data) * share)])
        with pytest.raises(IndexDamaged, match=name):
            self.read(copy)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("metadata.json", "{", "not valid JSON"),
            ("metadata.json", "[" * 100_000, "not valid JSON"),
            ("metadata.json", "[]", "num_chunks"),
            ("metadata.json", '{"num_chunks": -1}', "num_chunks"),
            ("metadata.json", '{"num_chunks": "3"}', "num_chunks"),
            ("metadata.json", '{"num_chunks": 1000000000}', "doclens.3.json: the file is missing"),
            ("doclens.0.json", "{}", "list of document lengths"),
            ("doclens.0.json", "[1, -1]", "list of document lengths"),
            ("doclens.0.json", "[1.5]", "list of document lengths"),
            ("doclens.0.json", '["../../etc/passwd"]', "list of document lengths"),
            ("doclens.0.json", "[Infinity]", "list of document lengths"),
            ("doclens.0.json", "[NaN]", "list of document lengths"),
            ("doclens.0.json", "[5, 7]", "rows, but doclens.0.json adds up to 12"),
            ("doclens.0.json", "[99999999999999999999]", "doclens.0.json"),
        ],
    )
    def test_json(self, copy, name, text, message):
        (copy / name).write_text(text)
        with pytest.raises(IndexDamaged, match=message):
            self.read(copy)

    def test_files_of_different_builds(self, copy):
        shutil.copy(INDEXES / "stanford_nbits4" / "index" / "0.residuals.pt", copy)
        with pytest.raises(IndexDamaged, match=r"0.residuals.pt: expected an \(n, 32\) array of bytes"):
            self.read(copy)

    def test_code_beyond_the_centroids(self, copy):
        save(copy / "0.codes.pt", load_tensors(copy / "0.codes.pt") + 100_000)
        with pytest.raises(IndexDamaged, match=r"0.codes.pt: a code is outside the \d+ centroids"):
            self.read(copy)
        save(copy / "0.codes.pt", load_tensors(copy / "0.codes.pt") - 200_000)
        with pytest.raises(IndexDamaged, match="a code is outside"):
            self.read(copy)

    def test_not_finite(self, copy):
        centroids = load_tensors(copy / "centroids.pt").copy()
        centroids[3, 3] = np.nan
        save(copy / "centroids.pt", centroids)
        with pytest.raises(IndexDamaged, match="NaN or infinite"):
            self.read(copy)

    @pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
    def test_random_damage_is_an_error_or_harmless(self, copy):
        """Bytes flipped anywhere: a clear error, or other values; never anything else."""
        rng = random.Random(0)
        for _ in range(300):
            path = copy / rng.choice(["centroids.pt", "buckets.pt", "1.codes.pt", "doclens.1.json", "metadata.json"])
            whole = path.read_bytes()
            data = bytearray(whole)
            for _ in range(rng.choice([1, 3, 40])):
                # half of the time where structure is: the first and the last kilobyte
                end = rng.choice([len(data), min(len(data), 1024)])
                at = rng.randrange(end)
                data[at if rng.random() < 0.5 else -1 - at] = rng.randrange(256)
            path.write_bytes(data)
            try:
                for d in open_index(copy).documents():
                    assert d.tokens.shape[1] == 128
            except (IndexDamaged, UnknownFormat):
                pass
            path.write_bytes(whole)


class TestTorchFile:
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "i4", "i2", "i1", "u1"])
    @pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4), (0,), (3, 0)])
    def test_reads_what_is_written(self, tmp_path, dtype, shape):
        array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
        save(tmp_path / "x.pt", array)
        found = load_tensors(tmp_path / "x.pt")
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
        if found.size:
            with pytest.raises(ValueError, match="read-only"):
                found[...] = 0

    def test_the_format_before_torch_1_6(self, tmp_path):
        array = np.arange(12, dtype="f4").reshape(3, 4)
        save_legacy(tmp_path / "x.pt", array)
        np.testing.assert_array_equal(load_tensors(tmp_path / "x.pt"), array)
        for cut in (1, 48, 50, 60, 150):
            save_legacy(tmp_path / "x.pt", array, cut=cut)
            with pytest.raises(IndexDamaged, match=r"x\.pt"):
                load_tensors(tmp_path / "x.pt")
        save_legacy(tmp_path / "x.pt", array, keys=())
        with pytest.raises(IndexDamaged, match="storage '0' is missing"):
            load_tensors(tmp_path / "x.pt")

    def test_the_format_before_torch_1_6_is_mapped(self, tmp_path):
        """A file with holes may be larger than memory."""
        array = np.zeros((1 << 10, 1 << 10), "f4")
        array[-1, -1] = 5
        save_legacy(tmp_path / "x.pt", array)
        tracemalloc.start()
        found = load_tensors(tmp_path / "x.pt")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 20
        assert (found.shape, found[-1, -1], found.sum()) == (array.shape, 5, 5)

    def test_refuses_to_execute(self, tmp_path):
        marker = tmp_path / "executed"
        for payload in (Evil(marker), (np.zeros(3), Evil(marker)), {"a": [Evil(marker)]}):
            write_archive(tmp_path / "x.pt", pickle.dumps(payload), {})
            with pytest.raises(IndexDamaged, match=r"refused: (it asks for|the pickle has)|not a file that"):
                load_tensors(tmp_path / "x.pt")
            (tmp_path / "x.pt").write_bytes(pickle.dumps(payload))  # as the old format's first pickle
            with pytest.raises(IndexDamaged):
                load_tensors(tmp_path / "x.pt")
        assert not marker.exists()

    @pytest.mark.parametrize(
        ("size", "stride", "offset"),
        [((5,), (1,), 0), ((4,), (1,), 1), ((2,), (3,), 1), ((2, 2), (4, 1), 0), ((2,), (-1,), 1), ((4,), (1,), -1),
         ((10**12,), (0,), 2**40), ((1 << 62,), (4,), 0), ((2,), (1, 1), 0), ((2.0,), (1,), 0)],
    )  # fmt: skip
    def test_views_outside_their_storage(self, tmp_path, size, stride, offset):
        save(tmp_path / "x.pt", np.zeros(4, "f4"), size=size, stride=stride, offset=offset)
        with pytest.raises(IndexDamaged):
            load_tensors(tmp_path / "x.pt")

    def test_size_bombs(self, tmp_path):
        path = tmp_path / "x.pt"
        save(path, np.zeros(4, "f4"), count=10**15, size=(10**15,))
        with pytest.raises(IndexDamaged, match="bytes, 1000000000000000 values"):
            load_tensors(path)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", b"\0" * (1 << 24))
        with pytest.raises(IndexDamaged, match="too many to describe tensors"):
            load_tensors(path)

    def test_archives_that_lie(self, tmp_path):
        path = tmp_path / "x.pt"
        save(path, np.zeros(4, "f4"), members={"x/byteorder": b"big"})
        with pytest.raises(IndexDamaged, match="big-endian"):
            load_tensors(path)
        save(path, np.zeros(4, "f4"), key="../../../etc/passwd", members={})
        with pytest.raises(IndexDamaged, match="is missing"):
            load_tensors(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", b"1")
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("x/data.pkl", b"2")
        with pytest.raises(IndexDamaged, match="same name"):
            load_tensors(path)
