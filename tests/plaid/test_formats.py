"""What holds in every format: tokens equal the library's own vectors, slices do not matter, and nothing is written."""

import gc
import itertools

import numpy as np
import pytest

from muvera_adapters.plaid import detect, open_index
from tests.plaid.conftest import assert_same, read
from tests.plaid.files import INDEXES

# format, directory, and how far the library's own vectors may be: fast-plaid computes them in float16
INDEXED = [
    ("ragatouille", "ragatouille_assembled/index", 1e-6),
    ("pylate-stanford", "pylate160_stanford/index/colbert", 1e-6),
    ("pylate-fast-plaid", "pylate160_fastplaid/index/colbert", 5e-4),
    ("fast-plaid", "fastplaid147_nbits4/index", 5e-4),
    ("fast-plaid", "fastplaid170_nbits4/index", 5e-4),
    ("fast-plaid", "fastplaid170_nbits4_updated/index", 5e-4),
    # its vectors were kept as float16
    ("next-plaid", "nextplaid161_made_2/index", 5e-4),
    ("next-plaid", "nextplaid161_updated_4/index", 5e-4),
    ("next-plaid", "nextplaid161_buffer_deleted_4/index", 5e-4),
]


@pytest.mark.parametrize(("format", "name", "tolerance"), INDEXED)
def test_equals_the_librarys_own_vectors(format, name, tolerance):
    truth = np.load(INDEXES / name.split("/")[0] / "truth.npz")
    source = open_index(INDEXES / name, originals=False)
    documents = {d.position: d for d in source.documents()}
    lengths = truth["doclens"]
    assert source.format == format == detect(INDEXES / name)
    assert source.dim == 128
    assert list(documents) == np.flatnonzero(lengths).tolist()
    assert len(source) == len(documents)
    assert source.n_tokens == lengths.sum()
    at = 0
    for position in truth["sel_docs"]:
        rows = truth["sel_emb"][at : at + lengths[position]]
        at += len(rows)
        if len(rows):
            np.testing.assert_allclose(documents[position].tokens, rows, rtol=0, atol=tolerance)
    for position, d in documents.items():
        assert d.tokens.dtype == np.float32
        # the sum of 28 x 128 numbers that are each off by less than the tolerance
        assert abs(d.tokens.sum(dtype=float) - truth["doc_sum"][position].sum()) < max(1e-4, 20 * tolerance)


@pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
@pytest.mark.parametrize("name", [n for _, n, _ in INDEXED])
def test_slices_do_not_matter(name, monkeypatch):
    whole = read(INDEXES / name)
    for size in (1, 29, 1000):
        monkeypatch.setattr("muvera_adapters.plaid.chunks._SLICE_TOKENS", size)
        assert_same(read(INDEXES / name), whole)


@pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")
@pytest.mark.parametrize("name", [n for _, n, _ in INDEXED] + ["xtrwarp_nbits4/index", "xtrwarprs_nbits4/index"])
def test_nothing_is_written(copy, name):
    path = copy(name)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}
    read(path)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["fastplaid170_nbits4_updated/index", "ragatouille_assembled/index"])
def test_reading_a_part_and_again(name):
    """Whoever stops early leaves no database or file open; every reading starts anew."""
    source = open_index(INDEXES / name, originals=False)
    part = list(itertools.islice(source.documents(), 3))
    gc.collect()
    whole = list(source.documents())
    assert_same(part, whole[:3])
    a, b = source.documents(), source.documents()
    for x, y in zip(a, b, strict=True):
        assert_same([x], [y])
