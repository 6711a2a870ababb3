"""The correction of query vectors: what it learns, what it keeps, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from muvera_adapters.testing.corpus import sample
from muvera_core import FDEConfig, FDEEncoder, FitReport, QueryFit, RegressionEncoder, maxsim, query_fit

CONFIG = FDEConfig(dim=128, r_reps=5, k_sim=3, d_proj=8, normalize=False)
ENCODER = FDEEncoder(CONFIG)
REPORT = FitReport(300, 300, 27, 28, "given", (20, 100), (0.5, 0.9), (0.6, 0.9), (0.05, -0.01), (0.15, 0.01))


@pytest.fixture(scope="module")
def data():
    documents, queries, _ = sample()
    documents = documents[:1600:4]
    return documents, ENCODER.encode_documents(documents), queries


@pytest.fixture(scope="module")
def fit(data):
    documents, vectors, _ = data
    return QueryFit.fit(ENCODER, documents[::2], vectors[::2], features=512, sample_tokens=3000)


def differences(scores):
    return scores - scores.mean()


def test_estimates_of_unseen_documents_are_nearer_to_maxsim(data, fit):
    documents, vectors, queries = data
    wrong = {"plain": 0.0, "corrected": 0.0}
    for query in queries:
        exact = differences(maxsim(query, documents[1::2]))
        plain = differences(vectors[1::2] @ ENCODER.encode_query(query)) * float(fit._state.gain[0])
        corrected = differences(vectors[1::2] @ fit.encode_queries(ENCODER, [query])[0])
        wrong["plain"] += float(((plain - exact) ** 2).sum())
        wrong["corrected"] += float(((corrected - exact) ** 2).sum())
    assert wrong["corrected"] < 0.9 * wrong["plain"]


def test_a_large_ridge_leaves_the_plain_vectors(data):
    documents, vectors, queries = data
    fit = QueryFit.fit(ENCODER, documents[::4], vectors[::4], features=64, sample_tokens=500, ridge=1e9)
    corrected = fit.encode_queries(ENCODER, queries[:3])
    assert np.allclose(corrected, fit._state.gain * ENCODER.encode_queries(queries[:3]), rtol=1e-4, atol=1e-6)
    assert fit.ridge == 1e9


def test_the_best_ridge_is_that_of_leaving_out_each_document(data):
    generator = np.random.default_rng(0)
    phi, residuals = generator.normal(size=(60, 12)), generator.normal(size=(60, 20))
    vectors = generator.normal(size=(20, 40))
    regression = query_fit._Regression(phi, residuals, vectors)
    rows = np.linalg.solve(phi.T @ phi + query_fit._RIDGE * np.trace(phi.T @ phi) / 12 * np.eye(12), phi.T @ residuals)
    kernel = vectors @ vectors.T
    for ridge in (0.3, 3.0):
        errors = 0.0
        for i in range(20):
            kept = np.delete(np.arange(20), i)
            inner = kernel[np.ix_(kept, kept)] + ridge * np.trace(kernel) / 20 * np.eye(19)
            predicted = rows[:, kept] @ np.linalg.solve(inner, kernel[kept, i])
            errors += float(((residuals[:, i] - phi @ predicted) ** 2).sum() - (residuals[:, i] ** 2).sum())
        assert regression._error(ridge) == pytest.approx(errors, rel=1e-6)


def test_a_query_has_the_same_vector_alone_and_in_a_batch(data, fit):
    _, _, queries = data
    together = fit.encode_queries(ENCODER, queries)
    assert together.dtype == np.float32
    assert together.shape == (len(queries), ENCODER.dim)
    for query, vector in zip(queries, together, strict=True):
        assert np.array_equal(fit.encode_queries(ENCODER, [query])[0], vector)


def test_a_saved_fit_is_the_same(data, fit, tmp_path):
    _, _, queries = data
    path = tmp_path / "fit.npz"
    fit.with_report(REPORT).save(path)
    loaded = QueryFit.load(path)
    assert (loaded.fingerprint, loaded.encoder_fingerprint) == (fit.fingerprint, ENCODER.fingerprint)
    assert (loaded.ridge, loaded.rank, loaded.report) == (fit.ridge, 64, REPORT)
    assert np.array_equal(loaded.encode_queries(ENCODER, queries), fit.encode_queries(ENCODER, queries))
    assert path.stat().st_size < 2 * (128 * 512 + 512 * 64 + 64 * ENCODER.dim) + 10_000
    assert not list(tmp_path.glob("*.part"))


def test_a_fit_is_repeatable_and_its_fingerprint_names_the_encoder(data, fit):
    documents, vectors, _ = data
    again = QueryFit.fit(ENCODER, documents[::2], vectors[::2], features=512, sample_tokens=3000)
    assert again.fingerprint == fit.fingerprint
    other = QueryFit(fit._state, FDEEncoder(FDEConfig(dim=128)).fingerprint, fit.ridge)
    assert other.fingerprint != fit.fingerprint


def test_another_encoder_is_refused(fit, data):
    other = FDEEncoder(FDEConfig(dim=128, r_reps=5, k_sim=3, d_proj=8, normalize=False, seed=7))
    with pytest.raises(ValueError, match=f"{ENCODER.fingerprint}, not of encoder {other.fingerprint}"):
        fit.encode_queries(other, data[2])


def test_queries_that_are_not_sums_over_tokens_are_refused(data):
    documents, _, _ = data
    encoder = RegressionEncoder.fit(documents[:50], dim=64, features=128)
    with pytest.raises(ValueError, match="not sums over tokens"):
        QueryFit.fit(encoder, documents[:50], encoder.encode_documents(documents[:50]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"features": 0}, "features must be at least 1"),
        ({"sample_tokens": 3}, "sample_tokens must be at least 8"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"ridge": -1.0}, "ridge must be positive"),
        ({"ridge": float("nan")}, "ridge must be positive"),
        ({"queries": [np.ones((2, 3))]}, "query 0 has token vectors of width 3"),
        ({"vectors": np.full((10, 320), np.nan)}, "vector of document 0 has a NaN"),
        ({"vectors": np.eye(10, 320) * 1e-30}, "too long or too short for float32: scale them"),
        ({"vectors": np.zeros((9, 5))}, r"vectors must be \(10, 320\)"),
        ({"vectors": np.ones((10, 320))}, "all alike"),
    ],
)
def test_arguments_are_checked(data, change, problem):
    documents, vectors, _ = data
    arguments = {"vectors": vectors[:10], **change}
    with pytest.raises(ValueError, match=problem):
        QueryFit.fit(ENCODER, documents[:10], arguments.pop("vectors"), **arguments)


def test_other_files_are_refused(fit, tmp_path):
    path = tmp_path / "fit.npz"
    with pytest.raises(FileNotFoundError):
        QueryFit.load(path)
    ENCODER.save(path)
    with pytest.raises(ValueError, match="not a saved query fit"):
        QueryFit.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a saved query fit"):
        QueryFit.load(path)
    fit.save(path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 255  # a version of zip that nothing reads
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a saved query fit"):
        QueryFit.load(path)
    fit.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["gain"] = arrays["gain"] * 2
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="damaged"):
        QueryFit.load(path)


def test_a_report_has_gained_where_an_interval_is_above_zero_and_none_below():
    assert REPORT.gained
    assert not replace(REPORT, low=(-0.01, -0.01)).gained
    assert not replace(REPORT, high=(0.15, -0.005)).gained
    assert "20 candidates: 0.500 -> 0.600" in str(REPORT)
