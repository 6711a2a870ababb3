import json
import pickle
import subprocess
import sys
from functools import cache, partial

import numpy as np
import pytest

from muvera_core import (
    Encoder,
    FDEConfig,
    FDEEncoder,
    InvalidTokens,
    RegressionEncoder,
    TokenBatch,
    encoder_from_dict,
    load_encoder,
    maxsim,
)
from muvera_core._regression_fit import Fitted

DIM = 20


def documents(seed, count, dim=DIM, mean=0.0):
    """Random documents of 1 to 40 unit-length tokens around a topic of their own; read-only, as they are shared."""
    return list(_documents(seed, count, dim, mean))


@cache
def _documents(seed, count, dim, mean):
    generator = np.random.default_rng(seed)
    made = []
    for length in generator.integers(1, 41, count):
        rows = generator.normal(size=(length, dim)) + 0.7 * generator.normal(size=dim) + mean
        made.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
        made[-1].flags.writeable = False
    return made


SMALL = {"dim": 48, "features": 200, "sample_tokens": 1500}


@pytest.fixture(scope="module", params=[None, 400], ids=["tokens", "centres"])
def encoder(request):
    return RegressionEncoder.fit(documents(0, 150), **SMALL, centres=request.param)


def test_it_is_an_encoder(encoder):
    assert isinstance(encoder, Encoder)
    assert (encoder.token_dim, encoder.dim) == (DIM, 48)
    assert encoder.encode_documents(documents(1, 3)).dtype == np.float32
    assert encoder.encode_documents([]).shape == encoder.encode_queries([]).shape == (0, 48)


def test_dot_products_are_proportional_to_maxsim_less_that_with_the_average_document(encoder):
    docs, queries = documents(0, 150), documents(2, 30)
    estimates = encoder.encode_queries(queries) @ encoder.encode_documents(docs).T
    exact = np.stack([maxsim(query, docs) for query in queries])
    exact -= exact.mean(axis=1, keepdims=True)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(estimates, exact, strict=True)]
    assert np.mean(correlations) > 0.9
    assert np.all(np.abs(estimates.mean(axis=1)) < 0.5 * estimates.std(axis=1))


def test_documents_that_were_not_in_the_sample_are_encoded_as_well(encoder):
    docs, queries = documents(3, 150), documents(2, 30)
    estimates = encoder.encode_queries(queries) @ encoder.encode_documents(docs).T
    exact = np.stack([maxsim(query, docs) for query in queries])
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(estimates, exact, strict=True)]
    assert np.mean(correlations) > 0.85


@pytest.fixture(scope="module")
def on_the_sample(pydocs, pydocs_documents):
    queries = pydocs.queries
    exact = np.stack([maxsim(queries[i], pydocs_documents) for i in range(len(queries))])
    best = np.argsort(-exact, axis=1)[:, :10]

    def recall(encoder, candidates):
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(pydocs_documents).T
        found = np.argsort(-scores, axis=1)[:, :candidates]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, best, strict=True)])

    return recall


def test_recall_on_the_sample_is_that_of_an_fde_of_many_times_its_size(on_the_sample, pydocs_documents):
    small = RegressionEncoder.fit(pydocs_documents, dim=256, features=1024, sample_tokens=4000, references=500)
    fde = FDEEncoder(FDEConfig(128, r_reps=20, k_sim=4, d_proj=8, algorithm="muvera-1"))
    assert (small.dim, fde.dim) == (256, 2560)
    for candidates in (20, 100):
        assert on_the_sample(small, candidates) >= on_the_sample(fde, candidates)


def test_centres_with_a_head_find_more_than_as_many_sample_tokens(on_the_sample, pydocs_documents):
    sizes = {"dim": 256, "features": 1024, "references": 500}
    centres = RegressionEncoder.fit(pydocs_documents, centres=500, sample_tokens=4000, **sizes)
    tokens = RegressionEncoder.fit(pydocs_documents, sample_tokens=500, **sizes)
    assert centres._fitted.sample.shape == tokens._fitted.sample.shape == (500, 128)
    for candidates in (20, 100):
        assert on_the_sample(centres, candidates) > on_the_sample(tokens, candidates)


def correlation(encoder, docs, queries):
    """Mean correlation of a query's estimates with exact scores."""
    estimates = encoder.encode_queries(queries) @ encoder.encode_documents(docs).T
    exact = [maxsim(query, docs) for query in queries]
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(estimates, exact, strict=True)])


