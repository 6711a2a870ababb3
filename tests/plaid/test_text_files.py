"""Ids and texts that the caller gives by position."""

import json

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.plaid import open_index
from muvera_adapters.plaid.text_files import IdFile, check_order
from tests.plaid.files import INDEXES

STANFORD = INDEXES / "stanford_nbits2" / "index"
HOLES = INDEXES / "stanford_nbits2_updated" / "index"


def lines(path, items):
    path.write_text("".join(f"{i}\n" for i in items), "utf-8")
    return path


class TestIds:
    def test_one_per_line(self, tmp_path):
        path = lines(tmp_path / "ids.txt", [f"dök {i}" for i in range(240)])
        documents = list(open_index(HOLES, ids=path).documents())
        assert [(d.position, d.id) for d in documents] == [
            (i, f"dök {i}") for i in range(240) if i not in (3, 150, 229)
        ]

    @pytest.mark.parametrize("text", ["a\r\nb\r\nc\r\n", "\ufeffa\nb\nc", " a\nb \nc\n"])
    def test_ends_of_lines_and_marks_of_editors(self, tmp_path, text):
        (tmp_path / "ids").write_bytes(text.encode())
        assert list(IdFile(tmp_path / "ids", 3).read()) == ["a", "b", "c"]

    def test_json_keeps_integers(self, tmp_path):
        (tmp_path / "ids.json").write_text('[1, "1", "x", 2]')
        assert list(IdFile(tmp_path / "ids.json", 4).read()) == [1, "1", "x", 2]

    @pytest.mark.parametrize("n", [0, 237, 239, 241])
    def test_another_number(self, tmp_path, n):
        path = lines(tmp_path / "ids.txt", range(n))
        with pytest.raises(InvalidInput, match=rf"ids.txt: {n} ids, but the index has 240 positions; .*renumbers"):
            open_index(HOLES, ids=path)

    def test_an_id_twice(self, tmp_path):
        path = lines(tmp_path / "ids.txt", [*range(239), 17])
        with pytest.raises(InvalidInput, match="ids 18 and 240 are both '17'"):
            open_index(STANFORD, ids=path)

    def test_ids_that_only_hash_alike(self, tmp_path):
        # -1 and -2 have the same hash
        (tmp_path / "ids.json").write_text("[-1, -2, 3]")
        assert list(IdFile(tmp_path / "ids.json", 3).read()) == [-1, -2, 3]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("ids.txt", "a\n\nc\n", "id 2 is empty"),
            ("ids.json", '{"a": 1}', "list of strings and integers"),
            ("ids.json", "[1, null, 2]", "list of strings and integers"),
            ("ids.json", "[1, true, 2]", "list of strings and integers"),
            ("ids.json", "[1, 2", "not valid JSON"),
            ("ids.json", "[" * 100_000, "not valid JSON"),
        ],
    )
    def test_no_ids(self, tmp_path, name, text, message):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInput, match=rf"{name}: .*{message}"):
            IdFile(tmp_path / name, 3)

    def test_missing_and_not_text(self, tmp_path):
        with pytest.raises(InvalidInput, match=r"ids.txt: no such file"):
            open_index(STANFORD, ids=tmp_path / "ids.txt")
        (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\n")
        with pytest.raises(InvalidInput, match=r"ids.txt is not UTF-8"):
            open_index(STANFORD, ids=tmp_path / "ids.txt")

    def test_a_file_that_changes_meanwhile(self, tmp_path):
        path = lines(tmp_path / "ids.txt", range(240))
        documents = open_index(STANFORD, ids=path).documents()
        lines(path, range(100))
        with pytest.raises(InvalidInput, match="end at position 100: their file was changed"):
            list(documents)


class TestTexts:
    def test_colberts_collections(self, tmp_path):
        path = lines(tmp_path / "c.tsv", [f"{i}\ttext {i}" + ("\ttitle" if i == 1 else "") for i in range(240)])
        documents = list(open_index(HOLES, texts=path).documents())
        assert all(d.payload["text"] == f"text {d.position}" for d in documents)
        assert [d.payload.get("title") for d in documents[:3]] == [None, "title", None]

    def test_json_lines(self, tmp_path):
        items = [json.dumps({"text": f"t{i}", "year": i}) if i % 2 else json.dumps(f"t{i}") for i in range(240)]
        documents = list(open_index(STANFORD, texts=lines(tmp_path / "c.jsonl", items)).documents())
        assert [d.payload for d in documents] == [
            {"text": f"t{i}", "year": i} if i % 2 else {"text": f"t{i}"} for i in range(240)
        ]

    def test_added_to_the_indexs_own_payload(self, tmp_path):
        path = lines(tmp_path / "c.jsonl", [json.dumps(f"new {i}") for i in range(240)])
        for d in open_index(INDEXES / "ragatouille_assembled" / "index", texts=path).documents():
            assert d.payload["text"] == f"new {d.position}"
            assert d.payload["document_id"]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("c.tsv", "0\ta\n2\tb\n3\tc\n", "line 2 begins with '2' instead of 1"),
            ("c.tsv", "0\ta\nb\n", "line 2 has no tab"),
            ("c.tsv", "0\ta\n1\tb\n", "2 texts, but the index has 3 positions"),
            ("c.jsonl", '"a"\n[]\n', "line 2 is neither a string nor an object with a text"),
            ("c.jsonl", '"a"\n{"text": 3}\n', "line 2 is neither"),
            ("c.jsonl", '"a"\n{\n', "line 2 is not valid JSON"),
            ("c.txt", "a", "read from .tsv and .jsonl files"),
        ],
    )
    def test_no_texts(self, tmp_path, name, text, message):
        from muvera_adapters.plaid.text_files import TextFile

        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInput, match=f"{name}: .*{message}"):
            TextFile(tmp_path / name, 3)

    @pytest.fixture
    def lengths(self):
        return np.concatenate([json.loads((HOLES / f"doclens.{i}.json").read_text()) for i in (0, 1)])

    def test_texts_in_the_right_order(self, tmp_path, lengths, rng):
        n_chars = (lengths * rng.normal(4.5, 0.1, len(lengths))).astype(int)
        path = lines(tmp_path / "c.jsonl", [json.dumps("x" * n) for n in n_chars])
        assert len(list(open_index(HOLES, texts=path).documents())) == 237

    @pytest.mark.parametrize("shift", [1, 3, 16])
    def test_shifted_texts_are_refused(self, tmp_path, lengths, rng, shift):
        n_chars = (np.maximum(lengths, 20) * rng.normal(4.5, 0.01, len(lengths))).astype(int)
        for rolled, direction in ((np.roll(n_chars, shift), "later"), (np.roll(n_chars, -shift), "earlier")):
            path = lines(tmp_path / "c.jsonl", [json.dumps("x" * n) for n in rolled])
            with pytest.raises(InvalidInput, match=rf"c.jsonl: the texts are shifted: .*{shift} lines {direction}"):
                open_index(HOLES, texts=path)

    def test_a_shift_that_begins_in_the_middle(self, rng):
        tokens = rng.integers(5, 200, 5000)
        texts = tokens * 4
        check_order("c", texts, tokens)
        # what taking one text out and adding one at the end does
        shifted = np.concatenate([texts[:3000], texts[3001:], [50]])
        with pytest.raises(InvalidInput, match="1 lines earlier"):
            check_order("c", shifted, tokens)

    def test_texts_whose_lengths_say_nothing_are_taken(self, rng):
        for texts in (rng.integers(5, 200, 5000), np.full(5000, 100)):
            check_order("c", texts, rng.integers(5, 200, 5000))
            check_order("c", texts, np.full(5000, 180))  # all cut at the model's maximum
