"""Detecting the format of a directory: formats that are not read, hints, unfinished builds and extra chunks."""

import pytest

from muvera_adapters.plaid import IndexDamaged, IndexWarning, UnknownFormat, detect, open_index
from tests.plaid.files import INDEXES


class TestDetection:
    @pytest.mark.parametrize(
        ("name", "what"),
        [("index_config.json.gz", "Byaldi"), ("flattened_embeddings.npy", "ScaNN"), ("index.voyager", "Voyager"),
         ("tachiom.bin", "TACHIOM"), ("0.residuals.bn", "binarization")],
    )  # fmt: skip
    def test_known_but_not_read(self, tmp_path, name, what):
        (tmp_path / name).touch()
        with pytest.raises(UnknownFormat, match=f"{what}.*not supported"):
            detect(tmp_path)

    def test_the_directory_above_gives_a_hint(self):
        with pytest.raises(UnknownFormat, match=r"did you mean .*pylate160_stanford/index/colbert\?"):
            detect(INDEXES / "pylate160_stanford" / "index")

    def test_an_unfinished_build(self, copy):
        path = copy("stanford_nbits2/index")
        (path / "metadata.json").unlink()
        (path / "2.codes.pt").unlink()
        (path / "doclens.2.json").unlink()
        with pytest.raises(IndexDamaged, match=r"metadata.json: .* unfinished build, 2 of 3 chunks are there"):
            open_index(path)

    @pytest.mark.parametrize(
        ("name", "first"), [("stanford_nbits2", "3.codes.pt"), ("fastplaid147_nbits4", "3.codes.npy")]
    )
    def test_extra_chunks_are_ignored(self, copy, name, first):
        path = copy(f"{name}/index")
        (path / first).write_bytes(b"not read")
        with pytest.warns(IndexWarning, match=r"ignored the files of chunk 3 and later; metadata.json has 3 chunks"):
            source = open_index(path)
        assert len(source) == 240