@pytest.mark.parametrize("centres", [None, 400])
def test_queries_unlike_documents_gain_from_being_fitted_to(centres):
    docs, queries = documents(0, 150), documents(2, 60, mean=-1.5)
    without = RegressionEncoder.fit(docs, **SMALL, centres=centres)
    fitted = RegressionEncoder.fit(docs, **SMALL, centres=centres, queries=queries[:30])
    assert correlation(fitted, docs, queries[30:]) > correlation(without, docs, queries[30:])


def test_few_long_documents_give_enough_directions(pydocs_documents):
    offsets = np.append(pydocs_documents.offsets[::20], pydocs_documents.offsets[-1])
    docs = TokenBatch(pydocs_documents.values, np.unique(offsets))
    sizes = {"dim": 256, "features": 1024, "sample_tokens": 3000}
    alone = RegressionEncoder.fit(docs[:50], **sizes, references=50)
    with_parts = RegressionEncoder.fit(docs[:50], **sizes)
    queries = [document[:20] for document in docs[50:]]
    assert correlation(with_parts, docs[50:], queries) > correlation(alone, docs[50:], queries) + 0.02


def rows(tokens):
    """Tokens as the encoder keeps them, for comparisons of sets."""
    return {row.tobytes() for row in np.concatenate(list(tokens)).astype(np.float16)}


def test_all_tokens_of_few_queries_are_fitted_to_and_half_of_the_sample_of_many():
    docs, queries = documents(0, 150), documents(2, 30)
    for given, count in ((queries[:3], sum(map(len, queries[:3]))), (queries, 100)):
        kept = rows([RegressionEncoder.fit(docs, **{**SMALL, "sample_tokens": 200}, queries=given)._fitted.sample])
        assert len(kept) == 200
        assert len(kept & rows(given)) == count
        assert len(kept & rows(docs)) == 200 - count


def test_queries_are_taken_in_every_form():
    docs, queries = documents(0, 50), documents(2, 5)
    longest = max(map(len, queries))
    padded = np.stack([np.pad(q, ((0, longest - len(q)), (0, 0))) for q in queries])
    mask = np.stack([np.arange(longest) < len(q) for q in queries])
    forms = (queries, iter(queries), TokenBatch.from_list(queries), TokenBatch.from_padded(padded, mask))
    assert len({RegressionEncoder.fit(docs, **SMALL, queries=given).fingerprint for given in forms}) == 1


def test_queries_are_checked():
    docs, queries = documents(0, 10), [q.copy() for q in documents(2, 4)]
    with pytest.raises(InvalidTokens, match="query 1 has token vectors of width 19, expected 20") as caught:
        RegressionEncoder.fit(docs, **SMALL, queries=[queries[0], queries[1][:, :-1]])
    assert caught.value.position == 1
    queries[2][0] = 0
    with pytest.raises(InvalidTokens, match="query 2, token 0 is all zeros") as caught:
        RegressionEncoder.fit(docs, **SMALL, queries=queries)
    assert caught.value.position == 2
    with pytest.raises(ValueError, match="queries is empty"):
        RegressionEncoder.fit(docs, **SMALL, queries=[])


def test_documents_and_queries_have_unit_length(encoder):
    for encode in (encoder.encode_documents, encoder.encode_queries):
        np.testing.assert_allclose(np.linalg.norm(encode(documents(4, 50)), axis=1), 1, rtol=1e-5)


def test_documents_beyond_the_sample_have_unit_length_and_keep_their_direction(encoder):
    far = encoder._fitted.sample[:1].astype(np.float32)
    vectors = encoder.encode_documents([far, 10 * far, 20 * far])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors @ encoder._fitted.lift, [vectors[0] @ encoder._fitted.lift, 0, 0], atol=5e-3)


def test_the_coordinate_that_makes_unit_length_is_orthogonal_to_queries(encoder):
    queries = encoder.encode_queries(documents(5, 20))
    assert np.all(np.abs(queries @ encoder._fitted.lift) < 2e-3)


def test_a_query_is_in_the_direction_of_the_sum_over_its_tokens(encoder):
    query = documents(6, 1)[0]
    np.testing.assert_allclose(encoder.encode_query(np.vstack([query] * 3)), encoder.encode_query(query), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_query(query[::-1]), encoder.encode_query(query), atol=1e-5)


