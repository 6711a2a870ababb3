"""Indexes of every format that were damaged, or made to harm who reads them: the outcome is a clear error."""

import gzip
import json
import os
import pickle
import random
import shutil
import sqlite3
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, UnknownFormat, open_index
from muvera_adapters.plaid.numpy_file import load_array, load_object_array
from muvera_adapters.plaid.pickles import load_plain
from muvera_adapters.plaid.torch_file import load_tensors
from tests.plaid.conftest import read
from tests.plaid.files import INDEXES, Evil, save, save_legacy, save_objects, write_archive

pytestmark = pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")

FORMATS = {
    "stanford": "stanford_nbits2_updated/index",
    "ragatouille": "ragatouille_assembled/index",
    "pylate-stanford": "pylate160_stanford/index/colbert",
    "pylate-fast-plaid": "pylate160_fastplaid/index/colbert",
    "fast-plaid": "fastplaid170_nbits4_updated/index",
    "fast-plaid with chunks": "fastplaid147_nbits4/index",
    "next-plaid": "fastplaid147_nbits4/index",
    "xtr-warp": "xtrwarp_nbits4/index",
    "xtr-warp-rs": "xtrwarprs_nbits4/index",
    "colbert-v1": None,
}
# a healthy index may lack these
OPTIONAL = {
    "embeddings.npy", "buffer.npy", "metadata.db", "collection.json", "docid_metadata_map.json", "deleted_pids.npy",
    "docnos.pkl.gz", "build_state.json",
}  # fmt: skip


@pytest.fixture(params=FORMATS)
def index(request, tmp_path):
    """A writable index of every format."""
    path = tmp_path / "index"
    if request.param == "colbert-v1":
        path.mkdir()
        for chunk in (0, 1):
            save(path / f"{chunk}.pt", np.random.default_rng(chunk).normal(size=(6, 16)).astype("f2"))
            (path / f"doclens.{chunk}.json").write_text("[1, 2, 3]")
        (path / "docnos.pkl.gz").write_bytes(gzip.compress(pickle.dumps(list("abcdef"))))
    else:
        shutil.copytree(INDEXES / FORMATS[request.param], path)
    if request.param == "xtr-warp-rs":
        np.save(path / "deleted_pids.npy", np.array([3]))
    if request.param == "next-plaid":
        flat = [d.tokens for d in open_index(path).documents()]
        np.save(path / "embeddings.npy", np.concatenate(flat))
        (path / "embeddings_lengths.json").write_text(json.dumps([len(x) for x in flat]))
    assert open_index(path).format == request.param.removesuffix(" with chunks")
    return path


def read_or_refused(index):
    """Documents, or None where the index was refused with an error that names a file of it."""
    try:
        return read(index)
    except (IndexDamaged, UnknownFormat) as error:
        refusal = error
    assert str(index) in str(refusal)
    return None


def same(a, b):
    return len(a) == len(b) and all(
        x[:2] == y[:2] and x.payload == y.payload and np.array_equal(x.tokens, y.tokens)
        for x, y in zip(a, b, strict=True)
    )


def files(index):
    return sorted(p for p in index.rglob("*") if p.is_file())


