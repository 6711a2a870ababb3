"""The encoder against a slow reference, against fastembed, and against itself under every circumstance."""

import concurrent.futures
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastembed.postprocess.muvera import Muvera
from hypothesis import given
from hypothesis import strategies as st

from muvera_core import Encoder, FDEConfig, FDEEncoder, InvalidTokens, TokenBatch, maxsim
from tests.core import reference
from tests.drawn import configs, gaussian

CONFIGS = {
    "default": {},
    "independent": {"algorithm": "muvera-1"},
    "paper": {"algorithm": "muvera-1", "projection": "rademacher", "normalize": False},
    "sketch": {"projection": "count_sketch"},
    "unprojected": {"d_proj": None},
    "no fill": {"fill_empty": False},
    "narrow": {"d_proj": 5},
    "wide": {"d_proj": 40, "k_sim": 3},
    "one partition": {"k_sim": 0},
    "many partitions": {"k_sim": 9, "r_reps": 3},
    "final": {"d_final": 100, "k_sim": 4},
    "final, unprojected": {"d_final": 300, "d_proj": None, "k_sim": 3},
    "fastembed": {"algorithm": "fastembed-1", "projection": "rademacher", "normalize": False},
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request):
    return FDEConfig(48, **{"r_reps": 5, **request.param})


@pytest.mark.parametrize("dim", [48, 128, 300])
def test_matches_the_reference(config, dim):
    config = FDEConfig(**{**config.to_dict(), "dim": dim})
    encoder = FDEEncoder(config)
    for seed, n in enumerate((1, 2, 15, 16, 17, 70)):
        tokens = gaussian(seed, n, dim)
        for query, fde in ((True, encoder.encode_query(tokens)), (False, encoder.encode_document(tokens))):
            expected = reference.encode(config, tokens, query=query)
            np.testing.assert_allclose(fde, expected, rtol=0, atol=3e-6 * np.abs(expected).max() * np.sqrt(n))


@given(configs(), st.integers(0, 2**32), st.integers(1, 40))
def test_matches_the_reference_at_any_size(config, seed, n):
    tokens = gaussian(seed, n, config.dim)
    expected = reference.encode(config, tokens, query=False)
    np.testing.assert_allclose(
        FDEEncoder(config).encode_document(tokens), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("exponent", [-100, -70, 70, 100])
@pytest.mark.parametrize("dim", [48, 64])
def test_documents_have_unit_length_however_long_their_tokens_are(exponent, dim):
    encoder = FDEEncoder(FDEConfig(dim, r_reps=5))
    tokens = np.random.default_rng(0).standard_normal((20, dim)).astype(np.float32)
    scaled = encoder.encode_document(tokens * np.float32(2.0**exponent))
    np.testing.assert_allclose(scaled, encoder.encode_document(tokens), rtol=0, atol=1e-6)


def test_documents_have_unit_length_and_queries_do_not(rng):
    encoder = FDEEncoder(FDEConfig(32))
    documents = [rng.standard_normal((n, 32)).astype(np.float32) for n in (1, 5, 200)]
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_documents(documents), axis=1), 1, rtol=1e-5)
    assert np.linalg.norm(encoder.encode_query(documents[1])) > 2


@pytest.mark.parametrize("sizes", [{}, {"k_sim": 3, "dim_proj": 8, "r_reps": 7, "random_seed": 5}, {"dim_proj": 64}])
def test_equals_fastembed(sizes):
    theirs = Muvera(64, **sizes)
    ours = FDEEncoder(FDEConfig.fastembed(64, **sizes))
    assert ours.dim == theirs.embedding_size
    for seed in range(30):
        tokens = gaussian(seed, [1, 2, 7, 32, 200][seed % 5], 64)
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        for mine, other in (
            (ours.encode_document(tokens), theirs.process_document(tokens)),
            (ours.encode_query(tokens), theirs.process_query(tokens)),
        ):
            assert np.linalg.norm(mine - other) <= 1e-5 * np.linalg.norm(other)


def test_equals_fastembed_on_real_vectors(pydocs, pydocs_documents):
    theirs, ours = Muvera(128), FDEEncoder(FDEConfig.fastembed(128))
    fdes = ours.encode_documents(pydocs_documents[:40])
    for i in range(40):
        other = theirs.process_document(pydocs_documents[i])
        assert np.linalg.norm(fdes[i] - other) <= 1e-5 * np.linalg.norm(other)
    for i in range(len(pydocs.queries)):
        other = theirs.process_query(pydocs.queries[i])
        assert np.linalg.norm(ours.encode_query(pydocs.queries[i]) - other) <= 1e-5 * np.linalg.norm(other)


