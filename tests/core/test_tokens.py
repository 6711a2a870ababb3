"""Every form of input that encoders emit, and an error with a position for everything else."""

import numpy as np
import pytest

from muvera_core import FDEConfig, FDEEncoder, InvalidTokens, TokenBatch, maxsim
from muvera_core.tokens import to_batch
from tests.drawn import gaussian

DIM = 16


@pytest.fixture
def encoder():
    return FDEEncoder(FDEConfig(DIM, r_reps=2, k_sim=3, d_proj=4))


class Tensor:
    """What numpy sees of a torch tensor: nothing but these methods works on every device and dtype."""

    def __init__(self, array, dtype="torch.float32", on_device=True):
        self._array, self.dtype, self._on_device = array, dtype, on_device
        self.ndim, self.shape = array.ndim, array.shape

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self._array, self.dtype, on_device=False)

    def float(self):
        return Tensor(self._array, "torch.float32", on_device=False)

    def __array__(self, dtype=None, copy=None):
        if self._on_device or self.dtype == "torch.bfloat16":
            raise TypeError("can't convert to numpy")
        return self._array


class TestForms:
    @pytest.mark.parametrize(
        "convert",
        [
            lambda x: x,
            lambda x: x.astype(np.float64),
            lambda x: x.tolist(),
            lambda x: Tensor(x),
            lambda x: Tensor(x, "torch.bfloat16"),
            lambda x: np.asfortranarray(x),
            lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        ],
        ids=["float32", "float64", "lists", "tensor", "bfloat16 tensor", "fortran", "strided"],
    )
    def test_matrix(self, encoder, convert):
        documents = [gaussian(i, n, DIM) for i, n in enumerate((3, 1, 8))]
        expected = encoder.encode_documents(documents)
        np.testing.assert_array_equal(encoder.encode_documents([convert(d) for d in documents]), expected)
        np.testing.assert_array_equal(encoder.encode_documents(convert(d) for d in documents), expected)
        np.testing.assert_array_equal(encoder.encode_document(convert(documents[0])), expected[0])
        np.testing.assert_array_equal(TokenBatch.from_list(map(convert, documents)).values, np.concatenate(documents))

    @pytest.mark.parametrize("dim", [DIM, 37, 130])
    def test_float16_is_read_exactly(self, dim):
        encoder = FDEEncoder(FDEConfig(dim, d_proj=4))
        values = np.concatenate([gaussian(1, 60, dim), 1e-6 * gaussian(2, 4, dim)])  # float16 subnormals as well
        values[0, :3] = 65504, -65504, 6e-8
        half = values.astype(np.float16)
        batch = TokenBatch(half, [0, 10, 33, 64])
        assert batch.values.dtype == np.float16
        single = TokenBatch(half.astype(np.float32), batch.offsets)
        np.testing.assert_array_equal(encoder.encode_documents(batch), encoder.encode_documents(single))
        np.testing.assert_array_equal(
            encoder.encode_documents([batch[i] for i in range(3)]), encoder.encode_documents(single)
        )
        np.testing.assert_array_equal(maxsim(values[1:9], batch), maxsim(values[1:9], single))

    def test_mixed_dtypes_become_float32(self, encoder):
        documents = [gaussian(0, 3, DIM), gaussian(1, 3, DIM).astype(np.float16)]
        batch = TokenBatch.from_list(documents)
        assert batch.values.dtype == np.float32
        np.testing.assert_array_equal(encoder.encode_documents(documents), encoder.encode_documents(batch))

    def test_padded_with_a_mask(self, encoder):
        documents = [gaussian(i, n, DIM) for i, n in enumerate((3, 1, 8))]
        padded, mask = np.zeros((3, 8, DIM), np.float32), np.zeros((3, 8), np.int64)
        for i, d in enumerate(documents):
            padded[i, : len(d)], mask[i, : len(d)] = d, 1
        expected = encoder.encode_documents(documents)
        for m in (mask, mask.astype(bool), mask.astype(float), Tensor(mask, "torch.int64"), mask.tolist()):
            np.testing.assert_array_equal(encoder.encode_documents(padded, mask=m), expected)
        np.testing.assert_array_equal(encoder.encode_documents(Tensor(padded), mask=Tensor(mask)), expected)
        np.testing.assert_array_equal(encoder.encode_documents(TokenBatch.from_padded(padded, mask)), expected)
        np.testing.assert_allclose(maxsim(documents[0], padded, mask), maxsim(documents[0], documents))

    def test_padding_on_the_left_or_between(self, encoder):
        padded, mask = gaussian(0, 12, DIM).reshape(2, 6, DIM), np.array([[0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0]])
        expected = encoder.encode_documents([padded[0][[2, 3, 5]], padded[1][:1]])
        np.testing.assert_array_equal(encoder.encode_documents(padded, mask=mask), expected)

    def test_nothing_gives_nothing(self, encoder):
        assert encoder.encode_documents([]).shape == (0, encoder.dim)
        assert encoder.encode_documents(iter([])).shape == (0, encoder.dim)
        assert len(TokenBatch.from_list([])) == 0
        assert maxsim(gaussian(0, 2, DIM), []).shape == (0,)