def test_files_cut_short(index):
    """An error that names a file, or, where the file is not needed, the same documents."""
    whole = read(index)
    refused = 0
    for path in files(index):
        data = path.read_bytes()
        for size in {0, 7, len(data) // 2, len(data) - 1} - {-1}:
            path.write_bytes(data[:size])
            found = read_or_refused(index)
            assert found is None or same(found, whole), (path, size)
            refused += found is None
        path.write_bytes(data)
    assert refused >= 8


def test_missing_files(index):
    whole = read(index)
    refused = 0
    for path in files(index):
        if path.name not in OPTIONAL:
            moved = path.rename(index.parent / "moved")
            found = read_or_refused(index)
            assert found is None or same(found, whole), path
            refused += found is None
            moved.rename(path)
    assert refused >= 3


def test_directories_and_pipes_in_the_place_of_files(index):
    """Opening a pipe would wait forever."""
    whole = read(index)
    for path in files(index):
        moved = path.rename(index.parent / "moved")
        for make in (os.mkdir, getattr(os, "mkfifo", os.mkdir)):
            make(path)
            found = read_or_refused(index)
            assert found is None or same(found, whole), path
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        moved.rename(path)


def test_random_damage(index):
    """Bytes flipped anywhere: a clear error, or other values of the right shape; never anything else."""
    rng = random.Random(0)
    everything = files(index)
    source = open_index(index)
    for _ in range(150):
        path = rng.choice(everything)
        whole = path.read_bytes()
        if not whole:
            continue
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 40])):
            # half of the time where structure is: the first and the last bytes
            at = rng.randrange(rng.choice([len(data), min(len(data), 200)]))
            data[at if rng.random() < 0.6 else -1 - at] = rng.randrange(256)
        path.write_bytes(data)
        for d in read_or_refused(index) or ():
            assert d.tokens.shape[1] == source.dim
            assert len(d.tokens) > 0
            assert isinstance(d.id, int | str)
        path.write_bytes(whole)
    assert same(read(index), list(source.documents()))


def test_missing_chunks(index):
    for path in files(index):
        if path.name.startswith("0."):
            path.unlink()
    if any(p.name.startswith("merged_") for p in files(index)):
        assert len(open_index(index)) > 0  # merged files hold them too
        for path in files(index):
            if path.name.startswith("merged_"):
                path.unlink()
    elif (index / "residuals.repacked.compacted.pt").exists():
        return  # has no chunks
    with pytest.raises((IndexDamaged, UnknownFormat)):
        open_index(index)


@pytest.mark.parametrize("value", ["../../../etc/passwd", 10**30, -1, 2.5, None, True, [3], {"a": 1}])
def test_numbers_of_chunks(index, value):
    for path in files(index):
        if path.name == "metadata.json":
            metadata = json.loads(path.read_text())
            path.write_text(json.dumps({**metadata, "num_chunks": value}))
            with pytest.raises(
                IndexDamaged, match=r"metadata.json: the number of chunks|\.json: the file|\.npy: the file"
            ):
                open_index(index)


BOMBS = {
    "calls mkdir": lambda marker: pickle.dumps(Evil(marker)),
    "calls mkdir in a list": lambda marker: pickle.dumps(["a", Evil(marker)]),
    "evaluates": lambda marker: b"cbuiltins\neval\n(Vopen(%r, 'w')\ntR." % str(marker).encode(),
    "installs an instance": lambda marker: b"(ios\nmkdir\nV" + str(marker).encode() + b"\n.",
    "memo of 32 GB": lambda marker: b"\x80\x04]r\xff\xff\xff\x7f.",
    "bytes of 1 TB": lambda marker: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "list of text of 1 TB": lambda marker: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "key nested 200,000 deep": lambda marker: b"\x80\x04}K\x01" + b"\x85" * 200_000 + b"K\x01s.",
    "list nested 200,000 deep": lambda marker: b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "object of the extension registry": lambda marker: b"\x80\x02\x82\x01.",
    "nothing": lambda marker: b"",
    "no end": lambda marker: b"\x80\x04]",
    "stack underflow": lambda marker: b"\x80\x04a.",
}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("centroids", lambda x: x * np.float16(1.5), "centroids of length 1.5 to 1.5, 1 was expected"),
        ("bucket_weights", lambda x: x[::-1], "the bucket weights do not ascend"),
    ],
)
def test_unusual_training_is_a_warning(tmp_path, name, change, message):
    path = shutil.copytree(INDEXES / "fastplaid170_nbits4" / "index", tmp_path / "index")
    np.save(path / f"{name}.npy", change(np.load(path / f"{name}.npy")))
    with pytest.warns(IndexWarning, match=message):
        open_index(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("centroids", np.zeros((3, 4, 5)), r"expected one \(centroids, dim\) array"),
        ("centroids", np.zeros((0, 128)), r"expected one \(centroids, dim\) array"),
        ("centroids", np.full((1024, 128), np.nan), "NaN or infinite"),
        ("centroids", np.zeros((1024, 127), "f4"), r"expected an \(n, 63\)|not whole bytes"),
        ("bucket_weights", np.zeros(15), "expected 2, 4, 16 or 256 bucket weights"),
        ("bucket_weights", np.arange(16), "expected 2, 4, 16 or 256 bucket weights"),
        ("bucket_weights", np.arange(4.0), r"merged_residuals.npy: expected an \(n, 32\) array of bytes, found uint8"),
        ("merged_codes", np.zeros(6548), "expected one list of integers"),
        ("merged_codes", np.zeros((6548, 2), int), "expected one list of integers"),
        ("merged_codes", np.int64(5), "expected one list of integers"),
        ("merged_residuals", np.zeros(6548, "u1"), r"expected an \(n, 64\) array of bytes"),
        ("merged_residuals", np.zeros((6548, 64), "i1"), r"expected an \(n, 64\) array of bytes"),
        ("merged_residuals", np.zeros((6547, 64), "u1"), "merged_residuals.npy: 1079 rows, but doclens.2.json adds up"),
    ],
)
def test_wrong_shapes_and_types(tmp_path, name, value, message):
    path = shutil.copytree(INDEXES / "fastplaid170_nbits4" / "index", tmp_path / "index")
    np.save(path / f"{name}.npy", value)
    with pytest.raises(IndexDamaged, match=message):
        open_index(path)


