"""Which arrays of a file are taken for tokens, lengths, ids and queries."""

import warnings

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.sources import SourceWarning, open_queries, open_source
from tests.sources.conftest import DIM, save_arrays


class TestNamesOfArrays:
    """Roles of arrays: exact names first, options always, guesses are told, and nothing is left out by its name."""

    TOKENS = np.random.default_rng(0).normal(size=(24, DIM)).astype("f4")
    LENGTHS = np.array([3, 7, 5, 9])
    PAGES = ("p0", "p1", "p2", "p3")

    @pytest.mark.parametrize("other", ["width", "valid", "grid", "video", "considered", "input_ids"])
    def test_letters_of_id_are_not_ids(self, tmp_path, other):
        arrays = {"embeddings": self.TOKENS, "lengths": self.LENGTHS, other: np.array([640, 800, 1024, 512])}
        np.savez(tmp_path / "a.npz", **arrays)
        source = open_source(tmp_path / "a.npz")
        assert [d.id for d in source.documents()] == [0, 1, 2, 3]
        assert "ids are positions" in source.format
        assert f"not read: '{other}'" in source.format
        np.savez(tmp_path / "b.npz", **arrays, page_ids=np.array(self.PAGES))
        with pytest.warns(SourceWarning, match="ids are taken from the array 'page_ids'"):
            source = open_source(tmp_path / "b.npz")
        assert [d.id for d in source.documents()] == [*self.PAGES]
        assert "tokens in 'embeddings', lengths in 'lengths', ids in 'page_ids'" in source.format
        assert [d.id for d in open_source(tmp_path / "b.npz", ids="none").documents()] == [0, 1, 2, 3]

    @pytest.mark.filterwarnings("ignore::muvera_adapters.sources.SourceWarning")
    @pytest.mark.parametrize(
        ("ids", "says"),
        [
            (np.array([11.0, 12.0, 13.0, 14.0]), r"ids has 11.0 \(float64\); ids are integers and strings"),
            (np.array([True] * 4), r"ids has True \(bool\)"),
            (np.array(["a", "b", "c", "d", "e"]), r"ids has shape \(5,\), expected 4 ids"),
            (np.array([[11], [12], [13], [14]]), r"ids has shape \(4, 1\)"),
            (np.array([1, 2, 2, 3]), "the id 2 twice"),
            (np.array([b"\xff"] * 4), "not UTF-8"),
        ],
    )
    def test_ids_that_cannot_be_used_are_refused(self, tmp_path, ids, says):
        for name in ("ids", "doc_ids", "page_id"):
            np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, **{name: ids})
            with pytest.raises(InvalidInput, match=says.replace("ids has", f"{name} has")):
                open_source(tmp_path / "x.npz")
            assert [d.id for d in open_source(tmp_path / "x.npz", ids="none").documents()] == [0, 1, 2, 3]

    def test_several_that_may_be_ids(self, tmp_path):
        arrays = {"user_id": np.arange(4), "page_id": np.array(self.PAGES)}
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, **arrays)
        with pytest.raises(
            InvalidInput, match="several arrays may hold the ids: user_id, page_id; name one with --ids"
        ):
            open_source(tmp_path / "x.npz")
        assert [d.id for d in open_source(tmp_path / "x.npz", ids="page_id").documents()] == [*self.PAGES]
        with pytest.raises(InvalidInput, match="there is no array and no file of this name"):
            open_source(tmp_path / "x.npz", ids="pages")

    def test_ids_of_a_file(self, tmp_path):
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS)
        (tmp_path / "ids.txt").write_text("\n".join(self.PAGES))
        np.save(tmp_path / "ids.npy", np.array(self.PAGES, object))
        for name in ("ids.txt", "ids.npy"):
            source = open_source(tmp_path / "x.npz", ids=str(tmp_path / name))
            assert [d.id for d in source.documents()] == [*self.PAGES]
            assert tmp_path / name in source.files

    def test_ids_as_objects(self, tmp_path):
        np.savez(
            tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, ids=np.array(["a", 2, "c", "d"], object)
        )
        assert [d.id for d in open_source(tmp_path / "x.npz").documents()] == ["a", 2, "c", "d"]
        arrays = {"embeddings": self.TOKENS, "lengths": self.LENGTHS}
        # objects that nobody asks for do no harm
        np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays, about=np.array([{"a": 1}], object))
        assert "not read: 'about'" in open_source(tmp_path / "x.npz").format
        for wrong, says in (
            (None, "ids has None"),
            (float("nan"), "ids has nan"),
            ({"a": 1}, "ids: cut short, or refused"),
        ):
            np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays, ids=np.array(["a", wrong, "c", "d"], object))
            with pytest.raises(MuveraError, match=says):
                open_source(tmp_path / "x.npz")

    @pytest.mark.parametrize("form", ["npz", "safetensors"])
    def test_no_document_is_left_out_by_its_name(self, tmp_path, form):
        names = ["annual.pdf", "quarterly.pdf", "Q3-report.pdf", "query", "queries_2", "Q42", "ids"]
        path = save_arrays(tmp_path, form, **dict.fromkeys(names, self.TOKENS[:5]))
        assert sorted(d.id for d in open_source(path).documents()) == sorted(names)
        assert len(open_queries(path)) == len(names)

    def test_queries_beside_documents(self, tmp_path):
        queries = {"query_tokens": self.TOKENS[:6], "query_lengths": np.array([2, 4])}
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, **queries)
        assert open_source(tmp_path / "x.npz").lengths.tolist() == [3, 7, 5, 9]
        assert open_queries(tmp_path / "x.npz").lengths.tolist() == [2, 4]
        assert open_queries(tmp_path / "x.npz", tokens="embeddings", lengths="lengths").lengths.tolist() == [3, 7, 5, 9]
        # names that are not exact
        np.savez(tmp_path / "y.npz", d=self.TOKENS, d_len=self.LENGTHS, q=self.TOKENS[:6], q_len=np.array([2, 4]))
        with pytest.raises(InvalidInput, match="name the tokens with --tokens"):
            open_source(tmp_path / "y.npz")
        assert open_source(tmp_path / "y.npz", tokens="q", lengths="q_len").lengths.tolist() == [2, 4]

    def test_guesses_are_told(self, tmp_path):
        np.savez(tmp_path / "x.npz", a=self.TOKENS, b=self.LENGTHS)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            source = open_source(tmp_path / "x.npz")
        assert "tokens are taken from the array 'a'" in str(told[0].message)
        assert "'b' tells which tokens belong to which document" in str(told[1].message)
        assert source.lengths.tolist() == [3, 7, 5, 9]
        np.savez(tmp_path / "y.npz", embeddings=self.TOKENS)
        with pytest.warns(SourceWarning, match="every array is one document, 'embeddings' too"):
            assert len(open_source(tmp_path / "y.npz")) == 1

    def test_options_that_do_not_fit(self, tmp_path):
        np.savez(tmp_path / "x.npz", embeddings=self.TOKENS, lengths=self.LENGTHS, pages=np.array([1, 2, 3]))
        for options, says in [
            ({"tokens": "lengths"}, "'lengths' is not a"),
            ({"tokens": "absent"}, "'absent' is not there"),
            ({"lengths": "pages"}, "'pages' is a int64 array of shape (3,) that adds up to 6: it does not divide the"),
            ({"lengths": "absent"}, "there is no array of this name"),
        ]:
            with pytest.raises(InvalidInput) as caught:
                open_source(tmp_path / "x.npz", **options)
            assert says in str(caught.value)