class TestErrors:
    """Each names the position; nothing is encoded in part."""

    def documents(self, n=200):
        return [gaussian(i, 5, DIM) for i in range(n)]

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (np.zeros((0, DIM), np.float32), "document 150 has no tokens"),
            (gaussian(0, 5, DIM + 1), "document 150 has token vectors of width 17, expected 16"),
            (gaussian(0, 5, DIM)[0], r"document 150 must be an \(n, dim\) matrix.*a single token is"),
            (
                gaussian(0, 4, DIM).reshape(2, 2, DIM),
                r"document 150 must be an \(n, dim\) matrix, got shape \(2, 2, 16\)",
            ),
            ([[1.0] * DIM, [1.0] * 3], "document 150 is not an array of numbers"),
            (np.full((2, DIM), "x"), "document 150 has dtype <U1"),
            (np.ones((2, DIM), complex), "document 150 has dtype complex128"),
            (np.ones((2, DIM), bool), "document 150 has dtype bool"),
            (None, "document 150"),
        ],
    )
    def test_shape_and_type(self, encoder, bad, message):
        documents = self.documents()
        documents[150] = bad
        with pytest.raises(InvalidTokens, match=message) as error:
            encoder.encode_documents(documents)
        assert error.value.position == 150

    @pytest.mark.parametrize(
        ("value", "message"),
        [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-np.inf, "NaN or infinite"), (0.0, "all zeros")],
    )
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_values(self, encoder, value, message, dtype):
        documents = [d.astype(dtype) for d in self.documents(600)]
        for i in (450, 451, 599):
            documents[i][3, :] = value
        for call in (
            lambda: encoder.encode_documents(documents),
            lambda: encoder.encode_documents(TokenBatch.from_list(documents)),
            lambda: maxsim(gaussian(0, 3, DIM), documents),
        ):
            with pytest.raises(InvalidTokens, match=f"document 450, token 3 .*{message}") as error:
                call()
            assert error.value.position == 450
        with pytest.raises(InvalidTokens, match=f"query 450, token 3 .*{message}"):
            encoder.encode_queries(documents)

    @pytest.mark.parametrize("dim", [3, 16, 19, 128, 131])
    def test_one_bad_element_anywhere(self, dim):
        encoder = FDEEncoder(FDEConfig(dim, d_proj=2))
        for j in range(dim):
            tokens = gaussian(j, 2, dim)
            tokens[1, j] = np.nan
            with pytest.raises(InvalidTokens, match="document 0, token 1"):
                encoder.encode_document(tokens)
        tokens = np.zeros((1, dim), np.float32)
        tokens[0, -1] = -1e-30
        assert np.isfinite(encoder.encode_query(tokens)).all()

    def test_overflow_of_float64_is_not_hidden(self, encoder):
        tokens = gaussian(0, 2, DIM).astype(np.float64)
        tokens[1, 1] = 1e300
        with pytest.raises(InvalidTokens, match="token 1 has a NaN or infinite value"):
            encoder.encode_document(tokens)

    def test_query_of_maxsim(self):
        documents, query = self.documents(3), gaussian(0, 4, DIM)
        query[2, 5] = np.nan
        with pytest.raises(InvalidTokens, match="query 0, token 2 has a NaN"):
            maxsim(query, documents)
        query[2] = 0
        with pytest.raises(InvalidTokens, match="query 0, token 2 is all zeros"):
            maxsim(query, documents)
        with pytest.raises(InvalidTokens, match="document 0 has token vectors of width 16, expected 8"):
            maxsim(gaussian(0, 4, 8), documents)

    def test_padded_without_a_mask(self, encoder):
        with pytest.raises(InvalidTokens, match="pass mask="):
            encoder.encode_documents(np.ones((2, 3, DIM), np.float32))
        with pytest.raises(InvalidTokens, match="pass mask="):
            encoder.encode_documents(Tensor(np.ones((2, 3, DIM), np.float32)))

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.ones((2, 4)), r"mask has shape \(2, 4\)"),
            (np.full((2, 3), 2), "must hold 1"),
            (np.full((2, 3), -np.inf), "must hold 1"),
            (np.array([[1, 1, 1], [0, 0, 0]]), "position 1 has no tokens"),
        ],
    )
    def test_wrong_masks(self, encoder, mask, message):
        with pytest.raises(InvalidTokens, match=message):
            encoder.encode_documents(np.ones((2, 3, DIM), np.float32), mask=mask)

    def test_one_matrix_is_no_batch(self, encoder):
        with pytest.raises(InvalidTokens, match="put it into a list"):
            encoder.encode_documents(gaussian(0, 3, DIM))

    @pytest.mark.parametrize("thing", [5, "text", {"a": 1}, None])
    def test_no_batch_at_all(self, encoder, thing):
        with pytest.raises(InvalidTokens, match="expected token matrices"):
            encoder.encode_documents(thing)

    def test_width_of_a_batch(self, encoder):
        with pytest.raises(InvalidTokens, match="width 8, expected 16"):
            encoder.encode_documents(TokenBatch.from_list([gaussian(0, 2, 8)]))

    @pytest.mark.parametrize(
        ("values", "offsets", "message"),
        [
            (np.ones((4, 2)), [0, 4], "values must be"),
            (np.ones(4, np.float32), [0, 4], "values must be"),
            ([[1.0, 2.0]], [0, 1], "values must be"),
            (np.ones((4, 2), np.float32), [0, 3], "run from 0 to the number of tokens, 4"),
            (np.ones((4, 2), np.float32), [1, 4], "they run from 1"),
            (np.ones((4, 2), np.float32), [0, 2, 2, 4], "position 1 has no tokens"),
            (np.ones((4, 2), np.float32), [0, 3, 2, 4], "position 1 has no tokens"),
            (np.ones((4, 2), np.float32), [0.0, 4.0], "must be .* integers"),
            (np.ones((4, 2), np.float32), [], "must be .* integers"),
        ],
    )
    def test_token_batch(self, values, offsets, message):
        with pytest.raises(InvalidTokens, match=message):
            TokenBatch(values, offsets)