def test_the_result_depends_on_the_document_alone(encoder):
    docs = documents(7, 70)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        whole = encode(docs)
        np.testing.assert_array_equal(np.concatenate([encode([d]) for d in docs]), whole)
        np.testing.assert_array_equal(encode(docs[::-1])[::-1], whole)
        np.testing.assert_array_equal(encode(TokenBatch.from_list(docs)), whole)


def test_the_result_does_not_depend_on_threads(encoder):
    docs = documents(8, 2000)
    alone = RegressionEncoder(encoder._fitted, threads=1)
    many = RegressionEncoder(encoder._fitted, threads=5)
    np.testing.assert_array_equal(alone.encode_documents(docs), many.encode_documents(docs))


def test_the_order_of_a_documents_tokens_does_not_matter(encoder):
    document = documents(9, 1)[0]
    np.testing.assert_array_equal(encoder.encode_document(document), encoder.encode_document(document[::-1]))


def test_every_form_of_input(encoder):
    docs = [d.astype(np.float16).astype(np.float32) for d in documents(10, 6)]
    expected = encoder.encode_documents(docs)
    longest = max(map(len, docs))
    padded = np.stack([np.pad(d, ((0, longest - len(d)), (0, 0))) for d in docs])
    mask = np.stack([np.arange(longest) < len(d) for d in docs])
    for given in (
        [d.astype(np.float16) for d in docs],
        [d.astype(np.float64) for d in docs],
        [d.tolist() for d in docs],
        (d for d in docs),
        iter(docs),
    ):
        np.testing.assert_array_equal(encoder.encode_documents(given), expected)
    np.testing.assert_array_equal(encoder.encode_documents(padded, mask=mask), expected)


@pytest.mark.parametrize("dim", [7, 16, 130, 300])
def test_token_widths(dim):
    docs = documents(11, 60, dim)
    fitted = RegressionEncoder.fit(docs, dim=33, features=100, sample_tokens=300)
    state = fitted._fitted
    for half in (False, True):
        tokens = [d.astype(np.float16) if half else d for d in docs[:9]]
        targets = np.stack([(state.sample.astype(float) @ d.astype(float).T).max(axis=1) for d in tokens])
        vectors = (targets - state.centres) @ state.documents.astype(float)
        vectors += np.sqrt((1 - (vectors**2).sum(axis=1, keepdims=True)).clip(0)) * state.lift
        np.testing.assert_allclose(fitted.encode_documents(tokens), vectors, atol=2e-3)
        features = [np.maximum(d.astype(float) @ state.weights - state.thresholds, 0).sum(axis=0) for d in tokens]
        queries = np.stack(features) @ state.queries.astype(float)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        np.testing.assert_allclose(fitted.encode_queries(tokens), queries, atol=1e-3)


BAD = [
    (np.full((2, DIM), np.nan), "NaN or infinite"),
    (np.full((2, DIM), np.inf), "NaN or infinite"),
    (np.zeros((2, DIM)), "token 0 is all zeros"),
    (np.ones((2, DIM + 1)), "width 21, expected 20"),
    (np.empty((0, DIM)), "no tokens"),
    (np.ones(DIM), "matrix"),
    (np.array([["a"]]), "dtype"),
]


@pytest.mark.parametrize(("tokens", "problem"), BAD)
@pytest.mark.parametrize("lazily", [False, True])
def test_what_cannot_be_encoded_is_named_as_by_an_fde(encoder, tokens, problem, lazily, monkeypatch):
    monkeypatch.setattr("muvera_core.regression._SLICE_TOKENS", 5000)
    docs = [*documents(12, 1000), tokens]  # several slices, and more tokens than are encoded at a time
    fde = FDEEncoder(FDEConfig(DIM, r_reps=1, k_sim=1))
    for what in ("documents", "queries"):
        errors = []
        for one in (encoder, fde):
            with pytest.raises(InvalidTokens, match=problem) as caught:
                getattr(one, f"encode_{what}")(iter(docs) if lazily and one is encoder else docs)
            errors.append((str(caught.value), caught.value.position))
        assert errors[0] == errors[1]
        assert errors[0][1] == 1000


def test_a_generator_is_not_held(encoder):
    alive = []

    class Counted(np.ndarray):
        def __del__(self):
            alive.pop()

    def generate():
        for i in range(3000):
            alive.append(i)
            generate.most = max(generate.most, len(alive))
            yield np.ones((100, DIM), np.float32).view(Counted)

    generate.most = 0
    assert encoder.encode_documents(generate()).shape == (3000, 48)
    assert generate.most < 1500


