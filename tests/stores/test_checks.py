"""Checks that all stores share."""

from types import SimpleNamespace

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.checks import (
    Intake,
    check_client,
    check_encodable,
    check_encoder_type,
    check_vectors,
    encode_stored,
    normalised,
    numbers_in,
    prepare,
    query_matrix,
)
from muvera_core import FDEConfig, FDEEncoder, TokenBatch
from tests.drawn import gaussian

ENCODER = FDEEncoder(FDEConfig(8, d_proj=None))
INTAKE = Intake(
    lambda document_id, position: (document_id, {}),
    lambda payload, position: dict(payload),
    check_encodable,
    lambda matrix, payload, where: matrix.size,
    vectors=("dense", "fde", "tokens"),
)


def collection(cosine=False):
    return SimpleNamespace(name="docs", encoder=ENCODER, fde="fde", tokens="tokens", cosine=cosine)


def padded(seed, n=5):
    """A matrix, and the same with rows of zeros in it and behind it."""
    matrix = gaussian(seed, n, 8)
    zeros = np.zeros((1, 8), np.float32)
    return matrix, np.vstack([matrix[:2], zeros, matrix[2:], zeros])


class TestZeroRows:
    def test_they_are_refused_by_default_and_the_error_names_the_argument(self):
        with pytest.raises(InvalidInput, match=r"document 1 \(id 'b'\), token 2 is all zeros.*zero_rows='drop'"):
            prepare(collection(), ["a", "b"], list(padded(0)), None, INTAKE)

    @pytest.mark.parametrize("form", [list, TokenBatch.from_list])
    def test_they_are_dropped_and_counted(self, form):
        plain, with_zeros = padded(0)
        prepared = prepare(collection(), ["a", "b"], form([plain, with_zeros]), None, INTAKE, zero_rows="drop")
        assert prepared.zero_rows == 2
        assert [np.array_equal(matrix, plain) for matrix in prepared.tokens] == [True, True]

    def test_a_document_of_zeros_only_is_refused(self):
        with pytest.raises(InvalidInput, match=r"document 0 \(id 'a'\)"):
            prepare(collection(), ["a"], [np.zeros((2, 8))], None, INTAKE, zero_rows="drop")

    def test_another_word_is_refused(self):
        with pytest.raises(InvalidInput, match="'keep'"):
            prepare(collection(), [], [], None, INTAKE, zero_rows="keep")

    def test_queries_are_told_something_else(self):
        with pytest.raises(InvalidInput, match=r"^query, token 2 is all zeros: padding\? Drop such tokens$"):
            query_matrix(collection(), padded(0)[1], check_encodable)

    @pytest.mark.parametrize("cosine", [False, True])
    def test_stored_ones_are_left_out_of_the_fde(self, cosine):
        plain, with_zeros = padded(0)
        a, b = encode_stored(ENCODER, [plain, with_zeros], cosine=cosine)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_normalising_divides_by_no_zero(scale):
    plain, with_zeros = padded(0)
    unit = normalised((with_zeros * scale).astype(np.float32))
    assert not unit[2].any()
    np.testing.assert_allclose(unit[:2], normalised(plain[:2]), rtol=1e-5)


class TestVectors:
    def test_each_document_gets_its_own(self):
        vectors = {"dense": [[1.0, 2.0], None], "bm25": [None, {"indices": [1], "values": [0.5]}]}
        found = check_vectors(vectors, 2, None, ("fde", "tokens"))
        assert found == [{"dense": [1.0, 2.0]}, {"bm25": {"indices": [1], "values": [0.5]}}]
        assert check_vectors(None, 2, (), ()) == [{}, {}]

    @pytest.mark.parametrize(
        ("vectors", "problem"),
        [
            ({"sparse": [None]}, "no vector 'sparse'.*'dense'"),
            ({"fde": [[1.0]]}, "'fde' is written by the library"),
            ({"tokens": [[1.0]]}, "'tokens' is written by the library"),
            ({"dense": []}, "'dense' has 0 entries for 1 documents"),
            ({"dense": {"a": 1}}, "list"),
            ([[1.0]], "dictionary"),
        ],
    )
    def test_what_is_refused(self, vectors, problem):
        with pytest.raises(InvalidInput, match=problem):
            prepare(collection(), ["a"], [gaussian(0, 2, 8)], None, INTAKE, vectors=vectors)

    def test_their_bytes_count(self):
        sizes = [
            prepare(collection(), ["a"], [gaussian(0, 2, 8)], None, INTAKE, vectors=vectors).sizes[0]
            for vectors in (None, {"dense": [np.zeros(100)]}, {"dense": [[0.0] * 100]})
        ]
        assert sizes[1] == sizes[2] == sizes[0] + 400

    def test_numbers_of_sparse_vectors(self):
        assert numbers_in(SimpleNamespace(indices=[1, 5], values=[0.5, 0.5])) == 4
        assert numbers_in([[1.0, 2.0], [3.0, 4.0]]) == 4
        assert numbers_in({1: 0.5, 5: 0.5}) == 4


def test_payloads_are_converted_and_refused_with_their_key():
    prepared = prepare(collection(), ["a"], [gaussian(0, 2, 8)], [{"n": np.int64(7)}], INTAKE)
    assert prepared.payloads == [{"n": 7}]
    with pytest.raises(InvalidInput, match=r"payload of document 0 \(id 'a'\), key 'n': a value of type bytes"):
        prepare(collection(), ["a"], [gaussian(0, 2, 8)], [{"n": b"x"}], INTAKE)


def test_a_value_that_cannot_be_stored_is_told_of_its_document_alone():
    payloads = [{"n": 1}, {"n": float("nan")}, {"n": "a \ud83d b"}]
    prepared = prepare(collection(), ["a", "b", "c"], [gaussian(i, 2, 8) for i in range(3)], payloads, INTAKE)
    assert prepared.payloads[0] == {"n": 1}
    assert list(prepared.unfit) == [1, 2]
    assert prepared.unfit[1].startswith("payload of document 1 (id 'b'), key 'n': nan")


@pytest.mark.parametrize(
    ("wrong", "advice"), [(FDEConfig(128), r"FDEEncoder\(config\)"), ("x", "str"), (FDEEncoder, "FDEEncoder")]
)
def test_what_is_not_an_encoder(wrong, advice):
    with pytest.raises(InvalidInput, match=advice):
        check_encoder_type(wrong)
    check_encoder_type(ENCODER)


def test_clients_of_another_kind():
    class Right:
        def ask(self): ...

    class Async: ...

    class Wrapper:
        def __init__(self, client):
            self._client = client

        def __getattr__(self, name):
            return getattr(self._client, name)

    check_client(Right(), Right)
    check_client(Wrapper(Right()), Right)
    with pytest.raises(InvalidInput, match="Right, got a Wrapper"):
        check_client(Wrapper(3), Right)
    check_client(Right(), (Async, Right))
    with pytest.raises(InvalidInput, match="use AsyncStore"):
        check_client(Async(), Right, {Async: "AsyncStore"})
    with pytest.raises(InvalidInput, match="Right, got a str: connect first"):
        check_client("http://localhost:6333", Right)
    with pytest.raises(InvalidInput, match=r"Right, got a int$"):
        check_client(3, Right)