class TestTokenBatch:
    def test_gives_back_what_it_was_made_of(self):
        documents = [gaussian(i, n, DIM) for i, n in enumerate((3, 1, 8, 2))]
        batch = TokenBatch.from_list(documents)
        assert (len(batch), batch.dim, batch.lengths.tolist()) == (4, DIM, [3, 1, 8, 2])
        for i in range(-4, 4):
            np.testing.assert_array_equal(batch[i], documents[i])
        for part in (slice(None), slice(1, 3), slice(2, None), slice(3, 1), slice(-1, None)):
            got = batch[part]
            assert [g.tolist() for g in map(got.__getitem__, range(len(got)))] == [d.tolist() for d in documents[part]]
        assert batch[1].base is not None  # a view
        with pytest.raises(IndexError):
            batch[4]
        with pytest.raises(ValueError, match="contiguous"):
            batch[::2]
        assert "4 x 16, 14 tokens" in repr(batch)


class TestObjectsAndColumns:
    """What object arrays, pandas and pyarrow keep matrices of different lengths in."""

    @pytest.fixture
    def matrices(self):
        rng = np.random.default_rng(0)
        return [rng.normal(size=(n, 8)).astype("f4") for n in (3, 5, 2)]

    @staticmethod
    def objects(items):
        array = np.empty(len(items), object)
        array[:] = items
        return array

    def forms(self, matrices):
        pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
        # pandas.read_parquet gives an array of arrays for each cell
        cells = [self.objects(list(m)) for m in matrices]
        column = pa.array([m.tolist() for m in matrices], pa.list_(pa.list_(pa.float32())))
        return {
            "object array": self.objects(matrices),
            "cells": cells,
            "pandas": pd.Series(matrices),
            "pandas, cells": pd.Series(cells),
            "pandas, arrow": pd.Series(column, dtype=pd.ArrowDtype(column.type)),
            "pyarrow": column,
            "pyarrow, chunked": pa.chunked_array([column]),
            "matrix of objects": [np.array(m.tolist(), object) for m in matrices],
            "batches of one": [m[None] for m in matrices],
        }

    def test_are_taken(self, matrices):
        right = TokenBatch.from_list(matrices)
        for what, given in self.forms(matrices).items():
            found = to_batch(given)
            assert found.offsets.tolist() == right.offsets.tolist(), what
            np.testing.assert_allclose(found.values, right.values, rtol=1e-6, err_msg=what)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ([None], "document 0 is not an array of numbers: a value is missing"),
            ([[[1.0], None]], "document 0 is not an array of numbers"),
            ([np.array([["1.0"]], object)], "document 0 has dtype <U3"),
            ([[]], "document 0 has no tokens"),
            (np.arange(3.0), r"got a \(3,\) array of numbers where a batch of matrices"),
        ],
    )
    def test_are_refused(self, given, says):
        with pytest.raises(InvalidTokens, match=says):
            to_batch(given)