def test_equal_arguments_give_the_same_encoder(encoder):
    centres = None if len(encoder._fitted.sample) == SMALL["sample_tokens"] else 400
    again = RegressionEncoder.fit(documents(0, 150), **SMALL, centres=centres)
    assert again.fingerprint == encoder.fingerprint
    others = [
        RegressionEncoder.fit(documents(0, 150), seed=1, **SMALL),
        RegressionEncoder.fit(documents(0, 149), **SMALL),
        RegressionEncoder.fit(documents(0, 150), **{**SMALL, "dim": 47}),
        RegressionEncoder.fit(documents(0, 150), **SMALL, ridge=0.02),
        RegressionEncoder.fit(documents(0, 150), **SMALL, centres=300),
        RegressionEncoder.fit(documents(0, 150), **SMALL, queries=documents(2, 3)),
    ]
    assert len({other.fingerprint for other in others} | {encoder.fingerprint}) == 7


def test_file_gives_back_the_same_encoder(encoder, tmp_path):
    path = tmp_path / "encoder.npz"
    encoder.save(path)
    docs = documents(13, 5)
    for again in (load_encoder(path), RegressionEncoder.load(path), pickle.loads(pickle.dumps(encoder))):
        assert (again.fingerprint, again.to_dict()) == (encoder.fingerprint, encoder.to_dict())
        np.testing.assert_array_equal(again.encode_documents(docs), encoder.encode_documents(docs))
        np.testing.assert_array_equal(again.encode_queries(docs), encoder.encode_queries(docs))
    with pytest.raises(ValueError, match="holds a RegressionEncoder"):
        FDEEncoder.load(path)


def test_the_description_alone_does_not_rebuild_it(encoder):
    content = json.loads(json.dumps(encoder.to_dict()))
    with pytest.raises(ValueError, match="too large to be kept with a collection"):
        encoder_from_dict(content)


@pytest.mark.parametrize("name", Fitted._fields)
def test_a_changed_or_incomplete_file_is_refused(encoder, tmp_path, name):
    state = {key: value.copy() for key, value in encoder._fitted._asdict().items()}
    state[name].flat[-1] += 1
    with pytest.raises(ValueError, match="the description was changed"):
        encoder_from_dict(encoder.to_dict(), state)
    state[name] = np.stack([state[name], state[name]])
    with pytest.raises(ValueError, match="must be"):
        encoder_from_dict(encoder.to_dict(), state)
    state[name] = np.full_like(encoder._fitted._asdict()[name], np.nan)
    with pytest.raises(ValueError, match="NaN"):
        encoder_from_dict(encoder.to_dict(), state)
    del state[name]
    with pytest.raises(ValueError, match=f"has no {name}"):
        encoder_from_dict(encoder.to_dict(), state)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dim": 1}, "dim must be at least 2"),
        ({"features": 46}, "features must be at least 47"),
        ({"seed": -1}, "seed"),
        ({"ridge": 0.0}, "ridge"),
        ({"sample_tokens": 0}, "sample_tokens"),
        ({"references": 1}, "references"),
        ({"centres": 0}, "centres must be at least 1"),
    ],
)
def test_sizes_are_checked(change, problem):
    with pytest.raises(ValueError, match=problem):
        RegressionEncoder.fit(documents(0, 10), **{**SMALL, **change})


def test_samples_are_checked():
    docs = documents(0, 10)
    longest = max(range(10), key=lambda i: len(docs[i]))
    bad = docs[longest].copy()
    bad[2] = 0
    with pytest.raises(InvalidTokens, match=f"sample document {longest}, token 2 is all zeros") as caught:
        RegressionEncoder.fit([*docs[:longest], bad, *docs[longest + 1 :]], **SMALL)
    assert caught.value.position == longest
    with pytest.raises(InvalidTokens, match="one matrix"):
        RegressionEncoder.fit(docs[0], **SMALL)
    with pytest.raises(InvalidTokens, match="at least 2 documents"):
        RegressionEncoder.fit(docs[:1], **SMALL)
    with pytest.raises(ValueError, match="all alike"):
        RegressionEncoder.fit([docs[0]] * 10, **SMALL)


