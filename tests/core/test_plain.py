"""Without numba, numpy computes what the kernels do."""

import subprocess
import sys

import numpy as np
import pytest

from muvera_core import (
    FDEConfig,
    FDEEncoder,
    InvalidTokens,
    QueryFit,
    RegressionEncoder,
    TokenBatch,
    _plain,
    maxsim,
    pool_tokens,
)
from tests.drawn import gaussian

CONFIGS = [
    FDEConfig(128),
    FDEConfig(96, 7, 4),
    FDEConfig(33, 5, 2, None),
    FDEConfig(33, 5, 2, 3, projection="count_sketch", fill_empty=False, normalize=False),
    FDEConfig(128, 5, 6, None, d_final=500),
    FDEConfig(65, 6, 3, 5, d_final=101, projection="rademacher"),
    FDEConfig(1, 2, 0, None),
    FDEConfig(48, 4, 9, 8, algorithm="muvera-1"),
    FDEConfig.fastembed(128),
]


@pytest.fixture
def documents():
    tokens = [gaussian(n, n, 128) for n in (1, 2, 17, 63, 300)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in tokens]


@pytest.fixture
def plainly(monkeypatch):
    """Calls a function as where numba is not installed."""

    def call(function, *arguments, **named):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "numba", None)
            _plain.has_numba.cache_clear()
            try:
                return function(*arguments, **named)
            finally:
                _plain.has_numba.cache_clear()

    return call


def close(plain, compiled):
    assert plain.dtype == compiled.dtype
    np.testing.assert_allclose(plain, compiled, rtol=0, atol=2e-6 * np.abs(compiled).max())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.algorithm}-{c.dim}-{c.fde_dim}")
@pytest.mark.parametrize("half", [False, True])
def test_fdes(plainly, documents, config, half):
    tokens = [x[:, : config.dim].astype(np.float16 if half else np.float32) for x in documents]
    encoder = FDEEncoder(config)
    close(plainly(encoder.encode_queries, tokens), encoder.encode_queries(tokens))
    close(plainly(encoder.encode_documents, tokens), encoder.encode_documents(tokens))


def test_a_fitted_encoder_and_weights(plainly, documents):
    encoder = plainly(FDEEncoder.fit, FDEConfig(128), [x + 0.3 for x in documents])
    assert encoder.fingerprint == FDEEncoder.fit(FDEConfig(128), [x + 0.3 for x in documents]).fingerprint
    weights = np.linspace(-1, 2, 17)
    close(plainly(encoder.encode_query, documents[2], weights), encoder.encode_query(documents[2], weights))
    close(plainly(encoder.encode_documents, documents), encoder.encode_documents(documents))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_very_short_and_very_long_tokens(plainly, documents, scale):
    tokens = [x * np.float32(scale) for x in documents]
    encoder = FDEEncoder(FDEConfig(128))
    close(plainly(encoder.encode_documents, tokens), encoder.encode_documents(tokens))


@pytest.mark.parametrize("half", [False, True])
def test_maxsim(plainly, documents, half):
    tokens = [x.astype(np.float16 if half else np.float32) for x in documents]
    for query in documents:
        close(plainly(maxsim, query, tokens), maxsim(query, tokens))
    batch = TokenBatch.from_list(tokens)
    np.testing.assert_array_equal(plainly(maxsim, query, batch), plainly(maxsim, query, tokens))


def test_a_regression_encoder(plainly):
    sample = [gaussian(i, 20, 33) for i in range(60)]
    encoder = RegressionEncoder.fit(sample, 16, sample_tokens=400, features=64)
    close(plainly(encoder.encode_queries, sample), encoder.encode_queries(sample))
    close(plainly(encoder.encode_documents, sample), encoder.encode_documents(sample))
    close(plainly(encoder.encode_query, sample[3][:1]), encoder.encode_query(sample[3][:1]))
    again = plainly(RegressionEncoder.fit, sample, 16, sample_tokens=400, features=64)
    ranks = again.encode_documents(sample) @ again.encode_query(sample[3])
    expected = encoder.encode_documents(sample) @ encoder.encode_query(sample[3])
    assert ranks.argmax() == expected.argmax() == 3


def test_a_query_fit(plainly):
    encoder, sample = FDEEncoder(FDEConfig(32, 8)), [gaussian(i, 20, 32) for i in range(120)]
    fit = QueryFit.fit(encoder, sample, encoder.encode_documents(sample))
    close(plainly(fit.encode_query, encoder, sample[0]), fit.encode_query(encoder, sample[0]))


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "NaN or infinite"), (0, "all zeros")])
def test_tokens_that_are_refused(plainly, documents, value, problem):
    documents[2][5] = value
    regression = RegressionEncoder.fit([gaussian(i, 9, 128) for i in range(40)], 8, sample_tokens=99, features=16)
    for call in (
        FDEEncoder(FDEConfig(128)).encode_documents,
        regression.encode_queries,
        regression.encode_documents,
        lambda tokens: maxsim(documents[0], tokens),
    ):
        with pytest.raises(InvalidTokens, match=f" 2, token 5 .*{problem}") as caught:
            plainly(call, documents)
        assert caught.value.position == 2


def test_pooling_says_what_to_install(plainly, documents):
    with pytest.raises(ModuleNotFoundError, match="pooling tokens needs it; install it with: pip install numba"):
        plainly(pool_tokens, documents, 2)


def test_a_store_is_filled_and_searched(tmp_path):
    """In a process that cannot import numba; the kernels find the same documents."""
    qdrant = pytest.importorskip("muvera_adapters.qdrant")
    pytest.importorskip("qdrant_edge")
    code = f"""
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_core import FDEConfig, FDEEncoder
from tests.drawn import gaussian
with QdrantEdgeMuvera.create({str(tmp_path)!r}, "passages", FDEEncoder(FDEConfig(128))) as store:
    store.upsert(list(range(100)), [gaussian(i, 20, 128) for i in range(100)])
with QdrantEdgeMuvera.open({str(tmp_path)!r}, "passages") as store:
    for i in range(5):
        query = gaussian(i, 9, 128)
        print([hit.id for hit in store.search(query, prefetch=30)], [hit.id for hit in store.exact_search(query)])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    with qdrant.QdrantEdgeMuvera.open(tmp_path, "passages") as store:
        for i, line in enumerate(run.stdout.splitlines()):
            query = gaussian(i, 9, 128)
            found = (
                [hit.id for hit in store.search(query, prefetch=30)],
                [hit.id for hit in store.exact_search(query)],
            )
            assert line == f"{found[0]} {found[1]}"
        assert i == 4
