"""Parquet and Arrow files, and directories of them, as sources."""

import json

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.sources import SourceWarning, open_source
from tests.sources.conftest import DIM, check


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("files", [1, 3])
def test_parquet(tmp_path, matrices, kind, files):
    import pyarrow as pa
    from pyarrow import parquet

    inner = pa.list_(pa.float16() if kind == "list" else pa.float32(), DIM if kind == "fixed" else -1)
    column = pa.large_list(inner) if kind == "large_list" else pa.list_(inner)
    tokens = pa.array([list(m.astype("f2" if kind == "list" else "f4")) for m in matrices], column)
    n = len(matrices)
    table = pa.table({"doc_id": [f"p{i}" for i in range(n)], "colbert": tokens, "title": ["t", None] * (n // 2)})
    for k in range(files):
        part = table.slice(k * n // files, (k + 1) * n // files - k * n // files)
        parquet.write_table(part, tmp_path / f"{k}.parquet", row_group_size=70)
    source = open_source(tmp_path if files > 1 else tmp_path / "0.parquet")
    check(source, matrices, [f"p{i}" for i in range(n)])
    assert [d.payload for d in source.documents(n - 2)] == [{"title": "t"}, {}]


def test_parquet_that_is_wrong(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    def write(**columns):
        parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    vectors = [[[1.0, 2.0]], [[3.0, 4.0]]]
    with pytest.raises(InvalidInput, match="no column is a list of vectors; it has text"):
        open_source(write(text=["a", "b"]))
    with pytest.raises(InvalidInput, match="name one with --tokens"):
        open_source(write(a=vectors, b=vectors))
    assert open_source(write(a=vectors, b=vectors), tokens="b").dim == 2
    with pytest.raises(InvalidInput, match="'same' twice"):
        open_source(write(id=["same", "same"], a=vectors))
    with pytest.raises(InvalidInput, match="no column 'key'"):
        open_source(write(a=vectors), ids="key")
    with pytest.raises(InvalidInput, match="different widths"):
        open_source(write(a=[[[1.0, 2.0], [1.0]]]))
    found = list(open_source(write(a=[[[1.0, 2.0]], None])).documents())
    assert found[1].tokens.shape == (0, 2)
    (tmp_path / "y.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InvalidInput, match="not a valid Parquet file"):
        open_source(tmp_path / "y.parquet")


class TestTables:
    @pytest.fixture
    def pa(self):
        return pytest.importorskip("pyarrow")

    def tokens(self, pa, cells):
        return pa.array(cells, pa.list_(pa.list_(pa.float32())))

    def write(self, pa, path, **columns):
        from pyarrow import parquet

        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns), path)
        return path

    VECTORS = ([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]])

    @pytest.mark.parametrize("first", [[], None])
    def test_an_empty_first_document(self, pa, tmp_path, first):
        path = self.write(pa, tmp_path / "x.parquet", id=list("abc"), emb=self.tokens(pa, [first, *self.VECTORS]))
        source = open_source(path)
        assert source.dim == 2
        assert [d.tokens.shape for d in source.documents()] == [(0, 2), (1, 2), (2, 2)]
        path = self.write(pa, tmp_path / "y.parquet", emb=self.tokens(pa, [first, first]))
        with pytest.raises(InvalidInput, match="no document has tokens in the column 'emb'"):
            open_source(path)

    def test_ids(self, pa, tmp_path):
        emb = self.tokens(pa, self.VECTORS)
        path = self.write(pa, tmp_path / "x.parquet", page_id=["a", "b"], width=[1, 2], emb=emb)
        with pytest.warns(SourceWarning, match="ids are taken from the column 'page_id'"):
            assert [d.id for d in open_source(path).documents()] == ["a", "b"]
        found = list(open_source(path, ids="none").documents())
        assert [(d.id, d.payload) for d in found] == [
            (0, {"page_id": "a", "width": 1}), (1, {"page_id": "b", "width": 2}),
        ]  # fmt: skip
        assert [d.id for d in open_source(path, ids="width").documents()] == [1, 2]
        (tmp_path / "ids.txt").write_text("x\ny\n")
        source = open_source(path, ids=tmp_path / "ids.txt")
        assert [d.id for d in source.documents()] == ["x", "y"]
        assert [d.id for d in source.documents(1)] == ["y"]
        for column in ([1.0, 2.0], [True, False], [[1], [2]]):
            path = self.write(pa, tmp_path / "y.parquet", id=column, emb=emb)
            with pytest.raises(InvalidInput, match=r"column 'id' is of type .*; ids are strings and integers"):
                open_source(path)
        path = self.write(pa, tmp_path / "z.parquet", user_id=[1, 2], page_id=[1, 2], emb=emb)
        with pytest.raises(InvalidInput, match="several columns may hold the ids: user_id, page_id"):
            open_source(path)
        path = self.write(pa, tmp_path / "n.parquet", id=["a", None], emb=emb)
        with pytest.raises(InvalidInput, match="row 1: no id in the column 'id'"):
            open_source(path)

    def test_exact_names_of_the_tokens(self, pa, tmp_path):
        emb, boxes = self.tokens(pa, self.VECTORS), self.tokens(pa, [[[0.0, 1.0]]] * 2)
        path = self.write(pa, tmp_path / "x.parquet", boxes=boxes, embeddings=emb)
        with pytest.warns(SourceWarning, match="from the column 'embeddings' of 2 .*boxes.* go into the payload"):
            source = open_source(path)
        assert [d.payload for d in source.documents()] == [{"boxes": [[0.0, 1.0]]}] * 2
        assert [d.payload for d in open_source(path, drop=["boxes"]).documents()] == [{}, {}]

    def test_columns_that_are_not_json(self, pa, tmp_path):
        image = pa.array([{"bytes": b"x", "path": "p"}] * 2)
        columns = {"raw": [b"a", b"b"], "image": image, "title": ["t", "u"], "emb": self.tokens(pa, self.VECTORS)}
        path = self.write(pa, tmp_path / "x.parquet", **columns)
        with pytest.raises(InvalidInput, match=r"column 'raw' \(binary\), column 'image' .*--drop raw --drop image"):
            open_source(path)
        found = open_source(path, drop=["raw", "image"])
        assert [d.payload for d in found.documents()] == [{"title": "t"}, {"title": "u"}]
        assert [d.payload for d in open_source(path, payload=()).documents()] == [{}, {}]
        with pytest.raises(InvalidInput, match="--drop picture: no such column"):
            open_source(path, drop=["picture"])

    def test_subdirectories(self, pa, tmp_path):
        for k, directory in enumerate(("train", "year=2024/lang=de", ".cache", "_temporary")):
            self.write(pa, tmp_path / directory / "0.parquet", id=[2 * k, 2 * k + 1], emb=self.tokens(pa, self.VECTORS))
        source = open_source(tmp_path)
        assert "of 2 files" in source.format
        assert [(d.id, d.payload) for d in source.documents()] == [
            (0, {}), (1, {}), (2, {"year": 2024, "lang": "de"}), (3, {"year": 2024, "lang": "de"}),
        ]  # fmt: skip
        assert [d.id for d in source.documents(3)] == [3]

    def test_a_directory_named_like_a_file(self, pa, tmp_path):
        path = tmp_path / "docs.parquet"
        self.write(pa, path / "part-0.snappy.parquet", emb=self.tokens(pa, self.VECTORS))
        assert len(open_source(path)) == 2

    @pytest.mark.parametrize("splits", [False, True])
    @pytest.mark.parametrize("form", ["stream", "file"])
    def test_save_to_disk(self, pa, tmp_path, splits, form):
        """The layout of Hugging Face datasets: Arrow streams, which state.json lists."""
        from pyarrow import ipc

        def save(directory, first):
            directory.mkdir(exist_ok=True)
            names = [f"data-0000{k}-of-00002.arrow" for k in range(2)]
            for k, name in enumerate(names):
                ids = [str(first + 2 * k), str(first + 2 * k + 1)]
                table = pa.table({"id": ids, "embeddings": self.tokens(pa, self.VECTORS)})
                new = ipc.new_stream if form == "stream" else ipc.new_file
                with new(str(directory / name), table.schema) as writer:
                    writer.write_table(table, max_chunksize=1)
            (directory / "state.json").write_text(json.dumps({"_data_files": [{"filename": f} for f in names]}))
            (directory / "dataset_info.json").write_text("{}")

        if splits:
            (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
            save(tmp_path / "train", 0)
            save(tmp_path / "test", 4)
        else:
            save(tmp_path, 0)
        source = open_source(tmp_path)
        n = 8 if splits else 4
        assert [d.id for d in source.documents()] == [str(i) for i in range(n)]
        assert [d.id for d in source.documents(3)] == [str(i) for i in range(3, n)]
        np.testing.assert_array_equal(next(source.documents(1)).tokens, self.VECTORS[1])
        assert open_source(source.files[0]).n_positions == 2
        source.files[0].unlink()
        with pytest.raises(InvalidInput, match=r"is missing, but .*state.json names it"):
            open_source(tmp_path)
