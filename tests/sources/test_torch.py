"""Files that ``torch.save`` writes, as sources."""

import pickle

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, MuveraError
from muvera_adapters.sources import open_queries, open_source
from tests.plaid.files import Evil, tensor_opcodes, write_archive
from tests.sources.conftest import DIM


class TestTorchFiles:
    """What torch.save writes, by hand, as torch is not needed."""

    def opcodes(self, arrays, *, bfloat16=False):
        """Of each array as a tensor with a storage of its own, and the members of the archive."""
        found, members = [], {}
        for key, array in enumerate(arrays):
            body = tensor_opcodes(array, key=str(key))
            found.append(body.replace(b"ShortStorage", b"BFloat16Storage") if bfloat16 else body)
            members[f"x/data/{key}"] = array.tobytes()
        return found, members

    def write(self, path, body, members):
        write_archive(path, b"\x80\x02" + body + b".", members)
        return path

    def text(self, value):
        return pickle.dumps(value, 2)[2:-1]

    def test_a_list(self, tmp_path, rng):
        matrices = [rng.normal(size=(n, DIM)).astype("f4") for n in (3, 5, 2)]
        found, members = self.opcodes(matrices)
        source = open_source(self.write(tmp_path / "x.pt", b"](" + b"".join(found) + b"e", members))
        assert [d.id for d in source.documents()] == [0, 1, 2]
        for d, m in zip(source.documents(), matrices, strict=True):
            np.testing.assert_array_equal(d.tokens, m)

    def test_a_list_of_batches_of_one_in_bfloat16(self, tmp_path, rng):
        matrices = [rng.normal(size=(1, n, DIM)).astype("f4") for n in (3, 5, 2)]
        halves = [(m.view("u4") >> 16).astype("i2") for m in matrices]
        found, members = self.opcodes(halves, bfloat16=True)
        source = open_source(self.write(tmp_path / "x.pt", b"](" + b"".join(found) + b"e", members))
        for d, m in zip(source.documents(), matrices, strict=True):
            np.testing.assert_allclose(d.tokens, m[0], rtol=0.01)

    def test_a_dictionary(self, tmp_path, rng):
        values = rng.normal(size=(3, 5, DIM)).astype("f4")
        found, members = self.opcodes([values, (np.arange(5) < np.array([[3], [5], [2]])).astype("u1")])
        body = b"}(" + self.text("embeddings") + found[0] + self.text("attention_mask") + found[1]
        body += self.text("ids") + self.text(["a", "b", "c"]) + self.text("model") + self.text("colpali") + b"u"
        source = open_source(self.write(tmp_path / "x.pt", body, members))
        assert [(d.id, len(d.tokens)) for d in source.documents()] == [("a", 3), ("b", 5), ("c", 2)]

    def test_an_ordered_dictionary(self, tmp_path, rng):
        found, members = self.opcodes([rng.normal(size=(n, DIM)).astype("f4") for n in (3, 5)])
        body = b"ccollections\nOrderedDict\n)R(" + self.text("a") + found[0] + self.text("b") + found[1] + b"u"
        source = open_source(self.write(tmp_path / "x.pt", body, members))
        assert [(d.id, len(d.tokens)) for d in source.documents()] == [("a", 3), ("b", 5)]

    def test_queries(self, tmp_path, rng):
        found, members = self.opcodes([rng.normal(size=(4, DIM)).astype("f4")])
        assert open_queries(self.write(tmp_path / "x.pt", found[0], members)).lengths.tolist() == [4]

    def test_other_things_are_refused(self, tmp_path):
        write_archive(tmp_path / "evil.pt", pickle.dumps([Evil(tmp_path / "made")], 2), {})
        with pytest.raises(MuveraError, match="refused"):
            open_source(tmp_path / "evil.pt")
        assert not (tmp_path / "made").exists()
        write_archive(tmp_path / "keys.pt", pickle.dumps({(1,): 2}, 2), {})
        with pytest.raises(MuveraError, match="other keys"):
            open_source(tmp_path / "keys.pt")
        write_archive(tmp_path / "text.pt", pickle.dumps(["a"], 2), {})
        with pytest.raises(InvalidInput, match="expected one"):
            open_source(tmp_path / "text.pt")