class TestPickles:
    """Every place where a pickle is read."""

    @pytest.fixture(params=BOMBS)
    def bomb(self, request, tmp_path):
        marker = tmp_path / "executed"
        yield BOMBS[request.param](marker)
        assert not marker.exists()

    def test_tensors(self, bomb, tmp_path):
        path = tmp_path / "x.pt"
        write_archive(path, bomb, {})
        with pytest.raises(IndexDamaged, match=r"x\.pt"):
            checked_tensor(path)
        # in the old format, each of its five pickles
        good = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, (), []]
        for i in range(5):
            parts = [pickle.dumps(x, 2) for x in good]
            parts[i] = bomb
            path.write_bytes(b"".join(parts))
            with pytest.raises(IndexDamaged, match=r"x\.pt"):
                checked_tensor(path)

    @pytest.mark.parametrize("name", ["centroids.pt", "buckets.pt", "0.codes.pt", "1.residuals.pt"])
    def test_stanford(self, bomb, tmp_path, name):
        path = shutil.copytree(INDEXES / "stanford_nbits2" / "index", tmp_path / "index")
        write_archive(path / name, bomb, {})
        with pytest.raises(IndexDamaged, match=name):
            open_index(path)

    @pytest.mark.parametrize("name", ["sizes.compacted.pt", "codes.compacted.pt", "residuals.repacked.compacted.pt"])
    def test_xtr_warp(self, bomb, tmp_path, name):
        path = shutil.copytree(INDEXES / "xtrwarp_nbits4" / "index", tmp_path / "index")
        write_archive(path / name, bomb, {})
        with pytest.raises(IndexDamaged, match=name):
            open_index(path)

    def test_pylates_maps(self, bomb, tmp_path):
        path = shutil.copytree(INDEXES / "pylate160_stanford" / "index" / "colbert", tmp_path / "index")
        (path / "plaid_ids_to_documents_ids.pkl").write_bytes(bomb)
        with pytest.raises(IndexDamaged, match=r"ids_to_documents_ids.pkl"):
            open_index(path)
        (path / "plaid_ids_to_documents_ids.pkl").unlink()
        db = sqlite3.connect(path / "plaid_ids_to_documents_ids.sqlite")
        db.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
        db.execute("INSERT INTO unnamed VALUES ('0', ?)", (bomb,))
        db.commit()
        db.close()
        with pytest.raises(IndexDamaged, match=r"ids_to_documents_ids.sqlite"):
            open_index(path)

    @pytest.mark.parametrize("name", ["embeddings.npy", "buffer.npy"])
    def test_fast_plaids_originals(self, bomb, tmp_path, name):
        path = shutil.copytree(INDEXES / "fastplaid170_nbits4" / "index", tmp_path / "index")
        save_objects(path / name, [np.zeros((1, 128))] * 240)
        header = (path / name).read_bytes()[:128]
        (path / name).write_bytes(header + bomb)
        with pytest.raises(IndexDamaged, match=name):
            open_index(path)
        (path / name).unlink()
        (path / "centroids.npy").write_bytes(header + bomb)
        with pytest.raises(IndexDamaged, match=r"centroids.npy: expected an array of numbers, found object"):
            open_index(path)

    def test_colbert_v1(self, bomb, tmp_path):
        save(tmp_path / "0.pt", np.zeros((2, 8), "f2"))
        (tmp_path / "doclens.0.json").write_text("[1, 1]")
        (tmp_path / "docnos.pkl.gz").write_bytes(gzip.compress(bomb))
        with pytest.raises(IndexDamaged, match=r"docnos.pkl.gz"):
            open_index(tmp_path)
        write_archive(tmp_path / "0.pt", bomb, {})
        with pytest.raises(IndexDamaged, match=r"0.pt"):
            open_index(tmp_path)


