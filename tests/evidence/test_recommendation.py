"""What ``recommend`` chooses, that it measures what it says, and that ``diagnose`` and ``tune`` agree with it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.evidence import EncoderChoice, default_encoders, diagnose, recommend, tune
from muvera_adapters.evidence.measuring import Interval
from muvera_adapters.evidence.queries import as_queries
from muvera_adapters.evidence.target_recall import GROWTH, grid, grown
from muvera_adapters.evidence.tuning_trials import Setting, best_setting
from muvera_adapters.samples import anisotropic
from muvera_core import FDEConfig, FDEEncoder, InvalidTokens, RegressionEncoder, TokenBatch, maxsim
from muvera_core.tokens import to_batch


@pytest.fixture(scope="module")
def documents(pydocs_documents):
    return pydocs_documents[:500]


@pytest.fixture(scope="module")
def queries(pydocs):
    return pydocs.queries


def small_regression(tokens):
    return RegressionEncoder.fit(tokens, dim=64, sample_tokens=1500, features=256, references=300)


REGRESSION = EncoderChoice("regression 64", "RegressionEncoder.fit(...)", small_regression, travels=False)
TINY = EncoderChoice("tiny", "FDEEncoder(...)", lambda _: FDEEncoder(FDEConfig(128, r_reps=2, k_sim=1, d_proj=4)))


def fdes(documents):
    return [choice for choice in default_encoders(documents, 42) if choice.travels]


@pytest.fixture(scope="module")
def found(documents, queries):
    return recommend(documents, queries, recall=0.9)


def test_the_choice_is_ready_and_measured(found, documents, queries):
    assert (found.reached, found.held, found.documents, found.warnings) == (True, True, 500, [])
    assert (found.chosen_with, found.reported_on, found.queries_are) == (28, 27, "given")
    assert found.setting in found.tried
    assert found.setting.travels
    assert found.bytes_per_document == found.setting.bytes_per_document < 1000
    # the first stage itself, on the queries that had no part in the choice
    unseen = as_queries(queries).halves(42)[1].tokens
    encoded = found.encoder.encode_documents(documents)
    shares = []
    for i in range(len(unseen)):
        exact = set(np.argsort(-maxsim(unseen[i], documents), kind="stable")[:10])
        candidates = np.argsort(-(encoded @ found.encoder.encode_query(unseen[i])))[: found.prefetch]
        shares.append(len(exact & set(candidates)) / 10)
    assert np.mean(shares) == pytest.approx(found.recall.mean, abs=0.02)
    json.dumps(found.to_dict())


def test_the_result_is_a_readable_table(found):
    lines = str(found).splitlines()
    assert lines[0] == found.verdict
    chosen = [line for line in lines if line.startswith("*")]
    assert len(chosen) == 1
    assert all(text in chosen[0] for text in (found.setting.encoder, found.quantization, str(found.prefetch)))
    assert sum(each.encoder in line for each in found.tried for line in lines[2:]) >= len(found.tried)
    assert any("not run; in float32 it needs" in line for line in lines)


def test_tune_and_diagnose_agree_with_it(found, documents, queries):
    few = {"encoders": fdes(documents), "quantizations": [found.quantization]}
    tuned = tune(documents, queries, 0.9, **few).recommended
    assert (tuned.encoder, tuned.quantization, tuned.prefetch) == (
        found.setting.encoder,
        found.setting.quantization,
        found.prefetch,
    )
    diagnosis = diagnose(documents, queries, recall=0.9)
    assert diagnosis.verdict == "fde"
    scanned = {each.encoder: each.prefetch for each in diagnosis.scanned}
    assert scanned == {each.encoder: each.scanned for each in found.tried}
    assert best_setting(diagnosis.scanned).travels
    assert all(found.prefetch >= scanned[each.encoder] for each in found.tried if each is found.setting)


def test_held_out_queries_have_no_part_in_the_choice(documents, queries):
    asked = as_queries(queries)
    first, second = asked.halves(42)
    order = dict(zip(second.ids, [np.array(documents[i][:8]) for i in range(len(second))], strict=True))
    other = [order.get(str(i), queries[i]) for i in range(len(queries))]
    once, again = (
        recommend(documents, each, recall=0.9, encoders=fdes(documents), quantizations=[]) for each in (queries, other)
    )
    assert (once.setting.chosen, once.prefetch) == (again.setting.chosen, again.prefetch)
    assert once.recall != again.recall
    assert len(first) == once.chosen_with


def test_the_code_of_a_choice_makes_its_encoder(documents):
    names = {"FDEConfig": FDEConfig, "FDEEncoder": FDEEncoder, "documents": documents}
    shifted = anisotropic(documents, documents.values.mean(axis=0), 1.5)
    for vectors in (documents, shifted):
        for choice in fdes(vectors):
            made = choice.make(vectors)
            assert choice.name.startswith(f"FDE {made.dim:,}")
            assert eval(choice.code, {**names, "documents": vectors}).fingerprint == made.fingerprint
            assert choice.name.endswith("fitted") == (made.mean is not None) == (vectors is shifted)


def test_the_sizes_are_those_for_the_length_of_documents(documents):
    long = TokenBatch(documents.values, documents.offsets[::10])
    for vectors, sizes in ((documents, (40, 3)), (long, (20, 4))):
        config = fdes(vectors)[1].make(vectors).config
        assert (config.fde_dim, config.r_reps, config.k_sim) == (2560, *sizes)


def test_a_shared_direction_is_fitted(documents, queries):
    mean = documents.values.mean(axis=0)
    found = recommend(
        anisotropic(documents, mean, 1.5), anisotropic(queries, mean, 1.5), recall=0.9, quantizations=["turbo2"]
    )
    assert found.encoder.mean is not None
    assert {each.encoder for each in found.tried} == {"FDE 640, fitted", "FDE 2,560, fitted", "FDE 10,240, fitted"}


def test_what_does_not_travel_is_chosen_only_where_nothing_else_will_do(documents, queries):
    both = [REGRESSION, *fdes(documents)[:1]]
    first = recommend(documents, queries, recall=0.9, encoders=both, quantizations=[])
    assert first.setting.travels
    assert [each.encoder for each in first.tried] == ["FDE 640"]  # the other was not even fitted
    second = recommend(documents, queries, recall=0.8, encoders=[REGRESSION, TINY], quantizations=[])
    assert second.setting.encoder == "regression 64"
    assert any("save it" in warning for warning in second.warnings)
    assert 'encoder.save("encoder.npz")' in second.code
    only = recommend(documents, queries, recall=0.8, encoders=[REGRESSION, TINY], travels=True, quantizations=[])
    assert only.setting.encoder == "tiny"
    assert not only.reached
    assert any("Nothing reaches" in warning for warning in only.warnings)


def test_a_limit_of_bytes_is_kept_or_the_least_is_named(documents, queries):
    encoders = fdes(documents)[:2]
    limited = recommend(documents, queries, recall=0.9, bytes_per_document=800, encoders=encoders)
    assert limited.bytes_per_document <= 800
    free = recommend(documents, queries, recall=0.9, encoders=encoders)
    assert limited.prefetch <= free.prefetch  # what fits is used
    with pytest.raises(InvalidInput, match=r"bytes_per_document=100 is too small: the least is 2\d\d, of FDE 640"):
        recommend(documents, queries, bytes_per_document=100, encoders=encoders)


def test_without_queries_pseudo_queries_are_drawn_and_said_to_be_so(documents):
    found = recommend(documents, recall=0.8, encoders=fdes(documents)[:1], quantizations=[])
    assert found.queries_are == "pseudo"
    assert (found.chosen_with, found.reported_on) == (100, 100)
    assert any("pseudo-queries" in warning for warning in found.warnings)
    assert "pseudo-queries" in found.verdict


def test_a_sample_is_drawn_and_few_queries_are_said(documents, queries):
    found = recommend(documents, queries[:4], recall=0.5, encoders=fdes(documents)[:1], quantizations=[], sample=150)
    assert found.documents == 150
    assert any("150 documents are too few" in warning for warning in found.warnings)
    assert any("150 of 500 documents" in warning for warning in found.warnings)
    assert any("2 queries are too few" in warning for warning in found.warnings)


def test_candidates_grow_with_the_collection(documents, queries):
    options = {"recall": 0.9, "encoders": fdes(documents)[:1], "quantizations": []}
    alone = recommend(documents, queries, **options)
    assert (alone.collection, alone.prefetch) == (500, alone.measured_prefetch)
    assert "projection" not in alone.verdict
    larger = recommend(documents, queries, collection=50_000, **options)
    assert (larger.collection, larger.documents) == (50_000, 500)
    assert (larger.measured_prefetch, larger.recall) == (alone.measured_prefetch, alone.recall)
    assert larger.prefetch == grown(alone.prefetch, 500, 50_000) > 2 * alone.prefetch
    assert f"prefetch={larger.prefetch} for 50,000 documents (a projection)" in larger.verdict
    assert f"prefetch={larger.prefetch}" in larger.code
    assert any("500 of 50,000 documents; prefetch is projected" in warning for warning in larger.warnings)
    with pytest.raises(WrongUsage, match="collection must be at least the number of documents given, 500, got 499"):
        recommend(documents, queries, collection=499)


def test_the_rule_of_growth_is_the_documented_power():
    assert grown(200, 5000, 4000) == grown(200, 5000, 5000) == 200
    for sample, collection in ((5000, 20_000), (2000, 1_000_000)):
        exact = 200 * (collection / sample) ** GROWTH
        assert exact <= grown(200, sample, collection) <= 1.67 * exact  # rounded up to a step
    assert grown(200, 300, 310) <= 310


def test_the_rule_of_growth_covers_the_curve_of_the_docs():
    rows = json.loads((Path(__file__).parents[2] / "docs" / "figures" / "scale.json").read_text())
    needed = {(row["encoder"], row["documents"]): row["needed"] for key, row in rows.items() if key.startswith("scan")}
    least = min(size for _, size in needed)
    assert max(size for _, size in needed) == 40 * least
    for (encoder, size), found in needed.items():
        for target, candidates in found.items():
            tried = next(n for n in grid(1, 5000) if n >= needed[encoder, least][target])
            assert grown(tried, least, size) >= candidates, (encoder, size, target)


def test_what_cannot_be_chosen_for_is_refused(documents, queries):
    with pytest.raises(InvalidTokens, match="token 1 of document 2 is all zeros"):
        recommend([documents[0], documents[1], np.eye(128, dtype=np.float32)[[0]] * [[1.0], [0.0]]], queries)
    with pytest.raises(InvalidInput, match="tells nothing"):
        recommend(documents[:9], queries)
    for function in (recommend, tune, diagnose):
        with pytest.raises(InvalidInput, match="queries have token vectors of width 5, documents of width 128"):
            function(documents[:30], [np.ones((3, 5), np.float32)] * 8)
    for few in ([], documents[:1]):  # without queries too, which cannot be drawn from them
        with pytest.raises(InvalidInput, match=f"of {len(few)} documents tells nothing"):
            recommend(few)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 95}, "above 0 and at most 1, got 95"),
        ({"recall": float("nan")}, "above 0 and at most 1, got nan"),
        ({"k": 0}, "k must be at least 1"),
        ({"max_prefetch": 9}, "max_prefetch at least k, got 10 and 9"),
        ({"sample": 0}, "sample must be at least 1"),
        ({"seed": -1}, "seed at least 0, got 5000 and -1"),
        ({"bytes_per_document": 0}, "bytes_per_document must be a positive number, got 0"),
        ({"bytes_per_document": float("nan")}, "bytes_per_document must be a positive number, got nan"),
        ({"encoders": []}, "none of the 0 encoders can be tried"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(documents, options, message):
    with pytest.raises(WrongUsage, match=message):
        recommend(documents[:20], **options)


def test_an_encoder_that_cannot_be_made_is_named(documents):
    long = [5000 * document for document in documents[:20]]
    with pytest.raises(
        InvalidInput, match=r"regression 64 cannot be made for these documents: .*length of about 5e\+03"
    ):
        recommend(long, encoders=[REGRESSION], quantizations=[])


def test_encoders_that_would_not_travel_are_refused_where_only_such_may_be_tried(documents):
    saved = default_encoders(to_batch(documents[:20]), 42)[-1]
    with pytest.raises(WrongUsage, match="none of the 1 encoders can be tried with travels=True"):
        recommend(documents[:20], encoders=[saved], travels=True)


# --- the rule

PLAIN = Setting("FDE", "FDEEncoder(...)", 640, "turbo2", 250.0, prefetch=200, chosen=Interval(0.97, 0.95, 0.99))
LARGE = replace(PLAIN, encoder="large", bytes_per_document=700.0, prefetch=100)
SAVED = replace(PLAIN, encoder="regression", bytes_per_document=90.0, prefetch=50, travels=False)
OUT_OF_REACH = replace(PLAIN, encoder="tiny", bytes_per_document=50.0, prefetch=None, chosen=Interval(0.8, 0.7, 0.9))
UNKNOWN = replace(PLAIN, encoder="not run", bytes_per_document=10.0, prefetch=None, chosen=None)


@pytest.mark.parametrize(
    ("settings", "max_bytes", "best"),
    [
        ([SAVED, LARGE, PLAIN, OUT_OF_REACH, UNKNOWN], None, PLAIN),  # the smallest that needs no care
        ([SAVED, LARGE, PLAIN, OUT_OF_REACH], 1000, LARGE),  # the best under the limit
        ([SAVED, LARGE, PLAIN, OUT_OF_REACH], 100, SAVED),
        ([SAVED, OUT_OF_REACH], None, SAVED),
        ([OUT_OF_REACH, UNKNOWN], None, OUT_OF_REACH),
        ([LARGE, UNKNOWN], 100, None),
    ],
)
def test_one_rule_chooses(settings, max_bytes, best):
    assert best_setting(settings, max_bytes) is best