def test_golden_vectors():
    """A change here changes every FDE that users have stored: raise the algorithm's version."""
    golden = json.loads((Path(__file__).parents[1] / "data" / "golden.json").read_text())
    short = np.array(golden["tokens"], np.float32)
    for case in golden["cases"]:
        config = FDEConfig.from_dict(case["config"])
        tokens = np.resize(short, (len(short), config.dim))
        encoder = FDEEncoder.fit(config, tokens) if case["fitted"] else FDEEncoder(config)
        assert encoder.fingerprint == case["fingerprint"]
        np.testing.assert_allclose(encoder.encode_document(tokens), case["document"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(encoder.encode_query(tokens), case["query"], rtol=0, atol=1e-5)


def test_fewer_repetitions_are_a_prefix(rng):
    tokens = rng.standard_normal((30, 24)).astype(np.float32)
    long = FDEEncoder(FDEConfig(24, r_reps=9, normalize=False))
    short = FDEEncoder(FDEConfig(24, r_reps=4, normalize=False))
    np.testing.assert_array_equal(short.encode_document(tokens), long.encode_document(tokens)[: short.dim])
    np.testing.assert_array_equal(short.encode_query(tokens), long.encode_query(tokens)[: short.dim])
    scaled = FDEEncoder(FDEConfig(24, r_reps=9)).encode_document(tokens)[: short.dim]
    np.testing.assert_allclose(
        FDEEncoder(FDEConfig(24, r_reps=4)).encode_document(tokens), scaled / np.linalg.norm(scaled), atol=1e-6
    )


def test_consecutive_seeds_share_nothing(rng):
    tokens = rng.standard_normal((30, 24)).astype(np.float32)
    blocks = [
        FDEEncoder(FDEConfig(24, r_reps=6, seed=seed, normalize=False)).encode_query(tokens).reshape(6, -1)
        for seed in (42, 43)
    ]
    for a in blocks[0]:
        for b in blocks[1]:
            assert abs(a @ b) < 0.5 * np.linalg.norm(a) * np.linalg.norm(b)


def test_does_not_depend_on_batch_or_threads(config, rng):
    lengths = rng.integers(1, 90, 120)
    documents = [rng.standard_normal((n, 48)).astype(np.float32) for n in lengths]
    expected = np.stack([FDEEncoder(config).encode_document(d) for d in documents])
    batch = TokenBatch.from_list(documents)
    for threads in (1, 2, 7):
        encoder = FDEEncoder(config, threads=threads)
        np.testing.assert_array_equal(encoder.encode_documents(documents), expected)
        np.testing.assert_array_equal(encoder.encode_documents(batch), expected)
        np.testing.assert_array_equal(encoder.encode_documents(batch[37:]), expected[37:])
    np.testing.assert_array_equal(encoder.encode_documents(documents[::-1]), expected[::-1])


def test_works_from_several_threads_at_once(rng):
    encoder = FDEEncoder(FDEConfig(32))
    documents = [rng.standard_normal((20, 32)).astype(np.float32) for _ in range(200)]
    expected = encoder.encode_documents(documents)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in pool.map(encoder.encode_documents, [documents] * 16):
            np.testing.assert_array_equal(result, expected)


def _encode_in_child(arguments):
    encoder, documents = arguments
    return encoder.encode_documents(documents)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_works_in_child_processes(method, rng):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {method}")
    encoder = FDEEncoder(FDEConfig(32), threads=2)
    documents = [rng.standard_normal((20, 32)).astype(np.float32) for _ in range(200)]
    expected = encoder.encode_documents(documents)  # threads have run before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        for result in pool.map(_encode_in_child, [(encoder, documents)] * 4):
            np.testing.assert_array_equal(result, expected)


def test_import_is_light():
    code = "import sys, muvera_core; print([m for m in ('numba', 'torch', 'muvera_adapters') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_works_where_compiled_code_cannot_be_kept():
    """A read-only installation and no home: numba finds no place for its cache."""
    code = """
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []
from muvera_core import FDEConfig, FDEEncoder
print(FDEEncoder(FDEConfig(16)).encode_query([[1.0] * 16]).shape)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(2560,)"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the peak memory that Linux reports")
def test_the_large_final_projection_stays_small():
    """40 x 64 x 128 to 10,240: 1,000 documents of 80 tokens in less than 1 GB; unprojected they would take 1.3 GB."""
    code = """
import numpy as np
from muvera_core import FDEConfig, FDEEncoder, TokenBatch
config = FDEConfig(128, r_reps=40, k_sim=6, d_proj=None, d_final=10240)
values = np.random.default_rng(0).standard_normal((80_000, 128), dtype=np.float32)
fdes = FDEEncoder(config).encode_documents(TokenBatch(values, np.arange(1001) * 80))
assert fdes.shape == (1000, 10240) and np.isfinite(fdes).all()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1_000_000  # kilobytes


class TestFit:
    def sample(self, seed=0, n=4000, dim=32, shared=3.0):
        tokens = gaussian(seed, n, dim)
        tokens[:, 0] += shared
        return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)

    def test_matches_the_reference(self):
        sample = self.sample()
        for options in ({}, {"d_proj": None}, {"projection": "rademacher", "d_final": 200}):
            config = FDEConfig(32, r_reps=4, **options)
            encoder = FDEEncoder.fit(config, sample)
            tokens = sample[:50]
            expected = reference.encode(config, tokens, query=False, mean=encoder.mean)
            np.testing.assert_allclose(encoder.encode_document(tokens), expected, rtol=0, atol=1e-5)

    def test_keeps_the_mean_direction_exactly(self):
        encoder = FDEEncoder.fit(FDEConfig(32, r_reps=1, k_sim=0, normalize=False), self.sample())
        tokens = gaussian(5, 1, 32)
        direction = encoder.mean / np.linalg.norm(encoder.mean)
        assert encoder.encode_query(tokens)[0] == pytest.approx(float(tokens[0] @ direction), abs=1e-5)

    @pytest.mark.parametrize("projection", ["orthonormal", "rademacher", "count_sketch"])
    def test_is_unbiased_for_the_original_dot_product(self, projection):
        sample = self.sample()
        config = FDEConfig(
            32, r_reps=3000, k_sim=0, d_proj=8, projection=projection, normalize=False, algorithm="muvera-1"
        )
        encoder = FDEEncoder.fit(config, sample)
        x, y = gaussian(8, 1, 32), gaussian(9, 1, 32)
        products = (encoder.encode_query(x) * encoder.encode_document(y)).reshape(3000, 8).sum(axis=1)
        assert abs(products.mean() - float(x[0] @ y[0])) < 5 * products.std() / np.sqrt(3000)

    def test_rescues_an_anisotropic_model(self, pydocs, pydocs_documents):
        """Real vectors, made anisotropic as models are: a multiple of the mean's direction added to every token."""
        mean = pydocs_documents.values.mean(axis=0)

        def shifted(batch):
            values = batch.values + 3 * mean / np.linalg.norm(mean)
            return TokenBatch(values / np.linalg.norm(values, axis=1, keepdims=True), batch.offsets)

        documents, queries = shifted(pydocs_documents), shifted(pydocs.queries)
        config = FDEConfig(128)
        recalls = []
        for encoder in (FDEEncoder(config), FDEEncoder.fit(config, documents[:200])):
            scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
            found = []
            for i in range(len(queries)):
                best = np.argsort(-maxsim(queries[i], documents))[:10]
                found.append(len(set(best) & set(np.argsort(-scores[i])[:100])) / 10)
            recalls.append(np.mean(found))
        plain, fitted = recalls
        assert plain < 0.8
        assert fitted > 0.9

    def test_the_mean_is_part_of_what_identifies_it(self):
        config = FDEConfig(32)
        plain, one, other = (
            FDEEncoder(config),
            FDEEncoder.fit(config, self.sample(0)),
            FDEEncoder.fit(config, self.sample(1)),
        )
        assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
        assert FDEEncoder.fit(config, self.sample(0)).fingerprint == one.fingerprint

    def test_takes_documents_in_any_form(self):
        sample = self.sample()
        config = FDEConfig(32)
        expected = FDEEncoder.fit(config, sample).fingerprint
        assert FDEEncoder.fit(config, [sample[:10], sample[10:]]).fingerprint == expected
        assert FDEEncoder.fit(config, TokenBatch(sample, [0, 100, len(sample)])).fingerprint == expected

    def test_refuses_what_it_cannot_fit(self):
        config, sample = FDEConfig(32), self.sample()
        with pytest.raises(ValueError, match="fastembed-1 cannot be fitted"):
            FDEEncoder.fit(FDEConfig.fastembed(32), sample)
        with pytest.raises(ValueError, match="d_proj=1 has no room"):
            FDEEncoder.fit(FDEConfig(32, d_proj=1), sample)
        with pytest.raises(ValueError, match="mean is zero"):
            FDEEncoder.fit(config, np.concatenate([sample, -sample]))
        with pytest.raises(InvalidTokens, match="no tokens"):
            FDEEncoder.fit(config, [])
        sample[7, 3] = np.nan
        with pytest.raises(InvalidTokens, match="token 7"):
            FDEEncoder.fit(config, sample)


def test_is_an_encoder():
    assert isinstance(FDEEncoder(FDEConfig(8, d_proj=4)), Encoder)


def test_refuses_what_is_no_config():
    with pytest.raises(TypeError, match="FDEConfig"):
        FDEEncoder({"dim": 128})
    with pytest.raises(ValueError, match="threads"):
        FDEEncoder(FDEConfig(16), threads=0)