@pytest.mark.parametrize("factor", [2.0**-9, 2.0**-3, 2.0**4, 2.0**9])
def test_the_length_of_tokens_changes_nothing(encoder, factor):
    docs, queries = documents(0, 150), documents(2, 10)
    centres = None if len(encoder._fitted.sample) == SMALL["sample_tokens"] else 400
    scaled = RegressionEncoder.fit([factor * document for document in docs], **SMALL, centres=centres)
    estimates = encoder.encode_queries(queries) @ encoder.encode_documents(docs).T
    of_scaled = scaled.encode_queries([factor * query for query in queries])
    of_scaled = of_scaled @ scaled.encode_documents([factor * document for document in docs]).T
    np.testing.assert_allclose(of_scaled, estimates, atol=2e-3)


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e5, 1e30])
def test_token_vectors_that_float16_cannot_hold_are_refused(factor):
    with pytest.raises(ValueError, match=r"have a length of about .*scale the token vectors"):
        RegressionEncoder.fit([np.float32(factor) * document for document in documents(0, 20)], **SMALL)


def test_a_shared_direction_does_no_harm():
    docs, queries = documents(14, 200, mean=2.0), documents(15, 30, mean=2.0)
    fitted = RegressionEncoder.fit(docs, **SMALL)
    estimates = fitted.encode_queries(queries) @ fitted.encode_documents(docs).T
    exact = np.stack([maxsim(query, docs) for query in queries])
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(estimates, exact, strict=True)]
    assert np.mean(correlations) > 0.85


def test_torch_is_not_imported():
    code = (
        "import sys, numpy as np; from muvera_core import RegressionEncoder as R; g = np.random.default_rng(0); "
        "d = [g.normal(size=(5, 8)) for _ in range(9)]; R.fit(d, dim=8, features=9).encode_documents(d); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestTorch:
    """The path of tensors on a GPU, with tensors that are on none."""

    @pytest.fixture
    def torch(self, monkeypatch):
        torch = pytest.importorskip("torch")
        monkeypatch.setattr("muvera_core.regression._on_gpu", lambda tensor: hasattr(tensor, "detach"))
        return torch

    def test_it_agrees_with_the_kernels(self, torch, encoder, monkeypatch):
        docs = documents(16, 300)
        expected = encoder.encode_documents(docs), encoder.encode_queries(docs)
        monkeypatch.setattr("muvera_core._regression_torch._CHUNK_TOKENS", 100)
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            tensors = [torch.tensor(d).to(dtype) for d in docs]
            found = encoder.encode_documents(tensors), encoder.encode_queries(iter(tensors))
            for a, b in zip(found, expected, strict=True):
                assert isinstance(a, np.ndarray)
                assert a.dtype == np.float32
                np.testing.assert_allclose(a, b, atol=0.05 if dtype == torch.bfloat16 else 5e-3)

    @pytest.mark.parametrize("centres", [None, 60])
    def test_a_fit_agrees_with_the_processor(self, torch, centres, monkeypatch):
        docs, others = documents(18, 300), documents(19, 100)
        fit = partial(RegressionEncoder.fit, dim=64, features=256, sample_tokens=900, references=200, centres=centres)
        expected = fit(docs).encode_documents(others) @ fit(docs).encode_queries(others).T
        for chunk in (50, 10**6):
            monkeypatch.setattr("muvera_core._regression_torch._CHUNK_TOKENS", chunk)
            found = fit(iter([torch.tensor(d) for d in docs]))
            scores = found.encode_documents(others) @ found.encode_queries(others).T
            np.testing.assert_allclose(scores, expected, atol=2e-3)

    def test_padded(self, torch, encoder):
        docs = documents(17, 5)
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(d) for d in docs], batch_first=True)
        mask = torch.arange(padded.shape[1])[None] < torch.tensor([len(d) for d in docs])[:, None]
        found = encoder.encode_documents(padded, mask=mask)
        np.testing.assert_allclose(found, encoder.encode_documents(docs), atol=1e-4)

    @pytest.mark.parametrize(("tokens", "problem"), BAD[:-1])
    def test_errors_are_those_of_the_kernels(self, torch, encoder, tokens, problem):
        docs = [*documents(12, 30), tokens]
        with pytest.raises(InvalidTokens, match=problem) as expected:
            encoder.encode_documents(docs)
        with pytest.raises(InvalidTokens) as caught:
            encoder.encode_documents([torch.tensor(np.asarray(d)) for d in docs])
        assert (str(caught.value), caught.value.position) == (str(expected.value), 30)