def checked_tensor(path):
    """A list that is nested deeply can be read; it is not a tensor, and whoever asks for one says so."""
    if not isinstance(load_tensors(path), np.ndarray):
        raise IndexDamaged(path, "no tensor")


class TestObjectArrays:
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
    @pytest.mark.parametrize("protocol", [3, 4])
    def test_reads_what_numpy_writes(self, tmp_path, rng, dtype, protocol):
        arrays = [rng.normal(size=(n, 4)).astype(dtype) for n in (1, 3, 0, 2)]
        arrays.append(np.asfortranarray(arrays[1]))
        path = tmp_path / "x.npy"
        save_objects(path, arrays)
        values = np.empty(len(arrays), object)
        values[:] = arrays
        path.write_bytes(path.read_bytes()[:128] + pickle.dumps(values, protocol))
        for a, b in zip(load_object_array(path), arrays, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        "arrays", [[np.arange(3)], [np.array(["a"])], ["text"], [None], [np.array([None])], [np.zeros(2, "f4,f4")]]
    )
    def test_other_things_than_floats(self, tmp_path, arrays):
        save_objects(tmp_path / "x.npy", arrays)
        with pytest.raises(IndexDamaged, match=r"x.npy"):
            load_object_array(tmp_path / "x.npy")

    def test_shapes_that_lie(self, tmp_path):
        path = tmp_path / "x.npy"
        save_objects(path, [np.zeros((2, 128), "f4")])
        data = path.read_bytes()
        assert data.count(b"K\x02K\x80\x86") == 1
        path.write_bytes(data.replace(b"K\x02K\x80\x86", b"K\x03K\x80\x86"))
        with pytest.raises(IndexDamaged, match=r"x.npy"):
            load_object_array(path)


class TestNumpyFiles:
    def header(self, descr, shape, *, version=(1, 0)):
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text

    @pytest.mark.parametrize(
        ("descr", "shape", "message"),
        [
            ("'<f4'", "(1000000000000, 128)", "cut short: .* 512000000000"),
            ("'<f4'", "(4611686018427387904, 4)", "cut short"),
            ("'<f4'", "(0, 99999999999999999999999999)", ""),
            ("'<f4'", "(-1, 4)", "not describe an array of numbers"),
            ("'|O'", "(1,)", "array of numbers"),
            ("'<U8'", "(1,)", "array of numbers"),
            ("[('a', '<f4')]", "(1,)", "not describe an array of numbers"),
            ("__import__('os')", "(1,)", "not describe an array of numbers"),
            ("'" + "(" * 5000 + "'", "(1,)", "not describe an array of numbers"),
            ("(" * 5000, "(1,)", "not describe an array of numbers"),
        ],
    )
    def test_headers_that_lie(self, tmp_path, descr, shape, message):
        path = tmp_path / "x.npy"
        path.write_bytes(self.header(descr, shape) + bytes(64))
        with pytest.raises(IndexDamaged, match=rf"x\.npy: .*{message}"):
            load_array(path)

    def test_versions(self, tmp_path):
        path = tmp_path / "x.npy"
        path.write_bytes(self.header("'<i4'", "(2,)", version=(2, 0)) + struct.pack("<ii", 1, 2))
        assert load_array(path).tolist() == [1, 2]
        path.write_bytes(self.header("'<i4'", "(2,)", version=(9, 0)) + struct.pack("<ii", 1, 2))
        with pytest.raises(IndexDamaged, match="version"):
            load_array(path)

    @pytest.mark.parametrize("array", [np.arange(12, dtype="i8").reshape(3, 4), np.zeros((0, 4), "u1"), np.float32(3)])
    def test_reads_what_numpy_writes(self, tmp_path, array):
        for layout in (array, np.asfortranarray(array)):
            np.save(tmp_path / "x.npy", layout)
            found = load_array(tmp_path / "x.npy")
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, layout)


