"""Indexes of RAGatouille: passages, their documents, texts and metadata."""

import json

import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, open_index
from tests.plaid.conftest import assert_same, read
from tests.plaid.files import INDEXES


class TestRagatouille:
    NAME = "ragatouille_assembled/index"

    def test_passages_keep_their_numbers_and_texts_follow_the_ranks(self):
        documents = read(INDEXES / self.NAME)
        assert [d.id for d in documents] == [i for i in range(240) if i not in (3, 150, 239)]
        map_ = json.loads((INDEXES / self.NAME / "pid_docid_map.json").read_text())
        for d in documents:
            assert d.payload["text"] == f'Passage {d.id} says "hello"'
            assert d.payload["document_id"] == d.payload["pkg"] == map_[str(d.id)]

    def test_texts_that_cannot_be_matched_are_left_out(self, copy):
        path = copy(self.NAME)
        texts = json.loads((path / "collection.json").read_text())
        (path / "collection.json").write_text(json.dumps(texts[1:]))
        with pytest.warns(IndexWarning, match=r"collection.json: texts left out: 236 texts, 237 passages"):
            source = open_index(path)
        assert not any("text" in d.payload for d in source.documents())

    def test_a_map_shifted_by_delete_and_add(self, copy):
        path = copy(self.NAME)
        map_ = json.loads((path / "pid_docid_map.json").read_text())
        (path / "pid_docid_map.json").write_text(json.dumps({**map_, "239": "new"}))
        with pytest.raises(
            IndexDamaged, match=r"pid_docid_map.json: it maps passage 239 to 'new', .* is shifted; pass"
        ):
            open_index(path)
        (path / "pid_docid_map.json").write_text(json.dumps({**map_, "240": "new"}))
        with pytest.raises(IndexDamaged, match="the index has only 240 passages: the map is shifted"):
            open_index(path)
        ids = path.parent / "ids.txt"
        ids.write_text("".join(f"p{i}\n" for i in range(240)))
        assert [d.id for d in read(path, ids=ids)][:4] == ["p0", "p1", "p2", "p4"]

    @pytest.mark.parametrize("left_alone", ["both", "map", "texts"])
    def test_files_that_a_deletion_left_alone(self, copy, left_alone):
        expected = read(INDEXES / self.NAME)
        path = copy(self.NAME)
        if left_alone in ("both", "map"):
            map_ = json.loads((path / "pid_docid_map.json").read_text())
            (path / "pid_docid_map.json").write_text(json.dumps({str(i): map_.get(str(i), "gone") for i in range(240)}))
        if left_alone in ("both", "texts"):
            texts = {d.position: d.payload["text"] for d in expected}
            (path / "collection.json").write_text(json.dumps([texts.get(i, "gone") for i in range(240)]))
        assert_same(read(path), expected)

    def test_metadata_under_the_names_of_our_keys(self, copy):
        path = copy(self.NAME)
        map_ = json.loads((path / "pid_docid_map.json").read_text())
        metadata = {"document_id": "DOI 10/1", "text": "all of it", "metadata_text": "taken", "year": 2020}
        (path / "docid_metadata_map.json").write_text(json.dumps({map_["0"]: metadata}))
        assert read(path)[0].payload == {
            "document_id": map_["0"],
            "text": 'Passage 0 says "hello"',
            "metadata_document_id": "DOI 10/1",
            "metadata_metadata_text": "all of it",
            "metadata_text": "taken",
            "year": 2020,
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [("", "empty"), ("{}", "not a list"), ('["a", 1]', "not a list"), ('["a"', "cut short"),
         ('["a"] x', "cut short"), ('["a" "b"]', "cut short"), ("[", "cut short")],
    )  # fmt: skip
    def test_no_list_of_texts(self, copy, text, message):
        path = copy(self.NAME)
        (path / "collection.json").write_text(text)
        with pytest.raises(IndexDamaged, match=f"collection.json: .*{message}"):
            open_index(path)

    def test_texts_that_are_no_utf8(self, copy):
        path = copy(self.NAME)
        (path / "collection.json").write_bytes(b"[" + b",".join([b'"\xff"'] * 237) + b"]")
        with pytest.raises(IndexDamaged, match=r"collection.json: not valid JSON"):
            read(path)

    def test_texts_in_any_layout_of_json(self, copy):
        path = copy(self.NAME)
        texts = ["", "\\", 'a "quoted" \n text', "ü日本😀", "],["] + [str(i) for i in range(232)]
        for layout in ({"indent": 2}, {}, {"ensure_ascii": False, "separators": (",", ":")}):
            (path / "collection.json").write_text(json.dumps(texts, **layout), "utf-8")
            assert [d.payload["text"] for d in read(path)] == texts
