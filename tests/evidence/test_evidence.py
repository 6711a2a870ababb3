"""Diagnosing, evaluating, tuning and estimating, on the sample and on an anisotropic one made of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.evidence import (
    EncoderChoice,
    diagnose,
    estimate,
    evaluate,
    evaluate_store,
    pseudo_queries,
    sample_of,
    tune,
    tune_prefetch,
    write_report,
)
from muvera_adapters.evidence import tuning as tuning_module
from muvera_adapters.evidence.local_index import Remembering, local_index
from muvera_adapters.evidence.measuring import Interval
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.samples import anisotropic
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder, TokenBatch
from tests.drawn import gaussian

SMALL = FDEConfig(128, r_reps=10, k_sim=4, d_proj=8)
LARGE = FDEConfig(128, r_reps=20, k_sim=4, d_proj=8)


@pytest.fixture(scope="module")
def documents(pydocs_documents):
    return pydocs_documents[:500]


@pytest.fixture(scope="module")
def shifted(documents):
    return anisotropic(documents, documents.values.mean(axis=0), 1.5)


@pytest.fixture(scope="module")
def asked(pydocs, documents):
    """As given, and moved like the anisotropic documents."""
    return {"plain": pydocs.queries, "shifted": anisotropic(pydocs.queries, documents.values.mean(axis=0), 1.5)}


def choices():
    return [
        EncoderChoice("small", "FDEEncoder(SMALL)", lambda documents: FDEEncoder(SMALL)),
        EncoderChoice("large", "FDEEncoder(LARGE)", lambda documents: FDEEncoder(LARGE)),
        EncoderChoice("fitted", "FDEEncoder.fit(LARGE, documents)", lambda documents: FDEEncoder.fit(LARGE, documents)),
    ]


# --- diagnose


def test_the_sample_fits_an_fde(documents, asked):
    found = diagnose(documents, asked["plain"])
    assert found.verdict == "fde"
    assert found.unit_norm
    assert (found.empty_rows, found.bad_rows, found.problems) == (0, 0, [])
    assert found.token_counts.max == documents.lengths.max()
    assert found.mean_norm2 == pytest.approx(found.mean_cosine, abs=0.01)
    assert 10 < found.plain.effective <= 32
    assert found.queries_are == "given"
    json.dumps(found.to_dict())


def test_a_shared_direction_asks_for_fit(shifted, asked):
    found = diagnose(shifted, asked["shifted"])
    assert found.verdict == "fit"
    assert found.mean_norm2 > 0.7
    assert found.fitted_correlation > found.fde_correlation + 0.05
    assert found.fitted_recall.mean > found.fde_recall.mean
    assert found.plain.fullest > 2 * found.fitted.fullest
    assert "0.2" in found.reasons[0]


def test_long_documents_ask_for_pooling(documents):
    long = TokenBatch(documents.values, documents.offsets[::10])
    assert np.median(long.lengths) > 256
    assert diagnose(long).verdict == "pool"


def test_what_no_fde_can_rank_asks_for_regression():
    rng = np.random.default_rng(0)
    # all signal in small differences of many dimensions
    base = rng.standard_normal(128)
    tokens = [(base + 0.05 * rng.standard_normal((40, 128))).astype(np.float32) for _ in range(300)]
    found = diagnose(tokens)
    assert found.verdict == "regression"
    assert max(found.fde_correlation, found.fitted_correlation) < 0.6


def test_zero_duplicate_and_bad_rows_are_counted(documents):
    matrices = [np.array(documents[i]) for i in range(40)]
    matrices[3][2:4] = 0
    matrices[5][1, 7] = np.nan
    matrices[6][4] = matrices[6][0] * 1.0
    matrices[7] *= 3
    found = diagnose(matrices)
    assert (found.empty_rows, found.bad_rows, found.duplicate_rows) == (2, 1, 2)  # two zero rows are equal, too
    assert not found.unit_norm
    assert found.norms.max == pytest.approx(3, rel=1e-3)
    assert len(found.problems) == 3


def test_pseudo_queries_are_said_to_be_so(documents):
    found = diagnose(documents)
    assert found.queries_are == "pseudo"
    assert "pseudo-queries" in found.notes[0]
    assert any("pseudo-queries" in reason for reason in found.reasons)


def test_too_few_documents_are_refused():
    with pytest.raises(InvalidInput, match="at least 20"):
        diagnose([gaussian(i, 3, 8) for i in range(19)])


def test_diagnosis_depends_on_the_seed_alone(documents):
    first, again, other = (diagnose(documents, sample=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.fde_recall != other.fde_recall


# --- evaluate


@pytest.fixture(scope="module")
def evaluation(pydocs, documents, asked):
    judgements = {str(i): dict.fromkeys(q.relevant, 1) for i, q in enumerate(pydocs.questions)}
    return evaluate(
        {"FDE": FDEEncoder(SMALL), "fitted": FDEEncoder.fit(SMALL, documents)},
        documents,
        asked["plain"],
        document_ids=pydocs.ids[:500],
        judgements=judgements,
        candidates=(10, 50, 500, 1000),
    )


def test_recall_grows_with_candidates_to_one(evaluation):
    assert [c.how for c in evaluation.curves] == ["brute force", "index"] * 2
    for curve in evaluation.curves:
        assert [p.candidates for p in curve.points] == [10, 50, 500]
        means = [p.recall[10].mean for p in curve.points]
        assert means == sorted(means)
        assert means[-1] == 1
        for point in curve.points:
            for interval in point.recall.values():
                assert interval.low <= interval.mean <= interval.high
    assert 0 < evaluation.curves[0].points[0].recall[10].mean < 1


def test_the_brute_force_recall_is_what_numpy_says(evaluation, documents, asked):
    encoder = FDEEncoder(SMALL)
    scores = encoder.encode_queries(asked["plain"]) @ encoder.encode_documents(documents).T
    from muvera_core import maxsim

    shares = []
    for i in range(len(asked["plain"])):
        exact = set(np.argsort(-maxsim(asked["plain"][i], documents), kind="stable")[:10].tolist())
        shares.append(len(exact & set(np.argsort(-scores[i], kind="stable")[:50].tolist())) / 10)
    assert evaluation.curves[0].points[1].recall[10].mean == pytest.approx(np.mean(shares))


def test_reranking_returns_the_recall_of_the_candidates(evaluation):
    for curve in evaluation.curves[1::2]:
        for p in curve.points:
            # the index stores tokens as float16, which swaps near ties
            assert p.reranked[10].mean == pytest.approx(p.recall[10].mean, abs=0.01)
            assert 0 < p.latency.p50_ms <= p.latency.p95_ms
        assert curve.points[-1].quality["nDCG@10"] == pytest.approx(evaluation.exact_quality["nDCG@10"], abs=0.01)
        assert curve.bytes_per_document["compared"] == SMALL.fde_dim / 4  # two-bit codes


def test_evaluation_depends_on_the_seed_alone(documents, asked):
    def once(seed):
        found = evaluate(FDEEncoder(SMALL), documents, asked["plain"], quantizations=(), candidates=(20,), seed=seed)
        return replace(found, exact_latency=None, began="", seconds=0.0)

    assert once(1) == once(1) != once(2)


def test_wrong_numbers_are_refused(documents, asked):
    with pytest.raises(InvalidInput, match="2 document ids, 500 documents"):
        evaluate(FDEEncoder(SMALL), documents, asked["plain"], document_ids=["a", "b"], quantizations=())
    with pytest.raises(InvalidInput, match="candidates must be at least 1"):
        evaluate(FDEEncoder(SMALL), documents, asked["plain"], candidates=(0, 10), quantizations=())


def test_a_remembering_encoder_gives_the_encoders_rows(documents):
    encoder = FDEEncoder(SMALL)
    remembering = Remembering(encoder)
    for part in (documents[:20], documents[10:40], [documents[3], documents[3]]):
        np.testing.assert_array_equal(remembering.encode_documents(part), encoder.encode_documents(part))
        np.testing.assert_array_equal(remembering.encode_queries(part), encoder.encode_queries(part))


def test_the_index_is_a_graph_however_small(documents):
    with local_index(FDEEncoder(SMALL), documents[:100], "int8", store_tokens=False) as store:
        links = list(store._shard.path.rglob("vector_index-fde/links*"))
        assert links
        assert store.info().code_bytes == 100 * SMALL.fde_dim


# --- a live collection


@pytest.fixture(scope="module")
def store(tmp_path_factory, documents):
    with QdrantEdgeMuvera.create(tmp_path_factory.mktemp("live"), "docs", FDEEncoder(LARGE)) as made:
        made.upsert([f"doc-{i}" for i in range(500)], documents)
        made.wait_indexed()
        yield made


def test_a_collection_is_measured_by_its_exact_search(store, asked):
    found = evaluate_store(store, asked["plain"], candidates=(10, 50, 500))
    (curve,) = found.curves
    assert curve.how == "collection"
    assert "exact_search" in found.truth
    assert [p.candidates for p in curve.points] == [10, 50, 500]
    assert curve.points[-1].reranked[10].mean == 1
    assert curve.points[0].recall[10].mean < curve.points[1].recall[10].mean


def test_a_collection_can_be_measured_by_a_sample_and_says_so(store, asked):
    found = evaluate_store(store, asked["plain"], truth="sample", sample=200, candidates=(10, 50))
    assert found.documents == 200
    assert "random sample of 200 of 500" in found.truth
    assert "only the latency was measured" in found.notes[0]


def test_a_sample_is_of_stored_tokens_and_repeatable(store, documents):
    ids, tokens = sample_of(store, 30, seed=3)
    assert len(set(ids)) == 30
    for name, matrix in zip(ids, range(30), strict=True):
        expected = documents[int(name.removeprefix("doc-"))]
        np.testing.assert_allclose(tokens[matrix], expected, atol=1e-3)
    assert sample_of(store, 30, seed=3)[0] == ids != sample_of(store, 30, seed=4)[0]


def test_prefetch_of_a_collection_holds_on_held_out_queries(store, asked):
    found = tune_prefetch(store, asked["plain"], 0.9)
    assert found.prefetch in found.tried
    assert found.held
    assert found.held_out.mean >= 0.9
    assert max(found.tried) == found.prefetch  # nothing beyond what suffices is tried
    impossible = tune_prefetch(store, asked["plain"], 1.0, max_prefetch=12)
    assert (impossible.prefetch, impossible.held) == (None, None)
    assert impossible.verdict.startswith("Out of reach")


def test_an_empty_collection_is_refused(tmp_path):
    with (
        QdrantEdgeMuvera.create(tmp_path, "none", FDEEncoder(SMALL)) as empty,
        pytest.raises(InvalidInput, match="has no documents"),
    ):
        evaluate_store(empty, [np.ones((2, 128))])


# --- tune


@pytest.mark.parametrize("kind", ["plain", "shifted"])
def test_the_setting_chosen_holds_on_held_out_queries(kind, documents, shifted, asked):
    vectors = documents if kind == "plain" else shifted
    found = tune(vectors, asked[kind], 0.9, encoders=choices(), quantizations=["int8", "turbo2"], max_prefetch=300)
    assert found.held, found.verdict
    assert found.recommended.held_out.mean >= 0.9
    assert found.recommended == found.pareto[0]
    assert (found.chosen_with, found.reported_on) == (28, 27)
    sizes, depths = [s.bytes_per_document for s in found.pareto], [s.prefetch for s in found.pareto]
    assert sizes == sorted(sizes)
    assert depths == sorted(depths, reverse=True)
    assert len(set(sizes)) == len(set(depths)) == len(sizes)
    assert all(s.note or s.prefetch for s in found.settings)
    json.dumps(found.to_dict())


def test_a_regression_encoder_is_tried_like_any_other(documents, asked):
    def fit(tokens):
        return RegressionEncoder.fit(tokens, dim=64, sample_tokens=1500, features=256, references=300)

    tried = [EncoderChoice("r", "RegressionEncoder.fit(...)", fit)]
    found = tune(documents, asked["plain"], 0.85, encoders=tried, quantizations=["turbo4"])
    assert found.held, found.verdict


def test_a_miss_on_held_out_queries_is_said(documents, asked, monkeypatch):
    def missed(self, trial):
        trial.setting = replace(trial.setting, held_out=Interval(0.5, 0.4, 0.6))

    monkeypatch.setattr(tuning_module.Trials, "report", missed)
    found = tune(documents, asked["plain"], 0.9, encoders=choices()[1:2], quantizations=[])
    assert found.held is False
    assert "MISSES the target" in found.verdict


def test_held_out_queries_have_no_part_in_the_choice(documents, asked):
    found = tune(documents, asked["plain"], 0.9, encoders=choices(), quantizations=[])
    from muvera_adapters.evidence.queries import as_queries

    first, second = as_queries(asked["plain"]).halves(42)
    # other queries held out, same ones to choose with
    other = pseudo_queries(documents, len(second), seed=9)
    mixed = [other.tokens[int(i)] for i in range(len(second))]
    order = dict(zip(second.ids, mixed, strict=True))
    queries = [order.get(str(i), asked["plain"][i]) for i in range(len(asked["plain"]))]
    again = tune(documents, queries, 0.9, encoders=choices(), quantizations=[])
    assert [s.prefetch for s in again.settings] == [s.prefetch for s in found.settings]
    assert again.recommended.held_out != found.recommended.held_out
    assert len(first) == 28


def test_limits_are_kept(documents, asked):
    found = tune(documents, asked["plain"], 0.9, encoders=choices(), quantizations=["int8", "turbo4"], max_bytes=900)
    for setting in found.settings:
        assert (setting.note == "larger than 900 bytes") == (setting.bytes_per_document > 900)
    assert all(s.bytes_per_document <= 900 for s in found.pareto)
    hopeless = tune(documents, asked["plain"], 1.0, encoders=choices()[:1], quantizations=["int8"], max_prefetch=10)
    assert (hopeless.recommended, hopeless.held, hopeless.code) == (None, None, "")
    assert "No setting reaches" in hopeless.verdict
    with pytest.raises(InvalidInput, match="above 0 and at most 1"):
        tune(documents, asked["plain"], 95)


def test_tuning_depends_on_the_seed_alone(documents, asked):
    def once(seed):
        return tune(documents, asked["plain"], 0.9, encoders=choices(), quantizations=[], seed=seed)

    assert once(1) == once(1)
    assert once(1).recommended.held_out != once(2).recommended.held_out


def test_the_code_runs_and_finds(documents, asked, tmp_path, monkeypatch):
    found = tune(
        documents,
        asked["plain"],
        0.9,
        encoders=[
            EncoderChoice(
                "FDE",
                "FDEEncoder.fit(FDEConfig(dim=128, r_reps=20, k_sim=4, d_proj=8, seed=42), documents)",
                lambda d: FDEEncoder.fit(LARGE, d),
            )
        ],
        quantizations=["int8"],
    )
    monkeypatch.chdir(tmp_path)
    names = {"ids": list(range(500)), "documents": documents, "query_tokens": asked["plain"][0]}
    exec(found.code, names)
    with names["store"] as store:
        assert store.count() == 500
        assert [h.id for h in names["hits"]][:1] == [h.id for h in store.exact_search(asked["plain"][0], limit=1)]


# --- report


def test_the_report_is_one_page_with_everything(evaluation, tmp_path):
    pytest.importorskip("matplotlib")
    page = write_report(evaluation, tmp_path / "out", title="Docs & more").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "Docs &amp; more" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # names of XML, which nothing loads
    assert "<script" not in page
    markdown = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    mean = content["curves"][0]["points"][1]["recall"]["10"]["mean"]
    for text in (page, markdown):
        assert f"{mean:.3f}" in text
        assert "nDCG@10" in text
        assert "pseudo" not in text


def test_a_report_of_pseudo_queries_says_so(documents, tmp_path):
    pytest.importorskip("matplotlib")
    found = evaluate(FDEEncoder(SMALL), documents[:60], pseudo_queries(documents[:60], 8), quantizations=())
    write_report(found, tmp_path)
    for name in ("evaluation.html", "evaluation.md", "evaluation.json"):
        assert "pseudo-queries" in (tmp_path / name).read_text(encoding="utf-8")


# --- estimate


def test_sizes_grow_with_everything_and_two_stages_are_smaller():
    for database in ("qdrant", "weaviate", "milvus"):
        two, tokens = estimate(1000, 100, 10_240, databases=[database])
        assert (two.layout, tokens.layout) == ("two stages", "a vector per token")
        more = estimate(2000, 100, 10_240, databases=[database])[0]
        assert more.ram > 1.9 * two.ram
        assert estimate(1000, 200, 10_240, databases=[database])[1].ram > 1.9 * tokens.ram
    for database in ("qdrant", "weaviate"):
        two, tokens = estimate(1_000_000, 100, 10_240, databases=[database])
        assert two.ram < tokens.ram / 5


def test_unknown_names_are_refused():
    with pytest.raises(InvalidInput, match="'oracle' is not a database"):
        estimate(10, 10, 64, databases=["oracle"])
    with pytest.raises(InvalidInput, match="qdrant has no quantization 'rq8'"):
        estimate(10, 10, 64, databases=["qdrant"], quantization="rq8")
    with pytest.raises(InvalidInput, match="at least 1"):
        estimate(0, 10, 64)


@pytest.mark.parametrize("quantization", ["int8", "turbo4", "turbo2", "binary", "none"])
def test_qdrants_files_are_as_estimated(quantization, documents):
    encoder, n = FDEEncoder(SMALL), len(documents)
    with local_index(encoder, documents, None if quantization == "none" else quantization, store_tokens=True) as store:
        path = store._shard.path
        sizes = {f.name: f.stat().st_size for f in path.rglob("vector_*-fde/*") if f.is_file()}
        (found, _) = estimate(n, documents.lengths.mean(), encoder.dim, databases=["qdrant"], quantization=quantization)
        parts = {part.name.split(",")[0]: part for part in found.parts}
        assert sizes["matrix.dat"] == pytest.approx(parts["encodings"].disk, rel=0.001)
        if quantization != "none":
            assert sizes["quantized.data"] == pytest.approx(parts["codes"].disk, rel=0.01)
        links = next(size for name, size in sizes.items() if name.startswith("links"))
        assert 0.2 * parts["graph"].disk < links <= 1.1 * parts["graph"].disk