def _object_header(count):
    """The header that numpy writes before the pickle of an array of objects."""
    text = f"{{'descr': '|O', 'fortran_order': False, 'shape': ({count},), }}\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("way", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path, way):
    """Unpackers raise errors of their own, as zlib.error, where the data is damaged."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", way) as archive:
        archive.writestr("x/data.pkl", bytes(range(256)) * 8)
    data = bytearray(path.read_bytes())
    data[60:70] = b"\xff" * 10
    path.write_bytes(data)
    with pytest.raises(IndexDamaged, match=r"data\.pkl is compressed or encrypted.*save it again with torch\.save"):
        load_tensors(path)


def test_a_compressed_storage_says_what_to_do(tmp_path):
    save(tmp_path / "x.pt", np.zeros(1_000, "f4"))
    with zipfile.ZipFile(tmp_path / "x.pt") as archive, zipfile.ZipFile(tmp_path / "y.pt", "w") as packed:
        for name in archive.namelist():
            way = zipfile.ZIP_DEFLATED if name == "x/data/0" else zipfile.ZIP_STORED
            packed.writestr(name, archive.read(name), way)
    with pytest.raises(IndexDamaged, match=r"x/data/0 is compressed or encrypted.*save it again with torch\.save"):
        load_tensors(tmp_path / "y.pt")


@pytest.mark.parametrize("name", [rb"\q", rb"\x", "\ud7ff".encode()])
def test_names_with_escapes_are_refused_without_a_warning(tmp_path, name):
    """pickletools would warn of invalid escapes in the names of a GLOBAL, or fail to decode them."""
    write_archive(tmp_path / "x.pt", b"\x80\x02ctorch" + name + b"\nFloat" + name + b"\n.", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(IndexDamaged, match=r"asks for torch.+\.Float"):
            load_tensors(tmp_path / "x.pt")


def test_a_member_that_claims_more_than_it_has_makes_no_room(tmp_path):
    path = tmp_path / "x.pt"
    save(path, np.zeros(4, "f4"))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")  # in the central directory, the packed size is 20 bytes behind
    while not data[entry + 46 :].startswith(b"x/data.pkl"):
        entry = data.index(b"PK\1\2", entry + 4)
    data[entry + 20 : entry + 24] = struct.pack("<I", 1 << 30)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(IndexDamaged, match="must be equal"):
        load_tensors(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 24


@pytest.mark.parametrize("name", ["centroids.npy", "bucket_weights.npy"])
@pytest.mark.parametrize("value", [1e300, 1e30])
def test_values_whose_squares_overflow_are_refused(tmp_path, name, value):
    """Without a warning of numpy's on the way."""
    index = shutil.copytree(INDEXES / FORMATS["xtr-warp-rs"], tmp_path / "index")
    values = np.load(index / name).astype(np.float64)
    values[..., -1] = value
    np.save(index / name, values)
    with pytest.raises(IndexDamaged, match="larger than 1e15"):
        open_index(index)


class TestSizeBombs:
    def test_a_tensor_that_is_larger_than_its_storage(self, tmp_path):
        save(tmp_path / "x.pt", np.zeros(4, "f4"), size=(10**6, 4), stride=(0, 1))
        with pytest.raises(IndexDamaged, match="larger than its storage"):
            load_tensors(tmp_path / "x.pt")

    def test_ids_that_unpack_to_gigabytes(self, tmp_path):
        save(tmp_path / "0.pt", np.zeros((2, 8), "f2"))
        (tmp_path / "doclens.0.json").write_text("[1, 1]")
        (tmp_path / "docnos.pkl.gz").write_bytes(gzip.compress(bytes(1 << 21)))
        with pytest.raises(IndexDamaged, match="too many for the ids of 2 documents"):
            open_index(tmp_path)

    def test_lengths_in_a_pickle_that_the_file_does_not_have(self, tmp_path):
        body = b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"x."
        write_archive(tmp_path / "x.pt", body, {})
        tracemalloc.start()
        with pytest.raises(IndexDamaged):
            load_tensors(tmp_path / "x.pt")
        (tmp_path / "x.npy").write_bytes(_object_header(1) + body)
        with pytest.raises(IndexDamaged):
            load_object_array(tmp_path / "x.npy")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 24

    @pytest.mark.parametrize("instruction", [b"c", b"\x8e" + struct.pack("<Q", 1 << 29)])
    def test_a_pickle_with_a_hole(self, tmp_path, instruction):
        """In the format before torch 1.6, whose pickles lie bare in the file."""
        save_legacy(tmp_path / "x.pt", np.zeros(4, "f4"))
        head = (tmp_path / "x.pt").read_bytes().partition(b"ctorch")[0]
        (tmp_path / "x.pt").write_bytes(head + instruction)
        os.truncate(tmp_path / "x.pt", 1 << 30)
        tracemalloc.start()
        with pytest.raises(IndexDamaged):
            load_tensors(tmp_path / "x.pt")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 24

    def test_files_with_holes(self, tmp_path):
        """A sparse file claims gigabytes and takes no room."""
        path = shutil.copytree(INDEXES / "fastplaid170_nbits4" / "index", tmp_path / "index")
        for name, outcome in (("doclens.0.json", IndexDamaged), ("embeddings.npy", IndexWarning)):
            with (path / name).open("wb") as file:
                file.truncate(1 << 40)
            with warnings.catch_warnings():
                warnings.simplefilter("error", IndexWarning)
                with pytest.raises(outcome, match=name):
                    open_index(path)
            (path / name).unlink()
            shutil.copy(INDEXES / "fastplaid170_nbits4" / "index" / "doclens.0.json", path)

    def test_a_compressed_member(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", bytes(1 << 24))
        with pytest.raises(IndexDamaged, match="too many to describe tensors"):
            load_tensors(tmp_path / "x.pt")


def _framed(length, instructions):
    return b"\x80\x04\x95" + struct.pack("<Q", length) + instructions


def test_frames_that_hide_instructions(tmp_path):
    """CPython's unpickler would drop the frame's last byte, and take a string for a memo of four million entries."""
    hidden = b"\0r\0\0\x40\0."
    good = b"X" + struct.pack("<I", len(hidden)) + hidden + b"."
    assert load_plain(tmp_path / "x", _framed(len(good), good)) == hidden.decode()
    for length in (2, len(good) - 2, len(good) + 1, 1 << 40):
        with pytest.raises(IndexDamaged, match="frame"):
            load_plain(tmp_path / "x", _framed(length, good) + b"N")
    with pytest.raises(IndexDamaged, match="frame"):
        load_plain(tmp_path / "x", _framed(len(good) + 9, b"\x95" + struct.pack("<Q", len(good)) + good))


@pytest.mark.parametrize(
    "value", [{}, [], {0: "a"}, ["a", 1, "ü" * 300], {i: str(i) for i in range(70_000)}, "a", 2**70]
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles(tmp_path, value, protocol):
    assert load_plain(tmp_path / "x", pickle.dumps(value, protocol)) == value
